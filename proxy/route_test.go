package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/proxy"
)

// outcome is what a route decided: "app" reached it, else the status.
func (r *rig) outcome(res *http.Response, before int) string {
	r.t.Helper()
	reached := r.up.count() != before
	switch {
	case reached && res.StatusCode == 200:
		return "app"
	case reached:
		r.t.Errorf("status %d, and the upstream was reached", res.StatusCode)
		return "both"
	default:
		return res.Status[:3]
	}
}

// visit sends a raw request line, so that nothing tidies the path first.
func (r *rig) visit(target, cookie string, more ...string) string {
	r.t.Helper()
	before := r.up.count()
	lines := ""
	if cookie != "" {
		lines = "Cookie: " + cookie + "\r\n"
	}
	for _, m := range more {
		lines += m + "\r\n"
	}
	res, err := r.raw("GET " + target + " HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\n" + lines + "\r\n")
	if err != nil {
		r.t.Fatalf("%s: %v", target, err)
	}
	defer res.Body.Close()
	return r.outcome(res, before)
}

func routes(list ...proxy.RouteConfig) option {
	return func(r *rig) { r.settings.Routes = list }
}

// First match by host, longest path wins, segments are whole.
func TestLongestPathWins(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(
		proxy.RouteConfig{Path: "/a", Access: proxy.Public},
		proxy.RouteConfig{Path: "/a/b/", Groups: []string{"admins"}},
		proxy.RouteConfig{Path: "/a/b/c", Access: proxy.Public},
		proxy.RouteConfig{Path: "/teams", Groups: []string{"engineering"}},
		proxy.RouteConfig{Path: "/board/", Groups: []string{"board"}},
		proxy.RouteConfig{Path: "/chiefs", Groups: []string{"board"}},
		proxy.RouteConfig{Path: "/open/", Access: proxy.Public},
	))
	alice, bob := r.signIn("alice"), r.signIn("bob")
	for _, c := range []struct{ path, nobody, bob, alice string }{
		{"/a", "app", "app", "app"},
		{"/a/", "app", "app", "app"},
		{"/a/x", "app", "app", "app"},
		{"/ab", "401", "app", "app"},
		{"/a/b", "401", "403", "app"}, // applications serve both alike
		{"/a/b/", "401", "403", "app"},
		{"/a/bc", "app", "app", "app"},
		{"/a/b/c", "app", "app", "app"},
		{"/a/b/c/d", "app", "app", "app"},
		{"/a/b/cd", "401", "403", "app"},
		{"/teams", "401", "app", "app"},
		{"/teams/", "401", "app", "app"},
		{"/chiefs", "401", "403", "403"},
		{"/chiefs/x", "401", "403", "403"},
		{"/chief", "401", "app", "app"}, // a name that a route's begins with
		{"/teamsx", "401", "app", "app"},
		{"/board", "401", "403", "403"},
		{"/boar", "401", "app", "app"},
		{"/board/x", "401", "403", "403"},
		{"/open", "401", "app", "app"}, // no more is open than is written
		{"/open/", "app", "app", "app"},
		{"/OPEN/", "401", "app", "app"},
		{"/", "401", "app", "app"},
	} {
		for who, want := range map[string]string{"": c.nobody, bob: c.bob, alice: c.alice} {
			if got := r.visit(c.path, who); got != want {
				t.Errorf("%s as %.25q: %s, want %s", c.path, who, got, want)
			}
		}
	}
}

// carol is in no group: a route that asks for one is closed to her, whatever
// else she may see (RT-10).
func TestPersonWithoutGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	carol := r.signIn("carol")
	if got := r.visit("/", carol); got != "app" {
		t.Errorf("/: %s", got)
	}
	if got := r.visit("/admin/", carol); got != "403" {
		t.Errorf("/admin/: %s", got)
	}
}

