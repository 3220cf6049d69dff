package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A group from its making to its end, and what the list says meanwhile.
func TestConsoleGroups(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.signIn("/groups")
	names := "tbody .groups-name a"
	if got := s.read(names); !slices.Equal(got, []string{"board", "empty", "engineering", "operations"}) {
		t.Fatalf("groups: %q", got)
	}
	s.look("groups")
	s.click("thead a >> nth=1") // by members
	s.at("sort=members")
	if got := s.read(names); len(got) != 4 || got[0] != "engineering" || got[1] != "board" {
		t.Errorf("by members: %q", got)
	}
	s.choose("#control", "manual")
	s.fill("#query", "BOA")
	s.click("[role=search] button")
	s.at("control=manual")
	if got := s.read(names); !slices.Equal(got, []string{"board"}) {
		t.Errorf("searched: %q", got)
	}
	s.open("/groups?query=nothing-like-it")
	s.see(".empty h2")
	s.look("groups-none")
	s.open("/groups?limit=3")
	s.click("[rel=next]")
	s.expect("operations")
	if got := s.read(names); !slices.Equal(got, []string{"operations"}) {
		t.Errorf("second page: %q", got)
	}

	// Made by the keyboard alone, after a fault.
	s.open("/groups")
	s.tab("[data-open=group-new]")
	s.key("Enter")
	s.see("dialog[open] #name")
	if at := s.focus(); at.Outline == 0 {
		t.Errorf("the dialog's focus: %+v", at)
	}
	s.typed("board")
	s.key("Enter")
	s.see("dialog[open] .alert")
	s.fill("#name", "sailors/north")
	s.fill("#description", "Who sails")
	s.look("groups-new")
	s.click("dialog[open] .primary")
	s.at("/groups/sailors%2Fnorth")
	s.expect("The group was made.")
	s.expect("Nobody is in this group")

	s.click("[data-open=group-describe]")
	s.fill("dialog[open] textarea", "Who sails north")
	s.click("dialog[open] .primary")
	s.expect("Saved.")
	s.see("text=Who sails north")

	// Somebody else was faster: nothing is overwritten.
	s.click("[data-open=group-describe]")
	g.made("PATCH", "/groups/sailors%2Fnorth", map[string]any{"description": "of another hand"})
	s.fill("dialog[open] textarea", "mine")
	s.click("dialog[open] .primary")
	s.expect("Somebody else changed this meanwhile.")
	s.open("/groups/sailors%2Fnorth")
	s.see("text=of another hand")

	s.click("[data-open=group-rename]")
	s.fill("dialog[open] input[name=name]", "sailors")
	s.click("dialog[open] .primary")
	s.at("/groups/sailors")
	s.expect("The group has its new name.")
	s.click("[data-open=group-switch]")
	s.expect("No rule names this group: all of its members will lose it")
	s.look("group-switch")
	s.click("dialog[open] .primary")
	s.expect("The control was switched.")
	s.expect("nobody is added or removed by hand here")
	s.gone("[data-open=member-add]")
	s.click("[data-open=group-delete]")
	s.expect("People who lose it: 0")
	s.key("Escape")
	s.gone("dialog[open]")
	s.click("[data-open=group-delete]")
	s.look("group-delete")
	s.click("dialog[open] .danger")
	s.expect("The group sailors was deleted.")
	if got := s.read(names); slices.Contains(got, "sailors") {
		t.Errorf("still there: %q", got)
	}
}

