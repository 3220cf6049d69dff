package admin_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

// visit asks for a page of the console with a cookie, without the token.
func (a *api) visit(method, target, cookie string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	a.t.Helper()
	return a.direct(method, target, func(r *http.Request) {
		r.Header.Del("Authorization")
		r.Header.Set("Accept", "text/html")
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		for _, c := range change {
			c(r)
		}
	})
}

func formOf(values url.Values) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body, r.ContentLength = readCloser(values.Encode())
	}
}

// showToken shows a token at the form, and answers the cookie it got, if any.
func (a *api) showToken(shown, cookie string, change ...func(*http.Request)) (*httptest.ResponseRecorder, *http.Cookie) {
	a.t.Helper()
	w := a.visit("POST", "/login", cookie, append([]func(*http.Request){formOf(url.Values{"token": {shown}})}, change...)...)
	if set := w.Result().Cookies(); len(set) == 1 {
		return w, set[0]
	}
	return w, nil
}

func (a *api) console(change ...func(*http.Request)) string {
	a.t.Helper()
	w, c := a.showToken(token, "", change...)
	if w.Code != 303 || c == nil {
		a.t.Fatalf("not signed in: %d %s", w.Code, w.Body)
	}
	return c.Name + "=" + c.Value
}

// in reports whether a cookie is a session, of the API and of the pages.
func (a *api) in(cookie string) bool {
	a.t.Helper()
	api, page := a.visit("GET", "/api/v1/groups", cookie).Code, a.visit("GET", "/login", cookie).Code
	if (api == 200) != (page == 303) || api != 200 && api != 401 {
		a.t.Errorf("the API says %d, the form %d", api, page)
	}
	return api == 200
}

// The token is shown once, for a cookie that no other site makes a browser
// send, whose id is new, and which ends: idle, of age, with the token, by
// signing out.
func TestConsoleSession(t *testing.T) {
	t.Parallel()
	var hash atomic.Pointer[[32]byte]
	sum := sha256.Sum256([]byte(token))
	hash.Store(&sum)
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) { o.TokenHash = func() [32]byte { return *hash.Load() } })

	if a.in("") || a.in("groupgate-console=made-up") {
		t.Error("somebody is in without the token")
	}
	w, c := a.showToken(token, "groupgate-console=made-up")
	if w.Code != 303 || w.Header().Get("Location") != "/groups" || c == nil {
		t.Fatalf("%d to %q", w.Code, w.Header().Get("Location"))
	}
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.Secure || c.MaxAge != 8*3600 || len(c.Value) < 26 {
		t.Errorf("the cookie: %+v", c)
	}
	if a.in("groupgate-console=made-up") {
		t.Error("the id that the browser came with is a session now")
	}
	first := c.Name + "=" + c.Value
	if _, again := a.showToken(token, first); again == nil || again.Value == c.Value {
		t.Error("the id is the same after another login")
	}
	if !a.in(first) || a.in(first+"; "+first) {
		t.Error("one cookie is not one session")
	}
	if w, over := a.showToken(token, "", func(r *http.Request) { r.TLS = tlsState }); w.Code != 303 || !over.Secure {
		t.Error("over TLS the cookie is not kept to TLS")
	}

	a.clock.pass(29 * time.Minute)
	if !a.in(first) {
		t.Error("over before 30 idle minutes")
	}
	a.clock.pass(31 * time.Minute)
	if a.in(first) {
		t.Error("not over after 30 idle minutes")
	}
	aged := a.console()
	for range 23 { // 7 h 40 min
		a.clock.pass(20 * time.Minute)
		if !a.in(aged) {
			t.Fatal("over although it is used, and younger than 8 hours")
		}
	}
	a.clock.pass(21 * time.Minute)
	if a.in(aged) {
		t.Error("not over after 8 hours")
	}

	other, out := a.console(), a.console()
	if w := a.visit("GET", "/logout", out); w.Code != 405 || w.Header().Get("Allow") != "POST" || !a.in(out) {
		t.Errorf("a mere link signs out: %d", w.Code)
	}
	w = a.visit("POST", "/logout", out)
	if gone := w.Result().Cookies(); w.Code != 303 || w.Header().Get("Location") != "/login" || len(gone) != 1 || gone[0].MaxAge >= 0 || a.in(out) || !a.in(other) {
		t.Errorf("signing out: %d %v", w.Code, gone)
	}
	changed := sha256.Sum256([]byte("another token"))
	hash.Store(&changed)
	if a.in(other) {
		t.Error("the session outlives the token")
	}
	hash.Store(&sum)
	if a.in(other) {
		t.Error("the session came back with the old token")
	}
}

