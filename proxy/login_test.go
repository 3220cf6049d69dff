package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// tokenCalls runs fn and answers how often the provider's token endpoint was
// asked meanwhile.
func (r *rig) tokenCalls(fn func()) int {
	before := r.op.Calls("token")
	fn()
	return r.op.Calls("token") - before
}

func withQuery(t *testing.T, address string, change func(url.Values)) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	change(q)
	u.RawQuery = q.Encode()
	return u.String()
}

// OI-01, OI-05, CK-11, RD-06: an answer that is not to this browser's own,
// unspent login is refused before the provider hears of it.
func TestCallbackIsBoundToOneLogin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what string
		// spoil gets the browser that began the login and the callback's
		// address, and answers who goes where instead.
		spoil func(t *testing.T, r *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string)
		want  int
	}{
		{"as it came", func(_ *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, at
		}, 303},
		{"state missing", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, withQuery(t, at, func(q url.Values) { q.Del("state") })
		}, 400},
		{"state empty", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, withQuery(t, at, func(q url.Values) { q.Set("state", "") })
		}, 400},
		{"state changed", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, withQuery(t, at, func(q url.Values) {
				s := []byte(q.Get("state"))
				s[len(s)/2] ^= 1
				q.Set("state", string(s))
			})
		}, 400},
		{"state made up", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, withQuery(t, at, func(q url.Values) { q.Set("state", strings.Repeat("A", 200)) })
		}, 400},
		{"RD-06 state twice", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, withQuery(t, at, func(q url.Values) { q.Add("state", q.Get("state")) })
		}, 400},
		{"RD-06 code twice", func(t *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, withQuery(t, at, func(q url.Values) { q.Add("code", "other") })
		}, 400},
		{"malformed query", func(_ *testing.T, _ *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, at + "&x=%zz"
		}, 400},
		{"CK-11 another browser", func(_ *testing.T, r *rig, _ *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return r.browser(), at
		}, 400},
		{"CK-11 a browser with a login of its own", func(_ *testing.T, r *rig, _ *claimstest.Browser, at string) (*claimstest.Browser, string) {
			b := r.browser()
			r.begin(b, "source=test")
			return b, at
		}, 400},
		{"CK-11 a cookie of the right name and another value", func(t *testing.T, r *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			other := r.browser()
			u, err := url.Parse(r.server.URL)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range loginCookies(b.Cookies(r.server.URL + "/")) {
				when, _, _ := strings.Cut(c.Value, ".")
				other.Client.Jar.SetCookies(u, []*http.Cookie{{Name: c.Name, Value: when + "." + strings.Repeat("A", 22), Path: "/", Secure: true}})
			}
			return other, at
		}, 400},
		{"expired", func(_ *testing.T, r *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			r.clock.advance(30*time.Minute + time.Second)
			return b, at
		}, 400},
		{"CK-13 slow, in time", func(_ *testing.T, r *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			r.clock.advance(29 * time.Minute)
			return b, at
		}, 303},
		{"another source's callback", func(_ *testing.T, r *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, strings.Replace(at, "/callback/test", "/callback/other", 1)
		}, 400},
		{"a source that does not exist", func(_ *testing.T, r *rig, b *claimstest.Browser, at string) (*claimstest.Browser, string) {
			return b, strings.Replace(at, "/callback/test", "/callback/none", 1)
		}, 404},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, twoSources)
			b := r.browser()
			_, authorize := r.begin(b, "source=test&rd=/x")
			at := r.answer(b, authorize, "alice")
			b, at = c.spoil(t, r, b, at)
			var res *http.Response
			calls := r.tokenCalls(func() { res = hop(t, b, at) })
			if res.StatusCode != c.want {
				t.Errorf("answered %d, want %d", res.StatusCode, c.want)
			}
			if ok := c.want == 303; (calls == 1) != ok {
				t.Errorf("the token endpoint was asked %d times", calls)
			}
			if _, err := r.store.UserByName(t.Context(), "alice"); (err == nil) != (c.want == 303) {
				t.Errorf("the directory knows her: %v", err)
			}
		})
	}
}

