package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/proxy"
)

// A login at one pod is a session at all that have the key, with every group,
// in cookies that browsers take; what does not fit is refused and never cut.
func TestSealedSessionIsEverywhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	other := r.otherPod()
	for _, c := range []struct{ groups, cookies int }{{1, 1}, {50, 1}, {500, 4}} {
		inGroups("alice", c.groups)(r)
		b := r.browser()
		if p := r.login(b, "alice", "/reports"); p.Status != 200 {
			t.Fatalf("%d groups: login ended with %d: %s", c.groups, p.Status, p.Body)
		}
		n, largest := pieceTotal(b, r.server.URL+"/")
		if n != c.cookies || largest > 4000 {
			t.Errorf("%d groups: %d cookies, the largest %d bytes", c.groups, n, largest)
		}
		want := manyGroups(c.groups)
		slices.Sort(want)
		for name, p := range map[string]*proxy.Proxy{"here": r.proxy, "there": other} {
			w, got := r.askAt(p, r.cookie(b))
			if w.Code != 200 || got == nil || got.Header.Get("X-Forwarded-Groups") != strings.Join(want, ",") || got.Header.Get("X-Forwarded-User") != "alice" {
				t.Errorf("%d groups, %s: %d, upstream got %+v", c.groups, name, w.Code, got)
			}
			if got != nil && strings.Contains(got.Header.Get("Cookie"), "groupgate") {
				t.Errorf("the upstream got our cookies: %q", got.Header.Get("Cookie"))
			}
		}
	}
	inGroups("alice", 5000)(r)
	b := r.browser()
	p := r.login(b, "alice", "/reports")
	if n, _ := pieceTotal(b, r.server.URL+"/"); p.Status != 502 || !strings.Contains(p.Body, "Too many groups") || n != 0 {
		t.Errorf("5000 groups: %d, %d cookies", p.Status, n)
	}
	if log := r.logs.String(); !strings.Contains(log, "5000 groups") || !strings.Contains(log, "header_overflow") {
		t.Error("neither log nor audit trail says how many groups were too many")
	}
	inGroups("alice", 1)(r)
	if p := r.login(b, "alice", "/reports"); p.Status != 200 {
		t.Errorf("and with one group again: %d", p.Status)
	}
}

