package admin_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

// direct sends a request without a network, so that its peer can be chosen.
func (a *api) direct(method, target string, change func(*http.Request)) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:4181"
	r.Header.Set("Authorization", "Bearer "+token)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	a.h.ServeHTTP(w, r)
	return w
}

// SC-15: health is told on exact paths, without a token and without data, and
// being alive does not need a store or a source.
func TestOpenEndpointsWantNoToken(t *testing.T) {
	t.Parallel()
	var missing atomic.Pointer[error]
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Ready = func() error {
			if e := missing.Load(); e != nil {
				return *e
			}
			return nil
		}
	})
	anonymous := func(r *http.Request) { r.Header.Del("Authorization") }
	check := func(method, path string, status int, body string) {
		t.Helper()
		w := a.direct(method, path, anonymous)
		if w.Code != status || body != "" && w.Body.String() != body {
			t.Errorf("%s %s: %d %q, want %d %q", method, path, w.Code, w.Body, status, body)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s may be stored", method, path)
		}
	}
	check("GET", "/healthz", 200, "ok")
	check("GET", "/readyz", 200, "ok")
	check("GET", "/metrics", 200, "up 1\n")
	check("GET", "/", 303, "")
	for _, path := range []string{"/healthz/", "//healthz", "/Healthz", "/%68ealthz", "/healthz/../metrics", "/api", "/api/v2/users", "/metrics/x"} {
		check("GET", path, 404, "")
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
		check("POST", path, 405, "")
	}

	two := errors.Join(errors.New("entra: discovery: no answer"), errors.New("store: is a folder"))
	missing.Store(&two)
	check("GET", "/readyz", 503, "entra: discovery: no answer\nstore: is a folder\n")
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	check("GET", "/healthz", 200, "ok")
}

func TestReadyWithoutWordIsTheStoresHealth(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	if w := a.direct("GET", "/readyz", nil); w.Code != 200 {
		t.Errorf("with a store: %d %s", w.Code, w.Body)
	}
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	if w := a.direct("GET", "/readyz", nil); w.Code != 503 || w.Body.Len() == 0 {
		t.Errorf("without a store: %d %q", w.Code, w.Body)
	}
}

// SC-03: there is no way in without the token, on this listener either.
func TestTokenIsWanted(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for name, tc := range map[string]struct {
		lines  []string
		status int
	}{
		"right":           {[]string{"Bearer " + token}, 200},
		"scheme's case":   {[]string{"bearer " + token}, 200},
		"none":            {nil, 401},
		"wrong":           {[]string{"Bearer wrong-canary"}, 401},
		"a part":          {[]string{"Bearer " + token[:len(token)-1]}, 401},
		"longer":          {[]string{"Bearer " + token + "x"}, 401},
		"empty":           {[]string{"Bearer "}, 401},
		"no scheme":       {[]string{token}, 401},
		"another scheme":  {[]string{"Basic " + token}, 401},
		"two headers":     {[]string{"Bearer " + token, "Bearer " + token}, 401},
		"two, one right":  {[]string{"Bearer wrong-canary", "Bearer " + token}, 401},
		"in another case": {[]string{"Bearer " + strings.ToUpper(token)}, 401},
	} {
		for _, path := range []string{"/api/v1/users", "/api/v1/openapi.json"} {
			w := a.direct("GET", path, func(r *http.Request) { r.Header["Authorization"] = tc.lines })
			if w.Code != tc.status {
				t.Errorf("%s: %s: %d, want %d", name, path, w.Code, tc.status)
			}
			if w.Code == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: WWW-Authenticate %q", name, w.Header().Get("WWW-Authenticate"))
			}
			a.clock.pass(time.Minute) // guesses of this test are not to be slowed down
		}
	}
	if w := a.direct("GET", "/api/v1/users?access_token="+token, func(r *http.Request) { r.Header.Del("Authorization") }); w.Code != 401 {
		t.Errorf("a token in the address: %d, want 401", w.Code)
	}
	if w := a.direct("GET", "/api/v1/nothing", func(r *http.Request) { r.Header.Del("Authorization") }); w.Code != 401 {
		t.Errorf("an unknown address without a token: %d, want 401", w.Code)
	}
	for _, e := range a.logs.All() {
		line, _ := json.Marshal(e.ContextMap())
		nothingIn(t, append(line, e.Message...), token, "wrong-canary")
	}
}

