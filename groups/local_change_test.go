package groups_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// LD-14: a disabled account is refused, at once and everywhere.
func TestDisabledLocalUser(t *testing.T) {
	t.Parallel()
	wiki := func(s *groups.Settings) { s.Targets = []string{"wiki"} }
	h := newHouse(t, withLocal, defaults("everyone"), wiki)
	a, other := h.local("alice"), h.local("bob")
	if err := h.dir.CreateGroups(t.Context(), []groups.Group{{Name: "board", Control: groups.Manual}}, "root"); err != nil {
		t.Fatal(err)
	}
	if err := h.dir.AddMember(t.Context(), "board", a.User.ID, "root"); err != nil {
		t.Fatal(err)
	}
	cookie, bobs := h.mustEnter("alice", aPassword), h.mustEnter("bob", aPassword)
	set := func(disabled bool) {
		t.Helper()
		h.told()
		if err := h.dir.SetLocalDisabled(t.Context(), "local", a.Subject, disabled, "root"); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	if h.lives(cookie) || !h.lives(bobs) {
		t.Error("the session lives on, or another's ended")
	}
	if !slices.Contains(h.told(), groups.Notice{User: a.User.ID}) {
		t.Error("nobody was told")
	}
	h.want(a.User.ID, "board:by root")
	_, err := h.enter("alice", aPassword)
	if gone, is := errors.AsType[*claims.DisabledError](err); !is || gone.Subject != a.Subject {
		t.Errorf("the right password: %v", err)
	}
	if _, err := h.enter("alice", "wrong horse battery"); err != claims.ErrBadPassword {
		t.Errorf("a wrong password tells that the account is disabled: %v", err)
	}
	// An evaluation gives nothing back.
	h.configure(withLocal, defaults("everyone", "more"), wiki)
	h.want(a.User.ID, "board:by root")
	set(true) // again: nothing happens
	if got, want := h.kinds(groups.EventQuery{Source: "local", User: a.User.ID}), "user_created sync sign_in user_disabled"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	set(false)
	h.want(a.User.ID, "board:by root everyone:local more:local")
	h.mustEnter("alice", aPassword)
	h.want(other.User.ID, "everyone:local more:local")
	e := h.events(groups.EventQuery{Kind: groups.EventUserDisabled})
	if len(e) != 1 || e[0].Actor != "root" || e[0].Name != "alice" || e[0].Change == nil || !slices.Equal(e[0].Change.Removed, []string{"everyone"}) {
		t.Errorf("event: %+v", e)
	}
	if work, err := h.store.Outbox(t.Context(), 50); err != nil || len(work) != 2 || work[0].Version != 3 || work[1].Version != 1 {
		t.Errorf("work for the target %+v, %v", work, err) // of alice: made, board, disabled, enabled with more; of bob: made, more
	}
}

// A sign-in whose password was checked before an administrator acted comes too
// late.
func TestAdministratorIsFaster(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(h *house, a *groups.LocalAccount) error{
		"disabled": func(h *house, a *groups.LocalAccount) error {
			return h.dir.SetLocalDisabled(h.t.Context(), "local", a.Subject, true, "root")
		},
		"another password": func(h *house, a *groups.LocalAccount) error {
			return h.dir.SetLocalPassword(h.t.Context(), "local", a.Subject, hashOf(h.t, "another horse battery"), "root")
		},
		"deleted": func(h *house, a *groups.LocalAccount) error {
			return h.dir.DeleteUser(h.t.Context(), a.User.ID, "root")
		},
		"nothing": func(*house, *groups.LocalAccount) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withLocal)
			a := h.local("alice")
			id, _, err := h.source().CheckPassword(t.Context(), claims.Credentials{User: "alice", Password: aPassword})
			if err != nil {
				t.Fatal(err)
			}
			h.pass(time.Millisecond)
			if err := act(h, a); err != nil {
				t.Fatal(err)
			}
			in := h.signIn(id)
			_, err = h.dir.SignIn(t.Context(), in)
			if name == "nothing" {
				if err != nil || !h.lives(in.Session.Hash) {
					t.Errorf("control: %v", err)
				}
				return
			}
			h.wantErr(err, claims.ErrDenied)
			if h.lives(in.Session.Hash) {
				t.Error("there is a session")
			}
			if name == "deleted" && h.user("alice") != 0 {
				t.Error("the sign-in made a user again")
			}
		})
	}
}

