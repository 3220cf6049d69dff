package testenv

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pebble is an ACME authority (RFC 8555) of Let's Encrypt's for tests. Every
// name leads to 127.0.0.1 for it.
type Pebble struct {
	Directory string // its URL
	CAFile    string // vouches for the directory

	bin, dir   string
	management string
	names      string // of its name server
	server     *process
}

// NewPebble prepares an authority that looks for who asks at that port of
// loopback, and issues for so long. It is not there until Start. bin is where
// install.sh puts programs.
func NewPebble(tb testing.TB, bin string, port int, validity time.Duration) *Pebble {
	tb.Helper()
	wanted(tb)
	for _, program := range []string{"pebble", "pebble-challtestsrv"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			tb.Fatalf("%s is missing: run make test, or deploy/testenv/install.sh by itself", program)
		}
	}
	dir := tb.TempDir()
	if err := certificate(dir, net.IPv4(127, 0, 0, 1)); err != nil {
		tb.Fatal(err)
	}
	ports, err := freePorts(4)
	if err != nil {
		tb.Fatal(err)
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	p := &Pebble{
		Directory: "https://" + at(0) + "/dir", CAFile: filepath.Join(dir, "ca.pem"),
		bin: bin, dir: dir, management: at(1), names: at(2),
	}
	raw, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": at(0), "managementListenAddress": p.management,
		"certificate": filepath.Join(dir, "server.pem"), "privateKey": filepath.Join(dir, "server.key"),
		"httpPort": ports[3], "tlsPort": port, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "of the test", "validityPeriod": int(validity / time.Second)}},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pebble.json"), raw, 0o600); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Start starts it, until the test ends.
func (p *Pebble) Start(tb testing.TB) {
	tb.Helper()
	names, err := start(filepath.Join(p.bin, "pebble-challtestsrv"), "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
		"-management", "127.0.0.1:0", "-dnsserver", p.names, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(names.stop)
	if err := names.until(func() error { return dials(p.names) }); err != nil {
		tb.Fatalf("pebble-challtestsrv: %v", err)
	}
	// It looks at once, and refuses some nonces, as an authority may.
	p.server, err = start("env", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=10", "PEBBLE_AUTHZREUSE=0",
		filepath.Join(p.bin, "pebble"), "-config", filepath.Join(p.dir, "pebble.json"), "-dnsserver", p.names)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.server.stop)
	if err := p.server.until(func() error { _, err := p.ask("/roots/0"); return err }); err != nil {
		tb.Fatalf("pebble: %v", err)
	}
}

func dials(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (p *Pebble) ask(path string) ([]byte, error) {
	pem, err := os.ReadFile(p.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("https://" + p.management + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

// Roots are what vouches for the certificates it issues.
func (p *Pebble) Roots(tb testing.TB) *x509.CertPool {
	tb.Helper()
	pem, err := p.ask("/roots/0")
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		tb.Fatalf("no root certificate: %s", pem)
	}
	return pool
}

// Log is what it wrote.
func (p *Pebble) Log() string { return p.server.said.String() }

// Orders is how many there were.
func (p *Pebble) Orders() int { return strings.Count(p.Log(), "Added order ") }
