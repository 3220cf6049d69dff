package proxy_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/proxy"
)

// knock sends a request whose lines are written out, and answers the status.
func (r *rig) knock(request string) *http.Response {
	r.t.Helper()
	res, err := r.raw(request)
	if err != nil {
		r.t.Fatalf("%q: %v", request, err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

// PX-08 and PX-09: a host that is not ours is answered, not served, and
// nothing we write is made from what a request calls us.
func TestUnknownHosts(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	ours := "127.0.0.1:" + r.port()
	for _, c := range []struct {
		what, request string
		status        int
	}{
		{"ours", "GET / HTTP/1.1\r\nHost: " + ours + "\r\n\r\n", 200},
		{"ours in absolute form", "GET http://" + ours + "/ HTTP/1.1\r\nHost: " + ours + "\r\n\r\n", 200},
		{"unknown", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421},
		{"unknown in absolute form", "GET http://evil.example/ HTTP/1.1\r\nHost: " + ours + "\r\n\r\n", 421},
		{"unknown, with a login", "GET /_auth/start HTTP/1.1\r\nHost: evil.example\r\nAccept: text/html\r\n\r\n", 421},
		{"unknown, with a callback", "GET /_auth/callback/test?state=x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421},
		{"suffix", "GET / HTTP/1.1\r\nHost: " + ours + ".evil.example\r\n\r\n", 421},
		{"user in the host", "GET / HTTP/1.1\r\nHost: " + ours + "@evil.example\r\n\r\n", 400},
		{"none", "GET / HTTP/1.1\r\n\r\n", 400},
		{"empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 421},
		{"two", "GET / HTTP/1.1\r\nHost: " + ours + "\r\nHost: evil.example\r\n\r\n", 400},
		{"HTTP/1.0 without", "GET / HTTP/1.0\r\n\r\n", 421},
		{"another port of loopback", "GET / HTTP/1.1\r\nHost: localhost:1\r\n\r\n", 200}, // a front proxy in the same pod
	} {
		if res := r.knock(c.request); res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.what, res.StatusCode, c.status)
		}
	}
}

// PX-09: addresses of ours come from public_url, whatever the request says.
func TestAddressesComeFromThePublicURL(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, more := range []string{"", "X-Forwarded-Host: evil.example\r\n", "X-Forwarded-Proto: http\r\n", "Forwarded: host=evil.example\r\n"} {
		for _, host := range []string{"127.0.0.1:" + r.port(), "localhost:" + r.port(), "localhost"} {
			res := r.knock("GET /x HTTP/1.1\r\nHost: " + host + "\r\nAccept: text/html\r\n" + more + "\r\n")
			if at := res.Header.Get("Location"); res.StatusCode != 302 || !strings.HasPrefix(at, r.server.URL+"/_auth/start?rd=%2Fx") {
				t.Errorf("%s %q: %d to %q", host, more, res.StatusCode, at)
			}
			res = r.knock("GET /_auth/start HTTP/1.1\r\nHost: " + host + "\r\nAccept: text/html\r\n" + more + "\r\n")
			if at := res.Header.Get("Location"); !strings.Contains(at, "redirect_uri=https%3A%2F%2F127.0.0.1%3A"+r.port()+"%2F_auth%2Fcallback%2Ftest") {
				t.Errorf("%s %q: the provider is told %q", host, more, at)
			}
		}
	}
}

// PX-10: how a request came here is said by a trusted peer or by us.
func TestForwardingHeadersByTrust(t *testing.T) {
	t.Parallel()
	sent := map[string]string{
		"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "eng.localhost", "X-Forwarded-Proto": "http",
		"X-Forwarded-Prefix": "/app", "X-Real-Ip": "203.0.113.7", "X-Original-Url": "/x",
	}
	say := func(port string) func(*http.Request) {
		return func(req *http.Request) {
			for name, v := range sent {
				if name == "X-Forwarded-Host" {
					v += ":" + port
				}
				req.Header.Set(name, v)
			}
		}
	}
	public := proxy.RouteConfig{Path: "/", Access: proxy.Public}
	eng := proxy.RouteConfig{Host: "eng.localhost", Path: "/", Access: proxy.Public}
	t.Run("untrusted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, routes(public, eng), func(r *rig) {
			r.settings.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		})
		if res := r.do("GET", "/", say(r.port())); res.StatusCode != 200 {
			t.Fatal(res.StatusCode)
		}
		h := r.up.last(t).Header
		equal(t, "For", h["X-Forwarded-For"], []string{"127.0.0.1"})
		equal(t, "Host", h["X-Forwarded-Host"], []string{"127.0.0.1:" + r.port()})
		equal(t, "Proto", h["X-Forwarded-Proto"], []string{"https"})
		for _, gone := range []string{"X-Forwarded-Prefix", "X-Real-Ip", "X-Original-Url"} {
			equal(t, gone, h[gone], nil)
		}
	})
	t.Run("trusted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, routes(public, eng), trustLoopback)
		if res := r.do("GET", "/", say(r.port())); res.StatusCode != 200 {
			t.Fatal(res.StatusCode)
		}
		h := r.up.last(t).Header
		equal(t, "For", h["X-Forwarded-For"], []string{"203.0.113.7, 127.0.0.1"})
		equal(t, "Host", h["X-Forwarded-Host"], []string{"eng.localhost:" + r.port()})
		equal(t, "Proto", h["X-Forwarded-Proto"], []string{"https"}) // this connection is TLS
		equal(t, "Prefix", h["X-Forwarded-Prefix"], []string{"/app"})
		// PX-11: what cannot be read says nothing; the host is the request's.
		for _, odd := range []string{"eng.localhost, evil.example", "evil.example"} {
			want := map[bool]int{true: 200, false: 421}[strings.Contains(odd, ",")]
			if res := r.do("GET", "/", header("X-Forwarded-Host", odd)); res.StatusCode != want {
				t.Errorf("%q: %d, want %d", odd, res.StatusCode, want)
			}
		}
		if res := r.do("GET", "/", header("X-Forwarded-Host", "evil.example", "evil.example")); res.StatusCode != 200 {
			t.Errorf("twice: %d", res.StatusCode)
		}
	})
}

