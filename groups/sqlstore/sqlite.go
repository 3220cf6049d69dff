package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/groupgate/groupgate/groups"
)

const (
	readers   = 5               // one of them is the poller's
	lockLimit = 5 * time.Second // of waiting for the write lock, in steps of the writer's busy_timeout
)

// database is one opened database file. A file that replaces it gets a new
// one.
type database struct {
	path string
	file os.FileInfo // of the file that was opened
	wal  os.FileInfo // of its write-ahead log; nil when unknown

	reads    *statements
	readPool *sql.DB

	lock      chan struct{} // whoever puts the one element in may use the writer
	writes    *statements
	writer    *sql.Conn // held for good, so that its prepared statements stay
	writePool *sql.DB

	watch       *sql.Conn // the poller's; data_version counts per connection
	dataVersion int64

	behind  atomic.Bool   // the log may hold what the file does not
	copying chan struct{} // whoever puts the one element in may copy the log
}

// prepareFile makes the path absolute and free of links, and the file when it
// is not there. From here on nothing but SQLite opens the file: closing any
// other descriptor of it would drop SQLite's locks (POSIX fcntl locks belong
// to the process), and SQLite itself may not create it (mode=rw), lest a
// database that was moved away be taken for a new, empty one.
func prepareFile(path string) (string, error) {
	if path == "" || path == ":memory:" {
		return "", fmt.Errorf("sqlite: open: %q is not a file; the directory has to outlive the process", path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlite: open: %w", err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	dir := filepath.Dir(abs)
	switch fi, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("sqlite: open %s: the folder %s does not exist; create it first", path, dir)
	case err != nil:
		return "", fmt.Errorf("sqlite: open %s: %w", path, err)
	case !fi.IsDir():
		return "", fmt.Errorf("sqlite: open %s: %s is not a folder", path, dir)
	}
	f, err := os.OpenFile(abs, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return abs, nil
	case err != nil:
		return "", fmt.Errorf("sqlite: create: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("sqlite: create: %w", err)
	}
	return abs, nil
}

// openDatabase opens the file that is at path now.
func openDatabase(ctx context.Context, path string) (*database, error) {
	db := &database{path: path, lock: make(chan struct{}, 1), copying: make(chan struct{}, 1)}
	var err error
	if db.file, err = os.Stat(path); err != nil {
		return nil, fmt.Errorf("sqlite: open: %w: %w", groups.ErrUnavailable, err)
	}
	if !db.file.Mode().IsRegular() {
		return nil, fmt.Errorf("sqlite: open %s: not a regular file", path)
	}
	if err := db.connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, meaning(err)), db.close())
	}
	// The log is there as long as a connection is open. Which file it is
	// matters when the database is replaced under us, see retire.
	db.wal, _ = os.Stat(path + "-wal")
	return db, nil
}

