package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// write makes a user and an event that says so.
func write(ctx context.Context, s groups.Store, name string) error {
	return s.Update(ctx, func(tx groups.Tx) error {
		return errors.Join(tx.CreateUser(ctx, &groups.User{Name: name}),
			tx.AddEvents(ctx, groups.Event{Kind: "made", Request: name}), tx.Notify(ctx, groups.Notice{Login: name}))
	})
}

// once checks that what was answered with success is there, and nothing twice.
func once(t *testing.T, s groups.Store, done map[string]error) {
	t.Helper()
	for name, answer := range done {
		_, err := s.UserByName(t.Context(), name)
		events, errEvents := s.Events(t.Context(), groups.EventQuery{Request: name})
		there := err == nil
		if errEvents != nil || there != (len(events) == 1) || len(events) > 1 || answer == nil && !there {
			t.Errorf("%s: answered %v; there: %v, with %d events, %v", name, answer, err, len(events), errEvents)
		}
	}
}

func isAway(t *testing.T, s groups.Store, limit time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := s.UserByName(t.Context(), "alice"); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
	if err := write(t.Context(), s, "nobody"); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("Update: %v", err)
	}
	if took := time.Since(began); took > limit {
		t.Errorf("it took %v to say so", took)
	}
}

// GS-12, GS-13, SC-12: the server is stopped, killed and started, and crashes.
func TestPostgresServerGoesAndComes(t *testing.T) {
	t.Parallel()
	server := testenv.OwnPostgres(t)
	name := server.NewDatabase(t, "")
	s := openPostgres(t, server.DSN(name), sqlstore.Options{PollInterval: 200 * time.Millisecond})
	var everybody atomic.Int64
	s.Watch(func(n groups.Notice) {
		if n == (groups.Notice{}) {
			everybody.Add(1)
		}
	})
	if err := write(t.Context(), s, "alice"); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(){"stopped": server.Stop, "killed": server.Kill} {
		told := everybody.Load()
		end()
		isAway(t, s, 4*time.Second)
		within(t, "unhealthy", func() bool { return errors.Is(s.Healthy(), groups.ErrUnavailable) })
		isAway(t, s, time.Second)
		if everybody.Load() != told {
			t.Errorf("%s: told of a recovery that was none", name)
		}
		server.Start(t)
		began := time.Now()
		within(t, "healthy", func() bool { return s.Healthy() == nil })
		within(t, "a notice for everybody", func() bool { return everybody.Load() > told })
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: back only %v after the server was", name, took)
		}
		if _, err := s.UserByName(t.Context(), "alice"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := write(t.Context(), s, "after "+name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A process of the server that is killed takes all others with it, in the
	// midst of whatever commits, and the server recovers from its log.
	done := keepWriting(t, s, func() {
		for i := range 3 {
			pid, err := strconv.Atoi(strings.TrimSpace(server.Do(t, name, "select pid from pg_stat_activity where application_name = 'groupgate' order by backend_start desc limit 1")))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			within(t, "the crash", func() bool { return syscall.Kill(pid, 0) != nil })
			tries := 0
			within(t, "the store is back", func() bool {
				tries++
				return write(t.Context(), s, fmt.Sprintf("back%d.%d", i, tries)) == nil
			})
		}
	})
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	once(t, s, done)
}

// keepWriting writes from several goroutines while something happens, and
// answers what came of each write.
func keepWriting(t *testing.T, s groups.Store, happens func()) map[string]error {
	t.Helper()
	var mu sync.Mutex
	done := map[string]error{}
	var over atomic.Bool
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := 0; !over.Load(); i++ {
				name := fmt.Sprintf("user%d.%d", w, i)
				err := write(t.Context(), s, name)
				if err != nil && !errors.Is(err, groups.ErrUnavailable) {
					t.Errorf("%s: %v", name, err)
				}
				mu.Lock()
				done[name] = err
				mu.Unlock()
				for err != nil && s.Healthy() != nil && !over.Load() {
					time.Sleep(5 * time.Millisecond) // until there is somebody to write to
				}
			}
		})
	}
	happens()
	over.Store(true)
	all.Wait()
	failed := 0
	for _, err := range done {
		if err != nil {
			failed++
		}
	}
	t.Logf("%d writes, %d of them unavailable", len(done), failed)
	if len(done) < 20 || failed == len(done) {
		t.Errorf("too few to show anything: %d, %d failed", len(done), failed)
	}
	return done
}

