package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date. An up-to-date database, which is every
// start but one, costs two small reads.
func migrate(ctx context.Context, db *sql.DB) error {
	newest, err := newestMigration()
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, conn)
	if err := errors.Join(err, conn.Close()); err != nil {
		return err
	}
	switch {
	case have > newest:
		return fmt.Errorf("the schema has version %d, this program knows versions up to %d: use the newer program, or restore an older copy", have, newest)
	case have == newest:
		return nil
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir,
		goose.WithDisableGlobalRegistry(true),
		goose.WithSessionLocker(oneTransaction{newest}),
		goose.WithIsolateDDL(true)) // no transactions of goose's own inside ours
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// oneTransaction makes everything goose does one transaction: SQLite's write
// lock keeps other processes out, and a process that dies leaves the old
// schema. goose reads the version after SessionLock, so the second of two
// processes finds nothing to do.
type oneTransaction struct{ newest int64 }

func (oneTransaction) SessionLock(ctx context.Context, conn *sql.Conn) error {
	return beginImmediate(ctx, func(ctx context.Context, text string) error {
		_, err := conn.ExecContext(ctx, text)
		return err
	})
}

func (t oneTransaction) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	end := "rollback"
	if have, err := schemaVersion(ctx, conn); err == nil && have == t.newest {
		end = "commit"
	}
	_, err := conn.ExecContext(ctx, end)
	return err
}

// schemaVersion is 0 for an empty database.
func schemaVersion(ctx context.Context, conn *sql.Conn) (int64, error) {
	var tables int64
	var ours sql.NullInt64
	err := conn.QueryRowContext(ctx, `select count(*), max(name = 'goose_db_version') from sqlite_master where type = 'table'`).Scan(&tables, &ours)
	if err != nil {
		return 0, err
	}
	if ours.Int64 == 0 {
		if tables > 0 {
			return 0, errors.New("it is the database of another application")
		}
		return 0, nil
	}
	var version int64
	err = conn.QueryRowContext(ctx, `select coalesce(max(version_id), 0) from goose_db_version where is_applied`).Scan(&version)
	return version, err
}

func newestMigration() (newest int64, err error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		number, _, _ := strings.Cut(path.Base(name), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %s has no number: %w", name, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}
