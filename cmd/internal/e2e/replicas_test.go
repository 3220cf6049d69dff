package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

// atMost is the contract's bound for what one replica does to be seen by all.
const atMost = 2 * time.Second

// Three replicas are one groupgate: a login may touch another of them at every
// step, what is used once is used once, and what one changes all know.
func TestReplicasAreOne(t *testing.T) {
	t.Parallel()
	f := newFleet(t, servers.Postgres(t), "refresh: 2h", nil)
	alice, bob := f.signIn("alice"), f.signIn("bob")
	if !f.all(alice, 200, "eng") || !f.all(bob, 200, "eng") {
		t.Fatal("a session of one replica is not one of all")
	}

	// A code counts once, whichever replica it comes back to.
	b := newBrowser(t)
	hop := func(address string) string {
		t.Helper()
		res, err := b.Client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.Header.Get("Location")
	}
	authorize := hop(f.url() + "/_auth/start?source=op&rd=/")
	back, err := url.Parse(hop(authorize + "&login_hint=alice"))
	if err != nil || !strings.Contains(back.Path, "/callback/") {
		t.Fatalf("the provider answered %v, %v", back, err)
	}
	var jar []string
	for _, c := range b.Cookies(f.url()) {
		jar = append(jar, c.Name+"="+c.Value)
	}
	var codes []int
	var mu sync.Mutex
	var work sync.WaitGroup
	for i := range 12 {
		work.Go(func() {
			req, _ := http.NewRequest("GET", "http://"+f.places[i%3].public+back.RequestURI(), nil)
			req.Host = f.front
			req.Header.Set("Cookie", strings.Join(jar, "; "))
			res, err := f.host.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			mu.Lock()
			codes = append(codes, res.StatusCode)
			mu.Unlock()
		})
	}
	work.Wait()
	slices.Sort(codes)
	if codes[0] != 303 || codes[1] != 400 || codes[11] != 400 {
		t.Errorf("one code, twelve times at three replicas: %v", codes)
	}

	// A rule that one replica takes, all go by.
	var times []string
	for i, g := range f.gates {
		var made struct{ ID string }
		name := fmt.Sprintf("made%d", i)
		if status := g.api("POST", "/rules", map[string]any{"source": "op", "claim": "groups", "value": "eng", "group": name}, &made); status != 201 {
			t.Fatalf("rule at replica %d: %d", i, status)
		}
		d := f.within(atMost, "a rule is everybody's", func() bool { return f.all(alice, 200, "eng,"+name) })
		if status := g.api("DELETE", "/rules/"+made.ID, nil, nil); status != 204 && status != 200 {
			t.Fatalf("delete of a rule: %d", status)
		}
		times = append(times, fmt.Sprint(d, " and gone ", f.within(atMost, "a rule is gone for everybody", func() bool { return f.all(alice, 200, "eng") })))
	}
	t.Logf("a rule at all three after %v", times)

	// Signing out at one ends the session at all; another person's goes on.
	req, err := http.NewRequest("POST", "http://"+f.places[1].public+"/_auth/sign_out", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = f.front
	req.Header.Set("Cookie", alice)
	req.Header.Set("Origin", f.url())
	res, err := f.host.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	t.Logf("signed out at all three after %s", f.within(atMost, "the session is over", func() bool { return f.all(alice, 401, "") }))
	if !f.all(bob, 200, "eng") {
		t.Error("bob's session went with alice's")
	}

	// What may be tried of a password is what may be tried at all of them.
	var refused atomic.Int32
	for i := range 15 {
		c := newBrowser(t)
		form := get(t, c, f.url()+"/_auth/start?source=local")
		if i == 14 && refused.Load() == 0 {
			t.Error("14 attempts at three replicas, and none was one too many")
		}
		page, err := c.Submit(form, map[string]string{"username": "alice", "password": "not it"})
		if err != nil || page.Status != 401 && page.Status != 429 {
			t.Fatalf("attempt %d: %v, %+v", i, err, page)
		}
		if page.Status == 429 {
			refused.Add(1)
		}
	}
	if refused.Load() != 5 {
		t.Errorf("%d of 15 attempts were too many, not 5", refused.Load())
	}
}

// A refresh of one login is one call of the provider, whose refresh tokens work
// once, however many requests arrive at however many replicas.
func TestReplicasRefreshOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t, servers.Postgres(t), "refresh: 1s", nil)
	cookie := f.signIn("alice")
	for round := range 3 {
		want := fmt.Sprintf("round%d", round)
		f.all(cookie, 200, "") // each has the session in memory
		time.Sleep(1100 * time.Millisecond)
		f.op.SetPerson(person("alice", want))
		before, begin := f.op.Calls("token"), time.Now()
		var wrong atomic.Int32
		var work sync.WaitGroup
		for range 45 {
			work.Go(func() {
				if status, groups, err := f.answer(f.front, cookie); err != nil || status != 200 || groups != want {
					wrong.Add(1)
					t.Errorf("round %d: %d, %q, %v", round, status, groups, err)
				}
			})
		}
		work.Wait()
		// What was fresh gets old again on a busy machine, second by second.
		if calls, most := f.op.Calls("token")-before, 2+int(time.Since(begin)/time.Second); calls < 1 || calls > most {
			t.Errorf("round %d: %d calls of the provider, at most %d are one a second", round, calls, most)
		}
	}
}