// Sessions are bounded; the one that was used longest ago makes room.
func TestConsoleSessionsAreBounded(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	var cookies []string
	for range admin.MaxSessions {
		cookies = append(cookies, a.console())
		a.clock.pass(time.Second)
	}
	if !a.in(cookies[0]) { // it is used
		t.Fatal("the first is gone before there are too many")
	}
	a.console()
	if n := a.h.Sessions(); n != admin.MaxSessions {
		t.Errorf("%d sessions", n)
	}
	if !a.in(cookies[0]) || a.in(cookies[1]) || !a.in(cookies[2]) {
		t.Error("another session than the one used longest ago made room")
	}
}

// Guesses at the form and at the API are one count, and the right token passes
// all the same.
func TestConsoleFormSharesTheCountOfWrongTokens(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for i := range 10 {
		if i%2 == 0 {
			if w, c := a.showToken(fmt.Sprint("wrong", i), ""); w.Code != 401 || c != nil || !strings.Contains(w.Body.String(), "That is not the token.") {
				t.Fatalf("at the form: %d %s", w.Code, w.Body)
			}
			continue
		}
		if w := a.direct("GET", "/api/v1/groups", func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }); w.Code != 401 {
			t.Fatalf("at the API: %d", w.Code)
		}
	}
	w, _ := a.showToken("wrong", "")
	if w.Code != 429 || w.Header().Get("Retry-After") != "60" || !strings.Contains(w.Body.String(), "in 60 seconds") {
		t.Errorf("the eleventh: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := a.direct("GET", "/api/v1/groups", func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }); w.Code != 429 {
		t.Errorf("at the API it is %d then", w.Code)
	}
	if w, _ := a.showToken("wrong", "", func(r *http.Request) { r.RemoteAddr = "203.0.113.9:1" }); w.Code != 401 {
		t.Errorf("another client: %d", w.Code)
	}
	if a.console() == "" {
		t.Error("the right token does not pass")
	}
	if strings.Contains(fmt.Sprint(a.logs.All()), token) {
		t.Error("the log holds the token")
	}
}

// The page to go on to is one of ours.
func TestConsoleGoesOnToItsOwnPagesAlone(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for next, want := range map[string]string{
		"/people?query=x": "/people?query=x", "/groups/a%2Fb": "/groups/a%2Fb", "": "/groups",
		"https://evil.example/": "/groups", "//evil.example/": "/groups", "/\\evil.example": "/groups", "\\/evil.example": "/groups",
		"/\t/evil.example": "/groups", "\t//evil.example": "/groups", "/\r\nSet-Cookie: a=b": "/groups", "javascript:alert(1)": "/groups",
		"http:/groups": "/groups", "///evil.example": "/groups", "groups": "/groups", "/%zz": "/groups", "?next=x": "/groups",
	} {
		target := "/login?" + url.Values{"next": {next}}.Encode()
		w := a.visit("POST", target, "", formOf(url.Values{"token": {token}}))
		if w.Code != 303 || w.Header().Get("Location") != want {
			t.Errorf("next=%q: %d to %q", next, w.Code, w.Header().Get("Location"))
		}
		if w := a.visit("GET", target, a.console()); w.Header().Get("Location") != want {
			t.Errorf("next=%q, signed in: to %q", next, w.Header().Get("Location"))
		}
	}
	hostile := `/x"><script>alert(1)</script>`
	if w := a.visit("GET", "/login?"+url.Values{"next": {hostile}}.Encode(), ""); strings.Contains(w.Body.String(), "<script>alert") || w.Code != 200 {
		t.Errorf("the form: %s", w.Body)
	}
}

