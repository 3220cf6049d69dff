package groupstest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// finds is what lists of people and histories of groups ask for.
var finds = map[string]func(*testing.T, groups.Store){
	"FindUsers sorts, searches and goes on after a page": testFindUsers,
	"FindUsers goes on among many who are alike":         testFindUsersTies,
	"RenamedTo finds the newest renaming to a name":      testRenamedTo,
}

// seenAt gives a user an identity that was last seen then.
func seenAt(t *testing.T, s groups.Store, user groups.UserID, source, subject string, at time.Time) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.PutIdentity(ctx, &groups.IdentityRecord{User: user, Source: source, Subject: subject, Seen: at})
	})
}

// pages reads a list of users to its end, so many at a time.
func pages(t *testing.T, s groups.Store, q groups.UserQuery, limit int) (out []groups.FoundUser) {
	t.Helper()
	for q.Limit = limit; ; {
		found := must[[]groups.FoundUser](t)(s.FindUsers(t.Context(), q))
		out = append(out, found...)
		if limit == 0 || len(found) < limit {
			return out
		}
		q.After = found[len(found)-1]
	}
}

func foundNames(all []groups.FoundUser) (out []string) {
	for _, u := range all {
		out = append(out, u.Name)
	}
	return out
}

func testFindUsers(t *testing.T, s groups.Store) {
	ids := addUsers(t, s, "dora", "Bob", "carl", "alice", "eve", "_x")
	seenAt(t, s, ids[0], "hr", "1", noon)
	seenAt(t, s, ids[1], "hr", "2", noon.Add(time.Hour))
	seenAt(t, s, ids[1], "ad", "2", noon.Add(3*time.Hour))
	seenAt(t, s, ids[1], "ad", "2b", noon.Add(3*time.Hour)) // as late, and still once
	seenAt(t, s, ids[2], "ad", "3", noon.Add(2*time.Hour))
	seenAt(t, s, ids[3], "hr", "4", time.Time{}) // made by hand, never signed in
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.UpdateUser(ctx, &groups.User{ID: ids[4], Name: "eve", Email: "Eve@Example.com", Display: "EVE %"})
	})
	for _, limit := range []int{0, 1, 2, 3, 6, 7} {
		list := func(q groups.UserQuery) []string { t.Helper(); return foundNames(pages(t, s, q, limit)) }
		what := func(name string) string { return fmt.Sprintf("%s, limit %d", name, limit) }
		same(t, what("by id"), list(groups.UserQuery{}), []string{"dora", "Bob", "carl", "alice", "eve", "_x"})
		same(t, what("by name"), list(groups.UserQuery{By: groups.UsersByName}), []string{"_x", "alice", "Bob", "carl", "dora", "eve"})
		same(t, what("by seen"), list(groups.UserQuery{By: groups.UsersBySeen}), []string{"Bob", "carl", "dora", "alice", "eve", "_x"})
		same(t, what("a source's"), list(groups.UserQuery{Source: "hr"}), []string{"dora", "Bob", "alice"})
		same(t, what("a source's by name"), list(groups.UserQuery{Source: "hr", By: groups.UsersByName}), []string{"alice", "Bob", "dora"})
		same(t, what("a source's by seen"), list(groups.UserQuery{Source: "hr", By: groups.UsersBySeen}), []string{"Bob", "dora", "alice"})
		same(t, what("a search by name"), list(groups.UserQuery{Query: "R", By: groups.UsersByName}), []string{"carl", "dora"})
		same(t, what("a search by seen"), list(groups.UserQuery{Query: "A", By: groups.UsersBySeen}), []string{"carl", "dora", "alice", "eve"})
		same(t, what("a search by id"), list(groups.UserQuery{Query: "a"}), []string{"dora", "carl", "alice", "eve"})
		same(t, what("a search in a source"), list(groups.UserQuery{Query: "a", Source: "ad", By: groups.UsersBySeen}), []string{"carl"})
		same(t, what("signs are themselves"), list(groups.UserQuery{Query: "_"}), []string{"_x"})
		same(t, what("signs are themselves"), list(groups.UserQuery{Query: "%", By: groups.UsersByName}), []string{"eve"})
		same(t, what("no such source"), list(groups.UserQuery{Source: "x", By: groups.UsersBySeen}), []string(nil))
	}
	bob := must[[]groups.FoundUser](t)(s.FindUsers(t.Context(), groups.UserQuery{Query: "bob", Source: "hr"}))
	same(t, "whole", bob, []groups.FoundUser{{User: groups.User{ID: ids[1], Name: "Bob", Created: noon}, Seen: noon.Add(3 * time.Hour)}})
	same(t, "never seen", pages(t, s, groups.UserQuery{Query: "alice"}, 1)[0].Seen.IsZero(), true)
	// Who comes in by a name that is gone meanwhile: the list goes on after it.
	same(t, "after a name that nobody has", foundNames(must[[]groups.FoundUser](t)(s.FindUsers(t.Context(),
		groups.UserQuery{By: groups.UsersByName, After: groups.FoundUser{User: groups.User{Name: "BZZ"}}}))), []string{"carl", "dora", "eve"})
}

