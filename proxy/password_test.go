package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
)

// The form signs in: a wrong password shows it again with the name kept, the
// right one leads to where the person wanted to go.
func TestFormSignsIn(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	b := r.browser()
	form, err := b.Get(r.server.URL + "/reports?year=2026") // a single source: no chooser
	if err != nil {
		t.Fatal(err)
	}
	must(t, "a page without a session", form, 200)
	if !strings.Contains(form.Body, "Company directory") || strings.Contains(form.Body, "Other ways") || strings.Contains(form.Body, `role="alert"`) {
		t.Errorf("the form: %s", form.Body)
	}
	if f := form.Forms()[0]; f.Method != "POST" || f.Action != "/_auth/login/corp" {
		t.Errorf("it is sent by %s to %s", f.Method, f.Action)
	}
	again := r.submit(b, form, `Alice"><b>`, "not it")
	must(t, "wrong password", again, 401)
	f := again.Forms()[0]
	if f.Fields["username"] != `Alice"><b>` || f.Fields["password"] != "" || !strings.Contains(again.Body, `role="alert"`) || strings.Contains(again.Body, "not it") {
		t.Errorf("the form again: %+v: %s", f, again.Body)
	}
	if got := r.up.count(); got != 0 {
		t.Errorf("the upstream got %d requests", got)
	}
	in := r.submit(b, again, "Alice", passwordOf("alice"))
	must(t, "right password", in, 200)
	if got := in.Hops[0]; got.Status != 303 || got.Header.Get("Location") != "/reports?year=2026" {
		t.Errorf("the form led to %d %q", got.Status, got.Header.Get("Location"))
	}
	got := r.up.last(t)
	if got.URI != "/reports?year=2026" || got.Header.Get("X-Forwarded-User") != "alice" || got.Header.Get("X-Forwarded-Groups") != "staff" {
		t.Errorf("the upstream got %s %v", got.URI, got.Header)
	}
	if left := loginCookies(b.Cookies(r.server.URL + "/")); len(left) != 0 {
		t.Errorf("%d login cookies are left", len(left))
	}
	for _, c := range got.Header["Cookie"] {
		t.Errorf("the upstream got the cookie %s", c)
	}
	// The address of the form that was wrong is one that browsers come back to.
	back, err := r.browser().Get(r.server.URL + "/_auth/login/corp")
	if err != nil || back.Status != 200 || len(back.Forms()) != 1 {
		t.Errorf("the form's own address: %v, %+v", err, back)
	}
	if s := r.proxy.Logins()[0]; s.Protocol != "ldap" || s.OK.Load() != 1 || s.Failed.Load() != 1 {
		t.Errorf("counted: %s %d ok, %d failed", s.Protocol, s.OK.Load(), s.Failed.Load())
	}
}

