package sqlstore

import (
	"fmt"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
)

// LimitPages bounds the size of the database, which is how a full disk looks
// to SQLite. A bound below the present size means the present size.
func LimitPages(t *testing.T, s *Store, pages int) {
	t.Helper()
	db := s.db.Load()
	db.lock <- struct{}{}
	defer func() { <-db.lock }()
	var now int
	if err := db.writer.QueryRowContext(t.Context(), fmt.Sprintf("pragma max_page_count = %d", max(pages, 1))).Scan(&now); err != nil {
		t.Fatal(err)
	}
}

// LogPages counts the pages in the log, and those of them that are not in the
// database yet.
func LogPages(t *testing.T, s *Store) (used, left int64) {
	t.Helper()
	db := s.db.Load()
	var blocked, frames, copied int64
	if err := db.readPool.QueryRowContext(t.Context(), "pragma wal_checkpoint(noop)").Scan(&blocked, &frames, &copied); err != nil {
		t.Fatal(err)
	}
	return frames, frames - copied
}

// MigrateDown takes the schema of a file back to a version.
func MigrateDown(t *testing.T, path string, version int64) {
	t.Helper()
	file, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := (&database{path: path, file: file}).pool(1, "journal_mode(WAL)")
	defer pool.Close()
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, pool, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
}

// FailMigration begins a migration of a new file and lets it fail after its
// last statement.
func FailMigration(t *testing.T, path string) {
	t.Helper()
	path, err := prepareFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db := &database{path: path}
	if db.file, err = os.Stat(path); err != nil {
		t.Fatal(err)
	}
	pool := db.pool(1, "journal_mode(WAL)")
	defer pool.Close()
	dir := fstest.MapFS{"00001_broken.sql": {Data: []byte("-- +goose Up\ncreate table a (x);\ninsert into nowhere values (1);\n")}}
	if err := migrateTo(t.Context(), pool, dir, 1); err == nil {
		t.Fatal("a broken migration went through")
	}
}
