package saml

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

const testService = "urn:example:portal"

func rsaKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

// Keys are made once: nothing is tested by making more of them.
var (
	ourKey, theirKey = sync.OnceValue(rsaKey), sync.OnceValue(rsaKey)
	theirECKey       = sync.OnceValue(func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
)

// withEC has the provider sign with ECDSA, which is much quicker where a
// thousand messages are signed.
func withEC(o *claimstest.SAMLOptions) { o.Key = theirECKey() }

var ourCertificate = sync.OnceValue(func() *x509.Certificate {
	der, err := claimstest.SAMLCertificate(ourKey(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
})

var alice = claimstest.SAMLPerson{NameID: "alice", Attributes: map[string][]string{
	"groups":                    {"eng", "ops", "ünïcode & <more>"},
	"mail":                      {"alice@example.com"},
	"urn:oid:2.5.4.42":          {" Alice "},
	"http://example.com/claims": {"x"},
}}

// rig is a provider, a service with this source, and a browser between them.
// Its clock stands still until a test moves it.
type rig struct {
	idp   *claimstest.SAMLIdP
	src   *Source
	sp    *httptest.Server
	b     *claimstest.Browser
	clock atomic.Int64 // UnixNano
	flows atomic.Int64

	mu       sync.Mutex
	flow     *claims.Flow
	identity *claims.Identity
	grant    *claims.Grant
	err      error
	posts    int
}

func (r *rig) now() time.Time { return time.Unix(0, r.clock.Load()) }

func (r *rig) move(d time.Duration) { r.clock.Add(int64(d)) }

func newRig(t testing.TB, changes ...func(*claimstest.SAMLOptions)) *rig {
	t.Helper()
	return newRigWith(t, nil, changes...)
}

func newRigWith(t testing.TB, configure func(*claims.SAMLConfig), changes ...func(*claimstest.SAMLOptions)) *rig {
	t.Helper()
	r := &rig{}
	r.clock.Store(time.Now().Truncate(time.Second).UnixNano())
	o := claimstest.SAMLOptions{
		People: []claimstest.SAMLPerson{alice, {NameID: "bob"}}, AutoLogin: "alice", Key: theirKey(), Now: r.now, SessionLength: 8 * time.Hour,
	}
	for _, change := range changes {
		change(&o)
	}
	r.idp = claimstest.StartSAML(t, o)
	r.sp = httptest.NewServer(r)
	t.Cleanup(r.sp.Close)
	cfg := claims.DefaultSAML
	cfg.MetadataURL, cfg.EntityID, cfg.SignRequests = r.idp.URL+"/metadata", testService, o.WantSigned
	if configure != nil {
		configure(&cfg)
	}
	client := r.idp.Client()
	t.Cleanup(client.CloseIdleConnections)
	src, err := New(Options{
		Name: "idp", Config: cfg, Origin: r.sp.URL, Prefix: "/_auth", Key: ourKey(), Certificate: ourCertificate(), Client: client, Now: r.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.src = src
	_, metadata, err := r.src.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.idp.Trust(metadata); err != nil {
		t.Fatal(err)
	}
	r.b = claimstest.NewBrowser(nil)
	t.Cleanup(r.b.Close)
	return r
}

func (r *rig) acs() string { return r.sp.URL + "/_auth/saml/idp/acs" }

// ServeHTTP is the service: the parts of the proxy that a source meets.
func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/start" {
		n := r.flows.Add(1)
		f := &claims.Flow{ID: fmt.Sprint("flow", n), State: fmt.Sprint("state", n), RequestID: fmt.Sprint("id-", n), RedirectURI: r.acs(), Started: r.now()}
		r.mu.Lock()
		r.flow = f
		r.mu.Unlock()
		if err := r.src.Challenge(w, req, f); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.posts++
	f := r.flow
	if f == nil { // the login began at the provider
		f = &claims.Flow{RedirectURI: r.acs()}
	}
	r.identity, r.grant, r.err = r.src.Authenticate(req, f)
	r.flow = nil
}

// login walks through a login and answers what the source made of it.
func (r *rig) login(t testing.TB) (*claims.Identity, error) {
	t.Helper()
	return r.walk(t, r.sp.URL+"/start")
}

// unasked is a login that begins at the provider.
func (r *rig) unasked(t testing.TB) (*claims.Identity, error) {
	t.Helper()
	return r.walk(t, r.idp.URL+"/start")
}

func (r *rig) walk(t testing.TB, from string) (*claims.Identity, error) {
	t.Helper()
	before := r.posts
	p, err := r.b.Login(from, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if r.posts != before+1 {
		t.Fatalf("the login did not come to an end: %d %s %s", p.Status, p.URL, p.Body)
	}
	if (r.identity == nil) != (r.err != nil) || (r.grant == nil) != (r.err != nil) {
		t.Errorf("an identity or a grant beside an error, or none of the three: %+v, %v", r.identity, r.err)
	}
	return r.identity, r.err
}

// refused tells a lie and wants it refused for that reason, without a panic;
// the same provider, honest again, signs the person in.
func (r *rig) refused(t *testing.T, name string, lie func(*claimstest.SAMLKnobs), why string) {
	t.Helper()
	r.refusedAs(t, name, claims.ErrProtocol, lie, why)
}

func (r *rig) refusedAs(t *testing.T, name string, kind error, lie func(*claimstest.SAMLKnobs), why string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Helper()
		r.idp.Lie(lie)
		defer r.idp.Honest()
		id, err := r.login(t)
		switch {
		case err == nil:
			t.Errorf("%q is signed in", id.Subject)
		case !errors.Is(err, kind), !strings.Contains(err.Error(), why), !strings.HasPrefix(err.Error(), "idp: read response: "):
			t.Errorf("refused with %q; wanted %q because of %q", err, kind, why)
		}
		if n := r.src.Panics(); n != 0 {
			t.Errorf("%d panics", n)
		}
		r.idp.Honest()
		if id, err := r.login(t); err != nil || id.Subject != "alice" {
			t.Errorf("control: honest again: %+v, %v", id, err)
		}
	})
}

// accepted wants alice signed in, as she is.
func (r *rig) accepted(t *testing.T, name string, lie func(*claimstest.SAMLKnobs)) *claims.Identity {
	t.Helper()
	var id *claims.Identity
	t.Run(name, func(t *testing.T) {
		t.Helper()
		if lie != nil {
			r.idp.Lie(lie)
			defer r.idp.Honest()
		}
		var err error
		if id, err = r.login(t); err != nil {
			t.Fatal(err)
		}
		if id.Subject != "alice" || !slices.Equal(id.Claims.Resolve("groups").Values, alice.Attributes["groups"]) {
			t.Errorf("%+v", id)
		}
	})
	return id
}

// trust is what a message is held to now.
func (r *rig) trust(t testing.TB) *trust {
	t.Helper()
	e, err := r.src.keep.entity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.src.trust(e)
}

// message is a response without a browser, to a request of this id.
func (r *rig) message(t testing.TB, requestID string) []byte {
	t.Helper()
	m, err := r.idp.Respond(claimstest.SAMLRequest{ID: requestID, Service: testService, ACS: r.acs()}, "alice")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// seal encrypts for us, as anybody can.
func (r *rig) seal(el *etree.Element) *etree.Element { return r.sealText(claimstest.SAMLBytes(el)) }

func (r *rig) sealText(text []byte) *etree.Element {
	return claimstest.SAMLEncrypt(text, &ourKey().PublicKey, "aes256-gcm", "oaep", false)
}

// edit is a lie about the assertion, before it is signed.
func edit(change func(assertion *etree.Element)) func(*claimstest.SAMLKnobs) {
	return func(k *claimstest.SAMLKnobs) { k.MutateAssertion = change }
}

// editResponse is a lie about the response, before it is signed.
func editResponse(change func(response *etree.Element)) func(*claimstest.SAMLKnobs) {
	return func(k *claimstest.SAMLKnobs) { k.MutateResponse = change }
}

// editSigned is a change on the way.
func editSigned(change func(response *etree.Element)) func(*claimstest.SAMLKnobs) {
	return func(k *claimstest.SAMLKnobs) { k.MutateSigned = change }
}

// replace changes the message as text.
func replace(old, replacement string) func(*claimstest.SAMLKnobs) {
	return func(k *claimstest.SAMLKnobs) {
		k.MutateMessage = func(m []byte) []byte {
			if !strings.Contains(string(m), old) {
				panic("the message has no " + old)
			}
			return []byte(strings.Replace(string(m), old, replacement, 1))
		}
	}
}

func encode(der []byte) string { return base64.StdEncoding.EncodeToString(der) }
