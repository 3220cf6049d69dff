package groupstest

import (
	"context"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// addAccount gives a user an account at a source.
func addAccount(t *testing.T, s groups.Store, user groups.UserID, source, subject, hash string) groups.LocalAccount {
	t.Helper()
	a := groups.LocalAccount{User: groups.User{ID: user}, Source: source, Subject: subject, Changed: noon}
	update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.CreateLocalAccount(ctx, &a, hash) })
	a.User = *must[*groups.User](t)(s.User(t.Context(), user))
	return a
}

func accountNames(all []groups.LocalAccount) (out []string) {
	for _, a := range all {
		out = append(out, a.User.Name)
	}
	return out
}

var locals = map[string]func(*testing.T, groups.Store){
	"CreateLocalAccount keeps everything": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "Alice")[0]
		want := addAccount(t, s, id, "local", "S1", "hash-1")
		same(t, "LocalAccount", must[*groups.LocalAccount](t)(s.LocalAccount(t.Context(), "local", "S1")), &want)
		same(t, "LocalAccountByName", must[*groups.LocalAccount](t)(s.LocalAccountByName(t.Context(), "local", "aLICE")), &want)
		same(t, "LocalPassword", must[string](t)(s.LocalPassword(t.Context(), "local", "S1")), "hash-1")
	},
	"an account that is not there is ErrNotFound": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		addAccount(t, s, ids[0], "local", "S1", "h")
		for _, key := range [][2]string{{"local", "s1"}, {"Local", "S1"}, {"", "S1"}, {"local", ""}} { // exact
			_, err := s.LocalAccount(t.Context(), key[0], key[1])
			isErr(t, "LocalAccount", err, groups.ErrNotFound)
			_, err = s.LocalPassword(t.Context(), key[0], key[1])
			isErr(t, "LocalPassword", err, groups.ErrNotFound)
		}
		for _, key := range [][2]string{{"local", "bob"}, {"other", "alice"}, {"local", ""}, {"local", "S1"}} {
			_, err := s.LocalAccountByName(t.Context(), key[0], key[1])
			isErr(t, "LocalAccountByName", err, groups.ErrNotFound)
		}
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateLocalAccount(ctx, &groups.LocalAccount{Source: "local", Subject: "S2"}, "h")
		})
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error { // of nobody
			return tx.CreateLocalAccount(ctx, &groups.LocalAccount{User: groups.User{ID: ids[1] + 1}, Source: "local", Subject: "S2"}, "h")
		})
	},
	"a second account of a user at a source, or of a subject, is ErrConflict": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		addAccount(t, s, ids[0], "local", "S1", "h")
		for _, a := range []groups.LocalAccount{
			{User: groups.User{ID: ids[0]}, Source: "local", Subject: "S2"},
			{User: groups.User{ID: ids[1]}, Source: "local", Subject: "S1"},
		} {
			refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error { return tx.CreateLocalAccount(ctx, &a, "x") })
		}
		same(t, "the first one's", must[string](t)(s.LocalPassword(t.Context(), "local", "S1")), "h")
		addAccount(t, s, ids[0], "other", "S1", "at another source")
		addAccount(t, s, ids[1], "local", "S2", "another user")
	},
	"UpdateLocalAccount writes what it says, and of one account": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		a := addAccount(t, s, ids[0], "local", "S1", "first")
		b := addAccount(t, s, ids[1], "local", "S2", "bob's")
		a.Disabled = true
		write := func(hash string) {
			update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.UpdateLocalAccount(ctx, &a, hash) })
		}
		write("")
		same(t, "disabled", must[*groups.LocalAccount](t)(s.LocalAccount(t.Context(), "local", "S1")), &a)
		same(t, "the password stays", must[string](t)(s.LocalPassword(t.Context(), "local", "S1")), "first")
		a.Disabled, a.Changed = false, noon.Add(time.Hour)
		write("second")
		same(t, "enabled", must[*groups.LocalAccount](t)(s.LocalAccount(t.Context(), "local", "S1")), &a)
		same(t, "the new password", must[string](t)(s.LocalPassword(t.Context(), "local", "S1")), "second")
		same(t, "the other", must[*groups.LocalAccount](t)(s.LocalAccount(t.Context(), "local", "S2")), &b)
		same(t, "the other's password", must[string](t)(s.LocalPassword(t.Context(), "local", "S2")), "bob's")
	},
	"LocalAccounts pages by user id": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob", "carl", "dora")
		for i, id := range []int{3, 0, 2} { // not in their order
			addAccount(t, s, ids[id], "local", string(rune('A'+i)), "h")
		}
		addAccount(t, s, ids[1], "other", "B", "h")
		list := func(source string, after groups.UserID, limit int) []string {
			return accountNames(must[[]groups.LocalAccount](t)(s.LocalAccounts(t.Context(), source, after, limit)))
		}
		same(t, "all", list("local", 0, 100), []string{"alice", "carl", "dora"})
		same(t, "first page", list("local", 0, 2), []string{"alice", "carl"})
		same(t, "second page", list("local", ids[2], 2), []string{"dora"})
		same(t, "last page", list("local", ids[3], 2), []string(nil))
		same(t, "another source", list("other", 0, 2), []string{"bob"})
		same(t, "no source", list("none", 0, 2), []string(nil))
	},
	"an account follows its user's name, and goes with the user": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		for i, id := range ids {
			addAccount(t, s, id, "local", string(rune('A'+i)), "h")
		}
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.UpdateUser(ctx, &groups.User{ID: ids[0], Name: "alicia"})
		})
		must[*groups.LocalAccount](t)(s.LocalAccountByName(t.Context(), "local", "alicia"))
		_, err := s.LocalAccountByName(t.Context(), "local", "alice")
		isErr(t, "the old name", err, groups.ErrNotFound)
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteUser(ctx, ids[0]) })
		_, err = s.LocalAccount(t.Context(), "local", "A")
		isErr(t, "LocalAccount", err, groups.ErrNotFound)
		_, err = s.LocalPassword(t.Context(), "local", "A")
		isErr(t, "LocalPassword", err, groups.ErrNotFound)
		same(t, "the other", accountNames(must[[]groups.LocalAccount](t)(s.LocalAccounts(t.Context(), "local", 0, 10))), []string{"bob"})
	},
	"an account of a transaction that failed is not there": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "alice")[0]
		refused(t, s, context.Canceled, func(ctx context.Context, tx groups.Tx) error {
			if err := tx.CreateLocalAccount(ctx, &groups.LocalAccount{User: groups.User{ID: id}, Source: "local", Subject: "S1"}, "h"); err != nil {
				t.Error(err)
			}
			same(t, "inside", must[string](t)(tx.LocalPassword(ctx, "local", "S1")), "h")
			return context.Canceled
		})
		_, err := s.LocalAccount(t.Context(), "local", "S1")
		isErr(t, "LocalAccount", err, groups.ErrNotFound)
		addAccount(t, s, id, "local", "S1", "h") // the control
	},
}
