package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

const (
	backchannel = "/_auth/backchannel/test"
	formType    = "application/x-www-form-urlencoded"
)

// logoutAt is the provider telling one of our sources that somebody is signed
// out.
func (r *rig) logoutAt(path, token string) *http.Response {
	r.t.Helper()
	res, err := claimstest.PostLogout(r.t.Context(), r.client(), r.server.URL+path, token)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

// logout is logoutAt the usual source.
func (r *rig) logout(token string) *http.Response {
	r.t.Helper()
	return r.logoutAt(backchannel, token)
}

func (r *rig) status(cookie string) int {
	r.t.Helper()
	return r.do("GET", "/", signedIn(cookie)).StatusCode
}

// sid is the session at the provider that a person began n-th.
func (r *rig) sid(subject string, n int) string {
	r.t.Helper()
	sids := r.op.SIDs(subject)
	if n >= len(sids) {
		r.t.Fatalf("%s has %d sessions at the provider", subject, len(sids))
	}
	return sids[n]
}

// accepted checks an answer that says yes.
func accepted(t testing.TB, what string, res *http.Response) {
	t.Helper()
	if body := bodyOf(t, res); res.StatusCode != 200 || body != "" || res.Header.Get("Cache-Control") != "no-store" || len(res.Cookies()) != 0 {
		t.Errorf("%s: %d %v %q", what, res.StatusCode, res.Header, body)
	}
}

// refused checks an answer that says no, and gives its request id.
func refused(t testing.TB, what string, res *http.Response, status int, code string) (id string) {
	t.Helper()
	var said map[string]string
	body := bodyOf(t, res)
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		t.Errorf("%s: %d %q: %v", what, res.StatusCode, body, err)
		return ""
	}
	if res.StatusCode != status || said["error"] != code || res.Header.Get("Cache-Control") != "no-store" || len(res.Cookies()) != 0 {
		t.Errorf("%s: %d %v %s", what, res.StatusCode, res.Header, body)
	}
	if (said["error_description"] != "") != (code == "invalid_request") || said["request_id"] == "" {
		t.Errorf("%s: %s", what, body)
	}
	return said["request_id"]
}

// noted waits until the audit trail knows requests that were refused, each by
// one event with these words.
func noted(t testing.TB, r *rig, words string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		var list []groups.Event
		eventually(t, "an audit event", 5*time.Second, func() bool {
			var err error
			if list, err = r.store.Events(t.Context(), groups.EventQuery{Request: id, Limit: 10}); err != nil {
				t.Fatal(err)
			}
			return len(list) > 0
		})
		if len(list) != 1 || list[0].Kind != groups.EventRefused || !strings.Contains(list[0].Reason, words) {
			t.Errorf("audit trail: %+v", list)
		}
	}
}

