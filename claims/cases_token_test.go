package claims_test

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// instead answers another ID token than the provider's own.
func instead(make func(honest string) string) func(*claimstest.Knobs) {
	return func(k *claimstest.Knobs) {
		k.MutateToken = func(answer map[string]any) { answer["id_token"] = make(answer["id_token"].(string)) }
	}
}

func part(v any) string {
	text, _ := json.Marshal(v) // of maps of text and numbers
	return base64.RawURLEncoding.EncodeToString(text)
}

// OI-29: tokens that are costly to open are refused unopened: at once, and
// without a look at the provider's keys.
func TestCostlyTokensAreRefusedUnopened(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	z, err := flate.NewWriter(&bomb, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(z, zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	jwe := func(header map[string]any, body []byte) string {
		b := base64.RawURLEncoding.EncodeToString
		return part(header) + "." + b(make([]byte, 40)) + "." + b(make([]byte, 12)) + "." + b(body) + "." + b(make([]byte, 16))
	}
	nested := strings.Repeat(`{"a":`, 50_000) + "1" + strings.Repeat("}", 50_000)
	for name, token := range map[string]string{
		"OI-29 PBES2 with a huge count": jwe(map[string]any{"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2147483647, "p2s": "c2FsdHNhbHQ"}, []byte("x")),
		"OI-29 a bomb":                  jwe(map[string]any{"alg": "dir", "enc": "A128GCM", "zip": "DEF"}, bomb.Bytes()),
		"OI-29 RSA 1.5":                 jwe(map[string]any{"alg": "RSA1_5", "enc": "A128CBC-HS256"}, []byte("x")),
		"OI-29 three dots":              "a.b.c.d",
		"OI-29 900 000 dots":            strings.Repeat(".", 900_000),
		"OI-29 dots in a part":          part(map[string]any{"alg": "ES256"}) + "." + strings.Repeat("a.", 400_000),
		"OI-29 a deep header":           base64.RawURLEncoding.EncodeToString([]byte(nested)) + ".e30.AA",
		"OI-29 a long kid":              part(map[string]any{"alg": "ES256", "kid": strings.Repeat("k", 500_000)}) + ".e30.AA",
		"OI-29 a key of its own":        part(map[string]any{"alg": "ES256", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}) + ".e30.AA",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.mustLogin(t)
			keys := r.op.Calls("jwks")
			r.op.Lie(instead(func(string) string { return token }))
			f := newFlow()
			req := r.authorize(t, f)
			begun := time.Now()
			_, _, err := r.src.Authenticate(req, f)
			took := time.Since(begun)
			wantError(t, err, claims.ErrProtocol)
			if took > 5*time.Second { // it takes milliseconds; opening one of these, minutes
				t.Errorf("refused after %v", took)
			}
			if n := r.op.Calls("jwks") - keys; n > 1 {
				t.Errorf("the keys were read %d times", n)
			}
			r.op.Honest()
			r.mustLogin(t)
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// OI-06: a token that anybody who knows a shared text could have signed is
// nobody's, though the provider offers no other algorithm.
func TestSharedSecretsSignNothing(t *testing.T) {
	t.Parallel()
	sign := func(alg jose.SignatureAlgorithm, key []byte) func(string) string {
		return func(honest string) string {
			payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(honest, ".")[1])
			return signed(t, alg, key, payload)
		}
	}
	secret := []byte("canary-secret-of-32-bytes-or-more-0123456789-0123456789-0123456789")
	for name, lie := range map[string]func(string) string{
		"OI-06 HS256 with the client secret": sign(jose.HS256, secret),
		"OI-06 HS384 with the client secret": sign(jose.HS384, secret),
		"OI-06 HS512 with the client secret": sign(jose.HS512, secret),
		"OI-06 none, in another case": func(honest string) string {
			return part(map[string]any{"alg": "NoNe"}) + "." + strings.Split(honest, ".")[1] + "."
		},
		"OI-06 no alg": func(honest string) string {
			p := strings.Split(honest, ".")
			return part(map[string]any{"typ": "JWT"}) + "." + p[1] + "." + p[2]
		},
		"OI-06 the signature of another token": func(honest string) string {
			p := strings.Split(honest, ".")
			return p[0] + "." + part(map[string]any{"sub": "alice"}) + "." + p[2]
		},
		"OI-06 no signature": func(honest string) string { return honest[:strings.LastIndexByte(honest, '.')+1] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.op.ClientSecret, s.src.Config.ClientSecret = string(secret), string(secret) })
			r.op.Lie(func(k *claimstest.Knobs) {
				instead(lie)(k)
				k.Discovery = set("id_token_signing_alg_values_supported", []string{"HS256", "HS384", "HS512", "none", "ES256"})
			})
			_, _, err := r.login(t)
			wantError(t, err, claims.ErrProtocol)
			r.op.Lie(func(k *claimstest.Knobs) { k.MutateToken = nil })
			r.mustLogin(t)
		})
	}
}

// OI-06: a signature that does not fit, of each kind of key; also
// oidcc-client-test-invalid-sig-rs256 and oidcc-client-test-invalid-sig-es256.
func TestSignaturesThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"RS256", "ES256"} {
		for _, lie := range []string{"garbled", "wrong-key"} {
			t.Run(kind+" "+lie, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(s *setup) { s.op.Alg = kind })
				r.op.Lie(alg(lie))
				_, _, err := r.login(t)
				wantError(t, err, claims.ErrProtocol)
				r.op.Honest()
				r.mustLogin(t)
			})
		}
	}
}

// OI-15: claims that somebody else signed, inside the ID token, are not read:
// they are unknown, and the rest counts. Also
// oidcc-client-test-aggregated-claims and oidcc-client-test-distributed-claims.
func TestClaimsOfOthersAreUnknown(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]map[string]any{
		"aggregated":  {"JWT": part(map[string]any{"alg": "none"}) + "." + part(map[string]any{"groups": []string{"canary-admins"}}) + "."},
		"distributed": {"endpoint": "http://169.254.169.254/groups", "access_token": "canary"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.op.Lie(claimLie(func(m map[string]any) {
				delete(m, "groups")
				m["_claim_names"], m["_claim_sources"] = map[string]any{"groups": "src1"}, map[string]any{"src1": source}
			}))
			id, _ := r.mustLogin(t)
			if got := id.Claims.Resolve("groups"); got.State != claims.Unknown {
				t.Errorf("groups: %+v", got)
			}
			if got := id.Claims.Text("preferred_username"); got != "alice" {
				t.Errorf("the rest: %q", got)
			}
		})
	}
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key, payload []byte) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	jws, err := s.Sign(payload)
	if err != nil {
		t.Error(err)
		return ""
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Error(err)
	}
	return text
}
