package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/postgres/*.sql
var pgMigrations embed.FS

const (
	pgOldest = 140000             // server_version_num
	pgLock   = 0x67726f7570676174 // of everybody who migrates: "groupgat"

	pgVersionTable = "groupgate_version"
)

// migratePostgres brings the schema up to date, in one transaction that other
// replicas wait for. An up-to-date database costs two small reads.
func migratePostgres(ctx context.Context, cfg *pgx.ConnConfig) error {
	cfg = cfg.Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing here is asked twice
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	newest, err := newestMigration("migrations/postgres", pgMigrations)
	if err != nil {
		return err
	}
	if err := pgServer(ctx, c); err != nil {
		return err
	}
	have, err := pgSchema(ctx, c, newest)
	if err != nil || have >= newest {
		return err
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(pgLock)); err != nil {
			return err
		}
		have, err := pgSchema(ctx, tx, newest)
		if err != nil || have >= newest { // somebody did it while we waited
			return err
		}
		return pgUp(ctx, tx, have)
	})
}

// pgServer refuses a server that cannot do what is asked of it.
func pgServer(ctx context.Context, c *pgx.Conn) error {
	var version int
	var encoding string
	var schema *string
	err := c.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('server_encoding'), current_schema()::text`).
		Scan(&version, &encoding, &schema)
	switch {
	case err != nil:
		return err
	case version < pgOldest:
		return fmt.Errorf("the server is PostgreSQL %d.%d; 14 is the oldest that will do", version/10000, version%10000)
	case encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s: make one with encoding UTF8", encoding)
	case schema == nil:
		return errors.New("the search_path names no schema that is there: make it, or name another in the address (search_path=SCHEMA)")
	}
	return nil
}

type pgQuerier interface {
	QueryRow(ctx context.Context, text string, args ...any) pgx.Row
}

// pgSchema is the version of the schema; 0 when there are no tables yet. It
// refuses the tables of another application, and those of a newer program that
// this one would harm.
func pgSchema(ctx context.Context, c pgQuerier, newest int64) (version int64, err error) {
	var there bool
	var foreign string
	err = c.QueryRow(ctx, `select coalesce(bool_or(relname = $1::text), false), coalesce(min(relname::text) filter (where relname = any($2::text[])), '')
		from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')`,
		pgVersionTable, pgTables()).Scan(&there, &foreign)
	switch {
	case err != nil:
		return 0, err
	case !there && foreign != "":
		return 0, fmt.Errorf("the table %s is another application's: give groupgate a database of its own, or a schema (search_path=SCHEMA in the address)", foreign)
	case !there:
		return 0, nil
	}
	if err := c.QueryRow(ctx, `select coalesce(max(version), 0) from `+pgVersionTable).Scan(&version); err != nil {
		return 0, err
	}
	if version <= newest {
		return version, nil
	}
	var oldest string
	if err := c.QueryRow(ctx, `select coalesce(max(value), '') from meta where key = 'store/min_program'`).Scan(&oldest); err != nil {
		return 0, err
	}
	return version, mayUse(version, newest, oldest)
}

// pgTables are the tables that the migrations make.
func pgTables() (names []string) {
	all, _ := pgMigrations.ReadDir("migrations/postgres")
	for _, f := range all {
		up, _ := pgMigration(f.Name())
		for line := range strings.Lines(up) {
			if rest, ok := strings.CutPrefix(line, "create table "); ok {
				name, _, _ := strings.Cut(rest, " ")
				names = append(names, name)
			}
		}
	}
	return names
}

// pgMigration is what a file does on the way up.
func pgMigration(name string) (string, error) {
	raw, err := pgMigrations.ReadFile("migrations/postgres/" + name)
	if err != nil {
		return "", err
	}
	up, _, _ := strings.Cut(string(raw), "-- +goose Down")
	return up, nil
}

// pgUp does the migrations above a version, in their order.
func pgUp(ctx context.Context, tx pgx.Tx, have int64) error {
	all, err := pgMigrations.ReadDir("migrations/postgres")
	if err != nil {
		return err
	}
	if have == 0 {
		if _, err := tx.Exec(ctx, `create table `+pgVersionTable+` (version bigint primary key, at timestamptz not null default now())`); err != nil {
			return err
		}
	}
	for _, f := range all {
		version, err := migrationNumber(f.Name())
		if err != nil {
			return err
		}
		if version <= have {
			continue
		}
		up, err := pgMigration(f.Name())
		if err != nil {
			return err
		}
		// One message of several statements.
		if err := tx.Conn().PgConn().Exec(ctx, up).Close(); err != nil {
			return fmt.Errorf("migrate to version %d: %w", version, err)
		}
		if _, err := tx.Exec(ctx, `insert into `+pgVersionTable+` (version) values ($1)`, version); err != nil {
			return err
		}
	}
	return nil
}
