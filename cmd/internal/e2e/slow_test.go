package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// These mirror headTime (cmd/internal/app) and ownLimit (proxy): how long a
// client has for a head, and for a body that we want nothing of.
const (
	headLimit = 10 * time.Second
	bodyLimit = 15 * time.Second
)

// slow is a client that takes its time.
type slow struct {
	name string
	n    int // of 2,000
	// limit is when it is cut; 0 says that it is honest and gets through.
	limit time.Duration
	// secure clients meet TLS, the others plain TCP.
	secure bool
	bare   bool // no handshake first
	do     func(f *front, conn net.Conn) error
}

// errCut is of a client that was hung up on.
var errCut = errors.New("cut")

// drip writes a byte a second, after the start, until all is written or the
// other side hangs up. It answers what came back.
func drip(conn net.Conn, start, rest string) (string, error) {
	answer := make(chan string, 1)
	go func() {
		raw, _ := io.ReadAll(conn) // an error is how it ends
		answer <- string(raw)
	}()
	if _, err := io.WriteString(conn, start); err != nil {
		return "", err
	}
	for i := range len(rest) {
		select {
		case a := <-answer:
			return a, errCut
		case <-time.After(time.Second):
		}
		if _, err := conn.Write([]byte{rest[i]}); err != nil {
			break // the reader says the rest
		}
	}
	select {
	case a := <-answer:
		return a, errCut
	case <-time.After(2 * bodyLimit):
		return "", errors.New("neither answered nor cut")
	}
}

// stall writes the start and a byte a second for a minute: longer than any
// limit. want is how the answer has to begin, if there has to be one.
func stall(start, want string) func(*front, net.Conn) error {
	return func(f *front, conn net.Conn) error {
		answer, err := drip(conn, strings.ReplaceAll(start, "HOST", f.public), strings.Repeat("a", 60))
		// The answer can get lost: a connection that ends while bytes are on
		// their way to it is reset.
		if errors.Is(err, errCut) && answer != "" && !strings.HasPrefix(answer, want) {
			return fmt.Errorf("answer %.200q", answer)
		}
		return err
	}
}