// SC-09: the token is rotated without a restart.
func TestTokenIsSwappedAtReload(t *testing.T) {
	t.Parallel()
	var now atomic.Value
	now.Store(token)
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.TokenHash = func() [32]byte { return sha256.Sum256([]byte(now.Load().(string))) }
	})
	if w := a.direct("GET", "/api/v1/users", nil); w.Code != 200 {
		t.Fatalf("the token: %d", w.Code)
	}
	now.Store("another")
	if w := a.direct("GET", "/api/v1/users", nil); w.Code != 401 {
		t.Errorf("the old token: %d, want 401", w.Code)
	}
}

func TestGuessesAreSlowedDownPerClient(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	from := func(peer, tok string) *httptest.ResponseRecorder {
		return a.direct("GET", "/api/v1/users", func(r *http.Request) {
			r.RemoteAddr = peer
			r.Header.Set("Authorization", "Bearer "+tok)
		})
	}
	const guesser = "192.0.2.7:1000"
	for i := range 10 {
		if w := from(guesser, fmt.Sprint(i)); w.Code != 401 {
			t.Fatalf("guess %d: %d, want 401", i+1, w.Code)
		}
	}
	a.clock.pass(10 * time.Second)
	w := from("192.0.2.7:2000", "x")
	if w.Code != 429 || w.Header().Get("Retry-After") != "50" {
		t.Errorf("guess 11: %d, Retry-After %q, want 429 and 50", w.Code, w.Header().Get("Retry-After"))
	}
	if w := from(guesser, token); w.Code != 200 {
		t.Errorf("the right token from there: %d, want 200", w.Code)
	}
	if w := from("192.0.2.8:1000", "x"); w.Code != 401 {
		t.Errorf("a guess from elsewhere: %d, want 401", w.Code)
	}
	if w := a.direct("GET", "/api/v1/users", func(r *http.Request) { r.RemoteAddr = guesser; r.Header.Del("Authorization") }); w.Code != 401 {
		t.Errorf("no token is no guess: %d, want 401", w.Code)
	}
	a.clock.pass(time.Minute)
	if w := from(guesser, "x"); w.Code != 401 {
		t.Errorf("a minute later: %d, want 401", w.Code)
	}
	for i := range 10 {
		from(fmt.Sprintf("[2001:db8::%x]:1", i+1), "x")
	}
	if w := from("[2001:db8::ffff]:1", "x"); w.Code != 429 {
		t.Errorf("another address of the same IPv6 network: %d, want 429", w.Code)
	}
	if w := from("[2001:db8:0:1::1]:1", "x"); w.Code != 401 {
		t.Errorf("another IPv6 network: %d, want 401", w.Code)
	}
}

func TestGuessersAreRememberedInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	a := newAPI(t)
	for i := range 2 * admin.MaxClients {
		a.h.Wrong(fmt.Sprintf("10.0.%d.%d", i>>8, i&255))
	}
	if n := a.h.Remembered(); n > admin.MaxClients+1 {
		t.Errorf("%d clients are remembered, at most %d are wanted", n, admin.MaxClients+1)
	}
	if a.h.Wrong("10.9.9.9") == 0 {
		t.Error("past the bound guesses are free")
	}
	a.clock.pass(time.Minute)
	if wait := a.h.Wrong("10.9.9.9"); wait != 0 {
		t.Errorf("a minute later a first guess waits %v", wait)
	}
	if n := a.h.Remembered(); n > 2 {
		t.Errorf("%d clients are still remembered", n)
	}
}

