package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/groupgate/groupgate/groups"
)

// pgAlone is after how many attempts a transaction has the database to itself.
const pgAlone = 3

// Update runs fn in one serializable transaction, again when it got in the way
// of another or its connection was lost, for about five seconds.
func (p *Postgres) Update(ctx context.Context, fn func(groups.Tx) error) error {
	var doubt bool // a taken name may be one that was taken since the snapshot
	for began, try := time.Now(), 0; ; try++ {
		t, err := p.attempt(ctx, fn, try >= pgAlone)
		if err == nil {
			// Outside the transaction: a watcher may want to read what changed.
			p.deliver(t.notices...)
			return nil
		}
		again := false
		if t != nil && t.broken != nil {
			code := pgCode(t.broken)
			again = pgAgain(code) || lost(t.broken) || code == "23505" && !doubt
			doubt = doubt || code == "23505"
		}
		if !again || ctx.Err() != nil {
			return err
		}
		if time.Since(began) > pgTryLimit && try > pgAlone {
			return failed("update", fmt.Errorf("%w: given up after %d attempts: %v", groups.ErrUnavailable, try+1, meaning(t.broken)))
		}
		p.retried.Add(1)
		select {
		case <-ctx.Done():
			return failed("update", ctx.Err())
		case <-time.After(time.Duration(mathrand.Int64N(int64(try+1) * int64(4*time.Millisecond)))):
		}
	}
}

// attempt is one transaction. What went wrong with it is in its field broken,
// whatever fn made of the error.
func (p *Postgres) attempt(ctx context.Context, fn func(groups.Tx) error, alone bool) (*pgTx, error) {
	if err := p.usable(); err != nil {
		return nil, failed("update", err)
	}
	limited, cancel := p.life.Load().limit(ctx, pgWriteLimit)
	c, err := p.pool.acquire(limited)
	cancel()
	if err != nil {
		return nil, failed("update", broken(ctx, nil, err))
	}
	defer c.release()
	w := &pgWriter{p: p, c: c.Conn}
	t := &pgTx{tx: newTx(w, p.Now), w: w}
	// Not only for errors: fn may panic or, in a test, end its goroutine.
	defer t.rollback()
	if err := t.note(ctx, w.begin(ctx, alone)); err != nil {
		return t, failed("begin", err)
	}
	if err := fn(t); err != nil {
		return t, err
	}
	if err := t.commit(ctx); err != nil {
		return t, failed("commit", err)
	}
	return t, nil
}

// pgWriter is the connection of one transaction.
type pgWriter struct {
	p *Postgres
	c *pgx.Conn
}

// begin takes one message. Locking the table takes no snapshot, so what a
// transaction sees that waited is what holds after the waiting. Whoever reads a
// whole table gets in the way of everybody who writes into it, however small it
// is: so the indexes are used.
func (w *pgWriter) begin(ctx context.Context, alone bool) error {
	text := "begin isolation level serializable; set local enable_seqscan = off; lock table gate in access share mode"
	if alone {
		text = "begin isolation level serializable; set local enable_seqscan = off; lock table gate in access exclusive mode"
	}
	limited, cancel := w.p.life.Load().limit(ctx, pgWriteLimit)
	defer cancel()
	return broken(ctx, w.c, w.c.PgConn().Exec(limited, text).Close())
}

func (w *pgWriter) query(ctx context.Context, text string, args ...any) (*rows, error) {
	limited, cancel := w.p.life.Load().limit(ctx, pgWriteLimit)
	r, err := w.c.Query(limited, w.p.text(text), markedArgs(args)...)
	if err == nil {
		var out *rows
		if out, err = readFirst(r, cancel); err == nil {
			return out, nil
		}
	}
	cancel()
	return nil, broken(ctx, w.c, err)
}

func (w *pgWriter) exec(ctx context.Context, text string, args ...any) (changed int64, err error) {
	limited, cancel := w.p.life.Load().limit(ctx, pgWriteLimit)
	defer cancel()
	tag, err := w.c.Exec(limited, w.p.text(text), markedArgs(args)...)
	return tag.RowsAffected(), broken(ctx, w.c, err)
}

// spoils: in PostgreSQL a transaction ends with its first fault.
func (w *pgWriter) spoils(context.Context, error) bool { return true }

// pgTx is one write transaction. What it does in its own way is in pg_write.go.
type pgTx struct {
	*tx
	w *pgWriter
}

var _ groups.Tx = (*pgTx)(nil)

// commit sends its last words together: the mark that the transaction is known
// by, the notices, and the end. From then on the caller's context has no say:
// an answer of "cancelled" must mean that nothing happened.
func (t *pgTx) commit(ctx context.Context) error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	now, id := micros(t.now()), rand.Text()
	b := &pgx.Batch{}
	b.Queue(`insert into marks (id, at) values ($1, $2)`, id, now)
	if len(t.notices) > 0 {
		told := jsonRows(t.notices, func(n groups.Notice) []string { return []string{strconv.FormatInt(int64(n.User), 10), n.Login} })
		b.Queue(`insert into notices (at, origin, user_id, login)
			select $1::bigint, $2::text, (value->>0)::bigint, value->>1 from json_array_elements($3::json)`, now, t.w.p.origin, marked(string(told)))
		b.Queue(`select pg_notify('groupgate', $1::text)`, t.w.p.origin)
	}
	b.Queue("commit")
	limited, cancel := t.w.p.life.Load().limit(context.WithoutCancel(ctx), pgWriteLimit)
	err := t.w.c.SendBatch(limited, b).Close()
	cancel()
	t.ended = t.w.c.IsClosed() || t.w.c.PgConn().TxStatus() == 'I'
	if err == nil {
		return nil
	}
	err = broken(ctx, t.w.c, err)
	if t.w.c.IsClosed() || errors.Is(err, errLost) {
		done, unknown := t.w.p.wasCommitted(context.WithoutCancel(ctx), id, now)
		if done {
			return nil
		}
		if unknown != nil {
			return fmt.Errorf("%w: whether the transaction was committed is not known: %v", groups.ErrUnavailable, unknown)
		}
	}
	t.broken = err
	return err
}

// wasCommitted finds out what became of a commit whose answer was lost. It
// writes the transaction's own mark: while that is still under way, this waits
// for it; when it was committed, the mark is there; and when it was not, it
// never can be any more. (pg_xact_status would not do: after a crash the number
// of a transaction may be another's.)
func (p *Postgres) wasCommitted(ctx context.Context, id string, at int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, pgTryLimit)
	defer cancel()
	for {
		tag, err := p.markOnce(ctx, id, at)
		if err == nil {
			return tag == 0, nil
		}
		select {
		case <-ctx.Done():
			return false, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// markOnce has a connection of its own: those of the pool may all be held by
// transactions that wait for the same answer.
func (p *Postgres) markOnce(ctx context.Context, id string, at int64) (int64, error) {
	c, err := pgx.ConnectConfig(ctx, p.pool.cfg)
	if err != nil {
		return 0, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	tag, err := c.Exec(ctx, `insert into marks (id, at) values ($1, $2) on conflict (id) do nothing`, id, at)
	return tag.RowsAffected(), err
}

func (t *pgTx) rollback() {
	if t.ended {
		return
	}
	t.ended = true
	if t.w.c.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), pgConnectLimit)
	defer cancel()
	// Without success the connection is not used again.
	_ = t.w.c.PgConn().Exec(ctx, "rollback").Close()
}