func slowClients() []slow {
	const head = "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: "
	body := func(what string) string { return what + " HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000\r\n\r\nabc" }
	var all []slow
	for _, secure := range []bool{false, true} {
		all = append(all,
			slow{"head", 300, headLimit, secure, false, stall(head, "")},
			slow{"second head", 100, headLimit, secure, false, func(f *front, conn net.Conn) error {
				return stall("GET /_auth/jwks.json HTTP/1.1\r\nHost: HOST\r\n\r\n"+head, "HTTP/1.1 200 OK")(f, conn)
			}},
			slow{"body of a page of ours", 100, bodyLimit, secure, false, stall(body("GET /_auth/sign_in"), "HTTP/1.1 302 ")},
			slow{"body that a page of ours does not take", 50, bodyLimit, secure, false, stall(body("PUT /_auth/start"), "HTTP/1.1 405 ")},
			slow{"body of a sign-out", 50, bodyLimit, secure, false, stall(body("POST /_auth/sign_out"), "HTTP/1.1 ")},
			slow{"body without a session", 100, bodyLimit, secure, false, stall(body("POST /app"), "HTTP/1.1 401 ")},
			slow{"chunks without a session", 50, bodyLimit, secure, false,
				stall("POST /app HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n", "HTTP/1.1 401 ")},
			slow{"body that the application does not want", 50, bodyLimit, secure, false, stall(body("POST /public/done"), "HTTP/1.1 200 ")},
			slow{"answers nobody reads", 3, 2 * bodyLimit, secure, false, unread},
			slow{"upload", 50, 0, secure, false, func(f *front, conn net.Conn) error {
				text := strings.Repeat("x", 17) // seconds: more than any limit above
				answer, err := drip(conn, fmt.Sprintf("POST /public/echo HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 17\r\n\r\n", f.public), text)
				if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || !strings.HasSuffix(answer, text) {
					return fmt.Errorf("answer %.300q, %v", answer, err)
				}
				return nil
			}},
			slow{"download", 40, 0, secure, false, download},
		)
	}
	return append(all,
		slow{"silence", 100, headLimit, false, false, stallSilent("")},
		slow{"half a greeting of HTTP/2", 100, headLimit, false, false, stallSilent(http2.ClientPreface[:20])},
		slow{"a greeting of HTTP/2", 50, headLimit, false, false, stallSilent(http2.ClientPreface)},
		slow{"no handshake", 100, headLimit, true, true, stallSilent("")},
		// The head of a record that announces a ClientHello, and the first bytes of one.
		slow{"half a handshake", 100, headLimit, true, true, stallSilent("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
	)
}

// stallSilent writes the start and then nothing.
func stallSilent(start string) func(*front, net.Conn) error {
	return func(_ *front, conn net.Conn) error { _, err := drip(conn, start, ""); return err }
}

// unread asks for pages of ours and reads none of them.
func unread(f *front, conn net.Conn) error {
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetReadBuffer(4 << 10)
	}
	request := []byte(strings.Repeat("GET /_auth/nothing HTTP/1.1\r\nHost: "+f.public+"\r\nAccept: text/html\r\n\r\n", 100))
	for end := time.Now().Add(2 * patience); time.Now().Before(end); {
		_ = conn.SetWriteDeadline(time.Now().Add(2 * patience))
		if _, err := conn.Write(request); err != nil && !isTimeout(err) {
			return errCut
		}
	}
	return errors.New("it writes on and on")
}

// download reads a large answer slowly, and goes on reading after longer than
// any limit.
func download(f *front, conn net.Conn) error {
	if _, err := fmt.Fprintf(conn, "GET /public/large HTTP/1.1\r\nHost: %s\r\n\r\n", f.public); err != nil {
		return err
	}
	b := make([]byte, 1)
	for range 17 {
		if _, err := conn.Read(b); err != nil {
			return err
		}
		time.Sleep(time.Second) // this is what a slow client does
	}
	_, err := io.CopyN(io.Discard, conn, 1<<20)
	return err
}

// patientUpstream echoes, sends much, or answers before it has read all.
func patientUpstream(t *testing.T) *httptest.Server {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/public/echo":
			raw, _ := io.ReadAll(r.Body)
			_, _ = w.Write(raw)
		case "/public/large":
			_, _ = io.CopyN(w, zeros{}, 16<<20)
		case "/public/done":
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, "enough")
		default:
			fmt.Fprintf(w, "user=%s", r.Header.Get("X-Forwarded-User"))
		}
	}))
	t.Cleanup(up.Close)
	return up
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// SC-13, SC-18: 2,000 clients that take their time are told apart: who only
// wants to hold a connection is cut, who is slow for a reason gets through, and
// people in between notice neither. Afterwards nothing of them is left.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	up := patientUpstream(t)
	fronts := map[bool]*front{}
	for _, secure := range []bool{false, true} {
		fronts[secure] = newFront(t, secure, up.URL, "routes: [{path: /public/, access: public}]\n")
	}
	var clients sync.WaitGroup
	total := 0
	type person struct {
		before     time.Duration
		goroutines int
		stop       func() (time.Duration, int)
	}
	people := map[bool]*person{}
	for secure, f := range fronts {
		p := &person{}
		cookie := f.session(t, "bob")
		quiet := measure(t, f, cookie)
		f.eventually("settled", func() bool { _, n := quiet(); return n >= 100 })
		p.before, _ = quiet()
		p.goroutines = f.goroutines()
		p.stop = measure(t, f, cookie)
		people[secure] = p
	}
	for _, s := range slowClients() {
		n := s.n
		if testing.Short() {
			n = max(1, n/10)
		}
		total += n
		for range n {
			clients.Go(func() { s.run(t, fronts[s.secure]) })
		}
	}
	windows := closedWindow(t, fronts[true])
	clients.Wait()
	windows()
	for secure, p := range people {
		worst, n := p.stop()
		t.Logf("TLS %v: 19 of 20 honest requests within %s before and %s beside %d slow clients; %.1f MiB", secure,
			p.before.Round(10*time.Microsecond), worst.Round(10*time.Microsecond), total, mib(fronts[secure].resident()))
		if n < 100 || worst > 50*p.before+500*time.Millisecond {
			t.Errorf("TLS %v: %d honest requests, 19 of 20 within %s; before the slow clients it was %s", secure, n, worst, p.before)
		}
		// Connections to the upstream are kept for the next, with two goroutines each.
		fronts[secure].eventually("quiet", func() bool { return fronts[secure].goroutines() <= p.goroutines+250 })
	}
}

func (s slow) run(t *testing.T, f *front) {
	var conn net.Conn
	var err error
	if s.bare {
		conn, err = net.DialTimeout("tcp", f.public, patience)
	} else {
		conn, err = f.dial()
	}
	if err != nil {
		t.Errorf("%s: %v", s.name, err)
		return
	}
	defer conn.Close()
	began := time.Now()
	err = s.do(f, conn)
	took := time.Since(began)
	switch {
	case s.limit == 0 && err != nil:
		t.Errorf("TLS %v: %s: %v after %s", s.secure, s.name, err, took)
	case s.limit > 0 && !errors.Is(err, errCut):
		t.Errorf("TLS %v: %s: %v after %s", s.secure, s.name, err, took)
	case s.limit > 0 && took > s.limit+15*time.Second:
		t.Errorf("TLS %v: %s: cut after %s only", s.secure, s.name, took)
	}
}

