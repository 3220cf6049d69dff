package admin_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

const secret = "password-canary-1"

// withLocal adds local users.
func withLocal(s *groups.Settings, _ *admin.Options) {
	s.Sources = append(s.Sources, groups.SourceSettings{Name: "local", Local: &claims.LocalConfig{MinPasswordLength: 12}})
	s.Sync.DefaultGroups = []string{"everyone"}
}

type localUser struct {
	ID, User, Email, Name string
	Identities            []struct{ Source, Subject string }
	Memberships           []struct{ Group string }
	Sessions              []any
	Local                 *struct {
		Source   string
		Disabled bool
		Changed  string `json:"password_changed"`
	}
}

// enter signs a local user in as the proxy does.
func (a *api) enter(user, password string) (session [32]byte, err error) {
	a.t.Helper()
	src := claims.NewLocal(claims.LocalOptions{Name: "local", Accounts: a.dir, Now: a.clock.now})
	id, _, err := src.CheckPassword(a.t.Context(), claims.Credentials{User: user, Password: password})
	if err != nil {
		return session, err
	}
	at := a.clock.now()
	session = [32]byte{byte(len(user)), byte(at.Nanosecond()), 9}
	_, err = a.dir.SignIn(a.t.Context(), groups.SignIn{
		Identity: id, Session: &groups.Session{Hash: session, Used: at},
		Login: &groups.Login{ID: fmt.Sprint(user, at.UnixNano()), Source: "local", Subject: id.Subject, Created: at, Expires: at.Add(time.Hour), ClaimsAt: at},
	})
	return session, err
}

func TestLocalUserIsMade(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal)
	got := a.call("POST", "/users", `{"user":"alice","email":"alice@example.com","name":"Alice A.","password":"`+secret+`"}`)
	var u localUser
	if err := json.Unmarshal(got.body, &u); err != nil || got.status != 201 {
		t.Fatalf("%d %v: %s", got.status, err, got.body)
	}
	if u.User != "alice" || u.Email != "alice@example.com" || u.Name != "Alice A." || len(u.Identities) != 1 || u.Identities[0].Source != "local" ||
		len(u.Memberships) != 1 || u.Memberships[0].Group != "everyone" || len(u.Sessions) != 0 ||
		u.Local == nil || u.Local.Source != "local" || u.Local.Disabled || u.Local.Changed != "2026-03-01T11:00:00Z" {
		t.Errorf("made: %s", got.body)
	}
	if at := got.header.Get("Location"); at != "/api/v1/users/"+u.ID {
		t.Errorf("Location %q", at)
	}
	again := ok[localUser](a, 200, "GET", "/users/"+u.ID, "")
	if diff := cmp.Diff(u, again); diff != "" {
		t.Errorf("read again: %s", diff)
	}
	if _, err := a.enter("Alice", secret); err != nil {
		t.Errorf("the person does not get in: %v", err)
	}
	ok[localUser](a, 201, "POST", "/users", `{"user":"bob","password":"`+secret+`"}`) // the least there is
	for _, where := range [][]byte{got.body, a.call("GET", "/users", "").body, a.call("GET", "/users/"+u.ID, "").body, a.call("GET", "/events", "").body, fmt.Append(nil, a.logs.All())} {
		nothingIn(t, where, "canary-1", "argon2")
	}
	made := all[struct{ Actor, User, Source string }](a, "/events?kind=user_created", "10")
	if len(made) != 2 || made[1].Actor != "api" || made[1].User != "alice" || made[1].Source != "local" {
		t.Errorf("audit trail: %+v", made)
	}
}

