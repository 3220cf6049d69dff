package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A rule from nothing to members: suggestions, whom it matches, the plan, saved.
func TestConsoleMakesChangesAndDeletesARule(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.signIn("/rules")
	if rows := s.read("tbody tr"); len(rows) != 2 || !strings.Contains(rows[0], "groupgate.yaml:") || !strings.Contains(rows[0], "read-only") || !strings.Contains(rows[1], "operations") {
		t.Fatalf("rows %q", rows)
	}
	s.look("rules")

	s.click(".head [data-rule-add]")
	s.see("#rule[open] #rule-form")
	s.look("rules-add-empty")
	s.choose("#rule-source", "op")
	s.click("#rule-claim")
	s.see("#rule-form [role=option] >> text=groups")
	s.key("ArrowDown")
	s.key("Enter")
	if got := s.values("#rule-claim"); got[0] != "groups" {
		t.Fatalf("attribute %q", got)
	}
	s.click("#rule-value")
	s.see("[role=option]:has-text('unknown-team'):has-text('people: 1')")
	s.overlaid("rules-add-values")
	s.click("[role=option]:has-text('unknown-team')")
	s.see("text=Matching people: 1 of 3")
	if got := s.read("#rule-known tbody td"); !slices.Equal(got, []string{"alice", "unknown-team", "–"}) {
		t.Errorf("known: %q", got)
	}
	s.click("#rule-group")
	s.see("[role=option]:has-text('board'):has-text('managed by hand')")
	s.key("Escape") // of the suggestions, not of the dialog
	s.gone("[role=option]")
	s.see("#rule[open]")
	s.fill("#rule-group", "sailors")
	s.see("#rule-known td >> text=sailors")
	s.look("rules-add")
	s.click("#rule-form .primary")
	s.see("#rule-save:enabled")
	if got := s.read("#rule-changes td"); !slices.Equal(got, []string{"sailors new group", "+1", "–", "alice", "+sailors", "–"}) {
		t.Errorf("plan: %q", got)
	}
	s.look("rules-plan")
	if g.in("sailors") != "" {
		t.Error("the plan changed something")
	}
	s.click("#rule-back")
	s.see("#rule-form")
	s.click("#rule-form .primary")
	s.see("#rule-save:enabled")
	s.click("#rule-save")
	s.gone("#rule[open]")
	s.expect("The rule is saved and holds for everybody.")
	if got := g.in("sailors"); got != "alice" {
		t.Errorf("sailors: %q", got)
	}

	s.click("tr:has-text('sailors') [data-rule-edit]")
	if got := s.values("#rule-source, #rule-claim, #rule-match, #rule-value, #rule-group"); !slices.Equal(got, []string{"op", "groups", "value", "unknown-team", "sailors"}) {
		t.Errorf("the dialog has %q", got)
	}
	s.fill("#rule-value", "eng")
	s.see("text=Matching people: 2 of 3")
	s.click("#rule-form .primary")
	s.see("#rule-save:enabled")
	s.click("#rule-save")
	s.gone("#rule[open]")
	s.expect("The rule is saved and holds for everybody.")
	if got := g.in("sailors"); got != "alice bob" {
		t.Errorf("sailors: %q", got)
	}

	s.click("tr:has-text('sailors') [data-rule-delete]")
	s.expect("Delete this rule?")
	s.see("#rule-save:enabled")
	s.see("#rule-guard >> text=The guard lets this through.")
	s.look("rules-delete")
	s.click("#rule-save")
	s.expect("The rule is deleted.")
	s.gone("td:has-text('sailors')")
	if got := g.in("sailors"); got != "" {
		t.Errorf("sailors: %q", got)
	}
}

// overlaid is judge for a page of which something covers a part: axe cannot
// see the colours beneath.
func (s *surfer) overlaid(name string) {
	s.t.Helper()
	if s.shots != "" {
		s.do(step{"shot": filepath.Join(s.shots, name+".png")}, nil)
	}
	var got struct{ Axe verdict }
	s.do(step{"look": name}, &got)
	for _, broken := range got.Axe.Violations {
		s.t.Errorf("%s: %s", name, broken)
	}
	if len(got.Axe.Passes) < 10 {
		s.t.Errorf("%s: axe kept %q", name, got.Axe.Passes)
	}
}

