package claimstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

type signingKey struct {
	kid     string
	alg     jose.SignatureAlgorithm
	private crypto.Signer
}

func newSigningKey(alg string) signingKey {
	k := signingKey{kid: token128(), alg: jose.SignatureAlgorithm(alg)}
	var err error
	if k.alg == jose.ES256 {
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		panic(err) // no randomness: nothing in a test could go on
	}
	return k
}

// RotateKey makes a new signing key. The old one stays published when
// keepOld is set; sameKid gives the new key the old one's name.
func (op *OP) RotateKey(keepOld, sameKid bool) {
	k := newSigningKey(op.opts.Alg)
	op.mu.Lock()
	defer op.mu.Unlock()
	if sameKid {
		k.kid = op.keys[0].kid
	}
	if keepOld {
		op.keys = append([]signingKey{k}, op.keys...)
	} else {
		op.keys = []signingKey{k}
	}
}

// Keys are the published keys, the signing one first.
func (op *OP) Keys() jose.JSONWebKeySet {
	op.mu.Lock()
	defer op.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range op.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.kid, Algorithm: string(k.alg), Use: "sig"})
	}
	return set
}

func (op *OP) signer() signingKey {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.keys[0]
}

// Sign makes a JWT of the claims with the provider's key, as it would an ID
// token, with every lie of the knobs that concerns signing.
func (op *OP) Sign(claims map[string]any) string { return op.signClaims(claims, op.lies()) }

func (op *OP) signClaims(claims map[string]any, k Knobs) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // claims come from the test itself
	}
	if k.MutatePayload != nil {
		payload = k.MutatePayload(payload)
	}
	return op.signPayload(payload, k)
}

func (op *OP) signPayload(payload []byte, k Knobs) string {
	key := op.signer()
	var signing crypto.PrivateKey = key.private
	alg := key.alg
	switch k.Alg {
	case "none":
		return compact(map[string]any{"alg": "none", "typ": "JWT"}, payload) + "."
	case "HS256":
		der, _ := x509.MarshalPKIXPublicKey(key.private.Public())
		secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		return signJOSE(jose.HS256, secret, key.kid, payload, k.MutateHeader)
	case "ES256":
		signing, alg = newSigningKey("ES256").private, jose.ES256
	case "wrong-key":
		signing = newSigningKey(string(key.alg)).private
	}
	jwt := signJOSE(alg, signing, key.kid, payload, k.MutateHeader)
	if k.Alg == "garbled" {
		cut := strings.LastIndexByte(jwt, '.') + 1
		sig, _ := base64.RawURLEncoding.DecodeString(jwt[cut:])
		sig[len(sig)/2] ^= 1
		jwt = jwt[:cut] + base64.RawURLEncoding.EncodeToString(sig)
	}
	return jwt
}

func signJOSE(alg jose.SignatureAlgorithm, key any, kid string, payload []byte, mutate func(map[string]any)) string {
	header := map[string]any{"typ": "JWT", "kid": kid}
	if mutate != nil {
		mutate(header)
	}
	opts := &jose.SignerOptions{}
	for name, v := range header {
		opts = opts.WithHeader(jose.HeaderKey(name), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		panic(err) // a key of our own making
	}
	jws, err := s.Sign(payload)
	if err != nil {
		panic(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

func compact(header map[string]any, payload []byte) string {
	h, _ := json.Marshal(header)
	return base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(payload)
}

// atHash is the left half of the access token's SHA-256, which fits RS256 and
// ES256 (OpenID Connect Core 1.0 section 3.1.3.6).
func atHash(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
