package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/proxy"
)

// wire is one end of a socket, byte by byte.
type wire struct {
	net.Conn
	in *bufio.Reader
}

func (w *wire) Read(p []byte) (int, error) { return w.in.Read(p) }

func (w *wire) CloseWrite() error { return w.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// switching is an application that agrees to every handshake and hands the
// connection to the test.
func switching(t *testing.T) (http.HandlerFunc, <-chan *wire) {
	opened := make(chan *wire, 100)
	return func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		opened <- &wire{c, rw.Reader}
	}, opened
}

// open makes a socket at an address, with a cookie or without.
func open(t *testing.T, at string, config *tls.Config, path, cookie string) *wire {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	if u.Scheme == "https" {
		c, err = tls.Dial("tcp", u.Host, config)
	} else {
		c, err = net.Dial("tcp", u.Host)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", path, u.Host, cookie)
	w := &wire{c, bufio.NewReader(c)}
	res, err := http.ReadResponse(w.in, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("handshake: %v, %+v", err, res)
	}
	return w
}

func (r *rig) wire(path, cookie string) *wire {
	r.t.Helper()
	return open(r.t.(*testing.T), r.server.URL, &tls.Config{RootCAs: r.roots(), NextProtos: []string{"http/1.1"}}, path, cookie)
}

// fr is one frame (RFC 6455 5.2); the client's are masked with a key of nulls.
func fr(first byte, masked bool, payload string) []byte {
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	out := []byte{first}
	switch n := len(payload); {
	case n < 126:
		out = append(out, bit|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, bit|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, bit|127), uint64(n))
	}
	if masked {
		out = append(out, 0, 0, 0, 0)
	}
	return append(out, payload...)
}

// dribble writes data in pieces of random sizes, some with a pause.
func dribble(w io.Writer, data []byte, seed uint64) {
	chance := rand.New(rand.NewPCG(seed, 1))
	for len(data) > 0 {
		n := min(len(data), 1+chance.IntN(1+chance.IntN(len(data))))
		if _, err := w.Write(data[:n]); err != nil {
			return
		}
		data = data[n:]
		if chance.IntN(4) == 0 {
			time.Sleep(time.Millisecond) // so that they leave as pieces
		}
	}
}

// SC-21: whatever either side sends arrives as it was sent, and each half ends
// when its sender ends it: like a connection without us, which is asked too.
func TestSocketsAreTransparent(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	accept, opened := switching(t)
	r.up.answer(accept)
	long := strings.Repeat("0123456789abcdef", 5000)
	both := func(build func(masked bool) []byte) [2][]byte { return [2][]byte{build(true), build(false)} }
	list := func(first byte, payloads ...string) [2][]byte {
		return both(func(masked bool) (out []byte) {
			for _, p := range payloads {
				out = append(out, fr(first, masked, p)...)
			}
			return out
		})
	}
	cases := map[string][2][]byte{
		"lengths": list(0x82, "", "x", long[:125], long[:126], long[:127], long[:65535], long[:65536], long),
		"fragments with pings between": both(func(m bool) []byte {
			return slices.Concat(fr(0x01, m, "Hel"), fr(0x89, m, "are you there"), fr(0x00, m, ""), fr(0x8a, m, ""), fr(0x00, m, long), fr(0x80, m, "lo"))
		}),
		"one byte fragments": both(func(m bool) (out []byte) {
			out = fr(0x02, m, "a")
			for range 500 {
				out = append(out, fr(0x00, m, "b")...)
			}
			return append(out, fr(0x80, m, "c")...)
		}),
		"pings and pongs":      list(0x89, "", "x", long[:125]),
		"unasked pongs":        list(0x8a, "", long[:125]),
		"invalid UTF-8":        list(0x81, "\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80", "\xff", "\xf4\x90\x80\x80"),
		"compressed":           list(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00"),
		"reserved bits":        list(0xf1, "x"),
		"reserved opcodes":     list(0x83, "x", long),
		"reserved control":     list(0x8b, "x"),
		"a broken control":     list(0x09, "x"),
		"a long control":       list(0x89, long[:200]),
		"data after the end":   both(func(m bool) []byte { return append(fr(0x88, m, "\x03\xe8bye"), long...) }),
		"wrongly masked":       {fr(0x81, false, "hello"), fr(0x81, true, "hello")},
		"long forms":           {{0x82, 0xfe, 0, 1, 0, 0, 0, 0, 'x'}, {0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 'x'}},
		"an impossible length": {{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'}, {0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'}},
		"half a frame":         {fr(0x82, true, long)[:1000], fr(0x82, false, long)[:1000]},
		"half a header":        {{0x82}, {0x82, 127, 0, 0}},
		"no frames at all":     {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\n\r\n")},
		"nothing":              {nil, nil},
	}
	for _, code := range []uint16{0, 999, 1000, 1001, 1004, 1005, 1006, 1012, 3000, 4999, 65535} {
		body := string(binary.BigEndian.AppendUint16(nil, code))
		cases[fmt.Sprint("close code ", code)] = list(0x88, body+"because")
	}
	cases["close without a code"] = list(0x88, "")
	cases["close with half a code"] = list(0x88, "\x03")
	secure := &tls.Config{RootCAs: r.roots(), NextProtos: []string{"http/1.1"}}
	seed := uint64(0)
	for what, data := range cases {
		for _, first := range []string{"client", "upstream"} {
			for _, at := range []string{r.up.URL, r.server.URL} {
				seed++
				client := open(t, at, secure, "/socket", "")
				upstream := <-opened
				a, b := client, upstream // a ends its half first, b answers after that
				toB, toA := data[0], data[1]
				if first == "upstream" {
					a, b, toB, toA = b, a, toA, toB
				}
				go func() { dribble(a, toB, seed); a.CloseWrite() }()
				gotB, err := io.ReadAll(b)
				if err != nil || !bytes.Equal(gotB, toB) {
					t.Errorf("%s, %s first at %s: %d bytes of %d arrived, %v", what, first, at, len(gotB), len(toB), err)
				}
				go func() { dribble(b, toA, seed); b.CloseWrite() }()
				gotA, err := io.ReadAll(a)
				if err != nil || !bytes.Equal(gotA, toA) {
					t.Errorf("%s, %s first at %s: %d bytes of %d came back, %v", what, first, at, len(gotA), len(toA), err)
				}
				client.Close()
				upstream.Close()
			}
		}
	}
	eventually(t, "all are forgotten", 5*time.Second, func() bool { return r.proxy.Live() == 0 && r.proxy.InFlight() == 0 })
}
