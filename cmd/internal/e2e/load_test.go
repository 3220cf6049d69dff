package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// tap is an upstream that writes down what reaches it, and answers with the
// user it was told of.
type tap struct {
	*httptest.Server
	mu  sync.Mutex
	got []tapped
}

type tapped struct {
	method, uri, host, user, body string
	header                        http.Header
}

func newTap(tb testing.TB) *tap {
	tb.Helper()
	u := &tap{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a broken body is what some tests send
		seen := tapped{r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-User"), string(body), r.Header}
		u.mu.Lock()
		u.got = append(u.got, seen)
		u.mu.Unlock()
		fmt.Fprintf(w, "user=%s", seen.user)
	}))
	tb.Cleanup(u.Close)
	return u
}

// about answers what arrived with the word in its address.
func (u *tap) about(word string) (found []tapped) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.got {
		if strings.Contains(t.uri, word) {
			found = append(found, t)
		}
	}
	return found
}

// front is a groupgate as a client meets it, on plain TCP or behind TLS.
type front struct {
	*gate
	origin string
	tls    *tls.Config // nil on plain TCP
}

// newFront starts a groupgate with one provider that knows alice and bob.
func newFront(tb testing.TB, secure bool, upstream, rest string) *front {
	tb.Helper()
	op := claimstest.Start(tb, claimstest.Options{Alg: "ES256", ClientSecret: opSecret,
		People: []claimstest.Person{person("alice", "eng"), person("bob", "ops")}})
	return frontAt(tb, secure, newPlace(tb), upstream, oidc("op", op.URL, opSecret), rest)
}