// Nothing but exactly what was sealed counts, and whatever is made of it is
// nobody's session.
func TestSealedSessionCannotBeMade(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless, portals)
	inGroups("alice", 500)(r)
	inGroups("bob", 500)(r)
	alice, bob := sessionOf(r.signIn("alice")), sessionOf(r.signIn("bob"))
	if len(alice) != 4 || len(bob) != 4 {
		t.Fatalf("%d and %d cookies", len(alice), len(bob))
	}
	edit := func(fn func(p []string)) string {
		p := slices.Clone(alice)
		fn(p)
		return asCookies(p...)
	}
	flip := func(s string, i int) string {
		c := byte('A')
		if s[i] == c {
			c = 'B'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	cases := map[string]string{
		"swapped":         edit(func(p []string) { p[1], p[2] = p[2], p[1] }),
		"the first last":  edit(func(p []string) { p[0], p[3] = p[3], p[0] }),
		"a piece of bob":  edit(func(p []string) { p[2] = bob[2] }),
		"half of bob":     edit(func(p []string) { p[0], p[1] = bob[0], bob[1] }),
		"one more":        edit(func(p []string) { p[0] = "5" + p[0][1:] }),
		"one less":        edit(func(p []string) { p[0] = "3" + p[0][1:] }),
		"none":            edit(func(p []string) { p[0] = "0" + p[0][1:] }),
		"no count":        edit(func(p []string) { p[0] = p[0][2:] }),
		"cut":             edit(func(p []string) { p[3] = p[3][:len(p[3])-1] }),
		"longer":          edit(func(p []string) { p[3] += "A" }),
		"a huge piece":    edit(func(p []string) { p[1] += strings.Repeat("A", 9000) }),
		"not base64":      edit(func(p []string) { p[2] = "%" + p[2][1:] }),
		"an opaque id":    "__Host-groupgate=" + strings.Repeat("A", 43),
		"without prefix":  strings.ReplaceAll(asCookies(alice...), "__Host-", ""),
		"doubled":         asCookies(alice...) + "; __Host-groupgate-2=" + bob[2],
		"two persons":     asCookies(alice...) + "; " + asCookies(bob...),
		"empty":           "__Host-groupgate=",
		"count and empty": "__Host-groupgate=1.",
	}
	for i := range alice {
		cases[fmt.Sprintf("without piece %d", i)] = edit(func(p []string) { p[i] = "" })
		cases[fmt.Sprintf("a bit of piece %d", i)] = edit(func(p []string) { p[i] = flip(p[i], len(p[i])/2) })
	}
	other := r.otherPod() // that remembers nothing
	for name, cookie := range cases {
		for _, p := range []*proxy.Proxy{r.proxy, other} {
			if w, got := r.askAt(p, cookie); w.Code != 401 || got != nil {
				t.Errorf("%s: %d, upstream reached: %v", name, w.Code, got != nil)
			}
		}
	}
	carol := sessionOf(r.signIn("carol"))
	for name, cookie := range map[string]string{
		"as it is":                 asCookies(alice...),
		"the pieces in disorder":   "__Host-groupgate-3=" + alice[3] + "; " + asCookies(alice[:3]...),
		"the same twice":           asCookies(alice...) + "; " + asCookies(alice...),
		"rest of a longer session": asCookies(carol[0], alice[1], alice[2], alice[3]),
	} {
		if w, got := r.askAt(other, cookie); w.Code != 200 || got == nil {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	for name, p := range map[string]*proxy.Proxy{
		"another key": r.otherPod(func(s *proxy.Settings) { s.Keys = [][]byte{[]byte("another-key-another-key-another-key")} }),
		"another address": r.otherPod(func(s *proxy.Settings) {
			s.PublicURL = "https://other.localhost:" + r.port()
		}),
	} {
		host := func(req *http.Request) {
			if name == "another address" {
				req.Host = "other.localhost:" + r.port()
			}
		}
		if w, got := r.askAt(p, asCookies(alice...), host); w.Code != 401 || got != nil {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	// A portal's session is that portal's, and the public host's its own.
	b := r.browser()
	form, err := b.Login(r.portal("board.localhost")+"/x", "bob")
	if err == nil {
		_, err = b.Submit(form, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	var board string
	for _, c := range b.Cookies(r.portal("board.localhost") + "/") {
		if len(sessionOf(c.Name+"="+c.Value)) == 1 {
			board += "; " + c.Name + "=" + c.Value
		}
	}
	board = strings.TrimPrefix(board, "; ")
	for _, c := range []struct {
		what, cookie, host string
		status             int
	}{
		{"at home", board, "board.localhost", 200}, {"at the public host", board, "127.0.0.1", 401},
		{"at another portal", board, "eng.localhost", 401}, {"public at a portal", asCookies(alice...), "board.localhost", 401},
	} {
		if w, _ := r.askAt(other, c.cookie, r.onHost(c.host)); w.Code != c.status {
			t.Errorf("%s: %d, want %d", c.what, w.Code, c.status)
		}
	}
}

// Both ends of a session hold at every pod, and the browser's cookies tell all
// of them that it is used.
func TestSealedSessionEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	r.settings.Session.Refresh = 48 * time.Hour
	r.configure()
	first := r.signIn("alice")
	cookie := first
	for range 6 {
		r.clock.advance(11 * time.Minute)
		w, _ := r.askAt(r.proxy, cookie)
		if w.Code != 200 || w.Header().Get("Set-Cookie") == "" || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%d, new cookies: %q", w.Code, w.Header().Get("Set-Cookie"))
		}
		cookie = after(cookie, w)
	}
	if w, _ := r.askAt(r.proxy, cookie); w.Header().Get("Set-Cookie") != "" {
		t.Error("cookies that are new are replaced again")
	}
	other := r.otherPod()
	if w, _ := r.askAt(other, first); w.Code != 401 {
		t.Errorf("cookies of an hour ago: %d", w.Code)
	}
	if w, _ := r.askAt(other, cookie); w.Code != 200 {
		t.Errorf("cookies of now: %d", w.Code)
	}
	r.clock.advance(61 * time.Minute)
	for _, p := range []*proxy.Proxy{r.proxy, other} {
		if w, _ := r.askAt(p, cookie); w.Code != 401 {
			t.Errorf("idle: %d", w.Code)
		}
	}
	// Whatever is done, no session outlives its lifetime.
	cookie = r.signIn("alice")
	for range 26 {
		r.clock.advance(27 * time.Minute)
		w, _ := r.askAt(r.proxy, cookie)
		if w.Code != 200 {
			t.Fatalf("in use: %d", w.Code)
		}
		cookie = after(cookie, w)
	}
	r.clock.advance(27 * time.Minute)
	for _, p := range []*proxy.Proxy{r.proxy, r.otherPod()} {
		if w, _ := r.askAt(p, cookie); w.Code != 401 {
			t.Errorf("after its lifetime: %d", w.Code)
		}
	}
}

// An upstream's answer that caches may keep must not carry a session into them.
func TestNoCacheKeepsASealedSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Surrogate-Control", "max-age=3600")
		if req.URL.Path == "/unchanged" {
			w.WriteHeader(http.StatusNotModified)
		}
	})
	cookie := r.signIn("alice")
	if w, _ := r.askAt(r.proxy, cookie); w.Header().Get("Cache-Control") != "public, max-age=3600" || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("without new cookies: %v", w.Header())
	}
	r.clock.advance(10 * time.Minute)
	unchanged := func(req *http.Request) { req.URL.Path = "/unchanged" }
	if w, _ := r.askAt(r.proxy, cookie, unchanged); w.Code != 304 || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("304 changes what a cache holds: %v", w.Header())
	}
	w, _ := r.askAt(r.proxy, cookie)
	if w.Header().Get("Set-Cookie") == "" || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Surrogate-Control") != "" {
		t.Errorf("with new cookies: %v", w.Header())
	}
}

