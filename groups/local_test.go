package groups_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// withLocal adds a source of local users to the usual two.
func withLocal(s *groups.Settings) {
	s.Sources = append(s.Sources, groups.SourceSettings{Name: "local", Local: &claims.LocalConfig{MinPasswordLength: 12}})
}

func defaults(names ...string) func(*groups.Settings) {
	return func(s *groups.Settings) { s.Sync.DefaultGroups = names }
}

// everywhere adds a rule that names no source.
func everywhere(s *groups.Settings) {
	s.Rules = append(s.Rules, groups.Rule{ID: "all", Claim: "preferred_username", Any: true})
}

const aPassword = "correct horse battery"

// source is the real source of local users on the house's directory.
func (h *house) source() *claims.Local {
	return claims.NewLocal(claims.LocalOptions{Name: "local", Config: claims.LocalConfig{MinPasswordLength: 12}, Accounts: h.dir, Now: h.now})
}

// hashOf hashes aPassword once: it takes its time.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	if password == aPassword {
		return aHash()
	}
	hash, err := claims.HashPassword(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

var aHash = sync.OnceValue(func() string {
	hash, err := claims.HashPassword(context.Background(), aPassword)
	if err != nil {
		panic(err)
	}
	return hash
})

// local makes a local user with aPassword.
func (h *house) local(name string) *groups.LocalAccount {
	h.t.Helper()
	a, err := h.dir.CreateLocal(h.t.Context(), "local", groups.LocalUser{
		Name: name, Email: name + "@example.com", Display: "The " + name, Password: hashOf(h.t, aPassword),
	}, "root")
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// enter signs a local user in as the proxy does, and answers the session's
// cookie.
func (h *house) enter(user, password string) (cookie [32]byte, err error) {
	h.t.Helper()
	id, _, err := h.source().CheckPassword(h.t.Context(), claims.Credentials{User: user, Password: password})
	if err != nil {
		return cookie, err
	}
	in := h.signIn(id)
	_, err = h.dir.SignIn(h.t.Context(), in)
	return in.Session.Hash, err
}

func (h *house) mustEnter(user, password string) [32]byte {
	h.t.Helper()
	cookie, err := h.enter(user, password)
	if err != nil {
		h.t.Fatalf("%s does not get in: %v", user, err)
	}
	return cookie
}

// lives reports whether a session does.
func (h *house) lives(cookie [32]byte) bool {
	h.t.Helper()
	_, err := h.dir.View(h.t.Context(), cookie)
	if err != nil && !errors.Is(err, groups.ErrNotFound) {
		h.t.Fatal(err)
	}
	return err == nil
}

func TestLocalUserSignsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal, defaults("everyone"), everywhere)
	a := h.local("alice")
	if a.User.Name != "alice" || a.Source != "local" || len(a.Subject) < 26 || a.Disabled || !a.Changed.Equal(epoch0) {
		t.Errorf("made: %+v", a)
	}
	h.want(a.User.ID, "everyone:local") // before the first sign-in, for targets
	v, err := h.dir.View(t.Context(), h.mustEnter("ALICE", aPassword))
	if err != nil {
		t.Fatal(err)
	}
	if v.User.ID != a.User.ID || v.User.Name != "alice" || v.User.Email != "alice@example.com" || v.User.Display != "The alice" ||
		v.Claims.Text("email") != "alice@example.com" || !slices.Equal(v.Groups, []string{"everyone"}) {
		t.Errorf("view: %+v", v)
	}
	if got, want := h.kinds(groups.EventQuery{User: a.User.ID}), "user_created sync sign_in"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if e := h.events(groups.EventQuery{Kind: groups.EventUserCreated})[0]; e.Actor != "root" || e.Source != "local" || e.Name != "alice" {
		t.Errorf("event: %+v", e)
	}
	// A sign-in changes nothing more, and writes no sync.
	h.pass(time.Hour)
	h.mustEnter("alice", aPassword)
	if got, want := h.kinds(groups.EventQuery{User: a.User.ID}), "user_created sync sign_in sign_in"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

// LD-15 for local users, and what must not be taken for somebody's name.
func TestSpellingsOfALocalUser(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	t.Parallel()
	h := newHouse(t, withLocal)
	h.local("alice")
	h.local("élise")
	for typed, fits := range map[string]bool{
		"alice": true, "Alice": true, "ALICE": true, "alice ": true, " alice": true, "\uff41lice": true, "\u3000alice": true,
		"élise": true, "e\u0301lise": true,
		"alic": false, "alicee": false, "al ice": false, "local\\alice": false, "alice@local": false, "alice@example.com": false,
		"*": false, "%": false, "": false, " ": false, "alice\x00": false, "ali\nce": false, "\xffalice": false,
		strings.Repeat("alice", 60): false, "elise": false, "\u0430lice": false, // Cyrillic
	} {
		if _, err := h.enter(typed, aPassword); fits && err != nil || !fits && !errors.Is(err, claims.ErrBadPassword) {
			t.Errorf("%+q: %v, want %v", typed, err, fits)
		}
	}
}

// LD-03 and wrong passwords: each is one and the same error.
func TestWrongPasswordOfALocalUser(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	t.Parallel()
	h := newHouse(t, withLocal)
	a := h.local("alice")
	h.mustLogin("s", "1", 0, groupsOf("bob", "a")) // a user, and no local one
	for _, c := range [][2]string{
		{"alice", ""}, {"alice", " "}, {"alice", "\x00"}, {"alice", strings.Repeat(" ", 21)}, {"alice", "\x00\x00"}, {"alice", "correct horse batterz"},
		{"alice", aPassword + " "}, {"alice", strings.Repeat("x", 2000)}, {"alice", "\xff\xfe"}, {"nobody", aPassword}, {"bob", aPassword},
		{a.Subject, aPassword},
	} {
		if _, err := h.enter(c[0], c[1]); err != claims.ErrBadPassword {
			t.Errorf("%q with %q: %v", c[0], c[1], err)
		}
	}
	h.mustEnter("alice", aPassword)
}

// Attempt hears of an account that is about to be tried, once, and its word
// ends the check before any password is compared.
func TestAttemptsAtALocalUser(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal)
	a := h.local("alice")
	for _, c := range []struct {
		user, password string
		heard          string
		want           error
	}{
		{"alice", aPassword, a.Subject, nil}, {"ALICE ", aPassword, a.Subject, nil}, {"alice", "wrong password", a.Subject, claims.ErrBadPassword},
		{"nobody", aPassword, "", claims.ErrBadPassword}, {"alice", "", "", claims.ErrBadPassword},
	} {
		var heard []string
		id, grant, err := h.source().CheckPassword(t.Context(), claims.Credentials{User: c.user, Password: c.password,
			Attempt: func(s string) error { heard = append(heard, s); return nil }})
		if !errors.Is(err, c.want) || strings.Join(heard, " ") != c.heard || grant != nil || err == nil && id.Subject != a.Subject {
			t.Errorf("%q: heard %q, %+v, %v", c.user, heard, id, err)
		}
	}
	mine := errors.New("mine")
	_, _, err := h.source().CheckPassword(t.Context(), claims.Credentials{User: "alice", Password: aPassword, Attempt: func(string) error { return mine }})
	if err != mine {
		t.Errorf("the error of Attempt came out as %v", err)
	}
}

