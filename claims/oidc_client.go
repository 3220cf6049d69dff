package claims

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // x5t is defined by it (RFC 7515 section 4.1.7); it protects nothing
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 section 2.2
	// An assertion lives for a minute, which begins a little before now: a
	// provider whose clock is behind must not read one from its future.
	assertionLifetime = 60 * time.Second
	assertionBackdate = 5 * time.Second
)

// credentials are how a client shows who it is: a secret, a key, or nothing
// but its name.
type credentials struct {
	id     string
	secret string
	key    *clientKey
	fault  error // the key cannot be used; a checked configuration has none
	now    func() time.Time
}

// clientKey signs assertions.
type clientKey struct {
	private crypto.Signer
	header  map[jose.HeaderKey]string // what names the key
}

// endpoint is where a client shows itself, and what is wanted of it there.
type endpoint struct {
	address  string
	style    oauth2.AuthStyle // of a secret
	audience string           // of an assertion
	algs     []string         // of an assertion's signature; empty: not said
}

func newCredentials(id, secret, keyPEM, certPEM, kid string, now func() time.Time) *credentials {
	c := &credentials{id: id, secret: secret, now: now}
	if keyPEM == "" {
		return c
	}
	c.secret = "" // never beside a signature
	c.key, c.fault = newClientKey(keyPEM, certPEM, kid)
	return c
}

func newClientKey(keyPEM, certPEM, kid string) (*clientKey, error) {
	private, err := parsePrivateKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("the client key %w", err)
	}
	k := &clientKey{private: private, header: map[jose.HeaderKey]string{}}
	if certPEM != "" {
		cert, err := parseCertificate(certPEM, private)
		if err != nil {
			return nil, fmt.Errorf("the client certificate %w", err)
		}
		old, sum := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
		k.header["x5t"] = base64.RawURLEncoding.EncodeToString(old[:])
		k.header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(sum[:])
	} else if kid == "" {
		jwk := jose.JSONWebKey{Key: private.Public()}
		sum, err := jwk.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, errors.New("the client key has no thumbprint")
		}
		kid = base64.RawURLEncoding.EncodeToString(sum)
	}
	if kid != "" {
		k.header["kid"] = kid
	}
	return k, nil
}

// CheckClientKey says what is wrong with a client_key, in words that go behind
// its name and never repeat any of it.
func CheckClientKey(keyPEM string) error {
	_, err := parsePrivateKey(keyPEM)
	return err
}

// CheckClientCertificate says what is wrong with a client_certificate. A key
// that is at fault itself is not held against the certificate.
func CheckClientCertificate(certPEM, keyPEM string) error {
	private, err := parsePrivateKey(keyPEM)
	if err != nil {
		private = nil
	}
	_, err = parseCertificate(certPEM, private)
	return err
}

// ParseCertificate reads the first certificate of a PEM text. Its errors hold
// nothing of it.
func ParseCertificate(text string) (*x509.Certificate, error) { return parseCertificate(text, nil) }

// parsePrivateKey reads the one private key of a PEM text. Other blocks, such
// as the curve that openssl writes first, are passed over.
func parsePrivateKey(text string) (crypto.Signer, error) {
	var found crypto.Signer
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("is encrypted: nobody is there to be asked for its passphrase")
		}
		if found != nil {
			return nil, errors.New("holds more than one private key")
		}
		var key any
		var err error
		switch block.Type {
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
		if err != nil {
			return nil, errors.New("cannot be read: it must be PKCS#8, PKCS#1 or SEC 1 inside of PEM")
		}
		if found, err = usablePrivateKey(key); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, errors.New(`is no private key in PEM ("-----BEGIN PRIVATE KEY-----")`)
	}
	return found, nil
}

func usablePrivateKey(key any) (crypto.Signer, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("is an RSA key under %d bits", minRSABits)
		}
		return key, nil
	case *ecdsa.PrivateKey:
		if curveAlgorithm(key.Curve) == "" {
			return nil, errors.New("is on a curve other than P-256, P-384 and P-521")
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	default:
		return nil, errors.New("is neither RSA nor ECDSA nor Ed25519")
	}
}

// parseCertificate reads the first certificate, which must be the key's. A nil
// key is not compared.
func parseCertificate(text string, private crypto.Signer) (*x509.Certificate, error) {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("cannot be read: it must be X.509 inside of PEM")
		}
		public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if private != nil && (!ok || !public.Equal(private.Public())) {
			return nil, errors.New("belongs to another key")
		}
		return cert, nil
	}
	return nil, errors.New(`is no certificate in PEM ("-----BEGIN CERTIFICATE-----")`)
}

func curveAlgorithm(c elliptic.Curve) jose.SignatureAlgorithm {
	switch c {
	case elliptic.P256():
		return jose.ES256
	case elliptic.P384():
		return jose.ES384
	case elliptic.P521():
		return jose.ES512
	}
	return ""
}