// concrete is the address of a page for something that is there.
func (a *api) concrete(pattern string, id groups.UserID) string {
	out := strings.NewReplacer("/people/{id}", "/people/"+id.String(), "/groups/{name}", "/groups/engineering").Replace(pattern)
	return regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(out, "x")
}

// What is on every page: a policy that lets nothing of others in, no way to be
// framed or kept, no secret; and without a session none of it is shown.
func TestEveryPageOfTheConsole(t *testing.T) {
	t.Parallel()
	const grant, stored = "grant-canary-77aa", "password canary 9c3e"
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sources = append(s.Sources, localSettings())
	})
	hash := sha256.Sum256([]byte("cookie-canary"))
	id := a.session("entra", "s1", `{"preferred_username": "alice", "groups": ["eng"], "name": "<script>alert(1)</script>", "email": "a@example.com"}`,
		&groups.Login{ID: "login-canary", Source: "entra", Subject: "s1", Created: a.clock.now(), Expires: a.clock.now().Add(time.Hour), Grant: []byte(grant)},
		&groups.Session{Hash: hash, Used: a.clock.now()})
	ok[any](a, 201, "POST", "/users", `{"user": "dora", "password": "`+stored+`"}`)
	cookie := a.console()
	pages := append(a.h.Pages(), "/login", "/nowhere/at/all")
	for _, pattern := range pages {
		at := a.concrete(pattern, id)
		w := a.visit("GET", at, cookie)
		if w.Code >= 500 {
			t.Errorf("%s: %d", at, w.Code)
		}
		if w.Code != 303 && !strings.Contains(w.Header().Get("Content-Type"), "text/html") && w.Code == 200 {
			continue // a file
		}
		h := w.Header()
		if w.Code != 303 {
			csp := h.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'; style-src 'self'; script-src 'self';") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q", at, csp)
			}
			if h.Get("X-Frame-Options") != "DENY" || h.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%s: %v", at, h)
			}
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", at, h)
		}
		_, id, _ := strings.Cut(cookie, "=")
		nothingIn(t, w.Body.Bytes(), token, grant, stored, "cookie-canary", "login-canary", fmt.Sprintf("%x", hash), "$argon2", id, "<script>alert", " style=", " onclick=")
		if head := a.visit("HEAD", at, cookie); head.Code != w.Code || head.Body.Len() != 0 {
			t.Errorf("HEAD %s: %d with %d bytes", at, head.Code, head.Body.Len())
		}
		if w := a.visit("POST", at, cookie); pattern != "/login" && w.Code != 405 && w.Code != 404 {
			t.Errorf("POST %s: %d", at, w.Code)
		}
		if pattern == "/login" {
			continue
		}
		if w := a.visit("GET", at, ""); pattern == "/nowhere/at/all" && w.Code != 404 || pattern != "/nowhere/at/all" && (w.Code != 303 || !strings.HasPrefix(w.Header().Get("Location"), "/login?next=")) {
			t.Errorf("%s without a session: %d to %q", at, w.Code, w.Header().Get("Location"))
		}
	}
	nothingIn(t, []byte(fmt.Sprint(a.logs.All())), token, grant, stored)
	if w := a.visit("GET", "/rules?new=1&group=x", ""); w.Header().Get("Location") != "/login?next=%2Frules%3Fnew%3D1%26group%3Dx" {
		t.Errorf("a page with a query: to %q", w.Header().Get("Location"))
	}
}

