// Package sqlstore keeps the directory in an SQL database: SQLite, embedded
// and without cgo, for one replica, or PostgreSQL for several. It is the only
// importer of database drivers.
//
// # Both
//
// Statements are written once: numbered $1, upserts by "on conflict", times as
// numbers. dialect.go has the few words in which the two differ, pg_write.go
// what PostgreSQL does in another way altogether.
//
// Sets of rows travel as one JSON parameter, so that a sync of 2,000 groups is
// as many statements as one of 2.
//
// # SQLite
//
// One connection writes and a few read. SQLite has one writer at a time in any
// case; a single connection with BEGIN IMMEDIATE makes the waiting happen in a
// Go channel, where a context can end it. In WAL mode readers never wait for
// it.
//
// The writer runs with synchronous=FULL: NORMAL would be as safe against
// corruption, but may lose the last commits when the power goes, and then a
// revocation that was answered with "done" would be undone. It costs one fsync
// a commit; syncs that change nothing do not commit at all.
//
// A goroutine looks at the file once in a poll interval: is it still the file
// that was opened, does it answer, did another process commit a notice. What
// it finds is what [Store.Healthy] says.
//
// # PostgreSQL
//
// Transactions are serializable, as SQLite's are, and begin again when they got
// in each other's way; after three times one has the database to itself. Each
// leaves a mark, by which a commit whose answer was lost is found out about.
//
// A goroutine with a connection of its own listens for notifications of other
// replicas' commits, and asks for their notices at every poll interval should
// one get lost. The same question tells it the server's health and time.
package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

// Options are what a store needs beside its address. The zero value works.
type Options struct {
	Log *zap.Logger
	// Now is the clock for what is written without a time of its own. With
	// PostgreSQL it is only the machine's, which the database's corrects.
	Now func() time.Time
	// PollInterval is how often the database is asked for the notices of other
	// processes and for its health; 1 s when zero.
	PollInterval time.Duration
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PollInterval <= 0 {
		o.PollInterval = time.Second
	}
}

// Store is a [groups.Store] in an SQL database.
type Store struct {
	reader
	path   string
	opts   Options
	origin string // tells our notices from those of other processes

	db atomic.Pointer[database] // nil while there is none to use

	// The health, see health.go.
	started   time.Time // a monotonic zero for lastOK and beginning
	lastOK    atomic.Int64
	beginning atomic.Int64 // since when an Update waits for the write lock; 0: none does
	down      atomic.Pointer[condition]
	trouble   atomic.Pointer[error] // of the last write; nil when it went well
	lastSeq   int64                 // of the notices; only the poller uses it

	watchers

	kick   chan struct{} // asks the poller to look now
	stop   context.CancelFunc
	polled chan struct{} // closed when the poller has ended
	closed atomic.Bool
}

var _ groups.Store = (*Store)(nil)

// OpenSQLite opens the database file at path, makes it when it is not there
// (mode 0600, in a folder that exists), and brings its schema up to date. It
// refuses a file that is not a database, one of another application, and one
// whose schema is newer than this program.
func OpenSQLite(ctx context.Context, path string, opts Options) (*Store, error) {
	opts.setDefaults()
	path, err := prepareFile(path)
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: path, opts: opts, origin: rand.Text(), started: time.Now(),
		kick: make(chan struct{}, 1), polled: make(chan struct{}),
	}
	s.reader = reader{q: storeQuerier{s}}
	s.db.Store(db)
	if s.lastSeq, err = db.lastNotice(ctx); err != nil {
		return nil, errors.Join(err, db.close())
	}
	s.noteAnswer()
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.poll(ctx)
	return s, nil
}

// Close ends the store; it waits for a running transaction and for the
// poller. What is called later answers ErrUnavailable.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	<-s.polled
	db := s.db.Swap(nil)
	if db == nil {
		return nil
	}
	db.lock <- struct{}{} // wait for the Update that runs
	<-db.lock             // those who wait behind it see that it is over
	return db.close()
}

// storeQuerier reads from whatever database is open at the moment.
type storeQuerier struct{ s *Store }

func (q storeQuerier) query(ctx context.Context, text string, args ...any) (*rows, error) {
	db, err := q.s.readable()
	if err != nil {
		return nil, err
	}
	return db.reads.query(ctx, text, args...)
}

func (s *Store) readable() (*database, error) {
	if c := s.down.Load(); c != nil && c.noReads {
		return nil, c.err
	}
	return s.current()
}

func (s *Store) current() (*database, error) {
	db := s.db.Load()
	if db == nil {
		return nil, fmt.Errorf("%w: the store is closed", groups.ErrUnavailable)
	}
	return db, nil
}
