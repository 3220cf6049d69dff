package groupstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

var people = map[string]func(*testing.T, groups.Store){
	"CreateUser gives an id and keeps everything": func(t *testing.T, s groups.Store) {
		u := groups.User{Name: "Alice", Email: "Alice@Example.com", Display: "Älice \x00 \xff", Created: noon}
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.CreateUser(ctx, &u) })
		if u.ID <= 0 {
			t.Fatalf("id %d", u.ID)
		}
		same(t, "User", must[*groups.User](t)(s.User(t.Context(), u.ID)), &u)
		same(t, "UserByName", must[*groups.User](t)(s.UserByName(t.Context(), "aLICE")), &u)
	},
	"a user who is not there is ErrNotFound": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "alice")[0]
		_, err := s.User(t.Context(), id+1)
		isErr(t, "User", err, groups.ErrNotFound)
		_, err = s.User(t.Context(), 0)
		isErr(t, "User 0", err, groups.ErrNotFound)
		_, err = s.UserByName(t.Context(), "bob")
		isErr(t, "UserByName", err, groups.ErrNotFound)
		for name, fn := range map[string]func(context.Context, groups.Tx) error{
			"LockUser":   func(ctx context.Context, tx groups.Tx) error { return tx.LockUser(ctx, id+1) },
			"UpdateUser": func(ctx context.Context, tx groups.Tx) error { return tx.UpdateUser(ctx, &groups.User{ID: id + 1}) },
			"DeleteUser": func(ctx context.Context, tx groups.Tx) error { return tx.DeleteUser(ctx, id+1) },
			"PutIdentity": func(ctx context.Context, tx groups.Tx) error {
				return tx.PutIdentity(ctx, &groups.IdentityRecord{User: id + 1, Source: "s", Subject: "x"})
			},
			"PutLogin": func(ctx context.Context, tx groups.Tx) error {
				return tx.PutLogin(ctx, &groups.Login{ID: "l", User: id + 1})
			},
		} {
			t.Run(name, func(t *testing.T) { refused(t, s, groups.ErrNotFound, fn) })
		}
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.LockUser(ctx, id) })
	},
	"a taken name is ErrConflict in any ASCII case, and only in ASCII": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob", "ärger")
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error {
			return tx.CreateUser(ctx, &groups.User{Name: "ALICE"})
		})
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateUser(ctx, &groups.User{ID: ids[1], Name: "Alice"})
		})
		addUsers(t, s, "Ärger")
		// A new spelling of one's own name is no conflict.
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateUser(ctx, &groups.User{ID: ids[0], Name: "Alice", Email: "a@example.com", Display: "A"})
		})
		same(t, "User", must[*groups.User](t)(s.User(t.Context(), ids[0])),
			&groups.User{ID: ids[0], Name: "Alice", Email: "a@example.com", Display: "A", Created: noon})
	},
	"a refused name leaves the transaction usable": func(t *testing.T, s groups.Store) {
		addUsers(t, s, "alice")
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			if err := tx.CreateUser(ctx, &groups.User{Name: "Alice"}); !errors.Is(err, groups.ErrConflict) {
				t.Errorf("CreateUser: %v", err)
			}
			return tx.CreateUser(ctx, &groups.User{Name: "bob"})
		})
		must[*groups.User](t)(s.UserByName(t.Context(), "bob"))
	},
	"DeleteUser takes everything but the trail and the outbox": testDeleteUser,
	"an id is never given twice": func(t *testing.T, s groups.Store) {
		first := addUsers(t, s, "alice")[0]
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteUser(ctx, first) })
		if again := addUsers(t, s, "alice")[0]; again <= first {
			t.Fatalf("ids %d, then %d", first, again)
		}
	},
	"UsersByEmail finds at most two, never by an empty address": func(t *testing.T, s groups.Store) {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for _, u := range []groups.User{{Name: "a", Email: "x@e.com"}, {Name: "b", Email: "X@E.COM"}, {Name: "c", Email: "x@E.com"}, {Name: "d"}, {Name: "e", Email: "y@e.com"}} {
				if err := tx.CreateUser(ctx, &u); err != nil {
					return err
				}
			}
			return nil
		})
		for email, want := range map[string][]string{"x@e.COM": {"a", "b"}, "y@e.com": {"e"}, "": nil, "z@e.com": nil} {
			same(t, email, userNames(must[[]groups.User](t)(s.UsersByEmail(t.Context(), email))), want)
		}
	},
	"Users pages by id and finds parts": func(t *testing.T, s groups.Store) {
		var ids []groups.UserID
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for _, u := range []groups.User{{Name: "anna"}, {Name: "bob", Email: "B.ANNAS@e.com"}, {Name: "carl", Display: "Anna Carl"}, {Name: "d%_"}} {
				if err := tx.CreateUser(ctx, &u); err != nil {
					return err
				}
				ids = append(ids, u.ID)
			}
			return nil
		})
		list := func(query string, after groups.UserID, limit int) []string {
			return userNames(must[[]groups.User](t)(s.Users(t.Context(), query, after, limit)))
		}
		same(t, "all", list("", 0, 100), []string{"anna", "bob", "carl", "d%_"})
		same(t, "first page", list("", 0, 2), []string{"anna", "bob"})
		same(t, "second page", list("", ids[1], 2), []string{"carl", "d%_"})
		same(t, "last page", list("", ids[3], 2), []string(nil))
		same(t, "part in any case", list("aNNa", 0, 100), []string{"anna", "bob", "carl"})
		same(t, "part, page", list("anna", ids[0], 1), []string{"bob"})
		same(t, "wildcards are text", list("%", 0, 100), []string{"d%_"})
		same(t, "none", list("zz", 0, 100), []string(nil))
	},
}

