package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(2, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{cert: cert, key: key, next: 1}
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue makes a certificate that was good for a year when it ends. It answers
// its serial number and both parts as PEM.
func (a *authority) issue(t *testing.T, left time.Duration, names ...string) (serial int64, cert, key []byte) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a.next++
	end := time.Now().Add(left)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), DNSNames: names, NotBefore: end.AddDate(-1, 0, 0), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, own.Public(), a.key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	must(t, err)
	return a.next, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// install issues and writes NAME.pem and NAME.key.
func (a *authority) install(t *testing.T, p place, name string, left time.Duration, names ...string) (serial int64) {
	t.Helper()
	serial, cert, key := a.issue(t, left, names...)
	must(t, os.WriteFile(p.file(name+".pem"), cert, 0o600))
	must(t, os.WriteFile(p.file(name+".key"), key, 0o600))
	return serial
}

// pair is a "tls" of the configuration.
func (p place) pair(name string) string {
	return fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", p.file(name+".pem"), p.file(name+".key"))
}

// writeHTTPS writes a configuration whose public_url is https://HOST:PORT.
func (p place) writeHTTPS(t *testing.T, host, upstream, rest string) {
	t.Helper()
	p.write(t, upstream, "\n  - {name: local, local: {}}", rest)
	raw, err := os.ReadFile(p.config())
	must(t, err)
	text := strings.Replace(string(raw), "public_url: "+p.url(), "public_url: https://"+host+":"+p.port(), 1)
	must(t, os.WriteFile(p.file("new.yaml"), []byte(text), 0o600))
	must(t, os.Rename(p.file("new.yaml"), p.config()))
}

func (p place) port() string {
	_, port, _ := strings.Cut(p.public, ":")
	return port
}

