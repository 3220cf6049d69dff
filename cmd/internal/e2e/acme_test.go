package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// readiness is what /readyz says.
func (g *gate) readiness() string {
	resp, err := http.Get("http://" + g.admin + "/readyz")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}

// Certificates come from an ACME authority (Pebble) for the hosts that are ours
// and no others, outlive a restart, and are renewed before they run out. While
// the authority is away there are none, and that is said.
func TestACME(t *testing.T) {
	t.Parallel()
	p, up := newPlace(t), newTap(t)
	port, err := strconv.Atoi(p.port())
	must(t, err)
	const life = 15 * time.Second
	ca := servers.NewPebble(t, filepath.Join(testenv(t), "bin"), port, life)
	p.writeHTTPS(t, "portal.example.com", up.URL, fmt.Sprintf(`
tls: {acme: {email: admin@example.com, directory: %q, ca_file: %q, accept_terms: true}}
routes:
  - {path: /, access: public}
  - {host: eng.example.com, access: public}
`, ca.Directory, ca.CAFile))
	g := p.start(t) // ready, or nobody would let the authority in
	g.eventually("told", func() bool { return g.logged("no certificate issued", "portal.example.com") })
	if got := g.readiness(); !strings.HasPrefix(got, "200 ok\nno certificate yet for portal.example.com: the authority cannot be reached") ||
		!strings.Contains(got, "\nno certificate yet for eng.example.com") {
		t.Errorf("ready says %q", got)
	}
	if _, err := p.shown(&tls.Config{ServerName: "portal.example.com", InsecureSkipVerify: true}); err == nil { //nolint:gosec // none at all is what is looked for
		t.Error("there is a certificate before the authority gave one")
	}

	ca.Start(t)
	roots := ca.Roots(t)
	serial := func(host string) string {
		conn, err := tls.Dial("tcp", p.public, &tls.Config{ServerName: host, RootCAs: roots})
		if err != nil {
			return ""
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	g.eventually("issued", func() bool { return serial("portal.example.com") != "" && serial("eng.example.com") != "" })
	first := serial("portal.example.com")
	g.eventually("nothing is lacking", func() bool { return g.readiness() == "200 ok" })
	if got, err := answerTo(p.by(t, roots, "eng.example.com"), "https://eng.example.com:"+p.port()+"/asked"); err != nil || got != 200 || len(up.about("asked")) != 1 {
		t.Errorf("through it: %d, %v", got, err)
	}
	if end := g.certificateEnd("eng.example.com"); time.Until(time.Unix(end, 0)) > life {
		t.Errorf("it ends at %d", end)
	}

	// A stranger's name gets the certificate of public_url and no order; a
	// stranger that says it is an authority gets nothing.
	orders := ca.Orders()
	if orders != 2 {
		t.Errorf("%d orders for two hosts", orders)
	}
	shown, err := tls.Dial("tcp", p.public, &tls.Config{ServerName: "evil.example", InsecureSkipVerify: true}) //nolint:gosec // whose it is is looked at
	if err != nil {
		t.Fatal(err)
	}
	if name := shown.ConnectionState().PeerCertificates[0].DNSNames; len(name) != 1 || name[0] != "portal.example.com" {
		t.Errorf("a stranger's name gets a certificate for %q", name)
	}
	shown.Close()
	for _, host := range []string{"evil.example", "portal.example.com"} {
		if conn, err := tls.Dial("tcp", p.public, &tls.Config{ServerName: host, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}); err == nil { //nolint:gosec // none at all is what is looked for
			conn.Close()
			t.Errorf("%s: something is proved that nobody asked for", host)
		}
	}

	g.kill()
	raw, err := os.ReadFile(p.store())
	must(t, err)
	log, err := os.ReadFile(p.store() + "-wal") // a killed process leaves its last writes there
	must(t, err)
	raw = append(raw, log...)
	if strings.Contains(string(raw), `"chain"`) || !strings.Contains(string(raw), "acme/certificate/eng.example.com") {
		t.Error("the store holds certificates and keys in the clear, or none")
	}
	g = p.launch(t)
	g.eventually("served at once", func() bool { return serial("portal.example.com") != "" })
	if got := serial("portal.example.com"); got != first || ca.Orders() != orders {
		t.Errorf("after a restart: another certificate %v, %d more orders", got != first, ca.Orders()-orders)
	}

	// Renewed, with never a handshake without one.
	g.eventually("renewed", func() bool {
		got := serial("portal.example.com")
		if got == "" {
			t.Fatalf("no certificate while it is renewed\n%s", g.log.all())
		}
		return got != first
	})
	if strings.Contains(g.log.all(), "PRIVATE KEY") {
		t.Error("the log holds a key")
	}
	leaf := func() *x509.Certificate {
		conn, err := tls.Dial("tcp", p.public, &tls.Config{ServerName: "portal.example.com", RootCAs: roots})
		must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}()
	if left := time.Until(leaf.NotAfter); left < life/3 {
		t.Errorf("the new one has %s left", left)
	}
}
