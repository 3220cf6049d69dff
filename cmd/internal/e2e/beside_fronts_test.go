package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

func fronts() []frontEnd {
	return []frontEnd{
		{"nginx", []string{"portal.conf", "groupgate-headers.conf"}, servers.Nginx, true, false},
		{"caddy", []string{"Caddyfile"}, servers.Caddy, true, true},
		{"haproxy", []string{"haproxy.cfg"}, servers.HAProxy, false, false},
	}
}

// navigation is what a browser says when a person opens a page.
var navigation = []string{"Accept: text/html,*/*;q=0.8", "Sec-Fetch-Mode: navigate"}

// The proxies that people have already, by the files we ship for them.
//
// PX-01, PX-02, PX-03, PX-10, each through every front.
func TestBesideOtherProxies(t *testing.T) {
	t.Parallel()
	for _, f := range fronts() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBeside(t, f.name)
			b.put(t, f)
			browser := b.browser(t)
			alice, bob := b.signIn(t, browser, "alice"), b.signIn(t, b.browser(t), "bob")
			t.Run("decisions", func(t *testing.T) { b.decides(t, f, alice, bob) })
			t.Run("pages", func(t *testing.T) { b.leads(t, bob) })
			t.Run("spoofs", func(t *testing.T) { b.spoofed(t, f, alice) })
			t.Run("many groups", func(t *testing.T) { b.carriesMany(t) })
			t.Run("WebSocket", func(t *testing.T) { b.socket(t, alice) })
			t.Run("sign-out", func(t *testing.T) { b.signsOut(t, browser, alice) })
			t.Run("groupgate down", func(t *testing.T) { b.goesDown(t, bob) })
		})
	}
}

// Where sessions are in the browser's cookies alone, those that groupgate renews
// when it is asked reach the browser, and are good for the next request.
func TestBesideOtherProxiesCookiesAreRenewed(t *testing.T) {
	t.Parallel()
	for _, f := range fronts() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBeside(t, f.name, "store: {sqlite: /var/lib/groupgate/groupgate.db}",
				"store: {none: {}} # /var/lib/groupgate/\nsession: {idle: 12s, keys: [a-session-key-for-tests-only-0123456789]}")
			b.put(t, f)
			cookie := b.signIn(t, b.browser(t), "alice")
			renewed := ""
			b.eventually("renewed", func() bool {
				resp, body := b.ask(t, "GET", "/x", "Cookie: "+cookie)
				if resp.StatusCode != 200 || !strings.Contains(body, `"X-Forwarded-User":["alice"]`) {
					t.Fatalf("%d %s", resp.StatusCode, body)
				}
				renewed, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
				return renewed != ""
			})
			if !strings.HasPrefix(renewed, "__Host-groupgate=1.") || renewed == cookie {
				t.Errorf("renewed: %.40s", renewed)
			}
			if resp, body := b.ask(t, "GET", "/admin/", "Cookie: "+renewed); resp.StatusCode != 200 || !strings.Contains(body, `"X-Forwarded-User":["alice"]`) {
				t.Errorf("with the renewed cookie: %d %s", resp.StatusCode, body)
			}
		})
	}
}

