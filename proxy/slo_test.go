package proxy_test

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

const slo = "/_auth/saml/adfs/slo"

type logoutLies = claimstest.SAMLLogoutKnobs

// offers is how the provider offers single logout. The source reads it with
// the first login.
func (r *samlRig) offers(how string, elsewhere bool) {
	r.idp.Change(func(o *claimstest.SAMLOptions) { o.Logout, o.LogoutAnswers = how, elsewhere })
}

// enter signs a person in and answers the Cookie header and what the provider
// would say to end just that.
func (r *samlRig) enter(name string) (cookie string, l claimstest.SAMLLogout) {
	r.t.Helper()
	cookie = r.cookieOf(r.enterWith(r.browser(), name))
	logins := r.idp.Logins()
	return cookie, logins[len(logins)-1].Logout()
}

func (r *samlRig) enterWith(b *claimstest.Browser, name string) *claimstest.Browser {
	r.t.Helper()
	if p := r.login(b, name, "/"); p.Status != 200 || p.URL.Path != "/" {
		r.t.Fatalf("login of %s ended with %d at %s: %s", name, p.Status, p.URL, p.Body)
	}
	return b
}

func (r *samlRig) cookieOf(b *claimstest.Browser) string {
	for _, c := range b.Cookies(r.server.URL + "/") {
		if c.Name == "__Host-groupgate" {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

// send brings a logout message without any cookie, as a browser would that
// never was here: by a redirect, or by a form when there is one.
func (r *samlRig) send(address string, form url.Values) *http.Response {
	r.t.Helper()
	path := strings.TrimPrefix(address, r.server.URL)
	if form == nil {
		return r.do("GET", path, page)
	}
	return r.do("POST", path, edits(page, posted(form)))
}

func posted(form url.Values) func(*http.Request) {
	return func(req *http.Request) {
		body := form.Encode()
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		req.Header.Set("Content-Type", formType)
	}
}

// bindings brings a request by each of the two.
func (r *samlRig) bindings(l claimstest.SAMLLogout, k logoutLies) map[string]func() *http.Response {
	to := r.server.URL + slo
	return map[string]func() *http.Response{
		"redirect": func() *http.Response { return r.send(r.idp.LogoutQuery(to, l, k), nil) },
		"post":     func() *http.Response { return r.send(to, r.idp.LogoutForm(to, l, k)) },
	}
}

// answered reads our answer out of a redirect or a page that posts.
func (r *samlRig) answered(what string, res *http.Response) *claimstest.SAMLLogoutMessage {
	r.t.Helper()
	body := bodyOf(r.t, res)
	at, form := res.Header.Get("Location"), url.Values(nil)
	if res.StatusCode == 200 {
		p := &claimstest.Page{URL: res.Request.URL, Body: body}
		if len(p.Forms()) != 1 {
			r.t.Fatalf("%s: no form: %s", what, body)
		}
		at, form = p.Forms()[0].Action, url.Values{}
		for name, v := range p.Forms()[0].Fields {
			form.Set(name, v)
		}
	}
	m, err := r.idp.ReadLogout(at, form)
	if err != nil {
		r.t.Fatalf("%s: %d to %q: %v: %s", what, res.StatusCode, at, err, body)
	}
	if res.Header.Get("Cache-Control") != "no-store" || len(res.Cookies()) != 0 {
		r.t.Errorf("%s: %v", what, res.Header)
	}
	return m
}

func (r *samlRig) succeeded(what string, res *http.Response) {
	r.t.Helper()
	if m := r.answered(what, res); !slices.Equal(m.Status, []string{"Success"}) {
		r.t.Errorf("%s: %+v", what, m)
	}
}

// refusedLogout says that a message ended nothing, on a page and in the audit
// trail.
func (r *samlRig) refusedLogout(what string, res *http.Response, status int, code, reason string) {
	r.t.Helper()
	r.refusedPost(what, res, status, code, reason)
	if res.Header.Get("Cache-Control") != "no-store" || len(res.Cookies()) != 0 {
		r.t.Errorf("%s: %v", what, res.Header)
	}
}

// SM-22, SC-19: a request ends the session it names with its portals, sockets
// and streams, in whatever browser, and nobody else's.
func TestSingleLogoutEndsWhatItNames(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, portals)
	a, second := r.browser(), r.browser()
	var named []claimstest.SAMLLogout
	for _, b := range []*claimstest.Browser{a, second} {
		if p, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil || p.Status != 200 {
			t.Fatalf("login: %v, %v", p, err)
		}
		logins := r.idp.Logins()
		named = append(named, logins[len(logins)-1].Logout())
	}
	bob, _ := r.enter("bob")
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/socket" {
			echo(w, req)
		}
	})
	var sockets []*websocket.Conn
	for _, c := range []struct{ host, cookie string }{
		{"127.0.0.1", r.cookieOf(a)}, {"eng.localhost", r.portalCookie(a, "eng.localhost")}, {"127.0.0.1", r.cookieOf(second)}, {"127.0.0.1", bob},
	} {
		client := r.client()
		client.Timeout = 0
		conn, _, err := websocket.Dial(t.Context(), r.server.URL+"/socket", &websocket.DialOptions{
			HTTPClient: client, Host: c.host + ":" + r.port(), HTTPHeader: http.Header{"Cookie": {c.cookie}},
		})
		if err != nil {
			t.Fatalf("%s: %v", c.host, err)
		}
		defer conn.CloseNow()
		sockets = append(sockets, conn)
	}
	r.proxy.Recheck(t.Context())
	for i, c := range sockets {
		if !talks(t, c, "before") {
			t.Fatalf("socket %d closed too early", i)
		}
	}
	lives := func(when string, want ...int) {
		t.Helper()
		onPortal := func(b *claimstest.Browser) int {
			return r.do("GET", "/", edits(signedIn(r.portalCookie(b, "eng.localhost")), r.onHost("eng.localhost"))).StatusCode
		}
		got := []int{r.status(r.cookieOf(a)), onPortal(a), r.status(r.cookieOf(second)), onPortal(second), r.status(bob)}
		if !slices.Equal(got, want) {
			t.Errorf("%s: first, its portal, second, its portal, bob: %v, want %v", when, got, want)
		}
	}
	lives("before", 200, 200, 200, 200, 200)

	// Of nobody here, of another's session, of another's name: all well, and
	// nothing ends.
	stranger := claimstest.SAMLLogout{NameID: "carol", Format: named[0].Format}
	bobs := named[0]
	bobs.NameID = "bob"
	otherFormat := named[0]
	otherFormat.Format = claimstest.SAMLEmail
	unknown := named[0]
	unknown.Sessions = []string{"_no_such_session"}
	for what, l := range map[string]claimstest.SAMLLogout{
		"a stranger": stranger, "bob, by a session of alice": bobs, "alice in another format": otherFormat, "another session of alice": unknown,
	} {
		for binding, bring := range r.bindings(l, logoutLies{}) {
			r.succeeded(what+", "+binding, bring())
		}
	}
	lives("by what fits nobody", 200, 200, 200, 200, 200)

	one := named[0]
	one.RelayState = "of the provider & <its>"
	res := r.bindings(one, logoutLies{})["redirect"]()
	if m := r.answered("one session", res); m.RelayState != one.RelayState || m.Service != r.server.URL+"/_auth/saml/adfs/metadata" || res.StatusCode != 303 {
		t.Errorf("%d: %+v", res.StatusCode, m)
	}
	lives("one session", 401, 401, 200, 200, 200)
	r.proxy.Recheck(t.Context())
	for _, c := range sockets[:2] {
		ended(t, "a socket of the session", func() error { _, _, err := c.Read(t.Context()); return err })
	}
	for i, c := range sockets[2:] {
		if !talks(t, c, "after") {
			t.Errorf("a socket of another session was closed: %d", i)
		}
	}

	third, l3 := r.enter("alice")
	fourth, l4 := r.enter("alice")
	both := l3
	both.Sessions = append(both.Sessions, "_unknown", l4.Sessions[0])
	r.succeeded("two sessions", r.bindings(both, logoutLies{})["post"]())
	if a, b := r.status(third), r.status(fourth); a != 401 || b != 401 {
		t.Errorf("two sessions: %d, %d", a, b)
	}
	lives("two other sessions", 401, 401, 200, 200, 200)

	all := named[0]
	all.Sessions, all.Format = nil, "" // as Entra ID and ADFS name people
	r.succeeded("all", r.bindings(all, logoutLies{})["post"]())
	lives("all", 401, 401, 401, 401, 200)
	list := events(t, r.rig, groups.EventSignOut)
	if len(list) != 3 {
		t.Fatalf("%d sign-outs in the audit trail", len(list))
	}
	for _, e := range list {
		if e.Name != "alice" || e.Source != "adfs" || e.Actor != "source adfs" || e.Request == "" || e.Reason != "signed out at the source" {
			t.Errorf("%+v", e)
		}
	}
}

