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
// start but one, costs two small reads. The pool has one connection.
func migrate(ctx context.Context, db *sql.DB) error {
	newest, err := newestMigration("migrations", migrations)
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, db)
	switch {
	case err != nil:
		return err
	case have > newest:
		var oldest sql.NullString
		err := db.QueryRowContext(ctx, `select max(value) from meta where key = 'store/min_program'`).Scan(&oldest)
		return errors.Join(err, mayUse(have, newest, oldest.String))
	case have == newest:
		return nil
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return migrateTo(ctx, db, dir, newest)
}

// migrateTo does all of goose's work in one transaction of ours: SQLite's write
// lock keeps other processes out, whose goose then finds nothing to do, and a
// process that dies leaves the old schema. goose's own lockers come too late
// for that, after it has made its table.
func migrateTo(ctx context.Context, db *sql.DB, dir fs.FS, newest int64) error {
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir,
		goose.WithDisableGlobalRegistry(true),
		goose.WithIsolateDDL(true)) // no transactions inside ours
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	exec := func(ctx context.Context, text string) error {
		_, err := db.ExecContext(ctx, text)
		return err
	}
	if err := beginImmediate(ctx, exec); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// No cancelling from here: an interrupted connection would leave the pool,
	// and its successor knows nothing of our transaction.
	ctx = context.WithoutCancel(ctx)
	if _, err := p.Up(ctx); err != nil {
		return errors.Join(fmt.Errorf("migrate: %w", err), exec(ctx, "rollback"))
	}
	if have, err := schemaVersion(ctx, db); err != nil || have != newest {
		return errors.Join(fmt.Errorf("migrate: version %d came of it, not %d", have, newest), err, exec(ctx, "rollback"))
	}
	return exec(ctx, "commit")
}

// schemaVersion is 0 for an empty database.
func schemaVersion(ctx context.Context, db *sql.DB) (int64, error) {
	var tables int64
	var ours sql.NullInt64
	err := db.QueryRowContext(ctx, `select count(*), max(name = 'goose_db_version') from sqlite_master where type = 'table'`).Scan(&tables, &ours)
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
	err = db.QueryRowContext(ctx, `select coalesce(max(version_id), 0) from goose_db_version where is_applied`).Scan(&version)
	return version, err
}

// mayUse decides about a schema that is newer than this program: whoever made
// it has written down which is the oldest version that gets along with it, so
// that a deployment can be rolled back.
func mayUse(have, newest int64, oldest string) error {
	if n, err := strconv.ParseInt(oldest, 10, 64); err == nil && n <= newest {
		return nil
	}
	return fmt.Errorf("the schema has version %d, this program knows versions up to %d: use the newer program, or restore an older copy", have, newest)
}

func newestMigration(dir string, files embed.FS) (newest int64, err error) {
	names, err := fs.Glob(files, dir+"/*.sql")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		n, err := migrationNumber(path.Base(name))
		if err != nil {
			return 0, err
		}
		newest = max(newest, n)
	}
	return newest, nil
}

func migrationNumber(name string) (int64, error) {
	number, _, _ := strings.Cut(name, "_")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("migration %s has no number: %w", name, err)
	}
	return n, nil
}
