package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// shape is a request that two readers could read differently.
type shape struct {
	name string
	// raw is what is sent. HOST stands for our own, AS for the session of alice,
	// ID for a word of this shape's own, HIDDEN for a second request, of bob.
	raw string
	// statuses are the answers allowed to the first request; 0 is hanging up
	// without one.
	statuses []int
	upstream int // how many requests may arrive
	// check looks at the one that arrived.
	check func(tapped) string
}

const (
	line   = "POST /ID HTTP/1.1\r\nHost: HOST\r\nAS\r\n"
	chunks = line + "Transfer-Encoding: chunked\r\n"
	bad    = http.StatusBadRequest
)

func body(want string) func(tapped) string {
	return func(got tapped) string {
		if got.body != want {
			return fmt.Sprintf("the body is %.80q", got.body)
		}
		return ""
	}
}

// smuggled is for PX-12: where a request ends.
func smuggled() []shape {
	no := func(name, raw string, statuses ...int) shape { return shape{name, raw, statuses, 0, nil} }
	once := func(name, raw string, check func(tapped) string) shape { return shape{name, raw, []int{200}, 1, check} }
	maybe := func(name, raw string) shape { return shape{name, raw, []int{200, bad, 502, 499, 0}, 1, nil} }
	all := []shape{
		once("a length and an encoding", line+"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", body("")),
		once("an encoding and a length", chunks+"Content-Length: 300\r\n\r\n0\r\n\r\nHIDDEN", body("")),
		once("an encoding alone, and something behind it", chunks+"\r\n4\r\nabcd\r\n0\r\n\r\nHIDDEN", body("abcd")),
		once("an encoding that a blank follows", line+"Transfer-Encoding: chunked \r\nContent-Length: 3\r\n\r\n0\r\n\r\nHIDDEN", body("")),
		once("an encoding in a folded line", line+"Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\nHIDDEN", body("")),
		once("an encoding of HTTP/1.0", "POST /ID HTTP/1.0\r\nHost: HOST\r\nAS\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", body("")),
		once("a second request of HTTP/1.0", "GET /ID HTTP/1.0\r\nHost: HOST\r\nAS\r\nConnection: keep-alive\r\n\r\nHIDDEN", body("")),
		no("two lengths", line+"Content-Length: 0\r\nContent-Length: 40\r\n\r\nHIDDEN", bad),
		no("two lengths in one line", line+"Content-Length: 0, 40\r\n\r\nHIDDEN", bad),
		no("a length in an odd encoding", line+"Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\nabcdHIDDEN", 501),
		no("two encodings", line+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nHIDDEN", 501),
		no("two encodings in one line", line+"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\nHIDDEN", 501),
		no("an encoding behind a control character", line+"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nHIDDEN", bad, 501),
		no("a blank before the colon of the encoding", line+"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nHIDDEN", bad),
		no("a blank before the colon of the length", line+"Content-Length : 40\r\n\r\nHIDDEN", bad),
		no("a header line that begins with a blank", "POST /ID HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: HOST\r\nAS\r\n\r\n0\r\n\r\nHIDDEN", bad),
		no("a carriage return inside a value", line+"X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", bad),
		no("a null byte inside a value", line+"X-A: b\x00\r\n\r\nHIDDEN", bad),
		no("a line without a colon", line+"Transfer-Encoding chunked\r\n\r\nHIDDEN", bad),
		no("an empty name", line+": chunked\r\n\r\nHIDDEN", bad),
		no("blank lines first", "\r\n\r\n"+line+"Content-Length: 0\r\n\r\nHIDDEN", bad),
		maybe("a bare line feed in a chunk's extension", chunks+"\r\n1;a\nb\r\nx\r\n0\r\n\r\nHIDDEN"),
		maybe("a bare line feed after a chunk's size", chunks+"\r\n1\nx\r\n0\r\n\r\nHIDDEN"),
		maybe("a chunk that is longer than its size", chunks+"\r\n3\r\nabcd\r\n0\r\n\r\nHIDDEN"),
		maybe("a chunk's size that overflows", chunks+"\r\n10000000000000004\r\nabcd\r\n0\r\n\r\nHIDDEN"),
		maybe("a negative chunk", chunks+"\r\n-1\r\nabcd\r\n0\r\n\r\nHIDDEN"),
		maybe("a chunk's size with a prefix", chunks+"\r\n0x4\r\nabcd\r\n0\r\n\r\nHIDDEN"),
		maybe("a chunk's size with a blank inside", chunks+"\r\n4 4\r\nabcd\r\n0\r\n\r\nHIDDEN"),
		maybe("a huge extension", chunks+"\r\n1;"+strings.Repeat("a", 64<<10)+"\r\nx\r\n0\r\n\r\nHIDDEN"),
		// CVE-2023-39326: much extension, little body.
		maybe("an extension a byte", chunks+"\r\n"+strings.Repeat("1;"+strings.Repeat("a", 900)+"\r\nx\r\n", 200)+"0\r\n\r\nHIDDEN"),
		once("trailers that are ours to set", chunks+"Trailer: X-Forwarded-User\r\n\r\n0\r\nX-Forwarded-User: root\r\n\r\nHIDDEN", body("")),
	}
	for _, length := range []string{"+4", "-1", "0x4", "4 4", "4;4", "", "18446744073709551620", "4\t5"} {
		all = append(all, no(fmt.Sprintf("the length %q", length), line+"Content-Length: "+length+"\r\n\r\nHIDDEN", bad))
	}
	return all
}

// addressed is for PX-07, PX-08, PX-09: who is asked for what. Each says
// "close", or it would not be the last of its connection.
func addressed() []shape {
	const end = "AS\r\nConnection: close\r\n\r\n"
	no := func(name, raw string, statuses ...int) shape { return shape{name, raw, statuses, 0, nil} }
	once := func(name, raw string, check func(tapped) string) shape { return shape{name, raw, []int{200}, 1, check} }
	all := []shape{
		no("two hosts", "GET /ID HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n"+end, bad),
		no("no host", "GET /ID HTTP/1.1\r\n"+end, bad),
		no("a host that is none", "GET /ID HTTP/1.1\r\nHost: a b\r\n"+end, bad),
		no("a host with a path", "GET /ID HTTP/1.1\r\nHost: HOST/x\r\n"+end, bad, 421),
		no("a host with a name before it", "GET /ID HTTP/1.1\r\nHost: HOST@evil.example\r\n"+end, bad, 421),
		no("a login at a host of somebody else", "GET /_auth/start?rd=/ID HTTP/1.1\r\nHost: evil.example\r\n"+end, 421),
		no("a login at an address of somebody else", "GET http://evil.example/_auth/start?rd=/ID HTTP/1.1\r\nHost: HOST\r\n"+end, 421),
		// The host in the request line is the one that counts (RFC 9112 3.2.2).
		{"an address of ours for a host of somebody else", "GET http://HOST/ID HTTP/1.1\r\nHost: evil.example\r\n" + end, []int{200}, 1,
			func(got tapped) string {
				if !strings.HasPrefix(got.uri, "/") || strings.Contains(got.host, "evil") || strings.Contains(got.header.Get("X-Forwarded-Host"), "evil") {
					return fmt.Sprintf("%s at %s, %s", got.uri, got.host, got.header.Get("X-Forwarded-Host"))
				}
				return ""
			}},
		no("CONNECT to a host", "CONNECT ID.example:80 HTTP/1.1\r\nHost: ID.example:80\r\n"+end, bad, 405),
		no("CONNECT to us", "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n"+end, bad, 405),
		no("CONNECT to a path", "CONNECT /ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad, 405),
		no("TRACE", "TRACE /ID HTTP/1.1\r\nHost: HOST\r\n"+end, 405),
		no("TRACE of one of our own pages", "TRACE /_auth/sign_in?rd=/ID HTTP/1.1\r\nHost: HOST\r\n"+end, 405),
		no("the server as a whole", "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n"+end, 200, bad), // net/http answers for us
		no("a method with a blank", "GE T /ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("a method with a bracket", "G(ET /ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("a method with a null byte", "GET\x00 /ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("a method with a colon", "GET: /ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("no method", " /ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("a blank in the path", "GET /ID x HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("a fragment", "GET /ID#x HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("a path that does not begin with a slash", "GET ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("an address with a name before it", "GET http://root@HOST/ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("another scheme with our host", "GET ftp://HOST/ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad),
		no("another scheme", "GET file:///ID HTTP/1.1\r\nHost: HOST\r\n"+end, bad, 421),
		no("HTTP/0.9", "GET /ID\r\n\r\n", bad),
		no("HTTP/3.7", "GET /ID HTTP/3.7\r\nHost: HOST\r\n"+end, bad, 505),
		no("HTTP/1.1 and more", "GET /ID HTTP/1.1x\r\nHost: HOST\r\n"+end, bad, 505),
		no("an expectation", "GET /ID HTTP/1.1\r\nHost: HOST\r\nExpect: gold\r\n"+end, 417),
	}
	for _, method := range []string{"BREW", "get", "M-SEARCH", "!#$%&'*+-.^_`|~", strings.Repeat("X", 1000)} {
		all = append(all, once("the method "+method[:min(len(method), 16)], method+" /ID HTTP/1.1\r\nHost: HOST\r\n"+end, func(got tapped) string {
			if got.method != method {
				return "it arrived as " + got.method
			}
			return ""
		}))
	}
	return all
}

// swollen is for PX-17 and PX-18: too much of something that is allowed.
func swollen() []shape {
	const end = "AS\r\nConnection: close\r\n\r\n"
	var cookies, parameters strings.Builder
	for i := range 3001 {
		fmt.Fprintf(&cookies, "c%d=%d; ", i, i)
	}
	for i := range 10_001 {
		fmt.Fprintf(&parameters, "&p%d=x%%zz;y", i)
	}
	query := strings.TrimPrefix(parameters.String(), "&")
	return []shape{
		{"3,001 cookies", "GET /ID HTTP/1.1\r\nHost: HOST\r\nCookie: " + cookies.String() + "\r\n" + end, []int{200}, 1, func(got tapped) string {
			if lines := got.header["Cookie"]; len(lines) != 1 || strings.TrimSpace(lines[0]) != strings.TrimSpace(cookies.String()) {
				return fmt.Sprintf("%d lines of cookies, not the one", len(lines))
			}
			return ""
		}},
		{"10,000 parameters that few can parse", "GET /ID?" + query[:100_000] + " HTTP/1.1\r\nHost: HOST\r\n" + end, []int{200}, 1, func(got tapped) string {
			if !strings.HasSuffix(got.uri, "?"+query[:100_000]) {
				return "the query was changed"
			}
			return ""
		}},
		{"a path of 100,000 characters", "GET /ID" + strings.Repeat("/a%2Fb", 100_000/6) + " HTTP/1.1\r\nHost: HOST\r\n" + end, []int{200}, 1, func(got tapped) string {
			if len(got.uri) < 99_000 {
				return "the path was cut"
			}
			return ""
		}},
		{"a path of 100,000 slashes", "GET /ID" + strings.Repeat("/", 100_000) + " HTTP/1.1\r\nHost: HOST\r\n" + end, []int{200}, 1, nil},
		{"a path of 2 MiB", "GET /ID" + strings.Repeat("a", 2<<20) + " HTTP/1.1\r\nHost: HOST\r\n" + end, []int{431, 0}, 0, nil},
		{"a header of 2 MiB", "GET /ID HTTP/1.1\r\nHost: HOST\r\nX-A: " + strings.Repeat("a", 2<<20) + "\r\n" + end, []int{431, 0}, 0, nil},
		{"2 MiB of small headers", "GET /ID HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-A: aaaaaaaaaa\r\n", (2<<20)/17) + end, []int{431, 0}, 0, nil},
		{"a header of 2 MiB that never ends", "GET /ID HTTP/1.1\r\nHost: HOST\r\nX-A: " + strings.Repeat("a", 2<<20), []int{431, 0}, 0, nil},
	}
}

// PX-12, PX-07, PX-08, PX-09, PX-17, PX-18: whatever a client writes, one
// request of it is at most one of the upstream's, in its own name. What is
// unclear gets 4xx or 5xx, and the connection ends with it.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			t.Parallel()
			up := newTap(t)
			f := newFront(t, secure, up.URL, "")
			alice, bob := f.session(t, "alice"), f.session(t, "bob")
			checked := watchBob(t, f, bob)
			for i, s := range slices.Concat(smuggled(), addressed(), swollen()) {
				id := fmt.Sprintf("shape%d-", i)
				// In one pass: a session's own characters may spell one of the words.
				hidden := "GET /hidden-" + id + " HTTP/1.1\r\nHost: " + f.public + "\r\nCookie: " + bob + "\r\n\r\n"
				raw := strings.NewReplacer("HIDDEN", hidden, "HOST", f.public, "AS", "Cookie: "+alice, "ID", id).Replace(s.raw)
				statuses, hungUp := f.shout(t, raw)
				first := 0
				if len(statuses) > 0 {
					first = statuses[0]
				}
				if !slices.Contains(s.statuses, first) {
					t.Errorf("%s: %d, wanted one of %d", s.name, first, s.statuses)
				}
				if !hungUp || len(statuses) > 1 {
					t.Errorf("%s: the connection goes on (%v): answers %d", s.name, !hungUp, statuses)
				}
				if got := up.about("hidden-" + id); len(got) > 0 {
					t.Errorf("%s: the hidden request arrived", s.name)
				}
				arrived := up.about(id)
				if len(arrived) > s.upstream || first == 200 && len(arrived) != s.upstream {
					t.Errorf("%s: %d requests arrived, wanted %d", s.name, len(arrived), s.upstream)
				}
				for _, got := range arrived {
					if got.user != "alice" || len(got.header["X-Forwarded-User"]) != 1 || strings.Contains(got.header.Get("Cookie"), "groupgate") {
						t.Errorf("%s: it arrived as %q with %q", s.name, got.header["X-Forwarded-User"], got.header["Cookie"])
					}
					if s.check == nil {
						continue
					}
					if wrong := s.check(got); wrong != "" {
						t.Errorf("%s: %s", s.name, wrong)
					}
				}
			}
			if n := checked(); n < 20 {
				t.Errorf("bob asked only %d times beside it", n)
			}
		})
	}
}

// watchBob asks in bob's name, on a connection that is kept, until the returned
// function is called: nothing that others send may become an answer to bob.
func watchBob(t *testing.T, f *front, cookie string) (stop func() int64) {
	c := f.client(t)
	var n atomic.Int64
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			path := fmt.Sprintf("/bob/%d", n.Add(1))
			if status, body, err := f.ask(c, path, cookie); err != nil || status != http.StatusOK || body != "user=bob" {
				t.Errorf("bob at %s: %v %d %s", path, err, status, body)
				return
			}
		}
	})
	end := sync.OnceFunc(func() { close(done); work.Wait() })
	t.Cleanup(end)
	return func() int64 { end(); return n.Load() }
}