// SM-22, GHSA-pcgw-qcv5-h8ch: a lie ends nothing, by either binding, and is
// answered with a page and a request id that the audit trail knows.
func TestSingleLogoutLies(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	cookie, l := r.enter("alice")
	change := func(path string, f func(*etree.Element)) logoutLies {
		return logoutLies{Mutate: func(el *etree.Element) { f(el.FindElement(path)) }}
	}
	key, _ := ourPair()
	for what, c := range map[string]struct {
		lie    logoutLies
		reason string
	}{
		"unsigned":         {logoutLies{Unsigned: true}, "not signed"},
		"our own key":      {logoutLies{Key: key}, "fits no key"},
		"SHA-1":            {logoutLies{SigAlg: "http://www.w3.org/2000/09/xmldsig#rsa-sha1"}, "algorithm"},
		"old":              {change(".", func(el *etree.Element) { el.CreateAttr("IssueInstant", "2020-01-01T00:00:00Z") }), "too long ago"},
		"expired":          {change(".", func(el *etree.Element) { el.CreateAttr("NotOnOrAfter", "2020-01-01T00:00:00Z") }), "expired"},
		"for another":      {change(".", func(el *etree.Element) { el.CreateAttr("Destination", "https://other.example/slo") }), "Destination"},
		"by another":       {change("./Issuer", func(el *etree.Element) { el.SetText("https://evil.example") }), "Issuer"},
		"an empty session": {change("./SessionIndex", func(el *etree.Element) { el.SetText("") }), "SessionIndex"},
		"of no name":       {change("./NameID", func(el *etree.Element) { el.SetText("") }), "NameID"},
	} {
		for binding, bring := range r.bindings(l, c.lie) {
			r.refusedLogout(what+", "+binding, bring(), 400, "invalid_request", c.reason)
			if got := r.status(cookie); got != 200 {
				t.Fatalf("%s, %s: the session gets %d", what, binding, got)
			}
		}
	}
	// Redirect binding with reordered/duplicated query.
	for what, mutate := range map[string]func([]string) []string{
		"reordered":   func(q []string) []string { return []string{q[1], q[0], q[2]} },
		"twice":       func(q []string) []string { return append([]string{q[0]}, q...) },
		"with more":   func(q []string) []string { return append(q, "rd=/x") },
		"cut":         func(q []string) []string { return q[:1] },
		"an appendix": func(q []string) []string { return append(q, "") },
	} {
		k := logoutLies{MutateQuery: func(q string) string { return strings.Join(mutate(strings.Split(q, "&")), "&") }}
		r.refusedLogout(what, r.bindings(l, k)["redirect"](), 400, "invalid_request", "")
	}
	r.refusedLogout("no message", r.do("GET", slo, page), 400, "invalid_request", "")
	if got := r.status(cookie); got != 200 {
		t.Fatalf("the session gets %d", got)
	}

	// EncryptedID: answered with a status, ends nothing, and is written down.
	k := change("./NameID", func(el *etree.Element) { el.Tag = "EncryptedID"; el.SetText("") })
	res := r.bindings(l, k)["redirect"]()
	if m := r.answered("EncryptedID", res); !slices.Equal(m.Status, []string{"Requester", "RequestUnsupported"}) {
		t.Errorf("%+v", m)
	}
	eventually(t, "the refusal in the audit trail", 5*time.Second, func() bool {
		return slices.ContainsFunc(events(t, r.rig, groups.EventRefused), func(e groups.Event) bool { return strings.Contains(e.Reason, "EncryptedID") && e.Source == "adfs" })
	})
	if got := r.status(cookie); got != 200 {
		t.Fatalf("EncryptedID: the session gets %d", got)
	}
	r.succeeded("control", r.bindings(l, logoutLies{})["post"]())
	if got := r.status(cookie); got != 401 {
		t.Errorf("control: the session gets %d", got)
	}
	if logs := r.logs.String(); strings.Contains(logs, "PHNhbWw") || strings.Contains(logs, "SAMLRequest=") || strings.Contains(logs, "alice</") { // SC-07
		t.Error("a message is in the log")
	}
}

