package config

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// block is one block of PEM.
func block(kind string, der []byte, err error) string {
	if err != nil {
		panic(err) // a key of the test's own making
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func rsaKey(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

func ecKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func pkcs8(key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return block("PRIVATE KEY", der, err)
}

func sec1(key *ecdsa.PrivateKey) string {
	der, err := x509.MarshalECPrivateKey(key)
	return block("EC PRIVATE KEY", der, err)
}

func certificateOf(key *ecdsa.PrivateKey) string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return block("CERTIFICATE", der, err)
}

// A client key is a secret (SC-09): it comes from a file whose change is
// noticed, it is one that can sign, and a fault tells nothing of it.
func TestClientKeys(t *testing.T) {
	t.Parallel()
	strong, p256 := rsaKey(2048), ecKey(elliptic.P256())
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := strings.Replace(sec1(p256), "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1)
	for name, c := range map[string]struct{ key, certificate, want string }{
		"RSA, PKCS#8":             {pkcs8(strong), "", ""},
		"RSA, PKCS#1":             {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(strong), nil), "", ""},
		"P-256, SEC 1":            {block("EC PARAMETERS", []byte{6, 0}, nil) + sec1(p256), "", ""},
		"P-384":                   {pkcs8(ecKey(elliptic.P384())), "", ""},
		"P-521":                   {pkcs8(ecKey(elliptic.P521())), "", ""},
		"Ed25519":                 {pkcs8(edwards), "", ""},
		"with certificate":        {sec1(p256), certificateOf(p256), ""},
		"certificate in one file": {sec1(p256) + certificateOf(p256), sec1(p256) + certificateOf(p256), ""},
		"RSA, weak":               {pkcs8(rsaKey(1024)), "", "client_key: is an RSA key under 2048 bits"},
		"P-224":                   {pkcs8(ecKey(elliptic.P224())), "", "client_key: is on a curve other than"},
		"encrypted":               {block("ENCRYPTED PRIVATE KEY", []byte("canary"), nil), "", "client_key: is encrypted"},
		"encrypted as of old":     {encrypted, "", "client_key: is encrypted"},
		"two keys":                {sec1(p256) + pkcs8(edwards), "", "client_key: holds more than one private key"},
		"a public key":            {block("PUBLIC KEY", []byte("canary"), nil), "", "client_key: is no private key in PEM"},
		"another format":          {block("RSA PRIVATE KEY", []byte("canary"), nil), "", "client_key: cannot be read"},
		"a certificate":           {certificateOf(p256), "", "client_key: is no private key in PEM"},
		"cut off":                 {sec1(p256)[:100], "", "client_key: is no private key in PEM"},
		"certificate of another":  {sec1(p256), certificateOf(ecKey(elliptic.P256())), "client_certificate: belongs to another key"},
		"no certificate":          {sec1(p256), "canary", "client_certificate: is no certificate in PEM"},
		"certificate cut off":     {sec1(p256), block("CERTIFICATE", []byte("canary"), nil), "client_certificate: cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			keyFile, certFile := filepath.Join(dir, "client-key.pem"), filepath.Join(dir, "client.pem")
			text := fmt.Sprintf("client_key: \"${file:%s}\"", keyFile)
			if err := os.WriteFile(keyFile, []byte(c.key), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.certificate != "" {
				text += fmt.Sprintf(", client_certificate: \"${file:%s}\"", certFile)
				if err := os.WriteFile(certFile, []byte(c.certificate), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg, err := loadText(t, strings.Replace(minimal, "client_id: portal", "client_id: portal, "+text, 1))
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := cfg.Sources[0].OIDC.ClientKey; got != strings.TrimSuffix(c.key, "\n") || !slices.Contains(cfg.Files(), keyFile) {
					t.Error("the key is not the file's, or its change would not be seen")
				}
				return
			}
			faults, _ := err.(Faults)
			if len(faults) != 1 || !strings.HasPrefix(strings.TrimPrefix(faults[0].Key, "sources[0].oidc.")+": "+faults[0].Msg, c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			for _, secret := range append(strings.Fields(c.key), "canary") {
				if len(secret) > 5 && secret != "PRIVATE" && !strings.Contains(secret, "---") && strings.Contains(err.Error(), secret) {
					t.Errorf("the fault shows %q", secret)
				}
			}
		})
	}
}

func TestGraphDefaultsComeFromTheSource(t *testing.T) {
	t.Parallel()
	load := func(issuer, graph string) [6]string {
		cfg := mustLoad(t, fmt.Sprintf("public_url: https://portal.example.com\nupstream: http://127.0.0.1:8080\n"+
			"sources: [{name: entra, oidc: {issuer: %q, client_id: portal, client_secret: s, graph: %s}}]\n", issuer, graph))
		g := cfg.Sources[0].OIDC.GraphSettings()
		return [6]string{g.Tenant, g.ClientID, g.ClientSecret, g.URL, g.TokenURL, string(g.Groups)}
	}
	for _, c := range []struct {
		issuer, graph string
		want          [6]string
	}{
		{"https://login.microsoftonline.com/T/v2.0", `{}`,
			[6]string{"T", "portal", "s", "https://graph.microsoft.com", "https://login.microsoftonline.com/T/oauth2/v2.0/token", "security"}},
		{"https://sts.windows.net/T/", `{groups: all}`,
			[6]string{"T", "portal", "s", "https://graph.microsoft.com", "https://login.microsoftonline.com/T/oauth2/v2.0/token", "all"}},
		{"https://login.microsoftonline.us/T/v2.0", `{client_id: g, client_secret: gs}`,
			[6]string{"T", "g", "gs", "https://graph.microsoft.us", "https://login.microsoftonline.us/T/oauth2/v2.0/token", "security"}},
		{"https://login.microsoftonline.us/T/v2.0", `{cloud: us-gov-dod}`,
			[6]string{"T", "portal", "s", "https://dod-graph.microsoft.us", "https://login.microsoftonline.us/T/oauth2/v2.0/token", "security"}},
		{"https://login.partner.microsoftonline.cn/T/v2.0", `{tenant: other.example.com}`,
			[6]string{"other.example.com", "portal", "s", "https://microsoftgraph.chinacloudapi.cn", "https://login.partner.microsoftonline.cn/other.example.com/oauth2/v2.0/token", "security"}},
		{"https://idp.example.com", `{tenant: T, cloud: china, url: "http://127.0.0.1:9/graph", token_url: "https://gateway.example.com/token"}`,
			[6]string{"T", "portal", "s", "http://127.0.0.1:9/graph", "https://gateway.example.com/token", "security"}},
		{"https://idp.example.com/T/v2.0", `{}`,
			[6]string{"T", "portal", "s", "https://graph.microsoft.com", "https://login.microsoftonline.com/T/oauth2/v2.0/token", "security"}},
	} {
		if got := load(c.issuer, c.graph); got != c.want {
			t.Errorf("%s %s:\n%q, want\n%q", c.issuer, c.graph, got, c.want)
		}
	}
}
