package sqlstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// GS-12: a schema that is newer, and what is no database of ours.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("text.db"), []byte(strings.Repeat("a text file ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("folder.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	newer, err := sqlstore.OpenSQLite(t.Context(), at("newer.db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := newer.Close(); err != nil {
		t.Fatal(err)
	}
	mustExec(t, at("newer.db"), "insert into goose_db_version (version_id, is_applied) values (9999, 1)")
	if err := os.WriteFile(at("foreign.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustExec(t, at("foreign.db"), "create table theirs (x)")

	for path, want := range map[string]string{
		":memory:":                 "not a file",
		"":                         "not a file",
		at("missing/groupgate.db"): "the folder " + at("missing") + " does not exist",
		at("text.db/groupgate.db"): "is not a folder",
		at("text.db"):              "not a database",
		at("folder.db"):            "not a regular file",
		at("newer.db"):             "version 9999, this program knows versions up to",
		at("foreign.db"):           "another application",
	} {
		s, err := sqlstore.OpenSQLite(t.Context(), path, sqlstore.Options{})
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
	if _, err := os.Stat(at("missing")); err == nil {
		t.Error("a folder was made")
	}
	// The controls: what was refused was not changed, and a good path opens.
	if b, err := os.ReadFile(at("text.db")); err != nil || !strings.HasPrefix(string(b), "a text file ") {
		t.Errorf("the text file was changed: %v", err)
	}
	open(t, at("good.db"), sqlstore.Options{})
}

func mustExec(t *testing.T, path, text string) {
	t.Helper()
	db := raw(t, path)
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whoever copies the file of a store that was closed copies everything.
func TestCloseLeavesOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "groupgate.db"), sqlstore.Options{})
	mustAdd(t, s, "alice")
	if !has(t, s, "alice") {
		t.Fatal("alice is not there")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Fatalf("left after Close: %v, %v", left, err)
	}
	if !has(t, open(t, filepath.Join(dir, "groupgate.db"), sqlstore.Options{}), "alice") {
		t.Fatal("alice went")
	}
}

func TestFileIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "100% odd?name#.db")
	s := open(t, path, sqlstore.Options{})
	mustAdd(t, s, "alice")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		fi, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%q has mode %o", suffix, fi.Mode().Perm())
		}
	}
}

// GS-23: several processes start on a new file at the same moment; each must come up,
// and the schema must be made once.
func TestStartTogetherMigratesOnce(t *testing.T) {
	t.Parallel()
	all, err := filepath.Glob("migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		path := filepath.Join(t.TempDir(), "groupgate.db")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s, err := sqlstore.OpenSQLite(t.Context(), path, sqlstore.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var n int
		if err := raw(t, path).QueryRow("select count(*) from goose_db_version where version_id > 0").Scan(&n); err != nil || n != len(all) {
			t.Fatalf("%d migrations noted, %v", n, err)
		}
	}
}

// A database of the version before keeps its logins, also those that a process
// of that version still writes beside a new one; and the way back is open.
func TestMigrationOfAliases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	open(t, path, sqlstore.Options{}).Close()
	sqlstore.MigrateDown(t, path, 1)
	mustExec(t, path, "insert into users (name, name_key, email, email_key, display, created) values ('alice', 'alice', '', '', '', 1)")
	old := "insert into logins (id, user_id, source, subject, session, created, expires, claims_at) values ('%s', 1, 's', 'x', '', 1, 2, 1)"
	mustExec(t, path, fmt.Sprintf(old, "before"))
	s := open(t, path, sqlstore.Options{})
	mustExec(t, path, fmt.Sprintf(old, "beside"))
	for _, id := range []string{"before", "beside"} {
		if l, err := s.LoginByID(t.Context(), id); err != nil || l.Subject != "x" || l.Alias != "" {
			t.Errorf("%s: %+v, %v", id, l, err)
		}
	}
	err := s.Update(t.Context(), func(tx groups.Tx) error {
		return tx.PutLogin(t.Context(), &groups.Login{ID: "after", User: 1, Source: "s", Subject: "x", Alias: "n"})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	sqlstore.MigrateDown(t, path, 1)
	var n int
	if err := raw(t, path).QueryRow("select count(*) from logins where subject = 'x'").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d logins after the way back, %v", n, err)
	}
	if err := raw(t, path).QueryRow("select count(*) from pragma_table_info('logins') where name = 'alias'").Scan(&n); err != nil || n != 0 {
		t.Errorf("the column is still there: %d, %v", n, err)
	}
	open(t, path, sqlstore.Options{}).Close()
}

// Version 2 becomes 3 with everything in it; a process of version 2 that runs
// beside goes on, and when it deletes a user the account goes too. The way back
// is open.
func TestMigrationOfLocalUsers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	open(t, path, sqlstore.Options{}).Close()
	sqlstore.MigrateDown(t, path, 2)
	// These are statements of version 2.
	user := "insert into users (name, name_key, email, email_key, display, created) values ('%[1]s', '%[1]s', '', '', '', 1)"
	mustExec(t, path, fmt.Sprintf(user, "alice"))
	s := open(t, path, sqlstore.Options{})
	mustExec(t, path, fmt.Sprintf(user, "bob"))
	mustExec(t, path, "insert into identities (user_id, source, subject, claims, incomplete, issued_at, seen, fingerprint) values (2, 'op', 'b', '{}', '', 1, 1, '')")
	mustExec(t, path, "insert into logins (id, user_id, source, subject, session, alias, created, expires, claims_at) values ('l', 2, 'op', 'b', '', '', 1, 2, 1)")
	err := s.Update(t.Context(), func(tx groups.Tx) error {
		for i, name := range []string{"alice", "bob"} {
			u, err := tx.UserByName(t.Context(), name)
			if err != nil {
				return err
			}
			a := groups.LocalAccount{User: *u, Source: "local", Subject: string(rune('A' + i))}
			if err := tx.CreateLocalAccount(t.Context(), &a, "h"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	old := raw(t, path)
	old.SetMaxOpenConns(1)
	for _, text := range []string{"pragma foreign_keys = 1", "delete from users where id = 2"} {
		if _, err := old.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	left, err := s.LocalAccounts(t.Context(), "local", 0, 10)
	if err != nil || len(left) != 1 || left[0].User.Name != "alice" {
		t.Errorf("left: %+v, %v", left, err)
	}
	old.Close()
	s.Close()
	sqlstore.MigrateDown(t, path, 2)
	if !has(t, open(t, path, sqlstore.Options{}), "alice") {
		t.Error("alice went on the way back and forth")
	}
}

// A process that dies while it migrates leaves an empty database, not half a
// schema: goose's work is one transaction of ours.
func TestFailedMigrationLeavesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	sqlstore.FailMigration(t, path)
	var n int
	if err := raw(t, path).QueryRow("select count(*) from sqlite_master").Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d tables are there, %v", n, err)
	}
	mustAdd(t, open(t, path, sqlstore.Options{}), "alice")
}
