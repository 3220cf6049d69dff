package claims_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// OI-12: whatever tokens say, the provider's keys are read at most once in
// ten seconds.
func TestKeyFloodReachesTheProviderOncePerInterval(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	for name, lie := range map[string]func(*claimstest.Knobs){
		"unknown kids":               headerLie(func(h map[string]any) { h["kid"] = fmt.Sprintf("canary-%d", n.Add(1)) }),
		"known kid, wrong signature": alg("wrong-key"),
		"no kid, wrong signature": func(k *claimstest.Knobs) {
			k.Alg = "wrong-key"
			headerLie(del("kid"))(k)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.mustLogin(t)
			r.clock.advance(time.Minute)
			for round := range 3 {
				before := r.op.Calls("jwks")
				r.op.Lie(lie)
				for range 60 {
					_, _, err := r.login(t)
					wantError(t, err, claims.ErrProtocol)
				}
				if got := r.op.Calls("jwks") - before; got > 1 {
					t.Fatalf("round %d: %d fetches", round, got)
				}
				r.op.Honest()
				r.mustLogin(t)
				r.clock.advance(11 * time.Second)
			}
			if got := r.op.Calls("jwks"); got != 4 {
				t.Errorf("%d fetches in all, want the first and one a round", got)
			}
		})
	}
}

// OI-11: a new key works at once with one fetch, even for many logins in
// parallel, and the one it replaced stops. Also
// oidcc-client-test-signing-key-rotation and
// oidcc-client-test-signing-key-rotation-just-before-signing.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mustLogin(t)
	r.clock.advance(time.Minute)
	r.op.RotateKey(false, false)
	before := r.op.Calls("jwks")
	r.op.Lie(func(k *claimstest.Knobs) { k.Delay = 20 * time.Millisecond })
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			f := newFlow()
			if _, _, err := r.src.Authenticate(r.authorize(t, f), f); err != nil {
				t.Errorf("login after the rotation: %v", err)
			}
		})
	}
	wg.Wait()
	if got := r.op.Calls("jwks") - before; got != 1 {
		t.Errorf("%d fetches for one rotation", got)
	}
	r.op.Honest()

	r.op.RotateKey(false, false)
	_, _, err := r.login(t) // within the interval
	wantError(t, err, claims.ErrProtocol)
	r.clock.advance(11 * time.Second)
	r.mustLogin(t)

	// A new key under an old name is found as well.
	r.clock.advance(11 * time.Second)
	r.op.RotateKey(false, true)
	r.mustLogin(t)
}

// OI-11: a key that the provider withdraws stops working once the keys are an
// hour old, without any token asking for another.
func TestWithdrawnKeyStopsWorking(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mustLogin(t)
	other := claimstest.NewOP(claimstest.Options{Alg: "ES256"})
	r.op.Lie(func(k *claimstest.Knobs) {
		k.JWKSHandler = func(w http.ResponseWriter, req *http.Request) { other.ServeHTTP(w, req) }
	})
	r.clock.advance(59 * time.Minute)
	r.mustLogin(t)
	if n := r.op.Calls("jwks"); n != 1 {
		t.Fatalf("keys of 59 minutes were read again: %d fetches", n)
	}
	r.clock.advance(2 * time.Minute)
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, _, err := r.login(t) // the first still passes and has the keys read in the background
		if err != nil {
			wantError(t, err, claims.ErrProtocol)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the withdrawn key still works")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// OI-13: a key endpoint that fails takes nothing away.
func TestKeyEndpointFaultsKeepGoodKeys(t *testing.T) {
	t.Parallel()
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	for name, handler := range map[string]http.HandlerFunc{
		"hangs":      claimstest.Hang,
		"500":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"HTML":       body(`<html>canary`),
		"no keys":    body(`{"keys":[]}`),
		"no member":  body(`{}`),
		"an array":   body(`[]`),
		"nothing":    body(``),
		"only oct":   body(`{"keys":[{"kty":"oct","k":"Y2FuYXJ5","kid":"x"}]}`),
		"only odd":   body(`{"keys":[{"kty":"canary","kid":"x"}]}`),
		"very large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 64<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.src.Client.Timeout = time.Second })
			r.mustLogin(t)
			r.clock.advance(time.Minute)
			r.op.Lie(func(k *claimstest.Knobs) {
				k.JWKSHandler = handler
				k.MutateHeader = set("kid", "canary-kid")
			})
			_, _, err := r.login(t) // the right key may exist: try again later
			wantError(t, err, claims.ErrUnavailable)
			_, _, err = r.login(t) // and so within the interval
			wantError(t, err, claims.ErrUnavailable)
			r.op.Lie(func(k *claimstest.Knobs) { k.MutateHeader = nil })
			r.mustLogin(t) // a known key goes on
			r.clock.advance(2 * time.Hour)
			r.mustLogin(t) // and so when the keys are old

			fresh := claims.NewOIDC(claims.OIDCOptions{Name: "idp", Client: &http.Client{Timeout: time.Second},
				Config: claims.OIDCConfig{Issuer: r.op.URL, ClientID: "portal", ClientSecret: "canary-secret/&"}, Now: r.clock.now})
			f := newFlow()
			_, _, err = fresh.Authenticate(r.authorize(t, f), f) // no key at all
			wantError(t, err, claims.ErrUnavailable)
			r.op.Honest()
			r.clock.advance(11 * time.Second)
			if _, _, err = fresh.Authenticate(r.authorize(t, f), f); err != nil {
				t.Errorf("after the endpoint is back: %v", err)
			}
		})
	}
}

