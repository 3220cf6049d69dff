package e2e

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is an HTTP/2 connection that a test writes by hand.
type peer struct {
	conn   net.Conn
	framer *http2.Framer
	head   bytes.Buffer
	enc    *hpack.Encoder
	host   string

	mu     sync.Mutex
	status map[uint32]string // of each stream
	reset  map[uint32]http2.ErrCode
	away   *http2.ErrCode
	gone   chan struct{} // closed when the other side hung up
}

// peer connects, says hello with the given settings, and reads whatever comes.
func (f *front) peer(t *testing.T, settings ...http2.Setting) *peer {
	t.Helper()
	conn, err := f.dial("h2")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{conn: conn, framer: http2.NewFramer(conn, conn), host: f.public,
		status: map[uint32]string{}, reset: map[uint32]http2.ErrCode{}, gone: make(chan struct{})}
	p.enc = hpack.NewEncoder(&p.head)
	p.framer.AllowIllegalWrites = true
	p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetWriteDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	must(t, p.framer.WriteSettings(settings...))
	go p.read()
	return p
}

func (p *peer) read() {
	defer close(p.gone)
	for {
		frame, err := p.framer.ReadFrame()
		if err != nil {
			return
		}
		p.mu.Lock()
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			p.status[frame.StreamID] = frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			p.reset[frame.StreamID] = frame.ErrCode
		case *http2.GoAwayFrame:
			code := frame.ErrCode
			p.away = &code
		}
		p.mu.Unlock()
	}
}

// fields is a header block, in the order given.
func (p *peer) fields(pairs ...string) []byte {
	p.head.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return slices.Clone(p.head.Bytes())
}

func (p *peer) get(stream uint32, path string, more ...string) error {
	block := p.fields(append([]string{":method", "GET", ":scheme", "https", ":authority", p.host, ":path", path}, more...)...)
	return p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndStream: true, EndHeaders: true})
}

// fate answers what became of a stream: a status, "reset" or "closed", or ""
// when nothing did.
func (p *peer) fate(stream uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if code, ok := p.reset[stream]; ok && code != http2.ErrCodeNo {
		return "reset"
	}
	if s := p.status[stream]; s != "" {
		return s
	}
	select {
	case <-p.gone:
		return "closed"
	default:
		return ""
	}
}

func (p *peer) fated(g *gate, stream uint32) string {
	g.eventually(fmt.Sprintf("stream %d answered", stream), func() bool { return p.fate(stream) != "" })
	return p.fate(stream)
}

// hungUp waits until the other side has closed the connection.
func (p *peer) hungUp(t *testing.T, what string) {
	t.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		t.Errorf("%s: the connection goes on", what)
	}
}

// crowd is an upstream that answers at once, but for /hold, which waits until
// its client goes away. It counts how many wait at once.
type crowd struct {
	*tap
	now, most atomic.Int64
}

func newCrowd(t *testing.T) *crowd {
	u := &crowd{tap: newTap(t)}
	answer := u.Config.Handler
	u.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/public/hold" {
			answer.ServeHTTP(w, r)
			return
		}
		n := u.now.Add(1)
		defer u.now.Add(-1)
		for most := u.most.Load(); n > most && !u.most.CompareAndSwap(most, n); most = u.most.Load() {
		}
		<-r.Context().Done()
	})
	return u
}