// LD-13: nobody's name takes as long as somebody's. The least of several tries
// is what the code takes; the rest is what else the machine does.
func TestUnknownLocalUserTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	h := newHouse(t, withLocal)
	h.local("alice")
	least := map[string]time.Duration{"alice": time.Hour, "nobody": time.Hour}
	for range 15 {
		for user := range least {
			began := time.Now()
			if _, err := h.enter(user, "wrong horse battery"); !errors.Is(err, claims.ErrBadPassword) {
				t.Fatal(err)
			}
			least[user] = min(least[user], time.Since(began))
		}
	}
	t.Logf("at least %s for a wrong password, %s for an unknown name", least["alice"], least["nobody"])
	if d := (least["alice"] - least["nobody"]).Abs(); d > 20*time.Millisecond || d > least["alice"]/3 {
		t.Errorf("they differ by %s", d)
	}
}

// A name that is taken is refused; linked sources share their people.
func TestNameOfALocalUserIsTaken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		link  []string
		first func(h *house)
		joins bool
	}{
		{"by nobody", nil, func(*house) {}, true},
		{"by a local user", nil, func(h *house) { h.local("alice") }, false},
		{"by a local user, linked", []string{"local", "s"}, func(h *house) { h.local("alice") }, false},
		{"by another source", nil, func(h *house) { h.mustLogin("s", "1", 0, groupsOf("alice", "a")) }, false},
		{"by a linked source", []string{"local", "s"}, func(h *house) { h.mustLogin("s", "1", 0, groupsOf("Alice", "a")) }, true},
		{"by one that is not linked, while local is", []string{"local", "s"}, func(h *house) { h.mustLogin("t", "1", 0, groupsOf("alice", "a")) }, false},
		{"by one that is linked, while local is not", []string{"t", "s"}, func(h *house) { h.mustLogin("t", "1", 0, groupsOf("alice", "a")) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withLocal, func(s *groups.Settings) { s.Link = c.link })
			c.first(h)
			owner, db := h.user("alice"), h.file()
			before := dump(t, db)
			a, err := h.dir.CreateLocal(t.Context(), "local", groups.LocalUser{Name: "alice", Email: "new@example.com", Password: hashOf(t, aPassword)}, "root")
			if !c.joins {
				h.wantErr(err, groups.ErrConflict)
				if dump(t, db) != before {
					t.Error("it was refused and left something")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			h.mustEnter("alice", aPassword)
			if owner == 0 {
				return
			}
			if a.User.ID != owner || a.User.Name != "Alice" || a.User.Email != "" {
				t.Errorf("the account is of %+v, the person is %s", a.User, owner)
			}
			h.want(owner, "a:s")
			if got := h.kinds(groups.EventQuery{Source: "local"}); got != "account_added sign_in" {
				t.Errorf("events %q", got)
			}
		})
	}
}

