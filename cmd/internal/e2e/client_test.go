package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// clientKey writes a new private key where the configuration reads it from, and
// answers its public half as the provider is told it.
func clientKey(t *testing.T, file, alg string) jose.JSONWebKey {
	t.Helper()
	var private any
	var public any
	if alg == "ES256" {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, public = key, key.Public()
	} else {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, public = key, key.Public()
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	putFile(t, file, text)
	jwk := jose.JSONWebKey{Key: public, Use: "sig", Algorithm: alg}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(sum) // as we name it
	return jwk
}

// putFile puts a file in place at once.
func putFile(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// signingClient is a provider that takes our signature for a secret, and a
// source of it whose key comes from a file.
func signingClient(t *testing.T, p place, people string, key jose.JSONWebKey) (issuer, source string) {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	issuer = realProvider(t, p, "real", map[string]any{
		"par": "required", "people": people,
		"client": map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks": json.RawMessage(raw)},
	})
	return issuer, fmt.Sprintf(`
  - name: real
    oidc: {issuer: %q, client_id: groupgate, client_key: "${file:%s}", scopes: [openid, profile, email, groups]}
    groups: {claims: [groups]}`, issuer, p.file("client-key.pem"))
}

// OI-03: a login and its refreshes at a provider that knows us by a key alone
// and takes no request that was not pushed.
func TestSigningClientAtARealProvider(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	for _, alg := range []string{"RS256", "ES256"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			people := p.file("people.json")
			say := func(groups ...string) {
				raw, err := json.Marshal(map[string]any{"alice": map[string]any{"groups": groups}})
				if err != nil {
					t.Fatal(err)
				}
				putFile(t, people, raw)
			}
			say("engineering", "admins")
			issuer, source := signingClient(t, p, people, clientKey(t, p.file("client-key.pem"), alg))
			// The provider means it.
			direct := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			resp, err := direct.Get(issuer + "/auth?client_id=groupgate&response_type=code&scope=openid&redirect_uri=" + p.url() + "/_auth/callback/real")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if back := resp.Header.Get("Location"); !strings.Contains(back, "error=invalid_request") {
				t.Fatalf("the provider takes a request that was not pushed: %d %s", resp.StatusCode, back)
			}
			p.write(t, up.URL, source, everyValue+"session: {refresh: 1s}\nlog: {level: debug}\n")
			g := p.start(t)
			b := newBrowser(t)
			if got := signIn(t, g, b, "alice").Get("X-Forwarded-Groups"); got != "admins,engineering" {
				t.Fatalf("groups %q", got)
			}
			say("ops")
			g.eventually("refreshed", func() bool {
				page := get(t, b, g.url()+"/")
				if len(page.Hops) != 1 { // no login in between
					t.Fatalf("the session ended: %d %s", page.Status, page.URL)
				}
				return received(t, page).Get("X-Forwarded-Groups") == "ops"
			})
			if strings.Contains(g.log.all(), "PRIVATE KEY") || strings.Contains(g.log.all(), "client_assertion") {
				t.Error("the log holds the key or what it signed")
			}
		})
	}
}

// SC-09: a new key in the file is used without a restart.
func TestClientKeyRotatesWithoutARestart(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	file := p.file("client-key.pem")
	known := clientKey(t, file, "ES256")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	clientKey(t, file, "ES256") // one that the provider does not know
	_, source := signingClient(t, p, "", known)
	p.write(t, up.URL, source, everyValue)
	g := p.start(t)
	page := get(t, newBrowser(t), g.url()+"/")
	if page.Status != http.StatusServiceUnavailable {
		t.Fatalf("with a foreign key: %d\n%.300s", page.Status, page.Body)
	}
	putFile(t, file, text)
	g.eventually("reloaded", func() bool { return g.logged("configuration reloaded") })
	if got := signIn(t, g, newBrowser(t), "bob").Get("X-Forwarded-Groups"); got != "engineering" {
		t.Errorf("groups %q", got)
	}
}
