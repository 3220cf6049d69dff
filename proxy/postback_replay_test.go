package proxy_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

// replica is another groupgate on the same store, with a memory of its own.
func (r *samlRig) replica() http.Handler {
	r.t.Helper()
	store, err := sqlstore.OpenSQLite(r.t.Context(), r.path, sqlstore.Options{PollInterval: time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { store.Close() })
	dir := groups.NewDirectory(groups.Options{Store: store, Now: r.clock.Now})
	p := proxy.New(proxy.Options{Directory: dir, Now: r.clock.Now})
	if err := dir.Configure(r.t.Context(), r.groups); err != nil {
		r.t.Fatal(err)
	}
	if err := p.Configure(r.settings); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// postTo brings a form to one of several replicas.
func (r *samlRig) postTo(p http.Handler, form url.Values, cookies string) *http.Response {
	req := httptest.NewRequest("POST", r.server.URL+acs, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", formType)
	req.Header.Set("Cookie", cookies)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, req)
	return w.Result()
}

// SM-18: one response, posted a hundred times at once to two replicas and to
// one that starts later, makes one session; begun here or at the provider.
func TestOneResponseMakesOneSession(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"asked for", "not asked for"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newSAMLRig(t, func(c *claims.SAMLConfig) { c.IDPInitiated = true })
			b := r.browser()
			var form url.Values
			cookies := ""
			if what == "asked for" {
				form, cookies = r.form(b, "rd=/", "alice"), r.crossSite(b)
			} else {
				form = r.answerFrom(b, r.idp.URL+"/start", "alice")
			}
			replicas := []http.Handler{r.proxy, r.replica()}
			var turn atomic.Int64
			count := atOnce(t, 100, func() (*http.Response, error) {
				return r.postTo(replicas[turn.Add(1)%2], form, cookies), nil
			})
			if count[303] != 1 || count[400] != 99 {
				t.Errorf("answers %v", count)
			}
			if n := r.sessionsOf("alice"); n != 1 {
				t.Errorf("%d sessions", n)
			}
			if code := r.postTo(r.replica(), form, cookies).StatusCode; code != 400 {
				t.Errorf("after a restart: %d", code)
			}
			// Nor in a login that was begun for it.
			r.beginAt(b, "rd=/")
			form.Set("RelayState", relayOf(t, r.crossSite(b)))
			if code := r.postTo(r.replica(), form, r.crossSite(b)).StatusCode; code != 400 {
				t.Errorf("in a new login: %d", code)
			}
			if n := r.sessionsOf("alice"); n != 1 {
				t.Errorf("%d sessions", n)
			}
			form = r.form(b, "rd=/", "alice")
			if code := r.postTo(r.replica(), form, r.crossSite(b)).StatusCode; code != 303 {
				t.Errorf("control: a new response: %d", code)
			}
			if n := r.sessionsOf("alice"); n != 2 {
				t.Errorf("control: %d sessions", n)
			}
		})
	}
}

// SM-18: an assertion that is signed alone is one statement, whatever response
// is put around it.
func TestOneAssertionInTwoResponses(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, func(c *claims.SAMLConfig) { c.IDPInitiated = true })
	b := r.browser()
	form := r.answerFrom(b, r.idp.URL+"/start", "alice")
	again := rewrapped(t, form)
	r.lands("the first", r.post(form, ""), "/")
	r.refusedPost("the same assertion in another response", r.post(again, ""), 400, "replayed", "used")
	r.lands("control: another assertion", r.post(rewrapped(t, r.answerFrom(b, r.idp.URL+"/start", "alice")), ""), "/")
}

// rewrapped is the form with the response's own ID changed, which its
// assertion's signature does not cover.
func rewrapped(t testing.TB, form url.Values) url.Values {
	t.Helper()
	message, err := base64.StdEncoding.DecodeString(form.Get("SAMLResponse"))
	if err != nil {
		t.Fatal(err)
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(message); err != nil {
		t.Fatal(err)
	}
	doc.Root().CreateAttr("ID", "_another")
	if message, err = doc.WriteToBytes(); err != nil {
		t.Fatal(err)
	}
	return url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString(message)}, "RelayState": form["RelayState"]}
}