// A key that comes first writes, and those behind it read, over restarts.
func TestSealedSessionsOutliveAKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	old, fresh := r.settings.Keys[0], []byte("fedcba9876543210fedcba9876543210")
	cookie := r.signIn("alice")
	keys := func(k ...[]byte) *proxy.Proxy { return r.otherPod(func(s *proxy.Settings) { s.Keys = k }) }
	if w, _ := r.askAt(keys(fresh), cookie); w.Code != 401 {
		t.Errorf("with the new key alone: %d", w.Code)
	}
	both := keys(fresh, old)
	r.clock.advance(10 * time.Minute)
	w, _ := r.askAt(both, cookie)
	if w.Code != 200 {
		t.Fatalf("with both keys: %d", w.Code)
	}
	if w, _ := r.askAt(keys(fresh), after(cookie, w)); w.Code != 200 {
		t.Errorf("sealed anew, with the new key alone: %d", w.Code)
	}
}

// However many requests come with the cookies of before a renewal, the provider
// is asked once at this pod, and all get the new cookies. At a pod that comes
// too late with a used-up refresh token the person is served until the new
// cookies arrive, and not for longer.
func TestSealedRenewal(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	old := r.signIn("alice")
	r.op.SetPerson(person("alice", "builders"))
	r.clock.advance(6 * time.Minute)
	r.op.Lie(func(k *claimstest.Knobs) { k.Delay = 50 * time.Millisecond })
	var mu sync.Mutex
	fresh := ""
	var wrong atomic.Int64
	ask := func() {
		w, _ := r.askAt(r.proxy, old)
		if w.Code != 200 || w.Header().Get("Set-Cookie") == "" {
			wrong.Add(1)
		}
		mu.Lock()
		defer mu.Unlock()
		fresh = after(old, w)
	}
	if calls := r.tokenCalls(func() {
		var all sync.WaitGroup
		for range 50 {
			all.Go(ask)
		}
		all.Wait()
	}); calls != 1 || wrong.Load() != 0 {
		t.Errorf("%d token calls, %d answers without the new cookies", calls, wrong.Load())
	}
	r.op.Honest()
	if r.grouped() != "builders" {
		t.Errorf("groups %q", r.grouped())
	}
	other := r.otherPod()
	at := func(p *proxy.Proxy, cookie, want string, status int) {
		t.Helper()
		w, got := r.askAt(p, cookie)
		if w.Code != status || (got != nil) != (status == 200) || got != nil && got.Header.Get("X-Forwarded-Groups") != want {
			t.Errorf("%d, upstream got %+v", w.Code, got)
		}
	}
	if calls := r.tokenCalls(func() {
		for range 3 {
			at(other, old, "admins,engineering", 200) // the source refused: somebody was first
			at(other, fresh, "builders", 200)
			at(r.proxy, old, "builders", 200)
		}
	}); calls != 1 {
		t.Errorf("%d token calls", calls)
	}
	r.clock.advance(31 * time.Second)
	if calls := r.tokenCalls(func() {
		third := r.otherPod()
		at(other, fresh, "builders", 200)
		at(third, fresh, "builders", 200)
	}); calls != 0 {
		t.Errorf("%d token calls", calls)
	}
	fourth := r.otherPod()
	at(fourth, old, "admins,engineering", 200)
	r.clock.advance(31 * time.Second)
	at(fourth, old, "", 401)
	at(fourth, old, "", 401)
	at(fourth, fresh, "builders", 200)
}

