package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// RD-07, contract section 8: sign-out ends the session here first and then at the
// provider, which is asked by the name and session it gave.
func TestSignOutAtSAMLProvider(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ how, rd, end string }{
		{"redirect", "", "/_auth/saml/adfs/slo"}, {"redirect", "/public/bye?x=1", "/public/bye?x=1"}, {"post", "/public/bye", "/public/bye"}, {"redirect", "//evil.example", "/_auth/saml/adfs/slo"},
	} {
		t.Run(c.how+" "+c.rd, func(t *testing.T) {
			t.Parallel()
			r := newSAMLRig(t, nil)
			r.offers(c.how, false)
			b := r.enterWith(r.browser(), "alice")
			old, login := r.cookieOf(b), r.idp.Logins()[0]
			res := hop(t, b, r.server.URL+"/_auth/sign_out?rd="+url.QueryEscape(c.rd))
			cookies := setCookies(res.Header)
			if dropped := cookies["__Host-groupgate"]; dropped == nil || dropped.MaxAge >= 0 || r.status(old) != 401 { // CK-07
				t.Errorf("the session stays: %v, %d", dropped, r.status(old))
			}
			kept := cookies["__Host-groupgate-leaving"]
			if kept == nil || !kept.Secure || !kept.HttpOnly || kept.SameSite != http.SameSiteNoneMode || kept.Path != "/" || kept.Domain != "" || kept.MaxAge != 30*60 || strings.Contains(kept.Value, "bye") {
				t.Fatalf("the sign-out's cookie: %v", kept)
			}
			// It is ours and not for the upstream.
			r.do("GET", "/public/x", signedIn(kept.Name+"="+kept.Value+"; other=1"))
			if got := r.up.last(t).Header.Get("Cookie"); got != "other=1" {
				t.Errorf("the upstream got the cookies %q", got)
			}

			b2 := r.enterWith(r.browser(), "alice")
			p, err := b2.Get(r.server.URL + "/_auth/sign_out?rd=" + url.QueryEscape(c.rd))
			for err == nil && p.Status == 200 && len(p.Forms()) == 1 { // ours and the provider's pages that post
				p, err = b2.Submit(p, nil)
			}
			if err != nil || p.URL.RequestURI() != c.end && (c.end != slo || !strings.HasPrefix(p.URL.RequestURI(), slo+"?SAMLResponse=")) {
				t.Fatalf("%v: ended with %d at %s", err, p.Status, p.URL)
			}
			if c.end == slo && !strings.Contains(p.Body, "You are signed out") {
				t.Errorf("the page: %s", p.Body)
			}
			got := r.idp.Logouts()
			if len(got) != 1 || got[0].NameID != "alice" || got[0].Format != login.Format || len(got[0].Sessions) != 1 || got[0].Sessions[0] == login.SessionIndex || got[0].RelayState != "" {
				t.Fatalf("the provider got %+v", got)
			}
			if left := r.idp.Logins(); len(left) != 1 || left[0] != login {
				t.Errorf("the provider keeps %+v", left)
			}
			for _, cookie := range b2.Cookies(r.server.URL + "/") {
				t.Errorf("a cookie stays: %s", cookie.Name)
			}
		})
	}
}