// Only names that nobody can point at us, and only our own pages' requests.
func TestConsoleKeepsOtherSitesOut(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	cookie := a.console()
	at := func(host string) func(*http.Request) { return func(r *http.Request) { r.Host = host } }
	for host, want := range map[string]int{"127.0.0.1:4181": 303, "localhost": 303, "admin.example.com": 303, "evil.example": 421, "127.0.0.1.evil.example": 421} {
		for _, path := range []string{"/", "/login"} {
			if w := a.visit("GET", path, cookie, at(host)); w.Code != want {
				t.Errorf("%s at %s: %d, want %d", path, host, w.Code, want)
			}
		}
	}
	for what, tt := range map[string]struct {
		name, value string
		ok          bool
	}{
		"our page": {"Sec-Fetch-Site", "same-origin", true}, "typed": {"Sec-Fetch-Site", "none", true}, "no browser": {"X-Nothing", "", true},
		"another site": {"Sec-Fetch-Site", "cross-site", false}, "the site next door": {"Sec-Fetch-Site", "same-site", false},
		"an old browser": {"Origin", "https://evil.example", false}, "an old browser, sandboxed": {"Origin", "null", false},
		"an old browser, ours": {"Origin", "http://127.0.0.1:4181", true},
	} {
		from := func(r *http.Request) { r.Header.Set(tt.name, tt.value) }
		if w, c := a.showToken(token, "", from); (c != nil) != tt.ok || !tt.ok && w.Code != 403 {
			t.Errorf("a login from %s: %d", what, w.Code)
		}
		if w := a.visit("POST", "/logout", a.console(), from); (w.Code == 303) != tt.ok || !tt.ok && w.Code != 403 {
			t.Errorf("a logout from %s: %d", what, w.Code)
		}
		w := a.visit("POST", "/api/v1/groups", cookie, from, jsonOf(fmt.Sprintf(`{"name": %q}`, what)))
		if (w.Code == 201) != tt.ok || !tt.ok && w.Code != 403 {
			t.Errorf("a group from %s: %d %s", what, w.Code, w.Body)
		}
	}
}

func TestConsoleAssets(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	if len(admin.Assets()) < 3 {
		t.Fatalf("assets: %v", admin.Assets())
	}
	for name, version := range admin.Assets() {
		w := a.visit("GET", "/assets/"+name+"?v="+version, "")
		if w.Code != 200 || w.Body.Len() == 0 || w.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
		if w := a.visit("GET", "/assets/"+name+"?v=old", ""); w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s of another version: %d %v", name, w.Code, w.Header())
		}
		if w := a.visit("POST", "/assets/"+name, ""); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %d", name, w.Code)
		}
		if bytes.Contains(w.Body.Bytes(), []byte("innerHTML")) || bytes.Contains(w.Body.Bytes(), []byte("http://")) && name != "mark.svg" {
			t.Errorf("%s writes markup, or names another host", name)
		}
	}
	for _, name := range []string{"layout.html", "text/en/frame.json", "../admin.go", "", "nothing.css"} {
		if w := a.visit("GET", "/assets/"+name, ""); w.Code != 404 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// A body says what the endpoint takes, and nothing else of the thing.
func TestNothingIsAssignedByTheWay(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	ok[any](a, 201, "POST", "/groups", `{"name": "board"}`)
	id := a.signIn("entra", "s1", `{"preferred_username": "alice"}`)
	for _, tt := range []struct{ method, path, body, extra string }{
		{"POST", "/groups", `{"name": "more"`, `"members": 7`}, {"POST", "/groups", `{"name": "more"`, `"created": "2020-01-01T00:00:00Z"`},
		{"PATCH", "/groups/board", `{"description": "x"`, `"members": 7`}, {"PATCH", "/groups/board", `{"description": "x"`, `"Description": "y"`},
		{"PATCH", "/users/" + id.String(), `{"name": "x"`, `"user": "root"`}, {"PATCH", "/users/" + id.String(), `{"name": "x"`, `"memberships": []`},
		{"POST", "/rules", `{"claim": "groups", "any": true`, `"by": "root"`},
	} {
		if p := a.refused(400, tt.method, tt.path, tt.body+", "+tt.extra+"}"); !strings.Contains(p.Detail, "cannot be read") {
			t.Errorf("%s %s with %s: %s", tt.method, tt.path, tt.extra, p.Detail)
		}
		if got := a.call(tt.method, tt.path, tt.body+"}"); got.status == 400 {
			t.Errorf("%s %s without %s: %d %s", tt.method, tt.path, tt.extra, got.status, got.body)
		}
	}
}
