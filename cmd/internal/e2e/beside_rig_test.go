package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// portal is the name that the examples in deploy speak of.
const portal = "portal.example.com"

// application is what stands behind. It answers the headers it got, and notes
// them when it has read the body, so that trailers are known.
type application struct {
	*httptest.Server
	mu  sync.Mutex
	got []reached
}

type reached struct {
	method, uri, body string
	header, trailer   http.Header
}

func newApplication(t *testing.T) *application {
	t.Helper()
	a := &application{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // what is missing is noted as missing
		a.mu.Lock()
		a.got = append(a.got, reached{r.Method, r.RequestURI, string(body), r.Header.Clone(), r.Trailer.Clone()})
		a.mu.Unlock()
		if r.Header.Get("Upgrade") != "" {
			echo(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Header)
	}))
	t.Cleanup(a.Close)
	return a
}

// echo is a socket that says back the first message.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	kind, message, err := c.Read(r.Context())
	if err == nil {
		_ = c.Write(r.Context(), kind, message)
	}
}

func (a *application) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got)
}

func (a *application) last(t *testing.T) reached {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.got) == 0 {
		t.Fatal("nothing arrived")
	}
	return a.got[len(a.got)-1]
}

// beside is a groupgate with another proxy before it, each by the very file in
// deploy but for addresses, ports and paths.
type beside struct {
	*gate
	app     *application
	op      *claimstest.OP
	address string // of the proxy in front
	roots   *x509.CertPool
}

// frontEnd is one of the proxies.
type frontEnd struct {
	name  string
	files []string // in deploy, the main one first
	start func(tb testing.TB, file, address string) *servers.Front
	asks  bool // it forwards to the application itself, and asks groupgate
	// announces is whether names of a client's trailers get through, which is
	// said in its file. Values never do.
	announces bool
}

func example(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// settle puts an example where the test has it: ports, paths and addresses, and
// each of them must be there.
func settle(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the example does not say %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// newBeside starts the groupgate of an example, with people of a provider. more
// is what else is put into its file, in pairs.
func newBeside(t *testing.T, folder string, more ...string) *beside {
	t.Helper()
	everybody := []string{"admins"}
	for i := range 250 { // some 6 KiB of names, said twice: in a header and in the assertion
		everybody = append(everybody, fmt.Sprintf("a-team-with-a-name-%04d", i))
	}
	b := &beside{app: newApplication(t)}
	b.op = claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{
		person("alice", "admins", "engineering"), person("bob", "sales"), person("carol", everybody...),
	}})
	p := newPlace(t)
	must(t, os.WriteFile(p.file("client-secret"), []byte(opSecret+"\n"), 0o600))
	must(t, os.WriteFile(p.file("admin-token"), []byte(adminToken+"\n"), 0o600))
	must(t, os.WriteFile(p.config(), []byte(settle(t, settle(t, example(t, folder+"/groupgate.yaml"), more...),
		"127.0.0.1:4180", p.public, "127.0.0.1:4181", p.admin, "http://127.0.0.1:8080", b.app.URL,
		"https://login.example.com/realms/example", b.op.URL,
		"/etc/groupgate/", p.dir+"/", "/var/lib/groupgate/", p.dir+"/")), 0o600))
	b.gate = p.start(t)
	return b
}

// certify makes the portal's certificate.
func (b *beside) certify(t *testing.T) {
	t.Helper()
	servers.Certificate(t, b.dir, portal)
	ca, err := os.ReadFile(b.file("ca.pem"))
	must(t, err)
	b.roots = x509.NewCertPool()
	b.roots.AppendCertsFromPEM(ca)
}

// put starts the proxy in front.
func (b *beside) put(t *testing.T, f frontEnd) {
	t.Helper()
	b.certify(t)
	b.address = freeAddress(t)
	app := strings.TrimPrefix(b.app.URL, "http://")
	known := map[string][]string{
		"portal.conf": {"listen 443", "listen " + b.address, "127.0.0.1:4180", b.public, "127.0.0.1:8080", app,
			"/etc/ssl/portal.pem", b.file("server.pem"), "/etc/ssl/portal.key", b.file("server.key"), "/etc/nginx/", b.dir + "/", "/var/log/nginx/", b.dir + "/"},
		"groupgate-headers.conf": nil,
		"Caddyfile": {"https://" + portal + " {", "https://" + portal + ":" + b.address[strings.LastIndex(b.address, ":")+1:] + " {",
			"127.0.0.1:4180", b.public, "127.0.0.1:8080", app, "/etc/ssl/portal.pem", b.file("server.pem"), "/etc/ssl/portal.key", b.file("server.key")},
		"haproxy.cfg": {"bind :443", "bind " + b.address, "127.0.0.1:4180", b.public, "port 4181", "port " + b.admin[strings.LastIndex(b.admin, ":")+1:],
			"/etc/ssl/portal-and-key.pem", b.file("server.both")},
	}
	for _, name := range f.files {
		must(t, os.WriteFile(b.file(name), []byte(settle(t, example(t, f.name+"/"+name), known[name]...)), 0o600))
	}
	front := f.start(t, b.file(f.files[0]), b.address)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s\ngroupgate: %s", f.name, end(front.Log()), end(b.log.all()))
		}
	})
	b.eventually("reached through "+f.name, func() bool {
		resp, err := b.send("GET", "/public/ready", nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func end(log string) string { return log[max(0, len(log)-4000):] }

const origin = "https://" + portal

func (b *beside) browser(t *testing.T) *claimstest.Browser {
	t.Helper()
	browser := claimstest.NewBrowser(b.roots)
	browser.Hosts[portal] = b.address
	t.Cleanup(browser.Close)
	return browser
}

// signIn signs somebody in through the proxy in front, and answers the session
// cookie.
func (b *beside) signIn(t *testing.T, browser *claimstest.Browser, name string) string {
	t.Helper()
	page, err := browser.Login(origin+"/", name)
	if err != nil {
		t.Fatal(err)
	}
	if received(t, page).Get("X-Forwarded-User") != name {
		t.Fatalf("the application sees %s", page.Body)
	}
	for _, c := range browser.Cookies(origin) {
		if c.Name == "__Host-groupgate" {
			return c.Name + "=" + c.Value
		}
	}
	t.Fatal("no session cookie")
	return ""
}

// dial is a connection to the proxy in front.
func (b *beside) dial() (*tls.Conn, error) {
	conn, err := tls.Dial("tcp", b.address, &tls.Config{RootCAs: b.roots, ServerName: portal, NextProtos: []string{"http/1.1"}})
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// raw writes a request as it is and reads the answer's head and body.
func (b *beside) raw(request string) (*http.Response, error) {
	conn, err := b.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = io.NopCloser(strings.NewReader(""))
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	return resp, err
}

// send is one request of HTTP/1.1 with these header lines.
func (b *beside) send(method, path string, lines []string) (*http.Response, error) {
	request := method + " " + path + " HTTP/1.1\r\nHost: " + portal + "\r\nConnection: close\r\n"
	for _, l := range lines {
		request += l + "\r\n"
	}
	if method == http.MethodPost {
		request += "Content-Length: 4\r\n\r\nbody"
	} else {
		request += "\r\n"
	}
	return b.raw(request)
}

func (b *beside) ask(t *testing.T, method, path string, lines ...string) (*http.Response, string) {
	t.Helper()
	resp, err := b.send(method, path, lines)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
