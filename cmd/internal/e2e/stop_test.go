package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// stoppable is an application with everything that takes long.
type stoppable struct {
	*httptest.Server
	slow, open, events, uploads atomic.Int64 // how many arrived
	told                        atomic.Int64 // sockets that were told that we go away
	release                     chan struct{}
}

const slowAnswer = 64 << 10

func newStoppable(t *testing.T) *stoppable {
	s := &stoppable{release: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	t.Cleanup(sync.OnceFunc(func() { close(s.release) }))
	return s
}

func (s *stoppable) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/slow":
		s.slow.Add(1)
		w.WriteHeader(http.StatusOK)
		for range 16 { // 2 s in all
			time.Sleep(125 * time.Millisecond)
			_, _ = w.Write(make([]byte, slowAnswer/16))
		}
	case "/upload":
		s.uploads.Add(1)
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	case "/socket":
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		s.open.Add(1)
		if _, _, err := c.Read(context.Background()); websocket.CloseStatus(err) == websocket.StatusGoingAway {
			s.told.Add(1)
		}
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		w.(http.Flusher).Flush()
		s.events.Add(1)
		<-r.Context().Done()
	case "/half":
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05he")
		s.open.Add(1)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err != nil { // our close frame's first byte
			return
		}
		time.Sleep(700 * time.Millisecond)
		_, _ = io.WriteString(c, "llo")
		_, _ = io.Copy(io.Discard, c)
	case "/hang":
		s.slow.Add(1)
		select {
		case <-s.release:
		case <-r.Context().Done():
		}
	}
}

// anybody is a groupgate before an application that is open to all.
func anybody(t *testing.T, upstream string) place {
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
	p := newPlace(t)
	p.write(t, upstream, oidc("op", op.URL, opSecret), everyValue+"routes: [{path: /, access: public}]\n")
	return p
}

// ends waits for the process and answers its exit status.
func (g *gate) ends(within time.Duration) int {
	g.tb.Helper()
	select {
	case <-g.exited:
	case <-time.After(within):
		g.tb.Fatalf("still there after %v\n%s", within, g.log.all())
	}
	return g.cmd.ProcessState.ExitCode()
}

