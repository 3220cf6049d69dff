package groups_test

import (
	"cmp"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a directory on a real SQLite file, with a clock of its own.
type house struct {
	t     testing.TB
	path  string
	store *sqlstore.Store
	dir   *groups.Directory

	mu      sync.Mutex
	clock   time.Time
	notices []groups.Notice
	serial  int
	tick    func() // runs once, when somebody next looks at the clock
}

var epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// settings are the tests' usual ones: sources s (keep) and t (clear), both of
// which take values of "groups" as names.
func settings(edit ...func(*groups.Settings)) groups.Settings {
	s := groups.Settings{
		Sync:  groups.DefaultSync,
		Names: claims.Names{User: "user", Email: "email", Name: "name"},
		Sources: []groups.SourceSettings{
			{Name: "s", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep}},
			{Name: "t", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Clear}},
		},
		Rules: []groups.Rule{
			{ID: "fs", Source: "s", Claim: "groups", Any: true, Location: "groupgate.yaml:9"},
			{ID: "ft", Source: "t", Claim: "groups", Any: true, Location: "groupgate.yaml:10"},
		},
	}
	for _, e := range edit {
		e(&s)
	}
	return s
}

func newHouse(t testing.TB, edit ...func(*groups.Settings)) *house {
	t.Helper()
	h := openHouse(t, func(s groups.Store) groups.Store { return s })
	h.configure(edit...)
	return h
}

// openHouse makes a directory on a wrapped store, not yet configured.
func openHouse(t testing.TB, wrap func(groups.Store) groups.Store) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), "groupgate.db"), clock: epoch0}
	var err error
	// Polling is for other processes; there are none here.
	h.store, err = sqlstore.OpenSQLite(t.Context(), h.path, sqlstore.Options{PollInterval: time.Minute, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	h.dir = groups.NewDirectory(groups.Options{Store: wrap(h.store), Now: h.now})
	h.store.Watch(func(n groups.Notice) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.notices = append(h.notices, n)
	})
	return h
}

func (h *house) now() time.Time {
	h.mu.Lock()
	at, tick := h.clock, h.tick
	h.tick = nil
	h.mu.Unlock()
	if tick != nil {
		tick()
	}
	return at
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock = h.clock.Add(d)
}

// told answers the notices since the last call.
func (h *house) told() []groups.Notice {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.notices
	h.notices = nil
	return out
}

func (h *house) configure(edit ...func(*groups.Settings)) {
	h.t.Helper()
	if err := h.dir.Configure(h.t.Context(), settings(edit...)); err != nil {
		h.t.Fatal(err)
	}
}

// identity is a statement of a source about a person, issued at a minute.
func identity(t testing.TB, source, subject string, minute int, js string) *claims.Identity {
	t.Helper()
	c, err := claims.Parse([]byte(js))
	if err != nil {
		t.Fatalf("claims %s: %v", js, err)
	}
	return &claims.Identity{Source: source, Subject: subject, Claims: c, IssuedAt: epoch0.Add(time.Duration(minute) * time.Minute)}
}

// groupsOf is a statement of a user name and of groups.
func groupsOf(user string, names ...string) string {
	return fmt.Sprintf(`{"user":%q,"groups":[%s]}`, user, quoted(names))
}

func quoted(names []string) string {
	var q []string
	for _, n := range names {
		q = append(q, fmt.Sprintf("%q", n))
	}
	return strings.Join(q, ",")
}

// login signs a person in with a new session.
func (h *house) login(id *claims.Identity) (*groups.Signed, error) {
	return h.dir.SignIn(h.t.Context(), h.signIn(id))
}

func (h *house) signIn(id *claims.Identity) groups.SignIn {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serial++
	return groups.SignIn{
		Identity: id, Request: fmt.Sprintf("req%d", h.serial),
		Login: &groups.Login{
			ID: fmt.Sprintf("login%d", h.serial), Source: id.Source, Subject: id.Subject,
			Created: h.clock, Expires: h.clock.Add(12 * time.Hour), ClaimsAt: h.clock,
		},
		Session: &groups.Session{Hash: cookieHash(h.serial), Used: h.clock},
	}
}

