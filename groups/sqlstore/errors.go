package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/groupgate/groupgate/groups"
)

// errEnded is the answer of a Tx that is used after its function returned.
var errEnded = errors.New("the transaction has ended")

// failed names the step and gives the error the meaning that groups.Store
// promises. It is the only place that looks at a driver's codes. Nothing in it
// comes from a row: SQLite names columns in its messages, never values, and of
// what PostgreSQL says the code is kept.
func failed(step string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("store: %s: %w", step, meaning(err))
}

func meaning(err error) error {
	switch {
	case errors.Is(err, groups.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, errEnded):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return groups.ErrNotFound
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", groups.ErrUnavailable, err)
	case errors.Is(err, errLost), errors.Is(err, sql.ErrConnDone), errors.Is(err, driver.ErrBadConn), closedText(err):
		return fmt.Errorf("%w: %v", groups.ErrUnavailable, err)
	}
	if code := pgCode(err); code != "" {
		return pgMeaning(code, err)
	}
	switch code := codeOf(err); {
	case unavailable(code):
		return fmt.Errorf("%w: %v", groups.ErrUnavailable, err)
	case code == lib.SQLITE_CONSTRAINT_UNIQUE, code == lib.SQLITE_CONSTRAINT_PRIMARYKEY, code == lib.SQLITE_CONSTRAINT_ROWID:
		return fmt.Errorf("%w: %v", groups.ErrConflict, err)
	case code == lib.SQLITE_CONSTRAINT_FOREIGNKEY, code == lib.SQLITE_CONSTRAINT_NOTNULL:
		// A row that refers to nothing, or a name that was looked up in vain.
		return fmt.Errorf("%w: %v", groups.ErrNotFound, err)
	}
	return err
}

// codeOf is SQLite's extended result code; 0 when the error is another's.
func codeOf(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

func unavailable(code int) bool {
	switch code & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_IOERR, lib.SQLITE_FULL, lib.SQLITE_READONLY,
		lib.SQLITE_CANTOPEN, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_NOMEM, lib.SQLITE_PERM, lib.SQLITE_PROTOCOL:
		return true
	}
	return false
}

func busy(err error) bool { return codeOf(err)&0xff == lib.SQLITE_BUSY }

// closedText knows database/sql's two errors that have no name.
func closedText(err error) bool {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if m := e.Error(); m == "sql: database is closed" || m == "sql: statement is closed" {
			return true
		}
	}
	return false
}

// pgCode is PostgreSQL's SQLSTATE; "" when the error is another's.
func pgCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// pgMeaning leaves out PostgreSQL's words, which may quote a value. The codes
// are in appendix A of its documentation.
func pgMeaning(code string, err error) error {
	where := ""
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.ConstraintName != "" {
		where = ", " + e.ConstraintName
	}
	is := func(meaning error) error { return fmt.Errorf("%w: SQLSTATE %s%s", meaning, code, where) }
	switch {
	case code == "23505":
		return is(groups.ErrConflict)
	case code == "23503", code == "23502":
		return is(groups.ErrNotFound)
	case pgUnavailable(code):
		return is(groups.ErrUnavailable)
	}
	return fmt.Errorf("SQLSTATE %s%s", code, where)
}

// pgUnavailable: another time, or at another server, it may go well.
func pgUnavailable(code string) bool {
	switch code[:min(2, len(code))] {
	case "08", "28", "40", "53", "57", "58", "XX", "F0":
		return true
	}
	return code == "25006" || code == "55P03" || code == "3D000" // read-only; not now; gone
}

// pgAgain: the transaction got in the way of another, and has to begin again.
func pgAgain(code string) bool { return code == "40001" || code == "40P01" }
