package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// patience is for things that happen soon; only a broken program waits so long.
const patience = 20 * time.Second

// place is where a groupgate will be, known before it runs, so that a provider
// can be told its addresses.
type place struct {
	dir           string
	public, admin string // host:port
	env           []string
	admins        string // what stands in admin.groups; nothing when empty
}

func newPlace(tb testing.TB) place {
	tb.Helper()
	return place{dir: tb.TempDir(), public: freeAddress(tb), admin: freeAddress(tb)}
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	// Below the ports that the system gives to connections: one of those may be
	// gone before the program listens there.
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 12_000+nextPort.Add(1)%18_000)
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address
		}
	}
	tb.Fatal("no port is free")
	return ""
}

// nextPort begins somewhere, because two runs may be under way.
var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(rand.Int64N(18_000))
	return n
}()

func (p place) url() string             { return "http://" + p.public }
func (p place) file(name string) string { return filepath.Join(p.dir, name) }
func (p place) config() string          { return p.file("groupgate.yaml") }
func (p place) store() string           { return p.file("groupgate.db") }

// oidc is one entry of "sources" for a provider.
func oidc(name, issuer, secret string) string {
	return fmt.Sprintf(`
  - name: %s
    label: %s account
    oidc: {issuer: %q, client_id: groupgate, client_secret: %q, scopes: [openid, profile, email, groups]}
    groups: {claims: [groups, /realm_access/roles]}`, name, strings.ToUpper(name[:1])+name[1:], issuer, secret)
}

// everyValue makes a group of every value of the usual claims.
const everyValue = `
rules:
  - {claim: groups, any: true}
  - {claim: /realm_access/roles, any: true}
`

// write writes a configuration: what every test needs, then the rest. It is
// put in place at once, as an editor or Kubernetes does.
func (p place) write(tb testing.TB, upstream, sources, rest string) {
	tb.Helper()
	admins := ""
	if p.admins != "" {
		admins = ", groups: [" + p.admins + "]"
	}
	text := fmt.Sprintf("listen: %q\npublic_url: %s\nupstream: %s\nstore: {sqlite: %q}\nadmin: {listen: %q, token: %s%s}\nsources:%s\n%s",
		p.public, p.url(), upstream, p.store(), p.admin, adminToken, admins, sources, rest)
	tmp := p.file("new.yaml")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(tmp, p.config()); err != nil {
		tb.Fatal(err)
	}
}

const adminToken = "an-admin-token-for-tests-only-0123456789"

// gate is one running groupgate.
type gate struct {
	place
	tb      testing.TB
	cmd     *exec.Cmd
	started time.Time
	log     *logLines
	exited  chan struct{}
	err     error // of Wait, once exited is closed
}

// logLines collects what the program writes.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		l.mu.Lock()
		l.lines = append(l.lines, s.Text())
		l.mu.Unlock()
	}
}

func (l *logLines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// launch starts the program on the place's configuration.
func (p place) launch(tb testing.TB) *gate {
	tb.Helper()
	g := &gate{place: p, tb: tb, log: &logLines{}, exited: make(chan struct{})}
	g.cmd = exec.Command(program, "serve", "--config", p.config())
	g.cmd.Dir = p.dir
	g.cmd.Env = append(os.Environ(), p.env...)
	// It must not outlive the tests, whatever becomes of them.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	g.started = time.Now()
	if err := g.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		g.log.read(out) // to the end before Wait, as StderrPipe asks
		g.err = g.cmd.Wait()
		close(g.exited)
	}()
	tb.Cleanup(g.kill)
	return g
}

// start launches and waits until the program is ready.
func (p place) start(tb testing.TB) *gate {
	tb.Helper()
	g := p.launch(tb)
	g.waitReady()
	return g
}

func (g *gate) kill() {
	_ = g.cmd.Process.Kill()
	<-g.exited
}

func (g *gate) signal(s syscall.Signal) {
	g.tb.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		g.tb.Fatal(err)
	}
}

func (g *gate) waitReady() {
	g.tb.Helper()
	g.eventually("ready", func() bool { return g.ready() == http.StatusOK })
}

// ready answers the status of /readyz, 0 when nobody answers.
func (g *gate) ready() int {
	resp, err := http.Get("http://" + g.admin + "/readyz")
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// eventually waits for something that has no event to wait for.
func (g *gate) eventually(what string, ok func() bool) {
	g.tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		select {
		case <-g.exited:
			g.tb.Fatalf("%s: the program ended: %v\n%s", what, g.err, g.log.all())
		default:
		}
	}
	g.tb.Fatalf("not %s after %s\n%s", what, patience, g.log.all())
}

// logged reports whether a line of the log holds all the words.
func (g *gate) logged(words ...string) bool {
	for line := range strings.SplitSeq(g.log.all(), "\n") {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// api asks the admin API and decodes its answer.
func (g *gate) api(method, path string, body, answer any) (status int) {
	g.tb.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		g.tb.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://"+g.admin+"/api/v1"+path, strings.NewReader(string(raw)))
	if err != nil {
		g.tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.tb.Fatal(err)
	}
	defer resp.Body.Close()
	if answer != nil {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			g.tb.Fatalf("%s %s: %d: %v", method, path, resp.StatusCode, err)
		}
	}
	return resp.StatusCode
}

func newBrowser(tb testing.TB) *claimstest.Browser {
	b := claimstest.NewBrowser(nil)
	tb.Cleanup(b.Close)
	return b
}

func get(tb testing.TB, b *claimstest.Browser, address string) *claimstest.Page {
	tb.Helper()
	p, err := b.Get(address)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// signIn signs a person in and answers what the upstream received.
func signIn(tb testing.TB, g *gate, b *claimstest.Browser, person string) http.Header {
	tb.Helper()
	p, err := b.Login(g.url()+"/", person)
	if err != nil {
		tb.Fatal(err)
	}
	return received(tb, p)
}

// received reads the upstream's answer.
func received(tb testing.TB, p *claimstest.Page) http.Header {
	tb.Helper()
	var h http.Header
	if p.Status != http.StatusOK {
		tb.Fatalf("%s: %d\n%s", p.URL, p.Status, p.Body)
	}
	if err := json.Unmarshal([]byte(p.Body), &h); err != nil {
		tb.Fatalf("%s: not the upstream's answer: %v\n%s", p.URL, err, p.Body)
	}
	return h
}

// cookie answers the session cookie of a browser, name and value.
func cookie(b *claimstest.Browser, g *gate) string {
	for _, c := range b.Cookies(g.url()) {
		if c.Name == "groupgate" {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}