// Each replica is stopped and started again while people work: nobody notices.
func TestReplicasRestartInTurn(t *testing.T) {
	t.Parallel()
	f := newFleet(t, servers.Postgres(t), "refresh: 2h", nil)
	cookie := f.signIn("alice")
	l := f.load(3, cookie, "eng")
	for i, g := range f.gates {
		g.signal(syscall.SIGTERM)
		<-g.exited
		if g.err != nil {
			t.Errorf("replica %d: %v\n%s", i, g.err, end(g.log.all()))
		}
		f.gates[i] = f.places[i].start(t)
	}
	asked := l.asked.Load()
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d of %d requests went wrong: %.5q", len(wrong), asked, wrong)
	}
	if asked < 50 || asked >= maxLoad {
		t.Errorf("%d requests: not all the time", asked)
	}
	t.Logf("%d requests", asked)
}

// kill -9 of a replica while people sign in: who was told "yes" is signed in at
// the others, and everybody else can be.
func TestReplicaKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, servers.Postgres(t), "refresh: 2h", nil)
	var people []claimstest.Person
	for i := range 12 {
		people = append(people, person(fmt.Sprintf("p%d", i), "eng"))
	}
	for _, p := range people {
		f.op.SetPerson(p)
	}
	cookies := make([]string, len(people))
	var work sync.WaitGroup
	var done atomic.Int32
	for i, p := range people {
		work.Go(func() {
			b := newBrowser(t)
			// A step that died with the replica is taken again, as a person does.
			for range 5 {
				if page, err := b.Login(f.url()+"/_auth/start?source=op&rd=/", p.Subject); err == nil && page.Status == 200 {
					break
				}
			}
			for _, c := range b.Cookies(f.url()) {
				if c.Name == "groupgate" {
					cookies[i] = "groupgate=" + c.Value
				}
			}
			done.Add(1)
		})
	}
	f.within(patience, "some are signed in", func() bool { return done.Load() >= 2 })
	f.gates[0].kill()
	work.Wait()
	for i, c := range cookies {
		if status, groups, err := f.answer(f.front, c); status != 200 || groups != "eng" || err != nil {
			t.Errorf("%s: %d, %q, %v", people[i].Subject, status, groups, err)
		}
	}
	f.gates[0] = f.places[0].start(t)
	if !f.all(cookies[0], 200, "eng") {
		t.Error("the replica that came back does not know the session")
	}
	var list struct {
		Items []struct{ ID string }
	}
	if status := f.gates[0].api("GET", "/users?limit=100", nil, &list); status != 200 || len(list.Items) != len(people) {
		t.Errorf("%d: %d people, want %d", status, len(list.Items), len(people))
	}
}