// SC-19, OI-21: a logout token ends what it names on every host, with its
// sockets and streams, and nobody else's.
func TestBackchannelLogoutEndsEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	a, second := r.browser(), r.browser()
	for _, b := range []*claimstest.Browser{a, second} {
		if p, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil || p.Status != 200 {
			t.Fatalf("login: %v, %v", p, err)
		}
	}
	bob := r.signIn("bob")
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/socket":
			echo(w, req)
		case "/events":
			streamForever(w, req)
		}
	})
	public, portal := r.cookie(a), r.portalCookie(a, "eng.localhost")
	var sockets []*websocket.Conn
	for _, c := range []struct{ host, cookie string }{
		{"127.0.0.1", public}, {"eng.localhost", portal}, {"127.0.0.1", r.cookie(second)}, {"127.0.0.1", bob},
	} {
		client := r.client()
		client.Timeout = 0
		conn, _, err := websocket.Dial(t.Context(), r.server.URL+"/socket", &websocket.DialOptions{
			HTTPClient: client, Host: c.host + ":" + r.port(), HTTPHeader: http.Header{"Cookie": {c.cookie}},
		})
		if err != nil {
			t.Fatalf("%s: %v", c.host, err)
		}
		defer conn.CloseNow()
		sockets = append(sockets, conn)
	}
	stream := bufio.NewReader(r.do("GET", "/events", edits(signedIn(portal), r.onHost("eng.localhost"))).Body)
	if line, err := stream.ReadString('\n'); err != nil || line != "data: one\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r.proxy.Recheck(t.Context())
	for i, c := range sockets {
		if !talks(t, c, "before") {
			t.Fatalf("socket %d closed too early", i)
		}
	}
	lives := func(when string, want map[string]int) {
		t.Helper()
		got := map[string]int{
			"public": r.status(public), "portal": r.do("GET", "/", edits(signedIn(portal), r.onHost("eng.localhost"))).StatusCode,
			"second": r.status(r.cookie(second)), "second portal": r.do("GET", "/", edits(signedIn(r.portalCookie(second, "eng.localhost")), r.onHost("eng.localhost"))).StatusCode,
			"bob": r.status(bob),
		}
		for who, status := range want {
			if got[who] != status {
				t.Errorf("%s: %s gets %d, want %d", when, who, got[who], status)
			}
		}
	}
	lives("before", map[string]int{"public": 200, "portal": 200, "second": 200, "second portal": 200, "bob": 200})

	// By sid: that session alone.
	accepted(t, "by sid", r.logout(r.op.LogoutToken("", r.sid("alice", 0))))
	lives("by sid", map[string]int{"public": 401, "portal": 401, "second": 200, "second portal": 200, "bob": 200})
	r.proxy.Recheck(t.Context())
	for _, c := range sockets[:2] {
		ended(t, "a socket of the session", func() error { _, _, err := c.Read(t.Context()); return err })
	}
	ended(t, "a stream of the session", func() error { _, err := io.Copy(io.Discard, stream); return err })
	for i, c := range sockets[2:] {
		if !talks(t, c, "after") {
			t.Errorf("a socket of another session was closed: %d", i)
		}
	}

	// By sub: all of that person.
	third := r.signIn("alice")
	accepted(t, "by sub", r.logout(r.op.LogoutToken("alice", "")))
	lives("by sub", map[string]int{"second": 401, "second portal": 401, "bob": 200})
	if got := r.status(third); got != 401 {
		t.Errorf("the third session gets %d", got)
	}
	r.proxy.Recheck(t.Context())
	ended(t, "the socket of the second session", func() error { _, _, err := sockets[2].Read(t.Context()); return err })
	if !talks(t, sockets[3], "after") {
		t.Error("bob's socket was closed")
	}
	list := events(t, r, groups.EventSignOut)
	if len(list) != 2 {
		t.Fatalf("%d sign-outs in the audit trail", len(list))
	}
	for _, e := range list {
		if e.Name != "alice" || e.Source != "test" || e.Actor != "source test" || e.Request == "" || e.Reason != "signed out at the source" {
			t.Errorf("%+v", e)
		}
	}
}

// OI-20, OI-21, OI-24: every lie is answered with 400 and the session stays; a
// token that does not lie ends it.
func TestBackchannelLogoutLies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	sid := r.sid("alice", 0)
	var tokens, ids []string
	for name, lie := range r.op.LogoutLies() {
		token := r.op.LogoutToken("alice", sid, lie)
		tokens = append(tokens, token)
		ids = append(ids, refused(t, name, r.logout(token), 400, "invalid_request"))
		if got := r.status(cookie); got != 200 {
			t.Fatalf("%s: the session gets %d", name, got)
		}
	}
	// OI-20, OI-21: another issuer, whose keys are its own, with our client's
	// name and alice's sid.
	other := claimstest.Start(t, claimstest.Options{ClientID: "portal"})
	refused(t, "another issuer", r.logout(other.LogoutToken("alice", sid)), 400, "invalid_request")
	other.SetIssuer(r.op.URL)
	refused(t, "another issuer with our issuer's name", r.logout(other.LogoutToken("alice", sid)), 400, "invalid_request")
	if got := r.status(cookie); got != 200 {
		t.Errorf("the session gets %d", got)
	}
	noted(t, r, "test: check logout token: ", ids...)
	accepted(t, "control", r.logout(r.op.LogoutToken("alice", sid)))
	if got := r.status(cookie); got != 401 {
		t.Errorf("control: the session gets %d", got)
	}
	logs := r.logs.String()
	for _, token := range tokens { // SC-07
		if strings.Contains(logs, token) || strings.Contains(logs, token[strings.LastIndex(token[:len(token)-1], ".")+1:]) {
			t.Error("a token is in the log")
		}
	}
}

