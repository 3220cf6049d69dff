package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	assertionLife = 60 * time.Second
	// assertionReuse is how long one signature serves the requests of a
	// session, so that they cost no cryptography each: what is left of its
	// life is always at least half a minute.
	assertionReuse = 30 * time.Second
)

// Signer signs assertions (JWT, RFC 7519, with ES256) with its first key, and
// publishes the public halves of all.
type Signer struct {
	keys   []jose.JSONWebKey
	signer jose.Signer
}

// GenerateSigningKey makes a P-256 key in the form NewSigner takes (PKCS 8).
func GenerateSigningKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// NewSigner takes P-256 keys in PKCS 8 form; the first signs.
func NewSigner(pkcs8 ...[]byte) (*Signer, error) {
	if len(pkcs8) == 0 {
		return nil, errors.New("assertion: no signing key")
	}
	s := &Signer{}
	for i, der := range pkcs8 {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, fmt.Errorf("assertion: signing key %d: %w", i+1, err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("assertion: signing key %d is not a P-256 key", i+1)
		}
		pub := jose.JSONWebKey{Key: &key.PublicKey, Algorithm: string(jose.ES256), Use: "sig"}
		thumb, err := pub.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, err
		}
		pub.KeyID = base64.RawURLEncoding.EncodeToString(thumb[:12])
		s.keys = append(s.keys, pub)
		if i > 0 {
			continue
		}
		opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", pub.KeyID)
		if s.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// JWKS is the public keys as a JSON Web Key Set (RFC 7517).
func (s *Signer) JWKS() ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	if s != nil {
		set.Keys = s.keys
	}
	return json.Marshal(set)
}

type assertion struct {
	header []string
	made   int64 // Unix nanoseconds
}

// assertion answers the header's value for a session and an audience.
func (s *site) assertion(m *member, audience string, now time.Time) ([]string, error) {
	if v, ok := m.assertions.Load(audience); ok {
		if a := v.(*assertion); now.UnixNano()-a.made < int64(assertionReuse) && now.UnixNano() >= a.made {
			return a.header, nil
		}
	}
	token, err := s.sign(m, audience, now)
	if err != nil {
		return nil, err
	}
	a := &assertion{header: []string{token}, made: now.UnixNano()}
	m.assertions.Store(audience, a)
	return a.header, nil
}

func (s *site) sign(m *member, audience string, now time.Time) (string, error) {
	v := m.view
	payload, err := json.Marshal(struct {
		Issuer   string   `json:"iss"`
		Audience string   `json:"aud"`
		Subject  string   `json:"sub"`
		User     string   `json:"user"`
		Email    string   `json:"email"`
		Name     string   `json:"name"`
		Source   string   `json:"source"`
		Groups   []string `json:"groups"`
		IssuedAt int64    `json:"iat"`
		Expires  int64    `json:"exp"`
	}{
		s.public, audience, stableID(v), v.User.Name, v.User.Email, v.User.Display, v.Login.Source,
		append([]string{}, m.head.groups...), now.Unix(), now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := s.set.Signer.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("assertion: %w", err)
	}
	return jws.CompactSerialize()
}

// SealSigningKey encrypts a signing key for the store, with the first of the
// session keys; OpenSigningKey opens it with any of them.
func SealSigningKey(sessionKeys [][]byte, pkcs8 []byte) ([]byte, error) {
	return sealKey(sessionKeys, purposeSigning, pkcs8, "")
}

// OpenSigningKey is the reverse of SealSigningKey.
func OpenSigningKey(sessionKeys [][]byte, sealed []byte) ([]byte, error) {
	return openKey(sessionKeys, purposeSigning, sealed, "")
}

// SealSourceKey encrypts the key that a source knows us by, in whatever form,
// as SealSigningKey does. It opens for the source of that name alone.
func SealSourceKey(sessionKeys [][]byte, source string, key []byte) ([]byte, error) {
	return sealKey(sessionKeys, purposeSource, key, source)
}

// OpenSourceKey is the reverse of SealSourceKey.
func OpenSourceKey(sessionKeys [][]byte, source string, sealed []byte) ([]byte, error) {
	return openKey(sessionKeys, purposeSource, sealed, source)
}

// SealTLSKey encrypts a key of the listener's own, such as that of a
// certificate, as SealSigningKey does. It opens for the same use alone.
func SealTLSKey(sessionKeys [][]byte, use string, key []byte) ([]byte, error) {
	return sealKey(sessionKeys, purposeTLS, key, use)
}

// OpenTLSKey is the reverse of SealTLSKey.
func OpenTLSKey(sessionKeys [][]byte, use string, sealed []byte) ([]byte, error) {
	return openKey(sessionKeys, purposeTLS, sealed, use)
}

func sealKey(sessionKeys [][]byte, purpose string, plain []byte, context string) ([]byte, error) {
	k, err := newKeyring(sessionKeys)
	if err != nil {
		return nil, err
	}
	return k.seal(purpose, plain, context), nil
}

func openKey(sessionKeys [][]byte, purpose string, sealed []byte, context string) ([]byte, error) {
	k, err := newKeyring(sessionKeys)
	if err != nil {
		return nil, err
	}
	return k.open(purpose, sealed, context)
}
