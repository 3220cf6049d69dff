package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groupgate/groupgate/proxy"
)

var allPublic = routes(proxy.RouteConfig{Path: "/", Access: proxy.Public})

// socket opens a socket and answers both its ends.
func (r *rig) socket(t *testing.T) (client, upstream *wire) {
	t.Helper()
	accept, opened := switching(t)
	r.up.answer(accept)
	client = r.wire("/socket", "")
	return client, <-opened
}

// takeFrames reads whole frames until a close frame, whose code it answers, and
// then to the end, where nothing may follow. ErrUnexpectedEOF is an end within
// a frame, EOF one between frames.
func takeFrames(w *wire, masked bool, frames *atomic.Int64) (code uint16, err error) {
	for {
		first, err := w.in.ReadByte()
		if err != nil {
			return 0, err
		}
		second, err := w.in.ReadByte()
		if err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		if second >= 128 != masked {
			return 0, errors.New("wrongly masked")
		}
		n := int64(second & 127)
		wide := map[int64]int{126: 2, 127: 8}[n]
		head := make([]byte, 8)
		if _, err := io.ReadFull(w.in, head[8-wide:]); err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		if wide > 0 {
			n = int64(binary.BigEndian.Uint64(head))
		}
		var key [4]byte
		if masked {
			if _, err := io.ReadFull(w.in, key[:]); err != nil {
				return 0, io.ErrUnexpectedEOF
			}
		}
		frames.Add(1)
		if first != 0x88 {
			if _, err := io.CopyN(io.Discard, w.in, n); err != nil {
				return 0, io.ErrUnexpectedEOF
			}
			continue
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(w.in, body); err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		for i := range body {
			body[i] ^= key[i%4]
		}
		return binary.BigEndian.Uint16(body), nil
	}
}

// told reads the close frame of 1001, which must be the frame of this number.
func (s *side) told(t *testing.T, number int64) {
	t.Helper()
	code, err := takeFrames(s.wire, s.masked, &s.frames)
	if code != 1001 || err != nil || s.frames.Load() != number {
		t.Errorf("%s: code %d in frame %d, %v", s.name, code, s.frames.Load(), err)
	}
}

// rest is what still comes; whether the connection was closed or cut does not
// matter.
func rest(w *wire) []byte {
	b, _ := io.ReadAll(w.in)
	return b
}

func (r *rig) forgotten(t *testing.T, within time.Duration) {
	t.Helper()
	eventually(t, "the socket is forgotten", within, func() bool { return r.proxy.Live() == 0 && r.proxy.InFlight() == 0 })
}

// SC-11: when we stop, both sides get one close frame that says so, between
// two frames of theirs and with nothing after it, however busy they are.
func TestCloseFrameComesBetweenFrames(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"busy", "idle"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, allPublic)
			var hearing sync.WaitGroup
			var sides []*side
			for range 4 {
				client, upstream := r.socket(t)
				sides = append(sides, &side{wire: client, name: "client"}, &side{wire: upstream, name: "upstream", masked: true})
			}
			for _, s := range sides {
				hearing.Go(func() { s.hear(t) })
				if what == "busy" {
					go s.talk()
				}
			}
			if what == "busy" {
				eventually(t, "all are busy", 20*time.Second, func() bool {
					return !slices.ContainsFunc(sides, func(s *side) bool { return s.frames.Load() < 50 })
				})
			}
			r.proxy.EndLive()
			hearing.Wait()
			r.forgotten(t, 10*time.Second)
		})
	}
}

// side is one end of a socket; what comes to it is masked or not.
type side struct {
	*wire
	name   string
	masked bool
	frames atomic.Int64
}

// talk writes frames of all sizes, in pieces that know nothing of frames.
func (s *side) talk() {
	var data []byte
	for _, n := range []int{0, 5, 1000, 70_000} {
		data = append(data, fr(0x02, !s.masked, strings.Repeat("x", n))...)
		data = append(data, fr(0x89, !s.masked, "ping")...)
		data = append(data, fr(0x80, !s.masked, "y")...)
	}
	for at := 0; ; at = (at + 4099) % len(data) {
		piece := data[at:min(len(data), at+4099)]
		if len(piece) < 4099 {
			piece = append(slices.Clone(piece), data[:4099-len(piece)]...)
		}
		if _, err := s.Write(piece); err != nil {
			return
		}
	}
}