// The other way round: a source states a local user's name.
func TestSourceStatesALocalUsersName(t *testing.T) {
	t.Parallel()
	for linked, want := range map[bool]error{false: groups.ErrNameTaken, true: nil} {
		h := newHouse(t, withLocal, func(s *groups.Settings) {
			if linked {
				s.Link = []string{"local", "s"}
			}
		})
		a := h.local("alice")
		_, err := h.login(identity(t, "s", "1", 0, groupsOf("alice", "a")))
		if !errors.Is(err, want) {
			t.Errorf("linked %v: %v", linked, err)
		}
		if linked {
			h.want(a.User.ID, "a:s")
		}
	}
}

// Nobody but people makes a local user a member of anything but the default
// groups, and nobody but people ends it: neither a rule, nor a sign-in, nor an
// evaluation, nor a group that became SSO's.
func TestMembershipsOfALocalUserAreManual(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal, defaults("everyone"), everywhere)
	if err := h.dir.CreateGroups(t.Context(), []groups.Group{{Name: "board", Control: groups.Manual}}, "root"); err != nil {
		t.Fatal(err)
	}
	a := h.local("alice")
	if err := h.dir.AddMember(t.Context(), "board", a.User.ID, "root"); err != nil {
		t.Fatal(err)
	}
	sso := groups.SSO
	if _, err := h.dir.UpdateGroup(t.Context(), "board", groups.GroupChange{Control: &sso}, "root"); err != nil {
		t.Fatal(err)
	}
	h.mustEnter("alice", aPassword)
	h.want(a.User.ID, "board:by root everyone:local")
	// The control: of another source, a complete sync takes such a membership.
	bob := h.mustLogin("t", "1", 0, groupsOf("bob", "a")).User.ID
	manual := groups.Manual
	for _, control := range []*groups.Control{&manual, &sso} {
		if _, err := h.dir.UpdateGroup(t.Context(), "board", groups.GroupChange{Control: control}, "root"); err != nil {
			t.Fatal(err)
		}
		if *control == groups.Manual {
			if err := h.dir.AddMember(t.Context(), "board", bob, "root"); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.mustLogin("t", "1", 1, groupsOf("bob", "a"))
	h.want(bob, "a:t")
	h.mustEnter("alice", aPassword)
	h.want(a.User.ID, "board:by root everyone:local")

	// Other default groups take the place of the first ones.
	h.configure(withLocal, defaults("all", "staff"), everywhere)
	h.want(a.User.ID, "all:local board:by root staff:local")
	h.configure(withLocal, defaults(), everywhere)
	h.want(a.User.ID, "board:by root")
	h.mustEnter("alice", aPassword)
	h.want(a.User.ID, "board:by root")
}

func TestRulesAndLocalUsers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal, stored, defaults("everyone"))
	a := h.local("alice")
	_, err := h.dir.PutRule(t.Context(), valueRule("r", "local", "x", "g"), "root")
	if rule, is := errors.AsType[*groups.RuleError](err); !is || rule.Key != "source" || !strings.Contains(err.Error(), "local users") {
		t.Errorf("a rule for local users: %v", err)
	}
	// A rule of every source is not of this one, and takes no default group.
	h.putRule(groups.Rule{ID: "all", Claim: "preferred_username", Any: true})
	h.want(a.User.ID, "everyone:local")
	x, err := h.dir.Explain(t.Context(), &claims.Identity{Source: "local", Subject: a.Subject})
	if err != nil || !slices.Equal(x.Groups, []string{"everyone"}) || len(x.Added)+len(x.Removed)+len(x.Claims.Claims) != 0 || x.User != "alice" {
		t.Errorf("explain: %+v, %v", x, err)
	}
	plan, err := h.dir.PlanSettings(t.Context(), settings(withLocal, stored, defaults("all")))
	if err != nil || len(plan.Users) != 1 || !slices.Equal(plan.Users[0].Added, []string{"all"}) || !slices.Equal(plan.Users[0].Removed, []string{"everyone"}) {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	// The control: the rule holds for the others.
	bob := h.mustLogin("s", "1", 0, `{"user":"bob","preferred_username":"team"}`).User.ID
	h.want(bob, "team:s")
}

