package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

const (
	firstPassword  = "a first password of hers"
	secondPassword = "a second password of hers"
)

// withLocal makes local users the rig's source, beside the provider, with one
// of them there.
func withLocal(r *rig) {
	cfg := claims.LocalConfig{MinPasswordLength: 12}
	src := claims.NewLocal(claims.LocalOptions{Name: "local", Config: cfg, Accounts: r.dir, Now: r.clock.Now})
	r.settings.Sources = []proxy.SourceEntry{{Source: src, Label: "Account of this portal", Protocol: "local"}, r.source("test")}
	r.groups.Sources = append(r.groups.Sources, groups.SourceSettings{Name: "local", Local: &cfg})
}

func localRig(t *testing.T, opts ...option) *rig {
	t.Helper()
	r := newRig(t, append([]option{withLocal}, opts...)...)
	hash, err := claims.HashPassword(t.Context(), firstPassword)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"dora", "emil"} {
		if _, err := r.dir.CreateLocal(t.Context(), "local", groups.LocalUser{Name: user, Password: hash}, "test"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// signInLocal signs a local user in with a new browser.
func (r *rig) signInLocal(user, password string) *claimstest.Browser {
	r.t.Helper()
	b := r.browser()
	must(r.t, user, r.submit(b, r.form(b, "source=local&rd=/x"), user, password), 200)
	return b
}

// change opens the page for another password and fills it.
func (r *rig) change(b *claimstest.Browser, old, changed, again string) *claimstest.Page {
	r.t.Helper()
	form, err := b.Get(r.server.URL + "/_auth/password")
	if err != nil {
		r.t.Fatal(err)
	}
	must(r.t, "the form", form, 200)
	page, err := b.Submit(form, map[string]string{"old": old, "new": changed, "again": again})
	if err != nil {
		r.t.Fatal(err)
	}
	return page
}

// A local user chooses another password: the old one counts no more, sessions
// elsewhere end, this one stays.
func TestChangeOfPassword(t *testing.T) {
	t.Parallel()
	r := localRig(t)
	b, elsewhere, emil := r.signInLocal("dora", firstPassword), r.signInLocal("dora", firstPassword), r.signInLocal("emil", firstPassword)
	for _, c := range []struct {
		what, old, changed, again string
		status                    int
		says                      string
	}{
		{"the old one is wrong", "not it at all", secondPassword, secondPassword, 401, "The current password is wrong"},
		{"the new ones differ", firstPassword, secondPassword, secondPassword + "x", 400, "The new passwords differ"},
		{"too short", firstPassword, "short", "short", 400, "too short"},
		{"blanks", firstPassword, "              ", "              ", 400, "too short"},
		{"too long", firstPassword, strings.Repeat("ü", 600), strings.Repeat("ü", 600), 400, "too long"},
		{"control characters", firstPassword, "with a bell \a in it", "with a bell \a in it", 400, "cannot be typed everywhere"},
	} {
		page := r.change(b, c.old, c.changed, c.again)
		must(t, c.what, page, c.status)
		if !strings.Contains(page.Body, c.says) || !strings.Contains(page.Body, `role="alert"`) || len(page.Forms()) != 1 {
			t.Errorf("%s: the page says %s", c.what, page.Body)
		}
		if c.what == "too short" && !strings.Contains(page.Body, "Characters, at least: 12") {
			t.Errorf("it does not say by how much: %s", page.Body)
		}
		for _, secret := range []string{c.old, c.changed} {
			if strings.Contains(page.Body, `value="`+secret) {
				t.Errorf("%s: the page holds a password", c.what)
			}
		}
	}
	if res := r.do("GET", "/x", signedIn(r.cookie(elsewhere))); res.StatusCode != 200 {
		t.Errorf("a failed change ended a session: %d", res.StatusCode)
	}
	done := r.change(b, firstPassword, secondPassword, secondPassword)
	must(t, "the change", done, 200)
	if !strings.Contains(done.Body, "Your password is changed") {
		t.Errorf("it says %s", done.Body)
	}
	for what, c := range map[string]struct {
		b    *claimstest.Browser
		want int
	}{"this session": {b, 200}, "her other one": {elsewhere, 401}, "somebody else's": {emil, 200}} {
		if res := r.do("GET", "/x", signedIn(r.cookie(c.b))); res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", what, res.StatusCode, c.want)
		}
	}
	again := r.browser()
	must(t, "the old password", r.submit(again, r.form(again, "source=local"), "dora", firstPassword), 401)
	r.signInLocal("dora", secondPassword)
	all := r.logs.String()
	list, err := r.store.Events(t.Context(), groups.EventQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{firstPassword, secondPassword, "not it at all"} {
		if strings.Contains(all+fmt.Sprint(list), secret) {
			t.Errorf("%q was written down", secret)
		}
	}
}

// LD-16: only the session's own form counts; and nobody without a session, or
// with one of another source, has a password here.
func TestChangeOfPasswordFromElsewhere(t *testing.T) {
	t.Parallel()
	r := localRig(t)
	b, other := r.signInLocal("dora", firstPassword), r.signInLocal("emil", firstPassword)
	token := func(b *claimstest.Browser) string {
		page, err := b.Get(r.server.URL + "/_auth/password")
		if err != nil {
			t.Fatal(err)
		}
		if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self';") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("the policy: %s", csp)
		}
		return page.Forms()[0].Fields["token"]
	}
	values := func(token string) url.Values {
		return url.Values{"old": {firstPassword}, "new": {secondPassword}, "again": {secondPassword}, "token": {token}}
	}
	mine, good := signedIn(r.cookie(b)), token(b)
	login := r.form(b, "source=local").Forms()[0].Fields["token"]
	for _, c := range []struct {
		what   string
		values url.Values
		edit   func(*http.Request)
		want   int
	}{
		{"no token", url.Values{"old": {firstPassword}, "new": {secondPassword}, "again": {secondPassword}}, mine, 400},
		{"somebody else's token", values(token(other)), mine, 400},
		{"a login's token", values(login), mine, 400},
		{"another site's page", values(good), edits(mine, header("Sec-Fetch-Site", "cross-site")), 400},
		{"no session", values(good), nil, 401},
		{"a session that is over", values(good), signedIn("__Host-groupgate=" + strings.Repeat("A", 43)), 401},
	} {
		if res := r.script("/_auth/password", c.values, c.edit); res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.what, res.StatusCode, c.want)
		}
	}
	if res := r.do("PUT", "/_auth/password", mine); res.StatusCode != 405 {
		t.Errorf("PUT: %d", res.StatusCode)
	}
	provider := r.signIn("alice")
	if res := r.do("GET", "/_auth/password", edits(page, signedIn(provider))); res.StatusCode != 404 {
		t.Errorf("for a session of the provider: %d", res.StatusCode)
	}
	// Without a session a person signs in first, and comes back here.
	res := r.do("GET", "/_auth/password", page)
	if at := res.Header.Get("Location"); res.StatusCode != 302 || !strings.Contains(at, "rd=%2F_auth%2Fpassword") {
		t.Errorf("%d to %q", res.StatusCode, at)
	}
	if res := r.script("/_auth/password", values(good), mine); res.StatusCode != 204 {
		t.Errorf("the good form: %d: %s", res.StatusCode, bodyOf(t, res))
	}
}

