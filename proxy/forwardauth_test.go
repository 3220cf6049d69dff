package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// asked is a front proxy's question about a request.
func asked(uri string) func(*http.Request) { return header("X-Forwarded-Uri", uri) }

// Contract section 4: 202 with every configured header, empty when there is
// no value, so that a client's copy is overwritten.
func TestForwardAuthAnswersEveryHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format      proxy.GroupsFormat
		alice, none []string
	}{
		{proxy.Comma, []string{"admins,engineering"}, []string{""}},
		{proxy.JSON, []string{`["admins","engineering"]`}, []string{"[]"}},
		{proxy.Repeated, []string{"admins", "engineering"}, []string{""}},
	} {
		t.Run(string(c.format), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, trustLoopback, headers(proxy.HeadersConfig{
				GroupsFormat: c.format, OnOverflow: proxy.OverflowOmit, Claims: map[string]string{"X-Department": "department"},
			}), withSigner, func(r *rig) {
				r.op.SetPerson(person("nobody"))
				p := person("nobody")
				p.Claims = map[string]any{"preferred_username": "nobody", "groups": []any{}}
				r.op.SetPerson(p)
			})
			alice, nobody := r.signIn("alice"), r.signIn("nobody")
			before := r.up.count()
			for _, path := range []string{"/_auth/auth", "/_auth/auth/redirect"} {
				for _, method := range []string{"GET", "POST", "HEAD"} {
					res := r.do(method, path, edits(signedIn(alice), asked("/x")))
					if res.StatusCode != 202 {
						t.Fatalf("%s %s: %d", method, path, res.StatusCode)
					}
					equal(t, "groups", res.Header["X-Forwarded-Groups"], c.alice)
					equal(t, "user", res.Header["X-Forwarded-User"], []string{"alice"})
					equal(t, "claim without a value", res.Header["X-Department"], []string{""})
					equal(t, "omitted", res.Header["X-Forwarded-Groups-Omitted"], []string{""})
					if claimsOf(t, r, res.Header.Get("X-Groupgate-Assertion")).User != "alice" {
						t.Error("no assertion")
					}
				}
			}
			res := r.do("GET", "/_auth/auth", edits(signedIn(nobody), asked("/x")))
			equal(t, "user", res.Header["X-Forwarded-User"], []string{"nobody"})
			equal(t, "no e-mail", res.Header["X-Forwarded-Email"], []string{""})
			equal(t, "no name", res.Header["X-Forwarded-Preferred-Username"], []string{""})
			equal(t, "no groups", res.Header["X-Forwarded-Groups"], c.none)
			// A public route without a session passes, with nobody's name.
			res = r.do("GET", "/_auth/auth", asked("/public/x"))
			if res.StatusCode != 202 {
				t.Fatalf("public: %d", res.StatusCode)
			}
			for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Groupgate-Assertion", "X-Department"} {
				equal(t, "public "+name, res.Header[name], []string{""})
			}
			if r.up.count() != before {
				t.Error("the upstream was reached")
			}
		})
	}
}

