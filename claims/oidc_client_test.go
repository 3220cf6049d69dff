package claims_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// signer is a client's key as it stands in a configuration.
type signer struct {
	pem    string
	public crypto.PublicKey
	key    crypto.Signer
}

func newSigner(key crypto.Signer, err error) signer {
	if err != nil {
		panic(err) // no randomness
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return signer{string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), key.Public(), key}
}

func ecSigner(curve elliptic.Curve) signer { return newSigner(ecdsa.GenerateKey(curve, rand.Reader)) }

// clientRSA is made once: RSA keys take their time.
var clientRSA = sync.OnceValue(func() signer { return newSigner(rsa.GenerateKey(rand.Reader, 2048)) })

func (s signer) certificate() (text string, der []byte) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.public, s.key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), der
}

// signing makes the client of a rig sign, at a provider that wants it.
func signing(s signer) func(*setup) {
	return func(set *setup) {
		set.op.ClientSecret, set.src.Config.ClientSecret = "", ""
		set.op.ClientKeys = []crypto.PublicKey{s.public}
		set.src.Config.ClientKey = s.pem
	}
}

func tokenAlgs(algs ...string) func(*claimstest.Knobs) {
	return func(k *claimstest.Knobs) {
		k.Discovery = set("token_endpoint_auth_signing_alg_values_supported", algs)
	}
}

// The provider of these tests checks signature, audience and time of every
// assertion, and takes each once; here is what else is in one.
func TestPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	p256 := ecSigner(elliptic.P256())
	thumbprint, errPrint := (&jose.JSONWebKey{Key: p256.public}).Thumbprint(crypto.SHA256)
	if errPrint != nil {
		t.Fatal(errPrint)
	}
	certificate, der := p256.certificate()
	old, sum := sha1.Sum(der), sha256.Sum256(der)
	text := base64.RawURLEncoding.EncodeToString
	for name, c := range map[string]struct {
		key    signer
		change func(*claims.OIDCConfig)
		lie    func(*claimstest.Knobs)
		header map[string]any // exactly these, beside typ
		token  bool           // aud is the token endpoint, else the issuer
	}{
		"P-256":                      {key: p256, header: map[string]any{"alg": "ES256", "kid": text(thumbprint)}},
		"P-384":                      {key: ecSigner(elliptic.P384()), header: map[string]any{"alg": "ES384"}},
		"P-521":                      {key: ecSigner(elliptic.P521()), header: map[string]any{"alg": "ES512"}},
		"Ed25519":                    {key: newSigner(edwards, err), header: map[string]any{"alg": "EdDSA"}},
		"RSA":                        {key: clientRSA(), header: map[string]any{"alg": "RS256"}},
		"RSA, PS256 alone is listed": {key: clientRSA(), lie: tokenAlgs("ES256", "PS256"), header: map[string]any{"alg": "PS256"}},
		"RSA, both are listed":       {key: clientRSA(), lie: tokenAlgs("PS256", "RS256"), header: map[string]any{"alg": "RS256"}},
		"with a key id": {key: p256, change: func(c *claims.OIDCConfig) { c.ClientKeyID = "mine" },
			header: map[string]any{"alg": "ES256", "kid": "mine"}},
		"with a certificate": {key: p256, change: func(c *claims.OIDCConfig) { c.ClientCertificate = certificate },
			header: map[string]any{"alg": "ES256", "x5t": text(old[:]), "x5t#S256": text(sum[:])}},
		"Entra ID wants the token endpoint":  {key: p256, change: func(c *claims.OIDCConfig) { c.Preset = "entra" }, token: true},
		"AD FS wants the token endpoint":     {key: p256, change: func(c *claims.OIDCConfig) { c.Preset = "adfs" }, token: true},
		"Okta wants the token endpoint":      {key: p256, change: func(c *claims.OIDCConfig) { c.Preset = "okta" }, token: true},
		"Keycloak wants the issuer":          {key: p256, change: func(c *claims.OIDCConfig) { c.Preset = "keycloak" }},
		"a secret beside the key stays away": {key: p256, change: func(c *claims.OIDCConfig) { c.ClientSecret = "canary-secret" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, signing(c.key), func(s *setup) {
				s.op.PAR = true
				if c.change != nil {
					c.change(&s.src.Config)
				}
			})
			if c.lie != nil {
				r.op.Lie(c.lie)
			}
			_, g := r.mustLogin(t)
			if _, _, err := r.src.Refresh(t.Context(), g, "alice"); err != nil {
				t.Fatalf("Refresh: %v", err)
			}
			seen := r.op.Assertions()
			if len(seen) != 3 || r.op.TokenAuth() != "private_key_jwt" { // pushed request, code, refresh
				t.Fatalf("%d assertions, client shown by %s", len(seen), r.op.TokenAuth())
			}
			want := r.op.URL
			if c.token {
				want += "/token"
			}
			for _, a := range seen {
				if a.Claims["aud"] != want || a.Header["typ"] != "JWT" {
					t.Errorf("aud %v, typ %v", a.Claims["aud"], a.Header["typ"])
				}
				if life := a.Claims["exp"].(float64) - a.Claims["iat"].(float64); life > 60 {
					t.Errorf("it lives for %vs", life)
				}
				if c.header == nil {
					continue
				}
				for name, v := range c.header {
					if a.Header[name] != v {
						t.Errorf("header %s: %v, want %v", name, a.Header[name], v)
					}
				}
				_, kid := a.Header["kid"]
				_, x5t := a.Header["x5t"]
				if kid == x5t {
					t.Errorf("a key is named by a certificate or an id: %v", a.Header)
				}
			}
		})
	}
}