// GS-12 and contract section 7: with the store down nobody is signed in, and
// the browser is told by a page.
func TestPostBackWithTheStoreDown(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	b := r.browser()
	form := r.form(b, "rd=/", "alice")
	r.faults.down.Store(true)
	res := r.post(form, r.crossSite(b))
	body := bodyOf(t, res)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || setCookies(res.Header)["__Host-groupgate"] != nil || !strings.HasPrefix(body, "<!doctype html>") {
		t.Errorf("%d %v: %s", res.StatusCode, res.Header, body)
	}
	r.faults.down.Store(false)
	if n := r.sessionsOf("alice"); n != 0 {
		t.Errorf("%d sessions", n)
	}
	r.lands("control", r.post(r.form(b, "rd=/", "alice"), r.crossSite(b)), "/")
}

// CK-10: twenty logins at once in one browser; the last ten can be finished in
// any order. Together their cookies stay below what a proxy in front takes.
func TestPostBackTabs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what string
		path func(i int) string
		kept int
	}{
		{"ordinary paths", func(i int) string { return "/reports/2026?page=" + string(rune('a'+i)) }, 10},
		{"long ones", func(i int) string { return "/" + string(rune('a'+i)) + strings.Repeat("&", 1500) }, 2},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newSAMLRig(t, nil)
			b := r.browser()
			var at []string
			for i := range 20 {
				at = append(at, r.beginAt(b, "rd="+url.QueryEscape(c.path(i))))
				if n := len(loginCookies(b.Cookies(r.server.URL + "/"))); n != min(i+1, c.kept) {
					t.Fatalf("after %d starts there are %d login cookies", i+1, n)
				}
			}
			if n := len(r.crossSite(b)); n > 6<<10+400 {
				t.Errorf("the cookies have %d bytes", n)
			}
			for i := len(at) - 1; i >= 0; i-- {
				res := r.post(r.answerFrom(b, at[i], "alice"), r.crossSite(b))
				if i >= 20-c.kept {
					r.lands("tab "+string(rune('a'+i)), res, c.path(i))
				} else {
					r.refusedPost("tab "+string(rune('a'+i)), res, 400, "no_login", "")
				}
			}
		})
	}
}

// A path that would not fit into a cookie is forgotten, the login is not; and
// whatever is kept, a browser takes the cookie (RFC 6265 section 6.1).
func TestPostBackForgetsLongPaths(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, portals)
	for _, c := range []struct{ what, path, end string }{
		{"as long as may be", "/" + strings.Repeat("x", 2047), "/" + strings.Repeat("x", 2047)},
		{"longer", "/" + strings.Repeat("x", 2048), "/"},
		{"of what HTML would escape", "/?" + strings.Repeat("&", 2046), "/?" + strings.Repeat("&", 2046)},
		{"of what JSON escapes", "/?" + strings.Repeat(`"`, 2000), "/"},
	} {
		b := r.browser()
		res := hop(t, b, r.server.URL+"/_auth/start?source=adfs&rd="+url.QueryEscape(c.path))
		for _, line := range res.Header["Set-Cookie"] {
			if len(line) > 4096-500 {
				t.Errorf("%s: the cookie has %d bytes", c.what, len(line))
			}
		}
		form := r.answerFrom(b, res.Header.Get("Location"), "alice")
		r.lands(c.what, r.post(form, r.crossSite(b)), c.end)
	}
	// On a portal the same leads to the portal's start page.
	p, err := r.browser().Login(r.portal("eng.localhost")+"/?"+strings.Repeat("%22", 600), "alice")
	if err != nil || p.Status != 200 || p.URL.Host != "eng.localhost:"+r.port() {
		t.Errorf("%v: %d %s", err, p.Status, p.URL)
	}
}
