package e2e

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore" // registers the driver as well
)

// openRaw opens a database file with nothing of ours in between.
func openRaw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func vacuum(t *testing.T, from, to string) {
	t.Helper()
	db := openRaw(t, from)
	defer db.Close()
	if _, err := db.Exec("vacuum into ?", to); err != nil {
		t.Fatal(err)
	}
}

// killRounds is how often the process is killed. Four people sign in at once
// in every round; what the provider says of them alternates between two sets.
const killRounds = 200

func killSets() (sets [2][]string) {
	for i := range 30 {
		sets[i%2] = append(sets[i%2], fmt.Sprintf("group-%02d", i))
		if i%5 == 0 { // some are in both
			sets[1-i%2] = append(sets[1-i%2], fmt.Sprintf("group-%02d", i))
		}
	}
	return sets
}

// GS-11, SC-12: whenever the process is killed, every person has one whole set, the one that
// the last statement on record speaks of, and who was told of a session has
// one.
func TestKilledAtAnyMoment(t *testing.T) {
	rounds := killRounds
	if testing.Short() {
		rounds = 10
	}
	sets := killSets()
	names := []string{"alice", "bob", "carol", "dora"}
	var people []claimstest.Person
	for _, n := range names {
		people = append(people, person(n))
	}
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: people})
	p := newPlace(t)
	p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue+"sync: {guard: {max_removed_users: 100%, window: 1m}}\n")
	chance := rand.New(rand.NewPCG(1, 2))
	told, interrupted := 0, 0
	for round := range rounds {
		for _, n := range names {
			op.SetClaims(n, claimsOf(n, sets[round%2]...))
		}
		g := p.start(t)
		// Between nothing at all and all four logins through.
		delay := time.Duration(chance.IntN(40_000)) * time.Microsecond
		if round%8 == 7 {
			delay = patience // until all are through, however busy the machine is
		}
		sessions := signInAndKill(g, names, delay)
		told += len(sessions)
		interrupted += len(names) - len(sessions)
		checkStore(t, p, sets, sessions)
		if t.Failed() {
			t.Fatalf("round %d, killed after %s", round, delay)
		}
	}
	t.Logf("%d rounds: %d logins were through, %d were cut short", rounds, told, interrupted)
	if told == 0 || interrupted == 0 {
		t.Error("the kills were not spread over the logins")
	}
}

// signInAndKill signs everybody in at once and kills the process after a
// moment, or when all are through. It answers the cookies of those who were told that they are in.
func signInAndKill(g *gate, names []string, delay time.Duration) map[string]string {
	var mu sync.Mutex
	sessions := map[string]string{}
	var work sync.WaitGroup
	for _, n := range names {
		work.Go(func() {
			b := claimstest.NewBrowser(nil)
			defer b.Close()
			// An error is what a killed server looks like.
			_, _ = b.Login(g.url()+"/", n)
			if c := cookie(b, g); c != "" {
				mu.Lock()
				sessions[n] = c
				mu.Unlock()
			}
		})
	}
	through := make(chan struct{})
	go func() { work.Wait(); close(through) }()
	select {
	case <-time.After(delay):
	case <-through:
	}
	g.kill()
	<-through
	return sessions
}

func checkStore(t *testing.T, p place, sets [2][]string, sessions map[string]string) {
	t.Helper()
	raw := openRaw(t, p.store())
	defer raw.Close()
	var said string
	if err := raw.QueryRow("pragma integrity_check").Scan(&said); err != nil || said != "ok" {
		t.Errorf("integrity: %q %v", said, err)
	}
	var table string
	if err := raw.QueryRow(`select "table" from pragma_foreign_key_check`).Scan(&table); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("foreign keys: %q %v", table, err)
	}
	store, err := sqlstore.OpenSQLite(t.Context(), p.store(), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	users, err := store.Users(t.Context(), "", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		have, err := store.GroupNames(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(have, sets[0]) && !slices.Equal(have, sets[1]) {
			t.Errorf("%s has a mixture: %s", u.Name, strings.Join(have, " "))
		}
		ids, err := store.Identities(t.Context(), u.ID)
		if err != nil || len(ids) != 1 {
			t.Fatalf("%s: %d identities, %v", u.Name, len(ids), err)
		}
		stated := ids[0].Claims.Resolve("groups").Values
		slices.Sort(stated)
		if !slices.Equal(have, stated) {
			t.Errorf("%s has %s; the statement on record says %s", u.Name, have, stated)
		}
		checkEvents(t, store, u)
	}
	for name, c := range sessions {
		_, value, _ := strings.Cut(c, "=")
		s, err := store.Session(t.Context(), sha256.Sum256([]byte(value)))
		if err != nil {
			t.Errorf("%s was told of a session that is not there: %v", name, err)
			continue
		}
		if s.Login.Subject != name {
			t.Errorf("%s has the session of %s", name, s.Login.Subject)
		}
	}
}

// checkEvents replays the audit trail: what it says was added and removed is
// what the person has. So no sync is without its event, and no event without
// its sync.
func checkEvents(t *testing.T, store groups.Store, u groups.User) {
	t.Helper()
	replay := map[string]int{}
	before := int64(0)
	for {
		events, err := store.Events(t.Context(), groups.EventQuery{User: u.ID, Before: before, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Change == nil {
				continue
			}
			for _, g := range e.Change.Added {
				replay[g]++
			}
			for _, g := range e.Change.Removed {
				replay[g]--
			}
		}
		if len(events) < 500 {
			break
		}
		before = events[len(events)-1].ID
	}
	have, err := store.GroupNames(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(replay, func(_ string, n int) bool { return n == 0 })
	told := slices.Sorted(maps.Keys(replay))
	if !slices.Equal(told, have) || slices.ContainsFunc(told, func(g string) bool { return replay[g] != 1 }) {
		t.Errorf("%s has %s; the audit trail adds up to %v", u.Name, have, replay)
	}
}

// A process that is killed while it makes its store leaves one that the next
// process can finish.
func TestKilledWhileTheStoreIsMade(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", "eng")}})
	chance := rand.New(rand.NewPCG(3, 4))
	for range rounds {
		p := newPlace(t)
		p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue)
		g := p.launch(t)
		time.Sleep(time.Duration(chance.IntN(60_000)) * time.Microsecond)
		g.kill()
		g = p.start(t)
		if got := signIn(t, g, newBrowser(t), "alice").Get("X-Forwarded-Groups"); got != "eng" {
			t.Errorf("groups %q", got)
		}
		g.kill()
	}
}

// Killed processes leave nothing that a browser would trip over: the login
// that was cut short works at the next process.
func TestLoginGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", "eng")}})
	p := newPlace(t)
	p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue)
	g, b := p.start(t), newBrowser(t)
	page := get(t, b, g.url()+"/deep")
	g.kill()
	p.start(t)
	page, err := b.Submit(page, map[string]string{"person": "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusOK || page.URL.Path != "/deep" || received(t, page).Get("X-Forwarded-Groups") != "eng" {
		t.Errorf("%d at %s", page.Status, page.URL)
	}
}