func frontAt(tb testing.TB, secure bool, p place, upstream, sources, rest string) *front {
	tb.Helper()
	f := &front{origin: "http://" + p.public}
	if secure {
		f.origin = "https://" + p.public
		roots := p.certificate(tb)
		f.tls = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		rest += fmt.Sprintf("\ntls: {cert_file: %q, key_file: %q}\n", p.file("cert.pem"), p.file("key.pem"))
	}
	p.write(tb, upstream, sources, everyValue+rest)
	if secure {
		raw, err := os.ReadFile(p.config())
		if err != nil {
			tb.Fatal(err)
		}
		text := strings.Replace(string(raw), "public_url: http:", "public_url: https:", 1)
		if err := os.WriteFile(p.config(), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	f.gate = p.start(tb)
	return f
}

// certificate writes cert.pem and key.pem, and answers the pool that trusts
// them.
func (p place) certificate(tb testing.TB) *x509.CertPool {
	tb.Helper()
	cert, roots, err := claimstest.LoopbackCertificate()
	if err != nil {
		tb.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(p.file(name), pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return roots
}

// dial connects as a client of HTTP/1.1, or of what is asked for.
func (f *front) dial(protocols ...string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", f.public, patience)
	if err != nil || f.tls == nil {
		return conn, err
	}
	cfg := f.tls.Clone()
	cfg.NextProtos = append(protocols, "http/1.1")[:max(1, len(protocols))]
	c := tls.Client(conn, cfg)
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// client is for honest requests, on connections of its own.
func (f *front) client(tb testing.TB) *http.Client {
	t := &http.Transport{MaxIdleConnsPerHost: 64, TLSClientConfig: f.tls.Clone()}
	tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// session signs a person in and answers the cookie, name and value.
func (f *front) session(tb testing.TB, person string) string {
	tb.Helper()
	var roots *x509.CertPool
	if f.tls != nil {
		roots = f.tls.RootCAs
	}
	b := claimstest.NewBrowser(roots)
	defer b.Close()
	page, err := b.Login(f.origin+"/", person)
	if err != nil || page.Status != http.StatusOK {
		tb.Fatalf("sign in: %v %+v", err, page)
	}
	for _, c := range b.Cookies(f.origin) {
		if strings.HasSuffix(c.Name, "groupgate") {
			return c.Name + "=" + c.Value
		}
	}
	tb.Fatal("no session cookie")
	return ""
}

// ask does one honest request and answers its status and body.
func (f *front) ask(c *http.Client, path, cookie string) (int, string, error) {
	req, err := http.NewRequest(http.MethodGet, f.origin+path, nil)
	if err != nil {
		return 0, "", err
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// resident is the memory of the process, in bytes: all of its pages, those of
// the program file too.
func (g *gate) resident() int64 {
	g.tb.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		g.tb.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var kB int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kB); err == nil {
			return kB << 10
		}
	}
	g.tb.Fatal("no VmRSS")
	return 0
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// storeSize is the store's file and its log.
func (p place) storeSize(tb testing.TB) (size int64) {
	tb.Helper()
	for _, name := range []string{"groupgate.db", "groupgate.db-wal"} {
		if info, err := os.Stat(p.file(name)); err == nil {
			size += info.Size()
		}
	}
	if size == 0 {
		tb.Fatal("there is no store")
	}
	return size
}

// pour sends n requests over several connections, a batch of them at a time,
// and calls see with each answer. It is as cheap as a client can be, because it
// shares the machine with what it measures.
func (f *front) pour(tb testing.TB, n int, request func(i int) string, see func(i int, resp *http.Response, body []byte) error) {
	tb.Helper()
	const conns, batch = 8, 25
	var next atomic.Int64
	var work sync.WaitGroup
	for range conns {
		work.Go(func() {
			for {
				end := int(next.Add(batch))
				from, to := end-batch, min(end, n)
				if from >= n {
					return
				}
				if err := f.batch(from, to, request, see); err != nil {
					tb.Errorf("requests %d to %d: %v", from, to, err)
					return
				}
			}
		})
	}
	work.Wait()
}

// batch sends requests on one connection without waiting for answers between.
// A server may close it before the last (RFC 9112 section 9.3.2); then another
// one takes over.
func (f *front) batch(from, to int, request func(int) string, see func(int, *http.Response, []byte) error) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var text strings.Builder
	for i := from; i < to; i++ {
		text.WriteString(request(i))
	}
	if _, err := io.WriteString(conn, text.String()); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	for i := from; i < to; i++ {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if err := see(i, resp, body); err != nil {
			return err
		}
	}
	return nil
}

// SC-17: starting logins costs no memory and nothing in the store, however
// many strangers do it. CK-05: nor do answers to logins that never were, and
// cookies that are none. Each is answered with what it deserves, never with a
// fault.
func TestStrangersCostNothing(t *testing.T) {
	starts, answers, cookies := 100_000, 20_000, 10_000
	if testing.Short() {
		starts, answers, cookies = 20_000, 4_000, 2_000
	}
	up := newTap(t)
	f := newFront(t, false, up.URL, "")
	alice := f.session(t, "alice")
	before := len(up.about("/"))
	head := " HTTP/1.1\r\nHost: " + f.public + "\r\n"
	get := func(path string) string { return "GET " + path + head + "Accept: text/html\r\n\r\n" }
	want := func(status int) func(int, *http.Response, []byte) error {
		return func(i int, resp *http.Response, body []byte) error {
			if resp.StatusCode != status || strings.Contains(resp.Header.Get("Set-Cookie"), "groupgate=") {
				return fmt.Errorf("%d: %d, Set-Cookie %q, %.200s", i, resp.StatusCode, resp.Header.Get("Set-Cookie"), body)
			}
			return nil
		}
	}

	start := func(i int) string { return get(fmt.Sprintf("/_auth/start?source=op&rd=/page/%d", i)) }
	began := time.Now()
	f.pour(t, starts/10, start, want(http.StatusFound))
	after10, store := f.resident(), f.storeSize(t)
	f.pour(t, starts-starts/10, start, want(http.StatusFound))
	after100 := f.resident()
	t.Logf("%d starts of logins in %s: %.1f MiB after a tenth, %.1f MiB after all; store %d bytes",
		starts, time.Since(began).Round(10*time.Millisecond), mib(after10), mib(after100), f.storeSize(t))
	if after100 > 128<<20 || after100 > after10+24<<20 {
		t.Errorf("memory grows with strangers: %.1f MiB, then %.1f MiB", mib(after10), mib(after100))
	}

	chance := rand.New(rand.NewPCG(5, 6))
	var mu sync.Mutex
	garbage := func(n int) string {
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		mu.Lock()
		defer mu.Unlock()
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[chance.IntN(len(letters))]
		}
		return string(b)
	}
	began = time.Now()
	f.pour(t, answers, func(i int) string {
		return get(fmt.Sprintf("/_auth/callback/op?code=%s&state=%s", garbage(20), garbage(i%400)))
	}, want(http.StatusBadRequest))
	name, value, _ := strings.Cut(alice, "=")
	f.pour(t, cookies, func(i int) string {
		var bad string
		switch at := i % len(value); i % 3 {
		case 0:
			bad = garbage(len(value))
		case 1:
			bad = value[:at]
		default:
			bad = value[:at] + string(value[at]^byte(1+i%7)) + value[at+1:] // one that is no cookie-octet is sent as well
		}
		if strings.ContainsAny(bad, ";\r\n\x00\x7f") {
			bad = garbage(3)
		}
		return "GET /app" + head + "Cookie: " + name + "=" + bad + "\r\n\r\n"
	}, want(http.StatusUnauthorized))
	t.Logf("%d answers to no login and %d cookies that are none in %s: %.1f MiB, store %d bytes",
		answers, cookies, time.Since(began).Round(10*time.Millisecond), mib(f.resident()), f.storeSize(t))
	if now := f.resident(); now > 128<<20 {
		t.Errorf("%.1f MiB", mib(now))
	}
	// The answers to logins that never were may be noted, each in a line of the
	// audit trail and no more.
	if now := f.storeSize(t); now > store+8<<20 {
		t.Errorf("the store grew from %d to %d bytes", store, now)
	}
	if n := len(up.about("/")); n != before {
		t.Errorf("%d requests reached the upstream", n-before)
	}

	// The control: the session that was there still is, and people get in.
	c := f.client(t)
	if status, body, err := f.ask(c, "/", alice); err != nil || status != http.StatusOK || body != "user=alice" {
		t.Errorf("alice: %v %d %s", err, status, body)
	}
	if status, body, err := f.ask(c, "/", f.session(t, "bob")); err != nil || status != http.StatusOK || body != "user=bob" {
		t.Errorf("bob: %v %d %s", err, status, body)
	}
}

// guests opens idle connections until there are n, each after one request.
func guests(t *testing.T, f *front, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	request := "GET /_auth/jwks.json HTTP/1.1\r\nHost: " + f.public + "\r\n\r\n"
	var next atomic.Int64
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || t.Failed() {
					return
				}
				conn, err := f.dial()
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = conn
				_ = conn.SetDeadline(time.Now().Add(patience))
				if _, err = io.WriteString(conn, request); err == nil {
					var resp *http.Response
					if resp, err = http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
					}
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				_ = conn.SetDeadline(time.Time{})
			}
		})
	}
	work.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return conns
}

// closed reports whether the other side has hung up, waiting until then.
func closed(conn net.Conn, until time.Time) bool {
	_ = conn.SetReadDeadline(until)
	_, err := conn.Read(make([]byte, 1))
	netErr, ok := err.(net.Error)
	return err != nil && !(ok && netErr.Timeout())
}

// SC-13: 10,000 idle connections cost little memory each, and nobody else
// notices them. When the process stops they are closed at once.
func TestTenThousandIdleConnections(t *testing.T) {
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	n := 10_000
	if testing.Short() {
		n = 4_000
	}
	if fit := int(min(limit.Cur, 1<<20))*2/3 - 300; fit < n { // groupgate takes two thirds
		t.Logf("%d files may be open: %d connections instead of %d", limit.Cur, fit, n)
		if n = fit; n < 4_000 {
			t.Fatalf("only %d connections fit", n)
		}
	}
	up := newTap(t)
	f := newFront(t, false, up.URL, "headers: {assertion: X-Groupgate-Assertion}\n")
	alice, c := f.session(t, "alice"), f.client(t)
	guests(t, f, 50) // what the first ones bring along is not theirs
	before := f.resident()
	began := time.Now()
	conns := guests(t, f, n)
	each := (f.resident() - before) / int64(n)
	t.Logf("%d idle connections in %s: %.1f MiB before, %.1f MiB now, %d bytes each",
		n, time.Since(began).Round(10*time.Millisecond), mib(before), mib(f.resident()), each)
	if each > 40<<10 {
		t.Errorf("an idle connection costs %d bytes", each)
	}
	for range 200 {
		if status, body, err := f.ask(c, "/", alice); err != nil || status != http.StatusOK || body != "user=alice" {
			t.Fatalf("%v %d %s", err, status, body)
		}
	}
	if status, _, err := f.ask(c, "/", f.session(t, "bob")); err != nil || status != http.StatusOK {
		t.Errorf("bob: %v %d", err, status)
	}
	// All of them are still open: none was closed to make room.
	if f.logged("too many connections") {
		t.Errorf("there was not room for %d connections", n)
	}
	f.signal(syscall.SIGTERM)
	until := time.Now().Add(patience)
	for i, conn := range conns {
		if !closed(conn, until) {
			t.Fatalf("connection %d is still open", i)
		}
	}
	select {
	case <-f.exited:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if f.err != nil {
		t.Errorf("exit: %v", f.err)
	}
}

// SC-13: near its limit of open files the process closes the connections that
// have waited longest, so that neither idle nor stalled ones keep people out,
// and it never runs out of files itself.
func TestMoreConnectionsThanFiles(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			t.Parallel()
			const files = 300 // 200 connections
			up := newTap(t)
			f := newFront(t, secure, up.URL, "headers: {assertion: X-Groupgate-Assertion}\n")
			f.lower(t, files)
			alice, c := f.session(t, "alice"), f.client(t)
			var stalled []net.Conn
			defer func() {
				for _, s := range stalled {
					s.Close()
				}
			}()
			for range 3 {
				guests(t, f, 150)
				for range 150 {
					conn, err := net.DialTimeout("tcp", f.public, patience)
					if err != nil {
						t.Fatal(err)
					}
					stalled = append(stalled, conn)
					_, _ = io.WriteString(conn, "G")
				}
				for range 20 {
					if status, body, err := f.ask(c, "/", alice); err != nil || status != http.StatusOK || body != "user=alice" {
						t.Fatalf("%v %d %s\n%s", err, status, body, f.log.all())
					}
					c.CloseIdleConnections()
				}
				if n := f.files(t); n > files-20 {
					t.Errorf("%d files are open of %d", n, files)
				}
			}
			if !f.logged("too many connections", `"limit":200`) {
				t.Errorf("the log does not say so\n%s", f.log.all())
			}
			if status, _, err := f.ask(c, "/", f.session(t, "bob")); err != nil || status != http.StatusOK {
				t.Errorf("bob: %v %d", err, status)
			}
		})
	}
}

// lower restarts the program with another limit of open files.
func (f *front) lower(t *testing.T, files int) {
	t.Helper()
	f.kill()
	g := &gate{place: f.place, tb: t, log: &logLines{}, exited: make(chan struct{})}
	g.cmd = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), program, "serve", "--config", f.config())
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.cmd.StderrPipe()
	must(t, err)
	must(t, g.cmd.Start())
	go func() {
		g.log.read(out)
		g.err = g.cmd.Wait()
		close(g.exited)
	}()
	t.Cleanup(g.kill)
	g.waitReady()
	f.gate = g
}

// files is how many files the process has open.
func (g *gate) files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid))
	must(t, err)
	return len(entries)
}
