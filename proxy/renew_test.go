package proxy_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// grouped is what the upstream was told last.
func (r *rig) grouped() string { return r.up.last(r.t).Header.Get("X-Forwarded-Groups") }

// OI-16, S0-07: claims that are older than session.refresh are asked for again, by one call
// of the provider however many requests wait, and the very requests that
// waited carry what it said.
func TestRenewalIsOneCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.op.SetPerson(person("alice", "builders"))
	if calls := r.tokenCalls(func() { r.do("GET", "/", signedIn(cookie)) }); calls != 0 || r.grouped() != "admins,engineering" {
		t.Fatalf("fresh claims: %d token calls, groups %q", calls, r.grouped())
	}
	r.clock.advance(5*time.Minute + time.Second)
	r.op.Lie(func(k *claimstest.Knobs) { k.Delay = 50 * time.Millisecond })
	before := r.up.count()
	var refused atomic.Int32
	calls := r.tokenCalls(func() {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
	})
	if calls != 1 || refused.Load() != 0 || r.up.count() != before+100 {
		t.Errorf("%d token calls, %d refused, %d forwarded", calls, refused.Load(), r.up.count()-before)
	}
	r.up.mu.Lock()
	for _, got := range r.up.got[before:] {
		if g := got.Header.Get("X-Forwarded-Groups"); g != "builders" {
			t.Errorf("a request that waited carried %q", g)
		}
	}
	r.up.mu.Unlock()
	equal(t, "stored", groupsOf(t, r, "alice"), []string{"builders"})
}

// OI-16: the provider gives a new refresh token each time and ends the old one.
func TestRenewalWithRotatingTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	for i, want := range []string{"a", "b", "c", "d"} {
		r.clock.advance(6 * time.Minute)
		r.op.SetPerson(person("alice", want))
		if i%2 == 1 {
			r.configure() // forgets what is in memory
		}
		calls := r.tokenCalls(func() {
			if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 || r.grouped() != want {
				t.Errorf("renewal %d: %d, %q", i, res.StatusCode, r.grouped())
			}
		})
		if calls != 1 {
			t.Errorf("renewal %d: %d token calls", i, calls)
		}
	}
}

// All sessions of a login renew together.
func TestRenewalIsTheLogins(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	b := r.browser()
	if p, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil || p.Status != 200 {
		t.Fatalf("%v, %v", p, err)
	}
	public, portal := r.cookie(b), r.portalCookie(b, "eng.localhost")
	r.clock.advance(6 * time.Minute)
	calls := r.tokenCalls(func() {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { r.do("GET", "/", signedIn(public)) })
			wg.Go(func() { r.do("GET", "/", edits(signedIn(portal), r.onHost("eng.localhost"))) })
		}
		wg.Wait()
	})
	if calls != 1 {
		t.Errorf("%d token calls", calls)
	}
}

// OI-18, OI-19, GS-02, GS-03, GS-07: what ends a session, and what must not; a
// group that is lost at the source is lost at the next renewal.
func TestRenewalOutcomes(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) func(*rig) {
		return func(r *rig) {
			r.op.Lie(func(k *claimstest.Knobs) {
				k.TokenHandler = func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					w.Write([]byte(body))
				}
			})
		}
	}
	for _, c := range []struct {
		what  string
		fault func(*rig)
		want  int
		// groups stored afterwards
		groups []string
	}{
		{"nothing happened", func(*rig) {}, 200, []string{"admins", "engineering"}},
		{"a group lost", func(r *rig) { r.op.SetPerson(person("alice", "engineering")) }, 200, []string{"engineering"}},
		{"all groups lost", func(r *rig) { r.op.SetPerson(person("alice")) }, 200, nil},
		{"GS claim absent", func(r *rig) {
			p := person("alice")
			delete(p.Claims, "groups")
			r.op.SetPerson(p)
		}, 200, []string{"admins", "engineering"}},
		{"GS claim null", func(r *rig) {
			p := person("alice")
			p.Claims["groups"] = nil
			r.op.SetPerson(p)
		}, 200, []string{"admins", "engineering"}},
		{"no new ID token", func(r *rig) { r.op.Lie(func(k *claimstest.Knobs) { k.RefreshNoIDToken = true }) }, 200, []string{"admins", "engineering"}},
		{"invalid_grant", func(r *rig) { r.op.RevokeRefresh() }, 401, []string{"admins", "engineering"}},
		{"the person is gone", func(r *rig) { r.op.RemovePerson("alice") }, 401, []string{"admins", "engineering"}},
		{"another sub", func(r *rig) {
			r.op.Lie(func(k *claimstest.Knobs) { k.MutateClaims = func(c map[string]any) { c["sub"] = "bob" } })
		}, 401, []string{"admins", "engineering"}},
		{"a bad signature", func(r *rig) { r.op.Lie(func(k *claimstest.Knobs) { k.Alg = "garbled" }) }, 401, []string{"admins", "engineering"}},
		{"require is not met any more", func(r *rig) {
			p := person("alice", "engineering")
			p.Claims["email"] = "alice@elsewhere.example"
			r.op.SetPerson(p)
		}, 401, []string{"admins", "engineering"}},
		{"server error", answer(500, "oops"), 200, []string{"admins", "engineering"}},
		{"too many requests", answer(429, `{"error":"slow_down"}`), 200, []string{"admins", "engineering"}},
		{"temporarily unavailable", answer(400, `{"error":"temporarily_unavailable"}`), 200, []string{"admins", "engineering"}},
		{"our secret is refused", answer(401, `{"error":"invalid_client"}`), 200, []string{"admins", "engineering"}},
		{"not JSON", answer(200, "<html>"), 200, []string{"admins", "engineering"}},
		{"the provider is down", func(r *rig) { r.op.Stop() }, 200, []string{"admins", "engineering"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				r.groups.Sources[0].Require = claims.Require{EmailDomains: []string{"example.com"}}
			})
			cookie := r.signIn("alice")
			c.fault(r)
			r.clock.advance(6 * time.Minute)
			before := r.up.count()
			res := r.do("GET", "/", signedIn(cookie))
			if res.StatusCode != c.want {
				t.Errorf("%d, want %d", res.StatusCode, c.want)
			}
			if forwarded := r.up.count() != before; forwarded != (c.want == 200) {
				t.Errorf("forwarded: %v", forwarded)
			}
			equal(t, "stored groups", groupsOf(t, r, "alice"), c.groups)
			if c.want != 401 {
				return
			}
			// It is over for good, and the trail says why.
			r.op.Honest()
			if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 401 {
				t.Errorf("again: %d", res.StatusCode)
			}
			list := events(t, r, groups.EventSignOut)
			if len(list) != 1 || list[0].Actor != "source test" || list[0].Reason == "" {
				t.Errorf("audit trail: %+v", list)
			}
		})
	}
}

