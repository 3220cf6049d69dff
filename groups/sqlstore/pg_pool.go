package sqlstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/groupgate/groupgate/groups"
)

const (
	poolAsk  = time.Second     // a connection that lay idle as long is asked whether it works
	poolIdle = 5 * time.Minute // and closed after this
	poolAge  = time.Hour       // so that connections move to a server that took over a name
)

// pgPool is a bounded number of connections.
type pgPool struct {
	cfg   *pgx.ConnConfig
	slots chan struct{} // one element for each connection in use

	mu     sync.Mutex
	idle   []*pooled // the last used last
	round  int       // connections of an earlier one are not used again
	closed bool
}

type pooled struct {
	*pgx.Conn
	pool       *pgPool
	round      int
	born, used time.Time
}

var errPoolClosed = fmt.Errorf("%w: the store is closed", groups.ErrUnavailable)

func newPool(cfg *pgx.ConnConfig, size int) *pgPool {
	return &pgPool{cfg: cfg, slots: make(chan struct{}, size)}
}

// acquire answers a connection that works, as far as can be told. It waits for
// one that is in use, when that is all there are.
func (p *pgPool) acquire(ctx context.Context) (*pooled, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := p.connection(ctx)
	if err != nil {
		<-p.slots
	}
	return c, err
}

func (p *pgPool) connection(ctx context.Context) (*pooled, error) {
	for {
		c, round, err := p.take()
		if err != nil {
			return nil, err
		}
		if c == nil {
			conn, err := pgx.ConnectConfig(ctx, p.cfg)
			if err != nil {
				return nil, err
			}
			return &pooled{Conn: conn, pool: p, round: round, born: time.Now()}, nil
		}
		if time.Since(c.used) < poolAsk || c.works(ctx) {
			return c, nil
		}
		c.end()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// take answers an idle connection; nil when there is none.
func (p *pgPool) take() (*pooled, int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, errPoolClosed
	}
	n := len(p.idle)
	if n == 0 {
		return nil, p.round, nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c, p.round, nil
}

func (c *pooled) works(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pgConnectLimit)
	defer cancel()
	return c.Ping(ctx) == nil
}

// release gives the connection back. One that is in the middle of something is
// of no use to others.
func (c *pooled) release() {
	p := c.pool
	c.used = time.Now()
	p.mu.Lock()
	keep := !p.closed && c.round == p.round && !c.IsClosed() && !c.PgConn().IsBusy() && c.PgConn().TxStatus() == 'I' &&
		time.Since(c.born) < poolAge
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.end()
	}
	<-p.slots
}

// end closes the connection, and says so to the server if that takes no time.
func (c *pooled) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // there is nothing to do about it
}

// trim closes what was idle for long; all of it when everything is to go.
func (p *pgPool) trim(everything bool) {
	p.mu.Lock()
	var old []*pooled
	kept := p.idle[:0]
	for _, c := range p.idle {
		if everything || time.Since(c.used) > poolIdle {
			old = append(old, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	if everything {
		p.round++
	}
	p.mu.Unlock()
	for _, c := range old {
		c.end()
	}
}

// reset lets go of every connection there is.
func (p *pgPool) reset() { p.trim(true) }

// close waits for what is in use.
func (p *pgPool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.trim(true)
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	for range cap(p.slots) {
		<-p.slots // who comes later is told that it is closed
	}
}
