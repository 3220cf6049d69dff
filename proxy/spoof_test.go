package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/proxy"
)

// evil is the value of everything a client must not be able to say.
const evil = claimstest.Evil

type spoof claimstest.Spoof

func spoofs() (all []spoof) {
	for _, s := range claimstest.Spoofs("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups",
		"X-Forwarded-Groups-Omitted", "X-Groupgate-Assertion", "X-Forwarded-Department") {
		all = append(all, spoof(s))
	}
	return all
}

// door is one way in. knock sends the spoof and answers what came out where
// identity headers count: at the upstream, or on the answer of PREFIX/auth.
type door struct {
	name     string
	signedIn bool
	knock    func(t *testing.T, r *rig, cookie string, s spoof) (h, trailer http.Header)
}

const friendly = "X-Favourite-Colour"

// request is the bytes of a request with the spoof in it.
func (s spoof) request(r *rig, method, path, cookie string, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n%s: green\r\n", method, path, r.port(), friendly)
	if cookie != "" {
		fmt.Fprintf(&b, "Cookie: %s\r\n", cookie)
	}
	for _, l := range append(more, s.Lines...) {
		b.WriteString(l + "\r\n")
	}
	if method != "POST" {
		return b.String() + "\r\n"
	}
	names := []string{"X-Checksum"}
	for _, l := range s.Trailers {
		name, _, _ := strings.Cut(l, ":")
		names = append(names, name)
	}
	fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\nTrailer: %s\r\n\r\n4\r\nbody\r\n0\r\n", strings.Join(names, ", "))
	for _, l := range append(s.Trailers, "X-Checksum: 42") {
		b.WriteString(l + "\r\n")
	}
	return b.String() + "\r\n"
}

func overTheWire(method, path string, status int, more ...string) func(*testing.T, *rig, string, spoof) (http.Header, http.Header) {
	return func(t *testing.T, r *rig, cookie string, s spoof) (http.Header, http.Header) {
		t.Helper()
		before := r.up.count()
		res, err := r.raw(s.request(r, method, path, cookie, more...))
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		defer res.Body.Close()
		if res.StatusCode != status {
			t.Fatalf("%s: status %d", s.Name, res.StatusCode)
		}
		if status == http.StatusAccepted {
			return res.Header, nil
		}
		if r.up.count() != before+1 {
			t.Fatalf("%s: the upstream got %d requests", s.Name, r.up.count()-before)
		}
		got := r.up.last(t)
		if got.Header.Get(friendly) != "green" {
			t.Errorf("%s: a header that is nobody's was lost", s.Name)
		}
		if method == "POST" && got.Trailer.Get("X-Checksum") != "42" {
			t.Errorf("%s: a trailer that is nobody's was lost: %v", s.Name, got.Trailer)
		}
		return got.Header, got.Trailer
	}
}

// overHTTP2 knows no Connection header (RFC 9113 section 8.2.2).
func overHTTP2(t *testing.T, r *rig, cookie string, s spoof) (http.Header, http.Header) {
	t.Helper()
	var body io.Reader = http.NoBody
	method := "GET"
	if s.Trailers != nil {
		method, body = "POST", io.MultiReader(strings.NewReader("body"))
	}
	req, err := http.NewRequest(method, r.server.URL+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(friendly, "green")
	req.Header.Set("Cookie", cookie)
	for _, l := range s.Lines {
		name, value, _ := strings.Cut(l, ": ")
		if name != "Connection" {
			req.Header[name] = append(req.Header[name], value)
		}
	}
	for _, l := range s.Trailers {
		name, value, _ := strings.Cut(l, ": ")
		if req.Trailer == nil {
			req.Trailer = http.Header{}
		}
		req.Trailer[name] = []string{value}
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Fatalf("%s: status %d over %s", s.Name, res.StatusCode, res.Proto)
	}
	got := r.up.last(t)
	if got.Header.Get(friendly) != "green" {
		t.Errorf("%s: a header that is nobody's was lost", s.Name)
	}
	return got.Header, got.Trailer
}

func doors() []door {
	socket := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	return []door{
		{"GET", true, overTheWire("GET", "/", 200)},
		{"POST", true, overTheWire("POST", "/", 200)},
		{"WebSocket", true, overTheWire("GET", "/socket", 101, socket...)},
		{"server-sent events", true, overTheWire("GET", "/events", 200, "Accept: text/event-stream")},
		{"public route with a session", true, overTheWire("GET", "/public/x", 200)},
		{"public route without a session", false, overTheWire("GET", "/public/x", 200)},
		{"POST to a public route without a session", false, overTheWire("POST", "/public/x", 200)},
		{"preflight on a public route", false, overTheWire("OPTIONS", "/public/x", 200)},
		{"forward-auth", true, overTheWire("GET", "/_auth/auth", 202)},
		{"forward-auth that redirects", true, overTheWire("GET", "/_auth/auth/redirect", 202)},
		{"HTTP/2", true, overHTTP2},
	}
}

func spoofRig(t *testing.T, opts ...option) *rig {
	return newRig(t, append([]option{headers(proxy.HeadersConfig{
		OnOverflow: proxy.OverflowOmit, Claims: map[string]string{"X-Forwarded-Department": "department"},
	}), withSigner, func(r *rig) {
		r.settings.Routes = []proxy.RouteConfig{{Path: "/public/", Access: proxy.Public}}
		r.up.answer(spoofedApplication)
	}}, opts...)...)
}

// spoofedApplication answers each door in its own way. It reads the body
// first, so that trailers are known, and notes them by the way of its caller.
func spoofedApplication(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/socket":
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err == nil {
			c.CloseNow()
		}
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: one\n\n")
	default:
		io.WriteString(w, "ok")
	}
}

