package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/groupgate/groupgate/groups"
)

// Update runs fn in one write transaction. It never runs fn twice.
func (s *Store) Update(ctx context.Context, fn func(groups.Tx) error) error {
	notices, err := s.transact(ctx, fn)
	if err != nil {
		return err
	}
	// Outside the transaction: a watcher may want to read what changed.
	s.deliver(notices...)
	return nil
}

func (s *Store) transact(ctx context.Context, fn func(groups.Tx) error) ([]groups.Notice, error) {
	db, err := s.writable(ctx)
	if err != nil {
		return nil, failed("update", err)
	}
	defer func() { <-db.lock }()
	if err := s.begin(ctx, db); err != nil {
		return nil, failed("begin", s.noteWrite(ctx, err))
	}
	w := &sqliteWriter{s, db}
	t := newTx(w, s.opts.Now)
	// Not only for errors: fn may panic or, in a test, end its goroutine.
	defer w.rollback(t)
	if err := fn(t); err != nil {
		return nil, err
	}
	if err := w.commit(ctx, t); err != nil {
		return nil, failed("commit", s.noteWrite(ctx, err))
	}
	s.trouble.Store(nil)
	return t.notices, nil
}

// writable waits for its turn at the write connection and answers the database
// with the lock taken.
func (s *Store) writable(ctx context.Context) (*database, error) {
	db, err := s.readable()
	if err != nil {
		return nil, err
	}
	select {
	case db.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.db.Load() != db { // closed or replaced meanwhile
		<-db.lock
		return nil, errGone
	}
	if err := db.check(); err != nil {
		<-db.lock
		s.lookNow()
		return nil, err
	}
	return db, nil
}

// begin takes the database's write lock, which another process may hold.
func (s *Store) begin(ctx context.Context, db *database) error {
	s.beginning.Store(int64(time.Since(s.started)))
	defer s.beginning.Store(0)
	return beginImmediate(ctx, func(ctx context.Context, text string) error {
		_, err := db.writes.exec(ctx, text)
		return err
	})
}

// beginImmediate waits in steps of the connection's busy_timeout and heeds the
// context between them. Within one it does not: a BEGIN that succeeds and is
// reported as cancelled would keep the lock.
func beginImmediate(ctx context.Context, exec func(context.Context, string) error) error {
	calm := context.WithoutCancel(ctx)
	for start := time.Now(); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := exec(calm, "begin immediate")
		switch {
		case err == nil:
			return nil
		case codeOf(err) == lib.SQLITE_ERROR:
			// The last transaction could not be rolled back; it must be before
			// anything is written.
			if err := exec(calm, "rollback"); err != nil {
				return fmt.Errorf("%w: %v", groups.ErrUnavailable, err)
			}
		case !busy(err):
			return err
		case time.Since(start) > lockLimit:
			return fmt.Errorf("another process holds the write lock: %w", err)
		}
	}
}

// noteWrite remembers a fault of the database, for the health.
func (s *Store) noteWrite(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(meaning(err), groups.ErrUnavailable) {
		s.trouble.Store(&err)
		s.lookNow()
	}
	return err
}

// sqliteWriter is the write connection of one transaction.
type sqliteWriter struct {
	s  *Store
	db *database
}

func (w *sqliteWriter) query(ctx context.Context, text string, args ...any) (*rows, error) {
	return w.db.writes.query(ctx, text, args...)
}

func (w *sqliteWriter) exec(ctx context.Context, text string, args ...any) (changed int64, err error) {
	return w.db.writes.exec(ctx, text, args...)
}

// spoils: SQLite may have rolled back on its own (interrupt, disk full, I/O),
// and whatever came later would be written outside of any transaction.
func (w *sqliteWriter) spoils(ctx context.Context, err error) bool {
	if codeOf(err)&0xff == lib.SQLITE_CONSTRAINT {
		return false
	}
	_ = w.s.noteWrite(ctx, err)
	return true
}

func (w *sqliteWriter) commit(ctx context.Context, t *tx) error {
	if err := t.usable(); err != nil {
		return err
	}
	for _, n := range t.notices {
		_, err := t.exec(ctx, `insert into notices (at, origin, user_id, login) values ($1, $2, $3, $4)`,
			micros(t.now()), w.s.origin, int64(n.User), n.Login)
		if err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Last look: never commit into a file that nobody will find again.
	if err := w.db.check(); err != nil {
		return err
	}
	// From here on the caller's context has no say: an answer of "cancelled"
	// must mean that nothing happened.
	if _, err := w.exec(context.WithoutCancel(ctx), "commit"); err != nil {
		return err
	}
	t.ended = true
	return nil
}

func (w *sqliteWriter) rollback(t *tx) {
	if t.ended {
		return
	}
	t.ended = true
	// An error means that SQLite has done it already, or it shows at the next
	// begin.
	_, _ = w.exec(context.Background(), "rollback")
}

// writer is the connection of one transaction.
type writer interface {
	querier
	exec(ctx context.Context, text string, args ...any) (changed int64, err error)
	// spoils says whether nothing more can be done in the transaction after the
	// error.
	spoils(ctx context.Context, err error) bool
}

// tx is one write transaction, whatever the database.
type tx struct {
	reader
	w       writer
	now     func() time.Time
	notices []groups.Notice
	ended   bool
	broken  error // the first error that spoiled it
}

var _ groups.Tx = (*tx)(nil)

func newTx(w writer, now func() time.Time) *tx {
	t := &tx{w: w, now: now}
	t.reader = reader{q: t}
	return t
}

func (t *tx) query(ctx context.Context, text string, args ...any) (*rows, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	r, err := t.w.query(ctx, text, args...)
	return r, t.note(ctx, err)
}

func (t *tx) exec(ctx context.Context, text string, args ...any) (changed int64, err error) {
	if err := t.usable(); err != nil {
		return 0, err
	}
	n, err := t.w.exec(ctx, text, args...)
	return n, t.note(ctx, err)
}

func (t *tx) usable() error {
	if t.ended {
		return errEnded
	}
	return t.broken
}

func (t *tx) note(ctx context.Context, err error) error {
	if err != nil && t.broken == nil && t.w.spoils(ctx, err) {
		t.broken = err
	}
	return err
}

// LockUser has nothing to lock, since SQLite has one writer at a time; it
// answers ErrNotFound for a user who is not there.
func (t *tx) LockUser(ctx context.Context, id groups.UserID) error {
	_, err := one(ctx, t, "lock user", scanValue[int64], `select id from users where id = $1`, int64(id))
	return err
}

// Notify tells watchers after the commit.
func (t *tx) Notify(_ context.Context, n groups.Notice) error {
	if err := t.usable(); err != nil {
		return failed("notify", err)
	}
	t.notices = append(t.notices, n)
	return nil
}

// change runs a statement that has to find its row.
func (t *tx) change(ctx context.Context, step, text string, args ...any) error {
	n, err := t.exec(ctx, text, args...)
	if err == nil && n == 0 {
		err = groups.ErrNotFound
	}
	return failed(step, err)
}

// do runs a statement that may find nothing.
func (t *tx) do(ctx context.Context, step, text string, args ...any) error {
	_, err := t.exec(ctx, text, args...)
	return failed(step, err)
}
