package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// CK-02: a login whose answer is another site's POST works with the cookies
// that a browser sends then, and ends where it was to end.
func TestPostBackLogin(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	b := r.browser()
	start := hop(t, b, r.server.URL+"/_auth/start?source=adfs&rd=/x%3Fa=1%26b=2")
	to, err := url.Parse(start.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	relay := to.Query().Get("RelayState")
	if len(relay) != 22 || to.Query().Get("SAMLRequest") == "" {
		t.Errorf("RelayState %q in %s", relay, to)
	}
	for name, c := range setCookies(start.Header) {
		if !strings.HasPrefix(name, "__Host-groupgate-login-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteNoneMode ||
			c.Path != "/" || c.Domain != "" || c.MaxAge != 30*60 || len(c.Raw) > 600 {
			t.Errorf("login cookie: %s", c.Raw)
		}
	}
	form := r.answerFrom(b, to.String(), "alice")
	res := r.post(form, r.crossSite(b))
	cookie := r.lands("the answer", res, "/x?a=1&b=2")
	if c := setCookies(res.Header)["__Host-groupgate"]; c.SameSite != http.SameSiteLaxMode || !c.Secure || !c.HttpOnly || c.MaxAge != 12*60*60 {
		t.Errorf("session cookie: %v", c)
	}
	for _, c := range loginCookies((&http.Response{Header: res.Header}).Cookies()) {
		if c.MaxAge >= 0 {
			t.Errorf("the login's cookie stays: %s", c.Raw)
		}
	}
	if res := r.do("GET", "/x", signedIn(cookie)); res.StatusCode != 200 {
		t.Fatalf("signed in, but %d", res.StatusCode)
	}
	got := r.up.last(t)
	if got.Header.Get("X-Forwarded-User") != "alice" || got.Header.Get("X-Forwarded-Groups") != "admins,engineering" || got.Header.Get("X-Forwarded-Email") != "alice@example.com" {
		t.Errorf("the upstream got %v", got.Header)
	}
	equal(t, "groups", groupsOf(t, r.rig, "alice"), []string{"admins", "engineering"})
	if n := r.proxy.Logins(); len(n) != 1 || n[0].Protocol != "saml" || n[0].OK.Load() != 1 || n[0].Failed.Load() != 0 {
		t.Errorf("counted: %+v", n)
	}
	// The same through pages alone, as a person without scripts.
	if p := r.login(r.browser(), "bob", "/y"); p.Status != 200 || p.URL.Path != "/y" {
		t.Errorf("bob ends at %s with %d", p.URL, p.Status)
	}
}

// A portal's handover comes after such a login as after any other.
func TestPostBackLoginOfAPortal(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, portals)
	p, err := r.browser().Login(r.portal("eng.localhost")+"/deep?x=1", "alice")
	if err != nil || p.Status != 200 || p.URL.Host != "eng.localhost:"+r.port() || p.URL.RequestURI() != "/deep?x=1" {
		t.Fatalf("%v: %+v", err, p)
	}
	if got := r.up.last(t); got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("the upstream got %v", got.Header)
	}
}