func testDeleteUser(t *testing.T, s groups.Store) {
	ids := addUsers(t, s, "alice", "bob")
	addGroups(t, s, "g")
	for i, id := range ids {
		give(t, s, id, grant("g", "s", "r"))
		addLogin(t, s, groups.Login{ID: string(rune('a' + i)), User: id, Source: "s", Expires: noon}, byte(i))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			if err := tx.PutIdentity(ctx, &groups.IdentityRecord{User: id, Source: "s", Subject: string(rune('a' + i))}); err != nil {
				return err
			}
			if err := tx.AddManual(ctx, []groups.UserID{id}, "g", "root", noon); err != nil {
				return err
			}
			if err := tx.NoteRemoval(ctx, id, noon); err != nil {
				return err
			}
			if err := tx.AddEvents(ctx, groups.Event{Kind: groups.EventSignIn, User: id}); err != nil {
				return err
			}
			return tx.AddWork(ctx, groups.Work{Target: "t", User: id, Body: []byte(`{}`)})
		})
	}
	update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteUser(ctx, ids[0]) })

	ctx := t.Context()
	_, err := s.Identity(ctx, "s", "a")
	isErr(t, "Identity", err, groups.ErrNotFound)
	_, err = s.LoginByID(ctx, "a")
	isErr(t, "LoginByID", err, groups.ErrNotFound)
	_, err = s.Session(ctx, hash(0))
	isErr(t, "Session", err, groups.ErrNotFound)
	same(t, "GroupNames", must[[]string](t)(s.GroupNames(ctx, ids[0])), []string(nil))
	same(t, "RemovedUsers", must[[]groups.UserID](t)(s.RemovedUsers(ctx, noon)), ids[1:])
	same(t, "events", len(must[[]groups.Event](t)(s.Events(ctx, groups.EventQuery{User: ids[0]}))), 1)
	same(t, "outbox", len(must[[]groups.Work](t)(s.Outbox(ctx, 10))), 2)
	// The other user has everything still.
	must[*groups.IdentityRecord](t)(s.Identity(ctx, "s", "b"))
	must[*groups.Session](t)(s.Session(ctx, hash(1)))
	same(t, "members", must[*groups.Group](t)(s.Group(ctx, "g")).Members, 1)
	all, holders, err := s.CountUsers(ctx)
	same(t, "CountUsers", []any{all, holders, err}, []any{1, 1, error(nil)})
}