// OI-21, RD-06, SC-14: what is not one token in one small form is refused,
// whatever the query says.
func TestBackchannelLogoutForms(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	token := func() string { return url.QueryEscape(r.op.LogoutToken("alice", "")) }
	pad := func(form string, size int) string { return form + "&pad=" + strings.Repeat("x", size-len(form)-5) }
	post := func(path, body string, edit func(*http.Request)) *http.Response {
		return r.do("POST", path, func(req *http.Request) {
			req.Header.Set("Content-Type", formType)
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			if edit != nil {
				edit(req)
			}
		})
	}
	chunked := func(req *http.Request) { req.ContentLength = -1 }
	var ids []string
	for _, c := range []struct {
		what, path, body string
		edit             func(*http.Request)
		status           int
		code             string
	}{
		{"no body", backchannel, "", nil, 400, "invalid_request"},
		{"no token", backchannel, "token=x", nil, 400, "invalid_request"},
		{"an empty token", backchannel, "logout_token=", nil, 400, "invalid_request"},
		{"RD-06 the token twice", backchannel, "logout_token=" + token() + "&logout_token=" + token(), nil, 400, "invalid_request"},
		{"RD-06 an empty one as well", backchannel, "logout_token=" + token() + "&logout_token=", nil, 400, "invalid_request"},
		{"only in the query", backchannel + "?logout_token=" + token(), "", nil, 400, "invalid_request"},
		{"another name for it", backchannel, "Logout_Token=" + token(), nil, 400, "invalid_request"},
		{"a malformed form", backchannel, "logout_token=" + token() + "&a=%zz", nil, 400, "invalid_request"},
		{"a semicolon", backchannel, "logout_token=" + token() + ";a=b", nil, 400, "invalid_request"},
		{"no content type", backchannel, "logout_token=" + token(), func(req *http.Request) { req.Header.Del("Content-Type") }, 400, "invalid_request"},
		{"JSON", backchannel, "logout_token=" + token(), header("Content-Type", "application/json"), 400, "invalid_request"},
		{"multipart", backchannel, "logout_token=" + token(), header("Content-Type", "multipart/form-data; boundary=x"), 400, "invalid_request"},
		{"text", backchannel, "logout_token=" + token(), header("Content-Type", "text/plain"), 400, "invalid_request"},
		{"two content types", backchannel, "logout_token=" + token(), header("Content-Type", formType, formType), 400, "invalid_request"},
		{"SC-14 one byte too many", backchannel, pad("logout_token="+token(), 64<<10+1), nil, 413, "too_large"},
		{"SC-14 one byte too many, chunked", backchannel, pad("logout_token="+token(), 64<<10+1), chunked, 413, "too_large"},
		{"OI-21 1 MB", backchannel, pad("logout_token="+token(), 1<<20), nil, 413, "too_large"},
		{"OI-21 1 MB, chunked", backchannel, pad("logout_token="+token(), 1<<20), chunked, 413, "too_large"},
		{"a source that is not", "/_auth/backchannel/nobody", "logout_token=" + token(), nil, 404, "unknown_source"},
		{"a portal", backchannel, "logout_token=" + token(), r.onHost("eng.localhost"), 404, "unknown_source"},
		{"another host", backchannel, "logout_token=" + token(), func(req *http.Request) { req.Host = "evil.example" }, 421, "misdirected"},
		{"no source", "/_auth/backchannel/", "logout_token=" + token(), nil, 404, "not_found"},
		{"a path below", backchannel + "/x", "logout_token=" + token(), nil, 404, "not_found"},
	} {
		cookie := r.signIn("alice")
		ids = append(ids, refused(t, c.what, post(c.path, c.body, c.edit), c.status, c.code))
		if got := r.status(cookie); got != 200 {
			t.Errorf("%s: the session gets %d", c.what, got)
		}
	}
	noted(t, r, "", ids...)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		cookie := r.signIn("alice")
		res := r.do(method, backchannel+"?logout_token="+token(), nil)
		if res.StatusCode != 405 || res.Header.Get("Allow") != "POST" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
		}
		if got := r.status(cookie); got != 200 {
			t.Errorf("%s: the session gets %d", method, got)
		}
	}
	for _, c := range []struct {
		what, path, body string
		edit             func(*http.Request)
	}{
		{"alone", backchannel, "logout_token=" + token(), nil},
		{"among others", backchannel, "a=1&logout_token=" + token() + "&a=2&state=x", nil},
		{"the query says otherwise", backchannel + "?logout_token=x&logout_token=y", "logout_token=" + token(), nil},
		{"with a charset", backchannel, "logout_token=" + token(), header("Content-Type", "Application/X-WWW-Form-URLencoded; charset=UTF-8")},
		{"SC-14 as large as may be", backchannel, pad("logout_token="+token(), 64<<10), chunked},
		{"from another site's page, for all we know", backchannel, "logout_token=" + token(), header("Origin", "https://idp.example")},
	} {
		cookie := r.signIn("alice")
		accepted(t, c.what, post(c.path, c.body, c.edit))
		if got := r.status(cookie); got != 401 {
			t.Errorf("%s: the session gets %d", c.what, got)
		}
	}
}

