package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// A signed-in request costs the store nothing; a miss costs it one reading,
// however many requests wait.
func TestSessionsAreServedFromMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.do("GET", "/", signedIn(cookie))
	before := r.faults.reads.Load()
	for range 50 {
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Fatal(res.StatusCode)
		}
	}
	if n := r.faults.reads.Load() - before; n != 0 {
		t.Errorf("50 requests read the store %d times", n)
	}
	if n := r.proxy.Dials(); n < 1 || n > 3 {
		t.Errorf("the upstream was dialed %d times", n)
	}
	r.configure() // forgets
	before = r.faults.reads.Load()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { r.do("GET", "/", signedIn(cookie)) })
	}
	wg.Wait()
	if n := r.faults.reads.Load() - before; n < 1 || n > 5 {
		t.Errorf("20 requests at once read the store %d times", n)
	}
}

// CK-08: idle time slides, the lifetime never does.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	short := func(r *rig) {
		r.settings.Session = proxy.SessionConfig{Lifetime: 3 * time.Hour, Idle: 20 * time.Minute, Refresh: 24 * time.Hour}
	}
	for _, c := range []struct {
		what  string
		steps []time.Duration
		want  int
	}{
		{"just within idle", []time.Duration{19 * time.Minute}, 200},
		{"idle", []time.Duration{21 * time.Minute}, 401},
		{"used, idle again", []time.Duration{15 * time.Minute, 15 * time.Minute, 15 * time.Minute}, 200},
		{"used, then idle", []time.Duration{15 * time.Minute, 21 * time.Minute}, 401},
		{"always used, over", repeated(13, 14*time.Minute), 401},
		{"always used, not over", repeated(12, 14*time.Minute), 200},
	} {
		for _, forgetful := range []bool{false, true} {
			t.Run(c.what, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, short)
				cookie := r.signIn("alice")
				status := 0
				for _, d := range c.steps {
					if forgetful {
						r.proxy.Tidy() // as a restart would: only the store knows
						r.proxy.Configure(r.settings)
					}
					r.clock.advance(d)
					status = r.do("GET", "/", signedIn(cookie)).StatusCode
				}
				if status != c.want {
					t.Errorf("forgetful %v: %d, want %d", forgetful, status, c.want)
				}
			})
		}
	}
}

func repeated(n int, d time.Duration) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = d
	}
	return out
}

