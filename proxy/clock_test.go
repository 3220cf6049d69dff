package proxy_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// patient sessions do not become idle.
func patient(r *rig) { r.settings.Session.Idle = 48 * time.Hour }

// SC-25, GS-22: whatever the clock does, claims are renewed when they are due
// by it, and once.
func TestClockJumpsAndRenewals(t *testing.T) {
	t.Parallel()
	r := newRig(t, patient)
	cookie := r.signIn("alice")
	ask := func(what string, jump time.Duration, want int64) {
		t.Helper()
		r.clock.advance(jump)
		if calls := r.tokenCalls(func() {
			for range 10 {
				if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
					t.Errorf("%s: %d", what, res.StatusCode)
				}
			}
		}); int64(calls) != want {
			t.Errorf("%s: %d token calls, want %d", what, calls, want)
		}
	}
	ask("at first", 0, 0)
	ask("two hours on", 2*time.Hour, 1)
	// Claims from two hours ahead would otherwise stay fresh for two hours.
	ask("two hours back", -2*time.Hour, 1)
	ask("then nothing", 0, 0)
	ask("due as ever", 6*time.Minute, 1)
	// As far apart as the clocks of two replicas may be: no reason to ask.
	ask("five minutes back", -5*time.Minute, 0)
	ask("and on again", 5*time.Minute, 0)
	for range 5 {
		ask("on", 2*time.Hour, 1)
		ask("back", -2*time.Hour, 1)
	}
	r.op.SetPerson(person("alice", "builders"))
	ask("lost a group", 6*time.Minute, 1)
	if got := r.grouped(); got != "builders" {
		t.Errorf("groups %q", got)
	}
}

// GS-22: a source that was left alone until a time is not left alone for as
// long as the clock goes back.
func TestClockGoesBackWhileASourceIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, patient)
	cookie := r.signIn("alice")
	ask := func() int {
		return r.tokenCalls(func() {
			for range 5 {
				if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
					t.Errorf("%d", res.StatusCode)
				}
			}
		})
	}
	r.op.Lie(func(k *claimstest.Knobs) {
		k.TokenHandler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	})
	r.clock.advance(3 * time.Hour)
	if n := ask(); n != 1 {
		t.Errorf("%d token calls while it is down", n)
	}
	r.op.Lie(func(k *claimstest.Knobs) { *k = claimstest.Knobs{} })
	if n := ask(); n != 0 {
		t.Errorf("%d token calls before the time", n)
	}
	r.clock.advance(-2 * time.Hour)
	if n := ask(); n != 1 {
		t.Errorf("%d token calls after the clock went back", n)
	}
}

// GS-22, SC-25: a session's bounds hold by the clock, and no longer than by
// what the clock was off.
func TestClockJumpsAndBounds(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		idle  time.Duration
		jumps []time.Duration // a request after each but the last two
		last  int             // the status after the last; before it, 200
	}{
		"lifetime":           {48 * time.Hour, []time.Duration{0, 11 * time.Hour, 61 * time.Minute}, 401},
		"lifetime, set back": {48 * time.Hour, []time.Duration{-2 * time.Hour, 13 * time.Hour, 61 * time.Minute}, 401},
		"lifetime, to and fro": {48 * time.Hour, []time.Duration{2 * time.Hour, -4 * time.Hour, 2 * time.Hour, 11 * time.Hour,
			61 * time.Minute}, 401},
		"idle": {time.Hour, []time.Duration{30 * time.Minute, 59 * time.Minute, 61 * time.Minute}, 401},
		// The use from before must not count as one from two hours ahead.
		"idle, set back":          {time.Hour, []time.Duration{30 * time.Minute, -2 * time.Hour, 61 * time.Minute}, 401},
		"idle, set back a little": {time.Hour, []time.Duration{30 * time.Minute, -8 * time.Minute, 61 * time.Minute}, 401},
		"idle, set back twice":    {time.Hour, []time.Duration{-2 * time.Hour, -2 * time.Hour, 61 * time.Minute}, 401},
		"idle, to and fro":        {time.Hour, []time.Duration{50 * time.Minute, -50 * time.Minute, 50 * time.Minute, -50 * time.Minute, 50 * time.Minute}, 200},
		"idle, a minute astray":   {time.Hour, []time.Duration{-time.Minute, time.Minute, 59 * time.Minute}, 200},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.settings.Session.Idle = c.idle })
			cookie := r.signIn("alice")
			for i, jump := range c.jumps {
				r.clock.advance(jump)
				want := 200
				if i == len(c.jumps)-1 {
					want = c.last
				}
				if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != want {
					t.Errorf("after jump %d: %d, want %d", i, res.StatusCode, want)
				}
			}
		})
	}
}

