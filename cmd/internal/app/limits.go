package app

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// What a client of the public listener may take (SC-13). There is no limit for
// a whole request or answer: uploads, downloads and event streams take as long
// as they take. What groupgate itself reads and writes is bounded in
// proxy/request_limits.go.
const (
	// headTime is for the TLS handshake, and again for the head of every
	// request from its first byte, and for the preface of HTTP/2.
	headTime = 10 * time.Second
	// idleTime is how long a connection without a request is kept.
	idleTime = 2 * time.Minute
	// maxHead is the size of a request's head: a groups header of a large
	// directory fits many times, a million of cookies does not.
	maxHead = 128 << 10
)

// http2Limits are the bounds of one HTTP/2 connection. net/http has its own for
// resets, CONTINUATION frames, settings and pings (CVE-2023-44487,
// CVE-2023-45288): it hangs up.
func http2Limits() *http.HTTP2Config {
	return &http.HTTP2Config{
		// Of one connection; a front proxy may send all of its users' requests
		// through few.
		MaxConcurrentStreams: 250,
		// The smallest that the protocol allows, and what clients send unless
		// told otherwise (RFC 9113 section 4.2). A reader keeps a buffer of the
		// largest frame it saw: at net/http's 1 MiB an idle connection would
		// cost that much for good.
		MaxReadFrameSize: 16 << 10,
		// For a peer that takes no bytes at all. One that only withholds the
		// window of a stream still reads.
		WriteByteTimeout: 30 * time.Second,
	}
}

// maxGuests bounds the connections of the public listener whatever the
// process may open: at 15 KiB for an idle one it is a gigabyte.
const maxGuests = 65_536

// guestsFor answers how many connections to take with that many file
// descriptors. One that waits needs no second; a third is left for upstreams,
// sources and the store, which must not fail because of strangers.
func guestsFor(files uint64) int {
	return int(min(max(files-files/3, 1), maxGuests))
}

// door is a listener that keeps the number of its connections below a bound.
// When it is full, those that have waited longest without a request under way
// make room: slow and idle clients cannot keep others out. When every one has a
// request under way, new ones wait in the kernel's queue.
type door struct {
	net.Listener
	max  int
	log  *zap.Logger
	shut chan struct{}
	once sync.Once

	mu     sync.Mutex
	guests map[*guest]struct{}
	told   time.Time // when the log was
}

// guest is a connection that the door counts.
type guest struct {
	net.Conn
	door *door
	// waiting is since when no request is under way, in Unix nanoseconds; 0
	// while one is.
	waiting atomic.Int64
}

func newDoor(l net.Listener, limit int, log *zap.Logger) *door {
	return &door{Listener: l, max: limit, log: log, shut: make(chan struct{}), guests: map[*guest]struct{}{}}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for !d.room() {
		select {
		case <-d.shut:
			return nil, net.ErrClosed
		case <-time.After(10 * time.Millisecond):
		}
	}
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, door: d}
	g.waiting.Store(time.Now().UnixNano())
	d.mu.Lock()
	d.guests[g] = struct{}{}
	d.mu.Unlock()
	return g, nil
}

// room reports whether one more connection fits, after closing some that wait
// if need be: a twentieth at once, so that the search is rare.
func (d *door) room() bool {
	d.mu.Lock()
	full := len(d.guests) >= d.max
	var out []*guest
	if full {
		for g := range d.guests {
			if g.waiting.Load() != 0 {
				out = append(out, g)
			}
		}
	}
	tell := full && time.Since(d.told) > time.Minute
	if tell {
		d.told = time.Now()
	}
	d.mu.Unlock()
	if tell {
		d.log.Warn("too many connections: those that wait longest are closed", zap.Int("limit", d.max), zap.Int("waiting", len(out)))
	}
	if !full {
		return true
	}
	slices.SortFunc(out, func(a, b *guest) int { return cmp.Compare(a.waiting.Load(), b.waiting.Load()) })
	for _, g := range out[:min(len(out), d.max/20+1)] {
		if g.waiting.Load() != 0 { // it may have begun one since
			g.Close()
		}
	}
	return len(out) > 0
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.shut) })
	return d.Listener.Close()
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.door.mu.Lock()
	delete(g.door.guests, g)
	g.door.mu.Unlock()
	return g.Conn.Close()
}

// CloseWrite lets net/http end a connection without losing the answer that is
// still on its way.
func (g *guest) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// noteState is for http.Server.ConnState: it keeps account of who waits. It
// takes no lock, because it is called twice a request.
func noteState(c net.Conn, state http.ConnState) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	g, ok := c.(*guest)
	if !ok {
		return
	}
	switch state {
	case http.StateActive, http.StateHijacked:
		g.waiting.Store(0)
	case http.StateIdle:
		g.waiting.Store(time.Now().UnixNano())
	}
}
