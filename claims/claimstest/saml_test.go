package claimstest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/claims/saml"
)

// service is a program that signs people in at a SAML provider, on its own
// host.
type service struct {
	*httptest.Server
	src *saml.Source
}

func newService(t *testing.T, idp *claimstest.SAMLIdP, initiated bool) *service {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := claimstest.SAMLCertificate(key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	cfg := claims.DefaultSAML
	cfg.MetadataURL, cfg.IDPInitiated = idp.URL+"/metadata", initiated
	client := idp.Client()
	t.Cleanup(client.CloseIdleConnections)
	s.src, err = saml.New(saml.Options{Name: "idp", Config: cfg, Origin: s.URL, Key: key, Certificate: certificate, Client: client})
	if err != nil {
		t.Fatal(err)
	}
	_, metadata, err := s.src.Metadata()
	if err == nil {
		err = idp.Trust(metadata)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := &claims.Flow{ID: "flow", State: "relay-state", RequestID: "id-1"}
	if r.URL.Path == "/start" {
		if err := s.src.Challenge(w, r, f); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return
	}
	if r.PostFormValue("RelayState") != f.State {
		f = &claims.Flow{}
	}
	id, _, err := s.src.Authenticate(r, f)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	_, _ = w.Write([]byte(id.Subject + " " + strings.Join(id.Claims.Resolve("groups").Values, ",") + " " + r.Header.Get("Sec-Fetch-Site")))
}

var samlPeople = []claimstest.SAMLPerson{
	{NameID: "alice", Description: "in two <groups>", Attributes: map[string][]string{"groups": {"eng", "ops"}}},
	{NameID: "o'hara \"&", Attributes: map[string][]string{"groups": {"a & b"}}},
}

func TestSAMLSignsInThroughThePage(t *testing.T) {
	t.Parallel()
	idp := claimstest.StartSAML(t, claimstest.SAMLOptions{People: samlPeople, TLS: true, WantSigned: true, Encrypt: "aes256-gcm"})
	s := newService(t, idp, true)
	b := claimstest.NewBrowser(idp.Roots())
	t.Cleanup(b.Close)
	for person, want := range map[string]string{"alice": "alice eng,ops cross-site", "o'hara \"&": "o'hara \"& a & b cross-site"} {
		for _, from := range []string{s.URL + "/start", idp.URL + "/start"} {
			p, err := b.Login(from, person)
			if err != nil || p.Status != http.StatusOK || p.Body != want {
				t.Errorf("%s from %s: %v, %+v", person, from, err, p)
			}
		}
	}
	if n := len(idp.Logins()); n != 4 || idp.Calls("sso") != 4 || idp.Calls("start") != 4 || idp.Calls("metadata") != 1 {
		t.Errorf("%d logins, %d sso, %d start, %d metadata", n, idp.Calls("sso"), idp.Calls("start"), idp.Calls("metadata"))
	}
	p, err := b.Get(s.URL + "/start")
	if err != nil || !strings.Contains(p.Body, "in two &lt;groups&gt;") {
		t.Fatalf("the page: %v", err)
	}
	if p, err = b.Submit(p, map[string]string{"cancel": "yes"}); err != nil {
		t.Fatal(err)
	}
	if p, err = b.Submit(p, nil); err != nil || p.Status != http.StatusForbidden || !strings.Contains(p.Body, "RequestDenied") {
		t.Errorf("cancelled: %v, %+v", err, p)
	}
}

// The provider holds requests to what it knows of the service: it would hide
// our faults else.
func TestSAMLProviderChecksRequests(t *testing.T) {
	t.Parallel()
	idp := claimstest.StartSAML(t, claimstest.SAMLOptions{People: samlPeople, AutoLogin: "alice", WantSigned: true, ECDSA: true})
	s := newService(t, idp, false)
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/start", nil))
	honest := rec.Header().Get("Location")
	if p, err := b.Get(honest); err != nil || p.Status != http.StatusOK {
		t.Fatalf("%v %+v", err, p)
	}
	for name, change := range map[string][2]string{
		"RelayState changed": {"RelayState=relay-state", "RelayState=relay-stat"},
		"RelayState gone":    {"&RelayState=relay-state", ""},
		"another algorithm":  {"rsa-sha256", "rsa-sha1"},
		"no signature":       {"&Signature=", "&X="},
		"no request":         {"SAMLRequest=", "SAMLRequest=AAAA"},
	} {
		lie := strings.Replace(honest, change[0], change[1], 1)
		if p, err := b.Get(lie); lie == honest || err != nil || p.Status != http.StatusBadRequest {
			t.Errorf("%s: %v, %d", name, err, p.Status)
		}
	}
}

func TestSAMLKeysRoll(t *testing.T) {
	t.Parallel()
	idp := claimstest.StartSAML(t, claimstest.SAMLOptions{People: samlPeople, ECDSA: true})
	count := func() int { return strings.Count(string(idp.Metadata()), "<ds:X509Certificate>") }
	_, first := idp.SigningKey()
	idp.PublishNext()
	if _, now := idp.SigningKey(); string(now) != string(first) || count() != 2 {
		t.Error("the next key signs already, or is not published")
	}
	idp.UseNext()
	_, second := idp.SigningKey()
	if string(second) == string(first) || count() != 2 {
		t.Error("the next key does not sign, or the old one is gone")
	}
	idp.RetireOld()
	if _, now := idp.SigningKey(); string(now) != string(second) || count() != 1 {
		t.Error("the old key is still there")
	}
}