// A person whom the source does not let in any more, or who lacks what is
// required by now, is out with the renewal; a source that is down takes nobody's
// session.
func TestSealedRenewalRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	alice, bob := r.signIn("alice"), r.signIn("bob")
	r.clock.advance(6 * time.Minute)
	r.op.Lie(func(k *claimstest.Knobs) {
		k.TokenHandler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	})
	for range 2 {
		if w, _ := r.askAt(r.proxy, alice); w.Code != 200 {
			t.Errorf("the source is down: %d", w.Code)
		}
	}
	r.op.Honest()
	r.clock.advance(31 * time.Second)
	r.groups.Sources[0].Require = claims.Require{EmailDomains: []string{"example.org"}}
	r.configure()
	for range 2 {
		if w, _ := r.askAt(r.proxy, alice); w.Code != 401 {
			t.Errorf("not of a domain that is let in: %d", w.Code)
		}
	}
	r.groups.Sources[0].Require = claims.Require{}
	r.configure()
	r.op.RevokeRefresh()
	if w, _ := r.askAt(r.proxy, bob); w.Code != 200 {
		t.Errorf("refused a moment ago: %d", w.Code)
	}
	r.clock.advance(31 * time.Second)
	if w, _ := r.askAt(r.proxy, bob); w.Code != 401 {
		t.Errorf("refused for good: %d", w.Code)
	}
}

// A rule that goes takes its groups at the very next request; one that comes
// gives them at the next renewal.
func TestSealedSessionsFollowTheRules(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	r.groups.Rules[0].Any, r.groups.Rules[0].Value, r.groups.Rules[0].Group = false, "admins", "admins"
	r.configure()
	cookie := r.signIn("alice")
	has := func(what, want string) {
		t.Helper()
		w, got := r.askAt(r.proxy, cookie)
		if got == nil || got.Header.Get("X-Forwarded-Groups") != want {
			t.Errorf("%s: %d, %+v", what, w.Code, got)
		}
		cookie = after(cookie, w)
	}
	has("at first", "admins")
	r.groups.Rules[0].Value, r.groups.Rules[0].Group = "engineering", "builders"
	r.configure()
	has("another rule", "")
	r.clock.advance(6 * time.Minute)
	has("renewed", "builders")
}

// Signing out takes the cookies from the browser. A copy of them is worth
// nothing where that happened, and what it was everywhere else: nobody else
// could know.
func TestSealedSignOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	inGroups("alice", 500)(r)
	b := r.browser()
	r.login(b, "alice", "/")
	copied := r.cookie(b)
	if p, err := b.Get(r.server.URL + "/_auth/sign_out"); err != nil || p.Status != 200 {
		t.Fatalf("%v, %+v", err, p)
	}
	if n, _ := pieceTotal(b, r.server.URL+"/"); n != 0 {
		t.Errorf("%d cookies of the session are left", n)
	}
	if w, _ := r.askAt(r.proxy, copied); w.Code != 401 {
		t.Errorf("a copy, here: %d", w.Code)
	}
	if w, _ := r.askAt(r.otherPod(), copied); w.Code != 200 {
		t.Errorf("a copy, elsewhere: %d; if that is refused now, the documents must say so", w.Code)
	}
	// A smaller session takes the pieces of a larger one away.
	inGroups("bob", 500)(r)
	b = r.browser()
	r.login(b, "bob", "/")
	r.login(b, "carol", "/_auth/start?source=test")
	if n, _ := pieceTotal(b, r.server.URL+"/"); n != 1 {
		t.Errorf("%d cookies after a login with fewer groups", n)
	}
	if res := r.logout(r.op.LogoutToken("alice", "")); res.StatusCode != 404 {
		t.Errorf("back-channel logout: %d", res.StatusCode)
	}
}

