package saml

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// Our answers are signed, go where the provider wants answers, and give
// RelayState back when it is as short as it has to be.
func TestLogoutAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*claimstest.SAMLOptions)
		post   bool
		at     string
	}{
		"both":                   {func(*claimstest.SAMLOptions) {}, false, "/slo"},
		"redirect":               {func(o *claimstest.SAMLOptions) { o.Logout = "redirect" }, false, "/slo"},
		"post":                   {func(o *claimstest.SAMLOptions) { o.Logout = "post" }, true, "/slo"},
		"redirect, elsewhere":    {func(o *claimstest.SAMLOptions) { o.Logout, o.LogoutAnswers = "redirect", true }, false, "/slo/answers"},
		"post, elsewhere":        {func(o *claimstest.SAMLOptions) { o.Logout, o.LogoutAnswers = "post", true }, true, "/slo/answers"},
		"nowhere to be answered": {func(o *claimstest.SAMLOptions) { o.Logout = "none" }, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.change)
			_, l := r.signedIn(t)
			for _, state := range []string{"", "s&t=\"<é", strings.Repeat("x", 80), strings.Repeat("x", 81)} {
				l.RelayState = state
				m, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l))
				if err != nil {
					t.Fatal(err)
				}
				away, err := r.src.AnswerLogout(m)
				if err != nil || (away == nil) != (c.at == "") {
					t.Fatalf("%+v, %v", away, err)
				}
				if away == nil {
					continue
				}
				got, err := r.idp.ReadLogout(away.URL, asForm(away.Form))
				if err != nil {
					t.Fatal(err)
				}
				if len(state) > 80 {
					state = ""
				}
				if got.Service != testService || got.Destination != r.idp.URL+c.at || got.InResponseTo != m.Logout.ID || got.RelayState != state ||
					!slices.Equal(got.Status, []string{"Success"}) || (away.Form != nil) != c.post {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

func asForm(form map[string]string) url.Values {
	if form == nil {
		return nil
	}
	out := url.Values{}
	for name, v := range form {
		out.Set(name, v)
	}
	return out
}

// A person that is named in a way we do not read is answered with a status, and
// nothing ends.
func TestLogoutOfAnEncryptedName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, l := r.signedIn(t)
	for _, tag := range []string{"EncryptedID", "BaseID"} {
		k := lies{Mutate: func(el *etree.Element) {
			name := el.FindElement("./NameID")
			name.Tag = tag
			name.SetText("")
		}}
		for binding, bring := range r.brought(l, k) {
			m, err := bring()
			if err != nil || m.Refused == "" || m.Logout.Aliases != nil || m.Logout.Sessions != nil {
				t.Fatalf("%s, %s: %+v, %v", tag, binding, m, err)
			}
			away, err := r.src.AnswerLogout(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.idp.ReadLogout(away.URL, asForm(away.Form))
			if err != nil || !slices.Equal(got.Status, []string{"Requester", "RequestUnsupported"}) || got.InResponseTo != m.Logout.ID {
				t.Errorf("%s, %s: %+v, %v", tag, binding, got, err)
			}
		}
		// Only whom the provider asks.
		for binding, bring := range r.brought(l, lies{Mutate: k.Mutate, Key: rsaKey()}) {
			if m, err := bring(); err == nil {
				t.Errorf("%s, %s: answered to a stranger: %+v", tag, binding, m)
			}
		}
	}
}

// Our request names the person as the provider did, and is signed whatever
// sign_requests says.
func TestRequestLogout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		logout, address string
		post            bool
	}{"both": {"", "/slo", false}, "redirect": {"redirect", "/slo", false}, "post": {"post", "/slo", true}, "none": {"none", "", false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, func(c *claims.SAMLConfig) { c.SignRequests = false }, func(o *claimstest.SAMLOptions) { o.Logout = c.logout })
			r.idp.Lie(edit(func(a *etree.Element) {
				name := a.FindElement("./Subject/NameID")
				name.CreateAttr("SPNameQualifier", testService)
				name.CreateAttr("NameQualifier", r.idp.EntityID())
			}))
			id, l := r.signedIn(t)
			away, err := r.src.RequestLogout(r.grant, "id-of-this")
			if err != nil || (away == nil) != (c.address == "") {
				t.Fatalf("%+v, %v", away, err)
			}
			if away == nil {
				return
			}
			got, err := r.idp.ReadLogout(away.URL, asForm(away.Form))
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != "id-of-this" || got.Service != testService || got.NameID != "alice" || got.Format != l.Format || got.NameQualifier != r.idp.EntityID() ||
				got.SPNameQualifier != testService || !slices.Equal(got.Sessions, []string{id.Session}) || got.RelayState != "" || (away.Form != nil) != c.post {
				t.Errorf("%+v", got)
			}
		})
	}
	r := newRig(t)
	r.signedIn(t)
	for name, g := range map[string]*claims.Grant{"no grant": nil, "another source's": {IDToken: "x"}, "broken": {NameID: json.RawMessage(`[1]`)}, "no name": {NameID: json.RawMessage(`{"i":"x"}`)}} {
		if away, err := r.src.RequestLogout(g, "id-1"); away != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, away, err)
		}
	}
	if away, err := newAt(t, "http://127.0.0.1:1/metadata").RequestLogout(r.grant, "id-1"); away != nil || !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("without metadata: %+v, %v", away, err)
	}
}

// newAt is a source whose provider nobody reached yet.
func newAt(t *testing.T, address string) *Source {
	t.Helper()
	cfg := claims.DefaultSAML
	cfg.MetadataURL = address
	s, err := New(Options{Name: "idp", Config: cfg, Origin: "https://portal.example.com", Prefix: "/_auth", Key: ourKey(), Certificate: ourCertificate()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLogoutWithoutMetadata(t *testing.T) {
	t.Parallel()
	s := newAt(t, "http://127.0.0.1:1/metadata")
	m, err := s.ReadLogout(httptest.NewRequest(http.MethodGet, "/_auth/saml/idp/slo?SAMLRequest=x", nil))
	if m != nil || !errors.Is(err, claims.ErrUnavailable) || errors.Is(err, claims.ErrProtocol) {
		t.Errorf("%+v, %v", m, err)
	}
}