// OI-01: a login works once: the callback's address in the history is worth
// nothing.
func TestCallbackWorksOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	state, authorize := r.begin(b, "rd=/x")
	at := r.answer(b, authorize, "alice")
	kept := b.Cookies(r.server.URL + "/")
	res := hop(t, b, at)
	if res.StatusCode != 303 || res.Header.Get("Location") != "/x" {
		t.Fatalf("the login ended with %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	if ref := res.Header.Get("Referrer-Policy"); ref != "no-referrer" { // RD-09
		t.Errorf("Referrer-Policy %q", ref)
	}
	for what, again := range map[string]func() *http.Response{
		"the browser goes back": func() *http.Response { return hop(t, b, at) },
		"somebody kept the login cookie as well": func() *http.Response {
			return r.do("GET", strings.TrimPrefix(at, r.server.URL), func(req *http.Request) {
				for _, c := range kept {
					req.AddCookie(c)
				}
			})
		},
		"with another code": func() *http.Response {
			return r.do("GET", "/_auth/callback/test?code=x&state="+state, func(req *http.Request) {
				for _, c := range kept {
					req.AddCookie(c)
				}
			})
		},
	} {
		calls := r.tokenCalls(func() {
			if res := again(); res.StatusCode != 400 {
				t.Errorf("%s: %d", what, res.StatusCode)
			}
		})
		if calls != 0 {
			t.Errorf("%s: the token endpoint was asked", what)
		}
	}
}

// The same answer twice at the same moment signs in once.
func TestCallbackRace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	_, authorize := r.begin(b, "rd=/x")
	at := strings.TrimPrefix(r.answer(b, authorize, "alice"), r.server.URL)
	cookie := r.cookie(b)
	var mu sync.Mutex
	got := map[int]int{}
	calls := r.tokenCalls(func() {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				res := r.do("GET", at, signedIn(cookie))
				mu.Lock()
				defer mu.Unlock()
				got[res.StatusCode]++
			})
		}
		wg.Wait()
	})
	if got[303] != 1 || got[400] != 9 || calls != 1 {
		t.Errorf("answers %v, %d token calls", got, calls)
	}
}

// CK-10: tabs do not get in each other's way.
func TestTwentyTabsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	at := make([]string, 20)
	var wg sync.WaitGroup
	for i := range at {
		wg.Go(func() {
			// All start before any answer is in: no cookie is sent with them.
			res := r.do("GET", "/_auth/start?rd=/tab"+string(rune('a'+i)), page)
			u, _ := url.Parse(r.server.URL)
			b.Client.Jar.SetCookies(u, res.Cookies())
			at[i] = res.Header.Get("Location")
		})
	}
	wg.Wait()
	for i := len(at) - 1; i >= 0; i-- {
		res := hop(t, b, r.answer(b, at[i], "alice"))
		if want := "/tab" + string(rune('a'+i)); res.StatusCode != 303 || res.Header.Get("Location") != want {
			t.Errorf("tab %d: %d to %q", i, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if left := loginCookies(b.Cookies(r.server.URL + "/")); len(left) != 0 {
		t.Errorf("%d login cookies are left", len(left))
	}
}

func loginCookies(all []*http.Cookie) []*http.Cookie {
	var out []*http.Cookie
	for _, c := range all {
		if strings.HasPrefix(c.Name, "__Host-groupgate-login-") {
			out = append(out, c)
		}
	}
	return out
}

// CK-10: at most ten logins are under way in a browser; the oldest goes.
func TestLoginsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	var at []string
	for i := range 20 {
		_, authorize := r.begin(b, "rd=/"+string(rune('a'+i)))
		at = append(at, authorize)
		if n := len(loginCookies(b.Cookies(r.server.URL + "/"))); n != min(i+1, 10) {
			t.Fatalf("after %d starts there are %d login cookies", i+1, n)
		}
	}
	for i := len(at) - 1; i >= 0; i-- {
		want := 303
		if i < 10 {
			want = 400
		}
		if res := hop(t, b, r.answer(b, at[i], "alice")); res.StatusCode != want {
			t.Errorf("login %d: %d, want %d", i, res.StatusCode, want)
		}
	}
}

// Starting costs no memory and no call of the provider; SC-17.
func TestStartsAreStateless(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do("GET", "/_auth/start", page)
	discovery, keys := r.op.Calls("discovery"), r.op.Calls("jwks")
	for range 50 {
		if res := r.do("GET", "/_auth/start", page); res.StatusCode != 302 {
			t.Fatal(res.StatusCode)
		}
	}
	if r.op.Calls("discovery") != discovery || r.op.Calls("jwks") != keys || r.op.Calls("token") != 0 || r.proxy.Sessions() != 0 {
		t.Error("a start asked the provider, or was kept")
	}
}