// A portal's session comes by a ticket that carries it: in the address when it
// is small, by a form otherwise; once, and in the browser that asked.
func TestSealedHandover(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless, portals)
	b := r.browser()
	ticket := r.ticket(b, "board.localhost", "/x", "alice")
	if res := hop(t, r.browser(), ticket); res.StatusCode != 400 {
		t.Errorf("in another browser: %d", res.StatusCode)
	}
	var bound []string // a browser that does not forget what bound the login to it
	for _, c := range b.Cookies(r.portal("board.localhost") + "/") {
		bound = append(bound, c.Name+"="+c.Value)
	}
	if res := hop(t, b, ticket); res.StatusCode != 303 {
		t.Errorf("in its own: %d", res.StatusCode)
	}
	w, _ := r.askAt(r.proxy, strings.Join(bound, "; "), r.onHost("board.localhost"), func(req *http.Request) {
		u, err := url.Parse(ticket)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path, req.URL.RawQuery = u.Path, u.RawQuery
	})
	if w.Code != 400 || !strings.Contains(w.Body.String(), "replayed") {
		t.Errorf("again: %d %s", w.Code, w.Body)
	}
	if p, err := b.Get(r.portal("board.localhost") + "/x"); err != nil || p.Status != 200 {
		t.Errorf("%v, %+v", err, p)
	}
	inGroups("bob", 300)(r)
	b = r.browser()
	p, err := b.Login(r.portal("board.localhost")+"/x?y=1", "bob")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.Body, "/_auth/handover") {
		t.Fatalf("a large session: no form, but %d at %s", p.Status, p.URL)
	}
	p, err = b.Submit(p, nil)
	if err != nil || p.Status != 200 || p.URL.String() != r.portal("board.localhost")+"/x?y=1" {
		t.Fatalf("%v, %+v", err, p)
	}
	if got := r.up.last(t).Header.Get("X-Forwarded-Groups"); strings.Count(got, ",") != 299 {
		t.Errorf("%d groups", strings.Count(got, ",")+1)
	}
	p, err = b.Get(r.portal("eng.localhost") + "/")
	if err == nil && strings.Contains(p.Body, "/_auth/handover") {
		p, err = b.Submit(p, nil)
	}
	if err != nil || p.Status != 403 {
		t.Errorf("a portal of another group: %v, %+v", err, p)
	}
}

// Assertions of all pods have the same keys and call a person the same.
func TestSealedAssertions(t *testing.T) {
	t.Parallel()
	signer := func(r *rig) {
		made, err := proxy.DeriveSigningKeys(r.settings.Keys)
		if err != nil {
			r.t.Fatal(err)
		}
		if r.settings.Signer, err = proxy.NewSigner(made...); err != nil {
			r.t.Fatal(err)
		}
		r.settings.Headers.Assertion = "X-Groupgate-Assertion"
	}
	r := newRig(t, stateless, signer)
	other := r.otherPod()
	var subjects []string
	for _, who := range []string{"alice", "bob"} {
		cookie := r.signIn(who)
		for _, p := range []*proxy.Proxy{r.proxy, other} {
			_, got := r.askAt(p, cookie)
			said := claimsOf(t, r, got.Header.Get("X-Groupgate-Assertion")) // with the keys of the first pod
			if said.User != who || said.Subject == "u0" {
				t.Errorf("%s: %+v", who, said)
			}
			subjects = append(subjects, said.Subject)
		}
	}
	if subjects[0] != subjects[1] || subjects[2] != subjects[3] || subjects[0] == subjects[2] {
		t.Errorf("alice and bob, here and there: %q", subjects)
	}
}

// A socket lasts as long as its session, which nobody else keeps: through other
// settings and renewals, and not for longer.
func TestSealedSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, stateless)
	cookie := r.signIn("alice")
	accept, opened := switching(t)
	r.up.answer(accept)
	r.wire("/socket", cookie)
	<-opened
	r.configure()
	for what, jump := range map[string]time.Duration{"at once": 0, "renewed": 6 * time.Minute} {
		r.clock.advance(jump)
		if r.proxy.Recheck(t.Context()); r.proxy.Live() != 1 {
			t.Errorf("%s: the socket is gone", what)
		}
	}
	r.clock.advance(12 * time.Hour)
	r.proxy.Recheck(t.Context())
	eventually(t, "the socket closed", 5*time.Second, func() bool { return r.proxy.Live() == 0 })
}

// BenchmarkSealedSignedIn is BenchmarkSignedIn with the session in the browser,
// in one cookie and in four, and the same with a directory.
func BenchmarkSealedSignedIn(b *testing.B) {
	kept := func(r *rig) { r.settings.Headers.MaxBytes = 1 << 20 }
	for name, where := range map[string]option{"sealed": stateless, "kept": kept} {
		for _, n := range []int{2, 500} {
			b.Run(fmt.Sprintf("%s, %d groups", name, n), func(b *testing.B) {
				r := newRig(b, where)
				inGroups("alice", n)(r)
				cookie := r.signIn("alice")
				app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
				b.Cleanup(app.Close)
				r.settings.Upstream = app.URL
				r.configure()
				req := httptest.NewRequest("GET", r.server.URL+"/reports", nil)
				req.RemoteAddr = "127.0.0.1:1"
				req.Header.Set("Cookie", cookie)
				w := &nowhere{http.Header{}}
				b.ReportAllocs()
				for b.Loop() {
					clear(w.header)
					r.proxy.ServeHTTP(w, req)
				}
			})
		}
	}
}
