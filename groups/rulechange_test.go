package groups_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/groups"
)

// people signs n users of source s in, who all have the groups.
func (h *house) people(n int, names ...string) []groups.UserID {
	h.t.Helper()
	ids := make([]groups.UserID, n)
	for i := range ids {
		ids[i] = h.mustLogin("s", fmt.Sprint(i), 0, groupsOf(fmt.Sprintf("user%d", i), names...)).User.ID
	}
	return ids
}

// members counts a group's members; 0 when there is no such group.
func (h *house) members(group string) int {
	h.t.Helper()
	g, err := h.store.Group(h.t.Context(), group)
	if errors.Is(err, groups.ErrNotFound) {
		return 0
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return g.Members
}

// GS-08: everybody is evaluated anew from the values last seen, and what a rule
// granted goes with it. GS-25: rules are in the trail.
func TestRuleChangeReachesEverybody(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored)
	ids := h.people(3, "x", "y")
	h.told()
	out, err := h.dir.PutRule(t.Context(), valueRule("r1", "s", "x", "eng"), "root")
	if err != nil || out.ID != "r1" || out.Version == 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if h.members("eng") != 3 {
		t.Errorf("%d members", h.members("eng"))
	}
	if told := h.told(); !slices.Contains(told, groups.Notice{User: ids[0]}) || !slices.Contains(told, groups.Notice{}) {
		t.Errorf("live sessions were told %v", told)
	}
	db := h.file()
	before := version(t, db)
	for i := range ids { // the evaluation left the fingerprints that a sync leaves
		h.sync(identity(t, "s", fmt.Sprint(i), 0, groupsOf(fmt.Sprintf("user%d", i), "x", "y")))
	}
	if version(t, db) != before {
		t.Error("a sync after the evaluation wrote something")
	}
	h.putRule(valueRule("r1", "s", "y", "ops"))
	if h.members("eng") != 0 || h.members("ops") != 3 {
		t.Errorf("%d and %d members", h.members("eng"), h.members("ops"))
	}
	if err := h.dir.DeleteRule(t.Context(), "r1", 0, "root"); err != nil {
		t.Fatal(err)
	}
	if h.members("ops") != 0 {
		t.Errorf("%d members of a rule that is gone", h.members("ops"))
	}
	if got := h.kinds(groups.EventQuery{Kind: groups.EventRuleChanged}) + " " + h.kinds(groups.EventQuery{Kind: groups.EventRuleDeleted}); got != "rule_changed rule_changed rule_deleted" {
		t.Errorf("events %s", got)
	}
	e := h.events(groups.EventQuery{Kind: groups.EventSync, User: ids[0]})
	if last := e[len(e)-1]; last.Actor != "rules" || !slices.Equal(last.Change.Removed, []string{"ops"}) {
		t.Errorf("event %+v", last)
	}
}

func TestRulesThatCannotBe(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	_, err := h.dir.PutRule(t.Context(), valueRule("fs", "s", "x", "g"), "root")
	h.wantErr(err, groups.ErrConflict) // the file's
	h.wantErr(h.dir.DeleteRule(t.Context(), "fs", 0, "root"), groups.ErrConflict)
	h.wantErr(h.dir.DeleteRule(t.Context(), "nowhere", 0, "root"), groups.ErrNotFound)
	for _, r := range []groups.Rule{
		{ID: "r", Source: "s", Claim: "groups", Regexp: "(", Group: "g"}, valueRule("r", "nosource", "x", "g"),
	} {
		_, err := h.dir.PutRule(t.Context(), r, "root")
		if _, ok := errors.AsType[*groups.RuleError](err); !ok {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if rules, err := h.store.Rules(t.Context()); err != nil || len(rules) != 0 {
		t.Errorf("stored %v, %v", rules, err)
	}
	h.want(alice, "eng:s")
	bad := settings(func(s *groups.Settings) { s.Rules = append(s.Rules, groups.Rule{Claim: ""}) })
	if err := h.dir.Configure(t.Context(), bad); err == nil {
		t.Error("faulty settings are taken")
	}
	if len(h.dir.Rules()) != 2 {
		t.Error("faulty settings replaced the old ones")
	}
}

// TestGrantOfADeletedRuleWaitsForItsClaim: nothing is removed while the claim
// is not known, and it is as soon as it is, though no rule reads it any more.
func TestGrantOfADeletedRuleWaitsForItsClaim(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored, func(s *groups.Settings) { s.Sources[0].Groups.Claims = nil })
	h.putRule(groups.Rule{ID: "r1", Source: "s", Claim: "roles", Value: "x", Group: "eng"})
	alice := h.mustLogin("s", "1", 0, `{"user":"alice","roles":["x"]}`).User.ID
	h.mustLogin("s", "1", 1, `{"user":"alice"}`)
	if err := h.dir.DeleteRule(t.Context(), "r1", 0, "root"); err != nil {
		t.Fatal(err)
	}
	h.want(alice, "eng:s")
	h.mustLogin("s", "1", 2, `{"user":"alice"}`)
	h.want(alice, "eng:s")
	h.mustLogin("s", "1", 3, `{"user":"alice","roles":["x"]}`)
	h.want(alice, "")
}

func TestSourceThatLeavesTheConfigurationTakesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	alice := h.mustLogin("t", "1", 0, groupsOf("alice", "eng")).User.ID
	h.configure(func(s *groups.Settings) { s.Sources, s.Rules = s.Sources[:1], s.Rules[:1] })
	h.want(alice, "eng:t")
}

