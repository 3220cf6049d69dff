package claims

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Bounds of the pool: how many connections are bound as the service account at
// once, and how long one lies idle.
const (
	maxServiceConns = 8
	idleConn        = time.Minute
)

// ldapPool keeps connections that are bound as the service account.
type ldapPool struct {
	slots chan struct{}

	mu     sync.Mutex
	idle   []*idleLDAPConn // the latest last
	closed bool
}

type idleLDAPConn struct {
	conn  *ldapConn
	timer *time.Timer
}

func newLDAPPool() *ldapPool { return &ldapPool{slots: make(chan struct{}, maxServiceConns)} }

// take answers an idle connection, or nil.
func (p *ldapPool) take() *ldapConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := len(p.idle); n > 0; n = len(p.idle) {
		i := p.idle[n-1]
		p.idle = p.idle[:n-1]
		i.timer.Stop()
		if !i.conn.dead() {
			i.conn.reused = true
			return i.conn
		}
		i.conn.close()
	}
	return nil
}

// give takes a connection back, or closes one that is of no more use.
func (p *ldapPool) give(c *ldapConn) {
	c.asked = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || c.dead() {
		c.close()
		return
	}
	i := &idleLDAPConn{conn: c}
	i.timer = time.AfterFunc(idleConn, func() { p.expire(i) })
	p.idle = append(p.idle, i)
}

func (p *ldapPool) expire(i *idleLDAPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, other := range p.idle {
		if other == i {
			p.idle = append(p.idle[:n], p.idle[n+1:]...)
			i.conn.close()
			return
		}
	}
}

func (p *ldapPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, i := range p.idle {
		i.timer.Stop()
		i.conn.close()
	}
	p.idle = nil
}

// Close ends the connections that lie idle; those in use end with what uses
// them. The source works on without keeping any.
func (l *LDAP) Close() error {
	l.pool.close()
	return nil
}

// withService runs f on a connection that is bound as the service account. f
// may run again, on a fresh connection when a kept one was dead, and on another
// server when one died under it.
func (l *LDAP) withService(ctx context.Context, f func(*ldapConn) error) error {
	select {
	case l.pool.slots <- struct{}{}:
		defer func() { <-l.pool.slots }()
	case <-ctx.Done():
		return fmt.Errorf("%w: too many wait for the directory: %w", ErrUnavailable, ctx.Err())
	}
	kept := l.pool.take()
	if kept != nil {
		if again, err := l.tryService(ctx, kept, f); !again {
			return err
		}
	}
	again, err := l.tryService(ctx, nil, f)
	if again {
		_, err = l.tryService(ctx, nil, f)
	}
	return err
}

// tryService answers whether another connection could do better.
func (l *LDAP) tryService(ctx context.Context, c *ldapConn, f func(*ldapConn) error) (again bool, err error) {
	if c == nil {
		if c, err = l.dial(ctx, l.asService(ctx)); err != nil {
			l.failing.Store(&err)
			return false, err
		}
	}
	defer l.pool.give(c)
	if err = f(c); err == nil {
		l.failing.Store(nil)
	}
	switch {
	case err == nil || !c.dead() || ctx.Err() != nil: // when nobody waits any more, the server is not to blame
		return false, err
	case c.reused:
		return true, err // the server may have closed it long ago
	}
	l.rest(c.server)
	return len(l.servers) > 1, err
}