// CK-11, SM-12: an answer counts in the browser that asked, for the request
// that it answers, once.
func TestPostBackIsBoundToBrowserAndRequest(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	b, other := r.browser(), r.browser()
	begin := func() (url.Values, string) { return r.form(b, "rd=/", "alice"), r.crossSite(b) }

	form, cookies := begin()
	r.refusedPost("CK-11 another browser, without a login", r.post(form, ""), 400, "no_login", "nobody asked for it")
	r.beginAt(other, "rd=/")
	r.refusedPost("CK-11 another browser, with a login of its own", r.post(form, r.crossSite(other)), 400, "no_login", "nobody asked for it")
	forged := "__Host-groupgate-login-00000000=x." + form.Get("RelayState")
	r.refusedPost("CK-11 a cookie of another name", r.post(form, forged), 400, "no_login", "nobody asked for it")
	name, value, _ := strings.Cut(cookies, "=")
	began, _, _ := strings.Cut(value, ".")
	r.refusedPost("CK-11 a cookie that holds no flow", r.post(form, name+"="+began+"."+form.Get("RelayState")), 400, "no_login", "no_login")
	r.refusedPost("CK-11 a cookie of another form", r.post(form, name+"="+began+"."+form.Get("RelayState")+".AAAA"), 400, "no_login", "no_login")
	r.lands("control", r.post(form, cookies), "/")
	r.refusedPost("SM-12 reused", r.post(form, cookies), 400, "no_login", "no_login")

	form, cookies = begin()
	without := url.Values{"SAMLResponse": form["SAMLResponse"]}
	r.refusedPost("SM-12 without RelayState", r.post(without, cookies), 400, "no_login", "nobody asked for it")
	with := func(relay string) url.Values {
		return url.Values{"SAMLResponse": form["SAMLResponse"], "RelayState": {relay}}
	}
	r.refusedPost("SM-12 an unknown RelayState", r.post(with("AAAAAAAAAAAAAAAAAAAAAA"), cookies), 400, "no_login", "nobody asked for it")
	r.lands("control: none of these used it up", r.post(form, cookies), "/")

	// Two logins of one browser, their answers exchanged.
	first, second := r.form(b, "rd=/1", "alice"), r.form(b, "rd=/2", "bob")
	first["RelayState"], second["RelayState"] = second["RelayState"], first["RelayState"]
	r.refusedPost("SM-12 the answer of another login of this browser", r.post(first, r.crossSite(b)), 400, "bad_answer", "InResponseTo")
	r.refusedPost("SM-12 and the other way round", r.post(second, r.crossSite(b)), 400, "bad_answer", "InResponseTo")

	// One login's flow in another's cookie: what was used could be used again.
	first = r.form(b, "rd=/1", "alice")
	_, kept, _ := strings.Cut(keptOf(r.crossSite(b), first.Get("RelayState")), "."+first.Get("RelayState")+".")
	r.beginAt(b, "rd=/2")
	id := relayOf(t, r.crossSite(b))
	name, value, _ = strings.Cut(keptOf(r.crossSite(b), id), "=")
	began, _, _ = strings.Cut(value, ".")
	mixed := url.Values{"SAMLResponse": first["SAMLResponse"], "RelayState": {id}}
	r.refusedPost("SM-12 a flow in another's cookie", r.post(mixed, name+"="+began+"."+id+"."+kept), 400, "no_login", "no_login")
	r.lands("control", r.post(first, r.crossSite(b)), "/1")

	for what, lie := range map[string]func(*etree.Element){
		"SM-12 InResponseTo missing":             func(el *etree.Element) { el.RemoveAttr("InResponseTo") },
		"SM-12 InResponseTo unknown":             func(el *etree.Element) { el.CreateAttr("InResponseTo", "id-0") },
		"SM-13 Destination of another SP":        func(el *etree.Element) { el.CreateAttr("Destination", "https://other.example/acs") },
		"SM-13 Destination by another name":      func(el *etree.Element) { el.CreateAttr("Destination", r.portal("localhost")+acs) },
		"SM-13 Destination with another path":    func(el *etree.Element) { el.CreateAttr("Destination", r.server.URL+acs+"/") },
		"SM-13 Destination of another source's ": func(el *etree.Element) { el.CreateAttr("Destination", r.server.URL+"/_auth/saml/other/acs") },
	} {
		r.idp.Lie(func(k *claimstest.SAMLKnobs) { k.MutateResponse = lie })
		form, cookies := begin()
		r.refusedPost(what, r.post(form, cookies), 400, "bad_answer", what[len("SM-12 "):][:11])
		r.idp.Honest()
	}
	form, cookies = begin()
	r.lands("control", r.post(form, cookies), "/")
}

// SM-13: what address the request itself claims to be for is nothing that the
// answer is held to.
func TestPostBackToAnotherHost(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, portals)
	b := r.browser()
	r.idp.Lie(func(k *claimstest.SAMLKnobs) {
		k.MutateResponse = func(el *etree.Element) { el.CreateAttr("Destination", "https://evil.example"+acs) }
	})
	form, cookies := r.form(b, "rd=/", "alice"), r.crossSite(b)
	body := form.Encode()
	for _, c := range []struct {
		line, host string
		status     int
	}{
		{"https://evil.example" + acs, "evil.example", 421},
		{"https://evil.example" + acs, r.server.Listener.Addr().String(), 421}, // RFC 9112 section 3.2.2: the line counts
		{acs, "evil.example", 421},
		{acs, "eng.localhost:" + r.port(), 404},
		{acs, r.server.Listener.Addr().String(), 400},
	} {
		res, err := r.raw(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			c.line, c.host, cookies, formType, len(body), body))
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.status || setCookies(res.Header)["__Host-groupgate"] != nil {
			t.Errorf("%s of %s: %d, want %d", c.line, c.host, res.StatusCode, c.status)
		}
	}
	r.idp.Honest()
	r.lands("control", r.post(r.form(b, "rd=/", "alice"), r.crossSite(b)), "/")
}