// decides asks for everything that ends in a status, and looks at whether it
// reached the application, as whom, and with its own address.
func (b *beside) decides(t *testing.T, f frontEnd, alice, bob string) {
	as := func(cookie string, lines ...string) []string { return append([]string{"Cookie: " + cookie}, lines...) }
	cases := []struct {
		what, method, path string
		lines              []string
		want               int
		user               string
	}{
		{"nobody", "GET", "/x", nil, 401, ""},
		{"nobody posts", "POST", "/x", navigation, 401, ""},
		{"nobody fetches", "GET", "/x", []string{"Accept: text/html", "Sec-Fetch-Mode: cors"}, 401, ""},
		{"nobody at a public page", "GET", "/public/x", nil, 200, ""},
		{"nobody who says it is a public page", "GET", "/x", []string{"X-Forwarded-Uri: /public/x", "X-Original-Uri: /public/x", "X-Original-Url: /public/x"}, 401, ""},
		{"nobody who says it is a public page, at groupgate's door", "GET", "/_auth/auth/redirect", []string{"X-Forwarded-Uri: /public/x"}, 401, ""},
		{"an unknown cookie", "GET", "/x", as("__Host-groupgate=junk"), 401, ""},
		{"alice", "GET", "/x?y=1&z=%20", as(alice), 200, "alice"},
		{"alice posts", "POST", "/x", as(alice), 200, "alice"},
		{"alice, with a query that is the application's", "GET", "/x?groups=board", as(alice), 200, "alice"},
		{"alice, admins", "GET", "/admin/", as(alice), 200, "alice"},
		{"alice, asks on a condition", "GET", "/x", as(alice, "If-None-Match: \"x\"", "Range: bytes=0-1"), 200, "alice"},
		{"bob", "GET", "/x", as(bob), 200, "bob"},
		{"bob, admins", "GET", "/admin/x", as(bob), 403, ""},
		{"bob, admins without the slash", "GET", "/admin", as(bob), 403, ""},
		{"bob, who says it is another page", "GET", "/admin/x", as(bob, "X-Forwarded-Uri: /x", "X-Forwarded-Method: GET"), 403, ""},
		{"bob, who says it is another host", "GET", "/admin/x", as(bob, "X-Forwarded-Host: evil.example"), 403, ""},
		{"bob, doubled slash", "GET", "//admin/x", as(bob), 403, ""},
		{"bob, encoded", "GET", "/%61dmin/x", as(bob), 403, ""},
		{"two sessions", "GET", "/x", as(alice + "; " + bob), 401, ""},
	}
	for _, c := range cases {
		before := b.app.count()
		resp, body := b.ask(t, c.method, c.path, c.lines...)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.what, resp.StatusCode, c.want)
		}
		if arrived := b.app.count() - before; arrived != map[bool]int{true: 1}[c.want == 200] {
			t.Errorf("%s: %d requests reached the application", c.what, arrived)
			continue
		}
		if c.want == 401 && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: answered %s %s", c.what, resp.Header.Get("Content-Type"), body)
		}
		if c.want != 200 {
			continue
		}
		got := b.app.last(t)
		if got.uri != c.path || got.method != c.method || c.method == "POST" && got.body != "body" {
			t.Errorf("%s: it arrived as %s %s %q", c.what, got.method, got.uri, got.body)
		}
		if user := got.header.Get("X-Forwarded-User"); user != c.user {
			t.Errorf("%s: it arrived as %q's", c.what, user)
		}
		if strings.Contains(got.header.Get("Cookie"), "__Host-groupgate") {
			t.Errorf("%s: the application has the session: %s", c.what, got.header["Cookie"])
		}
	}
	// Ways in disguise may be refused in any way, but never lead there.
	for _, path := range []string{"/x/../admin/x", "/x/%2e%2e/admin/x", "/x%2f..%2fadmin/x", "/public/../admin/x", "/public/..%2fadmin/x", "/_auth/../admin/x",
		"/_auth/..%2fadmin/x", "/_auth/%2e%2e/admin/x", `/x\..\admin\x`, "/public/..;/admin/x"} {
		before := b.app.count()
		if resp, body := b.ask(t, "GET", path, "Cookie: "+bob); resp.StatusCode == 200 || b.app.count() != before {
			if got := b.app.last(t); got.uri != path || !strings.HasPrefix(path, "/public/..;") {
				t.Errorf("bob at %s: %d as %s %s", path, resp.StatusCode, got.uri, body)
			}
		}
	}
	if f.asks {
		for who, want := range map[string]int{alice: 200, bob: 403} {
			if resp, _ := b.ask(t, "GET", "/reports/x?groups=sales", "Cookie: "+who); resp.StatusCode != want {
				t.Errorf("a part of the application that asks for groups: %d, want %d", resp.StatusCode, want)
			}
		}
	}
	// Cookies of others arrive as they are, ours wherever it stands does not.
	for _, around := range [][2]string{{"a=1; ", ""}, {"", "; b=2"}, {"a=1; ", "; b=2"}} {
		b.ask(t, "GET", "/x", "Cookie: "+around[0]+alice+around[1])
		got := strings.Trim(b.app.last(t).header.Get("Cookie"), "; ")
		if want := strings.ReplaceAll(strings.Trim(around[0]+around[1], "; "), "; ; ", "; "); got != want {
			t.Errorf("the application has the cookies %q, want %q", got, want)
		}
	}
}

