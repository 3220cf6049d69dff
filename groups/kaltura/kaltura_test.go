package kaltura

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/groupstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTarget(t *testing.T) {
	t.Parallel()
	groupstest.TestTarget(t, func(t *testing.T) groupstest.Remote { return open(t, &account{}) })
}

func person(name string, in ...string) groups.Person {
	return groups.Person{User: groups.User{ID: 1, Name: name}, Groups: in, Added: in}
}

func push(t *testing.T, r groupstest.Remote, p groups.Person) {
	t.Helper()
	if err := r.Target.Push(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// refused pushes what has to be refused, in these words.
func refused(t *testing.T, r groupstest.Remote, p groups.Person, words string) {
	t.Helper()
	err := r.Target.Push(t.Context(), p)
	if !errors.Is(err, groups.ErrTargetRefused) || !strings.Contains(err.Error(), words) {
		t.Errorf("%v, not %q", err, words)
	}
	if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "a-session-")) {
		t.Errorf("it tells a secret: %v", err)
	}
}

// TestNamesThatFit: the form is Kaltura's own, at both ends of its length, and
// no name is made to fit.
func TestNamesThatFit(t *testing.T) {
	t.Parallel()
	for c := range rune(0x180) {
		name := "a" + string(c) + "b"
		if fits(name) != idForm.MatchString(name) {
			t.Errorf("%q: %v", name, fits(name))
		}
	}
	for name, want := range map[string]bool{"": false, "a": true, "a\n": false, strings.Repeat("x", 320): true, strings.Repeat("x", 321): false} {
		if fits(name) != want {
			t.Errorf("%d characters: %v", len(name), !want)
		}
	}
	a := &account{}
	r := open(t, a)
	refused(t, r, person("alice", "r&d+100%", "two words"), `the group name "two words" cannot be an id there`)
	if got := fmt.Sprint(a.holds("alice")); got != "[r&d+100%]" {
		t.Errorf("alice is in %s", got)
	}
	refused(t, r, person("al ice", "a"), `the user name "al ice" cannot be an id there`)
	push(t, r, person("al ice"))
	gone := groups.Person{Gone: true, User: groups.User{ID: 1, Name: "al ice"}, Was: []string{"al ice"}, Removed: []string{"a"}}
	push(t, r, gone)
	if n := a.count("user/action/add"); n != 2 {
		t.Errorf("%d were made", n)
	}
}

// TestOneIDForTwo: people and groups share their ids, and a database that takes
// capitals for small letters has one for two names.
func TestOneIDForTwo(t *testing.T) {
	t.Parallel()
	a := &account{fold: true}
	r := open(t, a)
	push(t, r, person("alice", "staff"))
	refused(t, r, person("alice", "staff", "Staff"), `the group name "Staff" is there with other capitals`)
	refused(t, r, person("Alice", "staff"), `the user name "Alice" is there with other capitals`)
	refused(t, r, person("bob", "alice"), `the group name "alice" is there, and not of its kind`)
	refused(t, r, person("staff", "staff"), `the user name "staff" is there, and not of its kind`)
	if got := fmt.Sprint(a.holds("alice"), a.holds("bob"), a.holds("staff")); got != "[staff] [] []" {
		t.Error(got)
	}
}

// TestSession: one for all pushes, another when it is over, and no more than one
// more where none is taken.
func TestSession(t *testing.T) {
	t.Parallel()
	a := &account{}
	r := open(t, a)
	push(t, r, person("alice", "a"))
	push(t, r, person("bob", "a"))
	if n := a.count("session/action/start"); n != 1 {
		t.Fatalf("%d sessions", n)
	}
	a.expire()
	push(t, r, person("alice", "a", "b"))
	if n := a.count("session/action/start"); n != 2 {
		t.Errorf("%d sessions", n)
	}
	if got := fmt.Sprint(a.holds("alice")); got != "[a b]" {
		t.Error(got)
	}
	r.Liar.Count()
	r.Liar.Lie(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/session/action/start") {
			_, _ = w.Write([]byte(`"a-session-of-nobody"`))
			return
		}
		_, _ = w.Write([]byte(`{"objectType":"KalturaAPIException","code":"INVALID_KS","message":"a-session-of-nobody"}`))
	}, 0)
	err := r.Target.Push(t.Context(), person("alice", "a"))
	if err == nil || errors.Is(err, groups.ErrTargetRefused) || !strings.HasSuffix(err.Error(), "user.get: the target answers INVALID_KS") {
		t.Errorf("no session is taken: %v", err)
	}
	if n := r.Liar.Count(); n != 3 {
		t.Errorf("%d requests", n)
	}
	stranger := New(Config{URL: r.Liar.URL + "/api_v3", PartnerID: partner, AdminSecret: "another"})
	defer stranger.Close()
	r.Liar.Lie(nil, 0)
	r.Target = stranger
	refused(t, r, person("alice", "a"), "session.start: the target answers START_SESSION_ERROR")
}

