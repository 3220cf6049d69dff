package groups_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups"
)

func (h *house) control(name string, c groups.Control) {
	h.t.Helper()
	if _, err := h.dir.UpdateGroup(h.t.Context(), name, groups.GroupChange{Control: &c}, "root"); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) create(name string, c groups.Control) {
	h.t.Helper()
	if err := h.dir.CreateGroups(h.t.Context(), []groups.Group{{Name: name, Control: c}}, "root"); err != nil {
		h.t.Fatal(err)
	}
}

// GV-11: no sync takes from a group that is kept by hand, nor gives.
func TestSwitchToManualKeepsTodaysMembers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	h.wantErr(h.dir.AddMember(t.Context(), "eng", alice, "root"), groups.ErrControlled)
	h.wantErr(h.dir.RemoveMember(t.Context(), "eng", alice, "root"), groups.ErrControlled)
	h.told()
	h.control("eng", groups.Manual)
	h.want(alice, "eng:by root")
	if told := h.told(); !slices.Contains(told, groups.Notice{}) {
		t.Errorf("live sessions were told %v", told)
	}
	h.mustLogin("s", "1", 1, groupsOf("alice"))
	h.want(alice, "eng:by root") // no sync takes it
	out := h.mustLogin("s", "1", 2, groupsOf("alice", "eng"))
	if len(out.Change.Skipped) != 1 || out.Change.Skipped[0].Reason != groups.SkipManual {
		t.Errorf("skipped %+v", out.Change.Skipped)
	}
	if err := h.dir.RemoveMember(t.Context(), "eng", alice, "root"); err != nil {
		t.Fatal(err)
	}
	h.want(alice, "")
	h.mustLogin("s", "1", 3, groupsOf("alice", "eng"))
	h.want(alice, "") // and none gives it back
}

func TestSwitchToSSOKeepsMembersUntilACompleteSync(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.create("board", groups.Manual)
	var ids []groups.UserID
	for i, name := range []string{"alice", "bob", "carol"} {
		ids = append(ids, h.mustLogin("s", fmt.Sprint(i), 0, groupsOf(name)).User.ID)
		if err := h.dir.AddMember(t.Context(), "board", ids[i], "root"); err != nil {
			t.Fatal(err)
		}
	}
	h.mustLogin("s", "0", 1, groupsOf("alice"))
	h.want(ids[0], "board:by root") // control: a manual group
	h.control("board", groups.SSO)
	for _, id := range ids {
		h.want(id, "board:by root")
	}
	h.mustLogin("s", "0", 2, `{"user":"alice"}`) // absent: not complete
	h.mustLogin("s", "1", 2, `{"user":"bob","groups":null}`)
	h.want(ids[0], "board:by root")
	h.want(ids[1], "board:by root")
	h.mustLogin("s", "0", 3, groupsOf("alice"))
	h.mustLogin("s", "1", 3, groupsOf("bob", "board"))
	h.want(ids[0], "")
	h.want(ids[1], "board:s")
	h.want(ids[2], "board:by root") // she has not been here yet
}

func TestDeclaredGroupsTakeTheirControl(t *testing.T) {
	t.Parallel()
	declared := func(list ...groups.GroupConfig) func(*groups.Settings) {
		return func(s *groups.Settings) { s.Groups = list }
	}
	h := newHouse(t, declared(groups.GroupConfig{Name: "board", Control: groups.Manual}, groups.GroupConfig{Name: "eng", Control: groups.SSO}))
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "board", "eng")).User.ID
	h.want(alice, "eng:s")
	db := h.file()
	before := version(t, db)
	h.configure(declared(groups.GroupConfig{Name: "board", Control: groups.Manual}, groups.GroupConfig{Name: "eng", Control: groups.SSO}))
	if version(t, db) != before {
		t.Error("the same configuration again wrote something")
	}
	h.configure(declared(groups.GroupConfig{Name: "board", Control: groups.SSO}))
	h.mustLogin("s", "1", 1, groupsOf("alice", "board", "eng"))
	h.want(alice, "board:s eng:s")
}

