package claimstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"time"
)

// TB is the part of testing.TB that is needed here, so that the demo does not
// link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// server is the listener that Start began.
type server struct {
	http  *http.Server
	roots *x509.CertPool
}

// Start serves a provider on a free loopback port until the test ends.
func Start(tb TB, opts Options) *OP {
	tb.Helper()
	return startAt(tb, NewOP(opts), "127.0.0.1:0")
}

// StartAt is Start on a given address, for a provider that comes up late.
func StartAt(tb TB, opts Options, address string) *OP {
	tb.Helper()
	return startAt(tb, NewOP(opts), address)
}

func startAt(tb TB, op *OP, address string) *OP {
	tb.Helper()
	serve(tb, op, op.opts.TLS, address, func(s *server, url string) {
		op.server, op.URL = s, url
		if op.Issuer() == "" {
			op.SetIssuer(url)
		}
	})
	return op
}

// serve listens until the test ends. It tells where before the first request
// can come.
func serve(tb TB, handler http.Handler, secure bool, address string, tell func(s *server, url string)) {
	tb.Helper()
	s := &server{http: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	address = "http://" + ln.Addr().String()
	if secure {
		cert, roots, err := LoopbackCertificate()
		if err != nil {
			tb.Fatalf("certificate: %v", err)
		}
		s.roots, address = roots, "https://"+ln.Addr().String()
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	}
	tell(s, address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.http.Serve(ln) // a test whose server went away fails where it asks it
	}()
	tb.Cleanup(func() {
		_ = s.http.Close()
		<-done
	})
}

// Stop ends the server that Start began, at once.
func (op *OP) Stop() {
	if op.server != nil {
		_ = op.server.http.Close()
	}
}

// Roots trusts the provider's certificate; nil when it serves plain http.
func (op *OP) Roots() *x509.CertPool {
	if op.server == nil {
		return nil
	}
	return op.server.roots
}

// Client is an HTTP client that trusts the provider's certificate.
func (op *OP) Client() *http.Client { return trusting(op.Roots()) }

func trusting(roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}}
}

// LoopbackCertificate makes a self-signed certificate for loopback names, and
// the pool that trusts it.
func LoopbackCertificate(names ...string) (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "groupgate test"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
		DNSNames:    append([]string{"localhost"}, names...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots, nil
}
