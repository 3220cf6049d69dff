package sqlstore_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// replicas are directories on stores of one database.
func replicas(t testing.TB, n int, dsn string) ([]*groups.Directory, []*sqlstore.Postgres) {
	t.Helper()
	var dirs []*groups.Directory
	var stores []*sqlstore.Postgres
	for range n {
		s := openPostgres(t, dsn, sqlstore.Options{})
		dirs, stores = append(dirs, configured(t, s)), append(stores, s)
	}
	return dirs, stores
}

func configured(t testing.TB, s groups.Store) *groups.Directory {
	t.Helper()
	d := groups.NewDirectory(groups.Options{Store: s, Now: time.Now})
	if err := d.Configure(t.Context(), groups.Settings{
		Sync: groups.DefaultSync, Names: claims.Names{User: "user"},
		Sources: []groups.SourceSettings{{Name: "s", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep}}},
		Rules:   []groups.Rule{{ID: "r", Source: "s", Claim: "groups", Any: true}},
	}); err != nil {
		t.Fatal(err)
	}
	return d
}

// signIn is the n-th sign-in there is, of a user with those groups.
func signIn(n int, user string, in ...string) groups.SignIn {
	id := &claims.Identity{Source: "s", Subject: user, IssuedAt: time.Now(), Claims: claims.FromMap(map[string][]string{"user": {user}, "groups": in})}
	now := time.Now()
	return groups.SignIn{
		Identity: id, Request: fmt.Sprintf("req%d", n),
		Login:   &groups.Login{ID: fmt.Sprintf("login%d", n), Source: "s", Subject: user, Created: now, Expires: now.Add(time.Hour), ClaimsAt: now},
		Session: &groups.Session{Hash: sha256.Sum256(fmt.Appendf(nil, "cookie%d", n)), Used: now},
	}
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return out
}

