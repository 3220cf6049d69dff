package sqlstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups/sqlstore"
)

// A backup of a directory in use is one that opens, and the one of an older
// version is of that version. What is refused leaves no file behind.
func TestBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	s, err := sqlstore.OpenSQLite(t.Context(), at("used.db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustExec(t, at("used.db"), `insert into users (id, name, name_key, email, email_key, display, created) values (7, 'alice', 'alice', '', '', '', 1);
		insert into logins (id, user_id, source, subject, session, created, expires, claims_at) values ('a-login', 7, 'op', 'alice', '', 1, 2, 1);
		insert into sessions (hash, login_id, host, used) values ('a-session', 'a-login', '', 1)`)
	for _, file := range []string{"text.db", "taken.db"} {
		if err := os.WriteFile(at(file), []byte(strings.Repeat("a text file ", 500)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("foreign.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustExec(t, at("foreign.db"), "create table theirs (x)")

	rows, err := sqlstore.Backup(t.Context(), at("used.db"), at("copy.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if want := map[string]int64{"users": 1}[r.Name]; r.Rows != want {
			t.Errorf("%d rows in %s, want %d", r.Rows, r.Name, want)
		}
	}
	raw, err := os.ReadFile(at("copy.db"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); !strings.Contains(text, "alice") || strings.Contains(text, "a-session") || strings.Contains(text, "a-login") {
		t.Error("the copy has no alice, or what is left of a session")
	}
	if info, err := os.Stat(at("copy.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	copied, err := sqlstore.OpenSQLite(t.Context(), at("copy.db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if found, err := copied.Users(t.Context(), "", 0, 10); err != nil || len(found) != 1 {
		t.Errorf("users %v, %v", found, err)
	}

	for from, want := range map[string]string{
		"text.db": "not a database", "foreign.db": "another application", "missing.db": "no such file",
	} {
		if _, err := sqlstore.Backup(t.Context(), at(from), at("refused.db")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", from, err, want)
		}
		if _, err := os.Stat(at("refused.db")); !os.IsNotExist(err) {
			t.Errorf("%s left a file: %v", from, err)
		}
	}
	if _, err := sqlstore.Backup(t.Context(), at("used.db"), at("taken.db")); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over another file: %v", err)
	}
	if raw, err := os.ReadFile(at("taken.db")); err != nil || !strings.HasPrefix(string(raw), "a text file") {
		t.Error("another file was written over")
	}

	// As a program of tomorrow would find today's: what it does not know stays.
	mustExec(t, at("used.db"), "insert into goose_db_version (version_id, is_applied) values (9999, 1)")
	if _, err := sqlstore.Backup(t.Context(), at("used.db"), at("newer.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlstore.OpenSQLite(t.Context(), at("newer.db"), sqlstore.Options{}); err == nil || !strings.Contains(err.Error(), "version 9999") {
		t.Errorf("the copy of a newer version: %v", err)
	}
}