// SC-03: DNS rebinding.
func TestHostsThatDNSCanPointHereAreRefused(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for host, status := range map[string]int{
		"127.0.0.1:4181": 200, "[::1]:4181": 200, "[::1]": 200, "localhost": 200, "LocalHost:4181": 200, "x.localhost": 200,
		"10.1.2.3:4181": 200, "admin.example.com": 200, "ADMIN.example.com:4181": 200, "groupgate": 200, "groupgate:4181": 200,
		"admin.example.com.": 200,
		"evil.example":       421, "evil.example:4181": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
		"xlocalhost.example": 421, "sub.admin.example.com": 421, "1.2.3.4.5": 421, "[::1].evil.example": 421, "evil.example.": 421,
	} {
		if w := a.direct("GET", "/api/v1/users", func(r *http.Request) { r.Host = host }); w.Code != status {
			t.Errorf("Host %s: %d, want %d", host, w.Code, status)
		}
	}
}

// SC-03: another site's page cannot use this listener.
func TestForeignPagesCannotWrite(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{"preferred_username":"alice"}`)
	path := "/api/v1/users/" + id.String() + "/sessions"
	for name, tc := range map[string]struct {
		header, value string
		status        int
	}{
		"a tool":             {"X-Nothing", "x", 204},
		"our own page":       {"Sec-Fetch-Site", "same-origin", 204},
		"another site":       {"Sec-Fetch-Site", "cross-site", 403},
		"a neighbour":        {"Sec-Fetch-Site", "same-site", 403},
		"an old browser":     {"Origin", "https://evil.example", 403},
		"an old one of ours": {"Origin", "http://127.0.0.1:4181", 204},
	} {
		if w := a.direct("DELETE", path, func(r *http.Request) { r.Header.Set(tc.header, tc.value) }); w.Code != tc.status {
			t.Errorf("%s: %d, want %d", name, w.Code, tc.status)
		}
	}
}

func TestPathsAreReadInOneWay(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for path, status := range map[string]int{
		"/users": 200, "/groups": 200,
		"//users": 404, "/users/": 404, "/./users": 404, "/groups/../users": 404, "/users//sessions": 404, "/": 404, "": 404,
		"/users%2F": 404, "/groups/%2E%2E/members": 404, "/groups/a%00b": 404, "/groups/%FF": 404, "/users/x/sessions/y": 404,
		"/nothing": 404, "/USERS": 404, "/users;x": 404, "/sources/:test": 404, "/guard:": 404,
	} {
		if got := a.call("GET", path, ""); got.status != status {
			t.Errorf("GET %s: %d, want %d", path, got.status, status)
		}
	}
	if got := a.call("HEAD", "/users", ""); got.status != 200 || len(got.body) != 0 {
		t.Errorf("HEAD: %d %q", got.status, got.body)
	}
}

// SC-04, SC-14: a body says what may be said, once, and no more than a
// mebibyte of it.
func TestBodiesAreReadStrictly(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for name, tc := range map[string]struct {
		body, contentType string
		status            int
	}{
		"fine":             {`{"name":"a"}`, "application/json", 201},
		"with a charset":   {`{"name":"b"}`, "application/json; charset=UTF-8", 201},
		"another charset":  {`{"name":"c"}`, "application/json; charset=utf-16", 415},
		"no type":          {`{"name":"c"}`, "", 415},
		"a form's type":    {`{"name":"c"}`, "text/plain", 415},
		"unknown key":      {`{"name":"c","x":1}`, "application/json", 400},
		"trailing data":    {`{"name":"c"} {}`, "application/json", 400},
		"key twice":        {`{"name":"c","name":"d"}`, "application/json", 400},
		"key in two cases": {`{"name":"c","NAME":"d"}`, "application/json", 400},
		"another type":     {`{"name":1}`, "application/json", 400},
		"a list":           {`[]`, "application/json", 400},
		"null":             {`null`, "application/json", 400},
		"cut off":          {`{"name":"c"`, "application/json", 400},
		"not UTF-8":        {"{\"name\":\"c\xff\"}", "application/json", 400},
		"empty":            {" ", "application/json", 400},
		"too long":         {`{"name":"c","description":"` + strings.Repeat("x", 1<<20) + `"}`, "application/json", 413},
	} {
		got := a.call("POST", "/groups", tc.body, "Content-Type: "+tc.contentType)
		if got.status != tc.status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, tc.status, got.body)
		}
	}
}

func TestStoreDownIs503Everywhere(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{"preferred_username":"alice"}`).String()
	requests := []struct{ method, path, body, contentType string }{
		{"GET", "/users", "", ""}, {"GET", "/users/" + id, "", ""}, {"DELETE", "/users/" + id, "", ""},
		{"DELETE", "/users/" + id + "/sessions", "", ""},
		{"GET", "/groups", "", ""}, {"POST", "/groups", `{"name":"x"}`, "application/json"}, {"GET", "/groups/x", "", ""},
		{"PATCH", "/groups/x", `{"description":"x"}`, "application/json"}, {"DELETE", "/groups/x", "", ""},
		{"GET", "/groups/x/members", "", ""}, {"PUT", "/groups/x/members/" + id, "", ""}, {"DELETE", "/groups/x/members/" + id, "", ""},
		{"POST", "/groups/x/members:import", "user\nalice\n", "text/csv"},
		{"POST", "/rules", `{"claim":"groups","value":"x","group":"x"}`, "application/json"},
		{"PUT", "/rules/r-1", `{"claim":"groups","value":"x","group":"x"}`, "application/json"},
		{"POST", "/plan", `{}`, "application/json"}, {"POST", "/explain", `{"source":"entra","claims":{"groups":["eng"]}}`, "application/json"},
		{"GET", "/events", "", ""}, {"GET", "/guard", "", ""}, {"POST", "/guard:allow", "", ""},
	}
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range requests {
		got := a.call(r.method, r.path, r.body, "Content-Type: "+r.contentType)
		if got.status != 503 || got.header.Get("Retry-After") == "" || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d, Retry-After %q: %s", r.method, r.path, got.status, got.header.Get("Retry-After"), got.body)
		}
		nothingIn(t, got.body, "sqlite", "closed")
	}
	for _, path := range []string{"/rules", "/sources", "/targets", "/openapi.json"} { // from memory
		if got := a.call("GET", path, ""); got.status != 200 {
			t.Errorf("GET %s: %d, want 200", path, got.status)
		}
	}
}