func TestGroupThatMayNotBeMade(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Sync.CreateNewGroups = false })
	out := h.mustLogin("s", "1", 0, groupsOf("alice", "eng"))
	if len(out.Change.Skipped) != 1 || out.Change.Skipped[0].Reason != groups.SkipMissing {
		t.Errorf("skipped %+v", out.Change.Skipped)
	}
	h.want(out.User.ID, "")
	if e := h.events(groups.EventQuery{Kind: groups.EventSync}); len(e) != 1 || len(e[0].Change.Skipped) != 1 {
		t.Errorf("not reported: %+v", e)
	}
	h.create("eng", groups.SSO)
	h.mustLogin("s", "1", 1, groupsOf("alice", "eng"))
	h.want(out.User.ID, "eng:s")
	h.wantErr(h.dir.CreateGroups(t.Context(), []groups.Group{{Name: "new", Control: groups.SSO}, {Name: "eng", Control: groups.SSO}}, "root"), groups.ErrConflict)
	if _, err := h.store.Group(t.Context(), "new"); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("one of two was made: %v", err)
	}
}

// GV-12: what a rule makes of a value is held to the same names.
func TestGroupNamesThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Sync.GroupNames = "^[A-Za-z0-9]+$" })
	out := h.mustLogin("s", "1", 0, groupsOf("alice", "Eng1", "a b", "a,b", "gr\u00fcn"))
	h.want(out.User.ID, "Eng1:s")
	if len(out.Change.Skipped) != 3 {
		t.Errorf("skipped %+v", out.Change.Skipped)
	}
	for _, s := range out.Change.Skipped {
		if s.Reason != groups.SkipName {
			t.Errorf("skipped %+v", s)
		}
	}
	for name, legal := range map[string]bool{"Eng1": true, "": false, "a b": false, strings.Repeat("x", 600): false} {
		if err := h.dir.CheckGroupName(name); (err == nil) != legal {
			t.Errorf("%q: %v", name, err)
		}
	}
	// The pattern grows tighter: what is held stays while it is stated.
	h.configure(func(s *groups.Settings) { s.Sync.GroupNames = "[a-z]+" })
	h.want(out.User.ID, "Eng1:s")
	h.mustLogin("s", "1", 1, groupsOf("alice"))
	h.want(out.User.ID, "")
}

func TestWithoutRemovalNothingGoes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Sync.RemoveFromGroups = false })
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	h.mustLogin("s", "1", 1, groupsOf("alice", "ops"))
	h.want(alice, "eng:s ops:s")
	h.configure() // removal is on again: everybody is evaluated
	h.want(alice, "ops:s")
}

func TestDefaultGroupsVanishWhenARuleCoversTheSource(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored, func(s *groups.Settings) { s.Sync.DefaultGroups = []string{"everyone"} })
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "x")).User.ID
	bob := h.mustLogin("t", "2", 0, groupsOf("bob", "x")).User.ID
	h.want(alice, "everyone:s")
	h.putRule(valueRule("r1", "s", "x", "staff"))
	h.want(alice, "staff:s")
	h.want(bob, "everyone:t")
	h.putRule(groups.Rule{ID: "r2", Claim: "groups", Value: "nobody", Group: "none"})
	h.want(bob, "")
	if err := h.dir.DeleteRule(t.Context(), "r2", 0, "root"); err != nil {
		t.Fatal(err)
	}
	h.want(bob, "everyone:t")
}

