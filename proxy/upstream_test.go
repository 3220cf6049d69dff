package proxy_test

import (
	"io"
	"net"
	"net/http"
	"strings"
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
