package config

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rsaPair writes a self-signed pair.
func rsaPair(t *testing.T, dir string, bits int) (cert, key string) {
	t.Helper()
	private := rsaKey(bits)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "sp.crt"), filepath.Join(dir, "sp.key")
	for file, text := range map[string]string{cert: block("CERTIFICATE", der, nil), key: pkcs8(private)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// The key of a SAML source is one that it can work with, and fits its
// certificate; a fault tells nothing of it.
func TestSAMLPairs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := rsaPair(t, dir, 2048)
	ecCert, ecKey := certificate(t, dir, "ec")
	weakCert, weakKey := rsaPair(t, t.TempDir(), 1024)
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("canary-in-a-key-file"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(cert, key string) error {
		_, err := loadText(t, withSAML(fmt.Sprintf(`{metadata_url: "https://idp.example.com/metadata", cert_file: %q, key_file: %q}`, cert, key)))
		return err
	}
	if err := with(cert, key); err != nil {
		t.Errorf("control: %v", err)
	}
	for _, c := range []struct{ what, cert, key, want string }{
		{"another's key", cert, weakKey, "sources[0].saml.cert_file: the pair cannot be used"},
		{"ECDSA", ecCert, ecKey, "sources[0].saml.key_file: is not an RSA key of at least 2048 bits"},
		{"weak", weakCert, weakKey, "sources[0].saml.key_file: is not an RSA key of at least 2048 bits"},
		{"a key that is none", cert, garbage, "sources[0].saml.cert_file: the pair cannot be used"},
		{"a certificate that is none", garbage, key, "sources[0].saml.cert_file: the pair cannot be used"},
		{"no such key", cert, filepath.Join(dir, "none"), "sources[0].saml.key_file: cannot be read"},
		{"no such certificate", filepath.Join(dir, "none"), key, "sources[0].saml.cert_file: cannot be read"},
	} {
		err := with(c.cert, c.key)
		faults, _ := err.(Faults)
		if len(faults) != 1 || faults[0].Line != 4 || !strings.HasPrefix(faults[0].Key+": "+faults[0].Msg, c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
	}
}