func (db *database) connect(ctx context.Context) error {
	db.writePool = db.pool(1, "busy_timeout(100)", "journal_mode(WAL)", "synchronous(FULL)",
		"cache_size(-4000)", "journal_size_limit(16777216)", "wal_autocheckpoint(16000)")
	// Two processes that make a new file WAL at the same time do not wait for
	// each other inside SQLite.
	for start := time.Now(); ; {
		err := db.writePool.PingContext(ctx)
		if err == nil {
			break
		}
		if !busy(err) || time.Since(start) > lockLimit {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := migrate(ctx, db.writePool); err != nil {
		return err
	}
	var err error
	if db.writer, err = db.writePool.Conn(ctx); err != nil {
		return err
	}
	db.writes = &statements{prepare: db.writer.PrepareContext}
	db.readPool = db.pool(readers, "busy_timeout(5000)", "query_only(1)")
	db.readPool.SetConnMaxIdleTime(time.Minute) // each connection has a page cache
	db.reads = &statements{prepare: db.readPool.PrepareContext}
	return nil
}

func (db *database) pool(size int, pragmas ...string) *sql.DB {
	q := url.Values{"mode": {"rw"}, "_dqs": {"0"}, "_defensive": {"1"}}
	// Temporary tables in memory: the file system may be read-only but for the
	// database's own folder.
	for _, p := range append(pragmas, "foreign_keys(1)", "temp_store(MEMORY)", "trusted_schema(0)") {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(db.path), RawQuery: q.Encode()}
	p := sql.OpenDB(connector{db: db, dsn: u.String()})
	p.SetMaxOpenConns(size)
	p.SetMaxIdleConns(size)
	return p
}

// connector opens connections to the one file the database began with. The
// pool opens one whenever it likes, and by then another file may be at the
// path.
type connector struct {
	db  *database
	dsn string
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := sqlite.NewConnector(c.dsn)
	if err != nil {
		return nil, err
	}
	conn, err := inner.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.db.check(); err != nil && !errors.Is(err, errReadOnly) {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (c connector) Driver() driver.Driver { return &sqlite.Driver{} }

// What can be wrong with the file that was opened.
var (
	errGone       = fmt.Errorf("%w: the database file is gone", groups.ErrUnavailable)
	errReplaced   = fmt.Errorf("%w: the database file was replaced by another", groups.ErrUnavailable)
	errUnreadable = fmt.Errorf("%w: the database file may not be read", groups.ErrUnavailable)
	errReadOnly   = fmt.Errorf("%w: the database file may not be written", groups.ErrUnavailable)
)

// check says whether the path still leads to the opened file, and whether its
// mode lets anybody use it. An open descriptor would work on regardless, and
// write into a file that nobody will find again.
func (db *database) check() error {
	fi, err := os.Stat(db.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errGone
	case err != nil:
		return fmt.Errorf("%w: %w", errUnreadable, err)
	case !os.SameFile(fi, db.file):
		return errReplaced
	case fi.Mode().Perm()&0o444 == 0:
		return errUnreadable
	case fi.Mode().Perm()&0o222 == 0:
		return errReadOnly
	}
	return nil
}

func (db *database) close() error {
	db.copying <- struct{}{} // for good: wait for the copy under way, begin none
	errs := []error{db.reads.close(), db.writes.close()}
	for _, c := range []*sql.Conn{db.watch, db.writer} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, p := range []*sql.DB{db.readPool, db.writePool} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, sql.ErrConnDone) {
		return failed("close", err)
	}
	return nil
}

// retire closes a database whose file was moved away or deleted. Its log still
// has the name that the log of the next file will have, and SQLite would
// replay it into that file: so what it holds goes into the moved file, and
// then the name is freed. A log that is not ours belongs to the next file.
func (db *database) retire(ctx context.Context) {
	_, _ = db.writes.exec(ctx, "pragma wal_checkpoint(truncate)") // SQLite closes a moved file without it
	_ = db.close()
	if db.wal == nil {
		return
	}
	if fi, err := os.Stat(db.path + "-wal"); err == nil && os.SameFile(fi, db.wal) {
		_ = os.Remove(db.path + "-wal")
		_ = os.Remove(db.path + "-shm")
	}
}

// checkpointFrom is the size of the log from which the poller copies it into
// the database.
const checkpointFrom = 4 << 20

// copyWait bounds one copy of the log. It is far more than a copy takes.
const copyWait = 20 * time.Second

// copyLog does between commits what SQLite would do in one of them, and
// whoever signs in just then would wait for: it copies the log into the file,
// in the background, because on a slow disk that is no sign of ill health. The
// writer has a limit of its own, four times the journal_size_limit, should
// this not keep up.
func (db *database) copyLog(ctx context.Context) {
	if !db.behind.Load() {
		return
	}
	select {
	case db.copying <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-db.copying }()
		ctx, cancel := context.WithTimeout(ctx, copyWait)
		defer cancel()
		db.behind.Store(false)
		if all, err := db.checkpoint(ctx); err != nil || !all {
			db.behind.Store(true) // somebody was in the way: next time
		}
	}()
}

// checkpoint answers whether all of the log is copied, which a reader of an
// older state, or another checkpoint under way, can prevent.
func (db *database) checkpoint(ctx context.Context) (all bool, err error) {
	if fi, err := os.Stat(db.path + "-wal"); err != nil || fi.Size() < checkpointFrom {
		return true, nil
	}
	var blocked, frames, copied int64
	err = db.readPool.QueryRowContext(ctx, "pragma wal_checkpoint(passive)").Scan(&blocked, &frames, &copied)
	return blocked == 0 && frames == copied, err
}

// lastNotice is the number of the newest notice.
func (db *database) lastNotice(ctx context.Context) (int64, error) {
	seq, err := one(ctx, db.reads, "last notice", scanValue[int64], `select coalesce(max(seq), 0) from notices`)
	if err != nil {
		return 0, err
	}
	return *seq, nil
}