func cookieHash(n int) [32]byte { return sha256.Sum256(fmt.Appendf(nil, "cookie%d", n)) }

func (h *house) mustLogin(source, subject string, minute int, js string) *groups.Signed {
	h.t.Helper()
	out, err := h.login(identity(h.t, source, subject, minute, js))
	if err != nil {
		h.t.Fatalf("login of %s/%s: %v", source, subject, err)
	}
	return out
}

// sync takes a statement in without a session, as a repeated sync does.
func (h *house) sync(id *claims.Identity) *groups.Signed {
	h.t.Helper()
	out, err := h.dir.SignIn(h.t.Context(), groups.SignIn{Identity: id})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// in lists a user's memberships: "group:sources+by".
func (h *house) in(user groups.UserID) string {
	h.t.Helper()
	have, err := h.store.Memberships(h.t.Context(), user)
	if err != nil {
		h.t.Fatal(err)
	}
	return show(have)
}

func show(have []groups.Membership) string {
	var out []string
	for _, m := range have {
		var why []string
		for _, g := range m.Grants {
			why = append(why, g.Source)
		}
		why = slices.Compact(why)
		if m.By != "" {
			why = append(why, "by "+m.By)
		}
		out = append(out, m.Group+":"+strings.Join(why, "+"))
	}
	return strings.Join(out, " ")
}

func (h *house) want(user groups.UserID, want string) {
	h.t.Helper()
	if got := h.in(user); got != want {
		h.t.Errorf("memberships %q, want %q", got, want)
	}
}

func (h *house) wantErr(err, want error) {
	h.t.Helper()
	if !errors.Is(err, want) {
		h.t.Errorf("error %v, want %v", err, want)
	}
}

// events lists kinds of events, oldest first.
func (h *house) events(q groups.EventQuery) []groups.Event {
	h.t.Helper()
	all, err := h.store.Events(h.t.Context(), q)
	if err != nil {
		h.t.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

func (h *house) kinds(q groups.EventQuery) string {
	h.t.Helper()
	var out []string
	for _, e := range h.events(q) {
		out = append(out, e.Kind)
	}
	return strings.Join(out, " ")
}

// user finds a user's id by name; 0 when there is none.
func (h *house) user(name string) groups.UserID {
	h.t.Helper()
	u, err := h.store.UserByName(h.t.Context(), name)
	if errors.Is(err, groups.ErrNotFound) {
		return 0
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return u.ID
}

// file opens the database a second time, past the store.
func (h *house) file() *sql.DB {
	h.t.Helper()
	db, err := sql.Open("sqlite", h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	db.SetMaxOpenConns(1) // data_version compares on one connection
	h.t.Cleanup(func() { _ = db.Close() })
	return db
}

// version changes whenever somebody else commits a change to the file.
func version(t testing.TB, db *sql.DB) (v int64) {
	t.Helper()
	if err := db.QueryRow("pragma data_version").Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// dump is every row of every table but those named, as text.
func dump(t testing.TB, db *sql.DB, but ...string) string {
	t.Helper()
	var tables []string
	rows, err := db.Query("select name from sqlite_master where type = 'table' order by name")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(but, name) && !strings.HasPrefix(name, "sqlite_") {
			tables = append(tables, name)
		}
	}
	if err := cmp.Or(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range tables {
		dumpTable(t, db, &b, name)
	}
	return b.String()
}

func dumpTable(t testing.TB, db *sql.DB, b *strings.Builder, name string) {
	t.Helper()
	rows, err := db.Query(`select * from "` + name + `"`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values := make([]any, len(cols))
		into := make([]any, len(cols))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(b, "%s %v\n", name, values)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// linked makes sources s and t share their people.
func linked(s *groups.Settings) { s.Link = []string{"s", "t"} }

// stored has no rules in the file, so that the tests write them.
func stored(s *groups.Settings) { s.Rules = nil }

func (h *house) putRule(r groups.Rule) {
	h.t.Helper()
	if _, err := h.dir.PutRule(h.t.Context(), r, "root"); err != nil {
		h.t.Fatal(err)
	}
}

func valueRule(id, source, value, group string) groups.Rule {
	return groups.Rule{ID: id, Source: source, Claim: "groups", Value: value, Group: group}
}