// floods is what one connection may do to all others, PX-13. Each must end
// with that connection, or be answered.
var floods = []struct {
	name string
	do   func(t *testing.T, f *front, up *crowd)
}{
	// CVE-2023-44487: open and take back, without end.
	{"rapid reset", func(t *testing.T, f *front, up *crowd) {
		p := f.peer(t)
		for i := range uint32(10_000) {
			if p.get(2*i+1, "/public/hold") != nil || p.framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				break
			}
		}
		p.conn.Close() // it may have been quick enough to keep up, or have hung up
		f.eventually("quiet", func() bool { return up.now.Load() == 0 })
		if most := up.most.Load(); most > 250 {
			t.Errorf("%d requests were at the upstream at once", most)
		}
	}},
	// CVE-2023-45288: a head that never ends.
	{"CONTINUATION", func(t *testing.T, f *front, _ *crowd) {
		p := f.peer(t)
		block := p.fields(":method", "GET", ":scheme", "https", ":authority", p.host, ":path", "/public/x")
		must(t, p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true}))
		sent, err := 0, error(nil)
		for ; sent < 64<<20 && err == nil; sent += 16 << 10 {
			err = p.framer.WriteContinuation(1, false, p.fields("x-flood", strings.Repeat("\x01", 8<<10)))
		}
		if err == nil {
			t.Errorf("%d MiB of head were taken", sent>>20)
		}
		p.hungUp(t, "a head without end")
	}},
	{"empty CONTINUATION", func(t *testing.T, f *front, _ *crowd) {
		p := f.peer(t)
		block := p.fields(":method", "GET", ":scheme", "https", ":authority", p.host, ":path", "/public/x")
		must(t, p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true}))
		for range 100_000 {
			if p.framer.WriteContinuation(1, false, nil) != nil {
				break
			}
		}
		p.conn.Close() // whether it hangs up or reads on is its own affair: nothing is kept
	}},
	// One entry of the table, named again and again: little to send, much to hold.
	{"HPACK", func(t *testing.T, f *front, _ *crowd) {
		p := f.peer(t)
		block := p.fields(":method", "GET", ":scheme", "https", ":authority", p.host, ":path", "/public/x", "x-bomb", strings.Repeat("b", 3900))
		block = append(block, bytes.Repeat([]byte{0x80 | 62}, 10_000)...) // 39 MiB
		must(t, p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
		if fate := p.fated(f.gate, 1); fate == "200" {
			t.Errorf("a head of 39 MiB: %s", fate)
		}
	}},
	{"a large frame", func(t *testing.T, f *front, _ *crowd) {
		p := f.peer(t)
		_ = p.framer.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20))
		p.hungUp(t, "a frame of 1 MiB")
		if p.away == nil || *p.away != http2.ErrCodeFrameSize { // else it was read first
			t.Errorf("a frame of 1 MiB: %v", p.away)
		}
	}},
	// Each of these wants an answer that nobody reads. net/http owes one
	// acknowledgement for any number of settings, and hangs up on the pings.
	{"settings", func(t *testing.T, f *front, _ *crowd) {
		_ = floodUnread(t, f, 200_000, func(fr *http2.Framer) error {
			return fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
		})
	}},
	{"pings", func(t *testing.T, f *front, _ *crowd) {
		err := floodUnread(t, f, 5_000_000, func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{1}) })
		if err == nil || isTimeout(err) {
			t.Errorf("pings whose answers nobody reads: %v", err)
		}
	}},
	{"too many streams", func(t *testing.T, f *front, up *crowd) {
		p := f.peer(t)
		for i := range uint32(400) {
			must(t, p.get(2*i+1, "/public/hold"))
		}
		f.eventually("refused", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			refused := 0
			for _, code := range p.reset {
				if code == http2.ErrCodeRefusedStream {
					refused++
				}
			}
			return refused == 150
		})
		p.conn.Close()
		f.eventually("quiet", func() bool { return up.now.Load() == 0 })
	}},
}

// floodUnread writes n frames, or until that fails, and reads nothing.
func floodUnread(t *testing.T, f *front, n int, write func(*http2.Framer) error) error {
	conn, err := f.dial("h2")
	must(t, err)
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	framer := http2.NewFramer(conn, nil)
	must(t, framer.WriteSettings())
	for range n {
		if err := write(framer); err != nil {
			return err
		}
	}
	return nil
}

// PX-13: one HTTP/2 connection can neither end the process, nor make it grow,
// nor keep others from being served, over TLS and without.
func TestHTTP2Floods(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			up := newCrowd(t)
			f := newFront(t, secure, up.URL, "routes: [{path: /public/, access: public}]\n")
			bob := f.session(t, "bob")
			// The control: the same client, behaving.
			p := f.peer(t)
			must(t, p.get(1, "/public/x"))
			if fate := p.fated(f.gate, 1); fate != "200" {
				t.Fatalf("an honest request: %s", fate)
			}
			// What starting takes is not the floods' doing.
			f.pour(t, 20_000, func(int) string { return "GET /_auth/jwks.json HTTP/1.1\r\nHost: " + f.public + "\r\n\r\n" },
				func(int, *http.Response, []byte) error { return nil })
			before, most := f.resident(), int64(0)
			checked := watchBob(t, f, bob)
			for _, flood := range floods {
				t.Run(flood.name, func(t *testing.T) { flood.do(t, f, up) })
				now := f.resident()
				t.Logf("%.1f MiB after %s", mib(now), flood.name)
				most = max(most, now)
			}
			t.Logf("%.1f MiB before, %.1f MiB at most", mib(before), mib(most))
			if most > before+160<<20 { // of which the collector leaves four fifths lying, see tuneGC
				t.Errorf("memory grew from %.1f to %.1f MiB", mib(before), mib(most))
			}
			if n := checked(); n < 20 {
				t.Errorf("bob asked only %d times beside it", n)
			}
			must(t, p.get(3, "/public/x"))
			if fate := p.fated(f.gate, 3); fate != "200" {
				t.Errorf("the connection that was there before: %s", fate)
			}
		})
	}
}

