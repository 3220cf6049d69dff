package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/proxy"
)

func setCookies(h http.Header) map[string]*http.Cookie {
	out := map[string]*http.Cookie{}
	for _, c := range (&http.Response{Header: h}).Cookies() {
		out[c.Name] = c
	}
	return out
}

// CK-01, CK-02 and contract section 6.
func TestCookieAttributes(t *testing.T) {
	t.Parallel()
	r := newRig(t, memberOf(numbered(2000)...), headers(proxy.HeadersConfig{MaxBytes: 1 << 20}))
	b := r.browser()
	login := hop(t, b, r.server.URL+"/_auth/start")
	if n := len(login.Header["Set-Cookie"]); n != 1 {
		t.Fatalf("a start sets %d cookies", n)
	}
	for name, c := range setCookies(login.Header) {
		if !strings.HasPrefix(name, "__Host-groupgate-login-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteNoneMode ||
			c.Path != "/" || c.Domain != "" || c.MaxAge != 30*60 {
			t.Errorf("login cookie: %s", c.Raw)
		}
	}
	p := r.login(r.browser(), "alice", "/")
	var c *http.Cookie
	for _, h := range p.Hops {
		if s := setCookies(h.Header)["__Host-groupgate"]; s != nil {
			c = s
		}
	}
	if c == nil {
		t.Fatal("there is no session cookie")
	}
	if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 12*60*60 {
		t.Errorf("session cookie: %s", strings.Replace(c.Raw, c.Value, "...", 1))
	}
	if n := len(c.Raw); n >= 200 {
		t.Errorf("with 2000 groups the cookie has %d bytes", n)
	}
}

// On plain http at loopback browsers take no __Host- name.
func TestPlainLoopbackCookie(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	plain := httptest.NewServer(r.proxy)
	t.Cleanup(plain.Close)
	r.settings.PublicURL = plain.URL
	r.configure()
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	p, err := b.Login(plain.URL+"/x", "alice")
	if err != nil || p.Status != 200 {
		t.Fatalf("login: %v, %v", p, err)
	}
	got := b.Cookies(plain.URL + "/")
	if len(got) != 1 || got[0].Name != "groupgate" {
		t.Errorf("cookies: %v", got)
	}
	for _, h := range p.Hops {
		for _, c := range (&http.Response{Header: h.Header}).Cookies() {
			login := strings.HasPrefix(c.Name, "groupgate-login-")
			if c.Secure != login || !c.HttpOnly || c.Domain != "" {
				t.Errorf("cookie %s: secure %v", c.Name, c.Secure)
			}
		}
	}
	if h := r.up.last(t).Header; h.Get("Cookie") != "" || h.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("upstream got %v", h)
	}
}

func value(cookie string) string { _, v, _ := strings.Cut(cookie, "="); return v }

// CK-03: what was in the browser before the login is worth nothing after it.
func TestFixation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	attackers := r.signIn("bob")
	b := r.browser()
	u, _ := url.Parse(r.server.URL)
	plant := func(v string) {
		b.Client.Jar.SetCookies(u, []*http.Cookie{{Name: "__Host-groupgate", Value: v, Path: "/", Secure: true}})
	}
	planted := strings.Repeat("A", 43)
	plant(planted)
	r.login(b, "alice", "/")
	first := r.cookie(b)
	if value(first) == planted {
		t.Fatal("the login kept the id that was there")
	}
	if res := r.do("GET", "/", signedIn("__Host-groupgate="+planted)); res.StatusCode != 401 {
		t.Errorf("the planted id: %d", res.StatusCode)
	}
	// An attacker's own live session is replaced, and ends.
	plant(value(attackers))
	if p := hop(t, b, r.answer(b, second(r.begin(b, "rd=/")), "alice")); p.StatusCode != 303 {
		t.Fatal(p.StatusCode)
	}
	if got := r.cookie(b); got == attackers {
		t.Error("the login kept the attacker's id")
	}
	if res := r.do("GET", "/", signedIn(attackers)); res.StatusCode != 401 {
		t.Errorf("the attacker's session: %d", res.StatusCode)
	}
	if res := r.do("GET", "/", signedIn(r.cookie(b))); res.StatusCode != 200 {
		t.Errorf("the person's session: %d", res.StatusCode)
	}
}

func second[A, B any](_ A, b B) B { return b }

// CK-04: of several cookies of our name only one that is a session's counts,
// and two sessions are none.
func TestSeveralSessionCookies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice, bob := r.signIn("alice"), r.signIn("bob")
	junk := "__Host-groupgate=" + strings.Repeat("x", 43)
	short := "__Host-groupgate=junk"
	for _, c := range []struct {
		what, cookie string
		status       int
	}{
		{"one", alice, 200},
		{"valid, unknown", alice + "; " + junk, 200},
		{"unknown, valid", junk + "; " + alice, 200},
		{"valid, malformed", alice + "; " + short, 200},
		{"malformed, valid", short + "; " + alice, 200},
		{"the same twice", alice + "; " + alice, 200},
		{"two sessions", alice + "; " + bob, 401},
		{"two sessions, other order", bob + "; " + alice, 401},
		{"quoted", `__Host-groupgate="` + value(alice) + `"`, 401},
		{"other case", strings.Replace(alice, "__Host", "__host", 1), 401},
		{"without the prefix", strings.TrimPrefix(alice, "__Host-"), 401},
		{"U+2000 before the name", "\u2000" + alice, 401},
		{"U+2000 behind the name", strings.Replace(alice, "=", "\u2000=", 1), 401},
		{"blank behind the name", strings.Replace(alice, "=", " =", 1), 401},
		{"nameless", "=" + alice, 401},
		{"$Version", `$Version=1; ` + alice, 200},
		{"inside another value", "a=" + alice, 401},
		{"too many", strings.Repeat(junk[:len(junk)-1]+"a; ", 1) + distinct(6) + alice, 401},
	} {
		res := r.do("GET", "/", signedIn(c.cookie))
		if res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.what, res.StatusCode, c.status)
		}
		if c.status == 200 && r.up.last(t).Header.Get("X-Forwarded-User") != "alice" {
			t.Errorf("%s: served as %q", c.what, r.up.last(t).Header.Get("X-Forwarded-User"))
		}
	}
	// Over two lines, as HTTP/2 sends them.
	if res := r.do("GET", "/", header("Cookie", "a=1", alice)); res.StatusCode != 200 {
		t.Errorf("two lines: %d", res.StatusCode)
	}
	if res := r.do("GET", "/", header("Cookie", bob, alice)); res.StatusCode != 401 {
		t.Errorf("two sessions in two lines: %d", res.StatusCode)
	}
}

