package proxy_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/claims/saml"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// samlRig is a rig whose people sign in at a SAML provider, "adfs".
type samlRig struct {
	*rig
	idp *claimstest.SAMLIdP
}

// ourPair is one key for all tests: making one takes a while.
var ourPair = sync.OnceValues(func() (*rsa.PrivateKey, *x509.Certificate) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := claimstest.SAMLCertificate(key, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return key, cert
})

func samlPerson(name string, groups ...string) claimstest.SAMLPerson {
	return claimstest.SAMLPerson{NameID: name, Attributes: map[string][]string{
		"preferred_username": {name}, "email": {name + "@example.com"}, "groups": groups,
	}}
}

// newSAMLRig makes one; edit changes the source's settings.
func newSAMLRig(t testing.TB, edit func(*claims.SAMLConfig), opts ...option) *samlRig {
	t.Helper()
	r := &samlRig{}
	source := func(base *rig) {
		r.idp = claimstest.StartSAML(t, claimstest.SAMLOptions{
			People: []claimstest.SAMLPerson{samlPerson("alice", "engineering", "admins"), samlPerson("bob", "engineering")},
			Now:    base.clock.Now, WantSigned: true,
		})
		cfg := claims.DefaultSAML
		cfg.MetadataURL = r.idp.URL + "/metadata"
		if edit != nil {
			edit(&cfg)
		}
		key, cert := ourPair()
		src, err := saml.New(saml.Options{
			Name: "adfs", Config: cfg, Origin: base.settings.PublicURL, Prefix: base.settings.Prefix,
			Key: key, Certificate: cert, Now: base.clock.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, ours, err := src.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.idp.Trust(ours); err != nil {
			t.Fatal(err)
		}
		base.settings.Sources = append(base.settings.Sources, proxy.SourceEntry{Source: src, Label: "Work account", Protocol: "saml"})
		base.groups.Sources = append(base.groups.Sources, groups.SourceSettings{
			Name: "adfs", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep},
		})
		base.groups.Rules = append(base.groups.Rules, groups.Rule{ID: "adfs", Source: "adfs", Claim: "groups", Any: true})
	}
	r.rig = newRig(t, append(opts, source)...)
	return r
}

// beginAt starts a login and answers the address at the provider.
func (r *samlRig) beginAt(b *claimstest.Browser, query string) (authorize string) {
	r.t.Helper()
	res := hop(r.t, b, r.server.URL+"/_auth/start?source=adfs&"+query)
	at := res.Header.Get("Location")
	if res.StatusCode != http.StatusFound || !strings.HasPrefix(at, r.idp.URL) {
		r.t.Fatalf("start answered %d to %q", res.StatusCode, at)
	}
	return at
}

// answerFrom lets the provider sign a person in, and gives what the browser is
// to post.
func (r *samlRig) answerFrom(b *claimstest.Browser, authorize, name string) url.Values {
	r.t.Helper()
	at := authorize + "?"
	if strings.Contains(authorize, "?") {
		at = authorize + "&"
	}
	p, err := b.Get(at + "person=" + name)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(p.Forms()) == 0 {
		r.t.Fatalf("the provider answered %d: %s", p.Status, p.Body)
	}
	form := url.Values{}
	for field, v := range p.Forms()[0].Fields {
		form.Set(field, v)
	}
	return form
}

// form begins a login and has the provider answer it.
func (r *samlRig) form(b *claimstest.Browser, query, name string) url.Values {
	r.t.Helper()
	return r.answerFrom(b, r.beginAt(b, query), name)
}

// crossSite is the cookies that a browser sends with another site's POST: those
// with SameSite=None, so no session.
func (r *samlRig) crossSite(b *claimstest.Browser) string {
	var out []string
	for _, c := range loginCookies(b.Cookies(r.server.URL + "/")) {
		out = append(out, c.Name+"="+c.Value)
	}
	return strings.Join(out, "; ")
}

const acs = "/_auth/saml/adfs/acs"

// post sends a form as the provider's page has the browser send it.
func (r *samlRig) post(form url.Values, cookies string, edit ...func(*http.Request)) *http.Response {
	r.t.Helper()
	return r.do("POST", acs, edits(append([]func(*http.Request){func(req *http.Request) {
		body := form.Encode()
		req.Close = true // a connection that the server has closed meanwhile would be no fault of ours
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Origin", r.idp.URL)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		if cookies != "" {
			req.Header.Set("Cookie", cookies)
		}
		page(req)
	}}, edit...)...))
}

// lands says that a login succeeded, and answers its session cookie.
func (r *samlRig) lands(what string, res *http.Response, at string) string {
	r.t.Helper()
	c := setCookies(res.Header)["__Host-groupgate"]
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != at || c == nil {
		r.t.Fatalf("%s: %d to %q, want 303 to %q: %s", what, res.StatusCode, res.Header.Get("Location"), at, bodyOf(r.t, res))
	}
	return c.Name + "=" + c.Value
}

// refusedPost says that nobody was signed in, by a page, and that the audit
// trail has the reason.
func (r *samlRig) refusedPost(what string, res *http.Response, status int, code, reason string) {
	r.t.Helper()
	body := bodyOf(r.t, res)
	if res.StatusCode != status || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		r.t.Errorf("%s: %d %s, want %d: %s", what, res.StatusCode, res.Header.Get("Content-Type"), status, body)
		return
	}
	if setCookies(res.Header)["__Host-groupgate"] != nil {
		r.t.Errorf("%s: somebody is signed in", what)
	}
	id := idOf(r.t, what, body)
	for _, e := range eventsOf(r.t, r.rig, id) {
		if e.Kind != groups.EventRefused || e.Source != "adfs" || !strings.Contains(e.Reason, reason) {
			r.t.Errorf("%s: the event is %+v, want the reason %q", what, e, reason)
		}
	}
	if !strings.Contains(r.logs.String(), `"code":"`+code+`"`) {
		r.t.Errorf("%s: no log line has the code %s", what, code)
	}
}

// sessionsOf counts a person's sessions in the store.
func (r *samlRig) sessionsOf(name string) int {
	r.t.Helper()
	u, err := r.store.UserByName(r.t.Context(), name)
	if err != nil {
		return 0
	}
	list, err := r.store.Sessions(r.t.Context(), u.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return len(list)
}
