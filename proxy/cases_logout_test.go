package proxy_test

import (
	"net/url"
	"testing"
)

// The logout modules of the OpenID conformance suite by their names, at our
// front door. TestBackchannelLogoutLies tells many more lies.
func TestConformanceOfLogout(t *testing.T) {
	t.Parallel()
	for module, lie := range map[string]string{
		"oidcc-client-test-rp-backchannel-rpinitlogout-alg-none":    "alg none",
		"oidcc-client-test-rp-backchannel-rpinitlogout-wrong-alg":   "HS256 with the client's secret",
		"oidcc-client-test-rp-backchannel-rpinitlogout-wrong-aud":   "aud of another",
		"oidcc-client-test-rp-backchannel-rpinitlogout-wrong-iss":   "iss of another",
		"oidcc-client-test-rp-backchannel-rpinitlogout-no-event":    "no events",
		"oidcc-client-test-rp-backchannel-rpinitlogout-wrong-event": "another event",
		"oidcc-client-test-rp-backchannel-rpinitlogout-with-nonce":  "nonce",
	} {
		t.Run(module, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cookie := r.signIn("alice")
			sid := r.sid("alice", 0)
			knobs, known := r.op.LogoutLies()[lie]
			if !known {
				t.Fatalf("the provider cannot tell the lie %q", lie)
			}
			refused(t, lie, r.logout(r.op.LogoutToken("alice", sid, knobs)), 400, "invalid_request")
			if got := r.status(cookie); got != 200 {
				t.Errorf("the session gets %d", got)
			}
			// oidcc-client-test-rp-backchannel-rpinitlogout is the control.
			accepted(t, "an honest token", r.logout(r.op.LogoutToken("alice", sid)))
			if got := r.status(cookie); got != 401 {
				t.Errorf("after an honest token the session gets %d", got)
			}
		})
	}
	// Our own sign-out, in the course of which the provider's page loads our
	// front-channel address in a frame, and tells the back channel as well: all
	// of it says yes though the session is over by then.
	t.Run("oidcc-client-test-rp-frontchannel-rpinitlogout", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		b := r.browser()
		r.login(b, "alice", "/")
		cookie, sid, bob := r.cookie(b), r.sid("alice", 0), r.signIn("bob")
		away := hop(t, b, r.server.URL+"/_auth/sign_out?rd=/public/bye")
		if got := r.status(cookie); away.StatusCode != 303 || got != 401 {
			t.Fatalf("sign-out: %d, the session gets %d", away.StatusCode, got)
		}
		frame := r.do("GET", frontchannel+"?"+url.Values{"iss": {r.op.URL}, "sid": {sid}}.Encode(), signedIn(r.cookie(b)))
		framed(t, r, "the frame", frame)
		accepted(t, "the back channel", r.logout(r.op.LogoutToken("alice", sid)))
		end := hop(t, b, hop(t, b, away.Header.Get("Location")).Header.Get("Location"))
		if end.StatusCode != 303 || end.Header.Get("Location") != "/public/bye" {
			t.Errorf("back at %d %q", end.StatusCode, end.Header.Get("Location"))
		}
		if got := r.status(bob); got != 200 {
			t.Errorf("bob gets %d", got)
		}
	})
}