// SM-22: a request counts once, by whatever binding it comes back, also of many
// at once; and nothing is noted that a stranger sends.
func TestSingleLogoutReplay(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	cookie, l := r.enter("alice")
	l.Sessions = nil
	to := r.server.URL + slo
	id := func(k logoutLies) logoutLies {
		k.Mutate = func(el *etree.Element) { el.CreateAttr("ID", "_the_same") }
		return k
	}
	stranger, _ := ourPair()
	r.refusedLogout("a stranger uses the ID first", r.send(r.idp.LogoutQuery(to, l, id(logoutLies{Key: stranger})), nil), 400, "invalid_request", "fits no key")
	query := r.idp.LogoutQuery(to, l, id(logoutLies{}))
	r.succeeded("first", r.send(query, nil))
	if got := r.status(cookie); got != 401 {
		t.Fatalf("the session gets %d", got)
	}
	cookie, _ = r.enter("alice")
	r.refusedLogout("again", r.send(query, nil), 400, "invalid_request", "used before")
	r.refusedLogout("again as a form", r.send(to, r.idp.LogoutForm(to, l, id(logoutLies{}))), 400, "invalid_request", "used before")
	if got := r.status(cookie); got != 200 {
		t.Errorf("by a replay the session gets %d", got)
	}
	race := r.idp.LogoutQuery(to, claimstest.SAMLLogout{NameID: "nobody"})
	count := atOnce(t, 8, func() (*http.Response, error) { return r.client().Get(race) })
	if count[303] != 1 || count[400] != 7 {
		t.Errorf("at once: %v", count)
	}
	// Another process on the same store knows it too.
	restarted := proxy.New(proxy.Options{Directory: r.dir, Now: r.clock.Now})
	if err := restarted.Configure(r.settings); err != nil {
		t.Fatal(err)
	}
	r.server.Config.Handler = restarted
	r.refusedLogout("after a restart", r.send(query, nil), 400, "invalid_request", "used before")
}

