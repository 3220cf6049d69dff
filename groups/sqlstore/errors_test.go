package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/groupgate/groupgate/groups"
)

// What a caller may branch on, and nothing else: each meaning excludes the
// others.
func TestErrorsHaveOneMeaning(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	exec := func(text string) error {
		_, err := db.Exec(text)
		return err
	}
	if err := exec(`pragma foreign_keys = 1; create table a (id integer primary key, u text unique, n text not null);
		create table b (id integer references a (id)); insert into a values (1, 'x', 'y')`); err != nil {
		t.Fatal(err)
	}
	meanings := []error{groups.ErrUnavailable, groups.ErrConflict, groups.ErrNotFound, context.Canceled}
	for name, c := range map[string]struct{ err, want error }{
		"unique":           {exec(`insert into a values (2, 'x', 'y')`), groups.ErrConflict},
		"primary key":      {exec(`insert into a values (1, 'z', 'y')`), groups.ErrConflict},
		"foreign key":      {exec(`insert into b values (7)`), groups.ErrNotFound},
		"not null":         {exec(`insert into a values (3, 'z', null)`), groups.ErrNotFound},
		"no row":           {db.QueryRow(`select 1 where 0`).Scan(new(int)), groups.ErrNotFound},
		"read-only":        {errors.Join(exec(`pragma query_only = 1`), exec(`insert into b values (1)`)), groups.ErrUnavailable},
		"deadline":         {fmt.Errorf("x: %w", context.DeadlineExceeded), groups.ErrUnavailable},
		"cancelled":        {fmt.Errorf("x: %w", context.Canceled), context.Canceled},
		"lost connection":  {driver.ErrBadConn, groups.ErrUnavailable},
		"ended connection": {sql.ErrConnDone, groups.ErrUnavailable},
		"a fault of ours":  {exec(`select nothing from nowhere`), nil},
	} {
		if c.err == nil {
			t.Errorf("%s: no error to look at", name)
			continue
		}
		for _, m := range meanings {
			if got := errors.Is(failed("step", c.err), m); got != (m == c.want) {
				t.Errorf("%s: is %v: %v (%v)", name, m, got, c.err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := failed("step", exec(`select 1`)); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	if failed("step", nil) != nil {
		t.Error("no error became one")
	}
}