// A notice drops a session from memory; how long it was idle must not be
// forgotten with it, though the store knows it only later.
func TestNoticesDoNotShortenIdleTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		r.settings.Session = proxy.SessionConfig{Lifetime: time.Hour, Idle: 30 * time.Second, Refresh: time.Hour}
	})
	cookie := r.signIn("alice")
	for range 20 {
		r.clock.advance(20 * time.Second)
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Fatalf("used every 20 s: %d", res.StatusCode)
		}
		if _, err := r.dir.UpdateGroup(t.Context(), "admins", groups.GroupChange{Description: ptr(time.Now().String())}, "test"); err != nil {
			t.Fatal(err)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// RT-11: what changes in the directory reaches the very next request.
func TestChangesReachTheNextRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	groupsNow := func() string {
		t.Helper()
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Fatalf("status %d", res.StatusCode)
		}
		return r.up.last(t).Header.Get("X-Forwarded-Groups")
	}
	for _, c := range []struct {
		what   string
		change func() error
		want   string
	}{
		{"nothing", func() error { return nil }, "admins,engineering"},
		{"a rule of the console", func() error {
			_, err := r.dir.PutRule(t.Context(), groups.Rule{ID: "ui", Source: "test", Claim: "groups", Value: "engineering", Group: "builders"}, "test")
			return err
		}, "admins,builders,engineering"},
		{"the rule changes", func() error {
			_, err := r.dir.PutRule(t.Context(), groups.Rule{ID: "ui", Source: "test", Claim: "groups", Value: "engineering", Group: "makers"}, "test")
			return err
		}, "admins,engineering,makers"},
		{"the rule goes", func() error { return r.dir.DeleteRule(t.Context(), "ui", 0, "test") }, "admins,engineering"},
		{"a group goes", func() error { return r.dir.DeleteGroup(t.Context(), "admins", "test") }, "engineering"},
		{"a group is renamed", func() error {
			_, err := r.dir.UpdateGroup(t.Context(), "engineering", groups.GroupChange{Name: ptr("eng")}, "test")
			return err
		}, "eng"},
		{"a reload changes a rule", func() error {
			r.groups.Rules = []groups.Rule{{ID: "one", Source: "test", Claim: "groups", Value: "admins", Group: "chiefs"}}
			return r.dir.Configure(t.Context(), r.groups)
		}, "chiefs"},
		{"a reload changes the format", func() error {
			r.settings.Headers.GroupsFormat = proxy.JSON
			return r.proxy.Configure(r.settings)
		}, `["chiefs"]`},
		{"a faulty reload changes nothing", func() error {
			bad := r.settings
			bad.Upstream = "ftp://nowhere"
			if r.proxy.Configure(bad) == nil {
				t.Error("it was taken")
			}
			return nil
		}, `["chiefs"]`},
	} {
		if err := c.change(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if got := groupsNow(); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	if res := r.do("GET", "/admin/", signedIn(cookie)); res.StatusCode != 403 {
		t.Errorf("a route for a lost group: %d", res.StatusCode)
	}
	r.settings.Routes[1].Groups = []string{"chiefs"}
	r.configure()
	if res := r.do("GET", "/admin/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("after a reload of the route: %d", res.StatusCode)
	}
}

// RT-11: a reading of the store that a change overtakes serves nobody who comes
// after the change, and is not kept.
func TestOvertakenReadingIsNotServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.configure() // forgets
	held := make(chan chan struct{})
	r.faults.held.Store(&held)
	first := make(chan struct{})
	go func() { defer close(first); r.do("GET", "/first", signedIn(cookie)) }()
	release := <-held
	if err := r.dir.DeleteGroup(t.Context(), "admins", "test"); err != nil {
		t.Fatal(err)
	}
	second := make(chan struct{})
	go func() { defer close(second); r.do("GET", "/second", signedIn(cookie)) }()
	select {
	case <-second:
		if got := r.grouped(); got != "engineering" {
			t.Errorf("a request after the change: %q", got)
		}
	case <-time.After(5 * time.Second):
		t.Error("a request after the change waits for a reading from before it")
	}
	close(release)
	<-first
	<-second
	r.do("GET", "/third", signedIn(cookie))
	if got := r.grouped(); got != "engineering" {
		t.Errorf("the old reading was kept: %q", got)
	}
}

// CK-07: a session that is ended is over at once, and only it.
func TestRevocation(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(*rig, groups.UserID) error{
		"the person is forgotten": func(r *rig, id groups.UserID) error { return r.dir.DeleteUser(r.t.Context(), id, "test") },
		"signed out everywhere": func(r *rig, id groups.UserID) error {
			_, err := r.dir.EndLogins(r.t.Context(), groups.LoginFilter{User: id}, "test", "test", "")
			return err
		},
		"gone at the source": func(r *rig, _ groups.UserID) error { return r.dir.Gone(r.t.Context(), "test", "alice", "") },
		"the source leaves the configuration": func(r *rig, _ groups.UserID) error {
			r.groups.Sources[0].Name, r.groups.Rules = "other", nil
			if err := r.dir.Configure(r.t.Context(), r.groups); err != nil {
				return err
			}
			return r.proxy.Configure(r.settings)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			first, second, bob := r.signIn("alice"), r.signIn("alice"), r.signIn("bob")
			for _, c := range []string{first, second, bob} {
				if res := r.do("GET", "/", signedIn(c)); res.StatusCode != 200 {
					t.Fatalf("before: %d", res.StatusCode)
				}
			}
			u, err := r.store.UserByName(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			if err := end(r, u.ID); err != nil {
				t.Fatal(err)
			}
			before := r.up.count()
			for _, c := range []string{first, second} {
				if res := r.do("GET", "/", signedIn(c)); res.StatusCode != 401 {
					t.Errorf("after: %d", res.StatusCode)
				}
			}
			if r.up.count() != before {
				t.Error("the upstream was reached")
			}
			want := 200
			if strings.Contains(what, "configuration") {
				want = 401
			}
			if res := r.do("GET", "/", signedIn(bob)); res.StatusCode != want {
				t.Errorf("bob: %d, want %d", res.StatusCode, want)
			}
		})
	}
}