func guarded(percent float64) func(*groups.Settings) {
	return func(s *groups.Settings) {
		s.Sync.Guard = &groups.GuardConfig{MaxRemovedUsers: groups.Amount{Percent: percent}, Window: time.Hour}
	}
}

func (h *house) tripped() bool {
	h.t.Helper()
	g, err := h.dir.Guard(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return !g.Tripped.IsZero()
}

// leave lets users state an empty list, one after the other, and answers how
// many of them left the group.
func (h *house) leave(ids []groups.UserID, minute int) (left int) {
	h.t.Helper()
	for i, id := range ids {
		h.mustLogin("s", fmt.Sprint(i), minute, groupsOf(fmt.Sprintf("user%d", i)))
		if h.in(id) == "" {
			left++
		}
	}
	return left
}

// GS-06.
func TestWrittenGuardHoldsFromTheFirstUser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		users, left int
		percent     float64
	}{
		{1, 1, 25}, // at least one
		{2, 1, 25},
		{4, 1, 25},
		{8, 2, 25},
		{10, 1, 1},
		{4, 4, 100},
	} {
		h := newHouse(t, guarded(c.percent))
		ids := h.people(c.users, "eng")
		if left := h.leave(ids, 1); left != c.left {
			t.Errorf("%d users, %v%%: %d left, want %d", c.users, c.percent, left, c.left)
		}
		if h.tripped() != (c.left < c.users) {
			t.Errorf("%d users, %v%%: tripped %v", c.users, c.percent, h.tripped())
		}
	}
}

// GS-06: a source that suddenly states nobody in anything is stopped, unasked.
func TestUnwrittenGuardHoldsFromTwentyUsers(t *testing.T) {
	t.Parallel()
	for users, want := range map[int]int{19: 19, 20: 5, 24: 6} {
		h := newHouse(t)
		ids := h.people(users, "eng")
		if left := h.leave(ids, 1); left != want {
			t.Errorf("%d users: %d left, want %d", users, left, want)
		}
	}
}

func TestGuardStaysUntilAnAdministratorAllowsRemovals(t *testing.T) {
	t.Parallel()
	h := newHouse(t, guarded(25))
	ids := h.people(8, "eng", "all")
	if left := h.leave(ids[:4], 1); left != 2 {
		t.Fatalf("%d left", left)
	}
	if e := h.events(groups.EventQuery{Kind: groups.EventGuard}); len(e) != 2 || !strings.Contains(e[0].Reason, "wait for an administrator") {
		t.Errorf("events %+v", e)
	}
	held := h.events(groups.EventQuery{Kind: groups.EventSync, User: ids[2]})
	if last := held[len(held)-1]; !slices.Equal(last.Change.Held, []string{"all", "eng"}) || len(last.Change.Removed) > 0 {
		t.Errorf("held %+v", last.Change)
	}
	h.pass(24 * time.Hour) // the window is over, the stop is not
	h.mustLogin("s", "7", 2, groupsOf("user7", "new"))
	h.want(ids[7], "all:s eng:s new:s") // grants go on
	if !h.tripped() {
		t.Error("the guard let go by itself")
	}
	h.mustLogin("s", "3", 3, groupsOf("user3", "eng")) // what was held, now stated again in part
	if err := h.dir.AllowRemovals(t.Context(), "root"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "", "", "eng:s", "all:s eng:s", "all:s eng:s", "all:s eng:s", "new:s"} {
		if got := h.in(ids[i]); got != want {
			t.Errorf("user%d: %q, want %q", i, got, want)
		}
	}
	if e := h.events(groups.EventQuery{Kind: groups.EventGuardAllowed}); len(e) != 1 || e[0].Actor != "root" {
		t.Errorf("events %+v", e)
	}
	g, err := h.dir.Guard(t.Context())
	if err != nil || !g.Tripped.IsZero() || g.By != "root" || !g.Active || g.Limit != 1 || g.Holders != 5 {
		t.Errorf("guard %+v, %v", g, err)
	}
}

