package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// quick makes the poller look often, so that tests wait for milliseconds.
func quick() sqlstore.Options { return sqlstore.Options{PollInterval: 20 * time.Millisecond} }

// within waits until a condition holds; the promise is 3 poll intervals, the
// bound here is generous for a loaded machine.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func addUser(t *testing.T, s *sqlstore.Store, name string) error {
	return s.Update(t.Context(), func(tx groups.Tx) error {
		return tx.CreateUser(t.Context(), &groups.User{Name: name})
	})
}

func mustAdd(t *testing.T, s *sqlstore.Store, name string) {
	t.Helper()
	if err := addUser(t, s, name); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, s *sqlstore.Store, name string) bool {
	t.Helper()
	_, err := s.UserByName(t.Context(), name)
	if err != nil && !errors.Is(err, groups.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// zeroNotices counts the notices that mean everybody.
func zeroNotices(s *sqlstore.Store) func() int {
	var mu sync.Mutex
	n := 0
	s.Watch(func(notice groups.Notice) {
		mu.Lock()
		defer mu.Unlock()
		if notice == (groups.Notice{}) {
			n++
		}
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func isDown(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	if err := s.Healthy(); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("Healthy: %v", err)
	}
	if err := addUser(t, s, "nobody"); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("Update: %v", err)
	}
}

// GS-12.
func TestDatabaseMovedAwayAndBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	everybody := zeroNotices(s)
	mustAdd(t, s, "alice")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	// At once, before any poll: nothing is written into a file without a name.
	if err := addUser(t, s, "lost"); !errors.Is(err, groups.ErrUnavailable) {
		t.Fatalf("Update: %v", err)
	}
	within(t, "unhealthy", func() bool { return s.Healthy() != nil })
	isDown(t, s)
	if _, err := s.UserByName(t.Context(), "alice"); !errors.Is(err, groups.ErrUnavailable) {
		t.Fatalf("read: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a new file was made: %v", err)
	}
	if everybody() != 0 {
		t.Fatal("told of a recovery that was none")
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	within(t, "a notice for everybody", func() bool { return everybody() > 0 })
	mustAdd(t, s, "bob")
	if !has(t, s, "alice") || has(t, s, "lost") {
		t.Fatal("not the old content")
	}
}

// The pool opens connections when it likes; none may make a new file where the
// database was.
func TestReadersMakeNoFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, sqlstore.Options{PollInterval: time.Hour}) // the poller does not help
	mustAdd(t, s, "alice")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				if _, err := s.UserByName(t.Context(), "alice"); err != nil && !errors.Is(err, groups.ErrUnavailable) {
					t.Errorf("read: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a new file was made: %v", err)
	}
}

func TestDatabaseVanishesDuringATransaction(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	err := s.Update(t.Context(), func(tx groups.Tx) error {
		if err := tx.CreateUser(t.Context(), &groups.User{Name: "alice"}); err != nil {
			return err
		}
		return os.Rename(path, path+".away")
	})
	if !errors.Is(err, groups.ErrUnavailable) {
		t.Fatalf("Update: %v", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	if has(t, s, "alice") {
		t.Fatal("committed into a file that was gone")
	}
}

// A restored copy is put in place while we run: its content counts, and the
// old file's log must not be replayed into it.
func TestDatabaseReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, "groupgate.db"), filepath.Join(dir, "other.db")
	o, err := sqlstore.OpenSQLite(t.Context(), other, quick())
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, o, "restored")
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}

	s := open(t, path, quick())
	everybody := zeroNotices(s)
	for i := range 50 { // enough for a log with something in it
		mustAdd(t, s, fmt.Sprintf("old%d", i))
	}
	if err := errors.Join(os.Rename(path, path+".moved"), os.Rename(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := addUser(t, s, "lost"); !errors.Is(err, groups.ErrUnavailable) {
		t.Fatalf("Update: %v", err)
	}
	within(t, "the new content", func() bool {
		// Not "has": the old file may be let go of in the middle of a look.
		_, err := s.UserByName(t.Context(), "restored")
		return s.Healthy() == nil && err == nil
	})
	within(t, "a notice for everybody", func() bool { return everybody() > 0 })
	if has(t, s, "old1") {
		t.Fatal("the old log was replayed into the new file")
	}
	mustAdd(t, s, "new")
	check(t, path)
	// The moved file is whole: what its log held is in it.
	m := open(t, path+".moved", quick())
	if !has(t, m, "old49") || has(t, m, "new") {
		t.Fatal("the moved file lacks its last commits")
	}
	check(t, path+".moved")
}

// check runs SQLite's own integrity check.
func check(t *testing.T, path string) {
	t.Helper()
	db := raw(t, path)
	var verdict string
	if err := db.QueryRow("pragma integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Fatalf("integrity_check: %q, %v", verdict, err)
	}
}

func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=rw")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestDatabaseDeletedThenNew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	mustAdd(t, s, "alice")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	within(t, "unhealthy", func() bool { return s.Healthy() != nil })
	isDown(t, s)
	// What is no database does not count as one.
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, "the fault is named", func() bool { return strings.Contains(fmt.Sprint(s.Healthy()), "not a database") })
	isDown(t, s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	n := open(t, path, quick()) // another process starts afresh
	mustAdd(t, n, "bob")
	within(t, "the new file", func() bool { return s.Healthy() == nil && has(t, s, "bob") })
	if has(t, s, "alice") {
		t.Fatal("the old content is back")
	}
}