func TestGroupsMadeRenamedAndDeleted(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored)
	h.putRule(valueRule("r1", "s", "x", "eng"))
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "x")).User.ID
	name, text := "engineering", "the builders"
	g, err := h.dir.UpdateGroup(t.Context(), "eng", groups.GroupChange{Name: &name, Description: &text}, "root")
	if err != nil || g.Name != name || g.Description != text {
		t.Fatalf("%+v, %v", g, err)
	}
	h.want(alice, "engineering:s")
	db := h.file()
	before := version(t, db)
	if _, err := h.dir.UpdateGroup(t.Context(), name, groups.GroupChange{Name: &name}, "root"); err != nil || version(t, db) != before {
		t.Errorf("a change to what it is wrote something: %v", err)
	}
	h.mustLogin("s", "1", 1, groupsOf("alice", "x")) // the rule means "eng"
	h.want(alice, "eng:s")
	if err := h.dir.DeleteGroup(t.Context(), "eng", "root"); err != nil {
		t.Fatal(err)
	}
	h.want(alice, "")
	h.wantErr(h.dir.DeleteGroup(t.Context(), "eng", "root"), groups.ErrNotFound)
	h.mustLogin("s", "1", 1, groupsOf("alice", "x")) // the same statement: the group is made again
	h.want(alice, "eng:s")
	if got := h.kinds(groups.EventQuery{Kind: groups.EventGroupChanged}) + h.kinds(groups.EventQuery{Kind: groups.EventGroupDeleted}); got != "group_changedgroup_deleted" {
		t.Errorf("events %s", got)
	}
}

func TestMembersOfManualGroups(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Targets = []string{"wiki"} })
	alice := h.mustLogin("s", "1", 0, groupsOf("alice")).User.ID
	bob := h.mustLogin("s", "2", 0, groupsOf("bob")).User.ID
	h.create("board", groups.Manual)
	for range 2 {
		if err := h.dir.AddMember(t.Context(), "board", alice, "root"); err != nil {
			t.Fatal(err)
		}
	}
	if e := h.events(groups.EventQuery{Kind: groups.EventMemberAdded}); len(e) != 1 || e[0].Name != "alice" || e[0].Actor != "root" {
		t.Errorf("events %+v", e)
	}
	if n, err := h.dir.AddMembers(t.Context(), "board", []groups.UserID{alice, bob}, "csv"); n != 1 || err != nil {
		t.Errorf("%d new members, %v", n, err)
	}
	h.want(alice, "board:by root")
	h.want(bob, "board:by csv")
	if _, err := h.dir.AddMembers(t.Context(), "board", []groups.UserID{alice, 999}, "csv"); err == nil {
		t.Error("a user who is not there became a member")
	}
	for range 2 {
		if err := h.dir.RemoveMember(t.Context(), "board", bob, "root"); err != nil {
			t.Fatal(err)
		}
	}
	h.want(bob, "")
	h.wantErr(h.dir.AddMember(t.Context(), "nowhere", bob, "root"), groups.ErrNotFound)
	h.wantErr(h.dir.AddMember(t.Context(), "board", 999, "root"), groups.ErrNotFound)
	if work, err := h.store.Outbox(t.Context(), 0); err != nil || len(work) != 2 || work[0].Version != 1 || string(work[len(work)-1].Body) != `{"added":[],"removed":["board"]}` {
		t.Errorf("outbox %+v, %v", work, err)
	}
}

func TestSyncDisabledStoresNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Sync.Enabled = false; s.Sync.GroupNames = "[a-z]+" })
	out := h.mustLogin("s", "1", 0, groupsOf("alice", "ops", "eng", "BAD"))
	h.want(out.User.ID, "")
	view, err := h.dir.View(t.Context(), cookieHash(1))
	if err != nil || !slices.Equal(view.Groups, []string{"eng", "ops"}) {
		t.Fatalf("%+v, %v", view, err)
	}
	why, err := h.dir.Why(t.Context(), view)
	if err != nil || show(why) != "eng:s ops:s" {
		t.Errorf("why %s, %v", show(why), err)
	}
	if list, err := h.store.Groups(t.Context(), "", "", 0); err != nil || len(list) != 0 {
		t.Errorf("groups %v, %v", list, err)
	}
	if h.dir.SyncEnabled() {
		t.Error("SyncEnabled")
	}
	h.configure() // from now on they are stored, from the last-seen claims
	h.want(out.User.ID, "BAD:s eng:s ops:s")
	if view, err = h.dir.View(t.Context(), cookieHash(1)); err != nil || len(view.Groups) != 3 {
		t.Errorf("%+v, %v", view, err)
	}
	if why, err := h.dir.Why(t.Context(), view); err != nil || show(why) != "BAD:s eng:s ops:s" {
		t.Errorf("why %s, %v", show(why), err)
	}
}