func runSpoofs(t *testing.T, r *rig, doors []door) {
	cookie := r.signIn("alice")
	want := map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.com",
		"X-Forwarded-Preferred-Username": "Alice Example", "X-Forwarded-Groups": "admins,engineering",
	}
	ours := map[string]bool{"x-forwarded-groups-omitted": true, "x-groupgate-assertion": true, "x-forwarded-department": true}
	for name := range want {
		ours[strings.ToLower(name)] = true
	}
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			for _, s := range spoofs() {
				sent := ""
				if d.signedIn {
					sent = cookie
				}
				h, trailer := d.knock(t, r, sent, s)
				noSpoof(t, s.Name, h, trailer, ours)
				for name, value := range want {
					got := h.Values(name)
					switch {
					case d.signedIn && (len(got) != 1 || got[0] != value):
						t.Errorf("%s: %s is %q, want %q", s.Name, name, got, value)
					case !d.signedIn && got != nil:
						t.Errorf("%s: %s is %q without a session", s.Name, name, got)
					}
				}
				if a := h.Get("X-Groupgate-Assertion"); d.signedIn != strings.HasPrefix(a, "eyJ") {
					t.Errorf("%s: assertion %q", s.Name, a)
				}
			}
		})
	}
}

// noSpoof looks for the client's value anywhere, and for our names in any
// spelling but one.
func noSpoof(t *testing.T, what string, h, trailer http.Header, ours map[string]bool) {
	t.Helper()
	for _, part := range []http.Header{h, trailer} {
		for name, values := range part {
			if strings.Contains(strings.Join(values, " "), evil) {
				t.Errorf("%s: %s: %q came through", what, name, values)
			}
			folded := strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
					return c
				}
				return '-'
			}, strings.ToLower(name))
			if ours[folded] && (name != http.CanonicalHeaderKey(folded) || len(values) > 1) {
				t.Errorf("%s: %s: %q beside ours", what, name, values)
			}
		}
	}
	for name := range trailer {
		if ours[strings.ToLower(name)] {
			t.Errorf("%s: trailer %s was announced", what, name)
		}
	}
}

// PX-01, PX-02, PX-03, PX-04, PX-05, PX-10: nothing a client says under our names, in any
// spelling and at any door, reaches an application. A preflight on a public
// route is one of the doors (RT-06); that none of the tricks loses our headers
// is S0-03.
func TestClientsCannotSpeakInOurName(t *testing.T) {
	t.Parallel()
	runSpoofs(t, spoofRig(t), doors())
}

// PX-01 once more, over HTTP/2 to the application.
func TestClientsCannotSpeakInOurNameToH2CUpstream(t *testing.T) {
	t.Parallel()
	up := newH2CUpstream(t)
	r := spoofRig(t, func(r *rig) { r.up = up }, upstreamAt("h2c://"+strings.TrimPrefix(up.URL, "http://")))
	up.answer(spoofedApplication)
	var some []door
	for _, d := range doors() {
		if d.name == "GET" || d.name == "POST" || d.name == "HTTP/2" || d.name == "server-sent events" || strings.HasPrefix(d.name, "public") {
			some = append(some, d)
		}
	}
	runSpoofs(t, r, some)
}

// newH2CUpstream is an application that speaks HTTP/2 without TLS, as gRPC
// servers do, and nothing else.
func newH2CUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(u.serve))
	u.Config.Protocols = new(http.Protocols)
	u.Config.Protocols.SetUnencryptedHTTP2(true)
	u.Start()
	t.Cleanup(u.Close)
	return u
}

// PX-05: a chunk of a body that says who sent it stays a body: the control for the
// table above, whose trailers must be read before they are noted.
func TestTrailersAreSeenAfterTheBody(t *testing.T) {
	t.Parallel()
	r := spoofRig(t)
	conn, err := tls.Dial("tcp", r.server.Listener.Addr().String(), &tls.Config{RootCAs: r.roots(), NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST /public/x HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n4\r\nbody\r\n0\r\nX-Checksum: 42\r\nX-Unannounced: 1\r\nX-Forwarded-User: %s\r\n\r\n", r.port(), evil)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := r.up.last(t)
	if got.Body != "body" || got.Trailer.Get("X-Checksum") != "42" || len(got.Trailer) != 1 {
		t.Errorf("body %q, trailers %v", got.Body, got.Trailer)
	}
}
