package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
)

const frontchannel = "/_auth/frontchannel/test"

// framed checks the answer to a frame, whether anything ended or not.
func framed(t *testing.T, r *rig, what string, res *http.Response) {
	t.Helper()
	h := res.Header
	policy := h.Get("Content-Security-Policy")
	if res.StatusCode != 200 || h.Get("Cache-Control") != "no-store" || h.Get("Location") != "" || h["X-Frame-Options"] != nil ||
		!strings.Contains(policy, "default-src 'none'") || !strings.HasSuffix(policy, "; frame-ancestors "+r.op.URL) {
		t.Errorf("%s: %d %v", what, res.StatusCode, h)
	}
	if body := bodyOf(t, res); len(body) > 200 || strings.Contains(body, "alice") || strings.Contains(body, "script") {
		t.Errorf("%s: %s", what, body)
	}
}

// OI-22: the browser's own login ends, on portals too, when the provider names
// it or names none; and the provider is not called for it.
func TestFrontchannelLogout(t *testing.T) {
	t.Parallel()
	for what, query := range map[string]func(r *rig) url.Values{
		"named": func(r *rig) url.Values { return url.Values{"iss": {r.op.URL}, "sid": {r.sid("alice", 0)}} },
		"named, and more": func(r *rig) url.Values {
			return url.Values{"iss": {r.op.URL}, "sid": {r.sid("alice", 0)}, "x": {"1"}}
		},
		"no name": func(*rig) url.Values { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, portals)
			b := r.browser()
			if p, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil || p.Status != 200 {
				t.Fatalf("login: %v, %v", p, err)
			}
			other, bob := r.signIn("alice"), r.signIn("bob")
			r.clock.advance(6 * time.Minute) // the claims would be renewed
			token, end := r.op.Calls("token"), r.op.Calls("end_session")
			res := r.do("GET", frontchannel+"?"+query(r).Encode(), signedIn(r.cookie(b)))
			framed(t, r, what, res)
			if dropped := setCookies(res.Header)["__Host-groupgate"]; dropped == nil || dropped.MaxAge >= 0 {
				t.Errorf("the cookie stays: %v", dropped)
			}
			if r.op.Calls("token") != token || r.op.Calls("end_session") != end {
				t.Error("the provider was called")
			}
			if got := r.status(r.cookie(b)); got != 401 {
				t.Errorf("the session gets %d", got)
			}
			portal := edits(signedIn(r.portalCookie(b, "eng.localhost")), r.onHost("eng.localhost"))
			if res := r.do("GET", "/", portal); res.StatusCode != 401 {
				t.Errorf("the portal's session gets %d", res.StatusCode)
			}
			if a, b := r.status(other), r.status(bob); a != 200 || b != 200 {
				t.Errorf("another browser of alice gets %d, bob %d", a, b)
			}
			list := events(t, r, groups.EventSignOut)
			if len(list) != 1 || list[0].Name != "alice" || list[0].Actor != "source test" || list[0].Request == "" {
				t.Errorf("audit trail: %+v", list)
			}
		})
	}
}

// OI-22, RD-06: what names another login, or is said twice, ends nothing:
// neither the browser's login nor the one it names.
func TestFrontchannelLogoutForged(t *testing.T) {
	t.Parallel()
	r := newRig(t, twoSources, portals)
	alice, bob := r.signIn("alice"), r.signIn("bob")
	iss, mine, theirs := url.QueryEscape(r.op.URL), url.QueryEscape(r.sid("alice", 0)), url.QueryEscape(r.sid("bob", 0))
	for _, c := range []struct {
		what, target string
		edit         func(*http.Request)
		status       int
	}{
		{"another's sid", frontchannel + "?iss=" + iss + "&sid=" + theirs, nil, 200},
		{"a made-up sid", frontchannel + "?iss=" + iss + "&sid=x", nil, 200},
		{"an empty sid", frontchannel + "?iss=" + iss + "&sid=", nil, 200},
		{"another issuer", frontchannel + "?iss=https%3A%2F%2Fevil.example&sid=" + mine, nil, 200},
		{"an empty issuer", frontchannel + "?iss=&sid=" + mine, nil, 200},
		{"sid alone", frontchannel + "?sid=" + mine, nil, 200},
		{"iss alone", frontchannel + "?iss=" + iss, nil, 200},
		{"the other source of the same issuer", "/_auth/frontchannel/other?iss=" + iss + "&sid=" + mine, nil, 200},
		{"the other source, no name", "/_auth/frontchannel/other", nil, 200},
		{"RD-06 sid twice", frontchannel + "?iss=" + iss + "&sid=" + mine + "&sid=" + mine, nil, 400},
		{"RD-06 iss twice", frontchannel + "?iss=" + iss + "&iss=" + iss + "&sid=" + mine, nil, 400},
		{"malformed", frontchannel + "?iss=" + iss + "&sid=" + mine + "&a=%zz", nil, 400},
		{"without a cookie", frontchannel + "?iss=" + iss + "&sid=" + mine, header("Cookie"), 200},
		{"with two sessions", frontchannel + "?iss=" + iss + "&sid=" + mine, header("Cookie", alice, bob), 200},
		{"with two sessions, no name", frontchannel, header("Cookie", alice, bob), 200},
		{"on a portal", frontchannel + "?iss=" + iss + "&sid=" + mine, r.onHost("eng.localhost"), 404},
		{"a source that is not", "/_auth/frontchannel/nobody?iss=" + iss + "&sid=" + mine, nil, 404},
		{"no source", "/_auth/frontchannel?iss=" + iss + "&sid=" + mine, nil, 404},
	} {
		res := r.do("GET", c.target, edits(signedIn(alice), c.edit))
		if c.status == 200 {
			framed(t, r, c.what, res)
		}
		if res.StatusCode != c.status || len(res.Cookies()) != 0 || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", c.what, res.StatusCode, res.Header)
		}
		if a, b := r.status(alice), r.status(bob); a != 200 || b != 200 {
			t.Fatalf("%s: alice gets %d, bob %d", c.what, a, b)
		}
	}
	if res := r.do("POST", frontchannel, signedIn(alice)); res.StatusCode != 405 || r.status(alice) != 200 {
		t.Errorf("POST: %d", res.StatusCode)
	}
	r.faults.down.Store(true)
	if res := r.do("GET", frontchannel, signedIn(alice)); res.StatusCode != 503 || len(res.Cookies()) != 0 {
		t.Errorf("store down: %d", res.StatusCode)
	}
	r.faults.down.Store(false)
	framed(t, r, "control", r.do("GET", frontchannel+"?iss="+iss+"&sid="+mine, signedIn(alice)))
	if a, b := r.status(alice), r.status(bob); a != 401 || b != 200 {
		t.Errorf("control: alice gets %d, bob %d", a, b)
	}
}