// OI-21: a token counts once, on whatever replica, and after a restart too.
func TestBackchannelLogoutReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	token := r.op.LogoutToken("alice", "")
	accepted(t, "first", r.logout(token))
	if got := r.status(cookie); got != 401 {
		t.Fatalf("the session gets %d", got)
	}
	cookie = r.signIn("alice")
	noted(t, r, "used before", refused(t, "again", r.logout(token), 400, "invalid_request"))
	nobody := r.op.LogoutToken("nobody", "")
	accepted(t, "nobody was signed in", r.logout(nobody))
	refused(t, "nobody, again", r.logout(nobody), 400, "invalid_request")

	// Many at once: one of them is first.
	race := r.op.LogoutToken("", "no such session")
	count := atOnce(t, 8, func() (*http.Response, error) {
		return claimstest.PostLogout(t.Context(), r.client(), r.server.URL+backchannel, race)
	})
	if count[200] != 1 || count[400] != 7 {
		t.Errorf("at once: %v", count)
	}

	// The same file, another process.
	r.store.Close()
	store, err := sqlstore.OpenSQLite(t.Context(), r.path, sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	dir := groups.NewDirectory(groups.Options{Store: store, Now: r.clock.Now})
	restarted := proxy.New(proxy.Options{Directory: dir, Now: r.clock.Now})
	if err := dir.Configure(t.Context(), r.groups); err != nil {
		t.Fatal(err)
	}
	if err := restarted.Configure(r.settings); err != nil {
		t.Fatal(err)
	}
	serve := func(method, path, body, cookie string) int {
		req := httptest.NewRequest(method, r.server.URL+path, bytes.NewReader([]byte(body)))
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		restarted.ServeHTTP(w, req)
		return w.Code
	}
	post := func(token string) int { return serve("POST", backchannel, "logout_token="+token, "") }
	if got := post(token); got != 400 {
		t.Errorf("after a restart: %d", got)
	}
	if got := serve("GET", "/", "", cookie); got != 200 {
		t.Errorf("after a restart the session gets %d", got)
	}
	if got := post(r.op.LogoutToken("alice", "")); got != 200 {
		t.Errorf("control: %d", got)
	}
	if got := serve("GET", "/", "", cookie); got != 401 {
		t.Errorf("control: the session gets %d", got)
	}
}

