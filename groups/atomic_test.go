package groups_test

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

var errBroken = fmt.Errorf("planted: %w", groups.ErrUnavailable)

// spied is a directory whose store's steps can be watched.
func spied(t *testing.T, edit ...func(*groups.Settings)) (*house, *spy) {
	t.Helper()
	s := &spy{on: func(string) error { return nil }}
	h := openHouse(t, func(real groups.Store) groups.Store { s.Store = real; return s })
	h.configure(edit...)
	return h, s
}

// TestFailureAtAnyStepChangesNothing: GS-11. Each act is tried with its first
// step failing, its second, and so on; the database is as before, row for row,
// until it succeeds.
func TestFailureAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	wiki := func(s *groups.Settings) { s.Targets = []string{"wiki"} }
	for _, act := range []struct {
		name  string
		do    func(h *house) error
		steps []string // some that must be among those that failed
	}{
		{"first login", func(h *house) error {
			in := h.signIn(identity(h.t, "s", "9", 0, groupsOf("bob", "a", "new")))
			in.OnceKind, in.OnceID, in.OnceUntil = "flow", "f9", h.now().Add(time.Hour)
			_, err := h.dir.SignIn(h.t.Context(), in)
			return err
		}, []string{"begin", "once", "create user", "create groups", "add grants", "add work", "put identity", "put login", "put session", "add events", "commit"}},
		{"first login by a statement that counts once", func(h *house) error {
			in := h.signIn(statement(identity(h.t, "s", "9", 0, groupsOf("bob", "a", "new")), "_a9", h.now()))
			_, err := h.dir.SignIn(h.t.Context(), in)
			return err
		}, []string{"begin", "once", "create user", "add grants", "put login", "put session", "add events", "commit"}},
		{"another set", func(h *house) error {
			_, err := h.login(identity(h.t, "s", "1", 5, `{"user":"alice2","email":"x@example.com","groups":["b","c","d"]}`))
			return err
		}, []string{"lock user", "update user", "create groups", "add grants", "drop grants", "note removal", "put identity", "commit"}},
		{"joining a user", func(h *house) error {
			_, err := h.login(identity(h.t, "t", "x", 5, groupsOf("alice", "b", "z")))
			return err
		}, []string{"tx identities", "lock user", "add grants", "put session"}},
		{"gone", func(h *house) error { return h.dir.Gone(h.t.Context(), "s", "1", "") },
			[]string{"drop grants", "delete logins", "add work", "put identity", "commit"}},
		{"deletion", func(h *house) error { return h.dir.DeleteUser(h.t.Context(), h.user("alice"), "root") },
			[]string{"delete user", "add work", "add events", "commit"}},
		{"a local user", func(h *house) error {
			_, err := h.dir.CreateLocal(h.t.Context(), "local", groups.LocalUser{Name: "bob", Password: "h"}, "root")
			return err
		}, []string{"tx user by name", "create user", "create local account", "add grants", "put identity", "add work", "add events", "commit"}},
		{"a change of a local user", func(h *house) error {
			a, err := h.store.LocalAccountByName(h.t.Context(), "local", "lola")
			if err != nil {
				return err
			}
			hash, off := "another", true
			_, err = h.dir.ChangeLocal(h.t.Context(), "local", a.Subject, groups.LocalChange{
				Email: new("new@example.com"), Password: &hash, Was: "first", Disabled: &off}, "root")
			return err
		}, []string{"tx local account", "lock user", "update user", "put identity", "tx local password", "update local account", "tx sessions", "delete logins", "notify", "add events", "commit"}},
	} {
		t.Run(act.name, func(t *testing.T) {
			t.Parallel()
			h, s := spied(t, linked, wiki, withLocal, defaults("everyone"))
			h.mustLogin("s", "1", 0, groupsOf("alice", "a", "b"))
			h.lola()
			db := h.file()
			before := dump(t, db)
			var failed []string
			for n := 1; ; n++ {
				on, at := nthFails(n, errBroken)
				s.on = on
				err := act.do(h)
				s.on = func(string) error { return nil }
				if at() == "" {
					if err != nil {
						t.Fatalf("nothing was planted, but %v", err)
					}
					break
				}
				failed = append(failed, at())
				if !errors.Is(err, groups.ErrUnavailable) {
					t.Errorf("step %d (%s) failed, the answer is %v", n, at(), err)
				}
				if after := dump(t, db); after != before {
					t.Fatalf("step %d (%s) failed and left a change:\n%s\n%s", n, at(), before, after)
				}
			}
			for _, step := range act.steps {
				if !slices.Contains(failed, step) {
					t.Errorf("step %q did not come up among %v", step, failed)
				}
			}
			if dump(t, db) == before {
				t.Error("control: the act that succeeded changed nothing")
			}
		})
	}
}