func TestLocalUserIsRefused(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal)
	a.signIn("entra", "s1", `{"preferred_username":"carol"}`)
	good := `{"user":"alice","password":"` + secret + `"}`
	ok[localUser](a, 201, "POST", "/users", good)
	for _, c := range []struct {
		body   string
		status int
		key    string // of the fault
		says   string
	}{
		{good, 409, "", "taken"},
		{`{"user":"ALICE","password":"` + secret + `"}`, 409, "", "taken"},
		{`{"user":"carol","password":"` + secret + `"}`, 409, "", "taken"},
		{`{"user":"bob","password":"short"}`, 422, "password", "5 characters of at least 12"},
		{`{"user":"bob"}`, 422, "password", "empty"},
		{`{"user":"bob","password":null}`, 422, "password", "empty"},
		{`{"user":"bob.of.example","password":"Bob.Of.Example"}`, 422, "password", "user name"},
		{`{"user":"bob","password":"password\u0000canary"}`, 422, "password", "control"},
		{`{"user":"bob","password":"` + strings.Repeat("canary", 200) + `"}`, 422, "password", "1024"},
		{`{"password":"` + secret + `"}`, 422, "user", "empty"},
		{`{"user":" bob","password":"` + secret + `"}`, 422, "user", "bob"},
		{`{"user":"b\u0000b","password":"` + secret + `"}`, 422, "user", "control"},
		{`{"user":"bob","email":"bob","password":"` + secret + `"}`, 422, "email", "address"},
		{`{"user":"bob","name":"a\nb","password":"` + secret + `"}`, 422, "name", "control"},
		{`{"user":"bob","password":"` + secret + `","admin":true}`, 400, "", "admin"},
		{`{"user":"bob","password":12345678901234}`, 400, "", "password"},
		{`{"user":"bob","password":"` + secret + `","password":"x"}`, 400, "", "password"},
		{`{"user":["bob"],"password":"` + secret + `"}`, 400, "", "user"},
		{`[]`, 400, "", ""},
	} {
		p := a.refused(c.status, "POST", "/users", c.body)
		key, says := "", p.Detail
		if len(p.Errors) == 1 {
			key, says = p.Errors[0].Key, p.Errors[0].Message
		}
		if key != c.key || !strings.Contains(says, c.says) || strings.Contains(says, "canary") {
			t.Errorf("%.60s: key %q, %q", c.body, key, says)
		}
	}
	a.refused(415, "POST", "/users", good, "Content-Type: application/x-www-form-urlencoded")
	if found := ok[listOf[userItem]](a, 200, "GET", "/users", ""); len(found.Items) != 2 {
		t.Errorf("something was made: %+v", found.Items)
	}
	nothingIn(t, fmt.Append(nil, a.logs.All()), "canary")
	none := newAPI(t)
	if p := none.refused(409, "POST", "/users", good); !strings.Contains(p.Detail, "no source of local users") {
		t.Errorf("without a source: %q", p.Detail)
	}
}