// leads opens pages as a person does.
func (b *beside) leads(t *testing.T, bob string) {
	before := b.app.count()
	resp, _ := b.ask(t, "GET", "/x?y=1&z=2", append([]string{"X-Forwarded-Host: evil.example", "X-Forwarded-Uri: /evil", "X-Forwarded-Proto: http"}, navigation...)...)
	if at := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || at != origin+"/_auth/start?rd=%2Fx%3Fy%3D1%26z%3D2" {
		t.Errorf("a page without a session: %d to %s", resp.StatusCode, at)
	}
	resp, body := b.ask(t, "GET", "/admin/", append([]string{"Cookie: " + bob}, navigation...)...)
	if resp.StatusCode != 403 || !strings.Contains(body, "admins") || !strings.Contains(body, "bob") || !strings.Contains(body, "/_auth/sign_out") {
		t.Errorf("a page that bob may not see: %d %s", resp.StatusCode, body)
	}
	if b.app.count() != before {
		t.Error("a page reached the application")
	}
	// The way back after the login keeps the whole address.
	page, err := b.browser(t).Login(origin+"/deep/page?y=1&z=2", "bob")
	if err != nil || page.URL.String() != origin+"/deep/page?y=1&z=2" || page.Status != 200 {
		t.Errorf("after the login: %v %v", page, err)
	}
}

// spoofed is the table of proxy.TestClientsCannotSpeakInOurName, through
// another proxy.
func (b *beside) spoofed(t *testing.T, f frontEnd, alice string) {
	want := map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.com", "X-Forwarded-Preferred-Username": "alice Example",
		"X-Forwarded-Groups": "admins,engineering",
	}
	handshake := []string{"Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for _, door := range []struct {
		method, path, cookie string
		status               int
		lines                []string
	}{
		{"GET", "/x", alice, 200, nil}, {"POST", "/x", alice, 200, nil}, {"GET", "/public/x", "", 200, nil}, {"POST", "/public/x", "", 200, nil},
		{"GET", "/socket", alice, 101, handshake},
	} {
		for _, s := range claimstest.Spoofs("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups",
			"X-Forwarded-Groups-Omitted", "X-Groupgate-Assertion") {
			what := door.method + " " + door.path + " " + s.Name
			before := b.app.count()
			resp, err := b.raw(spoofedRequest(s, door.method, door.path, door.cookie, door.lines))
			if err != nil || resp.StatusCode != door.status || b.app.count() != before+1 {
				t.Errorf("%s: %v %v, %d arrived", what, resp, err, b.app.count()-before)
				continue
			}
			got := b.app.last(t)
			noSpoof(t, what, got, f.announces)
			for name, value := range want {
				switch lines := got.header.Values(name); {
				case door.cookie != "" && (len(lines) != 1 || lines[0] != value):
					t.Errorf("%s: %s is %q", what, name, lines)
				case door.cookie == "" && strings.Join(lines, "") != "":
					t.Errorf("%s: %s is %q without a session", what, name, lines)
				}
			}
			if a := got.header.Get("X-Groupgate-Assertion"); (door.cookie != "") != strings.HasPrefix(a, "eyJ") {
				t.Errorf("%s: assertion %q", what, a)
			}
			if got.header.Get("X-Favourite-Colour") != "green" {
				t.Errorf("%s: a header that is nobody's was lost", what)
			}
		}
	}
}