// SM-14, SC-14, RD-06: methods, bodies and sources that are none.
func TestSingleLogoutForms(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil, portals)
	cookie, l := r.enter("alice")
	to := r.server.URL + slo
	form := func() url.Values { return r.idp.LogoutForm(to, l) }
	query := func() string { return strings.TrimPrefix(r.idp.LogoutQuery(to, l), r.server.URL) }
	for _, method := range []string{"HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		res := r.do(method, query(), page)
		if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, POST" {
			t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
		}
	}
	twice := form()
	twice.Add("SAMLRequest", twice.Get("SAMLRequest"))
	states := form()
	states["RelayState"] = []string{"a", "b"}
	large := form()
	large.Set("pad", strings.Repeat("x", 768<<10))
	for _, c := range []struct {
		what, path string
		edit       func(*http.Request)
		method     string
		status     int
	}{
		{"RD-06 the message twice", slo, posted(twice), "POST", 400},
		{"RD-06 RelayState twice", slo, posted(states), "POST", 400},
		{"only in the query", query(), posted(url.Values{}), "POST", 400},
		{"text", slo, edits(posted(form()), header("Content-Type", "text/plain")), "POST", 415},
		{"two content types", slo, edits(posted(form()), header("Content-Type", formType, formType)), "POST", 415},
		{"SC-14 too large", slo, posted(large), "POST", 413},
		{"SC-14 too large, chunked", slo, edits(posted(large), func(req *http.Request) { req.ContentLength = -1 }), "POST", 413},
		{"a source that is not", "/_auth/saml/nobody/slo", posted(form()), "POST", 404},
		{"a portal", slo, edits(posted(form()), r.onHost("eng.localhost")), "POST", 404},
		{"another host", slo, edits(posted(form()), func(req *http.Request) { req.Host = "evil.example" }), "POST", 421},
		{"a path below", slo + "/x", posted(form()), "POST", 404},
		{"no source", "/_auth/saml//slo", posted(form()), "POST", 404},
	} {
		if res := r.do(c.method, c.path, edits(page, c.edit)); res.StatusCode != c.status || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", c.what, res.StatusCode, res.Header)
		}
	}
	if got := r.status(cookie); got != 200 {
		t.Fatalf("the session gets %d", got)
	}
	r.faults.down.Store(true)
	if res := r.do("GET", query(), page); res.StatusCode != 503 || len(res.Cookies()) != 0 {
		t.Errorf("with the store down: %d", res.StatusCode)
	}
	r.faults.down.Store(false)
	if got := r.status(cookie); got != 200 {
		t.Errorf("after that the session gets %d", got)
	}
	r.succeeded("control", r.do("POST", slo+"?pad=x", edits(page, posted(form()))))
	if got := r.status(cookie); got != 401 {
		t.Errorf("control: the session gets %d", got)
	}
	// A source of another protocol has no such address.
	other := newRig(t)
	if res := other.do("GET", "/_auth/saml/test/slo?SAMLRequest=x", page); res.StatusCode != 404 {
		t.Errorf("an OIDC source: %d", res.StatusCode)
	}
}