// PX-13: heads that HTTP/2 can carry and HTTP/1 could not, or that name two
// hosts, do not reach the upstream; and the names of CVE-2022-41721's kind do not
// become lines of another request.
func TestHTTP2Heads(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			t.Parallel()
			up := newTap(t)
			f := newFront(t, secure, up.URL, "routes: [{path: /public/, access: public}]\n")
			alice := f.session(t, "alice")
			scheme := strings.TrimSuffix(f.origin, "://"+f.public)
			for i, c := range []struct {
				name  string
				pairs []string
				ok    bool
			}{
				{"honest", nil, true},
				{"the same host twice", []string{"host", f.public}, true},
				{"another host", []string{"host", "evil.example"}, false},
				{"two other hosts", []string{"host", f.public, "host", "evil.example"}, false},
				{"an upper-case name", []string{"X-Forwarded-User", "bob"}, false},
				{"a line break in a name", []string{"x-a\r\nx-forwarded-user", "bob"}, false},
				{"a line break in a value", []string{"x-a", "b\r\nx-forwarded-user: bob"}, false},
				{"a line feed in a value", []string{"x-a", "b\nx-forwarded-user: bob"}, false},
				{"a null byte in a value", []string{"x-a", "b\x00"}, false},
				{"a blank in a name", []string{"x a", "b"}, false},
				{"a colon in a name", []string{"x-forwarded-user:", "bob"}, false},
				{"an empty name", []string{"", "b"}, false},
				{"a connection header", []string{"connection", "x-forwarded-user"}, false},
				{"an encoding", []string{"transfer-encoding", "chunked"}, false},
				{"an upgrade", []string{"upgrade", "websocket"}, false},
				{"a second path", []string{":path", "/public/hidden"}, false},
				{"a second authority", []string{":authority", "evil.example"}, false},
				{"an unknown pseudo-header", []string{":user", "bob"}, false},
				{"a protocol that was not offered", []string{":protocol", "websocket"}, false},
				{"a status", []string{":status", "200"}, false},
				{"a length that the body has not", []string{"content-length", "5"}, false},
				{"two lengths", []string{"content-length", "0", "content-length", "5"}, false},
				{"our own header", []string{"x-forwarded-user", "bob"}, true},
			} {
				p := f.peer(t)
				path := fmt.Sprintf("/app/head%d-", i)
				pairs := append([]string{":method", "GET", ":scheme", scheme, ":authority", f.public, ":path", path, "cookie", alice}, c.pairs...)
				if len(c.pairs) > 0 && strings.HasPrefix(c.pairs[0], ":") { // where they belong, or all would be refused for the order
					pairs = append(append([]string{}, c.pairs...), pairs[:10]...)
				}
				block := p.fields(pairs...)
				must(t, p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
				fate := p.fated(f.gate, 1)
				arrived := up.about(fmt.Sprintf("head%d-", i))
				switch {
				case c.ok && (fate != "200" || len(arrived) != 1 || arrived[0].user != "alice" || len(arrived[0].header["X-Forwarded-User"]) != 1):
					t.Errorf("%s: %s, %+v", c.name, fate, arrived)
				case !c.ok && (fate == "200" || len(arrived) != 0):
					t.Errorf("%s: %s, %d arrived", c.name, fate, len(arrived))
				}
				p.conn.Close()
			}
			for _, path := range []string{"", "*", "x", "http://evil.example/app/bad-", "/app/bad- x", "/app/bad-?a b", "/app/bad-? HTTP/1.1", "/app/bad-\r\n", "/app/bad-#x", "//evil.example/../bad-"} {
				p := f.peer(t)
				must(t, p.get(1, path, "cookie", alice))
				if fate := p.fated(f.gate, 1); fate == "200" {
					t.Errorf("the path %q: %s", path, fate)
				}
				p.conn.Close()
			}
			if got := append(up.about("bad-"), up.about("hidden")...); len(got) != 0 {
				t.Errorf("arrived: %+v", got)
			}
		})
	}
}