// OI-08, OI-13: which of the published keys count.
func TestWhichPublishedKeysCount(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	foreign := []any{
		jose.JSONWebKey{Key: ec.Public(), KeyID: "other-ec", Use: "sig"},
		jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "other-rsa", Use: "sig"},
		map[string]any{"kty": "canary", "kid": "odd"},
		map[string]any{"kty": "oct", "k": "Y2FuYXJ5"},
		map[string]any{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, // not on the curve
	}
	for _, c := range []struct {
		name   string
		change func(key map[string]any) // the signing key as it is published
		noKid  bool                     // in the token
		ok     bool
	}{
		{"among foreign and odd ones", nil, false, true},
		{"token without kid, several keys", nil, true, true},
		{"no use", del("use"), false, true},
		{"use enc", set("use", "enc"), false, false},
		{"use unknown", set("use", "canary"), false, false},
		{"no alg", del("alg"), false, true},
		{"alg of another kind", set("alg", "ES384"), false, false},
		{"an unreadable certificate beside it", set("x5c", []string{"Y2FuYXJ5"}), false, true},
		{"under another kid", set("kid", "canary"), false, false},
		{"under another kid, token without", set("kid", "canary"), true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.op.Lie(func(k *claimstest.Knobs) {
				if c.noKid {
					k.MutateHeader = del("kid")
				}
				k.JWKSHandler = func(w http.ResponseWriter, _ *http.Request) {
					own, _ := json.Marshal(r.op.Keys().Keys[0])
					var key map[string]any
					_ = json.Unmarshal(own, &key)
					if c.change != nil {
						c.change(key)
					}
					_ = json.NewEncoder(w).Encode(map[string]any{"keys": append(foreign[:len(foreign):len(foreign)], key)})
				}
			})
			_, _, err := r.login(t)
			if c.ok && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !c.ok {
				wantError(t, err, claims.ErrProtocol)
			}
		})
	}
}

// RFC 7518 section 3.3: 2048 bits or more. A shorter key can be factored by
// somebody who is not the provider.
func TestShortRSAKeyIsPassedOver(t *testing.T) {
	t.Parallel()
	for bits, ok := range map[int]bool{2048: true, 1024: false} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t)
		r.op.Lie(func(k *claimstest.Knobs) {
			k.JWKSHandler = func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: append(r.op.Keys().Keys, jose.JSONWebKey{Key: key.Public()})})
			}
			k.MutateToken = func(answer map[string]any) {
				jws, err := jose.ParseSignedCompact(answer["id_token"].(string), []jose.SignatureAlgorithm{jose.ES256})
				if err != nil {
					t.Error(err)
					return
				}
				again, err := signer.Sign(jws.UnsafePayloadWithoutVerification())
				if err != nil {
					t.Error(err)
					return
				}
				answer["id_token"], _ = again.CompactSerialize()
			}
		})
		_, _, err = r.login(t)
		if ok && err != nil {
			t.Errorf("%d bits: %v", bits, err)
		}
		if !ok {
			wantError(t, err, claims.ErrProtocol)
		}
	}
}