// RT-01 to RT-06: a path that can be read in two ways passes only where both
// readings do, and what no honest client sends is refused.
func TestAmbiguousPaths(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(
		proxy.RouteConfig{Path: "/public/", Access: proxy.Public},
		proxy.RouteConfig{Path: "/public/admin/", Groups: []string{"board"}},
		proxy.RouteConfig{Path: "/admin/", Groups: []string{"admins"}},
	))
	alice, bob := r.signIn("alice"), r.signIn("bob")
	for _, c := range []struct{ path, nobody, bob, alice string }{
		{"/public/x", "app", "app", "app"}, // the control
		{"/public/a%20b%25c", "app", "app", "app"},
		{"/public/.well-known/x", "app", "app", "app"},
		{"/public/...", "app", "app", "app"},
		{"/public/a..b", "app", "app", "app"},
		{"/admin?x=/public/", "401", "403", "app"}, // RT-01
		{"/admin/?/../public/", "401", "403", "app"},
		{"/public/?/admin/", "app", "app", "app"},
		{"/admin/%23/public/", "401", "403", "app"}, // RT-02
		{"/public/secret%23/endpoint", "app", "app", "app"},
		{"/public/secret#/endpoint", "400", "400", "400"},
		{"/admin#/public/", "400", "400", "400"},
		{"/public/../admin/", "400", "400", "400"}, // RT-04
		{"/public/%2e%2e/admin/", "400", "400", "400"},
		{"/public/%2E./admin/", "400", "400", "400"},
		{"/public/..%2fadmin/", "400", "400", "400"},
		{"/public/%252e%252e/admin/", "400", "400", "400"},
		{"/public/%25252e%25252e%25252fadmin/", "400", "400", "400"},
		{"/public/%25zz/%252e%252e/admin/", "400", "400", "400"}, // a broken escape hides nothing
		{"/public/%252525252e%252525252e/admin/", "400", "400", "400"},
		{"/public/..;/admin/", "400", "400", "400"},
		{"/public/..;x=1/admin/", "400", "400", "400"},
		{"/public/..%3b/admin/", "400", "400", "400"},
		{"/public/%2e%2e%3bx/admin/", "400", "400", "400"},
		{"/public/.", "400", "400", "400"},
		{"/public/..", "400", "400", "400"},
		{"/public/./x", "400", "400", "400"},
		{`/public\..\admin\`, "400", "400", "400"},
		{"/public%5c..%5cadmin/", "400", "400", "400"},
		{"/public/%5c", "400", "400", "400"},
		{"/public/%255c", "400", "400", "400"},
		{"/public/%00", "400", "400", "400"},
		{"/admin%00", "400", "400", "400"},
		{"/public/%0d%0aX:%20y", "400", "400", "400"},
		{"/public/%7f", "400", "400", "400"},
		{"/public/%2500", "400", "400", "400"},
		{"//admin/", "401", "403", "app"},
		{"/./admin/", "400", "400", "400"},
		{"//public/x", "401", "app", "app"}, // one reading is public, one is not
		{"/public//admin/", "401", "403", "403"},
		{"/public/%2fadmin/", "401", "403", "403"},
		{"/public%2fx", "401", "app", "app"},
		{"/public/%2Fx", "app", "app", "app"},
		{"/%70ublic/x", "app", "app", "app"},
		{"/%61dmin/", "401", "403", "app"},
		{"/%2561dmin/", "401", "403", "app"},
		{"/admin;x=1/", "401", "403", "app"},
		{"/;/admin/", "401", "403", "app"},
		{"/x%2f..%2fadmin/", "400", "400", "400"},
		{"/public;x/y", "401", "app", "app"},
		{"/public/x;admin/", "app", "app", "app"},
		{"/public/admin;/x", "401", "403", "403"},
		{"/public/admin%3b/x", "401", "403", "403"},
		{"/PUBLIC/x", "401", "app", "app"},
		{"/Admin/", "401", "app", "app"}, // names are compared byte for byte
		{"*", "400", "400", "400"},
	} {
		for who, want := range map[string]string{"": c.nobody, bob: c.bob, alice: c.alice} {
			if got := r.visit(c.path, who); got != want {
				t.Errorf("%s as %.25q: %s, want %s", c.path, who, got, want)
			}
		}
	}
}

// What passes arrives byte for byte (PX-17): a route decides about a path, it
// does not change it.
func TestAddressArrivesUnchanged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	for _, target := range []string{
		"/a%20b", "/a%2fb", "/%7euser", "/a//b", "/a;v=1/b", "/caf%C3%A9", "/caf%e9", "/a%25b", "/a%2525b", "/(a)!$&'*+,=:@b",
		"/x?a=1;b=2&groups=x%zz", "/x?", "/x?a=%&b=%f", "/x?a+b=c+d&&&=&", "/x?a=1&a=2&a=1", "/x?q=%00%0a", "/x?url=http://evil.example//", "/x?" + strings.Repeat("a=b&", 12_000),
	} {
		if got := r.visit(target, cookie); got != "app" {
			t.Errorf("%.60s: %s", target, got)
			continue
		}
		if got := r.up.last(t).URI; got != target {
			t.Errorf("%.60s arrived as %.60s", target, got)
		}
	}
}

// RT-05: our own pages are behind one exact prefix, and what looks like it is
// either the application's or nobody's.
func TestOwnPrefixTricks(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	for target, want := range map[string]string{
		"/_auth/jwks.json": "200", "/_auth": "404", "/_auth/": "404", "/_auth/x": "404", "/_auth/callback": "404", "/_auth/callback/": "404",
		"/_auth/callback/a/b": "404", "/_auth/auth/x": "404", "/_auth/jwks.json/": "404", "/_auth/Sign_in": "404",
		"/%5fauth/x": "404", "/_auth%2fx": "404", "//_auth/x": "404", "/_auth//auth": "404", "/_auth;x/auth": "404", "/%255fauth/x": "404",
		"/_auth/../x": "400", "/x/../_auth/auth": "400", "/_auth%5cx": "400",
		"/_AUTH/x": "app", "/_authfoo": "app", "/_auth.json": "app", "/_aut": "app", "/x/_auth/auth": "app",
	} {
		if got := r.visit(target, ""); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// PX-07: methods that would turn the connection into something else.
func TestConnectAndTraceAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	host := "127.0.0.1:" + r.port()
	for _, line := range []string{"CONNECT " + host, "CONNECT /x", "TRACE /", "TRACE /_auth/auth"} {
		res, err := r.raw(line + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") == "" {
			t.Errorf("%s: %d, Allow %q", line, res.StatusCode, res.Header.Get("Allow"))
		}
	}
	if n := r.up.count(); n != 0 {
		t.Errorf("the upstream got %d requests", n)
	}
	res, err := r.raw("PROPFIND / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("an honest method of other people: %v, %v", res, err)
	}
}