// The account goes with the user, and the name is free.
func TestDeletedLocalUser(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal)
	a := h.local("alice")
	cookie := h.mustEnter("alice", aPassword)
	if err := h.dir.DeleteUser(t.Context(), a.User.ID, "root"); err != nil {
		t.Fatal(err)
	}
	if h.lives(cookie) {
		t.Error("the session lives on")
	}
	if _, err := h.enter("alice", aPassword); err != claims.ErrBadPassword {
		t.Errorf("the account is still there: %v", err)
	}
	if again := h.local("alice"); again.Subject == a.Subject || again.User.ID == a.User.ID {
		t.Error("a subject or an id was given twice")
	}
	h.mustEnter("alice", aPassword)
}

// A hash is in the accounts and nowhere else: no event, no log line, no list.
func TestHashesStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	h := newHouse(t)
	h.dir = groups.NewDirectory(groups.Options{Store: h.store, Now: h.now, Log: zap.New(core), Audit: zap.New(core)})
	h.configure(withLocal, defaults("everyone"))
	a := h.local("alice")
	h.mustEnter("alice", aPassword)
	_, _ = h.enter("alice", "wrong horse battery")
	if err := h.source().ChangePassword(t.Context(), a.Subject, aPassword, "another horse battery", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.dir.SetLocalDisabled(t.Context(), "local", a.Subject, true, "root"); err != nil {
		t.Fatal(err)
	}
	_, _ = h.enter("alice", "another horse battery")
	seen := dump(t, h.file(), "accounts") + fmt.Sprint(logs.All())
	all, err := h.dir.ListLocal(t.Context(), "local", 0, 10)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	of, err := h.dir.LocalOf(t.Context(), a.User.ID)
	if err != nil {
		t.Fatal(err)
	}
	seen += fmt.Sprintf("%+v %+v", all, of)
	for _, secret := range []string{"argon2", "horse"} {
		if strings.Contains(seen, secret) {
			t.Errorf("%q got out", secret)
		}
	}
	if whole := dump(t, h.file()); strings.Count(whole, "$argon2id$") != 1 || strings.Contains(whole, "horse") {
		t.Error("control: the accounts hold no hash, or the password itself")
	}
}

