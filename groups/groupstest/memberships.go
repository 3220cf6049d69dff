package groupstest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/groups"
)

var groupPromises = map[string]func(*testing.T, groups.Store){
	"CreateGroups leaves alone what is there": func(t *testing.T, s groups.Store) {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.CreateGroups(ctx, []groups.Group{{Name: "board", Control: groups.Manual, Description: "d", Created: noon}})
		})
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.CreateGroups(ctx, []groups.Group{{Name: "board", Control: groups.SSO}, {Name: "Board", Control: groups.SSO, Created: noon}})
		})
		same(t, "board", must[*groups.Group](t)(s.Group(t.Context(), "board")),
			&groups.Group{Name: "board", Control: groups.Manual, Description: "d", Created: noon})
		same(t, "names are exact", must[*groups.Group](t)(s.Group(t.Context(), "Board")).Control, groups.SSO)
		_, err := s.Group(t.Context(), "bOARD")
		isErr(t, "Group", err, groups.ErrNotFound)
	},
	"Groups pages by name and counts members": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "b", "B", "a", "team-x", "Team-y")
		ids := addUsers(t, s, "alice", "bob")
		give(t, s, ids[0], grant("a", "s", "r1"), grant("a", "s", "r2"), grant("b", "s", "r1"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddManual(ctx, ids, "a", "root", noon) })
		list := func(query, after string, limit int) []string {
			return groupNames(must[[]groups.Group](t)(s.Groups(t.Context(), query, after, limit)))
		}
		same(t, "all", list("", "", 100), []string{"B", "Team-y", "a", "b", "team-x"})
		same(t, "page", list("", "B", 2), []string{"Team-y", "a"})
		same(t, "part", list("EAM-", "", 100), []string{"Team-y", "team-x"})
		same(t, "part, page", list("team", "Team-y", 1), []string{"team-x"})
		counts := map[string]int{}
		for _, g := range must[[]groups.Group](t)(s.Groups(t.Context(), "", "", 100)) {
			counts[g.Name] = g.Members
		}
		same(t, "members", counts, map[string]int{"B": 0, "Team-y": 0, "a": 2, "b": 1, "team-x": 0})
	},
	"FindGroups filters, and lists by members":                    testFindGroups,
	"GroupFacts says which rules grant, and when a group changed": testGroupFacts,
	"Controls answers for groups only, and none for none": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "a", "b")
		for _, names := range [][]string{nil, {}, {"x"}, {"x", "a", "a"}} {
			want := map[string]groups.Control{}
			if slices.Contains(names, "a") {
				want["a"] = groups.SSO
			}
			same(t, strings.Join(names, ","), must[map[string]groups.Control](t)(s.Controls(t.Context(), names)), want)
		}
	},
	"UpdateGroup renames with its members, but not onto another": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "a", "b")
		id := addUsers(t, s, "alice")[0]
		give(t, s, id, grant("a", "s", "r"))
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "a", groups.Group{Name: "b", Control: groups.SSO}, "root")
		})
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "x", groups.Group{Name: "y", Control: groups.SSO}, "root")
		})
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "a", groups.Group{Name: "A", Control: groups.SSO, Description: "new"}, "root")
		})
		same(t, "group", must[*groups.Group](t)(s.Group(t.Context(), "A")),
			&groups.Group{Name: "A", Control: groups.SSO, Description: "new", Members: 1, Created: noon})
		same(t, "names", must[[]string](t)(s.GroupNames(t.Context(), id)), []string{"A"})
	},
	"to manual, members become manual ones; to sso, they stay manual": testControlSwitch,
	"DeleteGroup takes its memberships": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "a", "b")
		ids := addUsers(t, s, "alice", "bob")
		give(t, s, ids[0], grant("a", "s", "r"))
		give(t, s, ids[1], grant("a", "s", "r"), grant("b", "s", "r"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			if err := tx.AddManual(ctx, ids, "a", "root", noon); err != nil {
				return err
			}
			return tx.DeleteGroup(ctx, "a")
		})
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteGroup(ctx, "a") })
		addGroups(t, s, "a") // a new group of that name is empty
		same(t, "alice", must[[]string](t)(s.GroupNames(t.Context(), ids[0])), []string(nil))
		same(t, "bob", must[[]string](t)(s.GroupNames(t.Context(), ids[1])), []string{"b"})
		_, holders, err := s.CountUsers(t.Context())
		same(t, "holders", []any{holders, err}, []any{1, error(nil)})
	},
	"Epoch grows with groups, and with nothing else": testEpoch,
}

