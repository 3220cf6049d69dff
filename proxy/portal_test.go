package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// ticket signs in at the public host on behalf of a portal and answers the
// address of the handover, not yet visited.
func (r *rig) ticket(b *claimstest.Browser, portal, path, subject string) string {
	r.t.Helper()
	res := hop(r.t, b, r.portal(portal)+path)
	for range 8 {
		at := res.Header.Get("Location")
		switch {
		case strings.Contains(at, "/_auth/handover?"):
			return at
		case strings.HasPrefix(at, r.op.URL):
			at += "&login_hint=" + subject
		case at == "":
			r.t.Fatalf("no redirect, status %d", res.StatusCode)
		}
		res = hop(r.t, b, at)
	}
	r.t.Fatal("no handover")
	return ""
}

func (r *rig) portalCookie(b *claimstest.Browser, portal string) string {
	for _, c := range b.Cookies(r.portal(portal) + "/") {
		if c.Name == "__Host-groupgate" {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

func (r *rig) onHost(host string) func(*http.Request) {
	return func(req *http.Request) { req.Host = host + ":" + r.port() }
}

// Contract section 6: portal, login at public_url, handover, back; and each
// cookie is of one host.
func TestPortalLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	b := r.browser()
	p, err := b.Login(r.portal("eng.localhost")+"/reports?x=1", "alice")
	if err != nil {
		t.Fatal(err)
	}
	if p.Status != 200 || p.URL.String() != r.portal("eng.localhost")+"/reports?x=1" {
		t.Fatalf("ended with %d at %s", p.Status, p.URL)
	}
	got := r.up.last(t)
	if got.Header.Get("X-Forwarded-User") != "alice" || got.Host != "eng.localhost:"+r.port() || got.Header.Get("X-Forwarded-Host") != got.Host {
		t.Errorf("upstream got %+v", got)
	}
	public, eng := r.cookie(b), r.portalCookie(b, "eng.localhost")
	if public == "" || eng == "" || public == eng {
		t.Fatal("there are not two sessions")
	}
	if left := loginCookies(b.Cookies(r.portal("eng.localhost") + "/")); len(left) != 0 {
		t.Errorf("%d login cookies are left on the portal", len(left))
	}
	for _, h := range p.Hops {
		for _, c := range (&http.Response{Header: h.Header}).Cookies() {
			if c.Domain != "" || c.Path != "/" || !c.Secure || !strings.HasPrefix(c.Name, "__Host-") {
				t.Errorf("cookie %s is not host-only", c.Name)
			}
		}
		if strings.Contains(h.URL, "redirect_uri") && !strings.Contains(h.URL, "redirect_uri=https%3A%2F%2F127.0.0.1") {
			t.Errorf("the provider was told of another address: %s", h.URL)
		}
	}
	// CK-06: a session is good on its own host alone.
	for _, c := range []struct {
		host, cookie string
		want         int
	}{
		{"eng.localhost", eng, 200}, {"127.0.0.1", public, 200},
		{"eng.localhost", public, 401}, {"127.0.0.1", eng, 401}, {"board.localhost", eng, 401}, {"board.localhost", public, 401},
	} {
		if res := r.do("GET", "/", edits(signedIn(c.cookie), r.onHost(c.host))); res.StatusCode != c.want {
			t.Errorf("on %s: %d, want %d", c.host, res.StatusCode, c.want)
		}
	}
	// The next portal needs no provider.
	calls := r.op.Calls("authorize")
	if p, err := b.Get(r.portal("board.localhost") + "/"); err != nil || p.Status != 200 {
		t.Errorf("second portal: %v, %v", p, err)
	}
	if r.op.Calls("authorize") != calls {
		t.Error("the second portal asked the provider")
	}
}

func TestPortalAsksForItsGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	b := r.browser()
	before := r.up.count()
	p, err := b.Login(r.portal("eng.localhost")+"/", "carol")
	if err != nil || p.Status != 403 || !strings.Contains(p.Body, "engineering") || !strings.Contains(p.Body, "carol") {
		t.Errorf("carol: %v, %v", p, err)
	}
	if r.up.count() != before {
		t.Error("the upstream was reached")
	}
	if p, err := b.Get(r.portal("board.localhost") + "/"); err != nil || p.Status != 200 {
		t.Errorf("a portal for everybody: %v, %v", p, err)
	}
}

// The ticket of a handover works once, in one browser, on one host, for a
// minute.
func TestHandoverTicket(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		spoil func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response
		want  int
	}{
		{"as it came", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) *http.Response { return hop(t, b, at) }, 303},
		{"used", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			kept := b.Cookies(r.portal("eng.localhost") + "/")
			hop(t, b, at)
			_, path, _ := strings.Cut(at, r.port())
			return r.do("GET", path, func(req *http.Request) {
				r.onHost("eng.localhost")(req)
				for _, c := range kept {
					req.AddCookie(c)
				}
			})
		}, 400},
		{"another browser", func(t *testing.T, r *rig, _ *claimstest.Browser, at string) *http.Response {
			return hop(t, r.browser(), at)
		}, 400},
		{"a browser that wants in as well", func(t *testing.T, r *rig, _ *claimstest.Browser, at string) *http.Response {
			b := r.browser()
			hop(t, b, r.portal("eng.localhost")+"/")
			return hop(t, b, at)
		}, 400},
		{"another portal", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			return hop(t, b, strings.Replace(at, "eng.localhost", "board.localhost", 1))
		}, 400},
		{"another portal, by a browser that shows the cookie there too", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			_, path, _ := strings.Cut(at, r.port())
			return r.do("GET", path, func(req *http.Request) {
				r.onHost("board.localhost")(req)
				for _, c := range b.Cookies(r.portal("eng.localhost") + "/") {
					req.AddCookie(c)
				}
			})
		}, 400},
		{"the public host", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			return hop(t, b, strings.Replace(at, "eng.localhost", "127.0.0.1", 1))
		}, 404},
		{"late", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			r.clock.advance(61 * time.Second)
			return hop(t, b, at)
		}, 400},
		{"in time", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			r.clock.advance(57 * time.Second)
			return hop(t, b, at)
		}, 303},
		{"changed", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			mid := len(at) - 30
			other := "A"
			if at[mid] == 'A' {
				other = "B"
			}
			return hop(t, b, at[:mid]+other+at[mid+1:])
		}, 400},
		{"twice in the query", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			return hop(t, b, at+"&code=x")
		}, 400},
		{"signed out meanwhile", func(t *testing.T, r *rig, b *claimstest.Browser, at string) *http.Response {
			hop(t, b, r.server.URL+"/_auth/sign_out")
			return hop(t, b, at)
		}, 400},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, portals)
			b := r.browser()
			at := r.ticket(b, "eng.localhost", "/x", "alice")
			before := r.portalCookie(b, "eng.localhost")
			res := c.spoil(t, r, b, at)
			if res.StatusCode != c.want {
				t.Errorf("answered %d, want %d", res.StatusCode, c.want)
			}
			_, set := setCookies(res.Header)["__Host-groupgate"]
			if set != (c.want == 303) || before != "" {
				t.Errorf("a session cookie was set: %v", set)
			}
		})
	}
}

