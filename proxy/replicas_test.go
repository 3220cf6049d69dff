package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

// sharedStore is a store that says that others work on it too.
type sharedStore struct{ groups.Store }

func (sharedStore) Shared() bool { return true }

// replicate puts n groupgates behind the rig's address, each with a store, a
// directory and a memory of its own. They take requests in turn.
func (r *rig) replicate(n int) []*proxy.Proxy {
	r.t.Helper()
	r.faults.shared = true
	all := []*proxy.Proxy{r.proxy}
	for len(all) < n {
		store, err := sqlstore.OpenSQLite(r.t.Context(), r.path, sqlstore.Options{PollInterval: 50 * time.Millisecond})
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { store.Close() })
		dir := groups.NewDirectory(groups.Options{Store: sharedStore{store}, Now: r.clock.Now})
		p := proxy.New(proxy.Options{Directory: dir, Log: zap.NewNop(), Access: zap.NewNop(), Now: r.clock.Now})
		if err := dir.Configure(r.t.Context(), r.groups); err != nil {
			r.t.Fatal(err)
		}
		if err := p.Configure(r.settings); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, p)
	}
	var turn atomic.Uint64
	r.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		all[turn.Add(1)%uint64(n)].ServeHTTP(w, req)
	})
	return all
}

// OI-16 over replicas: one of them asks the provider, whose refresh tokens work
// once; all of them go on with what it said.
func TestReplicasRenewOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replicate(3)
	cookie := r.signIn("alice")
	for round, want := range []string{"a", "b", "c"} {
		for range 3 { // each has the session in memory
			r.do("GET", "/", signedIn(cookie))
		}
		r.clock.advance(6 * time.Minute)
		r.op.SetPerson(person("alice", want))
		r.op.Lie(func(k *claimstest.Knobs) { k.Delay = 30 * time.Millisecond })
		before := r.up.count()
		var refused atomic.Int32
		calls := r.tokenCalls(func() {
			var wg sync.WaitGroup
			for range 60 {
				wg.Go(func() {
					if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
						refused.Add(1)
					}
				})
			}
			wg.Wait()
		})
		if calls != 1 || refused.Load() != 0 {
			t.Fatalf("round %d: %d token calls, %d refused", round, calls, refused.Load())
		}
		r.up.mu.Lock()
		for _, got := range r.up.got[before:] {
			if g := got.Header.Get("X-Forwarded-Groups"); g != want {
				t.Errorf("round %d: a request carried %q, want %q", round, g, want)
			}
		}
		r.up.mu.Unlock()
	}
}

// A replica that could not reach the provider says so to the others: nobody
// asks again for a while, and sessions live on.
func TestReplicasLeaveASourceAloneThatIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replicate(3)
	cookie := r.signIn("alice")
	down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	r.op.Lie(func(k *claimstest.Knobs) { k.TokenHandler = down })
	ask := func() int {
		return r.tokenCalls(func() {
			for range 6 {
				if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 || r.grouped() != "admins,engineering" {
					t.Errorf("%d, groups %q", res.StatusCode, r.grouped())
				}
			}
		})
	}
	r.clock.advance(6 * time.Minute)
	if calls := ask(); calls != 1 {
		t.Errorf("%d token calls of three replicas", calls)
	}
	r.clock.advance(31 * time.Second)
	if calls := ask(); calls != 1 {
		t.Errorf("%d token calls half a minute later", calls)
	}
	r.clock.advance(31 * time.Second)
	r.op.Lie(func(k *claimstest.Knobs) { k.TokenHandler = nil })
	r.op.SetPerson(person("alice", "back"))
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 || r.grouped() != "back" {
		t.Errorf("the source is back: %d, groups %q", res.StatusCode, r.grouped())
	}
}

// LD-12 over replicas: what may be tried is what may be tried at all of them
// together, of one person as of one network.
func TestReplicasThrottleTogether(t *testing.T) {
	t.Parallel()
	k := newKeeper("corp")
	r := newRig(t, withForm(k))
	r.replicate(3)
	for i := range 10 {
		must(t, fmt.Sprintf("wrong password %d", i), r.try(from(r.browser(), fmt.Sprintf("192.0.%d.1", i)), "alice", "not it"), 401)
	}
	for range 3 {
		must(t, "one too many", r.try(from(r.browser(), "198.51.100.1"), `CORP\Alice`, passwordOf("alice")), 429)
	}
	if n := k.calls(); n != 10 {
		t.Errorf("%d attempts reached the source", n)
	}
	must(t, "somebody else", r.try(from(r.browser(), "198.51.100.1"), "bob", passwordOf("bob")), 200)
	r.clock.advance(2 * time.Minute)
	must(t, "after the wait", r.try(from(r.browser(), "198.51.100.1"), "alice", passwordOf("alice")), 200)
	k.calls()
	for i := range 100 {
		r.try(from(r.browser(), "203.0.113.7"), fmt.Sprintf("somebody%d", i), "not it")
	}
	must(t, "the network's", r.try(from(r.browser(), "203.0.113.9"), "carol", passwordOf("carol")), 429)
	if n := k.calls(); n != 100 {
		t.Errorf("%d attempts of one network reached the source", n)
	}
}

// CK-06 over replicas: a session that one replica serves is in use, whatever
// another remembers of it.
func TestReplicasKnowOfEachOthersUse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settings.Session.Refresh = 24 * time.Hour
	r.configure()
	all := r.replicate(2)
	cookie := r.signIn("alice")
	r.do("GET", "/", signedIn(cookie))
	r.do("GET", "/", signedIn(cookie))
	r.server.Config.Handler = all[0]
	for range 5 {
		r.clock.advance(25 * time.Minute)
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Fatalf("in use: %d", res.StatusCode)
		}
		all[0].Tidy() // what Run does every half minute
	}
	r.server.Config.Handler = all[1]
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("at the replica that it was unused at: %d", res.StatusCode)
	}
	r.clock.advance(61 * time.Minute)
	for i, p := range all {
		r.server.Config.Handler = p
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 401 {
			t.Errorf("nobody used it for an hour; replica %d: %d", i, res.StatusCode)
		}
	}
}

// What is written under a lease that is over does not count; what the one who
// has it now writes does.
func TestLostLeaseWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.signIn("alice")
	login := sessionsOf(t, r, "alice")[0].Login
	turn := func() *groups.Refreshing {
		t.Helper()
		got, err := r.dir.BeginRefresh(t.Context(), login.ID, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	slow := turn()
	if other := turn(); !slow.Mine || other.Mine || other.Lease.Holder != slow.Lease.Holder {
		t.Fatalf("the first has it: %v, the second: %v", slow.Mine, other.Mine)
	}
	r.clock.advance(21 * time.Second)
	next := turn()
	if !next.Mine {
		t.Fatal("a lease that is over is still in the way")
	}
	keep := func(l groups.Login, by *groups.Lease) error {
		l.Grant = []byte(by.Holder)
		return r.dir.KeepLogin(t.Context(), &l, by)
	}
	if err := keep(slow.Login, &slow.Lease); err == nil || !strings.Contains(err.Error(), groups.ErrLeaseLost.Error()) {
		t.Errorf("by the lost lease: %v", err)
	}
	if err := keep(next.Login, &next.Lease); err != nil {
		t.Errorf("by the lease: %v", err)
	}
	if got := sessionsOf(t, r, "alice")[0].Login.Grant; string(got) != next.Lease.Holder {
		t.Errorf("stored: %q", got)
	}
}