func (s *side) hear(t *testing.T) {
	code, err := takeFrames(s.wire, s.masked, &s.frames)
	if err != nil || code != 1001 {
		t.Errorf("%s: code %d after %d frames, %v", s.name, code, s.frames.Load(), err)
	}
	if tail := rest(s.wire); len(tail) != 0 {
		t.Errorf("%s: %d bytes after the close frame", s.name, len(tail))
	}
}

// endLive ends what is open without stopping the rig for good.
func (r *rig) endLive(t *testing.T) {
	t.Helper()
	r.proxy.EndLive()
	r.proxy.GoOn()
}

// Both sides answer the close frame: the socket is over at once, not after a
// wait.
func TestClosingHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t, allPublic)
	client, upstream := r.socket(t)
	began := time.Now()
	r.proxy.EndLive()
	for _, s := range []*side{{wire: client}, {wire: upstream, masked: true}} {
		s.told(t, 1)
		_, _ = s.Write(fr(0x88, !s.masked, "\x03\xe9"))
	}
	if tail := rest(client); len(tail) != 0 {
		t.Errorf("the client got the upstream's answer: %x", tail)
	}
	if tail := rest(upstream); len(tail) != 0 {
		t.Errorf("the upstream got the client's answer: %x", tail)
	}
	r.forgotten(t, 5*time.Second)
	if took := time.Since(began); took >= proxy.CloseWait {
		t.Errorf("it took %v", took)
	}
}

// Where no close frame can stand, none does: the socket is cut, in bounded
// time, and what came before is untouched.
func TestSocketsThatCannotBeTold(t *testing.T) {
	t.Parallel()
	half := fr(0x82, false, strings.Repeat("x", 1000))[:500]
	for what, c := range map[string]struct {
		down, after []byte // before and after the end
		want        []byte // what the client gets in all
	}{
		"half a frame":              {down: half, want: half},
		"half a header":             {down: []byte{0x82}, want: []byte{0x82}},
		"no frames":                 {down: []byte("hello, no frames here"), want: []byte("hello, no frames here")},
		"masked":                    {down: fr(0x81, true, "x"), want: fr(0x81, true, "x")},
		"a close frame was there":   {down: fr(0x88, false, "\x0f\xa0"), want: fr(0x88, false, "\x0f\xa0")},
		"the rest is a close frame": {down: []byte{0x88}, after: []byte{2, 0x0f, 0xa0}, want: fr(0x88, false, "\x0f\xa0")},
		// The controls.
		"the rest comes late": {down: half, after: fr(0x82, false, strings.Repeat("x", 1000))[500:],
			want: append(fr(0x82, false, strings.Repeat("x", 1000)), fr(0x88, false, "\x03\xe9")...)},
		"a whole frame": {down: fr(0x81, false, "x"), want: append(fr(0x81, false, "x"), fr(0x88, false, "\x03\xe9")...)},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, allPublic)
			client, upstream := r.socket(t)
			_, _ = upstream.Write(c.down)
			got := make([]byte, len(c.down))
			if _, err := io.ReadFull(client, got); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			r.proxy.EndLive()
			_, _ = upstream.Write(c.after)
			got = append(got, rest(client)...)
			if !bytes.Equal(got, c.want) {
				t.Errorf("the client got %x, want %x", got, c.want)
			}
			r.forgotten(t, 5*time.Second)
			if took := time.Since(began); took > proxy.CloseWait+3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// SC-18: a side that takes nothing more does not keep the socket open, nor the
// close frame from the other side.
func TestStalledSidesAreCut(t *testing.T) {
	t.Parallel()
	for _, stalled := range []string{"client", "upstream"} {
		t.Run(stalled, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, allPublic)
			client, upstream := r.socket(t)
			talker, listener, masked := upstream, upstream, true
			if stalled == "upstream" {
				talker, listener, masked = client, client, false
			}
			// It talks until nobody takes any more.
			message := fr(0x82, !masked, strings.Repeat("x", 1<<20))
			for {
				_ = talker.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				if _, err := talker.Write(message); err != nil {
					break
				}
			}
			began := time.Now()
			r.proxy.EndLive()
			(&side{wire: listener, name: "the side that listens", masked: masked}).told(t, 1)
			if took := time.Since(began); took >= proxy.CloseWait {
				t.Errorf("the side that listens was told after %v", took)
			}
			r.forgotten(t, proxy.CloseWait+8*time.Second)
		})
	}
}