// A program that posts the form gets JSON with a code.
func TestFormAnswersScripts(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	b := r.browser()
	token := r.form(b, "source=corp").Forms()[0].Fields["token"]
	send := func(password string) (*http.Response, map[string]string) {
		res := r.script("/_auth/login/corp", url.Values{"username": {"alice"}, "password": {password}, "token": {token}}, signedIn(r.cookie(b)))
		var body map[string]string
		if res.StatusCode >= 400 {
			if err := json.Unmarshal([]byte(bodyOf(t, res)), &body); err != nil {
				t.Fatal(err)
			}
		}
		return res, body
	}
	for range 10 {
		if res, body := send("not it"); res.StatusCode != 401 || body["error"] != "wrong_password" || body["request_id"] == "" {
			t.Fatalf("%d, %v", res.StatusCode, body)
		}
	}
	res, body := send(passwordOf("alice"))
	if res.StatusCode != 429 || body["error"] != "too_many_attempts" || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d, %v, %v", res.StatusCode, body, res.Header)
	}
	r.clock.advance(2 * time.Minute)
	if res, _ := send(passwordOf("alice")); res.StatusCode != 303 || res.Header.Get("Location") != "/" {
		t.Errorf("the right password: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
}

// LD-16: only this browser's own form counts, from our own page, whatever
// else somebody makes the browser send. Nobody can frame it.
func TestFormsFromElsewhere(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k, proxyEntry(newKeeper("other"))))
	b := r.browser()
	stranger := r.browser()
	page := r.form(b, "source=corp&rd=/x")
	good := url.Values{"username": {"alice"}, "password": {passwordOf("alice")}, "token": {page.Forms()[0].Fields["token"]}}
	with := func(name string, values ...string) url.Values {
		v := url.Values{}
		for n, of := range good {
			v[n] = of
		}
		v[name] = values
		return v
	}
	for _, h := range []struct{ name, want string }{
		{"Content-Security-Policy", "frame-ancestors 'none'"}, {"Content-Security-Policy", "default-src 'none'"},
		{"Content-Security-Policy", "form-action 'self'"}, {"X-Frame-Options", "DENY"}, {"Cache-Control", "no-store"}, {"Referrer-Policy", "no-referrer"},
	} {
		if got := page.Header.Get(h.name); !strings.Contains(got, h.want) {
			t.Errorf("%s: %q lacks %q", h.name, got, h.want)
		}
	}
	if strings.Contains(page.Header.Get("Content-Security-Policy"), "script") || strings.Contains(page.Body, "<script") {
		t.Error("the form has a script")
	}
	mine, theirs := signedIn(r.cookie(b)), r.form(stranger, "source=corp&rd=/x").Forms()[0].Fields["token"]
	other := r.form(b, "source=other&rd=/x").Forms()[0].Fields["token"]
	state, _ := url.Parse(page.URL.String())
	for _, c := range []struct {
		what   string
		path   string
		values url.Values
		edit   func(*http.Request)
		want   int
	}{
		{"no token", "", with("token"), mine, 400},
		{"an empty token", "", with("token", ""), mine, 400},
		{"a made-up token", "", with("token", strings.Repeat("A", 80)), mine, 400},
		{"the token of another browser", "", with("token", theirs), mine, 400},
		{"the token of another source", "", with("token", other), signedIn(r.cookie(b)), 400},
		{"two tokens", "", with("token", good.Get("token"), theirs), mine, 400},
		{"two user names", "", with("username", "alice", "bob"), mine, 400},
		{"no password", "", with("password"), mine, 400},
		{"no cookie", "", good, nil, 400},
		{"another browser's cookie", "", good, signedIn(r.cookie(stranger)), 400},
		{"another site's page", "", good, edits(mine, header("Sec-Fetch-Site", "cross-site")), 400},
		{"a page of a sibling", "", good, edits(mine, header("Sec-Fetch-Site", "same-site")), 400},
		{"another origin, in an old browser", "", good, edits(mine, header("Origin", "https://evil.example")), 400},
		{"fields in the address", "?" + state.RawQuery, good, mine, 400},
		{"JSON", "", good, edits(mine, header("Content-Type", "application/json")), 415},
		{"plain text", "", good, edits(mine, header("Content-Type", "text/plain")), 415},
		{"a body without an end", "", with("password", strings.Repeat("x", 64<<10)), mine, 413},
		{"a source that does not exist", "none", good, mine, 404},
	} {
		t.Run(c.what, func(t *testing.T) {
			path := "/_auth/login/corp" + c.path
			if c.path == "none" {
				path = "/_auth/login/none"
			}
			res := r.script(path, c.values, c.edit)
			if res.StatusCode != c.want {
				t.Errorf("%d, want %d: %s", res.StatusCode, c.want, bodyOf(t, res))
			}
			if n := k.calls(); n != 0 {
				t.Errorf("the source was asked %d times", n)
			}
		})
	}
	// The same, as it should be; "null" is what a page without a referrer sends.
	for _, edit := range []func(*http.Request){
		edits(mine, header("Sec-Fetch-Site", "same-origin"), header("Origin", "null")), edits(mine, header("Origin", "null")), edits(mine, header("Origin", r.server.URL)),
	} {
		res := r.script("/_auth/login/corp", with("password", "not it"), edit)
		if res.StatusCode != 401 || k.calls() != 1 {
			t.Errorf("our own page: %d", res.StatusCode)
		}
	}
	res := r.script("/_auth/login/corp", good, mine)
	if res.StatusCode != 303 {
		t.Errorf("the good form: %d", res.StatusCode)
	}
	for _, c := range res.Cookies() {
		if c.Name == "__Host-groupgate" && (c.SameSite != http.SameSiteLaxMode || !c.HttpOnly || !c.Secure) {
			t.Errorf("the session's cookie: %v", c)
		}
	}
	// CK-06: it worked once.
	if res := r.script("/_auth/login/corp", good, mine); res.StatusCode != 400 {
		t.Errorf("the form again after it worked: %d", res.StatusCode)
	}
	if n := len(sessionsOf(t, r, "alice")); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
}

// A form that lay open for too long says so; the person begins again.
func TestFormsGetOld(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	b := r.browser()
	form := r.form(b, "source=corp")
	r.clock.advance(31 * time.Minute)
	old := r.submit(b, form, "alice", passwordOf("alice"))
	must(t, "an old form", old, 400)
	if !strings.Contains(old.Body, "This sign-in is over") || k.calls() != 0 {
		t.Errorf("it says %s", old.Body)
	}
	must(t, "a new one", r.try(b, "alice", passwordOf("alice")), 200)
}

