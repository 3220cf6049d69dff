// Package groupstest holds the conformance suites: what every implementation
// of an interface of package groups must do, whatever it is made of. Each
// sub-test is one promise of a doc comment in package groups.
package groupstest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// TestStore runs every promise that one store can show. open makes a new,
// empty database and opens a store on it, and sees to its end with t.Cleanup.
func TestStore(t *testing.T, open func(t *testing.T) groups.Store) {
	for _, part := range []map[string]func(*testing.T, groups.Store){
		people, locals, identities, groupPromises, memberships, sessions, records, leases, outbox, finds, transactions,
	} {
		for name, test := range part {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

// TestSharedStore runs what takes several stores on one database. database
// makes a new, empty one and answers how to open a store on it, which is what
// a replica or a restarted process does.
func TestSharedStore(t *testing.T, database func(t *testing.T) (open func(t *testing.T) groups.Store)) {
	for name, test := range shared {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, database(t))
		})
	}
}

// noon is a fixed moment; stores keep microseconds.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC)

// update runs fn in a transaction that must succeed.
func update(t *testing.T, s groups.Store, fn func(ctx context.Context, tx groups.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx groups.Tx) error { return fn(t.Context(), tx) }); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

// refused runs fn in a transaction that must fail with want.
func refused(t *testing.T, s groups.Store, want error, fn func(ctx context.Context, tx groups.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx groups.Tx) error { return fn(t.Context(), tx) }); !errors.Is(err, want) {
		t.Fatalf("Update: got %v, want %v", err, want)
	}
}

// must answers v and fails on an error.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	opts := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b claims.Claims) bool {
		x, errA := a.MarshalJSON()
		y, errB := b.MarshalJSON()
		return errA == nil && errB == nil && string(x) == string(y) && a.Incomplete() == b.Incomplete()
	})}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func isErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

// addUsers makes users.
func addUsers(t *testing.T, s groups.Store, names ...string) []groups.UserID {
	t.Helper()
	ids := make([]groups.UserID, len(names))
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		for i, name := range names {
			u := groups.User{Name: name, Created: noon}
			if err := tx.CreateUser(ctx, &u); err != nil {
				return err
			}
			ids[i] = u.ID
		}
		return nil
	})
	return ids
}

// addGroups makes groups that the sync controls.
func addGroups(t *testing.T, s groups.Store, names ...string) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		var all []groups.Group
		for _, name := range names {
			all = append(all, groups.Group{Name: name, Control: groups.SSO, Created: noon})
		}
		return tx.CreateGroups(ctx, all)
	})
}

func grant(group, source, rule string) groups.Grant {
	return groups.Grant{Group: group, Source: source, Rule: rule, Claim: "groups", Value: "v-" + group}
}

// give adds grants.
func give(t *testing.T, s groups.Store, user groups.UserID, grants ...groups.Grant) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddGrants(ctx, user, grants, noon) })
}

func addLogin(t *testing.T, s groups.Store, l groups.Login, cookies ...byte) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		if err := tx.PutLogin(ctx, &l); err != nil {
			return err
		}
		for _, c := range cookies {
			if err := tx.PutSession(ctx, &groups.Session{Hash: hash(c), Used: noon, Login: l}); err != nil {
				return err
			}
		}
		return nil
	})
}

func hash(c byte) [32]byte { return [32]byte{c, 31: c} }

func userNames(all []groups.User) (out []string) {
	for _, u := range all {
		out = append(out, u.Name)
	}
	return out
}

func groupNames(all []groups.Group) (out []string) {
	for _, g := range all {
		out = append(out, g.Name)
	}
	return out
}

func numbered(format string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return out
}