// Whatever is sent, the fault is never ours.
func TestBadInputIsNeverAnInternalError(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	a := newAPI(t)
	odd := []string{"%F0%9F%98%80", "..%2F..", "%25", "'%20or%201=1", "u1", "u-1", "%20", strings.Repeat("x", 5000), "a%0d%0ab", "%E2%80%AE"}
	bodies := []string{"", "{}", `{"name":"\u0000"}`, `{"claims":{},"source":"entra","user":"u1"}`, `{"claim":"/~","value":"\u0000","group":"\u0000"}`, `{"rules":[{}]}`, "user\n\x00\n"}
	for _, p := range a.h.Patterns() {
		method, pattern, _ := strings.Cut(p, " ")
		for _, o := range odd {
			path := strings.NewReplacer("{id}", o, "{name}", o).Replace(pattern)
			for _, body := range bodies {
				for _, ct := range []string{"application/json", "text/csv"} {
					got := a.call(method, path+"?query="+o+"&limit=3&user=u1&kind="+o, body, "Content-Type: "+ct, "If-Match: "+"*")
					if got.status >= 500 {
						t.Fatalf("%s %s %q: %d: %s", method, path, body, got.status, got.body)
					}
				}
				if method == "GET" || method == "DELETE" {
					break
				}
			}
			if !strings.Contains(pattern, "{") && method != "GET" {
				break
			}
		}
	}
}