// Whose connection is ended by an administrator has it done again: nobody
// notices.
func TestPostgresConnectionsEnded(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	name := database(t, server)
	s := openPostgres(t, server.DSN(name), sqlstore.Options{PollInterval: 200 * time.Millisecond})
	if err := write(t.Context(), s, "alice"); err != nil {
		t.Fatal(err)
	}
	done := keepWriting(t, s, func() {
		for range 6 {
			before, _, _ := s.CountUsers(t.Context())
			within(t, "writes go on", func() bool {
				n, _, err := s.CountUsers(t.Context())
				return err == nil && n > before+3
			})
			server.Do(t, name, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'groupgate' and datname = current_database()")
			if _, err := s.UserByName(t.Context(), "alice"); err != nil {
				t.Errorf("read: %v", err)
			}
		}
	})
	for name, err := range done {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d transactions began again", s.Retried())
	if s.Retried() == 0 {
		t.Error("no transaction was interrupted")
	}
	once(t, s, done)
}

// GS-13: the server commits and the answer is lost; or the transaction is lost
// with the connection. Both are done once, and said to be.
func TestPostgresCommitWithoutAnswer(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dsn, w := through(t, server.DSN(database(t, server))+"&default_query_exec_mode=exec")
	s := openPostgres(t, dsn, sqlstore.Options{})
	for i, lost := range []string{"commit", "insert into users", "begin"} {
		runs := 0
		w.dropAfter.Store(&lost)
		name := fmt.Sprint("user", i)
		var u groups.User
		err := s.Update(t.Context(), func(tx groups.Tx) error {
			runs++
			u = groups.User{Name: name}
			return errors.Join(tx.CreateUser(t.Context(), &u), tx.AddEvents(t.Context(), groups.Event{Kind: "made", Request: name}))
		})
		if w.dropAfter.Load() != nil {
			t.Errorf("%s: nothing was lost", lost)
		}
		// A commit that has not begun when somebody asks for it never happens.
		if want := map[string][2]int{"commit": {1, 2}, "insert into users": {2, 2}, "begin": {1, 1}}[lost]; err != nil || runs < want[0] || runs > want[1] {
			t.Errorf("%s: %v, it ran %d times", lost, err, runs)
		}
		once(t, s, map[string]error{name: err})
		if got, err := s.UserByName(t.Context(), name); err != nil || got.ID != u.ID {
			t.Errorf("%s: the user has another id than was said: %v, %v", lost, got, err)
		}
	}
}

// A network that swallows everything: found out by time alone, and nobody waits
// for longer than that.
func TestPostgresPartition(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dsn, w := through(t, server.DSN(database(t, server)))
	s := openPostgres(t, dsn, sqlstore.Options{})
	if err := write(t.Context(), s, "alice"); err != nil {
		t.Fatal(err)
	}
	w.dark.Store(true)
	began := time.Now()
	isAway(t, s, 12*time.Second)
	if err := s.Healthy(); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("Healthy after %v: %v", time.Since(began), err)
	}
	isAway(t, s, time.Second)
	w.dark.Store(false)
	w.cut()
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	if err := write(t.Context(), s, "bob"); err != nil {
		t.Error(err)
	}
}

// A server that may be read alone is a standby that nobody has promoted.
func TestPostgresReadOnly(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	name := ownDatabase(t, server)
	s := openPostgres(t, server.DSN(name), sqlstore.Options{PollInterval: 100 * time.Millisecond})
	if err := write(t.Context(), s, "alice"); err != nil {
		t.Fatal(err)
	}
	set := func(value string) { // for connections from now on
		server.Do(t, "postgres", "alter database "+name+" set default_transaction_read_only = "+value+
			"; select pg_terminate_backend(pid) from pg_stat_activity where datname = '"+name+"'")
	}
	set("on")
	within(t, "unhealthy", func() bool { return errors.Is(s.Healthy(), groups.ErrUnavailable) })
	if err := write(t.Context(), s, "bob"); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("Update: %v", err)
	}
	if _, err := s.UserByName(t.Context(), "alice"); err != nil {
		t.Errorf("read: %v", err)
	}
	set("off")
	within(t, "healthy", func() bool { return s.Healthy() == nil })
	if err := write(t.Context(), s, "bob"); err != nil {
		t.Error(err)
	}
}