// What the source says about the account beside the password: disabled ends
// what there is and says who; locked refuses; a source that is down is no wrong
// password.
func TestAccountsThatMayNotSignIn(t *testing.T) { // LD-14
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	b := r.browser()
	must(t, "alice", r.try(b, "alice", passwordOf("alice")), 200)
	cookie := r.cookie(b)
	equal(t, "groups", groupsOf(t, r, "alice"), []string{"staff"})

	k.change(func() { k.accounts["alice"].disabled, k.accounts["bob"].locked = true, true })
	must(t, "a wrong password of a disabled account", r.try(r.browser(), "alice", "not it"), 401)
	if res := r.do("GET", "/x", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("a stranger ended her session: %d", res.StatusCode)
	}
	off := r.try(r.browser(), "alice", passwordOf("alice"))
	must(t, "a disabled account", off, 403)
	if !strings.Contains(off.Body, "You cannot sign in here") || strings.Contains(off.Body, "disabled") {
		t.Errorf("the page: %s", off.Body)
	}
	if res := r.do("GET", "/x", signedIn(cookie)); res.StatusCode != 401 {
		t.Errorf("her session lives on: %d", res.StatusCode)
	}
	equal(t, "groups of a disabled person", groupsOf(t, r, "alice"), nil)
	must(t, "a locked account", r.try(r.browser(), "bob", passwordOf("bob")), 403)

	k.change(func() { k.fault = fmt.Errorf("corp: %w", claims.ErrUnavailable) })
	down := r.try(r.browser(), "carol", passwordOf("carol"))
	must(t, "a source that is down", down, 503)
	if down.Header.Get("Retry-After") == "" || !strings.Contains(down.Body, "Sign-in is not possible right now") {
		t.Errorf("the page: %v %s", down.Header, down.Body)
	}
	k.change(func() { k.fault = nil })
	must(t, "when it is back", r.try(r.browser(), "carol", passwordOf("carol")), 200)
	var said []string
	eventually(t, "both refusals in the audit trail", 5*time.Second, func() bool {
		said = nil
		for _, e := range events(t, r, groups.EventRefused) {
			said = append(said, e.Name+": "+e.Reason)
		}
		return slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "alice: the source says") }) &&
			slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "bob: corp: the account is locked") })
	})
}

// A source that does not answer is given up after the ten seconds of contract
// section 8.
func TestSourceThatHangs(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	k.hangs = true
	r := newRig(t, withForm(k))
	began := time.Now()
	must(t, "a source that hangs", r.try(r.browser(), "alice", passwordOf("alice")), 503)
	if took := time.Since(began); took > 14*time.Second {
		t.Errorf("it took %v", took)
	}
}

// The store is down: nobody's password is asked for in vain.
func TestFormWithoutAStore(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	b := r.browser()
	form := r.form(b, "source=corp")
	r.faults.down.Store(true)
	page := r.submit(b, form, "alice", passwordOf("alice"))
	must(t, "without a store", page, 503)
	r.faults.down.Store(false)
	must(t, "the same form when it is back", r.submit(b, form, "alice", passwordOf("alice")), 200)
}

// Failures are written down with where they came from; a user name only when
// somebody has it, because people type passwords there. The password is nowhere.
func TestFailuresAreAudited(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	must(t, "bob was here", r.try(from(r.browser(), "192.0.2.77"), "bob", passwordOf("bob")), 200)
	const mistyped, secret = "hunter2-in-the-wrong-field", "a-wrong-password-of-somebody"
	for _, user := range []string{mistyped, "Alice", "BOB"} {
		must(t, user, r.try(from(r.browser(), "203.0.113.9"), user, secret), 401)
	}
	for range 11 {
		r.try(from(r.browser(), "2001:db8:1:2345::7"), mistyped, secret)
	}
	var list []groups.Event
	eventually(t, "the events", 5*time.Second, func() bool {
		list = events(t, r, groups.EventRefused)
		return len(list) == 14
	})
	slices.Reverse(list)
	var said []string
	for _, e := range list {
		said = append(said, fmt.Sprintf("%s %q %t %s", e.Source, e.Name, e.User != 0, e.Reason))
		if e.Request == "" {
			t.Errorf("%+v has no request", e)
		}
	}
	want := []string{
		`corp "" false wrong_password, from 203.0.113.0/24`, `corp "Alice" false wrong_password, from 203.0.113.0/24`, `corp "bob" true wrong_password, from 203.0.113.0/24`,
	}
	equal(t, "the first", said[:3], want)
	if last := said[13]; last != `corp "" false too_many_attempts, from 2001:db8:1:2300::/56` {
		t.Errorf("the last: %s", last)
	}
	everything := r.logs.String() + fmt.Sprint(list)
	for _, s := range []string{mistyped, secret, passwordOf("bob")} {
		if strings.Contains(everything, s) {
			t.Errorf("%q was written down", s)
		}
	}
}