// measure asks again and again, half of the time on a new connection, until
// the returned function is called. That answers how long 19 of 20 requests took
// at most.
func measure(t *testing.T, f *front, cookie string) func() (time.Duration, int) {
	c := f.client(t)
	var mu sync.Mutex
	var took []time.Duration
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if i%2 == 0 {
				c.CloseIdleConnections()
			}
			began := time.Now()
			status, body, err := f.ask(c, "/app", cookie)
			if err != nil || status != http.StatusOK || body != "user=bob" {
				t.Errorf("an honest request: %v %d %s", err, status, body)
				return
			}
			mu.Lock()
			took = append(took, time.Since(began))
			mu.Unlock()
		}
	})
	end := sync.OnceFunc(func() { close(done); work.Wait() })
	t.Cleanup(end)
	return func() (time.Duration, int) {
		mu.Lock()
		n := len(took)
		mu.Unlock()
		if n < 100 && !t.Failed() {
			return 0, n
		}
		end()
		slices.Sort(took)
		return took[len(took)*19/20], len(took)
	}
}

// goroutines is how many the process has, by its own metrics.
func (g *gate) goroutines() int {
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		return 1 << 30
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 1 << 30
	}
	for line := range bytes.Lines(raw) {
		var n int
		if _, err := fmt.Sscanf(string(line), "go_goroutines %d", &n); err == nil {
			return n
		}
	}
	return 1 << 30
}

// SC-14: a body that nobody asked for is not read, whatever its size; one for
// the application passes whole.
func TestBodiesNobodyWants(t *testing.T) {
	t.Parallel()
	up := patientUpstream(t)
	f := newFront(t, true, up.URL, "routes: [{path: /public/, access: public}]\n")
	const size = 64 << 20
	for _, path := range []string{"/_auth/sign_in", "/_auth/callback/op", "/_auth/userinfo", "/_auth/backchannel/op", "/_auth/nothing", "/app", "/public/echo"} {
		conn, err := f.dial()
		must(t, err)
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", path, f.public, size)
		must(t, err)
		var answer bytes.Buffer
		read := make(chan struct{})
		go func() { defer close(read); _, _ = io.Copy(&answer, conn) }()
		sent, err := io.CopyN(conn, zeros{}, size)
		<-read
		switch wanted := path == "/public/echo"; {
		case wanted && (err != nil || answer.Len() < size):
			t.Errorf("%s: %d of %d bytes passed, %v", path, sent, size, err)
		case !wanted && (err == nil || sent > 24<<20): // what the kernel's buffers take
			t.Errorf("%s: took %d bytes", path, sent)
		case !wanted && answer.Len() > 0 && !strings.HasPrefix(answer.String(), "HTTP/1.1 4"):
			t.Errorf("%s: %.200s", path, answer.String())
		}
		conn.Close()
	}
}

// PX-22, OI-28: a provider that hangs, or answers without end, costs neither
// memory nor time without a bound: its logins fail, with a page. Where it fails
// to say the groups alone, they are unknown and people get in (contract,
// section 7).
func TestProviderWithoutAnEnd(t *testing.T) {
	t.Parallel()
	var poured atomic.Int64
	endless := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, err := io.WriteString(w, `{"access_token":"`)
		for err == nil {
			var n int
			n, err = io.WriteString(w, strings.Repeat("a", 32<<10))
			poured.Add(int64(n))
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, knobs := range map[string]claimstest.Knobs{
		"token without end": {TokenHandler: endless}, "keys without end": {JWKSHandler: endless}, "claims without end": {UserinfoHandler: endless},
		"token hangs": {TokenHandler: hang}, "keys hang": {JWKSHandler: hang}, "discovery without end": {DiscoveryHandler: endless},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newTap(t)
			op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret,
				People: []claimstest.Person{person("alice", "eng"), {Subject: "bob", Claims: map[string]any{"preferred_username": "bob"}}}})
			// bob's groups are in userinfo alone, so that it has to be asked.
			op.SetUserinfo("bob", map[string]any{"groups": []string{"ops"}})
			p := newPlace(t)
			op.Lie(func(k *claimstest.Knobs) { *k = knobs }) // from the start, before an honest answer is kept
			f := &front{origin: p.url()}
			p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue)
			f.gate = p.launch(t)
			c := f.client(t)
			f.eventually("configured", func() bool { status, _, _ := f.ask(c, "/_auth/nothing", ""); return status == http.StatusNotFound })
			if knobs.DiscoveryHandler == nil && knobs.JWKSHandler == nil {
				f.waitReady()
			}
			before := f.resident()

			var work sync.WaitGroup
			began := time.Now()
			for range 10 {
				work.Go(func() {
					b := claimstest.NewBrowser(nil)
					defer b.Close()
					page, err := b.Login(f.origin+"/", "bob")
					want := http.StatusServiceUnavailable
					if knobs.UserinfoHandler != nil {
						want = http.StatusOK
					}
					if err != nil || page.Status != want || strings.Contains(page.Body, "starting") {
						t.Errorf("a login: %v %+v", err, page)
					}
				})
			}
			work.Wait()
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("the logins took %s", took)
			}
			t.Logf("10 logins were through after %s, %.1f MiB before, %.1f MiB after", time.Since(began).Round(10*time.Millisecond), mib(before), mib(f.resident()))
			if now := f.resident(); now > before+96<<20 {
				t.Errorf("memory grew from %.1f to %.1f MiB", mib(before), mib(now))
			}
			for _, got := range up.about("/") {
				if knobs.UserinfoHandler == nil || got.header.Get("X-Forwarded-Groups") != "" {
					t.Errorf("arrived: %+v", got)
				}
			}
			op.Honest()
			f.eventually("in", func() bool {
				page, err := newBrowser(t).Login(f.origin+"/", "bob")
				return err == nil && page.Status == http.StatusOK && page.Body == "user=bob"
			})
			if got := up.about("/"); got[len(got)-1].header.Get("X-Forwarded-Groups") != "ops" {
				t.Errorf("with an honest provider: %+v", got[len(got)-1])
			}
		})
	}
	t.Cleanup(func() {
		if n := poured.Load(); n == 0 || n > 512<<20 {
			t.Errorf("%d MiB were poured in", n>>20)
		}
	})
}