// The decision is the session's, the route's and the query's.
func TestForwardAuthDecides(t *testing.T) {
	t.Parallel()
	r := newRig(t, trustLoopback, portals)
	alice, bob := r.signIn("alice"), r.signIn("bob")
	eng := "eng.localhost:" + r.port()
	for _, c := range []struct {
		what, cookie string
		edit         func(*http.Request)
		want         int
	}{
		{"nobody", "", asked("/x"), 401},
		{"nobody, nothing said", "", nil, 401},
		{"alice", alice, asked("/x"), 202},
		{"alice, admins", alice, asked("/admin/"), 202},
		{"bob, admins", bob, asked("/admin/x?y"), 403},
		{"bob, admins without the slash", bob, asked("/admin"), 403},
		{"bob, elsewhere", bob, asked("/adminx"), 202},
		{"bob, in disguise", bob, asked("/x%2f..%2fadmin/"), 400},
		{"bob, doubled slash", bob, asked("//admin/"), 403},
		{"bob, query", bob, asked("/admin/?/public/"), 403},
		{"bob, absolute", bob, asked("http://evil.example/admin/"), 403},
		{"bob, not an address", bob, asked("admin/"), 400},
		{"bob, twice", bob, header("X-Forwarded-Uri", "/x", "/admin/"), 403},
		{"bob, unsaid", bob, nil, 403},
		{"bob, in another header", bob, header("X-Original-Uri", "/x"), 403},
		{"bob, in a disguised header", bob, header("X_Forwarded_Uri", "/x"), 403},
		{"unknown host", alice, edits(asked("/x"), header("X-Forwarded-Host", "evil.example")), 421},
		{"CK-06 public session on a portal", alice, edits(asked("/x"), header("X-Forwarded-Host", eng)), 401},
		{"RT-07 malformed cookie", "__Host-groupgate=junk", asked("/x"), 401},
		{"RT-03 probe", "", edits(asked("/x"), header("User-Agent", "GoogleHC/1.0")), 401},
		{"two sessions", alice + "; " + bob, asked("/x"), 401},
	} {
		res := r.do("GET", "/_auth/auth", edits(c.edit, func(req *http.Request) { req.Header.Set("Cookie", c.cookie) }))
		if res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.what, res.StatusCode, c.want)
		}
		if got := res.Header.Get("X-Forwarded-User"); (got != "") != (c.want == 202) {
			t.Errorf("%s: user %q with %d", c.what, got, res.StatusCode)
		}
		if c.want != 202 && res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: answered %s", c.what, res.Header.Get("Content-Type"))
		}
	}
	b := r.browser()
	if _, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil {
		t.Fatal(err)
	}
	onEng := signedIn(r.portalCookie(b, "eng.localhost"))
	if res := r.do("GET", "/_auth/auth", edits(onEng, asked("/x"), header("X-Forwarded-Host", eng))); res.StatusCode != 202 {
		t.Errorf("a portal's own session: %d", res.StatusCode)
	}
	if res := r.do("GET", "/_auth/auth", edits(onEng, asked("/x"), header("X-Forwarded-Host", "127.0.0.1:"+r.port()))); res.StatusCode != 401 {
		t.Errorf("a portal's session on the public host: %d", res.StatusCode)
	}
}

// ?groups= only ever takes away.
func TestForwardAuthNarrows(t *testing.T) {
	t.Parallel()
	r := newRig(t, trustLoopback, memberOf("admins", "a,b", "100%", "caf\u00e9"))
	alice := r.signIn("alice")
	for _, c := range []struct {
		query string
		want  int
	}{
		{"groups=admins", 202}, {"groups=board", 403}, {"groups=board,admins", 202}, {"groups=admins&groups=board", 403}, {"groups=admins&groups=a%252Cb", 202},
		{"groups=", 403}, {"groups=,", 403}, {"groups", 403}, {"groups=admins&groups=", 403}, {"groups=Admins", 403}, {"groups=%20admins", 403},
		{"groups=a%2Cb", 403}, {"groups=a%252Cb", 202}, {"groups=100%2525", 202}, {"groups=caf%C3%A9", 202}, {"groups=caf%25C3%25A9", 202},
		{"groups=%zz", 400}, {"groups=a;b", 400}, {"other=1", 202}, {"Groups=board", 202},
	} {
		if res := r.do("GET", "/_auth/auth?"+c.query, edits(signedIn(alice), asked("/x"))); res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.query, res.StatusCode, c.want)
		}
	}
	// It cannot open what the route closes, and nobody is in no group.
	if res := r.do("GET", "/_auth/auth?groups=engineering", edits(signedIn(r.signIn("bob")), asked("/admin/"))); res.StatusCode != 403 {
		t.Errorf("bob at the route: %d", res.StatusCode)
	}
	if res := r.do("GET", "/_auth/auth?groups=admins", asked("/public/x")); res.StatusCode != 401 {
		t.Errorf("nobody on a public route: %d", res.StatusCode)
	}
}

