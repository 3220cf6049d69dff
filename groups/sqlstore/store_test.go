package sqlstore_test

import (
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/groupstest"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// withServers ends the servers that the tests share.
type withServers struct{ m *testing.M }

func (w withServers) Run() int { return testenv.Main(w.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServers{m}) }

func open(t testing.TB, path string, opts sqlstore.Options) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.OpenSQLite(t.Context(), path, opts)
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

func TestSQLiteStore(t *testing.T) {
	t.Parallel()
	groupstest.TestStore(t, func(t *testing.T) groups.Store {
		return open(t, filepath.Join(t.TempDir(), "groupgate.db"), sqlstore.Options{})
	})
}

// GS-24: two processes on one file see each other, and keep its rules.
func TestSQLiteSharedStore(t *testing.T) {
	t.Parallel()
	groupstest.TestSharedStore(t, func(t *testing.T) func(*testing.T) groups.Store {
		path := filepath.Join(t.TempDir(), "groupgate.db")
		return func(t *testing.T) groups.Store { return open(t, path, sqlstore.Options{PollInterval: time.Second}) }
	})
}