// OI-23, RD-07: a provider that sends the browser back without our state, or
// with another, lands on a safe page, and no new sign-out begins.
func TestTheWayBackWithoutOurState(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	r.login(b, "alice", "/")
	away := hop(t, b, r.server.URL+"/_auth/sign_out?rd=/public/bye").Header.Get("Location")
	u, err := url.Parse(away)
	if err != nil || !strings.HasPrefix(away, r.op.URL+"/end_session?") {
		t.Fatalf("sign-out leads to %q", away)
	}
	ours := u.Query().Get("state")
	landing := u.Query().Get("post_logout_redirect_uri")
	elsewhere := r.browser()
	r.login(elsewhere, "alice", "/")
	theirs, err := url.Parse(hop(t, elsewhere, r.server.URL+"/_auth/sign_out?rd=/public/other").Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	calls := r.op.Calls("end_session")
	for what, c := range map[string]struct{ query, end string }{
		"no state":           {"", ""},
		"an empty state":     {"?state=", ""},
		"another state":      {"?state=canary", ""},
		"ours, cut":          {"?state=" + url.QueryEscape(ours[:len(ours)-4]), ""},
		"an address":         {"?state=https%3A%2F%2Fevil.example%2F", ""},
		"with an address":    {"?state=canary&rd=https%3A%2F%2Fevil.example%2F", ""},
		"ours":               {"?state=" + url.QueryEscape(ours), "/public/bye"},
		"another browser's":  {"?state=" + url.QueryEscape(theirs.Query().Get("state")), "/public/other"},
		"ours, with evil rd": {"?rd=%2F%2Fevil.example&state=" + url.QueryEscape(ours), "/public/bye"},
	} {
		res := hop(t, b, landing+c.query)
		if c.end == "" && (res.StatusCode != 200 || res.Header.Get("Location") != "") || c.end != "" && (res.StatusCode != 303 || res.Header.Get("Location") != c.end) {
			t.Errorf("%s: %d to %q", what, res.StatusCode, res.Header.Get("Location"))
		}
		if strings.Contains(res.Header.Get("Content-Security-Policy"), "evil") {
			t.Errorf("%s: %v", what, res.Header)
		}
	}
	// RD-06: of two states none is believed.
	if res := hop(t, b, landing+"?state="+url.QueryEscape(ours)+"&state=x"); res.StatusCode != 400 || res.Header.Get("Location") != "" {
		t.Errorf("two states: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	if r.op.Calls("end_session") != calls {
		t.Error("the provider was asked again")
	}
}

// What the provider is told at sign-out: who by the ID token of the login, where
// back to by the one registered address, and a state that is another each time
// and says nothing.
func TestSignOutTellsTheProvider(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var told []string
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateToken = func(answer map[string]any) { told = append(told, answer["id_token"].(string)) }
	})
	seen := map[string]bool{}
	for i := range 3 {
		b := r.browser()
		r.login(b, "alice", "/")
		u, err := url.Parse(hop(t, b, r.server.URL+"/_auth/sign_out?rd=/public/bye").Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if q.Get("id_token_hint") != told[i] {
			t.Error("the hint is not the ID token of this login")
		}
		if q.Get("post_logout_redirect_uri") != r.server.URL+"/_auth/sign_out" || q.Get("client_id") != "portal" {
			t.Errorf("the provider is told %v", q)
		}
		state := q.Get("state")
		if state == "" || seen[state] || strings.Contains(state, "bye") {
			t.Errorf("state %q", state)
		}
		seen[state] = true
	}
}
