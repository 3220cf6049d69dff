package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// live holds the sockets and streams that outlast their request's checks.
type live struct {
	mu       sync.Mutex
	conns    map[*liveConn]struct{}
	stopping bool
}

// liveConn is one of them. A socket is one from before its handshake.
type liveConn struct {
	member   *member // nil: nobody's
	decision decision
	cut      func() // ends the request

	mu    sync.Mutex
	end   func(closeCode) // must not block
	ended closeCode       // 0 while it may live
}

// add registers what end closes until it is removed.
func (l *live) add(x *exchange, cut func(), end func(closeCode)) *liveConn {
	c := &liveConn{member: x.member, decision: x.decision, cut: cut, end: end}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	stopping := l.stopping
	l.mu.Unlock()
	if stopping {
		c.close(closeGoingAway)
	}
	return c
}

func (l *live) remove(c *liveConn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

func (l *live) all() []*liveConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	conns := make([]*liveConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	return conns
}

func (c *liveConn) close(code closeCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == 0 {
		c.ended = code
		c.end(code)
	}
}

// attach says how the connection is closed from now on. One that should be
// closed already is.
func (c *liveConn) attach(end func(closeCode)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = end
	if c.ended != 0 {
		end(c.ended)
	}
}

// handshake registers a socket before the upstream was asked. A session that
// ends meanwhile gets no socket and is told why. When we stop, the handshake
// is a request under way like others: it is let through, and its socket told.
func (p *Proxy) handshake(x *exchange, r *http.Request) (_ *http.Request, done func()) {
	ctx, cancel := context.WithCancelCause(r.Context())
	x.live = p.live.add(x, func() { cancel(nil) }, func(code closeCode) {
		switch code {
		case closePolicy:
			cancel(errUnauthenticated)
		case closeTryLater:
			cancel(groups.ErrUnavailable)
		}
	})
	c := x.live
	return r.WithContext(ctx), func() {
		cancel(nil)
		p.live.remove(c)
	}
}

// whyEnded is what we ended a request's handshake for, or nil.
func whyEnded(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errUnauthenticated) || errors.Is(cause, groups.ErrUnavailable) {
		return cause
	}
	return nil
}

// follow makes an event stream end with its session, as a socket does, and
// when we stop. It ends broken off: to a client that takes it for a download a
// clean end would say that it is whole, and an EventSource comes back either
// way.
func (x *exchange) follow(res *http.Response) {
	if !strings.HasPrefix(strings.ToLower(res.Header.Get("Content-Type")), "text/event-stream") {
		return
	}
	body := res.Body
	cut := func() { body.Close() }
	c := x.p.live.add(x, cut, func(closeCode) { cut() })
	res.Body = &closeHook{ReadCloser: body, hook: func() { x.p.live.remove(c) }}
}

type closeHook struct {
	io.ReadCloser
	hook func()
	once sync.Once
}

func (c *closeHook) Close() error {
	c.once.Do(c.hook)
	return c.ReadCloser.Close()
}

const (
	// recheckEvery keeps well within the 30 s of contract section 5.
	recheckEvery = 5 * time.Second
	// recheckPause is the least time between two looks that notices of ended
	// sessions ask for: a storm of notices costs two looks a second.
	recheckPause = 500 * time.Millisecond
)

// recheck closes what its session may not hold open any more. An open
// connection keeps its session from becoming idle.
func (p *Proxy) recheck(ctx context.Context) {
	s := p.site.Load()
	var checks sync.WaitGroup
	for _, c := range p.live.all() {
		if c.member == nil {
			continue
		}
		// Side by side: a source that hangs may hold each of them up for as
		// long as a renewal takes, but not one after the other.
		checks.Go(func() {
			m, err := p.keeper.again(ctx, s, c.member)
			switch {
			case err != nil:
				c.close(closeTryLater)
			case m == nil || !c.decision.admits(m.view.Groups):
				c.close(closePolicy)
			}
		})
	}
	checks.Wait()
}

// EndLive closes every socket, with a close frame that says that we go away,
// and every event stream; those that come later, too. It does not wait.
// Requests are not touched.
func (p *Proxy) EndLive() {
	p.live.mu.Lock()
	p.live.stopping = true
	p.live.mu.Unlock()
	for _, c := range p.live.all() {
		c.close(closeGoingAway)
	}
}

// InFlight counts requests that have not ended, sockets and streams among
// them.
func (p *Proxy) InFlight() int64 {
	var ended int64
	for i := range p.Stats.Requests {
		ended += p.Stats.Requests[i].Load() // before what began: never below 0
	}
	return int64(p.idNext.Load()) - ended
}

// Drained waits until no request is in flight. Unlike http.Server.Shutdown it
// waits for sockets, too.
func (p *Proxy) Drained(ctx context.Context) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for p.InFlight() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
	return nil
}