// A provider knows the key of the configuration; a reload with another one is
// another source, and the old one no longer gets in.
func TestClientKeyRotation(t *testing.T) {
	t.Parallel()
	before, after := ecSigner(elliptic.P256()), ecSigner(elliptic.P256())
	r := newRig(t, signing(before))
	_, g := r.mustLogin(t)
	r.op.SetClientKeys(after.public)
	_, _, err := r.login(t)
	wantError(t, err, claims.ErrProtocol)
	_, _, err = r.src.Refresh(t.Context(), g, "alice")
	wantError(t, err, claims.ErrUnavailable) // an unknown client is no reason to end a session
	cfg := claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientKey: after.pem}
	client := r.op.Client()
	defer client.CloseIdleConnections()
	next := claims.NewOIDC(claims.OIDCOptions{Name: "idp", Config: cfg, Client: client, Now: r.clock.now})
	if _, _, err := next.Refresh(t.Context(), g, "alice"); err != nil {
		t.Errorf("with the new key: %v", err)
	}
}

// SC-09: a key that cannot be used is a fault without a word of it, and
// nothing is sent in its place. The configuration refuses it long before.
func TestUnusableClientKeyIsNoPublicClient(t *testing.T) {
	t.Parallel()
	good := ecSigner(elliptic.P256())
	for name, spoil := range map[string]func(*claims.OIDCConfig){
		"no key":              func(c *claims.OIDCConfig) { c.ClientKey = "canary" },
		"cut off":             func(c *claims.OIDCConfig) { c.ClientKey = c.ClientKey[:60] },
		"foreign certificate": func(c *claims.OIDCConfig) { c.ClientCertificate, _ = ecSigner(elliptic.P256()).certificate() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, signing(good), func(s *setup) { spoil(&s.src.Config) })
			_, _, err := r.login(t)
			if err == nil || r.op.Calls("token") != 0 || strings.Contains(err.Error(), "canary") {
				t.Errorf("%v, after %d calls", err, r.op.Calls("token"))
			}
		})
	}
}

func TestClientAuthenticationThatIsNotListedIsWarnedOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		methods, algs []string
		want          []string
	}{
		"nothing is listed": {nil, nil, nil},
		"both are listed":   {[]string{"private_key_jwt"}, []string{"ES256"}, nil},
		"not the method":    {[]string{"client_secret_basic"}, nil, []string{"the provider does not list private_key_jwt, which client_key is for"}},
		"not the algorithm": {[]string{"private_key_jwt"}, []string{"RS256"}, []string{"the provider does not list the signature algorithm of client_key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, signing(ecSigner(elliptic.P256())))
			r.op.Lie(func(k *claimstest.Knobs) {
				k.Discovery = func(doc map[string]any) {
					if c.methods != nil {
						doc["token_endpoint_auth_methods_supported"] = c.methods
					}
					if c.algs != nil {
						doc["token_endpoint_auth_signing_alg_values_supported"] = c.algs
					}
				}
			})
			r.mustLogin(t) // it may take it all the same
			r.mustLogin(t)
			var got []string
			for _, e := range r.logs.All() {
				if e.Level >= 1 {
					got = append(got, e.Message)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("warned of %q, want %q", got, c.want)
			}
		})
	}
}

// SC-25: an assertion is of now by our clock, in a century that 32 bits do not
// reach as in this one.
func TestAssertionsInALaterCentury(t *testing.T) {
	t.Parallel()
	r := newRig(t, signing(ecSigner(elliptic.P256())))
	r.clock.advance(80 * 365 * 24 * time.Hour)
	r.mustLogin(t)
	if exp := r.op.Assertions()[0].Claims["exp"].(float64); exp < 1<<32 {
		t.Errorf("exp is %v", exp)
	}
}

// challenge begins a login and answers where it leads.
func (r *rig) challenge(t *testing.T) (*httptest.ResponseRecorder, error) {
	t.Helper()
	w := httptest.NewRecorder()
	err := r.src.Challenge(w, httptest.NewRequest("GET", "/_auth/start", nil), newFlow())
	return w, err
}