// SC-11: SIGTERM under load loses nothing. Somebody asks /readyz here, so new
// requests are served for a while, too.
func TestTermUnderLoad(t *testing.T) {
	t.Parallel()
	up := newStoppable(t)
	g := anybody(t, up.URL).start(t)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 300}}
	defer client.CloseIdleConnections()
	var work sync.WaitGroup
	var whole atomic.Int64
	const requests, sockets = 200, 20
	for range requests {
		work.Go(func() {
			res, err := client.Get(g.url() + "/slow")
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n != slowAnswer {
				t.Errorf("%d bytes, %v", n, err)
				return
			}
			whole.Add(1)
		})
	}
	for range sockets {
		work.Go(func() {
			c, _, err := websocket.Dial(t.Context(), g.url()+"/socket", nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.CloseNow()
			if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("a socket ended with %v", err)
			}
		})
	}
	for range 5 {
		work.Go(func() {
			res, err := client.Get(g.url() + "/events")
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got, _ := io.ReadAll(res.Body); string(got) != "data: hello\n\n" {
				t.Errorf("events %q", got)
			}
		})
	}
	const pieces = 50
	work.Go(func() {
		body, w := io.Pipe()
		go func() { // 5 s: longer than listeners go on
			for range pieces {
				_, _ = w.Write(make([]byte, 10_000))
				time.Sleep(100 * time.Millisecond)
			}
			w.Close()
		}()
		res, err := client.Post(g.url()+"/upload", "application/octet-stream", body)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != strconv.Itoa(pieces*10_000)+" <nil>" {
			t.Errorf("the upload: %q, %v", got, err)
		}
	})
	g.eventually("under load", func() bool {
		return up.slow.Load() == requests && up.open.Load() == sockets && up.events.Load() == 5 && up.uploads.Load() == 1
	})
	g.signal(syscall.SIGTERM)
	began := time.Now()
	g.eventually("not ready", func() bool { return g.ready() == http.StatusServiceUnavailable })
	if took := time.Since(began); took > time.Second {
		t.Errorf("not ready after %v", took)
	}
	// A new connection is still served, and told to go elsewhere next.
	res, err := (&http.Client{Transport: &http.Transport{}}).Get(g.url() + "/elsewhere")
	if err != nil || res.StatusCode != http.StatusOK || !res.Close {
		t.Errorf("right after the signal: %v %+v", err, res)
	} else {
		res.Body.Close()
	}
	g.eventually("closed", func() bool {
		c, err := net.Dial("tcp", g.public)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if g.ready() != http.StatusServiceUnavailable {
		t.Error("/readyz does not say that we stop")
	}
	work.Wait()
	if n := whole.Load(); n != requests {
		t.Errorf("%d of %d requests ended whole", n, requests)
	}
	if status := g.ends(patience); status != 0 {
		t.Errorf("exit %d\n%s", status, g.log.all())
	}
	if n := up.told.Load(); n != sockets {
		t.Errorf("%d of %d sockets at the application were told", n, sockets)
	}
	lines := 0
	for line := range strings.SplitSeq(g.log.all(), "\n") {
		if strings.Contains(line, `"path":"/slow"`) && strings.Contains(line, `"status":200`) {
			lines++
		}
	}
	if lines != requests {
		t.Errorf("%d of %d requests are in the log", lines, requests)
	}
	t.Logf("stopped after %v", time.Since(began).Round(10*time.Millisecond))
}

// served waits for the program without asking /readyz.
func (g *gate) served() {
	g.tb.Helper()
	g.eventually("serving", func() bool {
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(g.url() + "/")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// SC-11: with nobody who balances and nothing but idle connections there is
// nothing to wait for.
func TestTermWithIdleConnections(t *testing.T) {
	t.Parallel()
	up := newStoppable(t)
	g := anybody(t, up.URL).launch(t)
	g.served()
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	for _, tr := range []*http.Transport{{}, {Protocols: plain}} {
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get(g.url() + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	began := time.Now()
	g.signal(syscall.SIGTERM)
	if status := g.ends(patience); status != 0 {
		t.Errorf("exit %d\n%s", status, g.log.all())
	}
	// net/http gives the peer of an HTTP/2 connection a second after GOAWAY.
	if took := time.Since(began); took > 2500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// SC-11: the process waits for its sockets, too: the frame under way arrives
// whole, and after it that we go away.
func TestTermWaitsForSockets(t *testing.T) {
	t.Parallel()
	up := newStoppable(t)
	g := anybody(t, up.URL).launch(t)
	g.served()
	c, err := net.Dial("tcp", g.public)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET /half HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", g.public)
	in := bufio.NewReader(c)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %+v", err, res)
	}
	// The frame is under way when its beginning is here, and not before.
	begun := make([]byte, len("\x81\x05he"))
	if _, err := io.ReadFull(in, begun); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGTERM)
	if rest, err := io.ReadAll(in); string(begun)+string(rest) != "\x81\x05hello\x88\x02\x03\xe9" {
		t.Errorf("the client got %q and %q, %v", begun, rest, err)
	}
	if status := g.ends(patience); status != 0 {
		t.Errorf("exit %d\n%s", status, g.log.all())
	}
}

// SC-11: a second signal is an order.
func TestSecondSignalForces(t *testing.T) {
	t.Parallel()
	for what, s := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			up := newStoppable(t)
			g := anybody(t, up.URL).start(t)
			broken := make(chan error, 1)
			go func() {
				res, err := http.Get(g.url() + "/hang")
				if err == nil {
					res.Body.Close()
				}
				broken <- err
			}()
			g.eventually("under way", func() bool { return up.slow.Load() == 1 })
			g.signal(s)
			g.eventually("stopping", func() bool { return g.ready() == http.StatusServiceUnavailable })
			began := time.Now()
			g.signal(s)
			if status := g.ends(patience); status != 1 {
				t.Errorf("exit %d", status)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if <-broken == nil {
				t.Error("the request that was cut ended well")
			}
			if !g.logged("at once", `"requests_cut":1`) {
				t.Errorf("it does not say what was cut\n%s", g.log.all())
			}
		})
	}
}

// SC-11: what is not over at the end of the grace is cut, and the exit status
// says that something was.
func TestGraceEnds(t *testing.T) {
	t.Parallel()
	up := newStoppable(t)
	g := anybody(t, up.URL).launch(t)
	g.served()
	broken := make(chan error, 2)
	for range 2 {
		go func() {
			res, err := http.Get(g.url() + "/hang")
			if err == nil {
				res.Body.Close()
			}
			broken <- err
		}()
	}
	g.eventually("under way", func() bool { return up.slow.Load() == 2 })
	g.signal(syscall.SIGTERM)
	began := time.Now()
	if status := g.ends(40 * time.Second); status != 1 {
		t.Errorf("exit %d", status)
	}
	if took := time.Since(began); took < 24*time.Second || took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	for range 2 {
		if <-broken == nil {
			t.Error("a request that was cut ended well")
		}
	}
	if !g.logged("grace is over", `"requests_cut":2`) {
		t.Errorf("it does not say what was cut\n%s", g.log.all())
	}
}

// SC-18: after a storm of clients that go away, applications that hang and
// sockets that are cut, the goroutines are back where they were.
func TestGoroutinesAfterAStorm(t *testing.T) {
	t.Parallel()
	up := newStoppable(t)
	g := anybody(t, up.URL).start(t)
	const unanswered = 1 << 30 // what goroutines answers then
	storm := func() {
		var work sync.WaitGroup
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
		defer client.CloseIdleConnections()
		for i := range 300 {
			work.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(50+i)*time.Millisecond)
				defer cancel()
				if i%3 == 0 {
					if c, _, err := websocket.Dial(ctx, g.url()+"/socket", nil); err == nil {
						<-ctx.Done()
						c.CloseNow()
					}
					return
				}
				path := [...]string{"/hang", "/events", "/slow"}[i/3%3]
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url()+path, nil)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := client.Do(req)
				if err != nil {
					return
				}
				_, err = io.Copy(io.Discard, res.Body)
				if err == nil || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", path, err)
				}
				res.Body.Close()
			})
		}
		peak := 0
		for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); {
			if n := g.goroutines(); n != unanswered {
				peak = max(peak, n)
			}
		}
		if peak < 60 { // some twenty are there without it
			t.Errorf("%d goroutines in the storm: it was none", peak)
		}
		work.Wait()
	}
	before := g.goroutines()
	if before == unanswered {
		t.Fatal("no metrics")
	}
	for range 3 {
		storm()
	}
	after := 0
	g.eventually("back to what they were", func() bool {
		up.CloseClientConnections() // what the pool keeps has its goroutines
		after = g.goroutines()
		return after <= before+5
	})
	t.Logf("%d goroutines before, %d after", before, after)
}
