package admin_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

var tlsState = &tls.ConnectionState{}

func readCloser(body string) (io.ReadCloser, int64) {
	return io.NopCloser(strings.NewReader(body)), int64(len(body))
}

func jsonOf(body string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", "application/json")
		r.Body, r.ContentLength = readCloser(body)
	}
}

func localSettings() groups.SourceSettings {
	return groups.SourceSettings{Name: "local", Local: &claims.DefaultLocal}
}

// public asks for something as the proxy does for somebody it has let in, by a
// page of ours.
func (a *api) public(method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	a.t.Helper()
	return a.publicAs("alice", method, path, body, change...)
}

func (a *api) publicAs(name, method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequest(method, "https://portal.example.com/_auth/admin"+path, nil)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Accept", "text/html")
	if body != "" {
		jsonOf(body)(r)
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	a.h.ServeConsole(w, r, "/_auth/admin", name)
	if api, is := strings.CutPrefix(path, "/api/v1"); is {
		raw, _, _ := strings.Cut(api, "?")
		a.spec.check(a.t, method, raw, answer{w.Code, w.Header(), w.Body.Bytes()})
	}
	return w
}

func newPublic(t *testing.T, names ...string) *api {
	t.Helper()
	return newAPI(t, func(s *groups.Settings, o *admin.Options) {
		s.Sources = append(s.Sources, localSettings())
		o.ConsoleGroups = func() []string { return names }
	})
}

// On the public host: addresses are below the base, changes are noted under the
// person's name, the token is nobody's way in, and what a page of ours did not
// send is refused.
func TestConsoleOnThePublicHost(t *testing.T) {
	t.Parallel()
	a := newPublic(t)
	w := a.public("POST", "/api/v1/groups", `{"name": "board"}`, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	if w.Code != 201 || w.Header().Get("Location") != "/_auth/admin/api/v1/groups/board" {
		t.Fatalf("%d, at %q: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	made := ok[listOf[struct{ Actor, Group string }]](a, 200, "GET", "/events?group=board", "").Items
	if len(made) != 1 || made[0].Actor != "user:alice" {
		t.Errorf("noted: %+v", made)
	}
	w = a.public("PATCH", "/api/v1/groups/board", `{"name": "a/b"}`)
	if w.Code != 200 || w.Header().Get("Content-Location") != "/_auth/admin/api/v1/groups/a%2Fb" {
		t.Errorf("renamed: %d, at %q", w.Code, w.Header().Get("Content-Location"))
	}
	for what, tt := range map[string]struct {
		method string
		change func(*http.Request)
		want   int
	}{
		"our page":              {"POST", func(*http.Request) {}, 409},
		"the application's":     {"POST", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		"another site's":        {"POST", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"who does not say":      {"POST", func(r *http.Request) { r.Header.Del("Sec-Fetch-Site") }, 403},
		"who does not say, get": {"GET", func(r *http.Request) { r.Header.Del("Sec-Fetch-Site") }, 200},
		"an old browser, ours": {"POST", func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "https://portal.example.com")
		}, 409},
		"an old browser, another": {"POST", func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "https://evil.example")
		}, 403},
	} {
		body := ""
		if tt.method == "POST" {
			body = `{"name": "a/b"}`
		}
		if w := a.public(tt.method, "/api/v1/groups", body, tt.change); w.Code != tt.want {
			t.Errorf("%s: %d, want %d: %s", what, w.Code, tt.want, w.Body)
		}
	}
	// What is the admin listener's own is not there, nor is what is elsewhere.
	for _, path := range []string{"/login", "/logout", "/metrics", "/healthz", "/readyz", "/nowhere"} {
		if w := a.public("GET", path, ""); w.Code != 404 || !strings.Contains(w.Body.String(), "<h1>") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"", "/"} {
		if w := a.public("GET", path, ""); w.Code != 303 || w.Header().Get("Location") != "/_auth/admin/groups" {
			t.Errorf("%q: %d to %q", path, w.Code, w.Header().Get("Location"))
		}
	}
	page := a.public("GET", "/nowhere", "").Body.String()
	for _, want := range []string{`href="/_auth/admin/assets/console.css?v=`, `href="/_auth/admin/people"`, `href="/_auth/sign_out"`, `data-base="/_auth/admin"`, ">alice<"} {
		if !strings.Contains(page, want) {
			t.Errorf("a page lacks %s", want)
		}
	}
	r := httptest.NewRequest("GET", "/%5Fauth/admin/groups", nil)
	got := httptest.NewRecorder()
	if a.h.ServeConsole(got, r, "/_auth/admin", "alice"); got.Code != 404 {
		t.Errorf("at an address in disguise: %d", got.Code)
	}
	got = httptest.NewRecorder()
	if a.h.ServeConsole(got, httptest.NewRequest("GET", "/_auth/admin/api/v1/groups", nil), "/_auth/admin", ""); got.Code != 401 {
		t.Errorf("for nobody: %d", got.Code)
	}
}

type stage struct {
	*api
	alice, bob, dora groups.UserID
	rule             string
}

func at(text string) func(stage) string { return func(stage) string { return text } }

// Who works on the public host is told before a group goes by which people come
// in there: taken away, renamed, switched, or emptied in any of the ways there
// are. Confirmed, it is done; with the token it is done at once.
func TestLastWayIntoTheConsole(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) stage {
		a := newPublic(t, "admins", "board", "ops")
		s := stage{api: a, alice: a.signIn("entra", "s1", `{"preferred_username": "alice", "groups": ["adm"]}`)}
		s.bob = a.signIn("entra", "s2", `{"preferred_username": "bob"}`)
		s.rule = ok[struct{ ID string }](a, 201, "POST", "/rules", `{"source": "entra", "claim": "groups", "value": "adm", "group": "admins"}`).ID
		ok[any](a, 201, "POST", "/groups", `{"name": "board"}`)
		ok[any](a, 201, "POST", "/groups", `{"name": "ops"}`)
		ok[any](a, 201, "POST", "/groups", `{"name": "others"}`)
		d := ok[struct{ ID string }](a, 201, "POST", "/users", `{"user": "dora", "password": "a long password of hers"}`)
		var err error
		if s.dora, err = groups.ParseUserID(d.ID); err != nil {
			t.Fatal(err)
		}
		a.done("PUT", "/groups/board/members/"+s.alice.String())
		a.done("PUT", "/groups/board/members/"+s.bob.String())
		a.done("PUT", "/groups/ops/members/"+s.dora.String())
		a.done("PUT", "/groups/others/members/"+s.dora.String())
		return s
	}
	for _, tt := range []struct {
		what, method string
		path, body   func(s stage) string
		last         bool
	}{
		{"deleted", "DELETE", at("/groups/board"), nil, true},
		{"renamed", "PATCH", at("/groups/board"), at(`{"name": "panel"}`), true},
		{"switched", "PATCH", at("/groups/admins"), at(`{"control": "manual"}`), true},
		{"emptied of its last", "DELETE", func(s stage) string { return "/groups/ops/members/" + s.dora.String() }, nil, true},
		{"its last person forgotten", "DELETE", func(s stage) string { return "/users/" + s.dora.String() }, nil, true},
		{"its last person disabled", "PATCH", func(s stage) string { return "/users/" + s.dora.String() }, at(`{"disabled": true}`), true},
		{"its rule deleted", "DELETE", func(s stage) string { return "/rules/" + s.rule }, nil, true},
		{"its rule changed", "PUT", func(s stage) string { return "/rules/" + s.rule }, at(`{"source": "entra", "claim": "groups", "value": "else", "group": "admins"}`), true},

		{"another group", "DELETE", at("/groups/others"), nil, false},
		{"a group that is not there", "DELETE", at("/groups/nothing"), nil, false},
		{"described", "PATCH", at("/groups/board"), at(`{"description": "x", "name": "board", "control": "manual"}`), false},
		{"one of two", "DELETE", func(s stage) string { return "/groups/board/members/" + s.bob.String() }, nil, false},
		{"one who is not in it", "DELETE", func(s stage) string { return "/groups/ops/members/" + s.bob.String() }, nil, false},
		{"one of two forgotten", "DELETE", func(s stage) string { return "/users/" + s.bob.String() }, nil, false},
		{"renamed, the last person", "PATCH", func(s stage) string { return "/users/" + s.dora.String() }, at(`{"name": "Dora"}`), false},
		{"another rule", "POST", at("/rules"), at(`{"source": "entra", "claim": "groups", "value": "x", "group": "others2"}`), false},
		{"its rule written again", "PUT", func(s stage) string { return "/rules/" + s.rule }, at(`{"source": "entra", "claim": "groups", "value": "adm", "group": "admins"}`), false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			s := begin(t)
			path, body := tt.path(s), ""
			if tt.body != nil {
				body = tt.body(s)
			}
			w := s.public(tt.method, "/api/v1"+path, body)
			if !tt.last {
				if w.Code/100 != 2 {
					t.Errorf("%d: %s", w.Code, w.Body)
				}
				return
			}
			var p problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 409 || p.Type != "urn:groupgate:problem:last-way" {
				t.Fatalf("%d: %s", w.Code, w.Body)
			}
			for _, wrong := range []string{"?confirm=", "?confirm=yes", "?confirm=last-way&confirm=x"} {
				if w := s.public(tt.method, "/api/v1"+path+wrong, body); w.Code/100 == 2 {
					t.Errorf("%s: %d", wrong, w.Code)
				}
			}
			for _, g := range []struct {
				name string
				n    int
			}{{"admins", 1}, {"board", 2}, {"ops", 1}} {
				if got := ok[groups.Group](s.api, 200, "GET", "/groups/"+g.name, ""); got.Members != g.n {
					t.Errorf("%s has %d members though it was refused", g.name, got.Members)
				}
			}
			if w := s.public(tt.method, "/api/v1"+path+"?confirm=last-way", body); w.Code/100 != 2 {
				t.Errorf("confirmed: %d: %s", w.Code, w.Body)
			}
			again := begin(t)
			body = ""
			if tt.body != nil {
				body = tt.body(again)
			}
			if got := again.call(tt.method, tt.path(again), body); got.status/100 != 2 {
				t.Errorf("with the token: %d: %s", got.status, got.body)
			}
		})
	}
}
