package claimstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificates are those of a directory: the honest one, and the lies.
type certificates struct {
	caPEM  []byte
	roots  *x509.CertPool
	dir    string
	byName map[string]tls.Certificate // by DirectoryKnobs.Certificate
}

func newCertificates() (*certificates, error) {
	c := &certificates{roots: x509.NewCertPool(), byName: map[string]tls.Certificate{}}
	ours, err := newAuthority("groupgate test directory")
	if err != nil {
		return nil, err
	}
	other, err := newAuthority("another authority")
	if err != nil {
		return nil, err
	}
	c.roots.AddCert(ours.cert)
	c.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw})
	now := time.Now()
	for name, how := range map[string]struct {
		by    *authority
		until time.Time
		host  string // empty: loopback
	}{
		"":           {ours, now.Add(24 * time.Hour), ""},
		"expired":    {ours, now.Add(-time.Hour), ""},
		"other-host": {ours, now.Add(24 * time.Hour), "ldap.example.org"},
		"other-ca":   {other, now.Add(24 * time.Hour), ""},
	} {
		if c.byName[name], err = how.by.issue(how.until, how.host); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// writeCA puts the authority into a file of its own.
func (c *certificates) writeCA() (path string, err error) {
	if c.dir, err = os.MkdirTemp("", "groupgate-directory-"); err != nil {
		return "", err
	}
	path = filepath.Join(c.dir, "ca.pem")
	return path, os.WriteFile(path, c.caPEM, 0o600)
}

func (c *certificates) removeCA() { _ = os.RemoveAll(c.dir) } // what is left is the system's to clean

// config is the server's side of TLS by what the knobs say now.
func (c *certificates) config(k DirectoryKnobs) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.byName[k.Certificate]},
		MinVersion:   tls.VersionTLS10, //nolint:gosec // the old ones are there to be refused
		MaxVersion:   k.MaxTLS,
	}
}

// authority signs certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{key, cert}, err
}

// issue makes a certificate for loopback, or for another host alone.
func (a *authority) issue(until time.Time, host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "directory"},
		NotBefore: until.Add(-36 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host != "" {
		template.DNSNames, template.IPAddresses = []string{host}, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