// asserted reads the assertion that the upstream got last.
func (r *rig) asserted(t *testing.T) (issued, expires int64) {
	t.Helper()
	parts := strings.Split(r.up.last(t).Header.Get("X-Groupgate-Assertion"), ".")
	if len(parts) != 3 {
		t.Fatal("no assertion")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Iat, Exp int64
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c.Iat, c.Exp
}

// SC-25: assertions are of now, whatever now is, and also after 2038.
func TestClockJumpsAndAssertions(t *testing.T) {
	t.Parallel()
	r := newRig(t, patient, withSigner)
	cookie := r.signIn("alice")
	check := func(what string) {
		t.Helper()
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Fatalf("%s: %d", what, res.StatusCode)
		}
		issued, expires := r.asserted(t)
		now := r.clock.Now().Unix()
		if issued > now || now-issued > 30 || expires-issued != 60 {
			t.Errorf("%s: iat %d, exp %d, now %d", what, issued, expires, now)
		}
	}
	check("at first")
	for range 3 {
		r.clock.advance(2 * time.Hour)
		check("two hours on")
		r.clock.advance(-2 * time.Hour)
		check("two hours back")
		r.clock.advance(-time.Second)
		check("a second back")
	}
	r.clock.advance(time.Until(time.Date(2045, 2, 28, 23, 59, 59, 0, time.UTC)))
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 401 {
		t.Errorf("a session of decades ago: %d", res.StatusCode)
	}
	cookie = r.signIn("alice")
	check("2045")
	if issued, _ := r.asserted(t); issued <= 1<<31 {
		t.Errorf("iat %d", issued)
	}
}

// GS-22: a login under way outlives a clock that is corrected by less than a
// minute; one that seems to come from the future does not.
func TestClockJumpsDuringALogin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for jump, want := range map[time.Duration]int{
		-50 * time.Second: 303, 0: 303, 29 * time.Minute: 303, -2 * time.Minute: 400, -2 * time.Hour: 400, 31 * time.Minute: 400,
	} {
		b := r.browser()
		_, authorize := r.begin(b, "rd=/x")
		at := r.answer(b, authorize, "alice")
		r.clock.advance(jump)
		if res := hop(t, b, at); res.StatusCode != want {
			t.Errorf("%v: %d, want %d", jump, res.StatusCode, want)
		}
		r.clock.advance(-jump)
	}
}

// SC-25: an open socket outlives a jump that its session outlives, and all the
// sockets of a login ask its source once.
func TestClockJumpsAndSockets(t *testing.T) {
	t.Parallel()
	r := newRig(t, patient)
	cookie := r.signIn("alice")
	r.up.answer(echo)
	for range 5 {
		c, _, err := r.dial("/socket", cookie, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
	}
	for _, jump := range []time.Duration{2 * time.Hour, -2 * time.Hour, 2 * time.Hour} {
		r.clock.advance(jump)
		if calls := r.tokenCalls(func() {
			for range 3 {
				r.proxy.Recheck(t.Context())
			}
		}); calls != 1 || r.proxy.Live() != 5 {
			t.Errorf("%v: %d token calls, %d sockets", jump, calls, r.proxy.Live())
		}
	}
	r.clock.advance(11 * time.Hour)
	r.proxy.Recheck(t.Context())
	eventually(t, "closed at the end of the session", 10*time.Second, func() bool { return r.proxy.Live() == 0 })
}