// A handshake that is under way when we stop is let through, and its socket is
// told at once; so is one that comes later.
func TestStopDuringTheHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t, allPublic)
	accept, opened := switching(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		once.Do(func() { close(arrived) })
		<-release
		accept(w, req)
	})
	clients := make(chan *wire)
	go func() { clients <- r.wire("/early", "") }()
	<-arrived
	r.proxy.EndLive()
	close(release)
	for _, client := range []*wire{<-clients, r.wire("/late", "")} {
		(&side{wire: client, name: "the client"}).told(t, 1)
		(&side{wire: <-opened, name: "the upstream", masked: true}).told(t, 1)
	}
	r.forgotten(t, 10*time.Second)
}

// Event streams end when we stop, those of nobody too, and broken off.
func TestStopEndsEventStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.up.answer(streamForever)
	for path, edit := range map[string]func(*http.Request){"/events": signedIn(cookie), "/public/events": nil} {
		res := r.do("GET", path, edit)
		if n := r.proxy.Live(); n != 1 {
			t.Errorf("%s: %d are counted", path, n)
		}
		r.endLive(t)
		ended(t, path, func() error { _, err := io.ReadAll(res.Body); return err })
		r.forgotten(t, 5*time.Second)
	}
}

// SC-19: an ended session's socket is closed now, not at the next look, and so
// is that of a group that was taken away.
func TestNoticesEndSocketsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.proxy.Run(ctx) }()
	defer func() { stop(); <-done }()
	for range 3 { // one round could be luck
		r.up.answer(nil)
		cookie, other := r.signIn("alice"), r.signIn("bob")
		r.up.answer(echo)
		c, _, err := r.dial("/socket", cookie, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		control, _, err := r.dial("/socket", other, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer control.CloseNow()
		began := time.Now()
		r.do("POST", "/_auth/sign_out", signedIn(cookie))
		_, _, err = c.Read(t.Context())
		if took := time.Since(began); took > proxy.RecheckEvery/2 {
			t.Errorf("it took %v", took)
		}
		if got := websocket.CloseStatus(err); got != websocket.StatusPolicyViolation {
			t.Errorf("closed with %v: %v", got, err)
		}
		if !talks(t, control, "still here") {
			t.Error("bob's was closed too")
		}
	}
}

// SC-18: clients that vanish, upstreams that hang, half-open sockets: nothing
// stays behind. The package's leak check looks once more at the end.
func TestStormLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t, allPublic)
	accept, opened := switching(t)
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/socket":
			accept(w, req)
		case "/hang":
			<-req.Context().Done()
		case "/upload":
			_, _ = io.Copy(io.Discard, req.Body)
		default:
			streamForever(w, req)
		}
	})
	client := r.client()
	var work sync.WaitGroup
	for i := range 60 {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+i)*time.Millisecond)
			defer cancel()
			method, path, body := "GET", [...]string{"/hang", "/events", "/upload"}[i%3], io.Reader(nil)
			if path == "/upload" {
				method, body = "POST", &endless{1 << 40}
			}
			req, err := http.NewRequestWithContext(ctx, method, r.server.URL+path, body)
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	for i := range 30 {
		c := r.wire("/socket", "")
		u := <-opened
		switch i % 5 {
		case 0:
			c.Close()
		case 1:
			u.Close()
		case 2: // cut, not closed
			_ = u.Conn.(*net.TCPConn).SetLinger(0)
			u.Close()
		case 3:
			_ = c.CloseWrite()
		case 4:
			_ = u.CloseWrite()
		}
	}
	work.Wait()
	// A half-open socket is legitimate: the other half is as long as it likes.
	eventually(t, "requests are over", 10*time.Second, func() bool { return r.proxy.InFlight() <= 30 })
	r.proxy.EndLive()
	r.forgotten(t, 10*time.Second)
}