// TestExceptions: what is answered with 200 is a refusal, unless it may pass; of
// a code that is not known nothing is told.
func TestExceptions(t *testing.T) {
	t.Parallel()
	a := &account{}
	r := open(t, a)
	push(t, r, person("alice", "a"))
	for code, want := range map[string]struct {
		refusal bool
		words   string
	}{
		"SERVICE_FORBIDDEN":       {true, "user.get: the target answers SERVICE_FORBIDDEN"},
		"INTERNAL_SERVERL_ERROR":  {false, "user.get: the target answers INTERNAL_SERVERL_ERROR"},
		"INTERNAL_DATABASE_ERROR": {false, "user.get: the target answers INTERNAL_DATABASE_ERROR"},
		"canary":                  {true, "user.get: the target answers with an exception"},
	} {
		r.Liar.Lie(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"objectType":"KalturaAPIException","code":%q,"message":"canary","args":[]}`, code)
		}, 0)
		err := r.Target.Push(t.Context(), person("alice", "b"))
		if err == nil || errors.Is(err, groups.ErrTargetRefused) != want.refusal || !strings.HasSuffix(err.Error(), want.words) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// TestNonsenseWithinASession is what the suite, which meets the session's start,
// does not see.
func TestNonsenseWithinASession(t *testing.T) {
	t.Parallel()
	a := &account{}
	r := open(t, a)
	for i, body := range []string{"", "null", "[]", "{}", "true", `{"id":7}`, `{"id":"bob","type":0}`, `"`, `"alice"`} {
		// get, list; for each group get, add, join; leave, list.
		for step := range 2 + 3 + 3 + 2 {
			push(t, r, person("alice", "a"))
			p := person("alice", fmt.Sprintf("b%d-%d", i, step), fmt.Sprintf("c%d-%d", i, step))
			p.Removed = []string{"a"}
			r.Liar.Lie(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }, step)
			if err := r.Target.Push(t.Context(), p); err == nil || errors.Is(err, groups.ErrTargetRefused) {
				t.Errorf("%q at step %d: %v", body, step, err)
			}
			r.Liar.Lie(nil, 0)
			push(t, r, p)
		}
	}
}

// GS-18: a server that says that it did, and did not, is found out.
func TestWhatIsNotDoneIsNoSuccess(t *testing.T) {
	t.Parallel()
	a := &account{}
	r := open(t, a)
	push(t, r, person("alice", "a"))
	a.mu.Lock()
	a.idle = true
	a.mu.Unlock()
	leaving := groups.Person{User: groups.User{ID: 1, Name: "alice"}, Removed: []string{"a"}}
	for _, p := range []groups.Person{person("alice", "a", "b"), leaving} {
		if err := r.Target.Push(t.Context(), p); err == nil || errors.Is(err, groups.ErrTargetRefused) || !strings.Contains(err.Error(), "did not do what it said") {
			t.Errorf("%q: %v", p.Groups, err)
		}
	}
}

// TestSomebodyElseMeanwhile: what somebody else did just before is as good.
func TestSomebodyElseMeanwhile(t *testing.T) {
	t.Parallel()
	a := &account{}
	r := open(t, a)
	var rivals []string
	a.before = func(action string) {
		switch action {
		case "user/action/add":
			if a.users = append(a.users, user{"alice", typePerson}); len(rivals) > 0 {
				a.users[len(a.users)-1] = user{"a", typeGroup}
			}
		case "groupUser/action/add":
			a.members = append(a.members, [2]string{"alice", "a"})
		case "groupUser/action/delete":
			a.members = nil
		default:
			return
		}
		rivals = append(rivals, action)
	}
	push(t, r, person("alice", "a"))
	if got := fmt.Sprint(a.holds("alice")); got != "[a]" {
		t.Errorf("alice is in %s", got)
	}
	push(t, r, groups.Person{User: groups.User{ID: 1, Name: "alice"}, Removed: []string{"a"}})
	if got := fmt.Sprint(a.holds("alice")); got != "[]" {
		t.Errorf("alice is in %s", got)
	}
	if len(rivals) != 4 || len(a.users) != 2 {
		t.Errorf("%q, %v", rivals, a.users)
	}
}

// TestManyMemberships are more than one answer holds.
func TestManyMemberships(t *testing.T) {
	t.Parallel()
	a := &account{}
	r := open(t, a)
	for i := range pageSize + 1 {
		a.put("alice", fmt.Sprintf("g%04d", i))
	}
	last := fmt.Sprintf("g%04d", pageSize)
	push(t, r, person("alice", last))
	if n := a.count("groupUser/action/list"); n != 2 || a.count("groupUser/action/add") != 0 {
		t.Errorf("%d lists, %d changes", n, a.count("groupUser/action/add"))
	}
	push(t, r, groups.Person{User: groups.User{ID: 1, Name: "alice"}, Removed: []string{last}})
	if got := a.holds("alice"); len(got) != pageSize {
		t.Errorf("%d are left", len(got))
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	r := open(t, &account{})
	if said, err := r.Target.(*Target).Probe(t.Context()); err != nil || said != "Kaltura, partner 4711" {
		t.Errorf("%q, %v", said, err)
	}
	stranger := New(Config{URL: r.Liar.URL + "/api_v3", PartnerID: partner, AdminSecret: "another"})
	defer stranger.Close()
	if _, err := stranger.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "START_SESSION_ERROR") {
		t.Errorf("with another secret: %v", err)
	}
}