func TestGuardCountsAUserOnceAndForgetsAfterTheWindow(t *testing.T) {
	t.Parallel()
	h := newHouse(t, guarded(25))
	ids := h.people(4, "a", "b", "c")
	for i, names := range [][]string{{"a", "b"}, {"a"}, {}} {
		h.mustLogin("s", "0", i+1, groupsOf("user0", names...))
	}
	h.want(ids[0], "")
	h.pass(59 * time.Minute)
	h.pass(2 * time.Minute)
	h.mustLogin("s", "1", 9, groupsOf("user1"))
	h.want(ids[1], "")
	if h.tripped() {
		t.Error("tripped, though one user an hour is allowed")
	}
	h.pass(30 * time.Minute)
	h.mustLogin("s", "2", 9, groupsOf("user2"))
	h.want(ids[2], "a:s b:s c:s") // the second one within the window
}

// TestGuardDecidesAboutARuleChangeAsAWhole: everybody or nobody.
func TestGuardDecidesAboutARuleChangeAsAWhole(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored, guarded(25))
	h.putRule(valueRule("r1", "s", "x", "eng"))
	h.people(8, "x")
	plan, err := h.dir.PlanRules(t.Context(), []groups.Rule{valueRule("r2", "s", "x", "ops")})
	if err != nil || !plan.Guard.Stops || plan.Guard.Removed != 8 || plan.Guard.Limit != 2 || plan.Removed != 8 || plan.Added != 8 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	h.putRule(valueRule("r2", "s", "x", "ops"))
	if err := h.dir.DeleteRule(t.Context(), "r1", 0, "root"); err != nil {
		t.Fatal(err)
	}
	if h.members("eng") != 8 || h.members("ops") != 8 || !h.tripped() {
		t.Errorf("%d in eng, %d in ops, tripped %v", h.members("eng"), h.members("ops"), h.tripped())
	}
	h.mustLogin("s", "0", 1, groupsOf("user0", "x")) // a login does not slip through
	if h.members("eng") != 8 {
		t.Error("a login removed what waits")
	}
	if err := h.dir.AllowRemovals(t.Context(), "root"); err != nil {
		t.Fatal(err)
	}
	if h.members("eng") != 0 || h.members("ops") != 8 || h.tripped() {
		t.Errorf("allowed: %d in eng, %d in ops, tripped %v", h.members("eng"), h.members("ops"), h.tripped())
	}
}

// TestPlanIsWhatHappens: a plan, then the change, user by user; then there is
// nothing left to plan.
func TestPlanIsWhatHappens(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored, linked, guarded(100))
	values := []string{"a", "b", "c", "d"}
	for i := range 6 {
		h.mustLogin("s", fmt.Sprint(i), 0, groupsOf(fmt.Sprintf("user%d", i), values[i%4], values[(i+1)%4]))
		h.mustLogin("t", fmt.Sprint(i), 0, groupsOf(fmt.Sprintf("user%d", i), values[(i+2)%4]))
	}
	h.create("hand", groups.Manual)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		if round++; round > 40 { // a rule change is many commits
			return
		}
		next := drawStoredRules(rt, values)
		before := h.allNames()
		plan, err := h.dir.PlanRules(t.Context(), next)
		if err != nil {
			rt.Fatal(err)
		}
		again, err := h.dir.PlanRules(t.Context(), next)
		if err != nil || cmp.Diff(plan, again) != "" {
			rt.Fatalf("planning changed something: %v %s", err, cmp.Diff(plan, again))
		}
		h.replaceRules(rt, next)
		after := h.allNames()
		want := map[string][2]string{}
		for name := range after {
			if a, r := minus(after[name], before[name]), minus(before[name], after[name]); a+r != "" {
				want[name] = [2]string{a, r}
			}
		}
		got := map[string][2]string{}
		for _, u := range plan.Users {
			if len(u.Added)+len(u.Removed) > 0 {
				got[u.User] = [2]string{strings.Join(u.Added, " "), strings.Join(u.Removed, " ")}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatalf("planned (+), happened (-): %s", d)
		}
		rest, err := h.dir.PlanRules(t.Context(), next)
		if err != nil || rest.Added+rest.Removed != 0 || rest.Guard.Stops {
			rt.Fatalf("left to do: %+v, %v", rest, err)
		}
	})
}