func testControlSwitch(t *testing.T, s groups.Store) {
	addGroups(t, s, "g", "other")
	ids := addUsers(t, s, "alice", "bob", "carl")
	give(t, s, ids[0], grant("g", "s", "r1"), grant("g", "s", "r2"), grant("other", "s", "r1"))
	give(t, s, ids[1], grant("g", "s", "r1"))
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.AddManual(ctx, ids[1:], "g", "eve", noon.Add(time.Hour))
	})
	turn := func(c groups.Control) {
		t.Helper()
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "g", groups.Group{Name: "g", Control: c}, "root")
		})
	}
	members := func() map[string]string {
		out := map[string]string{}
		for _, m := range must[[]groups.Member](t)(s.Members(t.Context(), "g", 0, 10)) {
			out[m.User.Name] = string(m.Membership.Origin()) + " " + m.Membership.By
		}
		return out
	}
	turn(groups.SSO) // no change, no switch
	same(t, "before", members(), map[string]string{"alice": "sso ", "bob": "sso eve", "carl": "manual eve"})
	turn(groups.Manual)
	manual := map[string]string{"alice": "manual root", "bob": "manual eve", "carl": "manual eve"}
	same(t, "manual", members(), manual)
	have := must[[]groups.Membership](t)(s.Memberships(t.Context(), ids[0]))
	same(t, "the beginning stays", have[0], groups.Membership{Group: "g", Control: groups.Manual, By: "root", Since: noon})
	same(t, "another group stays", have[1].Grants, []groups.Grant{grant("other", "s", "r1")})
	turn(groups.SSO)
	same(t, "sso again", members(), manual)
	_, holders, err := s.CountUsers(t.Context())
	same(t, "holders", []any{holders, err}, []any{1, error(nil)})
}

func testEpoch(t *testing.T, s groups.Store) {
	id := addUsers(t, s, "alice")[0]
	last := must[int64](t)(s.Epoch(t.Context()))
	for _, step := range []struct {
		name  string
		grows bool
		fn    func(context.Context, groups.Tx) error
	}{
		{"create", true, func(ctx context.Context, tx groups.Tx) error {
			return tx.CreateGroups(ctx, []groups.Group{{Name: "g", Control: groups.SSO}})
		}},
		{"create again", false, func(ctx context.Context, tx groups.Tx) error {
			return tx.CreateGroups(ctx, []groups.Group{{Name: "g", Control: groups.SSO}})
		}},
		{"create none", false, func(ctx context.Context, tx groups.Tx) error { return tx.CreateGroups(ctx, nil) }},
		{"describe", false, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "g", groups.Group{Name: "g", Control: groups.SSO, Description: "d"}, "root")
		}},
		{"grant", false, func(ctx context.Context, tx groups.Tx) error {
			return tx.AddGrants(ctx, id, []groups.Grant{grant("g", "s", "r")}, noon)
		}},
		{"rename", true, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "g", groups.Group{Name: "h", Control: groups.SSO}, "root")
		}},
		{"control", true, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateGroup(ctx, "h", groups.Group{Name: "h", Control: groups.Manual}, "root")
		}},
		{"delete", true, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteGroup(ctx, "h") }},
	} {
		update(t, s, step.fn)
		now := must[int64](t)(s.Epoch(t.Context()))
		if now < last || (now > last) != step.grows {
			t.Fatalf("%s: from %d to %d", step.name, last, now)
		}
		last = now
	}
}