// PostgreSQL is stopped and started, then killed: nothing is forwarded
// meanwhile, nobody waits long for the answer, and everybody is still signed in
// when it is back.
func TestReplicasOutliveTheirDatabase(t *testing.T) {
	t.Parallel()
	pg := servers.OwnPostgres(t)
	f := newFleet(t, pg, "refresh: 2h", nil)
	cookie := f.signIn("alice")
	for _, how := range []func(){pg.Stop, pg.Kill} {
		how()
		f.within(8*time.Second, "nobody is let through without the store", func() bool { return f.all(cookie, 503, "") })
		before := f.up.requests.Load()
		for _, p := range f.places {
			begin := time.Now()
			if status, _, err := f.answer(p.public, cookie); status != 503 || err != nil || time.Since(begin) > 3*time.Second {
				t.Errorf("without the store: %d, %v after %s", status, err, time.Since(begin))
			}
		}
		if f.up.requests.Load() != before {
			t.Error("the application was asked without the store")
		}
		pg.Start(t)
		t.Logf("back after %s", f.within(10*time.Second, "the store is back", func() bool { return f.all(cookie, 200, "eng") }))
	}
}

// One replica is cut off from the database, and nobody tells it: it stops
// letting people through before it could be wrong, and comes back by itself.
func TestReplicaCutOff(t *testing.T) {
	t.Parallel()
	pg := servers.Postgres(t)
	cable := newWire(t, fmt.Sprintf("127.0.0.1:%d", pg.Port))
	f := newFleet(t, pg, "refresh: 2h", func(i int, dsn string) string {
		if i == 2 {
			return strings.Replace(dsn, fmt.Sprintf(":%d/", pg.Port), ":"+cable.Addr().String()[len("127.0.0.1:"):]+"/", 1)
		}
		return dsn
	})
	alice, bob := f.signIn("alice"), f.signIn("bob")
	if !f.all(alice, 200, "eng") || !f.all(bob, 200, "eng") {
		t.Fatal("before")
	}
	lonely := f.places[2].public
	cable.cut.Store(true)
	cut := time.Now()
	var users struct {
		Items []struct{ ID, User string }
	}
	if status := f.gates[0].api("GET", "/users?query=alice", nil, &users); status != 200 || len(users.Items) != 1 {
		t.Fatalf("%d, %v", status, users)
	}
	if status := f.gates[0].api("DELETE", "/users/"+users.Items[0].ID+"/sessions", nil, nil); status != 204 && status != 200 {
		t.Fatalf("sign out everywhere: %d", status)
	}
	f.within(8*time.Second, "the lonely one lets nobody through", func() bool {
		status, _, err := f.answer(lonely, alice)
		return err == nil && status == 503
	})
	t.Logf("closed %s after the cut", time.Since(cut))
	for _, p := range f.places[:2] {
		if status, _, _ := f.answer(p.public, alice); status != 401 {
			t.Errorf("alice, signed out, at a replica that knows: %d", status)
		}
		if status, _, _ := f.answer(p.public, bob); status != 200 {
			t.Errorf("bob at a replica that is well: %d", status)
		}
	}
	if f.gates[2].ready() == http.StatusOK {
		t.Error("the lonely one says it is ready")
	}
	cable.cut.Store(false)
	t.Logf("back after %s", f.within(10*time.Second, "it is back", func() bool { return f.all(bob, 200, "eng") }))
	if status, _, err := f.answer(lonely, alice); status != 401 {
		t.Errorf("alice, signed out meanwhile: %d, %v", status, err)
	}
}