func drawStoredRules(rt *rapid.T, values []string) []groups.Rule {
	rules := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) groups.Rule {
		r := valueRule("", rapid.SampledFrom([]string{"", "s", "t"}).Draw(rt, "source"), rapid.SampledFrom(values).Draw(rt, "value"),
			rapid.SampledFrom([]string{"g1", "g2", "g3", "hand"}).Draw(rt, "group"))
		if rapid.IntRange(0, 4).Draw(rt, "any") == 0 {
			r.Value, r.Group, r.Any = "", "", true
		}
		return r
	}), 0, 4).Draw(rt, "rules")
	for i := range rules {
		rules[i].ID = fmt.Sprintf("r%d", i)
	}
	return rules
}

// replaceRules makes the store's rules these, in one evaluation: as another
// replica does whose configuration is read again.
func (h *house) replaceRules(rt *rapid.T, next []groups.Rule) {
	err := h.store.Update(h.t.Context(), func(tx groups.Tx) error {
		old, err := tx.Rules(h.t.Context())
		if err != nil {
			return err
		}
		for _, r := range old {
			if err := tx.DeleteRule(h.t.Context(), r.ID); err != nil {
				return err
			}
		}
		for _, r := range next {
			if err := tx.PutRule(h.t.Context(), r); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = h.dir.Configure(h.t.Context(), settings(stored, linked, guarded(100)))
	}
	if err != nil {
		rt.Fatal(err)
	}
}

func (h *house) allNames() map[string][]string {
	h.t.Helper()
	users, err := h.store.Users(h.t.Context(), "", 0, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string][]string{}
	for _, u := range users {
		if out[u.Name], err = h.store.GroupNames(h.t.Context(), u.ID); err != nil {
			h.t.Fatal(err)
		}
	}
	return out
}

func minus(a, b []string) string {
	var out []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func TestPlanOfAConfiguration(t *testing.T) {
	t.Parallel()
	h := newHouse(t, guarded(25))
	h.people(4, "a", "b")
	db := h.file()
	before := version(t, db)
	plan, err := h.dir.PlanSettings(t.Context(), settings(guarded(25), func(s *groups.Settings) {
		s.Rules[0] = valueRule("fs2", "s", "a", "only")
		s.Sync.GroupNames = "[a-z]+"
	}))
	if err != nil || version(t, db) != before {
		t.Fatalf("%v, written %v", err, version(t, db) != before)
	}
	want := []groups.PlannedGroup{{Group: "a", Removed: 4}, {Group: "b", Removed: 4}, {Group: "only", Created: true, Added: 4}}
	if d := cmp.Diff(want, plan.Groups); d != "" {
		t.Error(d)
	}
	if plan.Known != 4 || plan.Added != 4 || plan.Removed != 8 || len(plan.Users) != 4 || plan.Users[0].User != "user0" {
		t.Errorf("plan %+v", plan)
	}
	if want := (groups.PlannedGuard{Stops: true, Removed: 4, Limit: 1, Holders: 4}); plan.Guard != want {
		t.Errorf("guard %+v", plan.Guard)
	}
	if same, err := h.dir.PlanSettings(t.Context(), settings(guarded(25))); err != nil || len(same.Users) != 0 || same.Known != 4 {
		t.Errorf("the configuration as it is: %+v, %v", same, err)
	}
}

// TestPlanOfManyUsers takes the way past the first 500 that differ.
func TestPlanOfManyUsers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored, guarded(100))
	h.crowd(700, 3)
	h.putRule(valueRule("r1", "s", "v1", "eng"))
	if h.members("eng") != 700 {
		t.Fatalf("%d members", h.members("eng"))
	}
	plan, err := h.dir.PlanRules(t.Context(), []groups.Rule{valueRule("r2", "s", "v2", "ops")})
	if err != nil || plan.Known != 700 || plan.Added != 700 || plan.Removed != 700 {
		t.Fatalf("added %d, removed %d of %d, %v", plan.Added, plan.Removed, plan.Known, err)
	}
	h.putRule(valueRule("r1", "s", "v2", "ops"))
	if h.members("eng") != 0 || h.members("ops") != 700 {
		t.Errorf("%d in eng, %d in ops", h.members("eng"), h.members("ops"))
	}
}

// crowd writes n users of source s with as many values each, past SignIn.
func (h *house) crowd(n, values int) {
	h.t.Helper()
	var names []string
	for v := range values {
		names = append(names, fmt.Sprintf("v%d", v))
	}
	err := h.store.Update(h.t.Context(), func(tx groups.Tx) error {
		for i := range n {
			name := fmt.Sprintf("crowd%d", i)
			u := &groups.User{Name: name, Created: epoch0}
			if err := tx.CreateUser(h.t.Context(), u); err != nil {
				return err
			}
			id := identity(h.t, "s", name, 0, groupsOf(name, names...))
			rec := &groups.IdentityRecord{User: u.ID, Source: "s", Subject: name, Claims: id.Claims, IssuedAt: id.IssuedAt, Seen: epoch0}
			if err := tx.PutIdentity(h.t.Context(), rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestExplainForAKnownPerson(t *testing.T) {
	t.Parallel()
	h := newHouse(t, linked, func(s *groups.Settings) { s.Sync.GroupNames = "[a-z]+" })
	h.mustLogin("s", "1", 0, groupsOf("alice", "old", "stay"))
	h.mustLogin("t", "x", 0, groupsOf("alice", "other"))
	h.create("board", groups.Manual)
	db := h.file()
	before := version(t, db)
	got, err := h.dir.Explain(t.Context(), identity(t, "s", "1", 1, groupsOf("ignored", "new", "stay", "BAD", "board")))
	if err != nil {
		t.Fatal(err)
	}
	if version(t, db) != before {
		t.Error("explaining wrote something")
	}
	skipped := map[string]string{}
	for _, s := range got.Skipped {
		skipped[s.Group] = s.Reason
	}
	type view struct {
		User                         string
		Groups, Added, Removed, Kept []string
		Skipped                      map[string]string
	}
	want := view{"alice", []string{"new", "other", "stay"}, []string{"new"}, []string{"old"}, []string{"other"},
		map[string]string{"BAD": groups.SkipName, "board": groups.SkipManual}}
	if d := cmp.Diff(want, view{got.User, got.Groups, got.Added, got.Removed, got.Kept, skipped}); d != "" {
		t.Error(d)
	}
	if got.Refused != "" || len(got.Claims.Claims) != 1 || len(got.Claims.Claims[0].Values) != 4 {
		t.Errorf("explained %+v", got)
	}
	fresh, err := h.dir.Explain(t.Context(), identity(t, "s", "", 0, groupsOf("x", "a")))
	if err != nil || fresh.User != "" || !slices.Equal(fresh.Added, []string{"a"}) {
		t.Errorf("nobody in particular: %+v, %v", fresh, err)
	}
	_, err = h.dir.Explain(t.Context(), identity(t, "nowhere", "1", 0, `{}`))
	h.wantErr(err, groups.ErrNotFound)
}

func TestExplainSaysARefusal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) {
		s.Sources[0].Groups.WhenAbsent = "deny"
		s.Sources[1].Require.EmailDomains = []string{"example.com"}
	})
	for id, want := range map[[2]string]string{
		{"s", `{"user":"a"}`}: `"groups" is absent`, {"s", `{"groups":[]}`}: "",
		{"t", `{"email":"a@evil.com"}`}: "domain", {"t", `{"email":"a@example.com"}`}: "",
	} {
		got, err := h.dir.Explain(t.Context(), identity(t, id[0], "1", 0, id[1]))
		if err != nil || !strings.Contains(got.Refused, want) || (want == "") != (got.Refused == "") {
			t.Errorf("%v: refused %q, %v", id, got.Refused, err)
		}
	}
}