// SC-06, contract section 8: where the provider takes no redirect, a page posts
// the answer, by script or by button, to it alone and in a frame of it alone.
func TestSingleLogoutAnswersByPost(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	r.offers("post", true)
	b := r.browser()
	r.enterWith(b, "alice")
	p, err := b.Get(r.idp.URL + "/logout?person=alice&binding=post&RelayState=" + url.QueryEscape(`"><script>alert(1)</script>`))
	if err != nil || len(p.Forms()) != 1 {
		t.Fatalf("%v: %+v", err, p)
	}
	b.Header.Set("Accept-Language", "de")
	if p, err = b.Submit(p, nil); err != nil || p.Status != 200 || len(p.Forms()) != 1 {
		t.Fatalf("%v: %+v", err, p)
	}
	policy := p.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "form-action " + r.idp.URL + " ", "frame-ancestors " + r.idp.URL, "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || p.Header.Get("X-Frame-Options") != "" || p.Header.Get("Cache-Control") != "no-store" || p.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers: %v", p.Header)
	}
	if !strings.Contains(p.Body, "Sie werden abgemeldet") || strings.Contains(p.Body, "<script>alert") || p.Forms()[0].Action != r.idp.URL+"/slo/answers" {
		t.Errorf("the page: %s", p.Body)
	}
	if p, err = b.Submit(p, nil); err != nil || p.Status != 200 || !strings.Contains(p.Body, "The service answered Success") {
		t.Fatalf("%v: %+v", err, p)
	}
	if got := r.idp.Logouts(); len(got) != 1 || got[0].RelayState != `"><script>alert(1)</script>` || got[0].Binding != claimstest.SAMLPost {
		t.Errorf("the provider got %+v", got)
	}
	if got := r.status(r.cookieOf(b)); got != 401 {
		t.Errorf("the session gets %d", got)
	}
}