// OI-23 of this protocol: whatever the provider answers, the session is over
// here; only the answer to this browser's sign-out leads where it wanted to go.
func TestSignOutAnswers(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	to := r.server.URL + slo
	stranger, _ := ourPair()
	const status = "urn:oasis:names:tc:SAML:2.0:status:"
	// asked signs out and answers the id of our request.
	asked := func(b *claimstest.Browser) string {
		t.Helper()
		r.enterWith(b, "alice")
		at := hop(t, b, r.server.URL+"/_auth/sign_out?rd=/public/bye").Header.Get("Location")
		m, err := r.idp.ReadLogout(at, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	for what, c := range map[string]struct {
		lie  logoutLies
		id   string // empty: of our request
		post bool
		end  int // 303: where it wanted to go; 200: the good-bye; 400
	}{
		"success":               {logoutLies{}, "", false, 303},
		"success, posted":       {logoutLies{}, "", true, 303},
		"unsigned":              {logoutLies{Unsigned: true}, "", false, 303},
		"partial":               {logoutLies{Status: []string{status + "Success", status + "PartialLogout"}}, "", false, 200},
		"refused":               {logoutLies{Status: []string{status + "Responder"}}, "", false, 200},
		"refused, posted":       {logoutLies{Status: []string{status + "Requester"}}, "", true, 200},
		"to another request":    {logoutLies{}, "id-another", false, 200},
		"to another, posted":    {logoutLies{}, "id-another", true, 400},
		"to nothing":            {logoutLies{Mutate: func(el *etree.Element) { el.RemoveAttr("InResponseTo") }}, "", false, 200},
		"signed by a stranger":  {logoutLies{Key: stranger}, "", false, 400},
		"by a stranger, posted": {logoutLies{Key: stranger}, "", true, 400},
	} {
		b := r.browser()
		id := asked(b)
		if c.id != "" {
			id = c.id
		}
		before := r.cookie(b)
		var res *http.Response
		if c.post {
			res = r.do("POST", slo, edits(page, signedIn(before), posted(r.idp.LogoutAnswerForm(to, id, "x", c.lie))))
		} else {
			res = r.do("GET", strings.TrimPrefix(r.idp.LogoutAnswerQuery(to, id, "x", c.lie), r.server.URL), edits(page, signedIn(before)))
		}
		at := res.Header.Get("Location")
		if res.StatusCode != c.end || (at == "/public/bye") != (c.end == 303) || at != "" && c.end != 303 {
			t.Errorf("%s: %d to %q: %s", what, res.StatusCode, at, bodyOf(t, res))
		}
		if c.end == 200 && !strings.Contains(bodyOf(t, res), "You are signed out") {
			t.Errorf("%s: another page", what)
		}
		answered := c.id == "" && c.end != 400 && what != "to nothing"
		if dropped := setCookies(res.Header)["__Host-groupgate-leaving"]; (dropped != nil && dropped.MaxAge < 0) != answered {
			t.Errorf("%s: the cookie: %v", what, dropped)
		}
	}

	// Somebody who is signed in is not told otherwise by anybody's link.
	cookie, _ := r.enter("alice")
	link := strings.TrimPrefix(r.idp.LogoutAnswerQuery(to, "id-1", "", logoutLies{Unsigned: true}), r.server.URL)
	r.refusedLogout("anybody's link", r.do("GET", link, edits(page, signedIn(cookie))), 400, "invalid_request", "no sign-out of this browser")
	if got := r.status(cookie); got != 200 {
		t.Errorf("the session gets %d", got)
	}
	// Nor does a cookie that is not ours lead anywhere, or an old one of ours.
	b := r.browser()
	id := asked(b)
	answer := strings.TrimPrefix(r.idp.LogoutAnswerQuery(to, id, ""), r.server.URL)
	for _, forged := range []string{"__Host-groupgate-leaving=x", "__Host-groupgate-leaving=" + value(cookie), ""} {
		if res := r.do("GET", answer, edits(page, header("Cookie", forged))); res.StatusCode != 200 || res.Header.Get("Location") != "" {
			t.Errorf("%q leads to %q", forged, res.Header.Get("Location"))
		}
	}
	mine := r.cookie(b)
	r.clock.advance(31 * time.Minute)
	late := strings.TrimPrefix(r.idp.LogoutAnswerQuery(to, id, ""), r.server.URL)
	if res := r.do("GET", late, edits(page, signedIn(mine))); res.StatusCode != 200 || res.Header.Get("Location") != "" {
		t.Errorf("after half an hour: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
}

// From a portal the way back is to public_url, where the good-bye is.
func TestSignOutOfAPortalAtSAMLProvider(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, portals)
	b := r.browser()
	if p, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil || p.Status != 200 {
		t.Fatalf("login: %v, %v", p, err)
	}
	public, portal := r.cookieOf(b), r.portalCookie(b, "eng.localhost")
	p, err := b.Get(r.portal("eng.localhost") + "/_auth/sign_out?rd=/x")
	if err != nil || p.Status != 200 || !strings.Contains(p.Body, "You are signed out") || p.URL.Host != strings.TrimPrefix(r.server.URL, "https://") {
		t.Fatalf("%v: %+v", err, p)
	}
	if r.status(public) != 401 || r.do("GET", "/", edits(signedIn(portal), r.onHost("eng.localhost"))).StatusCode != 401 {
		t.Error("a session is left")
	}
	if len(r.idp.Logins()) != 0 {
		t.Error("the provider's session is left")
	}
}

// A provider that offers no logout, or cannot be asked, holds nobody up; and
// with the store down nobody is told that they are signed out.
func TestSignOutWithoutProvider(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	r.offers("none", false)
	cookie, _ := r.enter("alice")
	r.faults.down.Store(true)
	if res := r.do("GET", "/_auth/sign_out", edits(page, signedIn(cookie))); res.StatusCode != 503 || len(res.Cookies()) != 0 {
		t.Errorf("with the store down: %d, cookies %v", res.StatusCode, res.Cookies())
	}
	r.faults.down.Store(false)
	if res := r.do("GET", "/_auth/sign_out?rd=/public/x", edits(page, signedIn(cookie))); res.StatusCode != 303 || res.Header.Get("Location") != "/public/x" || setCookies(res.Header)["__Host-groupgate-leaving"] != nil {
		t.Errorf("%d to %q, %v", res.StatusCode, res.Header.Get("Location"), res.Cookies())
	}
	if got := r.status(cookie); got != 401 {
		t.Errorf("the session gets %d", got)
	}
}
