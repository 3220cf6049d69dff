package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

const (
	// pgConnectLimit is for one attempt at one address.
	pgConnectLimit = 2 * time.Second
	// pgReadLimit is for one statement of a reader, pgWriteLimit for one of a
	// transaction, which may wait for another.
	pgReadLimit  = 5 * time.Second
	pgWriteLimit = 10 * time.Second
	// pgTryLimit is how long an Update begins again and again.
	pgTryLimit = 5 * time.Second
	pgMaxConns = 8
)

// Postgres is a [groups.Store] in PostgreSQL, for several replicas.
//
// A pool of connections reads and writes. One more belongs to the poller: it
// listens for notices, and asks for them at every poll interval should a
// notification get lost. Nothing but that listening needs a connection to stay
// the same server process, so a pooler in transaction mode may stand between;
// see [OpenPostgres].
type Postgres struct {
	reader
	watchers
	opts   Options
	origin string // tells our notices from those of other replicas
	pool   *pgPool
	texts  sync.Map // statements in PostgreSQL's words

	clock   dbClock
	started time.Time // a monotonic zero for lastOK
	lastOK  atomic.Int64
	down    atomic.Pointer[condition]
	life    atomic.Pointer[lifetime] // of what runs while the server answers

	// Retried counts the transactions that had to begin again.
	retried atomic.Int64

	stop   context.CancelFunc
	polled chan struct{} // closed when the poller has ended
	closed atomic.Bool
}

var _ groups.Store = (*Postgres)(nil)

// OpenPostgres opens the directory in a PostgreSQL database (14 or newer) and
// brings its schema up to date. The address is a URL or key=value pairs as libpq
// has them (PostgreSQL 15 documentation, 34.1.1). The tables are in the first
// schema of the connection's search_path.
//
// Behind PgBouncer in transaction mode the address says
// default_query_exec_mode=exec, and notices come by polling alone: within
// twice Options.PollInterval.
//
// The database's clock is everybody's. Options.Now, if it is set, only carries
// it on from one poll to the next.
func OpenPostgres(ctx context.Context, dsn string, opts Options) (*Postgres, error) {
	machine := opts.Now
	opts.setDefaults()
	cfg, conns, err := pgConfig(dsn)
	if err != nil {
		return nil, err
	}
	p := &Postgres{
		opts: opts, origin: rand.Text(), started: time.Now(), pool: newPool(cfg, conns), polled: make(chan struct{}),
	}
	p.reader = reader{q: p}
	p.clock.machine = machine
	p.life.Store(newLifetime())
	w := &pgWatch{p: p}
	err = migratePostgres(ctx, cfg)
	if err == nil {
		err = w.begin(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: open %s: %w", place(cfg), openFault(cfg, err))
	}
	p.noteAnswer()
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	go w.run(ctx)
	return p, nil
}

// pgConfig reads the address, and how many connections the pool may have.
func pgConfig(dsn string) (*pgx.ConnConfig, int, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		// pgx repeats the address, and hides what it takes for the password.
		return nil, 0, errors.New("postgres: open: the address is not understood: postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full " +
			"is meant, or pairs like host=HOST dbname=DATABASE; signs like @ : / % in a part are written as in URLs, %40 for @")
	}
	conns := min(pgMaxConns, 2*runtime.NumCPU())
	for name, value := range cfg.RuntimeParams {
		if !strings.HasPrefix(name, "pool_") { // those are pgxpool's, and known from there
			continue
		}
		delete(cfg.RuntimeParams, name)
		if name != "pool_max_conns" {
			continue
		}
		if conns, err = strconv.Atoi(value); err != nil || conns < 1 {
			return nil, 0, errors.New("postgres: open: pool_max_conns in the address is a number from 1 on")
		}
	}
	if cfg.ConnectTimeout == 0 || !strings.Contains(dsn, "connect_timeout") {
		cfg.ConnectTimeout = pgConnectLimit
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "groupgate"
	}
	return cfg, conns, nil
}

// place says where a database is, without the password.
func place(c *pgx.ConnConfig) string {
	return fmt.Sprintf("database %q of user %q at %s:%d", c.Database, c.User, c.Host, c.Port)
}

// Now is the database's time, as far as it is known.
func (p *Postgres) Now() time.Time { return p.clock.now() }

// Shared is true: other replicas write into the same directory.
func (p *Postgres) Shared() bool { return true }

// Retried counts the transactions that had to begin again.
func (p *Postgres) Retried() int64 { return p.retried.Load() }