// closedWindow asks for pages of ours over HTTP/2 and opens no window for them.
// The returned function waits until all are given up. Streams are cheap to make:
// what each held would be held a hundred times by one connection.
func closedWindow(t *testing.T, f *front) (wait func()) {
	const streams = 100
	p := f.peer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range uint32(streams) {
		must(t, p.get(2*i+1, "/_auth/nothing-here", "accept", "text/html"))
	}
	count := func(of func() int) func() bool {
		return func() bool { p.mu.Lock(); defer p.mu.Unlock(); return of() == streams }
	}
	return func() {
		f.eventually("answered without a window", count(func() int { return len(p.status) }))
		f.eventually("given up without a window", count(func() int { return len(p.reset) }))
		// The connection itself is in order, and the next page may be read.
		must(t, p.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}))
		must(t, p.get(2*streams+1, "/_auth/nothing-here"))
		if fate := p.fated(f.gate, 2*streams+1); fate != "404" {
			t.Errorf("afterwards: %s", fate)
		}
	}
}

// h2spec says what the conformance tool for HTTP/2 (RFC 9113, RFC 7541) says of
// a server: which cases it fails.
func h2spec(t *testing.T, address string, secure bool, sections ...string) (failed []string, cases int) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	tool := filepath.Join(testenv(t), "bin", "h2spec")
	if _, err := os.Stat(tool); err != nil {
		t.Fatal("h2spec is missing: run deploy/testenv/install.sh")
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	args := []string{"--strict", "--host", host, "--port", port, "--timeout", "1", "--path", "/h2spec", "--junit-report", report}
	if secure {
		args = append(args, "--tls", "--insecure")
	}
	out, err := exec.Command(tool, append(args, sections...)...).CombinedOutput() // 1 when a case failed
	raw, missing := os.ReadFile(report)
	if missing != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	must(t, xml.Unmarshal(raw, &suites))
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			cases++
			if c.Failure != nil || c.Error != nil {
				failed = append(failed, c.Package+": "+c.Name) // the first word is the section
			}
		}
	}
	return failed, cases
}

// PX-13: groupgate speaks HTTP/2 no worse than net/http does on its own, with
// and without TLS.
func TestH2Spec(t *testing.T) {
	t.Parallel()
	testenv(t) // here: a goroutine can skip itself alone
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, strings.Repeat("an answer of some length\n", 10))
	})
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "h2c", true: "TLS"}[secure], func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.certificate(t)
			plain := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}
			plain.Protocols.SetHTTP1(true)
			plain.Protocols.SetHTTP2(true)
			plain.Protocols.SetUnencryptedHTTP2(true)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			t.Cleanup(func() { plain.Close() })
			go func() {
				if secure {
					_ = plain.ServeTLS(l, p.file("cert.pem"), p.file("key.pem"))
				} else {
					_ = plain.Serve(l)
				}
			}()
			up := newTap(t)
			up.Config.Handler = handler
			f := newFront(t, secure, up.URL, "routes: [{path: /, access: public}]\n")

			var theirs, ours []string
			var cases [2]int
			var work sync.WaitGroup
			work.Go(func() { theirs, cases[0] = h2spec(t, l.Addr().String(), secure) })
			work.Go(func() { ours, cases[1] = h2spec(t, f.public, secure) })
			work.Wait()
			t.Logf("of %d cases net/http fails %d, groupgate %d", cases[0], len(theirs), len(ours))
			if cases[0] < 140 || cases[0] != cases[1] {
				t.Errorf("%d cases were tried", cases)
			}
			for _, c := range ours {
				// Some cases depend on which of two frames is on its way first:
				// only what groupgate fails every time, and net/http never, counts.
				section, _, _ := strings.Cut(c, ": ")
				alone := !slices.Contains(theirs, c)
				for try := 0; alone && try < 5; try++ {
					again, _ := h2spec(t, f.public, secure, section)
					control, _ := h2spec(t, l.Addr().String(), secure, section)
					alone = slices.Contains(again, c) && !slices.Contains(control, c)
				}
				if alone {
					t.Errorf("groupgate alone fails %s", c)
				}
			}
		})
	}
}