// SM-26, RD-06, SC-14: what is not one answer in one form is refused, before
// anything looks into it, and the login goes on.
func TestPostBackForms(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, twoSources)
	b := r.browser()
	form := r.form(b, "rd=/", "alice")
	cookies := r.crossSite(b)
	good := form.Encode()
	body := func(text string) func(*http.Request) {
		return func(req *http.Request) {
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}
	}
	query := func(q string) func(*http.Request) { return func(req *http.Request) { req.URL.RawQuery = q } }
	pad := good + "&pad=" + strings.Repeat("x", 768<<10-len(good)-5)
	chunked := func(req *http.Request) { req.ContentLength = -1 }
	for _, c := range []struct {
		what         string
		edit         func(*http.Request)
		status       int
		code, reason string
	}{
		{"nothing", body(""), 400, "bad_request", "not one SAMLResponse"},
		{"an empty answer", body("SAMLResponse=&RelayState=" + form.Get("RelayState")), 400, "bad_request", "not one SAMLResponse"},
		{"RD-06 SAMLResponse twice", body(good + "&SAMLResponse=x"), 400, "bad_request", "not one SAMLResponse"},
		{"RD-06 RelayState twice", body(good + "&RelayState=x"), 400, "bad_request", "RelayState stands twice"},
		{"RD-06 SAMLResponse in the query as well", query("SAMLResponse=x"), 400, "bad_request", "in the query"},
		{"RD-06 RelayState in the query as well", query("RelayState=x"), 400, "bad_request", "in the query"},
		{"RD-06 the query says something twice", query("a=1&a=2"), 400, "bad_request", "twice"},
		{"SM-26 SAMLart beside it", body(good + "&SAMLart=AAQ"), 400, "bad_request", "artifact"},
		{"SM-26 SAMLart alone", body("SAMLart=AAQ"), 400, "bad_request", "artifact"},
		{"SM-26 SAMLart in the query", query("SAMLart=AAQ"), 400, "bad_request", "in the query"},
		{"another name for it", body(strings.Replace(good, "SAMLResponse", "samlresponse", 1)), 400, "bad_request", "not one SAMLResponse"},
		{"a malformed form", body(good + "&a=%zz"), 400, "bad_request", "malformed"},
		{"SM-26 no content type", func(req *http.Request) { req.Header.Del("Content-Type") }, 415, "unsupported_media_type", "content type"},
		{"SM-26 two content types", header("Content-Type", formType, formType), 415, "unsupported_media_type", "content type"},
		{"SM-26 XML", header("Content-Type", "text/xml"), 415, "unsupported_media_type", "not a form"},
		{"SM-26 multipart", header("Content-Type", "multipart/form-data; boundary=x"), 415, "unsupported_media_type", "not a form"},
		{"SM-27 PAOS", header("Content-Type", "application/vnd.paos+xml"), 415, "unsupported_media_type", "not a form"},
		{"SC-14 one byte too many", body(pad + "x"), 413, "too_large", "too large"},
		{"SM-14 2.5 MB", body(good + "&pad=" + strings.Repeat("x", 5<<19)), 413, "too_large", "too large"},
		{"SC-14 one byte too many, chunked", edits(body(pad+"x"), chunked), 413, "too_large", "too large"},
	} {
		res := r.post(form, cookies, c.edit)
		for range 5 {
			text, err := io.ReadAll(res.Body)
			if err == nil {
				res.Body = io.NopCloser(bytes.NewReader(text))
				break
			}
			// The server closes on who sends too much, and the client's own end
			// may close before it has read the answer.
			res = r.post(form, cookies, c.edit)
		}
		r.refusedPost(c.what, res, c.status, c.code, c.reason)
	}
	// SM-14: who writes on for long is cut off, and hears 413 or nothing.
	res, err := r.raw("POST " + acs + " HTTP/1.1\r\nHost: " + r.server.Listener.Addr().String() + "\r\nCookie: " + cookies + "\r\nContent-Type: " + formType +
		"\r\nContent-Length: 10485760\r\n\r\n" + good + "&pad=" + strings.Repeat("x", 10<<20-len(good)-5))
	if err == nil && res.StatusCode != 413 || r.sessionsOf("alice") != 0 {
		t.Errorf("SM-14 10 MB: %v %v", res, err)
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		res := r.do(method, acs+"?"+good, signedIn(cookies))
		if res.StatusCode != 405 || res.Header.Get("Allow") != "POST" {
			t.Errorf("SM-26 %s: %d, Allow %q", method, res.StatusCode, res.Header.Get("Allow"))
		}
	}
	for _, path := range []string{"nobody/acs", "test/acs", "adfs/acs/", "adfs/acs/x", "adfs", "adfs/", "/acs", "adfs/other"} {
		res := r.post(form, cookies, func(req *http.Request) { req.URL.Path = "/_auth/saml/" + path })
		if res.StatusCode != 404 && res.StatusCode != 400 || setCookies(res.Header)["__Host-groupgate"] != nil {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	if n := r.idp.Calls("metadata"); n != 1 {
		t.Errorf("SM-26: the provider was asked %d times", n)
	}
	r.lands("control: as large as may be, with a charset, and PAOS headers (SM-27)", r.post(form, cookies, body(pad), chunked,
		header("Content-Type", "Application/X-WWW-Form-URLencoded; charset=UTF-8"), header("Paos", `ver="urn:liberty:paos:2003-08"`), query("a=1")), "/")
}

// SM-20, RD-04: a login that begins at the provider is taken where that was
// switched on, for an answer to nothing, and leads to the start page.
func TestLoginsThatBeginAtTheProvider(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprintf("idp_initiated=%v", on), func(t *testing.T) {
			t.Parallel()
			r := newSAMLRig(t, func(c *claims.SAMLConfig) { c.IDPInitiated = on }, portals)
			for _, relay := range []string{"", "https://evil.example/", "//evil.example", "/admin/", "AAAAAAAAAAAAAAAAAAAAAA", r.portal("eng.localhost") + "/", strings.Repeat("x", 200)} {
				b := r.browser()
				form := r.answerFrom(b, r.idp.URL+"/start?RelayState="+url.QueryEscape(relay), "alice")
				if form.Get("RelayState") != relay {
					t.Fatalf("the provider sends RelayState %q", form.Get("RelayState"))
				}
				res := r.post(form, "")
				if !on {
					r.refusedPost("SM-20 switched off", res, 400, "no_login", "idp_initiated")
					continue
				}
				r.lands("RD-04 RelayState "+relay, res, "/")
				r.refusedPost("SM-18 once more", r.post(form, ""), 400, "replayed", "used")
			}
			// An answer to a request, whosever, is not one that nobody asked for.
			b := r.browser()
			form := r.form(b, "rd=/", "alice")
			r.refusedPost("SM-20 with InResponseTo", r.post(form, ""), 400, "no_login", "")
			form.Del("RelayState")
			r.refusedPost("SM-20 with InResponseTo and no RelayState", r.post(form, r.crossSite(b)), 400, "no_login", "")
			// With the RelayState of a login that this browser began.
			r.beginAt(b, "rd=/x")
			cookies := r.crossSite(b)
			mine := r.answerFrom(b, r.idp.URL+"/start", "bob")
			mine.Set("RelayState", relayOf(t, cookies))
			r.refusedPost("SM-12 in place of the answer", r.post(mine, cookies), 400, "bad_answer", "InResponseTo")
		})
	}
}

// keptOf is the cookie of one login out of a Cookie header.
func keptOf(cookies, id string) string {
	for c := range strings.SplitSeq(cookies, "; ") {
		if strings.Contains(c, "."+id+".") {
			return c
		}
	}
	return ""
}

// relayOf is the id of the last login in a Cookie header.
func relayOf(t testing.TB, cookies string) string {
	t.Helper()
	list := strings.Split(cookies, "; ")
	parts := strings.Split(list[len(list)-1], ".")
	if len(parts) != 3 || len(parts[1]) != 22 {
		t.Fatalf("cookies %q", cookies)
	}
	return parts[1]
}
