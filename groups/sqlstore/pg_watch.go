package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/groupgate/groupgate/groups"
)

const (
	// pgPollLimit is how long a server may take to answer the poller. What is
	// lost on the way shows by nothing else.
	pgPollLimit = 3 * time.Second
	// pgAnew is how often a server that is away is looked for.
	pgAnew = 250 * time.Millisecond
	// probeWait is how long the poller's own notification may take.
	probeWait = 2 * time.Second
)

// pgWatch is the poller: one goroutine with a connection of its own, which it
// listens on between two looks.
type pgWatch struct {
	p *Postgres
	c *pgx.Conn

	// What was told already: everything that ended before the transaction
	// horizon, and of what came later the notices of these numbers.
	horizon int64
	told    map[int64]bool
	clock   int64 // the database's, at the last look

	probed time.Time // when a notification to itself was sent that has not come yet; zero when none was
	deaf   bool      // none came: somebody between drops them
}

// begin connects, and learns where the notices stand.
func (w *pgWatch) begin(ctx context.Context) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := w.poll(ctx, false); err != nil {
		w.end()
		return err
	}
	return nil
}

func (w *pgWatch) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pgPollLimit)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, w.p.pool.cfg)
	if err != nil {
		return err
	}
	w.c = c
	if err := w.hear(ctx); err != nil {
		w.end()
		return err
	}
	return nil
}

// hear listens, if that makes sense: behind a pooler the process that serves us
// is another than the one we were told of, and may be another's the next moment.
// A notification to itself shows whether they come.
func (w *pgWatch) hear(ctx context.Context) error {
	var pid uint32
	if err := w.c.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	if pid != w.c.PgConn().PID() {
		w.goDeaf()
	}
	if w.deaf {
		return nil
	}
	if _, err := w.c.Exec(ctx, "listen groupgate"); err != nil {
		return err
	}
	w.probed = time.Now()
	_, err := w.c.Exec(ctx, "select pg_notify('groupgate', $1::text)", w.p.origin)
	return err
}

func (w *pgWatch) goDeaf() {
	if !w.deaf {
		w.p.opts.Log.Warn("notifications of the database do not arrive, as behind a pooler in transaction mode: " +
			"changes by other replicas are asked for at every interval instead")
	}
	w.deaf, w.probed = true, time.Time{}
}

func (w *pgWatch) end() {
	if w.c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.c.Close(ctx)
	w.c = nil
}

func (w *pgWatch) run(ctx context.Context) {
	defer close(w.p.polled)
	defer w.end()
	for ctx.Err() == nil {
		wait := w.p.opts.PollInterval
		err := w.look(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			w.p.turn(nil)
		case errors.Is(err, errStandby):
			w.p.turn(&condition{err, false})
		default:
			w.p.turn(&condition{fmt.Errorf("%w: %v", groups.ErrUnavailable, openFault(w.p.pool.cfg, err)), true})
			wait = min(wait, pgAnew)
		}
		w.p.pool.trim(false)
		w.pause(ctx, wait)
	}
}

// pause waits for a notification, at most so long.
func (w *pgWatch) pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if w.c == nil || w.deaf {
		<-ctx.Done()
		return
	}
	for {
		n, err := w.c.WaitForNotification(ctx)
		if err != nil || n.Payload != w.p.origin {
			return // time to look, if only at what is wrong
		}
		w.probed = time.Time{} // the server has told us what we told it
	}
}

var errStandby = fmt.Errorf("%w: the server takes no writes: it is a standby, or set to read-only", groups.ErrUnavailable)

// look does one round. A connection that is lost may be nobody's but its own
// trouble, so that the server is unavailable only when a new one does not help.
func (w *pgWatch) look(ctx context.Context) error {
	if w.c != nil && !w.probed.IsZero() && time.Since(w.probed) > probeWait {
		w.goDeaf()
		w.end() // it would go on listening
	}
	var slow net.Error
	if w.c != nil {
		err := w.poll(ctx, true)
		if err == nil || errors.Is(err, errStandby) {
			return err
		}
		w.end()
		if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) && slow.Timeout() {
			return err // a second look would take as long
		}
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	err := w.poll(ctx, true)
	if err != nil && !errors.Is(err, errStandby) {
		w.end()
	}
	return err
}

// poll asks in one statement how the server is, what time it has, and what
// others had to say.
func (w *pgWatch) poll(ctx context.Context, tell bool) error {
	ctx, cancel := context.WithTimeout(ctx, pgPollLimit)
	defer cancel()
	before := w.p.clock.ours()
	r, err := w.c.Query(ctx, `select s.horizon, s.clock, s.standby, coalesce(n.seq, 0), coalesce(n.origin, ''), coalesce(n.user_id, 0), coalesce(n.login, '')
		from (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as horizon,
			(extract(epoch from clock_timestamp()) * 1000000)::bigint as clock,
			pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as standby) s
		left join notices n on n.xid >= $1::bigint order by n.seq`, w.horizon)
	if err != nil {
		return err
	}
	all, err := readFirst(r, nil)
	if err != nil {
		return err
	}
	after := w.p.clock.ours()
	var horizon, clock, seq int64
	var standby bool
	var origin string
	var n groups.Notice
	var news []groups.Notice
	seen := map[int64]bool{}
	for all.Next() {
		if err = all.Scan(&horizon, &clock, &standby, &seq, &origin, &n.User, &n.Login); err != nil {
			break
		}
		if seq == 0 {
			continue
		}
		seen[seq] = true
		if !w.told[seq] && origin != w.p.origin { // Update has told of ours
			news = append(news, n)
		}
	}
	_ = all.Close()
	if err = errors.Join(err, all.Err()); err != nil {
		return err
	}
	w.p.clock.note(time.UnixMicro(clock), before, after, w.p.opts.Log)
	// Another server's numbers, or notices that were swept before we looked:
	// nothing can be told from what is there.
	if horizon < w.horizon || w.clock != 0 && clock-w.clock > keepNotices.Microseconds()/2 {
		news, tell = []groups.Notice{{}}, true
	}
	w.horizon, w.told, w.clock = horizon, seen, clock
	if tell {
		w.p.deliver(news...)
	}
	if standby {
		return errStandby
	}
	return nil
}

// openFault says what is to be done about a server that does not let us in.
func openFault(c *pgx.ConnConfig, err error) error {
	switch code := pgCode(err); {
	case code == "28P01", code == "28000":
		return fmt.Errorf("the server refuses the user or the password (SQLSTATE %s)", code)
	case code == "3D000":
		return fmt.Errorf("there is no database %q: make it, for example with createdb (SQLSTATE %s)", c.Database, code)
	case code == "42501":
		return fmt.Errorf("user %q may not make tables in the schema, or use those there: grant create and usage on it (SQLSTATE %s)", c.User, code)
	case code == "3F000":
		return fmt.Errorf("the search_path names no schema that is there (SQLSTATE %s)", code)
	case code != "":
		return pgMeaning(code, err)
	}
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return fmt.Errorf("%w: no connection: %s", groups.ErrUnavailable, oneLine(e.Unwrap()))
	}
	return err
}

// oneLine says once what was tried with and without encryption, or at several
// addresses, and failed alike.
func oneLine(err error) string {
	var said []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		line = strings.TrimPrefix(line, "hostname resolving error: ")
		if !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	return strings.Join(said, "; ")
}