// A storm: everybody signs in for the first time at the same moment, at three
// replicas, into groups that nobody has made yet.
func TestPostgresFirstLoginsAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dirs, stores := replicas(t, 3, server.DSN(database(t, server)))
	const people = 200
	in := names("group", 20)
	began := time.Now()
	var all sync.WaitGroup
	for i := range people {
		all.Go(func() {
			if _, err := dirs[i%3].SignIn(t.Context(), signIn(i, fmt.Sprintf("user%d", i), in...)); err != nil {
				t.Errorf("user%d: %v", i, err)
			}
		})
	}
	all.Wait()
	retried := stores[0].Retried() + stores[1].Retried() + stores[2].Retried()
	t.Logf("%d first logins with %d groups in %v, %d transactions began again", people, len(in), time.Since(began).Round(time.Millisecond), retried)
	s := stores[0]
	if n, holders, err := s.CountUsers(t.Context()); n != people || holders != people || err != nil {
		t.Errorf("%d users, %d hold grants, %v", n, holders, err)
	}
	members := 0
	if err := s.EachMembership(t.Context(), func(_ groups.UserID, have []groups.Membership) error { members += len(have); return nil }); err != nil || members != people*len(in) {
		t.Errorf("%d memberships, %v", members, err)
	}
	for kind, want := range map[string]int{groups.EventSignIn: people, groups.EventUserCreated: people, groups.EventSync: people} {
		events, err := s.Events(t.Context(), groups.EventQuery{Kind: kind})
		if err != nil || len(events) != want {
			t.Errorf("%d events %s, %v", len(events), kind, err)
		}
	}
	tallied(t, s, groups.EventSignIn, people)
	if err := s.Update(t.Context(), func(tx groups.Tx) error { return tx.Sweep(t.Context(), time.Now().Add(2*time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	tallied(t, s, groups.EventSignIn, people)
}

// tallied counts what was counted of a kind, today and yesterday.
func tallied(t *testing.T, s groups.Store, kind string, want int) {
	t.Helper()
	all, err := s.Tally(t.Context(), time.Now().Add(-24*time.Hour), time.Hour, 48)
	n := 0
	for _, x := range all {
		if x.Kind == kind {
			n += x.Events
		}
	}
	if err != nil || n != want {
		t.Errorf("%d of %s are counted, want %d: %v", n, kind, want, err)
	}
}

// One person's syncs at once: the groups at the end are those of one of them,
// and the trail leads there step by step.
func TestPostgresOneUserAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dirs, stores := replicas(t, 3, server.DSN(database(t, server)))
	if _, err := dirs[0].SignIn(t.Context(), signIn(1000, "alice")); err != nil {
		t.Fatal(err)
	}
	const syncs = 50
	began := time.Now()
	var all sync.WaitGroup
	for i := range syncs {
		all.Go(func() {
			in := signIn(i, "alice", fmt.Sprintf("only%d", i%5), fmt.Sprintf("with%d", i%5))
			if _, err := dirs[i%3].SignIn(t.Context(), in); err != nil {
				t.Errorf("sync %d: %v", i, err)
			}
		})
	}
	all.Wait()
	s := stores[1]
	t.Logf("%d syncs of one user in %v, %d transactions began again", syncs, time.Since(began).Round(time.Millisecond),
		stores[0].Retried()+stores[1].Retried()+stores[2].Retried())
	u, err := s.UserByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	have, err := s.GroupNames(t.Context(), u.ID)
	if err != nil || len(have) != 2 || have[0][len("only"):] != have[1][len("with"):] {
		t.Errorf("groups of two statements: %q, %v", have, err)
	}
	list, err := s.Sessions(t.Context(), u.ID)
	if err != nil || len(list) != syncs+1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	events, err := s.Events(t.Context(), groups.EventQuery{Kind: groups.EventSync})
	if err != nil {
		t.Fatal(err)
	}
	walked := map[string]bool{}
	for _, e := range slices.Backward(events) {
		for _, g := range e.Change.Removed {
			if !walked[g] {
				t.Errorf("event %d takes %s away, which was not there", e.ID, g)
			}
			delete(walked, g)
		}
		for _, g := range e.Change.Added {
			if walked[g] {
				t.Errorf("event %d adds %s, which was there", e.ID, g)
			}
			walked[g] = true
		}
	}
	for _, g := range have {
		if !walked[g] {
			t.Errorf("no event leads to %s", g)
		}
	}
}

// tell has one store tell something, and answers how long it took until all
// others had heard it.
func tell(t *testing.T, from *sqlstore.Postgres, n groups.Notice, heard []chan groups.Notice) time.Duration {
	t.Helper()
	began := time.Now()
	if err := from.Update(t.Context(), func(tx groups.Tx) error { return tx.Notify(t.Context(), n) }); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for i, c := range heard {
		select {
		case got := <-c:
			if got != n {
				t.Errorf("store %d heard %+v, not %+v", i, got, n)
			}
		case <-deadline:
			t.Fatalf("store %d heard nothing", i)
		}
	}
	return time.Since(began)
}

// Every replica hears of a change, typically at once and always within 2 s.
func TestPostgresNoticesReachAll(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	name := database(t, server)
	bouncer := testenv.PgBouncer(t, server)
	for _, tc := range []struct {
		way     string
		dsn     string
		cut     bool
		typical time.Duration
	}{
		{"listening", server.DSN(name), false, 250 * time.Millisecond}, // 50 ms on a machine that has nothing else to do
		{"listening, cut", server.DSN(name), true, 2 * time.Second},
		{"PgBouncer", bouncer.DSN(name), false, 2 * time.Second},
	} {
		t.Run(tc.way, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			var stores []*sqlstore.Postgres
			var heard []chan groups.Notice
			for i := range 3 {
				stores = append(stores, openPostgres(t, tc.dsn, sqlstore.Options{Log: zap.New(core)}))
				c := make(chan groups.Notice, 100)
				stores[i].Watch(func(n groups.Notice) { c <- n })
				heard = append(heard, c)
			}
			var took []time.Duration
			for i := range 12 {
				if tc.cut {
					server.Do(t, name, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'groupgate' and datname = current_database()")
				}
				took = append(took, tell(t, stores[i%3], groups.Notice{User: groups.UserID(i + 1)}, heard))
				if tc.way == "PgBouncer" && i == 3 {
					break // each takes up to a second
				}
			}
			slices.Sort(took)
			t.Logf("typical %v, worst %v", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
			if took[len(took)/2] > tc.typical || took[len(took)-1] > 2*time.Second {
				t.Errorf("too late: %v", took)
			}
			if said := logs.FilterMessageSnippet("do not arrive").Len(); said != map[bool]int{true: 3}[tc.way == "PgBouncer"] {
				t.Errorf("%d of 3 stores say that notifications do not arrive", said)
			}
		})
	}
}

// A transaction that began before others and commits after them is not
// overlooked, though its numbers are smaller.
func TestPostgresLateNotice(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dsn := server.DSN(database(t, server))
	a, b := openPostgres(t, dsn, sqlstore.Options{}), openPostgres(t, dsn, sqlstore.Options{})
	got := make(chan groups.Notice, 10)
	b.Watch(func(n groups.Notice) { got <- n })
	next := func() groups.Notice {
		t.Helper()
		select {
		case n := <-got:
			return n
		case <-time.After(5 * time.Second):
			t.Fatal("nothing came")
			return groups.Notice{}
		}
	}
	slow, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close(context.Background())
	for _, text := range []string{"begin", "insert into notices (at, origin, user_id, login) values (1, 'another', 1, '')"} {
		if _, err := slow.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Update(t.Context(), func(tx groups.Tx) error { return tx.Notify(t.Context(), groups.Notice{User: 2}) }); err != nil {
		t.Fatal(err)
	}
	if n := next(); n.User != 2 {
		t.Errorf("first came %+v", n)
	}
	if _, err := slow.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if n := next(); n.User != 1 {
		t.Errorf("then came %+v", n)
	}
	select {
	case n := <-got:
		t.Errorf("told twice: %+v", n)
	case <-time.After(1500 * time.Millisecond): // longer than a poll interval
	}
}

// A sync of 2,000 groups asks as often as one of 20.
func TestPostgresRoundTrips(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	dsn, w := through(t, server.DSN(database(t, server)))
	s := openPostgres(t, dsn, sqlstore.Options{PollInterval: time.Hour})
	d := configured(t, s)
	all := names("group", 2000)
	trips := map[string][2]int64{}
	n := 0
	measure := func(what string, small bool, user string, in []string) {
		t.Helper()
		before, began := w.trips.Load(), time.Now()
		n++
		if _, err := d.SignIn(t.Context(), signIn(n, user, in...)); err != nil {
			t.Fatal(err)
		}
		took := w.trips.Load() - before
		t.Logf("%s, %d groups: %d round trips, %v", what, len(in), took, time.Since(began).Round(100*time.Microsecond))
		got := trips[what]
		if small {
			got[0] = took
		} else {
			got[1] = took
		}
		trips[what] = got
	}
	for i := range 3 { // statements are prepared
		measure("warm", true, fmt.Sprintf("warm%d", i), all[i*10:i*10+10])
		measure("warm", true, fmt.Sprintf("warm%d", i), all[i*10:i*10+5])
	}
	measure("first login, new groups", true, "a", names("few", 20))
	measure("first login, new groups", false, "b", all)
	measure("first login", true, "c", all[:20])
	measure("first login", false, "d", all)
	measure("nothing changed", true, "c", all[:20])
	measure("nothing changed", false, "d", all)
	measure("half of them go", true, "c", all[:10])
	measure("half of them go", false, "d", all[:1000])
	for what, n := range trips {
		if n[0] == 0 || what != "warm" && n[1] != n[0] {
			t.Errorf("%s: %d round trips for few groups, %d for many", what, n[0], n[1])
		}
	}
}
