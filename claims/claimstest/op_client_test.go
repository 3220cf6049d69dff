package claimstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A provider that let a bad assertion through would prove nothing about who
// makes them.
func TestAssertionsAreHeldToTheirRules(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	op := NewOP(Options{Issuer: "https://idp.example.com", ClientID: "x", PAR: true, ClientKeys: []crypto.PublicKey{key.Public()}, Now: func() time.Time { return now }})
	ask := func(by *ecdsa.PrivateKey, claims map[string]any, form url.Values) int {
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		form.Set("client_assertion", signJOSE(jose.ES256, by, "", payload, nil))
		r := httptest.NewRequest(http.MethodPost, "/par", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		op.ServeHTTP(w, r)
		return w.Code
	}
	honest := func() (map[string]any, url.Values) {
		return map[string]any{"iss": "x", "sub": "x", "aud": "https://idp.example.com", "jti": token128(), "iat": now.Unix(), "exp": now.Unix() + 60},
			url.Values{"client_id": {"x"}, "redirect_uri": {"https://portal.example.com/cb"}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
	}
	for name, spoil := range map[string]func(claims map[string]any, form url.Values){
		"iss":       func(c map[string]any, _ url.Values) { c["iss"] = "y" },
		"sub":       func(c map[string]any, _ url.Values) { delete(c, "sub") },
		"aud":       func(c map[string]any, _ url.Values) { c["aud"] = "https://other.example.com" },
		"aud list":  func(c map[string]any, _ url.Values) { c["aud"] = []string{"https://idp.example.com"} },
		"expired":   func(c map[string]any, _ url.Values) { c["exp"] = now.Unix() },
		"too long":  func(c map[string]any, _ url.Values) { c["exp"] = now.Unix() + 61 },
		"future":    func(c map[string]any, _ url.Values) { c["nbf"] = now.Unix() + 1 },
		"no jti":    func(c map[string]any, _ url.Values) { delete(c, "jti") },
		"no type":   func(_ map[string]any, f url.Values) { f.Del("client_assertion_type") },
		"a secret":  func(_ map[string]any, f url.Values) { f.Set("client_secret", "s") },
		"no client": func(_ map[string]any, f url.Values) { f.Del("client_id") },
	} {
		claims, form := honest()
		spoil(claims, form)
		if got := ask(key, claims, form); got != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got)
		}
	}
	claims, form := honest()
	if got := ask(other, claims, form); got != http.StatusUnauthorized {
		t.Errorf("another key: %d", got)
	}
	if got := ask(key, claims, form); got != http.StatusCreated {
		t.Errorf("control: %d", got)
	}
	if got := ask(key, claims, form); got != http.StatusUnauthorized {
		t.Errorf("the same again: %d", got)
	}
}