// SC-28: nobody gets in the clear what belongs behind TLS.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	t.Run("an address without TLS is for loopback alone", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		p.write(t, "http://127.0.0.1:9", oidc("op", "http://127.0.0.1:9", opSecret), everyValue)
		raw, err := os.ReadFile(p.config())
		must(t, err)
		must(t, os.WriteFile(p.config(), []byte(strings.Replace(string(raw), "public_url: "+p.url(), "public_url: http://portal.example.com", 1)), 0o600))
		out, err := exec.Command(program, "serve", "--config", p.config()).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "public_url") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("the TLS port speaks TLS", func(t *testing.T) {
		t.Parallel()
		up := newTap(t)
		f := newFront(t, true, up.URL, "")
		alice := f.session(t, "alice")
		if !strings.HasPrefix(alice, "__Host-groupgate=") {
			t.Errorf("the cookie %.20s", alice)
		}
		for name, request := range map[string]string{
			"HTTP/1": "GET /plain HTTP/1.1\r\nHost: " + f.public + "\r\nCookie: " + alice + "\r\n\r\n",
			"HTTP/2": http2.ClientPreface,
		} {
			conn, err := net.DialTimeout("tcp", f.public, patience)
			must(t, err)
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, err = io.WriteString(conn, request)
			must(t, err)
			answer, _ := io.ReadAll(conn) // hanging up is an answer as well
			if len(answer) > 0 && answer[0] != 0x15 && !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") {
				t.Errorf("%s: %.100q", name, answer)
			}
			conn.Close()
		}
		if got := up.about("/plain"); len(got) != 0 {
			t.Errorf("arrived: %+v", got)
		}
		for version, fine := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			conn, err := tls.Dial("tcp", f.public, &tls.Config{RootCAs: f.tls.RootCAs, MinVersion: version, MaxVersion: version})
			if (err == nil) != fine {
				t.Errorf("%s: %v", tls.VersionName(version), err)
			}
			if conn != nil {
				conn.Close()
			}
		}
	})
	t.Run("cookies are for TLS where it ends in front", func(t *testing.T) {
		t.Parallel()
		op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
		p := newPlace(t)
		p.write(t, "http://127.0.0.1:9", oidc("op", op.URL, opSecret), everyValue)
		raw, err := os.ReadFile(p.config())
		must(t, err)
		must(t, os.WriteFile(p.config(), []byte(strings.Replace(string(raw), "public_url: http:", "public_url: https:", 1)), 0o600))
		f := &front{gate: p.start(t), origin: p.url()}
		req, err := http.NewRequest(http.MethodGet, f.origin+"/_auth/start", nil)
		must(t, err)
		resp, err := f.client(t).Do(req)
		must(t, err)
		defer resp.Body.Close()
		if c := resp.Cookies(); resp.StatusCode != http.StatusFound || len(c) != 1 || !c[0].Secure || !c[0].HttpOnly || !strings.HasPrefix(c[0].Name, "__Host-") {
			t.Errorf("%d, %v", resp.StatusCode, c)
		}
	})
}