// Many were seen in the same microsecond, as after an import, and so many as
// make a store look for them in another way: none is left out, none comes twice.
func testFindUsersTies(t *testing.T, s groups.Store) {
	const all, seen = 2100, 1400
	names := numbered("user%04d", all)
	ids := addUsers(t, s, names...)
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		var err error
		for i, id := range ids {
			rec := groups.IdentityRecord{User: id, Source: "hr", Subject: fmt.Sprint(i)}
			if i < seen {
				rec.Seen = noon.Add(time.Duration(i/(seen/2)) * time.Second)
			}
			err = errors.Join(err, tx.PutIdentity(ctx, &rec))
		}
		return err
	})
	want := append(append(append([]string{}, names[seen/2:seen]...), names[:seen/2]...), names[seen:]...)
	for what, q := range map[string]groups.UserQuery{"all": {}, "a source's": {Source: "hr"}, "found": {Query: "USER"}} {
		q.By = groups.UsersBySeen
		for _, limit := range []int{0, 300, seen / 2, 2099} {
			same(t, fmt.Sprint(what, ", limit ", limit), foundNames(pages(t, s, q, limit)), want)
		}
	}
}

func testRenamedTo(t *testing.T, s groups.Store) {
	reason := func(old string) string { return groups.RenamedReason + fmt.Sprintf("%q", old) }
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.AddEvents(ctx,
			groups.Event{Kind: groups.EventGroupChanged, At: noon, Group: "b", Reason: reason("a")},
			groups.Event{Kind: groups.EventGroupChanged, At: noon, Group: "b", Reason: "described"},
			groups.Event{Kind: groups.EventGroupChanged, At: noon, Group: "c", Reason: reason("b"), Actor: "root"},
			groups.Event{Kind: groups.EventMemberAdded, At: noon, Group: "b", Reason: reason("x")},
			groups.Event{Kind: groups.EventGroupChanged, At: noon, Group: "b", Reason: reason("z <&> \x00 \u00e9 \"")},
			groups.Event{Kind: groups.EventGroupChanged, At: noon, Group: "d", Actor: reason("x"), Reason: "described"})
	})
	to := func(name string, before int64) (*groups.Event, string) {
		t.Helper()
		e := must[*groups.Event](t)(s.RenamedTo(t.Context(), name, before))
		old, ok := groups.RenamedFrom(e)
		same(t, "a renaming", []any{ok, e.Group, e.Kind}, []any{true, name, groups.EventGroupChanged})
		return e, old
	}
	e, old := to("c", 0)
	same(t, "c was", []string{old, e.Actor}, []string{"b", "root"})
	first, old := to("b", e.ID)
	same(t, "b was, before it was c", old, "a")
	_, old = to("b", 0)
	same(t, "b is", old, "z <&> \x00 \u00e9 \"")
	for name, before := range map[string]int64{"b": first.ID, "a": 0, "d": 0, "x": 0} {
		_, err := s.RenamedTo(t.Context(), name, before)
		isErr(t, "RenamedTo "+name, err, groups.ErrNotFound)
	}
}
