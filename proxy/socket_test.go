package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// echo answers every message of a socket with itself.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"chat"}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 21)
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, data); err != nil {
			return
		}
	}
}

func (r *rig) dial(path, cookie string, more http.Header) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	h := http.Header{"Cookie": {cookie}}
	for name, v := range more {
		h[name] = v
	}
	client := r.client()
	client.Timeout = 0
	return websocket.Dial(ctx, r.server.URL+path, &websocket.DialOptions{HTTPClient: client, HTTPHeader: h, Subprotocols: []string{"chat"}})
}

// talks reports whether a message comes back.
func talks(t *testing.T, c *websocket.Conn, text string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if c.Write(ctx, websocket.MessageText, []byte(text)) != nil {
		return false
	}
	_, got, err := c.Read(ctx)
	return err == nil && string(got) == text
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.up.answer(echo)
	c, res, err := r.dial("/socket?a=1;b", cookie, http.Header{"Origin": {r.server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 21)
	if res.StatusCode != 101 || c.Subprotocol() != "chat" {
		t.Errorf("%d, subprotocol %q", res.StatusCode, c.Subprotocol())
	}
	for _, text := range []string{"hello", "", strings.Repeat("long ", 200_000)} {
		if !talks(t, c, text) {
			t.Fatalf("no echo of %d bytes", len(text))
		}
	}
	got := r.up.last(t)
	if got.URI != "/socket?a=1;b" || got.Header.Get("X-Forwarded-User") != "alice" || got.Header.Get("Cookie") != "" {
		t.Errorf("the upstream got %+v", got)
	}
	if n := r.proxy.Live(); n != 1 {
		t.Errorf("%d sockets are counted", n)
	}
	c.Close(websocket.StatusNormalClosure, "")
	eventually(t, "the socket is forgotten", 5*time.Second, func() bool { return r.proxy.Live() == 0 })
}

// SC-20: a cookie does not open a socket for another site's page.
func TestWebSocketOrigin(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	cookie, bob := r.signIn("alice"), r.signIn("bob")
	r.up.answer(echo)
	for _, c := range []struct {
		what    string
		origins []string
		ok      bool
	}{
		{"ours", []string{r.server.URL}, true},
		{"none, no browser", nil, true},
		{"another site", []string{"https://evil.example"}, false},
		{"a portal of ours", []string{r.portal("eng.localhost")}, false},
		{"null", []string{"null"}, false},
		{"empty", []string{""}, false},
		{"suffix", []string{r.server.URL + ".evil.example"}, false},
		{"prefix", []string{"https://evil.example#" + r.server.URL}, false},
		{"another port", []string{"https://127.0.0.1:1"}, false},
		{"two", []string{r.server.URL, "https://evil.example"}, false},
	} {
		before := r.up.count()
		conn, res, err := r.dial("/socket", cookie, http.Header{"Origin": c.origins})
		if (err == nil) != c.ok || !c.ok && (res == nil || res.StatusCode != 403 || r.up.count() != before) {
			t.Errorf("%s: %v, %+v", c.what, err, res)
		}
		if err == nil {
			conn.CloseNow()
		}
	}
	before := r.up.count()
	if _, res, err := r.dial("/socket", "", nil); err == nil || res.StatusCode != 401 || r.up.count() != before {
		t.Errorf("without a session: %v", err)
	}
	if _, res, err := r.dial("/admin/socket", bob, nil); err == nil || res.StatusCode != 403 {
		t.Errorf("without the group: %v", err)
	}
}

// PX-06, S0-03: nothing but a WebSocket is ever a tunnel.
func TestOtherUpgradesNeverTunnel(t *testing.T) {
	t.Parallel()
	// An application that would switch to anything, and then say what it reads.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				if up := req.Header.Get("Upgrade"); up != "" || req.Header.Get("Http2-Settings") != "" {
					got <- up
					fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", up)
					return
				}
				got <- "none"
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			}()
		}
	}()
	defer ln.Close()
	r := newRig(t, upstreamAt("http://"+ln.Addr().String()), func(r *rig) {
		r.settings.Routes = []proxy.RouteConfig{{Path: "/", Access: proxy.Public}}
	})
	for _, lines := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: upgrade\r\nUpgrade: tcp\r\n", "Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: websocket2\r\n",
		"Upgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade:\r\n",
	} {
		res := r.knock("GET / HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\n" + lines + "\r\n")
		if res.StatusCode != 200 {
			t.Errorf("%q: %d", lines, res.StatusCode)
		}
		if up := <-got; up != "none" {
			t.Errorf("%q: the upstream was offered %q", lines, up)
		}
	}
	res := r.knock("POST / HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
	if up := <-got; res.StatusCode != 200 || up != "none" {
		t.Errorf("POST: %d, offered %q", res.StatusCode, up)
	}
	// The control: the same application does switch for a WebSocket.
	res = r.knock("GET / HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if up := <-got; res.StatusCode != 101 || up != "websocket" {
		t.Errorf("WebSocket: %d, offered %q", res.StatusCode, up)
	}
}

// PX-06: an answer of 101 that nobody asked for is no tunnel either, and its
// connection is not left open.
func TestUnaskedSwitchIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, routes(proxy.RouteConfig{Path: "/", Access: proxy.Public}))
	left := make(chan error, 2)
	r.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		_, err = c.Read(make([]byte, 1))
		left <- err
	})
	for what, edit := range map[string]func(*http.Request){
		"asked for nothing":   nil,
		"asked for WebSocket": edits(header("Connection", "Upgrade"), header("Upgrade", "websocket")),
	} {
		if res := r.do("GET", "/", edit); res.StatusCode != 502 {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
		if err := <-left; err != io.EOF {
			t.Errorf("%s: the connection to the upstream ended with %v", what, err)
		}
	}
}