// LD-12: the old password is no place to guess at, and guessing there locks
// nobody out of the login.
func TestGuessingTheOldPassword(t *testing.T) {
	t.Parallel()
	r := localRig(t)
	b := r.signInLocal("dora", firstPassword)
	r.clock.advance(time.Minute + time.Second)
	codes := map[string]int{}
	for i := range 15 {
		page := r.change(b, fmt.Sprint("guess ", i), secondPassword, secondPassword)
		codes[fmt.Sprint(page.Status, page.Header.Get("Retry-After") != "")]++
	}
	if codes["401 false"] != 10 || codes["429 true"] != 5 {
		t.Errorf("answers: %v", codes)
	}
	form, err := b.Get(r.server.URL + "/_auth/password")
	if err != nil {
		t.Fatal(err)
	}
	values := url.Values{"old": {firstPassword}, "new": {secondPassword}, "again": {secondPassword}, "token": {form.Forms()[0].Fields["token"]}}
	res := r.script("/_auth/password", values, signedIn(r.cookie(b)))
	var body map[string]string
	if err := json.Unmarshal([]byte(bodyOf(t, res)), &body); err != nil || res.StatusCode != 429 || body["error"] != "too_many_attempts" {
		t.Errorf("%d %v %v", res.StatusCode, body, err)
	}
	r.signInLocal("dora", firstPassword)
	r.clock.advance(2 * time.Minute)
	must(t, "the right old one later", r.change(b, firstPassword, secondPassword, secondPassword), 200)
}

// LD-12: a thousand wrong passwords of a local user leave another's login as
// fast as it is, though each right check is made slow on purpose.
func TestStormOnALocalUser(t *testing.T) {
	t.Parallel()
	r := localRig(t, trustLoopback)
	b := from(r.browser(), "203.0.113.1")
	form := r.form(b, "source=local")
	codes := map[int]int{}
	for i := range 1000 {
		codes[r.submit(b, form, "dora", fmt.Sprint("guess ", i)).Status]++
	}
	if codes[401] != 10 || codes[429] != 990 {
		t.Errorf("answers: %v", codes)
	}
	began := time.Now()
	r.signInLocal("emil", firstPassword)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("somebody else's login took %v", took)
	}
}