// spoofedRequest is the bytes of a request with a spoof in it.
func spoofedRequest(s claimstest.Spoof, method, path, cookie string, more []string) string {
	lines := []string{method + " " + path + " HTTP/1.1", "Host: " + portal, "X-Favourite-Colour: green"}
	if cookie != "" {
		lines = append(lines, "Cookie: "+cookie)
	}
	if more != nil {
		lines = append(lines, "Connection: Upgrade")
	}
	lines = append(append(lines, more...), s.Lines...)
	if method != "POST" {
		return strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	var names []string
	for _, l := range s.Trailers {
		name, _, _ := strings.Cut(l, ":")
		names = append(names, name)
	}
	lines = append(lines, "Transfer-Encoding: chunked", "Trailer: "+strings.Join(append(names, "X-Checksum"), ", "))
	return strings.Join(lines, "\r\n") + "\r\n\r\n4\r\nbody\r\n0\r\n" + strings.Join(append(s.Trailers, "X-Checksum: 42"), "\r\n") + "\r\n\r\n"
}

// noSpoof looks for the client's value anywhere, and for our names in any
// spelling but one.
func noSpoof(t *testing.T, what string, got reached, announced bool) {
	t.Helper()
	for _, part := range []http.Header{got.header, got.trailer} {
		for name, values := range part {
			if values == nil {
				continue // announced, see below
			}
			if strings.Contains(strings.Join(values, " "), claimstest.Evil) {
				t.Errorf("%s: %s: %q came through", what, name, values)
			}
			plain := strings.NewReplacer("_", "-", ".", "-", "~", "-", "!", "-").Replace(name)
			ours := strings.EqualFold(plain, "x-groupgate-assertion") || strings.HasPrefix(strings.ToLower(plain), "x-forwarded-")
			if ours && (name != http.CanonicalHeaderKey(plain) || len(values) > 1) {
				t.Errorf("%s: %s: %q beside ours", what, name, values)
			}
		}
	}
	for name, values := range got.trailer {
		if name != "X-Checksum" && (!announced || values != nil) {
			t.Errorf("%s: the trailer %s was announced", what, name)
		}
	}
}

// carriesMany has somebody in so many groups that the answer has 20 KiB.
func (b *beside) carriesMany(t *testing.T) {
	carol := b.signIn(t, b.browser(t), "carol")
	b.ask(t, "GET", "/admin/", "Cookie: "+carol)
	got := b.app.last(t)
	if all := got.header.Get("X-Forwarded-Groups"); strings.Count(all, ",") != 250 || got.header.Get("X-Forwarded-User") != "carol" {
		t.Errorf("groups %.100q for %q", all, got.header.Get("X-Forwarded-User"))
	}
	if a := got.header.Get("X-Groupgate-Assertion"); len(a) < 8<<10 {
		t.Errorf("an assertion of %d bytes", len(a))
	}
}

func (b *beside) socket(t *testing.T, alice string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := b.browser(t).Client
	dial := func(cookie string) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(ctx, "wss://"+portal+"/socket", &websocket.DialOptions{HTTPClient: client,
			HTTPHeader: http.Header{"Cookie": {cookie}, "X-Forwarded-User": {"root"}, "Origin": {origin}}})
	}
	c, _, err := dial(alice)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if user := b.app.last(t).header["X-Forwarded-User"]; len(user) != 1 || user[0] != "alice" {
		t.Errorf("the socket is %q's", user)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := c.Read(ctx); err != nil || string(message) != "hello" {
		t.Errorf("said back: %q %v", message, err)
	}
	before := b.app.count()
	if c, resp, err := dial(""); err == nil || resp == nil || resp.StatusCode != 401 {
		t.Errorf("a socket for nobody: %v %v %v", c, resp, err)
	}
	// Any other protocol would be a tunnel past everybody.
	if resp, err := b.raw("GET /x HTTP/1.1\r\nHost: " + portal + "\r\nCookie: " + alice + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"); err != nil || resp.StatusCode == 101 {
		t.Errorf("another upgrade: %v %v", resp, err)
	}
	b.app.mu.Lock()
	defer b.app.mu.Unlock()
	for _, got := range b.app.got[before:] {
		if got.header.Get("Upgrade") != "" {
			t.Errorf("the application was asked to speak %q", got.header["Upgrade"])
		}
	}
}

func (b *beside) signsOut(t *testing.T, browser *claimstest.Browser, alice string) {
	if resp, _ := b.ask(t, "GET", "/x", "Cookie: "+alice); resp.StatusCode != 200 {
		t.Fatalf("before: %d", resp.StatusCode)
	}
	page := get(t, browser, origin+"/_auth/sign_out")
	if page.Status != 200 || page.URL.Hostname() != portal {
		t.Errorf("signed out: %d at %s", page.Status, page.URL)
	}
	if resp, _ := b.ask(t, "GET", "/x", "Cookie: "+alice); resp.StatusCode != 401 {
		t.Errorf("after: %d", resp.StatusCode)
	}
}

// goesDown is last: without groupgate nothing is forwarded.
func (b *beside) goesDown(t *testing.T, bob string) {
	if resp, _ := b.ask(t, "GET", "/x", "Cookie: "+bob); resp.StatusCode != 200 {
		t.Fatalf("before: %d", resp.StatusCode)
	}
	b.kill()
	before := b.app.count()
	for _, path := range []string{"/x", "/public/x", "/admin/", "/_auth/sign_in"} {
		if resp, body := b.ask(t, "GET", path, append([]string{"Cookie: " + bob}, navigation...)...); resp.StatusCode < 500 || strings.Contains(body, "X-Forwarded") {
			t.Errorf("%s without groupgate: %d %s", path, resp.StatusCode, body)
		}
	}
	if n := b.app.count() - before; n != 0 {
		t.Errorf("%d requests reached the application", n)
	}
}