// shout writes bytes as they are and answers the statuses that came back until
// the other side hung up, or patience was at its end.
func (f *front) shout(t *testing.T, raw string) (statuses []int, hungUp bool) {
	t.Helper()
	conn, err := f.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	// Beside the reading: a server may answer, and hang up, before it read all.
	go func() { _, _ = io.WriteString(conn, raw) }()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	answers := bufio.NewReader(conn)
	for {
		if _, err := answers.Peek(1); err != nil {
			return statuses, !isTimeout(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return statuses, !isTimeout(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		statuses = append(statuses, resp.StatusCode)
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(interface{ Timeout() bool })
	return ok && timeout.Timeout()
}

// The control of TestShapes: requests that are clear may follow each other
// without a pause on one connection, each in its own name.
func TestPipelining(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			t.Parallel()
			up := newTap(t)
			f := newFront(t, secure, up.URL, "")
			alice, bob := f.session(t, "alice"), f.session(t, "bob")
			var raw strings.Builder
			var want []int
			for i := range 100 {
				head := fmt.Sprintf("POST /turn/%d HTTP/1.1\r\nHost: %s\r\n", i, f.public)
				body := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", 20+i%10, strings.Repeat("x", 20+i%10))
				switch i % 3 {
				case 0:
					raw.WriteString(head + "Cookie: " + alice + "\r\n" + body)
					want = append(want, http.StatusOK)
				case 1:
					raw.WriteString(head + "Cookie: " + bob + "\r\nX-Forwarded-User: alice\r\n" + body)
					want = append(want, http.StatusOK)
				default:
					raw.WriteString(head + "X-Forwarded-User: alice\r\n" + body)
					want = append(want, http.StatusUnauthorized)
				}
			}
			raw.WriteString("GET /turn/last HTTP/1.1\r\nHost: " + f.public + "\r\nConnection: close\r\n\r\n")
			want = append(want, http.StatusUnauthorized)
			if got, hungUp := f.shout(t, raw.String()); !slices.Equal(got, want) || !hungUp {
				t.Errorf("answers %d, hung up %v", got, hungUp)
			}
			for i := range 100 {
				got := up.about(fmt.Sprintf("/turn/%d", i))
				got = slices.DeleteFunc(got, func(s tapped) bool { return s.uri != fmt.Sprintf("/turn/%d", i) })
				switch user := []string{"alice", "bob", ""}[i%3]; {
				case user == "" && len(got) != 0:
					t.Errorf("%d: nobody's request arrived", i)
				case user != "" && (len(got) != 1 || got[0].user != user || got[0].body != strings.Repeat("x", 20+i%10)):
					t.Errorf("%d: %+v", i, got)
				}
			}
		})
	}
}
