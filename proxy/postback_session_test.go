package proxy_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// CK-13: a person may take half an hour at the provider, and no longer.
func TestPostBackAfterAWhile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wait time.Duration
		ok   bool
	}{{10 * time.Minute, true}, {29 * time.Minute, true}, {30 * time.Minute, false}} {
		r := newSAMLRig(t, nil)
		b := r.browser()
		authorize := r.beginAt(b, "rd=/x")
		cookies := r.crossSite(b)
		r.clock.advance(c.wait)
		res := r.post(r.answerFrom(b, authorize, "alice"), cookies)
		if c.ok {
			r.lands(c.wait.String(), res, "/x")
		} else {
			r.refusedPost(c.wait.String(), res, 400, "no_login", "")
		}
	}
}

// The provider's session bounds ours (SessionNotOnOrAfter).
func TestSessionEndsWithTheProviders(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	r.idp.Change(func(o *claimstest.SAMLOptions) { o.SessionLength = 30 * time.Minute })
	b := r.browser()
	res := r.post(r.form(b, "rd=/", "alice"), r.crossSite(b))
	cookie := r.lands("login", res, "/")
	if age := setCookies(res.Header)["__Host-groupgate"].MaxAge; age > 30*60 || age < 29*60 {
		t.Errorf("the cookie lives for %d s", age)
	}
	r.clock.advance(29 * time.Minute)
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("after 29 minutes: %d", res.StatusCode)
	}
	r.clock.advance(61 * time.Second)
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 401 {
		t.Errorf("after 30 minutes: %d", res.StatusCode)
	}
	r.idp.Change(func(o *claimstest.SAMLOptions) { o.SessionLength = 20 * time.Hour })
	res = r.post(r.form(b, "rd=/", "alice"), r.crossSite(b))
	if r.lands("a longer one", res, "/"); setCookies(res.Header)["__Host-groupgate"].MaxAge != 12*60*60 {
		t.Error("the provider's session lengthens ours")
	}
}

// CK-03: a login is a new session and ends the one that this browser had,
// although the answer does not bring its cookie.
func TestPostBackEndsTheOldSession(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	b := r.browser()
	r.login(b, "alice", "/")
	old := signedIn(r.cookie(b))
	elsewhere := r.browser()
	r.login(elsewhere, "alice", "/")
	form := r.form(b, "rd=/", "bob")
	cookie := r.lands("bob", r.post(form, r.crossSite(b)), "/")
	if res := r.do("GET", "/", old); res.StatusCode != 401 {
		t.Errorf("the old session gets %d", res.StatusCode)
	}
	for what, c := range map[string]string{"the new session": cookie, "another browser's": r.cookie(elsewhere)} {
		if res := r.do("GET", "/", signedIn(c)); res.StatusCode != 200 {
			t.Errorf("%s gets %d", what, res.StatusCode)
		}
	}
	// A login that fails ends nothing.
	r.login(b, "alice", "/")
	old = signedIn(r.cookie(b))
	form = r.form(b, "rd=/", "bob")
	form.Set("SAMLResponse", base64.StdEncoding.EncodeToString([]byte("<x/>")))
	r.refusedPost("garbage", r.post(form, r.crossSite(b)), 400, "bad_answer", "")
	if res := r.do("GET", "/", old); res.StatusCode != 200 {
		t.Errorf("after a failed login the session gets %d", res.StatusCode)
	}
}

// What a source has to be told of us, and who may ask.
func TestMetadataEndpoint(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, twoSources, portals)
	const at = "/_auth/saml/adfs/metadata"
	res := r.do("GET", at, nil)
	body := bodyOf(t, res)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/samlmetadata+xml" || !strings.Contains(body, r.server.URL+acs) {
		t.Errorf("%d %v: %s", res.StatusCode, res.Header, body)
	}
	if res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", res.Header)
	}
	if head := r.do("HEAD", at, nil); head.StatusCode != 200 || bodyOf(t, head) != "" {
		t.Errorf("HEAD: %d", head.StatusCode)
	}
	for what, res := range map[string]*http.Response{
		"another source": r.do("GET", "/_auth/saml/test/metadata", nil),
		"nobody":         r.do("GET", "/_auth/saml/nobody/metadata", nil),
		"a portal":       r.do("GET", at, r.onHost("eng.localhost")),
		"a path below":   r.do("GET", at+"/x", nil),
	} {
		if res.StatusCode != 404 {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
	}
	if res := r.do("POST", at, nil); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", res.StatusCode)
	}
}
