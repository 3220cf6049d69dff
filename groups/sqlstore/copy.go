package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/groupgate/groupgate/groups"
)

// CopiedTable says how many rows of a table were copied.
type CopiedTable struct {
	Name string
	Rows int64
}

// copied are the tables of a directory in an order in which each refers to those
// before it, with the columns that both databases have. What lives for minutes
// between replicas stays behind: notices and leases.
var copied = []struct {
	name, columns string
	identity      string // the column that the database numbers
}{
	{"users", "id, name, name_key, email, email_key, display, created, holder", "id"},
	{"identities", "source, subject, user_id, claims, incomplete, issued_at, seen, fingerprint", ""},
	{"groups", "id, name, control, description, created", "id"},
	{"reasons", "id, group_id, source, rule, claim, value", "id"},
	{"grants", "user_id, reason_id, since", ""},
	{"manual", "user_id, group_id, actor, since", ""},
	{"removals", "user_id, at", ""},
	{"rules", "id, body, version", ""},
	{"logins", "id, user_id, source, subject, session, alias, created, expires, claims_at, sealed", ""},
	{"sessions", "hash, login_id, host, used", ""},
	{"accounts", "source, subject, user_id, password, disabled, changed", ""},
	{"once", "kind, id, expires", ""},
	{"attempts", "id, body, expires", ""},
	{"events", "id, at, kind, user_id, source, grp, request, body", "id"},
	{"tallies", "hour, kind, source, n, added, removed, first_id, last_id", ""},
	{"mentions", "what, name, event_id", ""},
	{"outbox", "id, target, user_id, body, created, version, failures, refusals, not_before, parked, reason", "id"},
	{"told", "target, user_id, body", ""},
	{"meta", "key, value", ""},
}

// copyLimit bounds a copy: nobody else can use the target meanwhile.
const copyLimit = time.Hour

// Copy fills an empty PostgreSQL directory with what a SQLite one has, in one
// transaction: people, groups and rules with their numbers, the trail, and
// sessions, so that whoever is signed in stays so. It refuses a target that has
// people or groups. Nobody may use the source meanwhile: what is written there
// is lost.
func Copy(ctx context.Context, from *Store, to *Postgres) ([]CopiedTable, error) {
	ctx, cancel := context.WithTimeout(ctx, copyLimit)
	defer cancel()
	c, err := to.pool.acquire(ctx)
	if err != nil {
		return nil, failed("copy", broken(ctx, nil, err))
	}
	defer c.release()
	var done []CopiedTable
	err = pgx.BeginFunc(ctx, c.Conn, func(tx pgx.Tx) error {
		// One message of two statements: everybody else waits.
		if err := tx.Conn().PgConn().Exec(ctx, "lock table gate in access exclusive mode; lock table users in access exclusive mode").Close(); err != nil {
			return err
		}
		var used bool
		if err := tx.QueryRow(ctx, `select exists (select 1 from users) or exists (select 1 from groups) or exists (select 1 from events)`).Scan(&used); err != nil {
			return err
		}
		if used {
			return errors.New("the target has people, groups or events already: a directory is copied into an empty one")
		}
		for _, table := range copied {
			n, err := copyTable(ctx, from, tx, table.name, table.columns, table.identity)
			if err != nil {
				return fmt.Errorf("table %s: %w", table.name, err)
			}
			done = append(done, CopiedTable{table.name, n})
		}
		return nil
	})
	if err != nil {
		return nil, failed("copy", err)
	}
	to.deliver(groups.Notice{})
	return done, nil
}

func copyTable(ctx context.Context, from *Store, tx pgx.Tx, name, columns, identity string) (int64, error) {
	if name == "meta" { // the target has some rows; what describes its schema stays
		if _, err := tx.Exec(ctx, `delete from meta where key <> 'store/min_program'`); err != nil {
			return 0, err
		}
	}
	text := `select ` + columns + ` from ` + name
	if name == "meta" {
		text += ` where key <> 'store/min_program'`
	}
	r, err := from.query(ctx, text)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	names := strings.Split(columns, ", ")
	source := &copySource{rows: r, width: len(names), flag: slices.Index(names, "disabled")}
	n, err := tx.CopyFrom(ctx, pgx.Identifier{name}, names, source)
	if err != nil || identity == "" {
		return n, err
	}
	// Ids are never given twice: also not those of people who are gone.
	last, err := one(ctx, storeQuerier{from}, "copy", scanValue[int64], `select coalesce(max(seq), 0) from sqlite_sequence where name = $1`, name)
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `select setval(pg_get_serial_sequence($1::text, $2::text), $3::bigint + 1, false)`, name, identity, *last)
	return n, err
}

// query reads from the database that is open at the moment.
func (s *Store) query(ctx context.Context, text string, args ...any) (*rows, error) {
	return storeQuerier{s}.query(ctx, text, args...)
}

// copySource is a result of SQLite as PostgreSQL's COPY wants it.
type copySource struct {
	*rows
	width int
	flag  int // the column that is a number here and a boolean there; -1: none
}

// Values is the row.
func (c *copySource) Values() ([]any, error) {
	values, into := make([]any, c.width), make([]any, c.width)
	for i := range values {
		into[i] = &values[i]
	}
	if err := c.Scan(into...); err != nil {
		return nil, err
	}
	for i, v := range values {
		switch v := v.(type) {
		case string:
			values[i] = marked(v)
		case int64:
			if i == c.flag {
				values[i] = v != 0
			}
		}
	}
	return values, nil
}
