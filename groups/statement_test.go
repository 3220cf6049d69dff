package groups_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// statement makes an identity one that counts once, and is believed for ten
// minutes.
func statement(id *claims.Identity, name string, now time.Time) *claims.Identity {
	id.StatementID, id.StatementUntil = name, now.Add(10*time.Minute)
	return id
}

// SM-18: a statement that counts once makes one session, whatever brings it a
// second time.
func TestStatementCountsOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, linked)
	said := func(source, subject, name string, values ...string) *claims.Identity {
		return statement(identity(t, source, subject, 0, groupsOf("alice", values...)), name, h.now())
	}
	if _, err := h.login(said("s", "1", "_a", "eng")); err != nil {
		t.Fatal(err)
	}
	for _, again := range []groups.SignIn{
		h.signIn(said("s", "1", "_a", "eng")),
		h.signIn(said("s", "1", "_a", "admins")),
		h.signIn(said("s", "2", "_a", "eng")), // the provider may name one statement of its own once, too
		{Identity: said("s", "1", "_a", "eng")},
	} {
		again.OnceKind, again.OnceID, again.OnceUntil = "flow", "another", h.now().Add(time.Hour)
		_, err := h.dir.SignIn(t.Context(), again)
		h.wantErr(err, groups.ErrReplayed)
		again.OnceID = ""
		_, err = h.dir.SignIn(t.Context(), again)
		h.wantErr(err, groups.ErrReplayed)
		if again.Session != nil {
			_, err = h.dir.View(t.Context(), again.Session.Hash)
			h.wantErr(err, groups.ErrNotFound)
		}
	}
	h.want(h.user("alice"), "eng:s")
	for _, control := range []*claims.Identity{
		said("s", "1", "_A", "eng"), said("s", "1", "_a ", "eng"), said("s", "1", "", "eng"), said("s", "1", "", "eng"),
		said("t", "1", "_a", "eng"), // SM-28: another provider's statement of that name is another one
	} {
		if _, err := h.login(control); err != nil {
			t.Errorf("control: %q of %s: %v", control.StatementID, control.Source, err)
		}
	}
}

// SM-19: a statement is remembered for as long as any replica could believe
// it, and no longer.
func TestStatementIsRememberedLongEnough(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	said := func() *claims.Identity {
		return statement(identity(t, "s", "1", 0, groupsOf("alice", "eng")), "_a", epoch0)
	}
	if _, err := h.login(said()); err != nil {
		t.Fatal(err)
	}
	h.pass(10*time.Minute + 10*time.Minute - time.Second) // until it is refused by its age, by a clock that is 10 minutes behind
	if err := h.dir.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := h.login(said())
	h.wantErr(err, groups.ErrReplayed)
	h.pass(time.Second)
	if err := h.dir.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.login(said()); err != nil {
		t.Errorf("it is remembered for ever: %v", err)
	}
}

// SM-18: a hundred at once make one session.
func TestParallelStatementsMakeOneSession(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var all sync.WaitGroup
	var signed, replayed atomic.Int32
	for range 100 {
		in := h.signIn(statement(identity(t, "s", "1", 0, groupsOf("alice", "eng")), "_a", h.now()))
		all.Go(func() {
			switch _, err := h.dir.SignIn(t.Context(), in); {
			case err == nil:
				signed.Add(1)
			case groups.Refused(err):
				replayed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if signed.Load() != 1 || replayed.Load() != 99 {
		t.Errorf("%d were signed in, %d refused", signed.Load(), replayed.Load())
	}
	list, err := h.store.Sessions(t.Context(), h.user("alice"))
	if err != nil || len(list) != 1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}