// shown is the serial number of the certificate that a client gets.
func (p place) shown(config *tls.Config) (int64, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", p.public, config)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// by is a client that connects for a server name, whatever it asks for then.
// Without one it names none.
func (p place) by(t *testing.T, roots *x509.CertPool, name string) *http.Client {
	tr := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			config := &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
			if name == "" {
				config.ServerName, config.InsecureSkipVerify = "127.0.0.1", true //nolint:gosec // an address is not sent as a name, and no certificate has it
			}
			raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.public)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(raw, config)
			return conn, conn.HandshakeContext(ctx)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func answerTo(client *http.Client, url string) (int, error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// A portal shows its own certificate, else one that has its name, else the
// global one; and what a connection was made for is what it may ask for.
func TestCertificateByServerName(t *testing.T) {
	t.Parallel()
	a, p, up := newAuthority(t), newPlace(t), newTap(t)
	global := a.install(t, p, "global", 300*24*time.Hour, "portal.example.com", "*.example.com", "eng.example.com") // eng has its own
	eng := a.install(t, p, "eng", 300*24*time.Hour, "eng.example.com")
	apps := a.install(t, p, "apps", 300*24*time.Hour, "*.apps.example.com")
	routes := p.pair("global") + `
routes:
  - {path: /, access: public}
  - {host: eng.example.com, access: public, ` + p.pair("eng") + `}
  - {host: one.apps.example.com, access: public, ` + p.pair("apps") + `}
  - {host: two.apps.example.com, access: public}
  - {host: board.example.com, access: public}
`
	p.writeHTTPS(t, "portal.example.com", up.URL, routes)
	g := p.start(t)
	for name, want := range map[string]int64{
		"portal.example.com": global, "eng.example.com": eng, "ENG.example.com": eng, "one.apps.example.com": apps,
		"two.apps.example.com": apps, "board.example.com": global,
		"stranger.example": global, "x.two.apps.example.com": global, "apps.example.com": global, "127.0.0.1": global,
	} {
		got, err := p.shown(&tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // which one it is says the number
		if err != nil || got != want {
			t.Errorf("%s: certificate %d, want %d: %v", name, got, want, err)
		}
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		_, err := p.shown(&tls.Config{ServerName: "eng.example.com", RootCAs: a.roots(), MinVersion: version, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}

	ask := func(sni, host string, want int) {
		t.Helper()
		before := len(up.about("asked"))
		got, err := answerTo(p.by(t, a.roots(), sni), "https://"+host+":"+p.port()+"/asked")
		if err != nil || got != want {
			t.Errorf("a connection for %q and a request for %q: %d, want %d: %v", sni, host, got, want, err)
		}
		if arrived := len(up.about("asked")) > before; arrived != (want == 200) {
			t.Errorf("a connection for %q and a request for %q: arrived %v", sni, host, arrived)
		}
	}
	ask("eng.example.com", "eng.example.com", 200)
	ask("eng.example.com", "ENG.EXAMPLE.COM", 200)
	ask("portal.example.com", "portal.example.com", 200)
	ask("eng.example.com", "board.example.com", 421)
	ask("board.example.com", "portal.example.com", 421)
	ask("portal.example.com", "board.example.com", 421)
	ask("one.apps.example.com", "two.apps.example.com", 421)
	ask("service.example.com", "board.example.com", 200) // a name that is none of ours says nothing
	ask("", "board.example.com", 200)
	// A proxy that we trust speaks for every host on one connection.
	p.writeHTTPS(t, "portal.example.com", up.URL, routes+"trusted_proxies: [127.0.0.1]\n")
	g.eventually("reloaded", func() bool { return g.logged("configuration reloaded") })
	ask("eng.example.com", "board.example.com", 200)
}

// certificateEnd is when /metrics says that a host's certificate runs out.
func (g *gate) certificateEnd(host string) int64 {
	g.tb.Helper()
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		g.tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.tb.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), `groupgate_tls_certificate_expiry_timestamp_seconds{host="`+host+`"} `); ok {
			end, err := strconv.ParseFloat(value, 64)
			if err != nil {
				g.tb.Fatal(err)
			}
			return int64(end)
		}
	}
	g.tb.Fatalf("no time for %s", host)
	return 0
}

// Certificates that are about to run out are named; others take their place
// while clients come and go, and none of them notices. A pair of which only one
// part has been written changes nothing.
func TestCertificatesChangeUnderLoad(t *testing.T) {
	t.Parallel()
	a, p, up := newAuthority(t), newPlace(t), newTap(t)
	old := a.install(t, p, "global", 5*24*time.Hour, "portal.example.com")
	a.install(t, p, "eng", 300*24*time.Hour, "eng.example.com")
	p.writeHTTPS(t, "portal.example.com", up.URL, p.pair("global")+"\nroutes: [{path: /, access: public}, {host: eng.example.com, access: public, "+p.pair("eng")+"}]\n")
	g := p.start(t)
	g.eventually("warned", func() bool { return g.logged("runs out soon", "portal.example.com", `"days":4`) })
	if g.logged("runs out", "eng.example.com") {
		t.Error("a certificate of 300 days is warned about")
	}
	if end := g.certificateEnd("portal.example.com"); time.Until(time.Unix(end, 0)).Round(24*time.Hour) != 5*24*time.Hour {
		t.Errorf("it ends at %d", end)
	}

	var failed, served atomic.Int64
	over := make(chan struct{})
	var work sync.WaitGroup
	load := func(client *http.Client, again func()) {
		work.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if got, err := answerTo(client, "https://portal.example.com:"+p.port()+"/"); err != nil || got != 200 {
					failed.Add(1)
					t.Errorf("%d, %v", got, err)
				}
				served.Add(1)
				again()
			}
		})
	}
	for range 2 { // every request on a connection of its own
		client := p.by(t, a.roots(), "portal.example.com")
		load(client, client.CloseIdleConnections)
	}
	var fresh atomic.Int64
	kept := p.by(t, a.roots(), "portal.example.com")
	kept.Transport = noteConnections{kept.Transport, &fresh}
	load(kept, func() { time.Sleep(time.Millisecond) })

	now := old
	for round := range 2 {
		serial, cert, key := a.issue(t, 300*24*time.Hour, "portal.example.com")
		was := strings.Count(g.log.all(), "the pair cannot be used")
		must(t, os.WriteFile(p.file("global.key"), key, 0o600))
		g.eventually("half of it refused", func() bool { return strings.Count(g.log.all(), "the pair cannot be used") > was })
		if got, err := p.shown(&tls.Config{RootCAs: a.roots(), ServerName: "portal.example.com"}); err != nil || got != now {
			t.Errorf("round %d: with half a pair: %d, want %d: %v", round, got, now, err)
		}
		must(t, os.WriteFile(p.file("global.pem"), cert, 0o600))
		g.eventually("the new one shown", func() bool {
			got, err := p.shown(&tls.Config{RootCAs: a.roots(), ServerName: "portal.example.com"})
			return err == nil && got == serial
		})
		now = serial
	}
	close(over)
	work.Wait()
	t.Logf("%d requests served", served.Load())
	if failed.Load() > 0 || served.Load() < 100 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load())
	}
	if n := fresh.Load(); n != 1 {
		t.Errorf("the connection that was kept was made %d times", n)
	}
	if end := g.certificateEnd("portal.example.com"); time.Until(time.Unix(end, 0)) < 299*24*time.Hour {
		t.Errorf("it ends at %d", end)
	}
}

// noteConnections counts connections that were made for requests.
type noteConnections struct {
	http.RoundTripper
	fresh *atomic.Int64
}

func (n noteConnections) RoundTrip(r *http.Request) (*http.Response, error) {
	return n.RoundTripper.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				n.fresh.Add(1)
			}
		},
	})))
}
