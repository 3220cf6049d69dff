package sqlstore_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// everythingIn is what a directory answers, asked in every way.
func everythingIn(t *testing.T, s groups.Store) map[string]any {
	t.Helper()
	out := map[string]any{}
	note := func(name string, v any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = v
	}
	users, err := s.Users(t.Context(), "", 0, 0)
	note("users", users, err)
	for _, u := range users {
		have, err := s.Memberships(t.Context(), u.ID)
		note("memberships of "+u.Name, have, err)
		sessions, err := s.Sessions(t.Context(), u.ID)
		note("sessions of "+u.Name, sessions, err)
	}
	var ids []string
	err = s.EachIdentity(t.Context(), func(rec *groups.IdentityRecord) error {
		body, err := rec.Claims.MarshalJSON()
		ids = append(ids, rec.Source, rec.Subject, string(body), rec.Fingerprint, rec.Seen.String())
		return err
	})
	note("identities", ids, err)
	all, err := s.Groups(t.Context(), "", "", 0)
	note("groups", all, err)
	rules, err := s.Rules(t.Context())
	note("rules", rules, err)
	events, err := s.Events(t.Context(), groups.EventQuery{})
	note("events", events, err)
	found, err := s.Events(t.Context(), groups.EventQuery{Group: "group0001"})
	note("events of a group", found, err)
	tally, err := s.Tally(t.Context(), time.Now().Add(-48*time.Hour), time.Hour, 96)
	note("tally", tally, err)
	work, err := s.Outbox(t.Context(), 0)
	note("outbox", work, err)
	accounts, err := s.LocalAccounts(t.Context(), "local", 0, 0)
	note("accounts", accounts, err)
	removed, err := s.RemovedUsers(t.Context(), time.Time{})
	note("removed", removed, err)
	epoch, err := s.Epoch(t.Context())
	note("epoch", epoch, err)
	meta, err := s.Meta(t.Context(), "key")
	note("meta", string(meta), err)
	return out
}

func TestCopyToPostgres(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	from := open(t, filepath.Join(t.TempDir(), "groupgate.db"), sqlstore.Options{})
	d := configured(t, from)
	for i, user := range []string{"alice", "bob", "alice", "bob \x00\xff\uFDD0"} {
		if _, err := d.SignIn(t.Context(), signIn(i, user, names("group", 20-5*i)...)); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	var gone groups.User
	if err := from.Update(ctx, func(tx groups.Tx) error {
		gone = groups.User{Name: "gone"}
		if err := tx.CreateUser(ctx, &gone); err != nil {
			return err
		}
		bob, err := tx.UserByName(ctx, "bob")
		if err != nil {
			return err
		}
		_, err = tx.Once(ctx, "kind", "used", time.Now().Add(time.Hour))
		return errors.Join(err, tx.DeleteUser(ctx, gone.ID),
			tx.CreateLocalAccount(ctx, &groups.LocalAccount{User: *bob, Source: "local", Subject: "b", Disabled: true}, "hash"),
			tx.AddManual(ctx, []groups.UserID{bob.ID}, "group0003", "root", time.Now()),
			tx.PutRule(ctx, groups.Rule{ID: "mine", Claim: "c", Any: true}),
			tx.AddWork(ctx, groups.Work{Target: "t", User: bob.ID, Body: []byte(`{"a":"\u0000"}`)}),
			tx.PutMeta(ctx, "key", []byte(`"value"`)))
	}); err != nil {
		t.Fatal(err)
	}
	want := everythingIn(t, from)

	dsn := server.DSN(database(t, server))
	to := openPostgres(t, dsn, sqlstore.Options{})
	moved, err := sqlstore.Copy(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int64{}
	for _, m := range moved {
		rows[m.Name] = m.Rows
	}
	if rows["users"] != 3 || rows["sessions"] != 4 || rows["events"] == 0 || rows["once"] != 1 || rows["meta"] == 0 {
		t.Errorf("moved: %v", moved)
	}
	same := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b claims.Claims) bool { return false })}
	if diff := cmp.Diff(want, everythingIn(t, to), same); diff != "" {
		t.Errorf("the copy is another (-want +got):\n%s", diff)
	}
	if hash, err := to.LocalPassword(ctx, "local", "b"); hash != "hash" || err != nil {
		t.Errorf("password: %q, %v", hash, err)
	}
	// It goes on from there: numbers are new, single uses used.
	if err := to.Update(ctx, func(tx groups.Tx) error {
		u := groups.User{Name: "new"}
		fresh, err := tx.Once(ctx, "kind", "used", time.Now())
		if fresh {
			t.Error("what was used can be used again")
		}
		return errors.Join(err, tx.CreateUser(ctx, &u), tx.AddEvents(ctx, groups.Event{Kind: "k"}), func() error {
			if u.ID <= gone.ID {
				t.Errorf("user %d has the number of one who is gone", u.ID)
			}
			return nil
		}())
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := configured(t, to).SignIn(ctx, signIn(77, "carl", names("group", 25)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlstore.Copy(ctx, from, to); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("copied into a directory that was used: %v", err)
	}
}