// in lists who is in a group, by user name.
func (c *consoleGate) in(group string) string {
	c.tb.Helper()
	var found struct{ Items []struct{ User string } }
	c.api("GET", "/groups/"+group+"/members", nil, &found)
	var names []string
	for _, m := range found.Items {
		names = append(names, m.User)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// With the keyboard alone, on a phone.
func TestConsoleMakesARuleByKeyboard(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, phone)
	s.signIn("/rules")
	s.tab(".head [data-rule-add]")
	s.key("Enter")
	s.see("#rule[open]")
	s.typed("groups") // the field has the focus
	s.tab("#rule-value")
	s.key("ArrowDown")
	s.see("[role=option]")
	s.key("ArrowDown") // eng and ops, of two people each
	s.key("ArrowDown")
	s.key("Enter")
	if got := s.values("#rule-value"); got[0] != "ops" {
		t.Errorf("value %q", got)
	}
	s.tab("#rule-group")
	s.typed("crew")
	s.key("Enter")
	s.see("#rule-save:enabled")
	if f := s.focus(); f.Text != "What this changes" {
		t.Errorf("focus at %+v", f)
	}
	s.tab("#rule-save")
	if f := s.focus(); f.Outline < 2 || !f.Inside {
		t.Errorf("focus is not seen: %+v", f)
	}
	s.key("Enter")
	s.gone("#rule[open]")
	s.expect("The rule is saved and holds for everybody.")
	if got := g.in("crew"); got != "alice carol" {
		t.Errorf("crew: %q", got)
	}
	s.tab(".head [data-rule-add]")
	s.key("Enter")
	s.see("#rule[open]")
	s.key("Escape")
	s.gone("#rule[open]")
}

// Faults stand at their fields; those of fields that nobody came to yet wait.
func TestConsoleSaysFaultsOfARuleAtTheirFields(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.signIn("/rules")
	s.click(".head [data-rule-add]")
	s.fill("#rule-claim", "groups")
	s.choose("#rule-match", "regexp")
	s.fill("#rule-value", "(")
	s.see("#rule-value-error")
	s.gone("#rule-group-error")
	s.fill("#rule-value", "team-(.*)")
	s.gone("#rule-value-error")
	s.fill("#rule-group", "$2")
	s.see("#rule-group-error")
	s.fill("#rule-group", "x-$1")
	s.gone("#rule-group-error")
	s.click("#rule summary")
	s.fill("#rule-when", "claims.")
	s.see("#rule-when-error")
	s.look("rules-faults")
	s.fill("#rule-when", "")
	s.fill("#rule-group", "")
	s.click("#rule-form .primary")
	s.see("#rule-group-error")
	if f := s.attribute("id", "#rule :focus"); !slices.Equal(f, []string{"rule-group"}) {
		t.Errorf("focus at %q", f)
	}
	s.choose("#rule-match", "any")
	s.gone("#rule-value")
	s.gone("#rule-group")
	s.see("text=Matching people: 3 of 3")
	s.click("#rule-form .primary")
	s.see("#rule-save:enabled")
	if got := s.read("#rule-changes .badge"); len(got) != 3 { // eng, ops, unknown-team
		t.Errorf("new groups %q", got)
	}
	s.look("rules-plan-any")
}

// Two administrators: who comes later is told, and overwrites nothing.
func TestConsoleDoesNotOverwriteAnotherAdministratorsRule(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	var have struct{ Items []struct{ ID, Owner string } }
	g.api("GET", "/rules", nil, &have)
	address := "/rules/" + have.Items[1].ID
	s := g.surf(t, wide)
	s.signIn("/rules")

	s.click("[data-rule-edit]")
	s.fill("#rule-group", "mine")
	g.made("PUT", address, map[string]any{"claim": "groups", "value": "ops", "group": "operations", "when": "true"})
	s.click("#rule-form .primary") // already the plan sees it
	s.expect("Somebody else changed or deleted this rule meanwhile.")
	s.look("rules-changed")
	s.click("#rule [role=alert] button")
	s.gone("#rule[open]")

	s.click("[data-rule-edit]")
	s.fill("#rule-group", "mine")
	s.click("#rule-form .primary")
	s.see("#rule-save:enabled")
	g.made("PUT", address, map[string]any{"claim": "groups", "value": "ops", "group": "theirs"})
	s.click("#rule-save") // and the write does
	s.expect("Somebody else changed or deleted this rule meanwhile.")
	s.see("#rule-save:disabled")
	s.click("#rule [role=alert] button")
	s.see("td >> text=theirs")
	if g.in("theirs") != "alice carol" || g.in("mine") != "" {
		t.Errorf("mine %q, theirs %q", g.in("mine"), g.in("theirs"))
	}

	s.click("[data-rule-delete]")
	s.see("#rule-save:enabled")
	if status := g.api("DELETE", address, nil, nil); status != http.StatusNoContent {
		t.Fatalf("DELETE: %d", status)
	}
	s.click("#rule-save")
	s.expect("Somebody else changed or deleted this rule meanwhile.")
	s.click("#rule [role=alert] button")
	s.gone("[data-rule-delete]")
}

// The guard's verdict, and the way to the dialog by an address.
func TestConsoleSaysThatTheGuardWouldStop(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "sync: {guard: {max_removed_users: 1}}\n")
	g.made("POST", "/rules", map[string]any{"claim": "groups", "value": "ops", "group": "crew"})
	s := g.surf(t, wide)
	s.signIn("/rules")
	s.click("tr:has-text('crew') [data-rule-delete]")
	s.see("#rule-guard >> text=The guard would stop the removals.")
	s.expect("People who would have lost a group: 2. Allowed at a time: 1, of 3 who")
	s.look("rules-guard")
	s.click("#rule-back")
	s.gone("#rule[open]")

	s.open("/rules?new=1&source=op&claim=groups&value=unknown-team&group=teams")
	s.see("text=Matching people: 1 of 3")
	if got := s.values("#rule-source, #rule-claim, #rule-value, #rule-group"); !slices.Equal(got, []string{"op", "groups", "unknown-team", "teams"}) {
		t.Errorf("the dialog has %q", got)
	}
	s.click("#rule-form .primary")
	s.see("#rule-save:enabled")
	s.click("#rule-save")
	s.gone("#rule[open]")
	s.expect("The rule is saved and holds for everybody.")
	s.at("/rules?group=teams")
	if rows := s.read("tbody tr"); len(rows) != 1 {
		t.Errorf("rows %q", rows)
	}
}

// Search and paging work by links and a form, without the script.
func TestConsoleFindsRules(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	for i := range 5 {
		g.made("POST", "/rules", map[string]any{"claim": "groups", "value": fmt.Sprint("v", i), "group": fmt.Sprint("many-", i)})
	}
	s := g.surf(t, wide)
	s.signIn("/rules")
	s.open("/rules?query=many&limit=2")
	if rows := s.read("tbody tr"); len(rows) != 2 {
		t.Errorf("rows %q", rows)
	}
	s.click("a[rel=next]")
	s.click("a[rel=next]")
	if rows := s.read("tbody tr"); len(rows) != 1 {
		t.Errorf("last page %q", rows)
	}
	s.fill("#rules-query", "nothing like it")
	s.click(".rules-filter button")
	s.expect("No rule fits")
	s.look("rules-none")
	s.open("/rules?group=many-3")
	s.expect("Rules for many-3")
	if rows := s.read("tbody tr"); len(rows) != 1 {
		t.Errorf("of the group: %q", rows)
	}
	s.look("rules-group")
	s.click(".head [data-rule-add]")
	if got := s.values("#rule-group"); got[0] != "many-3" {
		t.Errorf("the group is %q", got)
	}
}