func distinct(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "__Host-groupgate=%s%02d; ", strings.Repeat("z", 41), i)
	}
	return b.String()
}

// CK-05, RT-07: whatever a cookie holds, the answer is a login or the public
// page, never a fault and never somebody.
func TestTenThousandMalformedCookies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.signIn("alice")
	random := rand.New(rand.NewPCG(1, 2))
	before := r.up.count()
	for i := range 10_000 {
		cookie := mutated(random, good, i)
		w := httptest.NewRecorder()
		req := httptest.NewRequest("GET", r.server.URL+"/", nil)
		req.Header["Cookie"] = []string{cookie}
		r.proxy.ServeHTTP(w, req)
		if w.Code != 401 {
			t.Fatalf("%q: %d", cookie, w.Code)
		}
	}
	if r.up.count() != before {
		t.Error("the upstream was reached")
	}
	if res := r.do("GET", "/", signedIn(good)); res.StatusCode != 200 {
		t.Errorf("the good one: %d", res.StatusCode)
	}
}

func mutated(random *rand.Rand, good string, i int) string {
	v := []byte(value(good))
	switch i % 6 {
	case 0: // one bit
		v[random.IntN(len(v))] ^= 1 << random.IntN(7)
		if strings.ContainsRune(string(v), ';') {
			v[0] = '!'
		}
	case 1: // cut
		v = v[:random.IntN(len(v))]
	case 2: // longer
		v = append(v, v[:1+random.IntN(len(v)-1)]...)
	case 3: // bytes
		for j := range v {
			v[j] = byte(random.IntN(256))
		}
	case 4: // another id
		for j := range v {
			v[j] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[random.IntN(64)]
		}
	case 5: // shapes of a Cookie line
		return []string{"", ";", "=", ";;;", "__Host-groupgate", "__Host-groupgate=", "=;=;", strings.Repeat("a=b; ", 5000), "__Host-groupgate-login-x=1.y",
			"__Host-groupgate=" + strings.Repeat("=", 43), "\x00", "__Host-groupgate=%00"}[random.IntN(12)]
	}
	return "__Host-groupgate=" + string(v)
}

// PX-14: our cookies stay here, and all others arrive byte for byte.
func TestOurCookiesStayHere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice := r.signIn("alice")
	for _, c := range []struct{ sent, want string }{
		{alice, ""},
		{alice + ";", ""},
		{"theme=dark", "theme=dark"},
		{"theme=dark; " + alice, "theme=dark"},
		{alice + "; theme=dark", "theme=dark"},
		{"a=1;b=2 ;  c=\"x;" + alice + `;y"; d`, `a=1;b=2 ;  c="x;y"; d`},
		{"a=1; __Host-groupgate-login-0a1b2c3d=x.y; b=2", "a=1; b=2"},
		{"groupgate=x; groupgate-login-1=y; a=1", "a=1"},
		{"__Host-groupgate =x; a=1", "a=1"},
		{"groupgates=1; my-groupgate=2; groupgate2=3", "groupgates=1; my-groupgate=2; groupgate2=3"},
		{"a=" + alice, "a=" + alice}, // somebody else's value
		{"caf\xe9=\xff; " + alice + "; =x; ;;", "caf\xe9=\xff; =x; ;;"},
	} {
		before := r.up.count()
		r.do("GET", "/public/x", header("Cookie", c.sent))
		if r.up.count() == before {
			t.Errorf("%q: not served", c.sent)
			continue
		}
		if got := strings.Join(r.up.last(t).Header["Cookie"], "|"); got != c.want {
			t.Errorf("%q arrived as %q, want %q", c.sent, got, c.want)
		}
	}
}

// PX-15: an upstream cannot set our cookies, not even early or without a name.
func TestUpstreamCannotSetOurCookies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ours := []string{
		"__Host-groupgate=evil; Path=/; Secure", "groupgate=evil", "__Host-groupgate-login-1=evil; Path=/", " groupgate = evil", "groupgate\t=evil",
		"=__Host-groupgate=evil", "=groupgate=evil", " = groupgate=evil", "groupgate-login-x=evil", "groupgate", "__Host-groupgate",
	}
	theirs := []string{"app=1; Path=/", "groupgates=1", "my-groupgate=1; HttpOnly"}
	r.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Set-Cookie"] = append(append([]string{}, ours...), theirs...)
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(200)
	})
	res := r.do("GET", "/public/x", nil)
	equal(t, "answer", res.Header["Set-Cookie"], theirs)
	conn := r.knock("GET /public/x HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\n\r\n")
	if conn.StatusCode != http.StatusEarlyHints || conn.Header.Get("Link") == "" {
		t.Fatalf("no early hints: %d %v", conn.StatusCode, conn.Header)
	}
	equal(t, "early hints", conn.Header["Set-Cookie"], theirs)
}
