package proxy_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/proxy"
)

// PX-01: a person of whom nothing is known but a name cannot fill the gaps with
// headers of their own, whatever they are called.
func TestPersonWithoutClaimsCannotFillThemIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, headers(proxy.HeadersConfig{Claims: map[string]string{"X-Forwarded-Department": "department"}}), func(r *rig) {
		p := person("nobody")
		p.Claims = map[string]any{"preferred_username": "nobody", "groups": []any{}}
		r.op.SetPerson(p)
	})
	owned := []string{"X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "X-Forwarded-Groups-Omitted", "X-Forwarded-Department"}
	spoil := func(req *http.Request) {
		req.Header.Set(friendly, "green")
		for _, name := range owned {
			for _, spelling := range []string{name, strings.ToLower(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", ".")} {
				req.Header[spelling] = []string{evil}
			}
		}
	}
	for who, cookie := range map[string]string{"nobody": r.signIn("nobody"), "alice": r.signIn("alice")} {
		if res := r.do("GET", "/", edits(signedIn(cookie), spoil)); res.StatusCode != 200 {
			t.Fatalf("%s: %d", who, res.StatusCode)
		}
		h := r.up.last(t).Header
		if h.Get(friendly) != "green" || h.Get("X-Forwarded-User") != who {
			t.Errorf("%s: control: %v", who, h)
		}
		for name, values := range h {
			if strings.Contains(strings.Join(values, " "), evil) {
				t.Errorf("%s: %s is the client's: %q", who, name, values)
			}
		}
		if known := h.Get("X-Forwarded-Groups") + h.Get("X-Forwarded-Email"); (known != "") != (who == "alice") {
			t.Errorf("%s: groups and e-mail %q", who, known)
		}
	}
}

// RT-10: where the source cannot say who is in which group, a route that asks
// for one stays closed; not knowing is never being in.
func TestUnknownGroupsOpenNoRoute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for what, change := range map[string]func(map[string]any){
		"absent":    func(c map[string]any) { delete(c, "groups") },
		"null":      func(c map[string]any) { c["groups"] = nil },
		"a number":  func(c map[string]any) { c["groups"] = 1 },
		"in part":   func(c map[string]any) { c["groups"] = []any{"admins", 1} },
		"elsewhere": func(c map[string]any) { delete(c, "groups"); c["hasgroups"] = true },
		"by a link": func(c map[string]any) {
			c["groups"] = []any{"admins"}
			c["_claim_names"] = map[string]any{"groups": "src1"}
		},
	} {
		name := strings.ReplaceAll(what, " ", "")
		p := person(name)
		change(p.Claims)
		r.op.SetPerson(p)
		cookie := r.signIn(name)
		if got := r.visit("/", cookie); got != "app" {
			t.Errorf("%s: signed in, but %s", what, got)
		}
		if got := r.visit("/admin/", cookie); got != "403" {
			t.Errorf("%s: a route for a group: %s", what, got)
		}
		if res := r.do("GET", "/_auth/auth?groups=admins", signedIn(cookie)); res.StatusCode != 403 {
			t.Errorf("%s: asked of PREFIX/auth: %d", what, res.StatusCode)
		}
	}
	if got := r.visit("/admin/", r.signIn("alice")); got != "app" {
		t.Errorf("control: %s", got)
	}
}

