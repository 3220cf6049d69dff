package e2e

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// simpleSAML is a running SimpleSAMLphp, see deploy/testenv/simplesamlphp.
type simpleSAML struct {
	dir string // its own
	url string // its base, with a slash at the end
	log safeBuffer
}

// told is what it does. It looks at every request.
type told struct {
	People map[string]attributes `json:"people"`
	IdP    map[string]any        `json:"idp"` // its own options, of saml20-idp-hosted
	SP     map[string]any        `json:"sp"`  // and of saml20-sp-remote, over our metadata
}

type attributes map[string][]string

// Options of SimpleSAMLphp by what they do.
const (
	signResponse  = "saml20.sign.response"
	signAssertion = "saml20.sign.assertion"
	encrypt       = "assertion.encryption" // AES-128-CBC and RSA-OAEP: it has nothing else for a certificate
	algorithm     = "signature.algorithm"
	rsaSHA1       = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"
	rsaSHA512     = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"
)

// transient has it make a NameID anew at every login, whatever we ask for: it
// falls back to that when it has nothing to make one of.
var transient = told{IdP: map[string]any{"authproc": []any{}, "simplesaml.nameidattribute": "nobody has it"}}

// campus are the people of the tests below. Their groups are those that a
// careless reader of XML or writer of headers would spoil.
func campus() map[string]attributes {
	who := func(name string, groups ...string) attributes {
		a := attributes{"uid": {name}, "mail": {name + "@example.com"}, "displayName": {strings.ToUpper(name[:1]) + name[1:] + " Example"}}
		if groups != nil {
			a["groups"] = groups
		}
		return a
	}
	return map[string]attributes{
		"alice": who("alice", "engineering", "R&D <core>", "Příliš žluťoučký", "a,b", "100%", " padded ", "]]><!--x-->", "engineering"),
		"bob":   who("bob", "engineering"),
		"dora":  who("dora"), // no attribute at all
		"many":  who("many", strings.Split(manyGroups(), ",")...),
	}
}

// aliceHeader is how her groups arrive at the upstream: sorted, every value
// whole, and to be had back by splitting and decoding.
const aliceHeader = `%20padded%20,100%25,P%C5%99%C3%ADli%C5%A1 %C5%BElu%C5%A5ou%C4%8Dk%C3%BD,R&D <core>,]]><!--x-->,a%2Cb,engineering`

// startSimpleSAML starts it on a free port until the test ends.
func startSimpleSAML(tb testing.TB, say told) *simpleSAML {
	tb.Helper()
	script := filepath.Join(testenv(tb), "simplesamlphp", "start.sh")
	if exec.Command("dpkg-query", "--status", "simplesamlphp", "php-cli", "php-xml", "php-mbstring", "php-curl").Run() != nil {
		if os.Getenv("GROUPGATE_E2E") == "1" {
			tb.Fatal("SimpleSAMLphp is missing: run deploy/testenv/install.sh")
		}
		tb.Skip("SimpleSAMLphp is missing: run deploy/testenv/install.sh")
	}
	s := &simpleSAML{dir: tb.TempDir()}
	s.say(tb, say)
	for name, content := range idpKeys(tb) {
		s.put(tb, "cert/"+name, content)
	}
	cmd := exec.Command(script, s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	started, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				started <- m[1]
			}
			fmt.Fprintln(&s.log, lines.Text())
		}
		_ = cmd.Wait()
	}()
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // the script has become PHP
		<-ended
	})
	tb.Cleanup(stop)
	select {
	case port := <-started:
		s.url = "http://localhost:" + port + "/simplesaml/"
	case <-ended:
		tb.Fatalf("SimpleSAMLphp did not start:\n%s", s.log.String())
	case <-time.After(patience):
		tb.Fatalf("SimpleSAMLphp does not say where it is after %s:\n%s", patience, s.log.String())
	}
	return s
}

// idpKeys are the two key pairs of every SimpleSAMLphp here, made once: the
// script would make them for each.
func idpKeys(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := madeKeys()
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

var madeKeys = sync.OnceValues(func() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range []string{"idp", "next"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name + ".example.com"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		files[name+".key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
		files[name+".crt"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	}
	return files, nil
})

var listening = regexp.MustCompile(`Development Server \(http://127\.0\.0\.1:(\d+)\) started`)

// say tells it what to do from the next request on.
func (s *simpleSAML) say(tb testing.TB, what told) {
	tb.Helper()
	if what.People == nil {
		what.People = campus()
	}
	raw, err := json.Marshal(what)
	if err != nil {
		tb.Fatal(err)
	}
	s.put(tb, "told.json", raw)
}

func (s *simpleSAML) put(tb testing.TB, name string, content []byte) {
	tb.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		tb.Fatal(err)
	}
}

func (s *simpleSAML) origin() string   { return strings.TrimSuffix(s.url, "/simplesaml/") }
func (s *simpleSAML) metadata() string { return s.url + "saml2/idp/metadata.php" }

// begin is where a login begins that nobody here asked for.
func (s *simpleSAML) begin(g *gate, relayState string) string {
	return s.url + "saml2/idp/SSOService.php?" + url.Values{"spentityid": {g.ownMetadata()}, "RelayState": {relayState}}.Encode()
}

// end is where a person signs out there, and the page that says so.
func (s *simpleSAML) end() string {
	return s.url + "saml2/idp/SingleLogoutService.php?ReturnTo=" + url.QueryEscape(s.url+"logout.php")
}

// hasLoginForm reports whether a page is the one that asks for a password.
func (s *simpleSAML) hasLoginForm(p *claimstest.Page) bool {
	return p.Status == http.StatusOK && strings.HasPrefix(p.URL.String(), s.url+"module.php/core/loginuserpass.php")
}

// source is one entry of "sources" for it. more are further lines of "saml".
func (s *simpleSAML) source(more string) string {
	return fmt.Sprintf(`
  - name: php
    label: Campus account
    saml: {metadata_url: %q%s}
    identity: {user: uid, email: mail, name: displayName}
    groups: {claims: [groups]}`, s.metadata(), more)
}

// ownMetadata is where a groupgate tells its provider about itself; that is
// its entity id too.
func (p place) ownMetadata() string { return p.url() + "/_auth/saml/php/metadata" }

// meet hands a groupgate's metadata to SimpleSAMLphp, as it is.
func (s *simpleSAML) meet(tb testing.TB, g *gate) {
	tb.Helper()
	resp, err := http.Get(g.ownMetadata())
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("our metadata: %v %d\n%s", err, resp.StatusCode, body)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/samlmetadata+xml" { // Metadata 4.1.1 and its registration
		tb.Errorf("our metadata is of type %q", got)
	}
	s.put(tb, "sp/"+strings.ReplaceAll(g.public, ":", "-")+".xml", body)
}

// withSimpleSAML is a groupgate whose people come from SimpleSAMLphp.
func withSimpleSAML(tb testing.TB, say told, more string) (*simpleSAML, *gate, *upstream) {
	tb.Helper()
	up := newUpstream(tb)
	s := startSimpleSAML(tb, say)
	p := newPlace(tb)
	p.write(tb, up.URL, s.source(more), everyValue+"headers: {max_bytes: 65536}\n")
	g := p.start(tb)
	s.meet(tb, g)
	return s, g, up
}
