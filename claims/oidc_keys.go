package claims

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	keysTimeout  = 5 * time.Second
	keysInterval = 10 * time.Second // at most one fetch in it, whatever tokens say
	keysAge      = time.Hour        // older keys are read again, so that a revoked one goes
	minRSABits   = 2048             // RFC 7518 section 3.3
)

var _ oidc.KeySet = (*keySet)(nil)

var errSignature = errors.New("no key of the provider fits the signature")

// errKeyUnknown is an errSignature of a token whose key id the provider does
// not publish, or not yet.
var errKeyUnknown = fmt.Errorf("%w: its key id is unknown", errSignature)

// keySet is the provider's signing keys. It keeps the last good ones when the
// provider fails, and asks again for a key it does not know, but never more
// often than keysInterval: what a token says must not become a stream of
// requests to the provider.
type keySet struct {
	url     string
	algs    []jose.SignatureAlgorithm
	client  *http.Client
	timeout time.Duration
	now     func() time.Time

	mu      sync.Mutex
	keys    []jose.JSONWebKey // replaced whole, never changed
	version int               // counts replacements
	fetched time.Time         // when keys were read
	asked   time.Time         // when a token last made us ask
	err     error             // of the last fetch
	running *keyFetch
}

type keyFetch struct {
	done chan struct{}
	err  error
}

// VerifySignature checks the signature of a compact JWS and answers its
// payload. The error wraps ErrUnavailable when the right key may exist but
// could not be read.
func (s *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, s.algs)
	if err != nil {
		return nil, errors.New("not a signed JWT of an allowed algorithm")
	}
	keys, version := s.current()
	if payload, ok := verifyWith(keys, jws); ok {
		return payload, nil
	}
	fetchErr := s.renew(ctx, version)
	keys, newer := s.current()
	if newer != version {
		if payload, ok := verifyWith(keys, jws); ok {
			return payload, nil
		}
	}
	if fetchErr != nil {
		return nil, fmt.Errorf("%w: read keys: %w", ErrUnavailable, fetchErr)
	}
	kid := ""
	if len(jws.Signatures) == 1 {
		kid = jws.Signatures[0].Header.KeyID
	}
	if kid != "" && !slices.ContainsFunc(keys, func(k jose.JSONWebKey) bool { return k.KeyID == kid }) {
		return nil, errKeyUnknown
	}
	return nil, errSignature
}

// current answers the keys, and has old ones read again in the background.
func (s *keySet) current() ([]jose.JSONWebKey, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if len(s.keys) > 0 && s.running == nil && now.Sub(s.fetched) > keysAge && now.Sub(s.asked) >= keysInterval {
		s.asked = now
		s.start()
	}
	return s.keys, s.version
}

// renew brings keys newer than version, when the interval allows it, or joins
// a fetch under way. It answers the error of the latest fetch.
func (s *keySet) renew(ctx context.Context, version int) error {
	s.mu.Lock()
	if s.version != version { // somebody brought newer ones meanwhile
		s.mu.Unlock()
		return nil
	}
	f := s.running
	if f == nil {
		now := s.now()
		if !s.asked.IsZero() && now.Sub(s.asked) < keysInterval {
			defer s.mu.Unlock()
			return s.err
		}
		s.asked = now
		f = s.start()
	}
	s.mu.Unlock()
	return f.wait(ctx)
}

// load reads the keys now. It is for callers that are not driven by a token.
func (s *keySet) load(ctx context.Context) error {
	s.mu.Lock()
	f := s.running
	if f == nil {
		f = s.start()
	}
	s.mu.Unlock()
	return f.wait(ctx)
}

func (s *keySet) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.keys) > 0:
		return nil
	case s.err != nil:
		return s.err
	default:
		return errors.New("not read yet")
	}
}

func (s *keySet) age(now time.Time) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, now.Sub(s.fetched)), !s.fetched.IsZero()
}

func (s *keySet) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys)
}

func (f *keyFetch) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start begins a fetch that belongs to no caller. The lock is held.
func (s *keySet) start() *keyFetch {
	f := &keyFetch{done: make(chan struct{})}
	s.running = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		keys, err := s.fetch(ctx)
		s.mu.Lock()
		if err == nil {
			s.keys, s.fetched = keys, s.now()
			s.version++
		}
		s.err, f.err = err, err
		s.running = nil
		s.mu.Unlock()
		close(f.done)
	}()
	return f
}

func (s *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	ans, err := fetch(ctx, s.client, s.url, "")
	if err != nil {
		return nil, err
	}
	if ans.status != http.StatusOK {
		return nil, fmt.Errorf("%s answered with status %d", s.url, ans.status)
	}
	return parseKeys(ans.body)
}

// parseKeys reads the usable keys of a JWK Set (RFC 7517 section 5: what is
// not understood is passed over). A set without any is an error, so that it
// never takes the place of a good one.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the answer is not a JWK Set")
	}
	var keys []jose.JSONWebKey
	for _, members := range set.Keys {
		// Certificates are not what we trust here, and a library that cannot
		// read one would lose the key.
		for _, cert := range []string{"x5c", "x5t", "x5t#S256", "x5u"} {
			delete(members, cert)
		}
		raw, err := json.Marshal(members)
		if err != nil {
			continue
		}
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil || !usableKey(&key) {
			continue
		}
		keys = append(keys, key.Public())
	}
	if len(keys) == 0 {
		return nil, errors.New("the JWK Set has no usable key")
	}
	return keys, nil
}

func usableKey(k *jose.JSONWebKey) bool {
	if k.Use != "" && k.Use != "sig" {
		return false
	}
	switch pub := k.Public().Key.(type) {
	case *rsa.PublicKey:
		return pub.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	default:
		return false
	}
}

// verifyWith tries the keys that may have made the signature: those with the
// token's kid, or all of a fitting type when it has none.
func verifyWith(keys []jose.JSONWebKey, jws *jose.JSONWebSignature) ([]byte, bool) {
	if len(jws.Signatures) != 1 {
		return nil, false
	}
	header := jws.Signatures[0].Header
	for i := range keys {
		k := &keys[i]
		if header.KeyID != "" && k.KeyID != header.KeyID || !fits(k, header.Algorithm) {
			continue
		}
		if payload, err := jws.Verify(k.Key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

func fits(k *jose.JSONWebKey, alg string) bool {
	if k.Algorithm != "" && k.Algorithm != alg {
		return false
	}
	switch pub := k.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
		return curves[alg] == pub.Curve
	case ed25519.PublicKey:
		return alg == "EdDSA"
	default:
		return false
	}
}
