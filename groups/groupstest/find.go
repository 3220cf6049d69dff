package groupstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

func testFindGroups(t *testing.T, s groups.Store) {
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.CreateGroups(ctx, []groups.Group{
			{Name: "a", Control: groups.Manual, Created: noon}, {Name: "b", Control: groups.SSO, Created: noon},
			{Name: "Team-c", Control: groups.SSO, Created: noon}, {Name: "team-d", Control: groups.Manual, Created: noon},
		})
	})
	ids := addUsers(t, s, "alice", "bob", "carl")
	for _, id := range ids {
		give(t, s, id, grant("Team-c", "s", "r1"), grant("Team-c", "s", "r2"))
	}
	give(t, s, ids[0], grant("b", "s", "r"))
	update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddManual(ctx, ids[1:2], "a", "root", noon) })
	find := func(q groups.GroupQuery) (out []string) {
		return groupNames(must[[]groups.Group](t)(s.FindGroups(t.Context(), q)))
	}
	same(t, "all", find(groups.GroupQuery{}), []string{"Team-c", "a", "b", "team-d"})
	same(t, "page", find(groups.GroupQuery{After: "a", Limit: 1}), []string{"b"})
	same(t, "manual", find(groups.GroupQuery{Control: groups.Manual}), []string{"a", "team-d"})
	same(t, "search", find(groups.GroupQuery{Query: "TEAM"}), []string{"Team-c", "team-d"})
	same(t, "both", find(groups.GroupQuery{Query: "team", Control: groups.SSO}), []string{"Team-c"})
	byMembers := groups.GroupQuery{ByMembers: true}
	same(t, "by members", find(byMembers), []string{"Team-c", "a", "b", "team-d"})
	update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddManual(ctx, ids, "b", "root", noon) })
	same(t, "by members", find(byMembers), []string{"Team-c", "b", "a", "team-d"})
	byMembers.After, byMembers.AfterMembers, byMembers.Limit = "Team-c", 3, 2
	same(t, "page by members", find(byMembers), []string{"b", "a"})
	byMembers.Query = "D"
	same(t, "page by members of a search", find(byMembers), []string{"team-d"})
	same(t, "counts", must[[]groups.Group](t)(s.FindGroups(t.Context(), byMembers))[0],
		groups.Group{Name: "team-d", Control: groups.Manual, Created: noon})
}

func testGroupFacts(t *testing.T, s groups.Store) {
	facts := func(names ...string) map[string]groups.GroupFacts {
		t.Helper()
		return must[map[string]groups.GroupFacts](t)(s.GroupFacts(t.Context(), names))
	}
	same(t, "none", facts(), map[string]groups.GroupFacts{})
	addGroups(t, s, "g", "h")
	id := addUsers(t, s, "alice")[0]
	same(t, "new", facts("g", "h", "x"), map[string]groups.GroupFacts{"g": {}, "h": {}})

	give(t, s, id, grant("g", "s", "r2"), grant("g", "s2", "r2"), grant("g", "s", "r1"))
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return errors.Join(
			tx.AddManual(ctx, []groups.UserID{id}, "h", "root", noon),
			tx.AddEvents(ctx, groups.Event{Kind: groups.EventSync, At: noon, User: id, Change: &groups.Change{Added: []string{"g"}}},
				groups.Event{Kind: groups.EventMemberAdded, At: noon.Add(time.Hour), Group: "h"},
				groups.Event{Kind: groups.EventGroupChanged, At: noon.Add(time.Minute), Group: "h"}))
	})
	same(t, "with events and a member", facts("g", "h"), map[string]groups.GroupFacts{
		"g": {Rules: []string{"r1", "r2"}, Changed: noon}, "h": {Changed: noon.Add(time.Minute)},
	})
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return errors.Join(tx.DropGrants(ctx, id, []groups.Grant{grant("g", "s", "r1")}),
			tx.AddEvents(ctx, groups.Event{Kind: groups.EventSync, At: noon.Add(time.Hour), User: id, Change: &groups.Change{Removed: []string{"g"}}}))
	})
	same(t, "a rule nobody is a member by", facts("g"), map[string]groups.GroupFacts{"g": {Rules: []string{"r2"}, Changed: noon.Add(time.Hour)}})
}

func testFindMembers(t *testing.T, s groups.Store) {
	addGroups(t, s, "g", "h", "large")
	ids := addUsers(t, s, "Dora", "bob", "Carl", "alice", "eve")
	give(t, s, ids[0], grant("g", "s", "r2"), grant("g", "s", "r1"), grant("h", "s", "r"))
	give(t, s, ids[3], grant("h", "s", "r"))
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.AddManual(ctx, ids[:3], "g", "root", noon)
	})
	page := func(q groups.MemberQuery) (out []string) {
		t.Helper()
		for _, m := range must[[]groups.Member](t)(s.FindMembers(t.Context(), q)) {
			out = append(out, m.User.Name)
		}
		return out
	}
	same(t, "all", page(groups.MemberQuery{Group: "g"}), []string{"bob", "Carl", "Dora"})
	same(t, "first", page(groups.MemberQuery{Group: "g", Limit: 2}), []string{"bob", "Carl"})
	same(t, "rest", page(groups.MemberQuery{Group: "g", After: "CARL", Limit: 2}), []string{"Dora"})
	same(t, "end", page(groups.MemberQuery{Group: "g", After: "Dora"}), []string(nil))
	same(t, "search", page(groups.MemberQuery{Group: "g", Query: "AR"}), []string{"Carl"})
	same(t, "nobody", page(groups.MemberQuery{Group: "g", Query: "eve"}), []string(nil))
	same(t, "whole", must[[]groups.Member](t)(s.FindMembers(t.Context(), groups.MemberQuery{Group: "g", Query: "dora"})), []groups.Member{{
		User: groups.User{ID: ids[0], Name: "Dora", Created: noon},
		Membership: groups.Membership{Group: "g", Control: groups.SSO, By: "root", Since: noon,
			Grants: []groups.Grant{grant("g", "s", "r1"), grant("g", "s", "r2")}},
	}})
	_, err := s.FindMembers(t.Context(), groups.MemberQuery{Group: "x"})
	isErr(t, "FindMembers", err, groups.ErrNotFound)

	// As many members as make a store look for them in another way.
	many := addUsers(t, s, numbered("user%04d", 3000)...)
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		if err := tx.AddGrants(ctx, ids[1], []groups.Grant{grant("large", "s", "r")}, noon); err != nil {
			return err
		}
		return tx.AddManual(ctx, many, "large", "root", noon)
	})
	same(t, "first of many", page(groups.MemberQuery{Group: "large", Limit: 2}), []string{"bob", "user0000"})
	same(t, "next of many", page(groups.MemberQuery{Group: "large", After: "user1999", Limit: 1}), []string{"user2000"})
	same(t, "search in many", page(groups.MemberQuery{Group: "large", Query: "R299"}), numbered("user299%d", 10))
	same(t, "not in many", page(groups.MemberQuery{Group: "large", Query: "alice"}), []string(nil))
}