// lola is a local user with a session.
func (h *house) lola() {
	h.t.Helper()
	a, err := h.dir.CreateLocal(h.t.Context(), "local", groups.LocalUser{Name: "lola", Password: "first"}, "root")
	if err != nil {
		h.t.Fatal(err)
	}
	h.mustLogin("local", a.Subject, 1, `{"preferred_username":"lola"}`)
}

// TestSessionOnlyWithItsSync: no session of a sync that failed, none missing
// of one that did not.
func TestSessionOnlyWithItsSync(t *testing.T) {
	t.Parallel()
	h, s := spied(t)
	s.on = func(step string) error {
		if step == "commit" {
			return errBroken
		}
		return nil
	}
	_, err := h.login(identity(t, "s", "1", 0, groupsOf("alice", "a")))
	h.wantErr(err, groups.ErrUnavailable)
	_, err = h.dir.View(t.Context(), cookieHash(1))
	h.wantErr(err, groups.ErrNotFound)
	s.on = func(string) error { return nil }
	h.mustLogin("s", "1", 0, groupsOf("alice", "a"))
	if v, err := h.dir.View(t.Context(), cookieHash(2)); err != nil || !slices.Equal(v.Groups, []string{"a"}) {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestInterruptedEvaluationIsMadeUpFor: a rule change breaks off at any step.
// Going on and going back both end where they should.
func TestInterruptedEvaluationIsMadeUpFor(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	for n := 1; ; n++ {
		h, s := spied(t, stored)
		h.putRule(valueRule("r1", "s", "x", "old"))
		ids := []groups.UserID{
			h.mustLogin("s", "1", 0, groupsOf("alice", "x")).User.ID,
			h.mustLogin("s", "2", 0, groupsOf("bob", "x")).User.ID,
		}
		on, at := nthFails(n, errBroken)
		s.on = on
		_, err := h.dir.PutRule(t.Context(), valueRule("r1", "s", "x", "new"), "root")
		s.on = func(string) error { return nil }
		if at() == "" {
			if err != nil || n < 10 {
				t.Fatalf("after %d steps: %v", n, err)
			}
			return
		}
		if err == nil {
			t.Fatalf("step %d (%s) failed unnoticed", n, at())
		}
		// Somebody signs in by whatever rules hold now.
		ids = append(ids, h.mustLogin("s", "3", 0, groupsOf("carol", "x")).User.ID)
		want := "new:s"
		if n%2 == 0 {
			want = "old:s"
			h.putRule(valueRule("r1", "s", "x", "old"))
		} else {
			h.putRule(valueRule("r1", "s", "x", "new"))
		}
		for _, id := range ids {
			if got := h.in(id); got != want {
				t.Errorf("step %d (%s) failed: memberships %q, want %q", n, at(), got, want)
			}
		}
	}
}

// TestRuleChangeRacingALogin: a login that computed with the old rules, and
// commits while the new ones are put in force, does not leave their grants.
func TestRuleChangeRacingALogin(t *testing.T) {
	t.Parallel()
	h, s := spied(t, stored)
	h.putRule(valueRule("r1", "s", "x", "old"))
	in := h.signIn(identity(t, "s", "1", 0, groupsOf("alice", "x")))
	signed := make(chan error, 1)
	inside, evaluated := make(chan struct{}), make(chan struct{})
	var rules, logins, passes atomic.Int32
	s.on = func(step string) error {
		switch {
		case step == "rules" && rules.Add(1) == 2: // between the rule's commit and its coming into force
			go func() {
				_, err := h.dir.SignIn(t.Context(), in)
				signed <- err
			}()
			select {
			case <-inside:
			case <-time.After(100 * time.Millisecond): // it found out that the rules moved, and waits for them
			}
		case step == "tx identity" && logins.Add(1) == 1: // the login has looked at the rules, and not yet written
			close(inside)
			select {
			case <-evaluated:
			case <-time.After(100 * time.Millisecond): // an evaluation that does not wait for logins is through by now
			}
		case step == "each identity done" && passes.Add(1) == 1:
			close(evaluated)
		}
		return nil
	}
	h.putRule(valueRule("r1", "s", "x", "new"))
	if err := <-signed; err != nil {
		t.Fatal(err)
	}
	h.want(h.user("alice"), "new:s")
}

// TestRulesSwappedBetweenComputingAndWriting: the sync starts over.
func TestRulesSwappedBetweenComputingAndWriting(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored)
	h.putRule(valueRule("r1", "s", "x", "old"))
	in := h.signIn(identity(t, "s", "1", 0, groupsOf("alice", "x")))
	swapped := false
	// A login looks at the clock once it has applied the rules.
	h.tick = func() { swapped = true; h.putRule(valueRule("r1", "s", "x", "new")) }
	if _, err := h.dir.SignIn(t.Context(), in); err != nil || !swapped {
		t.Fatalf("swapped %v, %v", swapped, err)
	}
	h.want(h.user("alice"), "new:s")
	if got := h.kinds(groups.EventQuery{Kind: groups.EventSync}); got != "sync" {
		t.Errorf("the login wrote by the old rules first: %s", got)
	}
}

// TestRefreshMergesWithTheLatestStatement: a login commits between a refresh's
// look at the last-seen claims and its own commit. What the refresh did not
// mention must come from the login, not from before it.
func TestRefreshMergesWithTheLatestStatement(t *testing.T) {
	t.Parallel()
	h, s := spied(t)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "fired")).User.ID
	s.on = func(step string) error {
		if step == "identity read" {
			s.on = func(string) error { return nil }
			h.mustLogin("s", "1", 5, groupsOf("alice", "kept"))
		}
		return nil
	}
	if _, err := h.refresh(1, identity(t, "s", "1", 6, `{"email":"a@example.com"}`)); err != nil {
		t.Fatal(err)
	}
	h.want(alice, "kept:s")
}

// TestRefreshDoesNotReviveALogin that ended while the source was asked.
func TestRefreshDoesNotReviveALogin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.mustLogin("s", "1", 0, groupsOf("alice", "a"))
	login, err := h.store.LoginByID(t.Context(), "login1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.dir.EndLogins(t.Context(), groups.LoginFilter{ID: "login1"}, "", "sign-out", ""); err != nil {
		t.Fatal(err)
	}
	_, err = h.dir.SignIn(t.Context(), groups.SignIn{Identity: identity(t, "s", "1", 1, groupsOf("alice", "b")), Login: login, Refresh: true})
	h.wantErr(err, groups.ErrNotFound)
	// Nor does the token that the source gave beside a fault of its own.
	h.wantErr(h.dir.KeepLogin(t.Context(), login, nil), groups.ErrNotFound)
	_, err = h.store.LoginByID(t.Context(), "login1")
	h.wantErr(err, groups.ErrNotFound)
	h.want(h.user("alice"), "a:s")
}
