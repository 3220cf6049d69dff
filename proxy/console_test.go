package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// withConsole has a console that says who it was asked by, for what.
func withConsole(names ...string) option {
	return func(r *rig) {
		r.settings.ConsoleGroups = names
		r.settings.Console = func(w http.ResponseWriter, r *http.Request, by string) {
			body, err := io.ReadAll(r.Body)
			w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.URL.EscapedPath(), " ", len(body), " ", err))
			w.WriteHeader(http.StatusOK)
			fmt.Fprintf(w, "console of %s", by)
		}
	}
}

// Who may come in: members of one of the groups, on the public host.
func TestConsoleIsForItsGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals, withConsole("nobody", "admins"))
	alice, bob := r.signIn("alice"), r.signIn("bob")
	before := r.up.count()
	for _, tt := range []struct {
		what, method, path string
		edit               func(*http.Request)
		status             int
		body               string
	}{
		{"a member", "GET", "/_auth/admin/groups", signedIn(alice), 200, "console of alice"},
		{"at its door", "GET", "/_auth/admin", signedIn(alice), 200, "console of alice"},
		{"any method", "DELETE", "/_auth/admin/api/v1/groups/x", signedIn(alice), 200, "console of alice"},
		{"a page", "GET", "/_auth/admin/groups", edits(signedIn(alice), page), 200, "console of alice"},
		{"another, a script", "GET", "/_auth/admin/groups", signedIn(bob), 403, `"groups":["nobody","admins"]`},
		{"another, a page", "GET", "/_auth/admin/groups", edits(signedIn(bob), page), 403, "admins"},
		{"nobody, a script", "GET", "/_auth/admin/groups", nil, 401, `"error":"unauthenticated"`},
		{"nobody, a page", "GET", "/_auth/admin/groups", page, 302, ""},
		{"nobody, a form", "POST", "/_auth/admin/login", nil, 401, `"error":"unauthenticated"`},
		{"a session that is none", "GET", "/_auth/admin/groups", signedIn("__Host-groupgate=made-up"), 401, ""},
		{"on a portal", "GET", "/_auth/admin/groups", edits(signedIn(alice), r.onHost("board.localhost")), 404, ""},
		{"on another host", "GET", "/_auth/admin/groups", edits(signedIn(alice), func(req *http.Request) { req.Host = "evil.example" }), 421, ""},
		{"another word", "GET", "/_auth/administration", signedIn(alice), 404, ""},
		{"by another name", "GET", "/_auth/%61dmin/x", signedIn(alice), 200, ""}, // the console looks at the address itself
		{"in disguise", "GET", "//_auth/admin/groups", signedIn(alice), 404, ""},
	} {
		res := r.do(tt.method, tt.path, tt.edit)
		if body := bodyOf(t, res); res.StatusCode != tt.status || !strings.Contains(body, tt.body) {
			t.Errorf("%s: %d, want %d: %.300s", tt.what, res.StatusCode, tt.status, body)
		}
		if tt.status == 302 && !strings.Contains(res.Header.Get("Location"), "/_auth/start?rd=%2F_auth%2Fadmin%2Fgroups") {
			t.Errorf("%s leads to %s", tt.what, res.Header.Get("Location"))
		}
	}
	if n := r.up.count() - before; n != 0 {
		t.Errorf("%d requests reached the application", n)
	}
	// Nothing of forward-auth leads there.
	r.settings.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	r.configure()
	res := r.do("GET", "/_auth/auth", edits(signedIn(alice), func(req *http.Request) { req.Header.Set("X-Forwarded-Uri", "/_auth/admin/groups") }))
	if res.Header.Get("X-Seen") != "" || strings.Contains(bodyOf(t, res), "console") {
		t.Error("forward-auth serves the console")
	}
}

// Names of groups reach the console as they were sent, though other paths may
// not hold what they do, and nothing of it is forwarded.
func TestConsoleReadsItsPathItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConsole("admins"))
	alice, bob := r.signIn("alice"), r.signIn("bob")
	before := r.up.count()
	for _, name := range []string{"a%2Fb", "EXAMPLE%5CDomain%20Users", "%2E%2E", "a;b", "a%252Fb", "%0A", "a%2F..%2F..%2Fadmin", "../../private"} {
		path := "/_auth/admin/groups/" + name
		res := r.do("GET", path, signedIn(alice))
		if got := res.Header.Get("X-Seen"); res.StatusCode != 200 || got != "GET "+path+" 0 <nil>" {
			t.Errorf("%s: %d, the console saw %q", path, res.StatusCode, got)
		}
		if res := r.do("GET", path, signedIn(bob)); res.StatusCode != 403 {
			t.Errorf("%s by another: %d", path, res.StatusCode)
		}
	}
	for _, path := range []string{"/_auth/other/a%5Cb", "/_auth/%61dmin/a%5Cb", "/a%5Cb"} {
		if res := r.do("GET", path, signedIn(alice)); res.StatusCode != 400 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	if r.up.count() != before {
		t.Error("the application was reached")
	}
}

func TestConsoleIsNotThereWithoutGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConsole())
	cookie := r.signIn("alice")
	for _, path := range []string{"/_auth/admin", "/_auth/admin/", "/_auth/admin/groups"} {
		for what, edit := range map[string]func(*http.Request){"a member": signedIn(cookie), "nobody": nil, "a page of nobody": page} {
			if res := r.do("GET", path, edit); res.StatusCode != 404 {
				t.Errorf("%s, %s: %d", path, what, res.StatusCode)
			}
		}
	}
	r.settings.ConsoleGroups = []string{"admins"} // a reload opens it
	r.configure()
	if res := r.do("GET", "/_auth/admin/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("with groups: %d", res.StatusCode)
	}
}

// The console ends with the person's groups: the very next request is refused.
func TestConsoleEndsWithTheGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConsole("board"))
	cookie := r.signIn("bob")
	ctx := t.Context()
	if err := r.dir.CreateGroups(ctx, []groups.Group{{Name: "board", Control: groups.Manual}}, "test"); err != nil {
		t.Fatal(err)
	}
	bob, err := r.store.UserByName(ctx, "bob")
	if err != nil {
		t.Fatal(err)
	}
	at := func(want int) {
		t.Helper()
		if res := r.do("GET", "/_auth/admin/groups", signedIn(cookie)); res.StatusCode != want {
			t.Errorf("%d, want %d", res.StatusCode, want)
		}
	}
	at(403)
	for range 3 {
		if err := r.dir.AddMember(ctx, "board", bob.ID, "test"); err != nil {
			t.Fatal(err)
		}
		at(200)
		if err := r.dir.RemoveMember(ctx, "board", bob.ID, "test"); err != nil {
			t.Fatal(err)
		}
		at(403)
	}
	if err := r.dir.AddMember(ctx, "board", bob.ID, "test"); err != nil {
		t.Fatal(err)
	}
	at(200)
	if _, err := r.dir.EndLogins(ctx, groups.LoginFilter{User: bob.ID}, "test", "", ""); err != nil {
		t.Fatal(err)
	}
	at(401)
}

// A store that does not answer lets nobody in.
func TestConsoleIsShutWithoutTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConsole("admins"))
	cookie := r.signIn("alice")
	r.configure() // sessions are read anew
	r.faults.down.Store(true)
	if res := r.do("GET", "/_auth/admin/groups", signedIn(cookie)); res.StatusCode != 503 {
		t.Errorf("%d", res.StatusCode)
	}
}

// Files of people are large: the whole body arrives, and a login leads back to
// the console.
func TestConsoleTakesALargeBodyAndComesBackFromALogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConsole("admins"))
	b := r.browser()
	p, err := b.Login(r.server.URL+"/_auth/admin/groups/a%2Fb?x=1", "alice")
	if err != nil || p.Status != 200 || p.Body != "console of alice" || p.URL.RequestURI() != "/_auth/admin/groups/a%2Fb?x=1" {
		t.Fatalf("ended at %+v: %v", p, err)
	}
	const size = 24 << 20
	res := r.do("POST", "/_auth/admin/api/v1/groups/x/members:import", edits(signedIn(r.cookie(b)), func(req *http.Request) {
		req.Body, req.ContentLength = io.NopCloser(io.LimitReader(zeros{}, size)), size
	}))
	if got := res.Header.Get("X-Seen"); !strings.HasSuffix(got, fmt.Sprint(" ", size, " <nil>")) {
		t.Errorf("%d: the console saw %q", res.StatusCode, got)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// timed notes the limits that are set on a connection.
type timed struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (t *timed) SetReadDeadline(at time.Time) error  { t.read = at; return nil }
func (t *timed) SetWriteDeadline(at time.Time) error { t.write = at; return nil }

// Members have the time that a large file takes on a slow line; others have no
// more than anywhere else.
func TestConsoleGivesItsMembersTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConsole("admins"))
	for name, want := range map[string]time.Duration{"alice": 5 * time.Minute, "bob": 15 * time.Second} {
		req := httptest.NewRequest("POST", "/_auth/admin/api/v1/groups/x/members:import", strings.NewReader("user\n"))
		req.Host = r.server.Listener.Addr().String()
		req.Header.Set("Cookie", r.signIn(name))
		w := &timed{ResponseRecorder: httptest.NewRecorder()}
		r.proxy.ServeHTTP(w, req)
		for what, at := range map[string]time.Time{"read": w.read, "write": w.write} {
			if left := time.Until(at); left > want || left < want-10*time.Second {
				t.Errorf("%s: %d, limit of the %s in %s, want %s", name, w.Code, what, left, want)
			}
		}
	}
}