func TestChangeOfPassword(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal, func(s *groups.Settings) { s.Link = []string{"local", "s"} })
	const next = "another horse battery"
	a, _ := h.local("alice"), h.local("bob")
	mine, phone, bobs := h.mustEnter("alice", aPassword), h.mustEnter("alice", aPassword), h.mustEnter("bob", aPassword)
	h.mustLogin("s", "1", 0, groupsOf("alice", "a"))
	elsewhere := cookieHash(h.serial)
	v, err := h.dir.View(t.Context(), mine)
	if err != nil {
		t.Fatal(err)
	}
	change := func(subject, old, new string) error {
		return h.source().ChangePassword(t.Context(), subject, old, new, v.Login.ID)
	}
	h.wantErr(change(a.Subject, "wrong horse battery", next), claims.ErrBadPassword)
	h.wantErr(change(a.Subject, "", next), claims.ErrBadPassword)
	h.wantErr(change("nobody", aPassword, next), claims.ErrDenied)
	if _, is := errors.AsType[*claims.PasswordRuleError](change(a.Subject, aPassword, "short")); !is {
		t.Error("a short password was taken")
	}
	if !h.lives(phone) || h.kinds(groups.EventQuery{Kind: groups.EventPassword}) != "" {
		t.Error("what was refused did something")
	}
	h.pass(time.Minute)
	if err := change(a.Subject, aPassword, next); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want bool }{
		"this session": {h.lives(mine), true}, "the other one": {h.lives(phone), false}, "bob's": {h.lives(bobs), true},
		"of another source": {h.lives(elsewhere), true},
	} {
		if c.got != c.want {
			t.Errorf("%s lives: %v", name, c.got)
		}
	}
	if _, err := h.enter("alice", aPassword); err != claims.ErrBadPassword {
		t.Errorf("the old password: %v", err)
	}
	h.mustEnter("alice", next)
	h.mustEnter("bob", aPassword)
	e := h.events(groups.EventQuery{Kind: groups.EventPassword})
	if len(e) != 1 || e[0].Actor != "" || e[0].Name != "alice" || e[0].Source != "local" {
		t.Errorf("events: %+v", e)
	}
	// By an administrator, everything ends.
	if err := h.dir.SetLocalPassword(t.Context(), "local", a.Subject, hashOf(t, aPassword), "root"); err != nil {
		t.Fatal(err)
	}
	if h.lives(mine) || !h.lives(elsewhere) {
		t.Error("sessions after an administrator's change")
	}
	if err := h.dir.SetLocalDisabled(t.Context(), "local", a.Subject, true, "root"); err != nil {
		t.Fatal(err)
	}
	h.wantErr(change(a.Subject, aPassword, next), claims.ErrDenied)
}

// Two changes at once: one is made, the other was checked against a password
// that is not there any more.
func TestTwoChangesOfPasswordAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal)
	a := h.local("alice")
	next := []string{"another horse battery", "a third horse battery", "one more horse battery"}
	errs := make([]error, len(next))
	var wg sync.WaitGroup
	for i := range next {
		wg.Go(func() { errs[i] = h.source().ChangePassword(t.Context(), a.Subject, aPassword, next[i], "") })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil && !errors.Is(err, claims.ErrBadPassword) {
			t.Error(err)
		}
		if _, enters := h.enter("alice", next[i]); (err == nil) != (enters == nil) {
			t.Errorf("change %d: %v, then %v", i, err, enters)
		}
	}
	if got := h.kinds(groups.EventQuery{Kind: groups.EventPassword}); got != "password_changed" {
		t.Errorf("events %q", got)
	}
}

func TestChangeOfALocalUser(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal)
	a := h.local("alice")
	cookie := h.mustEnter("alice", aPassword)
	email, name := "alice@example.org", "Alice A."
	h.told()
	got, err := h.dir.ChangeLocal(t.Context(), "local", a.Subject, groups.LocalChange{Email: &email, Display: &name}, "root")
	if err != nil || got.User.Email != email || got.User.Display != name {
		t.Fatalf("%+v, %v", got, err)
	}
	v, err := h.dir.View(t.Context(), cookie)
	if err != nil || v.User.Email != email || v.Claims.Text("email") != email || v.Claims.Text("name") != name {
		t.Errorf("the live session: %+v, %v", v, err)
	}
	if !slices.Contains(h.told(), groups.Notice{User: a.User.ID}) {
		t.Error("nobody was told")
	}
	for _, bad := range []groups.LocalChange{
		{Email: ptr("nobody")}, {Email: ptr("a@b@c")}, {Email: ptr("a b@c")}, {Email: ptr("@c")}, {Email: ptr("a@")}, {Email: ptr("a@\x00")},
		{Display: ptr("a\nb")}, {Display: ptr(" a")}, {Display: ptr(strings.Repeat("x", 257))}, {Display: ptr("\xff")},
		{Email: ptr("fine@example.com"), Display: ptr("\xff")},
	} {
		_, err := h.dir.ChangeLocal(t.Context(), "local", a.Subject, bad, "root")
		if _, is := errors.AsType[*groups.FieldError](err); !is {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := h.dir.ChangeLocal(t.Context(), "local", "nobody", groups.LocalChange{Email: &email}, "root"); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	before := len(h.events(groups.EventQuery{}))
	if _, err := h.dir.ChangeLocal(t.Context(), "local", a.Subject, groups.LocalChange{Email: &email}, "root"); err != nil || len(h.events(groups.EventQuery{})) != before {
		t.Errorf("the same again is an event, or %v", err)
	}
}

func ptr(s string) *string { return &s }