// datedByTheClock makes the provider live in the proxy's time.
func (r *rig) datedByTheClock(c map[string]any) {
	now := r.clock.Now()
	c["iat"], c["exp"], c["auth_time"] = now.Unix(), now.Add(5*time.Minute).Unix(), now.Unix()
}

// A fault of the source is not asked about again at every request, whatever
// else happens to the session meanwhile.
func TestRenewalBacksOff(t *testing.T) {
	t.Parallel()
	fail := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	for what, fault := range map[string]func(r *rig){
		"the token endpoint": func(r *rig) { r.op.Lie(func(k *claimstest.Knobs) { k.TokenHandler = fail }) },
		// The refresh token is rotated by then, and the new one must be kept.
		"the keys of what it answered": func(r *rig) {
			r.op.RotateKey(false, false)
			r.op.Lie(func(k *claimstest.Knobs) {
				k.JWKSHandler = fail
				k.MutateClaims = r.datedByTheClock
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				r.settings.Sources = []proxy.SourceEntry{{Source: claims.NewOIDC(claims.OIDCOptions{
					Name: "test", Now: r.clock.Now,
					Config: claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientSecret: "secret-of-the-client"},
				})}}
			})
			cookie := r.signIn("alice")
			fault(r)
			r.clock.advance(6 * time.Minute)
			ask := func(n int) int {
				return r.tokenCalls(func() {
					for range n {
						if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 || r.grouped() != "admins,engineering" {
							t.Errorf("%d, %q", res.StatusCode, r.grouped())
						}
					}
				})
			}
			if calls := ask(10); calls != 1 {
				t.Errorf("10 requests made %d token calls", calls)
			}
			r.configure()
			if calls := ask(5); calls != 0 {
				t.Errorf("after a reload: %d token calls", calls)
			}
			r.clock.advance(31 * time.Second)
			if calls := ask(3); calls != 1 {
				t.Errorf("after a while: %d token calls", calls)
			}
			if what != "the token endpoint" {
				return // keys are asked for on a clock of their own
			}
			r.op.Lie(func(k *claimstest.Knobs) { *k = claimstest.Knobs{MutateClaims: r.datedByTheClock} })
			r.op.SetPerson(person("alice", "builders"))
			r.clock.advance(31 * time.Second)
			if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 || r.grouped() != "builders" {
				t.Errorf("when it is back: %d, %q", res.StatusCode, r.grouped())
			}
		})
	}
}

// A source that gives no refresh token: the session lives to its own bounds
// on what was said at the login.
func TestSessionWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateToken = func(answer map[string]any) { delete(answer, "refresh_token") }
	})
	cookie := r.signIn("alice")
	r.clock.advance(30 * time.Minute)
	if calls := r.tokenCalls(func() {
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Error(res.StatusCode)
		}
	}); calls != 0 {
		t.Errorf("%d token calls", calls)
	}
}

// CK-14: keys are rotated by putting the new one first.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	b := r.browser()
	_, authorize := r.begin(b, "rd=/x")
	fresh := []byte("fedcba9876543210fedcba9876543210")
	r.settings.Keys = [][]byte{fresh, r.settings.Keys[0]}
	r.configure()
	if res := hop(t, b, r.answer(b, authorize, "bob")); res.StatusCode != 303 {
		t.Errorf("a login that began before: %d", res.StatusCode)
	}
	r.clock.advance(6 * time.Minute)
	if calls := r.tokenCalls(func() {
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Error(res.StatusCode)
		}
	}); calls != 1 {
		t.Errorf("the old grant was not read: %d token calls", calls)
	}
	_, authorize = r.begin(b, "rd=/x")
	r.settings.Keys = [][]byte{[]byte("another key of thirty-two bytes!")}
	r.configure()
	if res := hop(t, b, r.answer(b, authorize, "bob")); res.StatusCode != 400 {
		t.Errorf("a login under a key that is gone: %d", res.StatusCode)
	}
	// The session is in the store; only its tokens cannot be read.
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("the session: %d", res.StatusCode)
	}
}