// streamForever is a stream that begins and then waits.
func streamForever(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	io.WriteString(w, "data: one\n\n")
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// ended waits for the other side to end a stream or socket.
func ended(t *testing.T, what string, read func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- read() }()
	select {
	case err := <-done:
		if err == nil {
			t.Errorf("%s: still open", what)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s: still open", what)
	}
}

// SC-19 and contract section 5: sockets and streams end with their session,
// or when it loses the route's group, and not before.
func TestSocketsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	if proxy.RecheckEvery >= 30*time.Second {
		t.Fatalf("sockets are looked at every %v", proxy.RecheckEvery)
	}
	policy, later := websocket.StatusPolicyViolation, websocket.StatusTryAgainLater
	for what, c := range map[string]struct {
		code websocket.StatusCode
		end  func(r *rig, cookie string)
	}{
		"signed out": {policy, func(r *rig, cookie string) { r.do("POST", "/_auth/sign_out", signedIn(cookie)) }},
		"forgotten": {policy, func(r *rig, _ string) {
			u, err := r.store.UserByName(r.t.Context(), "alice")
			if err == nil {
				err = r.dir.DeleteUser(r.t.Context(), u.ID, "test")
			}
			if err != nil {
				r.t.Error(err)
			}
		}},
		"the group is gone": {policy, func(r *rig, _ string) {
			if err := r.dir.DeleteGroup(r.t.Context(), "admins", "test"); err != nil {
				r.t.Error(err)
			}
		}},
		"over": {policy, func(r *rig, _ string) { r.clock.advance(13 * time.Hour) }},
		"lost at the source": {policy, func(r *rig, _ string) {
			r.op.SetPerson(person("alice", "engineering"))
			r.clock.advance(6 * time.Minute)
		}},
		"the store is down": {later, func(r *rig, _ string) { r.faults.down.Store(true) }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cookie := r.signIn("alice")
			r.up.answer(func(w http.ResponseWriter, req *http.Request) {
				if strings.HasSuffix(req.URL.Path, "/socket") {
					echo(w, req)
				} else {
					streamForever(w, req)
				}
			})
			socket, _, err := r.dial("/admin/socket", cookie, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer socket.CloseNow()
			res := r.do("GET", "/admin/events", signedIn(cookie))
			stream := bufio.NewReader(res.Body)
			if line, err := stream.ReadString('\n'); err != nil || line != "data: one\n" {
				t.Fatalf("%q, %v", line, err)
			}
			public, _, err := r.dial("/public/socket", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer public.CloseNow()
			r.proxy.Recheck(t.Context())
			if !talks(t, socket, "still here") || r.proxy.Live() != 3 {
				t.Fatalf("closed too early; %d are open", r.proxy.Live())
			}
			c.end(r, cookie)
			r.proxy.Recheck(t.Context())
			ended(t, "socket", func() error {
				_, _, err := socket.Read(t.Context())
				if got := websocket.CloseStatus(err); got != c.code {
					t.Errorf("closed with %v, want %v: %v", got, c.code, err)
				}
				return err
			})
			ended(t, "stream", func() error { _, err := io.Copy(io.Discard, stream); return err })
			if !talks(t, public, "still here") {
				t.Error("a socket of nobody was closed")
			}
			eventually(t, "they are forgotten", 5*time.Second, func() bool { return r.proxy.Live() == 1 })
		})
	}
}

// A session that ends while the application thinks about the handshake gets no
// socket, and no answer that looks like success.
func TestSessionEndsDuringTheHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	arrived := make(chan struct{})
	r.up.answer(func(_ http.ResponseWriter, req *http.Request) {
		close(arrived)
		<-req.Context().Done()
	})
	got := make(chan *http.Response, 1)
	go func() {
		got <- r.do("GET", "/socket", edits(signedIn(cookie), header("Connection", "Upgrade"), header("Upgrade", "websocket")))
	}()
	<-arrived
	r.faults.down.Store(true)
	r.proxy.Recheck(t.Context())
	if res := <-got; res.StatusCode != 503 {
		t.Errorf("answered %d", res.StatusCode)
	}
}

// A source that hangs holds the look at one session up, not those at others.
func TestRecheckWithAHangingSource(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	people := map[string]string{"alice": r.signIn("alice"), "bob": r.signIn("bob"), "carol": r.signIn("carol")}
	r.up.answer(echo)
	sockets := map[string]*websocket.Conn{}
	for who, cookie := range people {
		c, _, err := r.dial("/socket", cookie, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		sockets[who] = c
	}
	u, err := r.store.UserByName(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	r.op.Lie(func(k *claimstest.Knobs) {
		k.TokenHandler = func(w http.ResponseWriter, _ *http.Request) { <-release; w.WriteHeader(500) }
	})
	r.clock.advance(6 * time.Minute)
	if _, err := r.dir.EndLogins(t.Context(), groups.LoginFilter{User: u.ID}, "test", "test", ""); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); r.proxy.Recheck(t.Context()) }()
	ended(t, "bob's socket", func() error { _, _, err := sockets["bob"].Read(t.Context()); return err })
	select {
	case <-done:
		t.Error("nobody waited for the source: the test shows nothing")
	default:
	}
	close(release)
	<-done
	if !talks(t, sockets["alice"], "still here") {
		t.Error("a source that cannot be reached ended a session")
	}
}

// The same by the proxy's own clock: Run looks often enough.
func TestRunClosesSockets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.up.answer(echo)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.proxy.Run(ctx) }()
	defer func() { stop(); <-done }()
	c, _, err := r.dial("/socket", cookie, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	r.do("POST", "/_auth/sign_out", signedIn(cookie))
	ended(t, "socket", func() error { _, _, err := c.Read(t.Context()); return err })
}