var memberships = map[string]func(*testing.T, groups.Store){
	"a membership has every reason, in order": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "b", "a")
		id := addUsers(t, s, "alice")[0]
		b := []groups.Grant{grant("b", "s1", "r1"), grant("b", "s1", "r2"), grant("b", "s2", "r1")}
		give(t, s, id, b[2], b[0], b[1])
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			if err := tx.AddManual(ctx, []groups.UserID{id}, "a", "root", noon.Add(time.Minute)); err != nil {
				return err
			}
			return tx.AddManual(ctx, []groups.UserID{id}, "b", "root", noon.Add(-time.Minute))
		})
		want := []groups.Membership{
			{Group: "a", Control: groups.SSO, By: "root", Since: noon.Add(time.Minute)},
			{Group: "b", Control: groups.SSO, Grants: b, By: "root", Since: noon.Add(-time.Minute)},
		}
		same(t, "Memberships", must[[]groups.Membership](t)(s.Memberships(t.Context(), id)), want)
		same(t, "GroupNames", must[[]string](t)(s.GroupNames(t.Context(), id)), []string{"a", "b"})
		same(t, "of nobody", must[[]groups.Membership](t)(s.Memberships(t.Context(), id+1)), []groups.Membership{})
	},
	"adding what is there and dropping what is not changes nothing": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "a", "b")
		id := addUsers(t, s, "alice")[0]
		give(t, s, id, grant("a", "s", "r"))
		before := must[[]groups.Membership](t)(s.Memberships(t.Context(), id))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			other := grant("a", "s", "r")
			other.Value = "V-a"
			return errors.Join(
				tx.AddGrants(ctx, id, []groups.Grant{grant("a", "s", "r"), grant("a", "s", "r")}, noon.Add(-time.Hour)),
				tx.AddGrants(ctx, id, nil, noon),
				tx.DropGrants(ctx, id, nil),
				tx.DropGrants(ctx, id, []groups.Grant{}),
				tx.DropGrants(ctx, id, []groups.Grant{grant("b", "s", "r"), grant("a", "S", "r"), grant("x", "s", "r"), other}),
				tx.DropManual(ctx, id, nil),
				tx.DropManual(ctx, id, []string{"a", "x"}),
				tx.AddManual(ctx, nil, "a", "root", noon))
		})
		same(t, "Memberships", must[[]groups.Membership](t)(s.Memberships(t.Context(), id)), before)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.DropGrants(ctx, id, []groups.Grant{grant("a", "s", "r")})
		})
		same(t, "dropped", must[[]groups.Membership](t)(s.Memberships(t.Context(), id)), []groups.Membership{})
	},
	"a membership lasts until its last reason goes": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "g")
		ids := addUsers(t, s, "alice", "bob")
		for _, id := range ids {
			give(t, s, id, grant("g", "s1", "r"), grant("g", "s2", "r"))
		}
		for _, source := range []string{"s1", "s2"} {
			same(t, "before "+source, must[[]string](t)(s.GroupNames(t.Context(), ids[0])), []string{"g"})
			update(t, s, func(ctx context.Context, tx groups.Tx) error {
				return tx.DropGrants(ctx, ids[0], []groups.Grant{grant("g", source, "r")})
			})
		}
		same(t, "alice", must[[]string](t)(s.GroupNames(t.Context(), ids[0])), []string(nil))
		same(t, "bob", len(must[[]groups.Membership](t)(s.Memberships(t.Context(), ids[1]))[0].Grants), 2)
	},
	"a grant or a manual member of nothing is ErrNotFound, never lost": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "g")
		id := addUsers(t, s, "alice")[0]
		for name, fn := range map[string]func(context.Context, groups.Tx) error{
			"group of a grant": func(ctx context.Context, tx groups.Tx) error {
				return tx.AddGrants(ctx, id, []groups.Grant{grant("g", "s", "r"), grant("x", "s", "r")}, noon)
			},
			"user of a grant": func(ctx context.Context, tx groups.Tx) error {
				return tx.AddGrants(ctx, id+1, []groups.Grant{grant("g", "s", "r")}, noon)
			},
			"group of a manual member": func(ctx context.Context, tx groups.Tx) error {
				return tx.AddManual(ctx, []groups.UserID{id}, "x", "root", noon)
			},
			"manual member": func(ctx context.Context, tx groups.Tx) error {
				return tx.AddManual(ctx, []groups.UserID{id, id + 1}, "g", "root", noon)
			},
			"note of a removal": func(ctx context.Context, tx groups.Tx) error { return tx.NoteRemoval(ctx, id+1, noon) },
		} {
			t.Run(name, func(t *testing.T) { refused(t, s, groups.ErrNotFound, fn) })
		}
		same(t, "nothing was added", must[[]string](t)(s.GroupNames(t.Context(), id)), []string(nil))
	},
	"a manual member stays whose he is": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "g", "h")
		ids := addUsers(t, s, "alice", "bob")
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.AddManual(ctx, ids[:1], "g", "eve", noon), tx.AddManual(ctx, ids, "g", "root", noon.Add(time.Hour)),
				tx.AddManual(ctx, ids, "h", "root", noon))
		})
		same(t, "alice", must[[]groups.Membership](t)(s.Memberships(t.Context(), ids[0]))[0],
			groups.Membership{Group: "g", Control: groups.SSO, By: "eve", Since: noon})
		give(t, s, ids[0], grant("g", "s", "r"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DropManual(ctx, ids[0], []string{"g", "h"}) })
		same(t, "the grant stays", must[[]string](t)(s.GroupNames(t.Context(), ids[0])), []string{"g"})
		same(t, "bob", must[[]string](t)(s.GroupNames(t.Context(), ids[1])), []string{"g", "h"})
	},
	"Members pages by user id": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "g", "h")
		ids := addUsers(t, s, "alice", "bob", "carl", "dora")
		give(t, s, ids[3], grant("g", "s", "r"))
		give(t, s, ids[1], grant("g", "s", "r2"), grant("g", "s", "r1"), grant("h", "s", "r"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.AddManual(ctx, []groups.UserID{ids[0], ids[1]}, "g", "root", noon)
		})
		all := must[[]groups.Member](t)(s.Members(t.Context(), "g", 0, 10))
		same(t, "bob", all[1], groups.Member{
			User: groups.User{ID: ids[1], Name: "bob", Created: noon},
			Membership: groups.Membership{Group: "g", Control: groups.SSO, By: "root", Since: noon,
				Grants: []groups.Grant{grant("g", "s", "r1"), grant("g", "s", "r2")}},
		})
		page := func(after groups.UserID, limit int) (out []string) {
			for _, m := range must[[]groups.Member](t)(s.Members(t.Context(), "g", after, limit)) {
				out = append(out, m.User.Name)
			}
			return out
		}
		same(t, "all", page(0, 10), []string{"alice", "bob", "dora"})
		same(t, "first", page(0, 2), []string{"alice", "bob"})
		same(t, "rest", page(ids[1], 2), []string{"dora"})
		same(t, "end", page(ids[3], 2), []string(nil))
		_, err := s.Members(t.Context(), "x", 0, 10)
		isErr(t, "Members", err, groups.ErrNotFound)
	},
	"FindMembers pages by user name and searches": testFindMembers,
	"CountMembersAmong counts each member once": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "g", "h")
		ids := addUsers(t, s, "alice", "bob", "carl", "dora")
		give(t, s, ids[0], grant("g", "s", "r1"), grant("g", "s", "r2"))
		give(t, s, ids[1], grant("h", "s", "r"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.AddManual(ctx, []groups.UserID{ids[0], ids[2]}, "g", "root", noon)
		})
		count := must[int](t)
		same(t, "all", count(s.CountMembersAmong(t.Context(), "g", append(ids, ids[0], 1<<40))), 2)
		same(t, "some", count(s.CountMembersAmong(t.Context(), "g", ids[1:3])), 1)
		same(t, "none", count(s.CountMembersAmong(t.Context(), "g", nil)), 0)
		_, err := s.CountMembersAmong(t.Context(), "x", ids)
		isErr(t, "CountMembersAmong", err, groups.ErrNotFound)
	},
	"EachMembership gives every member once, whole": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "a", "b")
		ids := addUsers(t, s, numbered("user%04d", 1100)...)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for i, id := range ids {
				if i > 3 && i < 1090 && i%7 != 0 {
					continue // users without a membership, also in long runs
				}
				if err := tx.AddGrants(ctx, id, []groups.Grant{grant("b", "s", "r"), grant("a", "s", "r")}, noon); err != nil {
					return err
				}
			}
			return tx.AddManual(ctx, ids[:2], "a", "root", noon)
		})
		each := func(r groups.Reader) {
			var last groups.UserID
			n := 0
			err := r.EachMembership(t.Context(), func(id groups.UserID, got []groups.Membership) error {
				if id <= last {
					t.Errorf("%v after %v", id, last)
				}
				last = id
				n++
				want, err := r.Memberships(t.Context(), id)
				same(t, id.String(), got, want)
				return err
			})
			same(t, "EachMembership", []any{n, err}, []any{4 + 155 + 10, error(nil)})
		}
		each(s)
		update(t, s, func(_ context.Context, tx groups.Tx) error { each(tx); return nil })
		stop, n := errors.New("stop"), 0
		err := s.EachMembership(t.Context(), func(groups.UserID, []groups.Membership) error { n++; return stop })
		if err != stop || n != 1 {
			t.Fatalf("a function's error: %v after %d", err, n)
		}
	},
	"holders are counted": func(t *testing.T, s groups.Store) {
		addGroups(t, s, "a", "b")
		ids := addUsers(t, s, "alice", "bob", "carl")
		count := func(all, holders, among int) {
			t.Helper()
			a, h, err := s.CountUsers(t.Context())
			m, err2 := s.CountHoldersAmong(t.Context(), []groups.UserID{ids[0], ids[0], ids[2], 1 << 40})
			same(t, "counts", []any{a, h, m, errors.Join(err, err2)}, []any{all, holders, among, error(nil)})
		}
		count(3, 0, 0)
		give(t, s, ids[0], grant("a", "s", "r"), grant("b", "s", "r"))
		give(t, s, ids[1], grant("a", "s", "r"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddManual(ctx, ids[2:], "a", "root", noon) })
		count(3, 2, 1)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.DropGrants(ctx, ids[0], []groups.Grant{grant("a", "s", "r")})
		})
		count(3, 2, 1)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.DropGrants(ctx, ids[0], []groups.Grant{grant("b", "s", "r")})
		})
		count(3, 1, 0)
		none := must[int](t)(s.CountHoldersAmong(t.Context(), nil))
		same(t, "among none", none, 0)
	},
	"removals are remembered by their latest": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.NoteRemoval(ctx, ids[1], noon), tx.NoteRemoval(ctx, ids[0], noon.Add(time.Hour)), tx.NoteRemoval(ctx, ids[0], noon))
		})
		for since, want := range map[time.Duration][]groups.UserID{0: ids, time.Microsecond: ids[:1], 2 * time.Hour: nil} {
			same(t, since.String(), must[[]groups.UserID](t)(s.RemovedUsers(t.Context(), noon.Add(since))), want)
		}
	},
	"any bytes go in and out of a grant unchanged": testAnyBytes,
	"2,000 grants at once": func(t *testing.T, s groups.Store) {
		names := numbered("group-%04d", 2000)
		addGroups(t, s, names...)
		id := addUsers(t, s, "alice")[0]
		grants := make([]groups.Grant, len(names))
		for i, name := range names {
			grants[i] = grant(name, "s", "r")
		}
		give(t, s, id, grants...)
		same(t, "GroupNames", must[[]string](t)(s.GroupNames(t.Context(), id)), names)
		same(t, "Controls", len(must[map[string]groups.Control](t)(s.Controls(t.Context(), names))), 2000)
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DropGrants(ctx, id, grants[1:]) })
		same(t, "rest", must[[]string](t)(s.GroupNames(t.Context(), id)), names[:1])
	},
}