// One group that SSO controls, and one kept by hand: people one by one, from a
// file, and into one.
func TestConsoleGroupMembers(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.signIn("/groups/engineering")
	s.expect("groups = eng")
	s.expect("by the rule at")
	s.expect("Got the group by sync")
	s.gone("[data-open=member-import]")
	s.look("group-sso")
	people := "[aria-labelledby=members] tbody .groups-name a"
	s.fill("#query", "bo")
	s.click("[aria-labelledby=members] [role=search] button")
	s.at("query=bo")
	if got := s.read(people); !slices.Equal(got, []string{"bob"}) {
		t.Errorf("searched: %q", got)
	}

	// By the keyboard: open, type, choose with the arrows, add, close.
	s.open("/groups/board")
	s.tab("[data-open=member-add]")
	s.key("Enter")
	s.see("dialog[open] #who")
	s.typed("o")
	s.see("#member-add [role=option]")
	s.look("group-add")
	s.fill("#who", "bo")
	s.expect("1 found.")
	s.key("ArrowDown")
	s.see("#member-add [role=option][aria-selected=true]")
	s.key("Enter")
	s.gone("#member-add [role=listbox]")
	if got := s.values("#who"); !slices.Equal(got, []string{"bob"}) {
		t.Fatalf("chosen: %q", got)
	}
	s.key("Enter")
	s.expect("Added: bob")
	s.typed("nobody like this")
	s.expect("Nobody fits.")
	s.key("Enter")
	s.expect("Choose a person from the list.")
	s.fill("#who", "carol")
	s.click("#member-add [role=option]")
	s.click("dialog[open] .primary")
	s.expect("Added: bob, carol")
	s.click("dialog[open] [data-close]")
	s.gone("dialog[open]")
	s.see("#flash >> text=Added: bob, carol")
	if got := s.read(people); !slices.Equal(got, []string{"alice", "bob", "carol"}) {
		t.Fatalf("members: %q", got)
	}
	s.expect("Added by administrator")
	s.look("group-manual")
	s.click(`[data-open=member-remove][data-set-user=bob]`)
	s.expect("Remove from the group: bob")
	s.look("group-remove")
	s.click("dialog[open] .danger")
	s.expect("The person was removed.")
	if got := s.read(people); !slices.Equal(got, []string{"alice", "carol"}) {
		t.Fatalf("members: %q", got)
	}

	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	s.open("/groups/empty")
	s.gone("[download]")
	s.click("[data-open=member-import]")
	s.upload("#file", file("bad.csv", "user\nalice\nmallory\nalice\n"))
	s.click("#import-check")
	s.expect("Lines with a fault: 2")
	if got := s.read("#import-said tbody td:first-child"); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("bad lines: %q", got)
	}
	s.gone("#import-go")
	s.look("group-import-bad")
	s.upload("#file", file("good.csv", "user,email\nalice,\n,bob@example.com\n"))
	s.click("#import-check")
	s.expect("People: 2, new members: 2.")
	s.look("group-import")
	if n := len(g.members("empty")); n != 0 {
		t.Fatalf("the preview wrote %d members", n)
	}
	// Somebody hands the group to SSO meanwhile: the import says so.
	g.made("PATCH", "/groups/empty", map[string]any{"control": "sso"})
	s.click("#import-go")
	s.expect("The group is controlled by SSO")
	g.made("PATCH", "/groups/empty", map[string]any{"control": "manual"})
	s.click("#import-check")
	s.expect("People: 2, new members: 2.")
	s.click("#import-go")
	s.expect("Imported. People: 2, new members: 2.")
	if got := s.read(people); !slices.Equal(got, []string{"alice", "bob"}) {
		t.Fatalf("members: %q", got)
	}
	name, content := s.download("[download]")
	if name != "empty.csv" || !strings.HasPrefix(content, "user,email,name,origin,since\nalice,alice@example.com,") || strings.Count(content, "\n") != 3 {
		t.Errorf("%s: %q", name, content)
	}

	// Today's members stay when people take over, and nobody is told otherwise.
	s.open("/groups/engineering")
	s.click("[data-open=group-switch]")
	s.expect("Today’s members (2) stay, as manual members.")
	s.click("dialog[open] .primary")
	s.expect("While the group is manual, these rules grant nothing.")
	if got := s.read(people); !slices.Equal(got, []string{"alice", "bob"}) {
		t.Errorf("members: %q", got)
	}
	s.look("group-idle-rules")
}

// members lists who is in a group, by the API.
func (c *consoleGate) members(group string) (names []string) {
	c.tb.Helper()
	var found struct{ Items []struct{ User string } }
	c.api("GET", "/groups/"+group+"/members", nil, &found)
	for _, m := range found.Items {
		names = append(names, m.User)
	}
	return names
}