// Without a browser that asked for it on the portal no ticket is made.
func TestNoTicketWithoutABrowserThatAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	cookie := r.signIn("alice")
	rd := "/_auth/start?rd=" + "https%3A%2F%2Feng.localhost%3A" + r.port() + "%2Fx"
	res := r.do("GET", rd, edits(page, signedIn(cookie)))
	if at := res.Header.Get("Location"); at != r.portal("eng.localhost")+"/x" {
		t.Errorf("without a binding: %q", at)
	}
	// An attacker's binding gives a ticket that only the attacker's browser
	// could use, and the victim's browser carries it to the portal itself.
	attacker := r.browser()
	start := hop(t, attacker, r.portal("eng.localhost")+"/x").Header.Get("Location")
	res = r.do("GET", strings.TrimPrefix(start, r.server.URL), edits(page, signedIn(cookie)))
	victim := r.browser()
	if got := hop(t, victim, res.Header.Get("Location")); got.StatusCode != 400 {
		t.Errorf("the victim's browser got %d", got.StatusCode)
	}
}

// Sign-out anywhere ends all of it.
func TestSignOutOnAPortalEndsAll(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"127.0.0.1", "eng.localhost", "board.localhost"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, portals)
			b := r.browser()
			for _, host := range []string{"eng.localhost", "board.localhost"} {
				if p, err := b.Login(r.portal(host)+"/", "alice"); err != nil || p.Status != 200 {
					t.Fatalf("%s: %v, %v", host, p, err)
				}
			}
			kept := map[string]string{"127.0.0.1": r.cookie(b), "eng.localhost": r.portalCookie(b, "eng.localhost"), "board.localhost": r.portalCookie(b, "board.localhost")}
			for host, cookie := range kept {
				if res := r.do("GET", "/", edits(signedIn(cookie), r.onHost(host))); res.StatusCode != 200 {
					t.Fatalf("%s before: %d", host, res.StatusCode)
				}
			}
			p, err := b.Get(r.portal(at) + "/_auth/sign_out")
			if err != nil || p.Status != 200 || !strings.Contains(p.Body, "signed out") {
				t.Fatalf("sign-out: %v, %v", p, err)
			}
			for host, cookie := range kept { // CK-07
				if res := r.do("GET", "/", edits(signedIn(cookie), r.onHost(host))); res.StatusCode != 401 {
					t.Errorf("%s after: %d", host, res.StatusCode)
				}
			}
		})
	}
}

// A portal has an upstream of its own, and its session dies with the login.
func TestPortalUpstreamAndLifetime(t *testing.T) {
	t.Parallel()
	own := newUpstream(t)
	r := newRig(t, portals, func(r *rig) {
		r.settings.Routes[2].Upstream = own.URL
		r.settings.Session.Idle = 24 * time.Hour
		r.settings.Session.Refresh = 48 * time.Hour
	})
	b := r.browser()
	if p, err := b.Login(r.portal("eng.localhost")+"/x", "alice"); err != nil || p.Status != 200 {
		t.Fatalf("login: %v, %v", p, err)
	}
	if own.count() != 1 || r.up.count() != 0 {
		t.Errorf("%d requests at the portal's upstream, %d at the other", own.count(), r.up.count())
	}
	cookie := edits(signedIn(r.portalCookie(b, "eng.localhost")), r.onHost("eng.localhost"))
	r.clock.advance(12*time.Hour - time.Minute)
	if res := r.do("GET", "/", cookie); res.StatusCode != 200 {
		t.Errorf("before the end: %d", res.StatusCode)
	}
	r.clock.advance(2 * time.Minute)
	if res := r.do("GET", "/", cookie); res.StatusCode != 401 {
		t.Errorf("after the end: %d", res.StatusCode)
	}
}
