package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// closeCode says in a close frame why a socket ends (RFC 6455 7.4.1).
type closeCode uint16

const (
	closeGoingAway closeCode = 1001 // we stop
	closePolicy    closeCode = 1008 // the session ended, or lost the route's group
	closeTryLater  closeCode = 1013 // the store cannot say (IANA's registry)
)

// closeWait is how long an ending socket may take for its last words: for the
// frame under way to end, and for both sides to answer the close frame. After
// that both connections are closed, wherever they are.
const closeWait = 2 * time.Second

func isWebSocket(r *http.Request) bool {
	up := r.Header["Upgrade"]
	return len(up) == 1 && strings.EqualFold(up[0], "websocket") && r.Method == http.MethodGet && r.ProtoMajor == 1
}

// sameOrigin refuses another site's page the use of our cookie on a socket:
// browsers send cookies with cross-origin WebSockets and always say Origin.
func (x *exchange) sameOrigin(r *http.Request) bool {
	origin := r.Header["Origin"]
	switch len(origin) {
	case 0:
		return true
	case 1:
		if origin[0] == x.host.origin {
			return true
		}
		_, name, _ := strings.Cut(origin[0], "://")
		return name != "" && isLoopback(name) && name == r.Host
	default:
		return false
	}
}

// tunnel takes an answer of 101. Only a WebSocket that the client asked for is
// one; anything else gets no tunnel, and its connection is closed.
func (x *exchange) tunnel(res *http.Response) error {
	body, ok := res.Body.(io.ReadWriteCloser)
	if !ok || x.live == nil || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		return errors.New("the upstream switched to a protocol that nobody asked for")
	}
	s := newSocket(body, x.live.cut, x.p.buffers)
	res.Body = s
	x.live.attach(s.end)
	return nil
}

// socket stands for the upstream in the tunnel that ReverseProxy makes after a
// 101. What passes is not changed, held back nor looked at but for where its
// frames end, so that a close frame of ours can be the last that either side
// gets: put between two frames, with nothing after it.
type socket struct {
	upstream io.ReadWriteCloser
	cut      func() // ends the request
	buffers  *bufferPool
	down, up leg // towards the client, towards the upstream
	code     atomic.Uint32
	heard    atomic.Int32 // how many sides sent their own close frame

	mu     sync.Mutex
	client io.Closer   // from when the tunnel begins
	timer  *time.Timer // from when the end begins
	closed bool
}

// leg is one direction.
type leg struct {
	s      *socket
	mu     sync.Mutex
	to     io.Writer // nil until the tunnel begins
	frames frames
	told   bool // our close frame was the last; what still comes is dropped
	heard  bool // theirs has passed
}

func newSocket(upstream io.ReadWriteCloser, cut func(), buffers *bufferPool) *socket {
	s := &socket{upstream: upstream, cut: cut, buffers: buffers}
	s.down = leg{s: s}
	s.up = leg{s: s, to: upstream, frames: frames{masked: true}}
	return s
}

// WriteTo carries the upstream's bytes to the client.
func (s *socket) WriteTo(client io.Writer) (int64, error) {
	s.mu.Lock()
	s.client, _ = client.(io.Closer)
	s.mu.Unlock()
	s.down.begin(client)
	return carry(&s.down, s.upstream)
}

// ReadFrom carries the client's bytes to the upstream.
func (s *socket) ReadFrom(client io.Reader) (int64, error) { return carry(&s.up, client) }

func (s *socket) Write(p []byte) (int, error) { return len(p), s.up.pass(p) }

// Read is here to make this an io.ReadWriteCloser; io.Copy takes WriteTo.
// Whoever reads past it gets no close frame, only an end.
func (s *socket) Read(p []byte) (int, error) { return s.upstream.Read(p) }

// CloseWrite passes on that the client will send no more and still listens.
func (s *socket) CloseWrite() error {
	if c, ok := s.upstream.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return http.ErrNotSupported
}

func (s *socket) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	return s.upstream.Close()
}

// idleBuffer is what a quiet socket holds in each direction. A busy one
// borrows a large buffer for as long as it fills it.
const idleBuffer = 2 << 10

func carry(l *leg, from io.Reader) (total int64, err error) {
	small := make([]byte, idleBuffer)
	var large *[]byte
	defer func() {
		if large != nil {
			l.s.buffers.pool.Put(large)
		}
	}()
	buf := small
	for {
		n, err := from.Read(buf)
		if n > 0 {
			total += int64(n)
			if err := l.pass(buf[:n]); err != nil {
				return total, err
			}
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		case large == nil && n == len(small):
			large = l.s.buffers.pool.Get().(*[]byte)
			buf = *large
		case large != nil && n <= len(small):
			l.s.buffers.pool.Put(large)
			large, buf = nil, small
		}
	}
}

// begin makes the client known. The end may have come before it.
func (l *leg) begin(to io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
	l.tell()
}

// pass hands p on. When the socket is ending, only up to the end of the frame
// under way; the close frame comes there. The lock is held while the other
// side takes the bytes: nobody else wants it but the end.
func (l *leg) pass(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.told && l.s.code.Load() != 0 {
		n := l.frames.finish(p)
		if err := l.write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		l.tell()
	}
	if !l.told {
		if err := l.write(p); err != nil {
			return err
		}
	}
	l.frames.follow(p)
	if l.frames.closed && !l.heard {
		l.heard = true
		if l.s.heard.Add(1) == 2 && l.s.code.Load() != 0 {
			l.s.hangUp() // the closing handshake is through (7.1.2)
		}
	}
	return nil
}

func (l *leg) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := l.to.Write(p)
	return err
}

// tell puts the close frame here, if the socket is ending and here is where a
// frame may be. A side that was sent a close frame already gets no second.
func (l *leg) tell() {
	code := l.s.code.Load()
	if code == 0 || l.told || l.to == nil || !l.frames.boundary() {
		return
	}
	l.told = true
	// A fault shows when the connection is read, or at the end of closeWait.
	_, _ = l.to.Write(closeFrame(closeCode(code), l.frames.masked))
}

// closeFrame is a close frame with a code and no words (5.5.1).
func closeFrame(code closeCode, masked bool) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(code))
	if !masked {
		return append([]byte{0x80 | opClose, byte(len(body))}, body...)
	}
	var key [4]byte
	rand.Read(key[:])
	for i := range body {
		body[i] ^= key[i%len(key)]
	}
	return append(append([]byte{0x80 | opClose, 0x80 | byte(len(body))}, key[:]...), body...)
}

// end closes the socket in order: both sides get a close frame as soon as the
// frame on its way to them is whole, and a moment to answer. It does not wait
// for that. Later calls do nothing.
func (s *socket) end(code closeCode) {
	if !s.code.CompareAndSwap(0, uint32(code)) {
		return
	}
	s.mu.Lock()
	if !s.closed {
		s.timer = time.AfterFunc(closeWait, s.hangUp)
	}
	s.mu.Unlock()
	// Apart, because a side that does not read holds up only itself. Both end
	// with closeWait at the latest: then there is nothing left to write to.
	go s.down.close()
	go s.up.close()
}

func (l *leg) close() {
	l.mu.Lock()
	l.tell()
	lost := l.frames.lost
	l.mu.Unlock()
	if lost {
		l.s.hangUp() // no place for a frame will be found
	}
}

// hangUp closes both connections.
func (s *socket) hangUp() {
	s.cut()
	_ = s.Close()
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil {
		_ = client.Close() // it may be the one that does not take what is written
	}
}