// OI-21: what a token does not name lives on: another's session, another
// source's, and one of the same sid at another issuer.
func TestBackchannelLogoutEndsNoMoreThanItNames(t *testing.T) {
	t.Parallel()
	second := claimstest.Start(t, claimstest.Options{ClientID: "portal", People: []claimstest.Person{person("alice", "x")}})
	r := newRig(t, twoSources, func(r *rig) {
		r.settings.Sources = append(r.settings.Sources, proxy.SourceEntry{Label: "Elsewhere", Source: claims.NewOIDC(claims.OIDCOptions{
			Name: "elsewhere", Config: claims.OIDCConfig{Issuer: second.URL, ClientID: "portal"},
		})})
		third := r.groups.Sources[0]
		third.Name = "elsewhere"
		r.groups.Sources = append(r.groups.Sources, third)
	})
	alice, bob := r.signIn("alice"), ""
	b := r.browser()
	if p := r.login(b, "bob", "/_auth/start?source=other&rd=/"); p.Status != 200 {
		t.Fatalf("bob: %d", p.Status)
	}
	bob = r.cookie(b)
	aliceSID, bobSID := r.sid("alice", 0), r.sid("bob", 0)
	for _, c := range []struct{ what, path, token string }{
		{"alice with bob's session", backchannel, r.op.LogoutToken("alice", bobSID)},
		{"bob with alice's session", backchannel, r.op.LogoutToken("bob", aliceSID)},
		{"bob at a source that he is not of", backchannel, r.op.LogoutToken("bob", "")},
		{"bob's session there", backchannel, r.op.LogoutToken("", bobSID)},
		{"alice at the other source", "/_auth/backchannel/other", r.op.LogoutToken("alice", "")},
		{"alice's session there", "/_auth/backchannel/other", r.op.LogoutToken("", aliceSID)},
		{"alice's session by another issuer", "/_auth/backchannel/elsewhere", second.LogoutToken("", aliceSID)},
		{"alice by another issuer", "/_auth/backchannel/elsewhere", second.LogoutToken("alice", "")},
		{"alice's sid in another case", backchannel, r.op.LogoutToken("", strings.ToLower(aliceSID)+"X")},
		{"a pattern", backchannel, r.op.LogoutToken("", "%")},
	} {
		accepted(t, c.what, r.logoutAt(c.path, c.token))
		if a, b := r.status(alice), r.status(bob); a != 200 || b != 200 {
			t.Errorf("%s: alice gets %d, bob %d", c.what, a, b)
		}
	}
	refused(t, "another issuer's token at this source", r.logout(second.LogoutToken("", aliceSID)), 400, "invalid_request")
	if n := len(events(t, r, groups.EventSignOut)); n != 0 {
		t.Errorf("%d sign-outs in the audit trail", n)
	}
	accepted(t, "control", r.logout(r.op.LogoutToken("alice", aliceSID)))
	accepted(t, "control", r.logoutAt("/_auth/backchannel/other", r.op.LogoutToken("bob", bobSID)))
	if a, b := r.status(alice), r.status(bob); a != 401 || b != 401 {
		t.Errorf("control: alice gets %d, bob %d", a, b)
	}
}

// A cookie beside the token counts for nothing: the token says who.
func TestBackchannelLogoutLooksAtNoCookie(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice, bob := r.signIn("alice"), r.signIn("bob")
	body := "logout_token=" + url.QueryEscape(r.op.LogoutToken("alice", ""))
	res := r.do("POST", backchannel, func(req *http.Request) {
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Cookie", bob)
		req.Body = io.NopCloser(strings.NewReader(body))
	})
	accepted(t, "with bob's cookie", res)
	if a, b := r.status(alice), r.status(bob); a != 401 || b != 200 {
		t.Errorf("alice gets %d, bob %d", a, b)
	}
}

// With the store down nobody is signed out and nothing is used up: the same
// token counts afterwards. With the provider's keys out of reach likewise.
func TestBackchannelLogoutWithSomethingDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		r.settings.Sources = []proxy.SourceEntry{{Source: claims.NewOIDC(claims.OIDCOptions{
			Name: "test", Now: r.clock.Now,
			Config: claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientSecret: "secret-of-the-client"},
		})}}
	})
	cookie := r.signIn("alice")
	token := r.op.LogoutToken("alice", "")
	r.faults.down.Store(true)
	res := r.logout(token)
	if body := bodyOf(t, res); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("Cache-Control") != "no-store" || !strings.Contains(body, `"store_unavailable"`) {
		t.Errorf("store down: %d %v %s", res.StatusCode, res.Header, body)
	}
	r.faults.down.Store(false)
	if got := r.status(cookie); got != 200 {
		t.Errorf("the session gets %d", got)
	}
	r.op.RotateKey(false, false)
	r.clock.advance(11 * time.Second) // keys may be asked for again
	r.op.Lie(func(k *claimstest.Knobs) {
		k.JWKSHandler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	})
	refused(t, "keys out of reach", r.logout(r.op.LogoutToken("alice", "")), 503, "source_unavailable")
	if got := r.status(cookie); got != 200 {
		t.Errorf("the session gets %d", got)
	}
	accepted(t, "the same token", r.logout(token))
	if got := r.status(cookie); got != 401 {
		t.Errorf("the session gets %d", got)
	}
}

// A provider that does not wait for the answer has said what it had to say.
func TestBackchannelLogoutOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "POST", r.server.URL+backchannel, strings.NewReader("logout_token="+r.op.LogoutToken("alice", "")))
	req.Header.Set("Content-Type", formType)
	w := httptest.NewRecorder()
	r.proxy.ServeHTTP(w, req)
	if got := r.status(cookie); w.Code != 200 || got != 401 {
		t.Errorf("answered %d, the session gets %d", w.Code, got)
	}
}
