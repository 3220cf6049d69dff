package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/proxy"
)

// PX-16: an upstream that is down, silent or breaks off is told as that and no
// more; what it began ends broken, never as if it were whole.
func TestBrokenUpstreams(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing, not even TLS
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	hangUp := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	garbage := func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			io.WriteString(c, "SSH-2.0-internal-name\r\n\r\n")
			c.Close()
		}
	}
	for _, c := range []struct {
		what, at string
		answer   http.HandlerFunc
		want     int
	}{
		{"down", "http://" + closed.Addr().String(), nil, 502},
		{"no such name", "http://internal-name.invalid:1", nil, 502},
		{"no socket", "unix:/nonexistent/internal-name.sock", nil, 502},
		{"silent", "https://" + silent.Addr().String(), nil, 504},
		{"resets", "", hangUp, 502},
		{"no HTTP", "", garbage, 502},
		{"HTTP where TLS is meant", "https", nil, 502},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
			r.up.answer(c.answer)
			switch c.at {
			case "":
			case "https":
				r.settings.Upstream = "https" + strings.TrimPrefix(r.up.URL, "http")
			default:
				r.settings.Upstream = c.at
			}
			r.configure()
			for _, method := range []string{"GET", "POST"} {
				res := r.do(method, "/x", page)
				body := bodyOf(t, res)
				if res.StatusCode != c.want {
					t.Errorf("%s: %d, want %d", method, res.StatusCode, c.want)
				}
				safeHeaders(t, c.what, res.Header)
				for _, inside := range []string{"internal-name", "dial", "tcp", "127.0.0.1", "EOF", "lookup", "malformed", "goroutine", "nonexistent"} {
					if strings.Contains(strings.ReplaceAll(body, r.server.URL, ""), inside) {
						t.Errorf("%s: the page says %q: %s", method, inside, body)
					}
				}
				if c.want == 504 {
					break // it takes seconds
				}
			}
		})
	}
}

func TestAnswerThatBreaksOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/whole" {
			io.WriteString(w, "whole")
			return
		}
		w.Write(make([]byte, 100_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	res := r.do("GET", "/", nil)
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("half an answer looks whole")
	}
	// The proxy goes on, and so does what it reuses.
	for range 5 {
		if res := r.do("GET", "/whole", nil); res.StatusCode != 200 || bodyOf(t, res) != "whole" {
			t.Errorf("after that: %d", res.StatusCode)
		}
	}
	eventually(t, "the log says so", 5*time.Second, func() bool { return strings.Contains(r.logs.String(), `"path":"/whole"`) })
}

// faulty is an application at the level of TCP. It reads a request's head and
// does what the path says.
func faulty(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				does := strings.Split(strings.Trim(req.URL.Path, "/"), "-")
				if does[0] == "late" {
					time.Sleep(1500 * time.Millisecond)
				}
				_, _ = io.WriteString(c, map[string]string{
					"header":  "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Ha",
					"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde",
					"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
					"endless": "HTTP/1.0 200 OK\r\n\r\nabcde",
					"whole":   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
					"late":    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
				}[does[0]])
				if does[len(does)-1] == "reset" {
					time.Sleep(50 * time.Millisecond) // a reset overtakes what was written
					_ = c.(*net.TCPConn).SetLinger(0)
				}
			}()
		}
	}()
	return ln
}

// PX-16: wherever an upstream breaks off, with a reset or a mere end, the
// client gets an error page or a body that is visibly broken, never half an
// answer that looks whole.
func TestUpstreamsThatBreakOffAnywhere(t *testing.T) {
	t.Parallel()
	app := faulty(t, "127.0.0.1:0")
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}), upstreamAt("http://"+app.Addr().String()))
	h2 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, ForceAttemptHTTP2: true}}
	defer h2.CloseIdleConnections()
	for path, want := range map[string]struct {
		status int
		whole  bool
	}{
		"/nothing-end": {502, true}, "/nothing-reset": {502, true}, "/header-end": {502, true}, "/header-reset": {502, true},
		"/length-end": {200, false}, "/length-reset": {200, false}, "/chunked-end": {200, false}, "/chunked-reset": {200, false},
		"/endless-reset": {200, false},
		// The controls: what ends with its connection is whole; and a header
		// that comes late is no fault.
		"/endless-end": {200, true}, "/whole-end": {200, true}, "/late-end": {200, true},
	} {
		for proto, client := range map[int]*http.Client{1: r.client(), 2: h2} {
			res, err := client.Get(r.server.URL + path)
			if err != nil {
				if !want.whole {
					continue // so early that not even the header had left
				}
				t.Errorf("%s, HTTP/%d: %v", path, proto, err)
				continue
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.ProtoMajor != proto || res.StatusCode != want.status || (err == nil) != want.whole {
				t.Errorf("%s, HTTP/%d: %d, %q, %v", path, proto, res.StatusCode, body, err)
			}
			if want.status == 502 && (len(body) == 0 || strings.Contains(string(body), "reset") || strings.Contains(string(body), app.Addr().String())) {
				t.Errorf("%s, HTTP/%d: the page says %q", path, proto, body)
			}
		}
	}
	r.forgotten(t, 5*time.Second)
}