func TestLocalUserIsChanged(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal)
	path := "/users/" + ok[localUser](a, 201, "POST", "/users", `{"user":"alice","email":"alice@example.com","name":"Alice","password":"`+secret+`"}`).ID
	enter := func(password string) [32]byte {
		t.Helper()
		a.clock.pass(time.Second + time.Nanosecond)
		s, err := a.enter("alice", password)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lives := func(s [32]byte) bool { _, err := a.dir.View(t.Context(), s); return err == nil }

	first := enter(secret)
	u := ok[localUser](a, 200, "PATCH", path, `{"email":"a@example.org","name":null}`, "Content-Type: application/merge-patch+json")
	if u.Email != "a@example.org" || u.Name != "" || !lives(first) {
		t.Errorf("changed: %+v", u)
	}
	a.clock.pass(time.Second)
	const next = "password-canary-2"
	u = ok[localUser](a, 200, "PATCH", path, `{"password":"`+next+`"}`)
	if u.Email != "a@example.org" || u.Local.Changed == "2026-03-01T11:00:00Z" || lives(first) {
		t.Errorf("another password: %+v, the session lives %v", u, lives(first))
	}
	if _, err := a.enter("alice", secret); err == nil {
		t.Error("the old password still works")
	}
	second := enter(next)
	u = ok[localUser](a, 200, "PATCH", path, `{"disabled":true}`)
	if !u.Local.Disabled || lives(second) || len(u.Memberships) != 0 || len(u.Sessions) != 0 {
		t.Errorf("disabled: %+v, the session lives %v", u, lives(second))
	}
	if _, err := a.enter("alice", next); err == nil {
		t.Error("who is disabled gets in")
	}
	if u = ok[localUser](a, 200, "PATCH", path, `{"disabled":false}`); u.Local.Disabled || len(u.Memberships) != 1 {
		t.Errorf("enabled: %+v", u)
	}
	if u = ok[localUser](a, 200, "PATCH", path, `{"email":null,"name":"Alice"}`); u.Email != "" || u.Name != "Alice" {
		t.Errorf("without an address: %+v", u)
	}
	ok[localUser](a, 200, "PATCH", path, `{"email":"a@example.org"}`)
	third := enter(next)
	ok[localUser](a, 200, "PATCH", path, `{}`)

	for body, key := range map[string]string{
		`{"email":"x","disabled":true}`:              "email",
		`{"password":"short","disabled":true}`:       "password",
		`{"password":null}`:                          "password",
		`{"disabled":null}`:                          "disabled",
		`{"name":"a\u0000"}`:                         "name",
		`{"password":"","email":"good@example.com"}`: "password",
	} {
		if p := a.refused(422, "PATCH", path, body); len(p.Errors) != 1 || p.Errors[0].Key != key {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	for _, body := range []string{`{"user":"bob"}`, `{"disabled":"yes"}`, `{"disabled":1}`, `{"id":"u1"}`, `nonsense`} {
		a.refused(400, "PATCH", path, body)
	}
	if u = ok[localUser](a, 200, "GET", path, ""); u.Email != "a@example.org" || u.Local.Disabled || !lives(third) {
		t.Errorf("what was refused did something: %+v", u)
	}
	nothingIn(t, append(a.call("GET", "/events", "").body, fmt.Sprint(a.logs.All())...), "canary-", "argon2")
	kinds := ""
	for _, e := range all[struct{ Kind, Actor string }](a, "/events?user="+strings.TrimPrefix(path, "/users/"), "50") {
		if e.Actor == "api" && e.Kind != "sync" {
			kinds = e.Kind + " " + kinds
		}
	}
	if kinds != "user_created user_changed password_changed user_disabled user_enabled user_changed user_changed " {
		t.Errorf("audit trail: %s", kinds)
	}
}

// What other sources say about a person is theirs to change.
func TestOnlyLocalUsersAreChanged(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal)
	bob := a.signIn("entra", "s1", `{"preferred_username":"bob"}`).String()
	p := a.refused(409, "PATCH", "/users/"+bob, `{"email":"x@example.com"}`)
	if !strings.Contains(p.Detail, "no local user") {
		t.Errorf("detail %q", p.Detail)
	}
	a.refused(404, "PATCH", "/users/uzzzz", `{"email":"x@example.com"}`)
	a.refused(404, "PATCH", "/users/bob", `{"email":"x@example.com"}`)
	if u := ok[localUser](a, 200, "GET", "/users/"+bob, ""); u.Local != nil || u.Email != "" {
		t.Errorf("%+v", u)
	}
	none := newAPI(t)
	id := none.signIn("entra", "s1", `{"preferred_username":"bob"}`).String()
	none.refused(409, "PATCH", "/users/"+id, `{"disabled":true}`)
}

// DELETE takes the account along.
func TestLocalUserIsForgotten(t *testing.T) {
	t.Parallel()
	a := newAPI(t, withLocal)
	id := ok[localUser](a, 201, "POST", "/users", `{"user":"alice","password":"`+secret+`"}`).ID
	if _, err := a.enter("alice", secret); err != nil {
		t.Fatal(err)
	}
	a.done("DELETE", "/users/"+id)
	if _, err := a.enter("alice", secret); err == nil {
		t.Error("the account is still there")
	}
	ok[localUser](a, 201, "POST", "/users", `{"user":"alice","password":"`+secret+`"}`)
}