// A trusted peer may speak for a portal: routes, audience and upstream are
// then the portal's.
func TestTrustedHostPicksThePortal(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals, trustLoopback)
	alice := r.signIn("alice")
	named := header("X-Forwarded-Host", "eng.localhost:"+r.port())
	// The public host's session is not the portal's (CK-06).
	if res := r.do("GET", "/", edits(signedIn(alice), named)); res.StatusCode != 401 {
		t.Errorf("as the portal: %d", res.StatusCode)
	}
	if res := r.do("GET", "/", signedIn(alice)); res.StatusCode != 200 {
		t.Errorf("as the public host: %d", res.StatusCode)
	}
}

// Each host has its own routes before those of all hosts.
func TestRoutesByHost(t *testing.T) {
	t.Parallel()
	other := newUpstream(t)
	r := newRig(t, routes(
		proxy.RouteConfig{Path: "/shared/", Access: proxy.Public},
		proxy.RouteConfig{Host: "eng.localhost", Path: "/open/", Access: proxy.Public, Upstream: other.URL},
		proxy.RouteConfig{Host: "eng.localhost", Path: "/closed/", Groups: []string{"engineering"}, Upstream: other.URL},
	))
	on := func(host string) func(*http.Request) {
		return func(req *http.Request) { req.Host = host + ":" + r.port() }
	}
	for _, c := range []struct {
		host, path string
		status     int
		at         *upstream
	}{
		{"127.0.0.1", "/open/x", 401, nil},
		{"127.0.0.1", "/shared/x", 200, r.up},
		{"eng.localhost", "/open/x", 200, other},
		{"ENG.localhost", "/open/x", 200, other},
		{"eng.localhost.", "/open/x", 200, other},
		{"eng.localhost", "/closed/x", 401, nil},
		{"eng.localhost", "/shared/x", 200, r.up},
		{"eng.localhost", "/x", 401, nil},
		{"board.localhost", "/open/x", 401, nil},
	} {
		before, beforeOther := r.up.count(), other.count()
		if res := r.do("GET", c.path, on(c.host)); res.StatusCode != c.status {
			t.Errorf("%s%s: %d, want %d", c.host, c.path, res.StatusCode, c.status)
		}
		if got := r.up.count() != before; got != (c.at == r.up) {
			t.Errorf("%s%s: the global upstream was reached: %v", c.host, c.path, got)
		}
		if got := other.count() != beforeOther; got != (c.at == other) {
			t.Errorf("%s%s: the portal's upstream was reached: %v", c.host, c.path, got)
		}
	}
	// Two readings of one path may not choose between applications.
	if res := r.knock("GET //open/x HTTP/1.1\r\nHost: eng.localhost:" + r.port() + "\r\n\r\n"); res.StatusCode != 400 {
		t.Errorf("a path of two applications: %d", res.StatusCode)
	}
}