// LD-13: the answer to a name that nobody has is the one to a wrong password,
// byte for byte but for the name that was typed.
func TestUnknownNamesLookLikeWrongPasswords(t *testing.T) {
	t.Parallel()
	r := newRig(t, withForm(newKeeper("corp")))
	answer := func(user string) string {
		b := r.browser()
		form := r.form(b, "source=corp")
		page := r.submit(b, form, user, "not it")
		must(t, user, page, 401)
		body := strings.ReplaceAll(page.Body, form.Forms()[0].Fields["token"], "TOKEN")
		page.Header.Del("Date")
		return strings.ReplaceAll(body, user, "NAME") + fmt.Sprint(len(page.Header), page.Header["Content-Length"] != nil)
	}
	if known, stranger := answer("alice"), answer("nobody"); known != stranger {
		t.Errorf("they differ:\n%s\n%s", known, stranger)
	}
}

// A login that leads to a portal, and one at a portal, use the form too.
func TestFormLeadsToAPortal(t *testing.T) {
	t.Parallel()
	r := newRig(t, withForm(newKeeper("corp")), portals)
	b := r.browser()
	form, err := b.Get(r.portal("board.localhost") + "/minutes")
	if err != nil || len(form.Forms()) != 1 {
		t.Fatalf("%v, %+v", err, form)
	}
	// Browsers hold form-action to the redirects after the form.
	if csp := form.Header.Get("Content-Security-Policy"); !strings.Contains(csp, r.portal("board.localhost")) {
		t.Errorf("the policy %q lets nobody go on to the portal", csp)
	}
	page := r.submit(b, r.submit(b, form, "alice", "not it"), "alice", passwordOf("alice"))
	must(t, "the portal", page, 200)
	if got := r.up.last(t); got.URI != "/minutes" || got.Header.Get("X-Forwarded-User") != "alice" || page.URL.Host != "board.localhost:"+r.port() {
		t.Errorf("%s: the portal's application got %s %v", page.URL, got.URI, got.Header)
	}
	res := r.script("/_auth/login/corp", url.Values{}, func(req *http.Request) { req.Host = "board.localhost:" + r.port() })
	if res.StatusCode != 404 {
		t.Errorf("a portal takes the form: %d", res.StatusCode)
	}
}

// The chooser leads to the form and back; the source of the last time is first
// and says so.
func TestChooserRemembersTheLastSource(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, func(r *rig) { withForm(k, r.source("test"))(r) })
	b := r.browser()
	order := func() (links []string, body string) {
		page, err := b.Get(r.server.URL + "/_auth/sign_in?rd=/x")
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(page.Body, "source=") {
			name, _, _ := strings.Cut(part, `"`)
			links = append(links, name)
		}
		return links[1:], page.Body
	}
	links, body := order()
	equal(t, "before any login", links, []string{"corp", "test"})
	if strings.Contains(body, "Used last time") {
		t.Error("the chooser remembers what was not")
	}
	form := r.form(b, "source=corp&rd=/x")
	if !strings.Contains(form.Body, `href="/_auth/sign_in?rd=%2Fx"`) || !strings.Contains(form.Body, "Other ways to sign in") {
		t.Errorf("no way back to the chooser: %s", form.Body)
	}
	r.login(b, "bob", "/_auth/start?source=test&rd=/x")
	links, body = order()
	equal(t, "after a login at the provider", links, []string{"test", "corp"})
	if strings.Count(body, "Used last time") != 1 {
		t.Error("it does not say why")
	}
	must(t, "alice", r.try(b, "alice", passwordOf("alice")), 200)
	links, _ = order()
	equal(t, "after a login by the form", links, []string{"corp", "test"})
	page, err := b.Get(r.server.URL + "/_auth/sign_in?source=corp&rd=/x")
	if err != nil || len(page.Forms()) != 1 {
		t.Errorf("source= does not skip the chooser: %v %+v", err, page)
	}
}

// retryAfter reads the header of a 429.
func retryAfter(t testing.TB, page *claimstest.Page) time.Duration {
	t.Helper()
	n, err := strconv.Atoi(page.Header.Get("Retry-After"))
	if err != nil || n < 1 {
		t.Fatalf("Retry-After %q", page.Header.Get("Retry-After"))
	}
	return time.Duration(n) * time.Second
}