// GS-12.
func TestReadOnlyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	mustAdd(t, s, "alice")
	for mode, reads := range map[os.FileMode]bool{0o400: true, 0: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		within(t, "unhealthy", func() bool { return s.Healthy() != nil })
		isDown(t, s)
		within(t, fmt.Sprintf("reads with mode %o: %v", mode, reads), func() bool {
			_, err := s.UserByName(t.Context(), "alice")
			return (err == nil) == reads && (reads || errors.Is(err, groups.ErrUnavailable))
		})
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		within(t, "healthy", func() bool { return s.Healthy() == nil })
		if !has(t, s, "alice") {
			t.Fatal("the content went")
		}
	}
	mustAdd(t, s, "bob")
}

// GS-12, GS-24.
func TestWriteLockHeldByAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	mustAdd(t, s, "alice")
	everybody := zeroNotices(s)
	other := raw(t, path)
	if _, err := other.Exec("begin immediate"); err != nil {
		t.Fatal(err)
	}
	// Who waits may leave.
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := s.Update(ctx, func(groups.Tx) error { t.Error("it ran"); return nil })
	if !errors.Is(err, groups.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
		t.Fatalf("Update with a deadline: %v after %v", err, time.Since(start))
	}
	if !has(t, s, "alice") {
		t.Fatal("readers wait for a writer")
	}
	done := make(chan error)
	go func() { done <- addUser(t, s, "patient") }()
	within(t, "unhealthy while it waits", func() bool { return s.Healthy() != nil })
	if _, err := other.Exec("rollback"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("the lock is gone, Update: %v", err)
	}
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	within(t, "a notice for everybody", func() bool { return everybody() > 0 })
}

// GS-12.
func TestWriteLockHeldTooLong(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the whole of the lock's limit, 5 s")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	other := raw(t, path)
	if _, err := other.Exec("begin immediate"); err != nil {
		t.Fatal(err)
	}
	isUnavailable := addUser(t, s, "alice")
	if !errors.Is(isUnavailable, groups.ErrUnavailable) {
		t.Fatalf("Update: %v", isUnavailable)
	}
	within(t, "unhealthy after the failed write", func() bool { return s.Healthy() != nil })
	if _, err := other.Exec("rollback"); err != nil {
		t.Fatal(err)
	}
	// Nobody writes, the poller finds out by itself.
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	mustAdd(t, s, "alice")
}

// A write that SQLite cannot do ends the transaction for good, even when the
// function goes on as if nothing had happened. GS-12.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	s := open(t, path, quick())
	mustAdd(t, s, "alice")
	sqlstore.LimitPages(t, s, 0)
	long := []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	err := s.Update(t.Context(), func(tx groups.Tx) error {
		if err := tx.CreateUser(t.Context(), &groups.User{Name: "bob"}); err != nil {
			return err
		}
		if err := tx.PutMeta(t.Context(), "long", long); !errors.Is(err, groups.ErrUnavailable) {
			t.Errorf("PutMeta: %v", err)
		}
		if err := tx.CreateUser(t.Context(), &groups.User{Name: "carl"}); !errors.Is(err, groups.ErrUnavailable) {
			t.Errorf("after the fault: %v", err)
		}
		return nil
	})
	if !errors.Is(err, groups.ErrUnavailable) {
		t.Fatalf("Update: %v", err)
	}
	if has(t, s, "bob") || has(t, s, "carl") {
		t.Fatal("half of a transaction is there")
	}
	sqlstore.LimitPages(t, s, 1<<30)
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	if err := s.Update(t.Context(), func(tx groups.Tx) error { return tx.PutMeta(t.Context(), "long", long) }); err != nil {
		t.Fatalf("with room again: %v", err)
	}
}

// An interrupted write makes SQLite roll back on its own; what follows would
// be written without a transaction.
func TestInterruptedTransactionWritesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "groupgate.db"), quick())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Update(t.Context(), func(tx groups.Tx) error {
		if err := tx.CreateUser(t.Context(), &groups.User{Name: "alice"}); err != nil {
			return err
		}
		if err := tx.CreateUser(ctx, &groups.User{Name: "bob"}); !errors.Is(err, context.Canceled) {
			t.Errorf("CreateUser: %v", err)
		}
		_ = tx.CreateUser(t.Context(), &groups.User{Name: "carl"})
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Update: %v", err)
	}
	if has(t, s, "alice") || has(t, s, "carl") {
		t.Fatal("half of a transaction is there")
	}
	mustAdd(t, s, "alice")
}

// The log is copied by the poller, so that no commit has to.
func TestLogIsCopiedInTheBackground(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "groupgate.db"), quick())
	long := []byte(`"` + strings.Repeat("x", 6<<20) + `"`)
	if err := s.Update(t.Context(), func(tx groups.Tx) error { return tx.PutMeta(t.Context(), "long", long) }); err != nil {
		t.Fatal(err)
	}
	if used, _ := sqlstore.LogPages(t, s); used < 1000 {
		t.Fatalf("the log has %d pages, too few to show anything", used)
	}
	within(t, "the log is copied", func() bool { _, left := sqlstore.LogPages(t, s); return left == 0 })
	within(t, "healthy", func() bool { return s.Healthy() == nil })
}