// algorithm chooses among what the provider lists. Only RSA leaves a choice;
// RS256 comes first because every provider has it.
func (k *clientKey) algorithm(listed []string) jose.SignatureAlgorithm {
	switch key := k.private.(type) {
	case *ecdsa.PrivateKey:
		return curveAlgorithm(key.Curve)
	case ed25519.PrivateKey:
		return jose.EdDSA
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.RS384, jose.PS384, jose.RS512, jose.PS512} {
		if slices.Contains(listed, string(alg)) {
			return alg
		}
	}
	return jose.RS256
}

// assertion is a new one at every call: a provider takes each once.
func (c *credentials) assertion(at endpoint) (string, error) {
	k := c.key
	opts := (&jose.SignerOptions{}).WithType("JWT")
	for name, v := range k.header {
		opts = opts.WithHeader(name, v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithm(at.algs), Key: k.private}, opts)
	if err != nil {
		return "", errors.New("the client key cannot sign")
	}
	issued := c.now().Add(-assertionBackdate)
	payload, err := json.Marshal(map[string]any{
		"iss": c.id, "sub": c.id, "aud": at.audience, "jti": rand.Text(),
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Add(assertionLifetime).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", errors.New("the client key cannot sign")
	}
	return jws.CompactSerialize()
}

// sign adds an assertion to a form, when that is how the client shows itself
// (OpenID Connect Core 1.0 section 9, RFC 7523 section 2.2).
func (c *credentials) sign(form url.Values, at endpoint) error {
	if c.fault != nil || c.key == nil {
		return c.fault
	}
	assertion, err := c.assertion(at)
	if err != nil {
		return err
	}
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", assertion)
	return nil
}

// token asks a token endpoint once. The form says what for: the library's
// client credentials are its one call that lets every parameter be said.
func (c *credentials) token(ctx context.Context, client *http.Client, at endpoint, form url.Values) (*oauth2.Token, error) {
	if err := c.sign(form, at); err != nil {
		return nil, err
	}
	conf := clientcredentials.Config{
		ClientID: c.id, ClientSecret: c.secret, TokenURL: at.address, AuthStyle: at.style, EndpointParams: form,
	}
	return conf.Token(oidc.ClientContext(ctx, client))
}

// request is a form for an endpoint that answers something else than tokens.
func (c *credentials) request(ctx context.Context, at endpoint, form url.Values) (*http.Request, error) {
	if err := c.sign(form, at); err != nil {
		return nil, err
	}
	if at.style == oauth2.AuthStyleInParams && c.secret != "" {
		form.Set("client_secret", c.secret)
	}
	form.Set("client_id", c.id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if at.style == oauth2.AuthStyleInHeader { // both form-encoded first (RFC 6749 section 2.3.1)
		req.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret))
	}
	return req, nil
}

// authStyle is how a secret is shown. It is always said: the library would
// otherwise try both ways with a code that works only once.
func (c *credentials) authStyle(listed []string) oauth2.AuthStyle {
	switch {
	case c.secret == "": // a public client, or one that signs, names itself in the body (RFC 6749 section 3.2.1)
		return oauth2.AuthStyleInParams
	case slices.Contains(listed, "client_secret_post") && !slices.Contains(listed, "client_secret_basic"):
		return oauth2.AuthStyleInParams
	default: // what Discovery 1.0 section 3 says when nothing is listed
		return oauth2.AuthStyleInHeader
	}
}

// at is an endpoint of the provider where the client authenticates.
func (o *OIDC) at(p *provider, address string) endpoint {
	return endpoint{address: address, style: o.creds.authStyle(p.TokenAuth), audience: o.audience(p), algs: p.TokenAuthAlgs}
}

// audience is whom an assertion is for. The issuer, alone and as text, is what
// RFC 9126 section 2, OpenID Connect Core with its errata and FAPI 2.0 ask for
// and newer releases of Keycloak insist on: an endpoint's address comes from
// metadata and could be another provider's. Entra ID, AD FS and Okta
// document the token endpoint's address and nothing else.
func (o *OIDC) audience(p *provider) string {
	switch o.cfg.Preset {
	case "entra", "adfs", "okta":
		return p.TokenURL
	}
	if _, microsoft := cloudOf(o.cfg.Issuer); microsoft {
		return p.TokenURL
	}
	return o.cfg.Issuer
}

// noteClient warns of a provider that does not list how we show ourselves. It
// may take it all the same: lists are kept badly.
func (o *OIDC) noteClient(p *provider) {
	if o.creds.key == nil {
		return
	}
	if len(p.TokenAuth) > 0 && !slices.Contains(p.TokenAuth, "private_key_jwt") {
		o.log.Warn("the provider does not list private_key_jwt, which client_key is for", zap.String("source", o.name))
	}
	if alg := o.creds.key.algorithm(p.TokenAuthAlgs); len(p.TokenAuthAlgs) > 0 && !slices.Contains(p.TokenAuthAlgs, string(alg)) {
		o.log.Warn("the provider does not list the signature algorithm of client_key",
			zap.String("source", o.name), zap.String("algorithm", string(alg)))
	}
}