// GS-12, S0-08, contract section 7: store down is 503, the cookie stays, nothing is
// forwarded; what needs no session goes on; and it comes back by itself.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	b := r.browser()
	_, authorize := r.begin(b, "rd=/x")
	at := strings.TrimPrefix(r.answer(b, authorize, "bob"), r.server.URL)
	r.faults.down.Store(true)
	before := r.up.count()
	for what, res := range map[string]*http.Response{
		"request": r.do("GET", "/", signedIn(cookie)), "page": r.do("GET", "/", edits(page, signedIn(cookie))), "POST": r.do("POST", "/", signedIn(cookie)),
		"public, with a cookie": r.do("GET", "/public/x", signedIn(cookie)), "userinfo": r.do("GET", "/_auth/userinfo", signedIn(cookie)),
		"login": r.do("GET", at, edits(page, signedIn(r.cookie(b)))),
	} {
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q", what, res.StatusCode, res.Header.Get("Retry-After"))
		}
		for _, c := range res.Cookies() {
			if c.Name == "__Host-groupgate" {
				t.Errorf("%s: the cookie is touched", what)
			}
		}
	}
	if r.up.count() != before {
		t.Error("something was forwarded")
	}
	if res := r.do("GET", "/public/x", nil); res.StatusCode != 200 {
		t.Errorf("public, without a cookie: %d", res.StatusCode)
	}
	r.faults.down.Store(false)
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("after: %d", res.StatusCode)
	}
}

// The same with the real thing: the database's file is taken away.
func TestDatabaseFileTakenAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	list, err := filepath.Glob(filepath.Join(filepath.Dir(r.path), "groupgate.db*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no database at %s", r.path)
	}
	away := t.TempDir()
	for _, f := range list {
		if err := os.Rename(f, filepath.Join(away, filepath.Base(f))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "503", 5*time.Second, func() bool { return r.do("GET", "/", signedIn(cookie)).StatusCode == 503 })
	before := r.up.count()
	if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 503 || r.up.count() != before {
		t.Errorf("%d, forwarded %d", res.StatusCode, r.up.count()-before)
	}
	for _, f := range list {
		if err := os.Rename(filepath.Join(away, filepath.Base(f)), f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "200 again", 5*time.Second, func() bool { return r.do("GET", "/", signedIn(cookie)).StatusCode == 200 })
}

// PX-19: many people through one pool of connections, half of them going away:
// nobody is served as somebody else.
func TestNobodyIsServedAsSomebodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		for _, n := range numbered(20) {
			r.op.SetPerson(person(n, n+"-team"))
		}
	})
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		w.Write([]byte(req.Header.Get("X-Forwarded-User") + " " + req.Header.Get("X-Forwarded-Groups")))
	})
	var wg sync.WaitGroup
	tr := r.client()
	for _, n := range numbered(20) {
		cookie := r.signIn(n)
		wg.Go(func() {
			for i := range 15 {
				ctx, cancel := contextFor(t, i%2 == 1)
				req, _ := http.NewRequestWithContext(ctx, "GET", r.server.URL+"/", nil)
				req.Header.Set("Cookie", cookie)
				res, err := tr.Do(req)
				if err == nil {
					if body := bodyMaybe(res); res.StatusCode != 200 || body != "" && body != n+" "+n+"-team" {
						t.Errorf("%s got %d %q", n, res.StatusCode, body)
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
}