// PX-16: an upstream that comes back is served again, by whom it failed for
// before, without anything being done here.
func TestUpstreamComesBack(t *testing.T) {
	t.Parallel()
	app := faulty(t, "127.0.0.1:0")
	address := app.Addr().String()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}), upstreamAt("http://"+address))
	for range 3 {
		if res := r.do("GET", "/whole-end", nil); res.StatusCode != 200 || bodyOf(t, res) != "abcde" {
			t.Errorf("up: %d", res.StatusCode)
		}
		app.Close()
		for range 3 {
			if res := r.do("GET", "/whole-end", nil); res.StatusCode != 502 {
				t.Errorf("down: %d", res.StatusCode)
			}
		}
		app = faulty(t, address)
	}
	if res := r.do("GET", "/whole-end", nil); res.StatusCode != 200 {
		t.Errorf("up again: %d", res.StatusCode)
	}
}

// PX-19: 200 people with 50 requests each, at once and through few connections
// on both sides, half of them going away in the middle of the answer: nobody
// ever reads a byte of somebody else's.
func TestAnswersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	people, each := numbered(200), 50
	if testing.Short() {
		people = people[:20]
	}
	r := newRig(t, func(r *rig) {
		for _, n := range people {
			r.op.SetPerson(person(n, n+"-team"))
		}
	})
	const lines = 120
	canary := func(who string) string { return "<" + who + " " + who + "-team>\n" }
	answer := func(w http.ResponseWriter, req *http.Request) {
		line := canary(req.Header.Get("X-Forwarded-User"))
		w.Header().Set("X-Canary", strings.TrimSpace(line))
		for i := range lines {
			if i%60 == 30 {
				w.(http.Flusher).Flush()
			}
			if _, err := io.WriteString(w, line); err != nil {
				return
			}
		}
	}
	cookies := map[string]string{}
	for _, n := range people {
		cookies[n] = r.signIn(n)
	}
	r.up.answer(answer)
	clients := []*http.Client{
		{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, MaxIdleConnsPerHost: 50, MaxConnsPerHost: 50}},
		{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, ForceAttemptHTTP2: true}},
	}
	for _, c := range clients {
		defer c.CloseIdleConnections()
	}
	var whole, left atomic.Int64
	var work sync.WaitGroup
	for at, n := range people {
		work.Go(func() {
			want := strings.Repeat(canary(n), lines)
			for i := range each {
				leave := i%2 == 1
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				req, _ := http.NewRequestWithContext(ctx, "GET", r.server.URL+"/", nil)
				req.Header.Set("Cookie", cookies[n])
				res, err := clients[at%2].Do(req)
				if err != nil {
					t.Errorf("%s: %v", n, err)
					cancel()
					continue
				}
				if got := res.Header.Get("X-Canary") + "\n"; res.StatusCode != 200 || got != canary(n) {
					t.Errorf("%s got %d with %q", n, res.StatusCode, got)
				}
				var body []byte
				if leave {
					body = make([]byte, (i*997)%len(want))
					var k int
					k, err = io.ReadFull(res.Body, body)
					body = body[:k]
					left.Add(1)
				} else if body, err = io.ReadAll(res.Body); len(body) == len(want) {
					whole.Add(1)
				}
				cancel()
				res.Body.Close()
				if err != nil || !strings.HasPrefix(want, string(body)) {
					t.Errorf("%s got %d bytes, %v, that are not all its own", n, len(body), err)
				}
			}
		})
	}
	work.Wait()
	if all := int64(len(people) * each); whole.Load() != all/2 || left.Load() != all/2 {
		t.Errorf("%d answers were read whole and %d in part, of %d", whole.Load(), left.Load(), all)
	}
}

// PX-12: what two readers could part differently is refused or read once.
func TestRequestSmuggling(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	head := "POST / HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\n"
	hidden := "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	for what, request := range map[string]string{
		"both lengths":       head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n" + hidden,
		"two lengths":        head + "Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + hidden,
		"odd encoding":       head + "Transfer-Encoding: xchunked\r\nContent-Length: 40\r\n\r\n" + hidden,
		"two encodings":      head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"blank before colon": head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
		"bare line feed":     head + "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
		"negative":           head + "Content-Length: -1\r\n\r\n",
	} {
		before := r.up.count()
		res, err := r.raw(request)
		if err != nil {
			continue // hung up: as good
		}
		res.Body.Close()
		if n := r.up.count() - before; n > 1 {
			t.Errorf("%s: the upstream got %d requests", what, n)
		}
		if got := r.up.count(); got > before && r.up.last(t).URI != "/" {
			t.Errorf("%s: the hidden request arrived", what)
		}
	}
}