// A peer that is not trusted cannot say which page it asks about; where routes
// ask for groups nobody passes then, and the log says what to set.
func TestForwardAuthFromAnUntrustedPeer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice := r.signIn("alice")
	for what, edit := range map[string]func(*http.Request){"said": asked("/x"), "unsaid": nil, "public": asked("/public/x")} {
		res := r.do("GET", "/_auth/auth", edits(signedIn(alice), edit))
		if res.StatusCode != 403 || res.Header.Get("X-Forwarded-User") != "" || !strings.Contains(bodyOf(t, res), "route_unknown") {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
		if res := r.do("GET", "/_auth/auth", edit); res.StatusCode != 401 {
			t.Errorf("%s, nobody: %d", what, res.StatusCode)
		}
	}
	if !strings.Contains(r.logs.String(), "trusted_proxies") {
		t.Error("the log does not name trusted_proxies")
	}
	// Without a route that asks for groups nothing can be skipped.
	r.settings.Routes = []proxy.RouteConfig{{Path: "/public/", Access: proxy.Public}}
	r.configure()
	if res := r.do("GET", "/_auth/auth", signedIn(alice)); res.StatusCode != 202 {
		t.Errorf("no groups asked for: %d", res.StatusCode)
	}
	if res := r.do("GET", "/_auth/auth?groups=board", signedIn(alice)); res.StatusCode != 403 {
		t.Errorf("narrowed: %d", res.StatusCode)
	}
	if res := r.do("GET", "/_auth/auth", asked("/public/x")); res.StatusCode != 401 {
		t.Errorf("an untrusted peer opened a public route: %d", res.StatusCode)
	}
}

