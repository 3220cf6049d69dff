package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// The trail of a version before is counted and found as if it had been written
// now, what that version writes beside too, and the way back is open.
func TestMigrationOfTheTrail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groupgate.db")
	open(t, path, sqlstore.Options{}).Close()
	sqlstore.MigrateDown(t, path, 3)
	old := `insert into events (at, kind, user_id, source, grp, request, body) values (%d, 'sync', 1, 's', '%s', '', '%s')`
	hour := time.Hour.Microseconds()
	mustExec(t, path, fmt.Sprintf(old, 5*hour, "", `{"name":"alice","change":{"added":["x","y"],"skipped":[{"group":"z","reason":"r"}]}}`))
	mustExec(t, path, fmt.Sprintf(old, 5*hour+1, "y", `{}`))
	s := open(t, path, sqlstore.Options{})
	mustExec(t, path, fmt.Sprintf(old, 5*hour+2, "", `{"change":{"removed":["x"],"held":["y"]}}`))
	check := func(s *sqlstore.Store) {
		t.Helper()
		got, err := s.Tally(t.Context(), time.UnixMicro(5*hour), time.Hour, 1)
		if err != nil || len(got) != 1 || got[0].Events != 3 || got[0].Added != 2 || got[0].Removed != 1 {
			t.Errorf("tally: %+v, %v", got, err)
		}
		for _, tc := range []struct {
			q    groups.EventQuery
			want int
		}{{groups.EventQuery{Group: "x"}, 2}, {groups.EventQuery{Group: "y"}, 2}, {groups.EventQuery{Skipped: true}, 1}, {groups.EventQuery{Held: true}, 1}, {groups.EventQuery{From: time.UnixMicro(5 * hour)}, 3}} {
			if got, err := s.Events(t.Context(), tc.q); err != nil || len(got) != tc.want {
				t.Errorf("%+v: %d events, %v", tc.q, len(got), err)
			}
		}
	}
	check(s)
	s.Close()
	sqlstore.MigrateDown(t, path, 3)
	check(open(t, path, sqlstore.Options{}))
}

// fillTrail writes n events of the last days, as a busy place has them: many
// sign-ins, some syncs, few refusals.
const fillTrail = `with recursive i (n) as (select 0 union all select n + 1 from i where n < %d)
insert into events (at, kind, user_id, source, grp, request, body) select
	%d + n * %d, case when n %% 100 = 7 then 'refused' when n %% 10 = 3 then 'sync' else 'sign_in' end, 1 + n %% 1000,
	case when n %% 5000 = 7 then 'rare' else 'entra' end, '', printf('r%%09d', n),
	case when n %% 10 = 3 then printf('{"name":"alice","change":{"added":["g%%d","everyone"],"removed":["h"]}}', n %% 50) else '{"name":"alice"}' end
	from i`

// A million events: every question of a page is answered from an index.
func TestAMillionEvents(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	path := filepath.Join(t.TempDir(), "groupgate.db")
	open(t, path, sqlstore.Options{}).Close()
	sqlstore.MigrateDown(t, path, 3) // what comes after would be done a million times
	const n = 1_000_000
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	every := 14 * 24 * time.Hour.Microseconds() / n
	began := time.Now()
	mustExec(t, path, fmt.Sprintf(fillTrail, n-1, from.UnixMicro(), every))
	t.Logf("filled in %s", time.Since(began))
	began = time.Now()
	s := open(t, path, sqlstore.Options{})
	t.Logf("migrated in %s", time.Since(began))
	day := func(d int) time.Time { return from.AddDate(0, 0, d) }
	for name, q := range map[string]groups.EventQuery{
		"all": {}, "page": {Before: n / 2}, "kind": {Kind: "refused"}, "kind that is not there": {Kind: "guard"},
		"source": {Source: "rare"}, "source that is not there": {Source: "none"}, "source and kind": {Source: "rare", Kind: "sync"},
		"user": {User: 14}, "user and kind": {User: 14, Kind: "refused"}, "request": {Request: "r000000012"}, "request that is not there": {Request: "x"},
		"group": {Group: "g13"}, "group that is not there": {Group: "none"}, "group of a user": {Group: "everyone", User: 14}, "large group": {Group: "everyone"},
		"early": {From: day(1), To: day(2)}, "kind early": {Kind: "sync", From: day(1), To: day(2)}, "source early": {Source: "entra", To: day(1)},
		"group early": {Group: "everyone", To: day(1)}, "long ago": {To: day(-1)}, "to come": {From: day(50)}, "held": {Held: true}, "skipped": {Skipped: true},
	} {
		q.Limit = 51
		began := time.Now()
		got, err := s.Events(t.Context(), q)
		took := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-28s %4d events in %s", name, len(got), took)
		if took > 300*time.Millisecond {
			t.Errorf("%s: %s", name, took)
		}
	}
	began = time.Now()
	got, err := s.Tally(t.Context(), from, 24*time.Hour, 14)
	if took := time.Since(began); err != nil || took > 300*time.Millisecond {
		t.Errorf("tally: %s, %v", took, err)
	}
	sum := 0
	for _, g := range got {
		sum += g.Events
	}
	if sum != n {
		t.Errorf("%d events counted", sum)
	}
	t.Logf("tally in %s", time.Since(began))
}