// A stored hash that is not ours lets nobody in, and says so to the operator.
func TestBrokenHashLetsNobodyIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal)
	h.local("alice")
	if _, err := h.file().Exec("update accounts set password = ?", aPassword); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	src := claims.NewLocal(claims.LocalOptions{Name: "local", Accounts: h.dir, Log: zap.New(core)})
	if _, _, err := src.CheckPassword(t.Context(), claims.Credentials{User: "alice", Password: aPassword}); err != claims.ErrBadPassword {
		t.Errorf("%v", err)
	}
	if logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 || strings.Contains(fmt.Sprint(logs.All()), "horse") {
		t.Errorf("log: %v", logs.All())
	}
}

// GS-12: a store that does not answer is nobody's wrong password.
func TestStoreDownAndLocalUsers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLocal)
	a := h.local("alice")
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := h.enter("alice", aPassword)
	h.wantErr(err, claims.ErrUnavailable)
	h.wantErr(h.source().ChangePassword(t.Context(), a.Subject, aPassword, "another horse battery", ""), claims.ErrUnavailable)
	h.wantErr(h.dir.ReplacePassword(t.Context(), "local", a.Subject, "x", "y", ""), claims.ErrUnavailable)
}

// A source that becomes one of local users, by one key of the file, evaluates
// its people again.
func TestSourceBecomesLocal(t *testing.T) {
	t.Parallel()
	named := func(local *claims.LocalConfig) func(*groups.Settings) {
		return func(s *groups.Settings) {
			s.Sources = append(s.Sources, groups.SourceSettings{Name: "local", Local: local, Groups: claims.GroupClaims{WhenAbsent: claims.Clear}})
		}
	}
	h := newHouse(t, named(nil), defaults("everyone"), everywhere)
	a := h.local("alice") // whose name the rule takes for a group's
	h.want(a.User.ID, "alice:local")
	h.configure(named(&claims.LocalConfig{}), defaults("everyone"), everywhere)
	h.want(a.User.ID, "everyone:local")
}

func TestWithoutALocalSource(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if name, _, there := h.dir.LocalSource(); there {
		t.Errorf("there is %q", name)
	}
	h.local("alice") // as the command does that knows the store alone
	_, err := h.enter("alice", aPassword)
	h.wantErr(err, claims.ErrDenied)
	h.configure(withLocal)
	if name, cfg, there := h.dir.LocalSource(); !there || name != "local" || cfg.MinPasswordLength != 12 {
		t.Errorf("%q %+v %v", name, cfg, there)
	}
	h.mustEnter("alice", aPassword)
	if _, err := h.dir.CreateLocal(context.Background(), "local", groups.LocalUser{Name: "bob"}, "root"); err == nil {
		t.Error("a local user without a password")
	}
}