var identities = map[string]func(*testing.T, groups.Store){
	"PutIdentity creates, then replaces": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		c, err := claims.Parse([]byte(`{"groups":["a","\u0000","<&>"],"n":12345678901234567890,"deep":{"x":null}}`))
		if err != nil {
			t.Fatal(err)
		}
		rec := groups.IdentityRecord{User: ids[0], Source: "s", Subject: "x", Claims: c, IssuedAt: noon, Seen: noon.Add(time.Second), Fingerprint: "f"}
		put := func(ctx context.Context, tx groups.Tx) error { return tx.PutIdentity(ctx, &rec) }
		update(t, s, put)
		rec.Epoch = must[int64](t)(s.Epoch(t.Context())) // is read with the record, and never 0
		if rec.Epoch == 0 {
			t.Error("the first epoch is 0")
		}
		same(t, "new", must[*groups.IdentityRecord](t)(s.Identity(t.Context(), "s", "x")), &rec)
		rec = groups.IdentityRecord{User: ids[1], Source: "s", Subject: "x", Claims: claims.Claims{}.WithIncomplete("userinfo did not answer"), Epoch: rec.Epoch}
		update(t, s, put)
		same(t, "replaced", must[*groups.IdentityRecord](t)(s.Identity(t.Context(), "s", "x")), &rec)
		same(t, "of the first", must[[]groups.IdentityRecord](t)(s.Identities(t.Context(), ids[0])), []groups.IdentityRecord{})
		for _, id := range [][2]string{{"s", "X"}, {"S", "x"}, {"s", ""}} { // source and subject are exact
			_, err = s.Identity(t.Context(), id[0], id[1])
			isErr(t, "Identity", err, groups.ErrNotFound)
		}
	},
	"Identities and EachIdentity keep their order": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, numbered("user%04d", 600)...) // more than a page of any store
		want := [][2]string{}
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for i, id := range ids {
				for _, source := range []string{"b", "a"} {
					if source == "b" && i > 1 {
						continue
					}
					if err := tx.PutIdentity(ctx, &groups.IdentityRecord{User: id, Source: source, Subject: id.String()}); err != nil {
						return err
					}
				}
			}
			return nil
		})
		for i, id := range ids {
			want = append(want, [2]string{id.String(), "a"})
			if i <= 1 {
				want = append(want, [2]string{id.String(), "b"})
			}
		}
		two := must[[]groups.IdentityRecord](t)(s.Identities(t.Context(), ids[1]))
		same(t, "Identities", []string{two[0].Source, two[1].Source}, []string{"a", "b"})
		each := func(r groups.Reader) (got [][2]string) {
			err := r.EachIdentity(t.Context(), func(rec *groups.IdentityRecord) error {
				got = append(got, [2]string{rec.User.String(), rec.Source})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return got
		}
		same(t, "EachIdentity", each(s), want)
		update(t, s, func(_ context.Context, tx groups.Tx) error { same(t, "in a transaction", each(tx), want); return nil })
		stop, n := errors.New("stop"), 0
		err := s.EachIdentity(t.Context(), func(*groups.IdentityRecord) error { n++; return stop })
		if err != stop || n != 1 {
			t.Fatalf("a function's error: %v after %d", err, n)
		}
	},
	"ClearFingerprints clears the user's, and no other": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for i, id := range ids {
				for _, source := range []string{"a", "b"} {
					if err := tx.PutIdentity(ctx, &groups.IdentityRecord{User: id, Source: source, Subject: string(rune('a' + i)), Fingerprint: "f"}); err != nil {
						return err
					}
				}
			}
			return tx.ClearFingerprints(ctx, ids[0])
		})
		for i, want := range []string{"", "f"} {
			for _, rec := range must[[]groups.IdentityRecord](t)(s.Identities(t.Context(), ids[i])) {
				same(t, rec.Source, rec.Fingerprint, want)
			}
		}
	},
}