// Traefik and Caddy: a navigation goes to the login and comes back.
func TestForwardAuthRedirects(t *testing.T) {
	t.Parallel()
	r := newRig(t, trustLoopback, portals)
	for _, c := range []struct {
		what string
		edit func(*http.Request)
		want string
	}{
		{"navigation", edits(page, asked("/x?y=1")), r.server.URL + "/_auth/start?rd=%2Fx%3Fy%3D1"},
		{"nothing said", page, r.server.URL + "/_auth/start?rd=%2F"},
		{"RD-03 hostile", edits(page, asked("//evil.example")), r.server.URL + "/_auth/start?rd=%2F"},
		{"posted", edits(page, asked("/x"), header("X-Forwarded-Method", "POST")), ""},
		{"script", asked("/x"), ""},
		{"fetch", edits(page, asked("/x"), header("Sec-Fetch-Mode", "cors")), ""},
	} {
		res := r.do("GET", "/_auth/auth/redirect", c.edit)
		want := 401
		if c.want != "" {
			want = 302
		}
		if res.StatusCode != want || res.Header.Get("Location") != c.want {
			t.Errorf("%s: %d to %q", c.what, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if res := r.do("GET", "/_auth/auth", edits(page, asked("/x"))); res.StatusCode != 401 {
		t.Errorf("PREFIX/auth redirects: %d", res.StatusCode)
	}
	// On a portal the answer also binds the way back to this browser.
	res := r.do("GET", "/_auth/auth/redirect", edits(page, asked("/x"), header("X-Forwarded-Host", "eng.localhost:"+r.port())))
	if at := res.Header.Get("Location"); res.StatusCode != 302 || !strings.Contains(at, "bind=") || len(loginCookies(res.Cookies())) != 1 {
		t.Errorf("portal: %d to %q", res.StatusCode, at)
	}
	// A person who may not is told so on a page, not sent round.
	res = r.do("GET", "/_auth/auth/redirect", edits(page, asked("/admin/"), signedIn(r.signIn("bob"))))
	if body := bodyOf(t, res); res.StatusCode != 403 || !strings.Contains(body, "admins") || !strings.Contains(body, "bob") {
		t.Errorf("bob: %d %s", res.StatusCode, body)
	}
}

func TestForwardAuthWithTheStoreDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, trustLoopback)
	alice := r.signIn("alice")
	r.faults.down.Store(true)
	for _, path := range []string{"/_auth/auth", "/_auth/auth/redirect"} {
		res := r.do("GET", path, edits(signedIn(alice), asked("/x")))
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("X-Forwarded-User") != "" || len(res.Cookies()) != 0 {
			t.Errorf("%s: %d %v", path, res.StatusCode, res.Header)
		}
	}
	r.faults.down.Store(false)
	if res := r.do("GET", "/_auth/auth", edits(signedIn(alice), asked("/x"))); res.StatusCode != 202 {
		t.Errorf("after: %d", res.StatusCode)
	}
	u, err := r.store.UserByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.dir.EndLogins(t.Context(), groups.LoginFilter{User: u.ID}, "test", "test", ""); err != nil {
		t.Fatal(err)
	}
	if res := r.do("GET", "/_auth/auth", edits(signedIn(alice), asked("/x"))); res.StatusCode != 401 {
		t.Errorf("after the session's end: %d", res.StatusCode)
	}
}

// Envoy's HTTP ext_authz takes 200 alone for a yes, and asks below a prefix
// about the address it got.
func TestForwardAuthForEnvoy(t *testing.T) {
	t.Parallel()
	r := newRig(t, trustLoopback, portals)
	alice, bob := r.signIn("alice"), r.signIn("bob")
	before := r.up.count()
	for _, c := range []struct {
		what, method, asked string
		edit                func(*http.Request)
		want                int
	}{
		{"nobody", "GET", "/x", nil, 401},
		{"nobody, navigation", "GET", "/x?y=1", page, 302},
		{"nobody, navigation by POST", "POST", "/x", page, 401},
		{"nobody, a script that says it is a navigation of another method", "POST", "/x", edits(page, header("X-Forwarded-Method", "GET")), 401},
		{"nobody, public", "GET", "/public/x", nil, 200},
		{"nobody, out of the public", "GET", "/public/../x", nil, 400},
		{"nobody, out of the prefix", "GET", "/../../../public/x", nil, 400},
		{"alice", "GET", "/x", signedIn(alice), 200},
		{"alice posts", "POST", "/x", signedIn(alice), 200},
		{"alice, admins", "GET", "/admin/", signedIn(alice), 200},
		{"bob, admins", "GET", "/admin/x", signedIn(bob), 403},
		{"bob, admins, doubled slash", "GET", "//admin/", signedIn(bob), 403},
		{"bob, says another address", "GET", "/admin/", edits(signedIn(bob), asked("/x")), 403},
		{"bob, says another host", "GET", "/admin/", edits(signedIn(bob), header("X-Forwarded-Host", "eng.localhost:"+r.port())), 403},
		{"bob, in disguise", "GET", "/x%2f..%2fadmin/", signedIn(bob), 400},
		{"alice, a query that is the application's", "GET", "/x?groups=board", signedIn(alice), 200},
		{"alice, a query that nobody can read", "GET", "/x?groups=%zz", signedIn(alice), 200},
		{"alice, nothing asked", "GET", "", signedIn(alice), 404},
		{"another host", "GET", "/x", edits(signedIn(alice), func(req *http.Request) { req.Host = "evil.example" }), 421},
	} {
		res := r.do(c.method, "/_auth/auth/envoy"+c.asked, c.edit)
		if res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.what, res.StatusCode, c.want)
		}
		if got := res.Header["X-Forwarded-User"]; (got != nil) != (c.want == 200) {
			t.Errorf("%s: user %q with %d", c.what, got, res.StatusCode)
		}
		if at := res.Header.Get("Location"); c.want == 302 && at != r.server.URL+"/_auth/start?rd=%2Fx%3Fy%3D1" {
			t.Errorf("%s: to %s", c.what, at)
		}
	}
	// One that is not asked so is no question at all.
	for path, want := range map[string]int{
		"/_auth//auth/envoy/x": 404, "/x/../_auth/auth/envoy/x": 400, "/_auth/auth/%65nvoy/x": 404, "/_auth/auth/envoyx": 404,
	} {
		if res := r.do("GET", path, signedIn(alice)); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	if r.up.count() != before {
		t.Error("the upstream was reached")
	}
	untrusted := newRig(t)
	if res := untrusted.do("GET", "/_auth/auth/envoy/x", signedIn(untrusted.signIn("alice"))); res.StatusCode != 403 {
		t.Errorf("a peer nobody trusts: %d", res.StatusCode)
	}
}
