package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// Sources that work, one that does not, and a directory that is asked about
// people.
func TestConsoleTestsSources(t *testing.T) {
	t.Parallel()
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	d.Put(d.Person("erik", alicesPassword))
	d.Put(d.Group("team", d.PersonDN("erik")), d.Group("all", d.GroupDN("team")))
	p := newPlace(t)
	g := &consoleGate{up: newUpstream(t), op: claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", "eng")}})}
	p.write(t, g.up.URL, oidc("op", g.op.URL, opSecret)+oidc("gone", "http://127.0.0.1:1", opSecret)+fmt.Sprintf(`
  - name: corp
    label: Company directory
    ldap: {url: %q, bind_dn: %q, bind_password: %q, base_dn: %q, ca_file: %q, nested_groups: true}
`, d.URLS, d.ServiceDN, d.ServicePassword, d.BaseDN, d.CAFile), consoleRules)
	g.gate = p.start(t)
	g.enter(t, "alice")
	s := g.surf(t, wide)
	s.signIn("/sources")
	s.see("text=OpenID Connect")
	if got := strings.Join(s.read(".card a[href*='/people/']"), " "); got != "alice" {
		t.Errorf("signed in: %q", got)
	}
	s.see(".operate-problem")
	s.look("sources")

	s.click("[data-set-source=op]")
	s.see("#source-test[open]")
	s.gone("#source-person")
	s.click("#source-test .primary")
	s.see(".operate-verdict .ok")
	s.look("source-test-op")
	s.key("Escape")
	s.gone("#source-test[open]")
	if f := s.focus(); !strings.HasPrefix(f.Text, "Test") || f.Outline < 2 {
		t.Errorf("the focus is back at %+v", f)
	}

	s.click("[data-set-source=gone]")
	s.key("Enter") // the button has the focus
	s.see(".operate-verdict .bad")
	s.look("source-test-gone")
	s.click("#source-test [data-close]")

	// With the keyboard alone.
	s.tab("[data-set-source=corp]")
	s.key("Enter")
	s.see("#source-person")
	s.gone("#source-result *") // nothing of the source before
	s.typed("nobody")
	s.key("Enter")
	s.see("#source-result .notice")
	s.fill("#source-person", "erik")
	s.key("Enter")
	s.see("#source-result tbody tr")
	got := strings.Join(s.read("#source-result"), " ")
	for _, want := range []string{"The source works.", d.PersonDN("erik"), "could sign in", d.GroupDN("all"), "through", d.GroupDN("team"), "directly"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	s.look("source-test-directory")
}

// The guard stops removals; an administrator keeps waiting, then lets them go
// on.
func TestConsoleDecidesForTheGuard(t *testing.T) {
	t.Parallel()
	g := newConsole(t, `  - {source: op, claim: groups, value: eng, group: board}
sync: {guard: {max_removed_users: 1, window: 1h}}
`)
	s := g.surf(t, wide)
	s.signIn("/sync")
	s.see("text=Watching")
	s.see("text=Sessions in use")
	s.gone("#guard-allow")
	for _, name := range []string{"bob", "alice"} {
		g.op.SetPerson(person(name))
		g.enter(t, name)
	}
	s.open("/sync")
	s.see("text=Removals stopped.")
	if got := s.read(".operate-waiting tbody td:first-child"); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("who waits: %q", got)
	}
	s.look("sync-stopped")
	s.click("[data-open=guard-allow]")
	s.see("#guard-allow[open]")
	if f := s.focus(); f.Text != "Keep waiting" {
		t.Errorf("the focus is at %+v", f)
	}
	s.look("sync-decide")
	s.key("Enter")
	s.gone("#guard-allow[open]")
	if in := g.groupsOf("alice"); !slices.Contains(in, "engineering") {
		t.Errorf("alice, while removals wait, is in %q", in)
	}
	s.click("[data-open=guard-allow]")
	s.click("#guard-allow .danger")
	s.expect("Removals go on.")
	s.see("text=Watching")
	s.gone("text=Removals stopped.")
	if in := g.groupsOf("alice"); slices.Contains(in, "engineering") {
		t.Errorf("alice, once they go on, is in %q", in)
	}
	s.look("sync")
	s.click(".operate-numbers summary >> nth=0")
	s.see(".operate-numbers table >> nth=0")
	s.look("sync-numbers")
}

// What was skipped is let in by what it lacks: the group is made, a rule leads
// to an allowed name, SSO decides about the group. Then it is settled.
func TestConsoleLetsSkippedValuesIn(t *testing.T) {
	t.Parallel()
	g := newConsole(t, `  - {source: op, claim: groups, value: unknown-team, group: crew}
  - {source: op, claim: groups, value: eng, group: board}
  - {source: op, claim: preferred_username, value: carol, group: odd name}
groups: [{name: engineering, control: sso}]
sync: {create_new_groups: false, group_names: "[a-z]+"}
`)
	s := g.surf(t, wide)
	s.signIn("/sync")
	row := func(group string) string { return "[aria-labelledby=sync-skipped] tbody tr:has-text('" + group + "') " }
	s.look("sync-skipped")
	s.click(row("crew") + "button")
	s.see("#skip-group[open]")
	s.expect("What is missing is the group")
	s.look("sync-make-group")
	s.click("#skip-group .primary")
	s.expect("The group is made.")
	s.see(row("crew") + ">> text=Settled meanwhile")
	g.enter(t, "alice")
	if in := g.groupsOf("alice"); !slices.Contains(in, "crew") {
		t.Errorf("alice is in %q", in)
	}

	s.click(row("odd name") + "a.button")
	s.see("#rule[open]")
	if got := s.values("#rule-source, #rule-claim, #rule-value, #rule-group"); !slices.Equal(got, []string{"op", "preferred_username", "carol", ""}) {
		t.Errorf("the dialog has %q", got)
	}
	s.typed("crew") // the group has the focus
	s.key("Enter")
	s.see("#rule-save:enabled")
	s.click("#rule-save")
	s.expect("The rule is saved")
	if in := g.groupsOf("carol"); !slices.Contains(in, "crew") {
		t.Errorf("carol is in %q", in)
	}

	s.open("/sync")
	s.see(row("odd name") + ">> text=Settled meanwhile")
	s.click(row("board") + "a.button")
	s.see("#group-switch[open]")
	s.click("#group-switch .primary")
	s.see(".head .badge.sso")
	s.gone("#group-switch[open]")
	s.open("/sync")
	s.see(row("board") + ">> text=Settled meanwhile")
}

func (c *consoleGate) groupsOf(name string) (in []string) {
	c.tb.Helper()
	var u struct{ Memberships []struct{ Group string } }
	if status := c.api("GET", "/users/"+c.user(name), nil, &u); status != http.StatusOK {
		c.tb.Fatalf("%s: %d", name, status)
	}
	for _, m := range u.Memberships {
		in = append(in, m.Group)
	}
	return in
}

// The trail is filtered by clicks and keys, paged, and taken home.
func TestConsoleFiltersTheTrail(t *testing.T) {
	t.Parallel()
	g := newConsole(t, `  - {source: op, claim: groups, value: ops, group: board}
`)
	for range 3 {
		g.enter(t, "bob")
	}
	s := g.surf(t, wide)
	s.signIn("/audit")
	s.see(".operate-trail")
	s.look("audit")
	s.choose("#kind", "sync")
	s.fill("#user", "ALICE")
	s.key("Enter")
	s.at("user=ALICE")
	rows := s.read(".operate-trail tbody tr")
	if len(rows) != 1 || !strings.Contains(rows[0], "+engineering") || !strings.Contains(rows[0], "board (the group is managed by hand)") {
		t.Errorf("alice's sync: %q", rows)
	}
	s.look("audit-filtered")
	name, content := s.download("text=Export as CSV")
	all, err := csv.NewReader(strings.NewReader(content)).ReadAll()
	if err != nil || len(all) != 2 || !regexp.MustCompile(`^audit-\d{4}-\d\d-\d\d\.csv$`).MatchString(name) || !slices.Contains(all[1], "alice") {
		t.Errorf("%s: %q, %v", name, all, err)
	}
	name, content = s.download("text=Export as JSON lines")
	var e struct{ Kind, User string }
	if err := json.Unmarshal([]byte(content), &e); err != nil || e.Kind != "sync" || e.User != "alice" || !strings.HasSuffix(name, ".jsonl") {
		t.Errorf("%s: %q, %v", name, content, err)
	}
	s.click(".operate-trail a[href*='request=']")
	s.at("/audit?request=")
	if kinds := s.read(".operate-trail .badge"); !slices.Contains(kinds, "Sign-in") || !slices.Contains(kinds, "Sync") {
		t.Errorf("of one request: %q", kinds)
	}
	s.click("text=Show everything")
	s.at("/audit")
	s.fill("#user", "nobody-has-this")
	s.click(".operate-filter .primary")
	s.see("#user-error")
	s.look("audit-nobody")

	s.open("/audit?limit=4&source=op")
	first := s.read(".operate-trail tbody tr")
	s.click("text=Next page")
	s.at("after=")
	s.at("source=op")
	second := s.read(".operate-trail tbody tr")
	if len(first) != 4 || len(second) == 0 || slices.Equal(first, second) {
		t.Errorf("pages: %q, %q", first, second)
	}
	s.click("text=First page")
	s.see("#source")
	if again := s.read(".operate-trail tbody tr"); !slices.Equal(again, first) {
		t.Errorf("the first page again: %q", again)
	}
}