// testAnyBytes holds "byte for byte": what is compared must come back as it
// was, quotes, NUL and broken UTF-8 included.
func testAnyBytes(t *testing.T, s groups.Store) {
	id := addUsers(t, s, "alice")[0]
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\x00", "a\x00b", `"`, `\`, "\xff\xfe", "'", "1", "null", "\u2028"}))
	rapid.Check(t, func(rt *rapid.T) {
		g := groups.Grant{Group: text.Draw(rt, "group"), Source: text.Draw(rt, "source"), Rule: text.Draw(rt, "rule"),
			Claim: text.Draw(rt, "claim"), Value: text.Draw(rt, "value")}
		var have []groups.Membership
		var control map[string]groups.Control
		err := s.Update(t.Context(), func(tx groups.Tx) (err error) {
			if err := tx.CreateGroups(t.Context(), []groups.Group{{Name: g.Group, Control: groups.SSO}}); err != nil {
				return err
			}
			if err := tx.AddGrants(t.Context(), id, []groups.Grant{g}, noon); err != nil {
				return err
			}
			if have, err = tx.Memberships(t.Context(), id); err != nil {
				return err
			}
			if control, err = tx.Controls(t.Context(), []string{g.Group}); err != nil {
				return err
			}
			return tx.DropGrants(t.Context(), id, []groups.Grant{g})
		})
		if err != nil {
			rt.Fatal(err)
		}
		if len(have) != 1 || len(have[0].Grants) != 1 || have[0].Grants[0] != g || control[g.Group] != groups.SSO {
			rt.Fatalf("put %q, got %q and control %v", g, have, control)
		}
		if rest, err := s.GroupNames(t.Context(), id); err != nil || len(rest) != 0 {
			rt.Fatalf("left after the drop: %q, %v", rest, err)
		}
	})
}