// Close ends the store; it waits for what runs and for the poller. What is
// called later answers ErrUnavailable.
func (p *Postgres) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.stop()
	<-p.polled
	p.pool.close()
	p.life.Load().end()
	return nil
}

// text is a statement in PostgreSQL's words.
func (p *Postgres) text(neutral string) string {
	if t, ok := p.texts.Load(neutral); ok {
		return t.(string)
	}
	t := postgresText(neutral)
	p.texts.Store(neutral, t)
	return t
}

// query reads from any connection of the pool. One that the server has left
// shows only now, so the reading is tried again, on another.
func (p *Postgres) query(ctx context.Context, text string, args ...any) (*rows, error) {
	if err := p.usable(); err != nil {
		return nil, err
	}
	text, args = p.text(text), markedArgs(args)
	for try := 0; ; try++ {
		r, err := p.queryOnce(ctx, text, args)
		if err == nil || try == 2 || !errors.Is(err, errLost) || ctx.Err() != nil {
			return r, err
		}
	}
}

func (p *Postgres) queryOnce(ctx context.Context, text string, args []any) (*rows, error) {
	limited, cancel := p.life.Load().limit(ctx, pgReadLimit)
	c, err := p.pool.acquire(limited)
	if err != nil {
		cancel()
		return nil, broken(ctx, nil, err)
	}
	done := func() { c.release(); cancel() }
	r, err := c.Query(limited, text, args...)
	if err == nil {
		var out *rows
		if out, err = readFirst(r, done); err == nil {
			return out, nil
		}
	}
	err = broken(ctx, c.Conn, err)
	done()
	return nil, err
}

// usable is nil while there is a server to ask.
func (p *Postgres) usable() error {
	if p.closed.Load() {
		return fmt.Errorf("%w: the store is closed", groups.ErrUnavailable)
	}
	if c := p.down.Load(); c != nil && c.noReads {
		return c.err
	}
	return nil
}

// errLost: the connection is gone. Whether a statement was done is not known.
var errLost = errors.New("the connection to the server was lost")

// broken tells a connection that broke from a statement that failed, and from
// a caller who left.
func broken(ctx context.Context, c *pgx.Conn, err error) error {
	code := pgCode(err)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, groups.ErrUnavailable):
		return err
	case lost(err): // pgx may not have noticed yet what that means
	case c != nil && !c.IsClosed(), code != "" && !pgUnavailable(code):
		return err
	}
	return fmt.Errorf("%w: %v", errLost, err)
}

// lost reports whether it is the connection that failed, and not a statement: the
// server says so itself (SQLSTATE 08 and 57P), or it breaks off.
func lost(err error) bool {
	_, network := errors.AsType[*net.OpError](err)
	code := pgCode(err)
	return strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "08") ||
		network || errors.Is(err, errLost) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// lifetime ends when the server is found not to answer, and with it whatever
// still waits for it.
type lifetime struct {
	ctx context.Context
	end context.CancelFunc
}

func newLifetime() *lifetime {
	ctx, end := context.WithCancel(context.Background())
	return &lifetime{ctx, end}
}

// limit is the caller's context with an end in sight.
func (l *lifetime) limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// turn makes c, or nil, the store's condition.
func (p *Postgres) turn(c *condition) {
	was := p.down.Swap(c)
	switch {
	case c == nil:
		p.noteAnswer()
		if was != nil {
			p.opts.Log.Info("store is back")
			// What was missed meanwhile is not known.
			p.deliver(groups.Notice{})
		}
	case was == nil || was.err.Error() != c.err.Error():
		p.opts.Log.Error("store is unavailable", zap.Error(c.err))
	}
	if c != nil && c.noReads && (was == nil || !was.noReads) {
		p.life.Swap(newLifetime()).end()
		p.pool.reset()
	}
}

func (p *Postgres) noteAnswer() { p.lastOK.Store(int64(time.Since(p.started))) }

// Healthy is nil while the poller's last look, at most three intervals ago,
// found a server that answers and lets us write.
func (p *Postgres) Healthy() error {
	if p.closed.Load() {
		return fmt.Errorf("postgres: health: %w: the store is closed", groups.ErrUnavailable)
	}
	if c := p.down.Load(); c != nil {
		return fmt.Errorf("postgres: health: %w", c.err)
	}
	if silent := time.Since(p.started) - time.Duration(p.lastOK.Load()); silent > 3*p.opts.PollInterval {
		return fmt.Errorf("postgres: health: %w: no answer for %v", groups.ErrUnavailable, silent.Round(time.Millisecond))
	}
	return nil
}
