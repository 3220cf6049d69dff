package sqlstore_test

import (
	"sync"
	"testing"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/groupstest"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

func openPostgres(t testing.TB, dsn string, opts sqlstore.Options) *sqlstore.Postgres {
	t.Helper()
	s, err := sqlstore.OpenPostgres(t.Context(), dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// migrated is a database with the schema in it, which others are copied from.
// Making one costs more than most tests do in it, so they are used again.
var migrated struct {
	once sync.Once
	name string

	mu   sync.Mutex
	free []string
}

// ownDatabase makes a database in the shared server, with the schema.
func ownDatabase(t testing.TB, s *testenv.PostgresServer) string {
	t.Helper()
	migrated.once.Do(func() {
		name := s.NewDatabase(t, "")
		p, err := sqlstore.OpenPostgres(t.Context(), s.DSN(name), sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		migrated.name = name
	})
	return s.NewDatabase(t, migrated.name)
}

// emptied makes a directory what it was before its first use.
const emptied = `set lock_timeout = '10s';
do $$ begin
	execute (select 'truncate ' || string_agg(quote_ident(tablename), ', ') || ' restart identity cascade' from pg_tables
		where schemaname = 'public' and tablename not in ('groupgate_version', 'meta'));
end $$;
delete from meta where key not like 'store/%';
update meta set value = '1' where key = 'store/epoch'`

// database is an empty directory's, for a test that leaves the schema alone.
func database(t testing.TB, s *testenv.PostgresServer) (name string) {
	t.Helper()
	migrated.mu.Lock()
	if n := len(migrated.free); n > 0 {
		name, migrated.free = migrated.free[n-1], migrated.free[:n-1]
	}
	migrated.mu.Unlock()
	if name == "" {
		name = ownDatabase(t, s)
	}
	t.Cleanup(func() {
		s.Do(t, name, emptied)
		migrated.mu.Lock()
		defer migrated.mu.Unlock()
		migrated.free = append(migrated.free, name)
	})
	return name
}

func TestPostgresStore(t *testing.T) {
	t.Parallel()
	s := testenv.Postgres(t)
	groupstest.TestStore(t, func(t *testing.T) groups.Store {
		return openPostgres(t, s.DSN(database(t, s)), sqlstore.Options{})
	})
}

func TestPostgresSharedStore(t *testing.T) {
	t.Parallel()
	s := testenv.Postgres(t)
	groupstest.TestSharedStore(t, func(t *testing.T) func(*testing.T) groups.Store {
		dsn := s.DSN(database(t, s))
		return func(t *testing.T) groups.Store { return openPostgres(t, dsn, sqlstore.Options{}) }
	})
}

// Behind a pooler in transaction mode every statement may meet another server
// process.
func TestPgBouncerStore(t *testing.T) {
	t.Parallel()
	s := testenv.Postgres(t)
	b := testenv.PgBouncer(t, s)
	t.Run("one", func(t *testing.T) {
		groupstest.TestStore(t, func(t *testing.T) groups.Store {
			return openPostgres(t, b.DSN(database(t, s)), sqlstore.Options{})
		})
	})
	t.Run("shared", func(t *testing.T) {
		groupstest.TestSharedStore(t, func(t *testing.T) func(*testing.T) groups.Store {
			dsn := b.DSN(database(t, s))
			return func(t *testing.T) groups.Store { return openPostgres(t, dsn, sqlstore.Options{}) }
		})
	})
}