// RT-13: what we answer ourselves holds nothing of the application, which is
// not even asked.
func TestOurAnswersHoldNothingOfTheApplication(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const secret = "secret-of-the-application"
	r.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-App", secret)
		w.Write([]byte(secret))
	})
	bob := r.signIn("bob")
	if res := r.do("GET", "/", signedIn(bob)); bodyOf(t, res) != secret || res.Header.Get("X-App") != secret {
		t.Fatal("control: the application is not reached")
	}
	before := r.up.count()
	form := func(req *http.Request) {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Body = http.NoBody
	}
	for what, c := range map[string]struct {
		method, path string
		edit         func(*http.Request)
		want         int
	}{
		"to the login":       {"GET", "/x", page, 302},
		"a script":           {"GET", "/x", nil, 401},
		"a form":             {"POST", "/x", edits(page, form), 401},
		"not for bob":        {"GET", "/admin/x", edits(page, signedIn(bob)), 403},
		"a form of bob's":    {"POST", "/admin/x", edits(form, signedIn(bob)), 403},
		"in two readings":    {"GET", "/x/%2e%2e/y", signedIn(bob), 400},
		"a method":           {"TRACE", "/x", signedIn(bob), 405},
		"the chooser":        {"GET", "/_auth/sign_in?rd=/x", page, 302},
		"a callback":         {"GET", "/_auth/callback/test?state=x", edits(page, signedIn(bob)), 400},
		"nothing of ours":    {"GET", "/_auth/nothing", signedIn(bob), 404},
		"forward-auth":       {"GET", "/_auth/auth", signedIn(bob), 403},
		"forward-auth, none": {"GET", "/_auth/auth", nil, 401},
	} {
		res := r.do(c.method, c.path, c.edit)
		if body := bodyOf(t, res); res.StatusCode != c.want || strings.Contains(body, secret) || res.Header.Get("X-App") != "" {
			t.Errorf("%s: %d, want %d: %s", what, res.StatusCode, c.want, body)
		}
	}
	r.faults.down.Store(true)
	if res := r.do("GET", "/", signedIn(bob)); res.StatusCode != 503 || strings.Contains(bodyOf(t, res), secret) {
		t.Errorf("the store is down: %d", res.StatusCode)
	}
	if n := r.up.count() - before; n != 0 {
		t.Errorf("the application was asked %d times", n)
	}
}

// SC-03: nothing of the admin listener is on the public one.
func TestNoAdminOnThePublicListener(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/api/v1/users", "/api/v1/openapi.json", "/metrics", "/healthz", "/readyz", "/debug/pprof/"} {
		// They are the application's, as any path is: behind a session.
		if got := r.visit(path, ""); got != "401" {
			t.Errorf("%s without a session: %s", path, got)
		}
		if got := r.visit("/_auth"+path, ""); got != "404" {
			t.Errorf("/_auth%s: %s", path, got)
		}
	}
	if got := r.visit("/metrics", r.signIn("alice")); got != "app" {
		t.Errorf("control: the application's own /metrics: %s", got)
	}
}

// PX-11: X-Forwarded-For decides nothing: whatever it holds, nobody becomes a
// trusted peer or passes a route by it. An upstream's reader finds the peer we
// saw as its last entry.
func TestForwardedForDecidesNothing(t *testing.T) {
	t.Parallel()
	values := []string{
		"", "a", "unknown", "_hidden", "127.0.0.1", "10.1.2.3", "::1", "::ffff:10.1.2.3", "[::1]:80", "fe80::1%eth0", "10.1.2.3:99999", "0x7f.1", "1.2.3.4.5",
		strings.Repeat("10.1.2.3, ", 100) + "10.1.2.3", ", , ,", "10.1.2.3\t", "10.1.2.3;x", `"10.1.2.3"`,
	}
	for _, trusted := range []bool{false, true} {
		r := newRig(t, func(r *rig) {
			r.settings.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
			if trusted {
				trustLoopback(r)
			}
		})
		bob := r.signIn("bob")
		for _, v := range values {
			from := edits(header("X-Forwarded-For", v), header("X-Forwarded-Uri", "/x"))
			for _, c := range []struct {
				path, cookie string
				want         int
			}{
				{"/admin/", bob, 403}, {"/", "", 401}, {"/", bob, 200}, {"/public/", "", 200},
				{"/_auth/auth", bob, map[bool]int{true: 202, false: 403}[trusted]}, // an untrusted peer cannot name a page
			} {
				if res := r.do("GET", c.path, edits(from, signedIn(c.cookie))); res.StatusCode != c.want {
					t.Errorf("trusted %v, %.30q: %s answers %d, want %d", trusted, v, c.path, res.StatusCode, c.want)
				}
			}
			got := r.up.last(t).Header["X-Forwarded-For"]
			if len(got) != 1 || got[0][strings.LastIndexByte(got[0], ' ')+1:] != "127.0.0.1" || !trusted && got[0] != "127.0.0.1" {
				t.Errorf("trusted %v, %.30q: the upstream got %.60q", trusted, v, got)
			}
		}
	}
}
