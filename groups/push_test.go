package groups_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/webhook"
)

// hook is a receiver of a webhook, on loopback.
type hook struct {
	url string

	mu       sync.Mutex
	answer   func(webhook.Message) int // under no lock
	messages []webhook.Message
	ids      []string
	busy     map[string]bool // people whose message is being read
	overlaps int
}

func newHook(t testing.TB) *hook {
	k := &hook{busy: map[string]bool{}}
	s := httptest.NewServer(k)
	t.Cleanup(s.Close)
	k.url = s.URL
	return k
}

func (k *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m webhook.Message
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &m)
	k.mu.Lock()
	answer := k.answer
	if k.busy[m.User.ID] {
		k.overlaps++
	}
	k.busy[m.User.ID] = true
	k.mu.Unlock()
	status := http.StatusNoContent
	if answer != nil {
		status = answer(m)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, m.User.ID)
	k.ids = append(k.ids, r.Header.Get("webhook-id"))
	if status < 300 {
		k.messages = append(k.messages, m)
	}
	w.WriteHeader(status)
}

func (k *hook) answers(fn func(webhook.Message) int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answer = fn
}

// holds is what the last message about a user name said.
func (k *hook) holds(user string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range slices.Backward(k.messages) {
		if m.User.User == user {
			return strings.Join(m.Groups, " "), true
		}
	}
	return "", false
}

func (k *hook) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.messages)
}

// tellingHouse makes a house whose directory runs and tells the hook, by the real clock.
// Work that failed is tried again soon.
func tellingHouse(t *testing.T, k *hook, wait time.Duration, edit ...func(*groups.Settings)) *house {
	t.Helper()
	h := openHouse(t, func(s groups.Store) groups.Store { return s })
	h.dir = groups.NewDirectory(groups.Options{
		Store: h.store, Now: time.Now, PushDelay: func(int, int) time.Duration { return 5 * time.Millisecond },
	})
	h.configure(append(edit, func(s *groups.Settings) { s.Targets = []string{"hook"} })...)
	tell(t, h.dir, k, wait)
	return h
}

func tell(t *testing.T, d *groups.Directory, k *hook, wait time.Duration) {
	t.Helper()
	target, err := webhook.New(webhook.Config{URL: k.url, Secret: "a-secret-of-the-hook-for-tests"})
	if err != nil {
		t.Fatal(err)
	}
	d.SetTargets([]groups.TargetEntry{{Name: "hook", Target: target, Wait: wait}})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done; _ = target.Close() })
}

func (h *house) holding(k *hook, user, want string) {
	h.t.Helper()
	soon(h.t.(*testing.T), user+" is in "+want, func() bool { got, there := k.holds(user); return there && got == want })
}

func (h *house) backlog() groups.Backlog {
	h.t.Helper()
	b, err := h.store.Backlog(h.t.Context(), "hook")
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// Whatever changes a membership, or who a person is, reaches the target.
func TestTargetsHearOfEveryChange(t *testing.T) {
	t.Parallel()
	k := newHook(t)
	h := tellingHouse(t, k, 10*time.Second)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng", "ops")).User.ID
	if got, _ := k.holds("alice"); got != "eng ops" { // the login waited
		t.Errorf("at the end of the login: %q", got)
	}
	h.mustLogin("s", "1", 1, groupsOf("alice", "eng"))
	h.holding(k, "alice", "eng")
	h.create("board", groups.Manual)
	if err := h.dir.AddMember(t.Context(), "board", alice, "root"); err != nil {
		t.Fatal(err)
	}
	h.holding(k, "alice", "board eng")
	name := "council"
	if _, err := h.dir.UpdateGroup(t.Context(), "board", groups.GroupChange{Name: &name}, "root"); err != nil {
		t.Fatal(err)
	}
	h.holding(k, "alice", "council eng")
	h.putRule(valueRule("more", "s", "eng", "builders"))
	h.holding(k, "alice", "builders council eng")
	if err := h.dir.DeleteGroup(t.Context(), "council", "root"); err != nil {
		t.Fatal(err)
	}
	h.holding(k, "alice", "builders eng")
	h.mustLogin("s", "1", 2, `{"user":"alicia","email":"a@example.com","groups":["eng"]}`)
	h.holding(k, "alicia", "builders eng")
	k.mu.Lock()
	last := k.messages[len(k.messages)-1]
	k.mu.Unlock()
	if last.User.Email != "a@example.com" || last.User.ID != alice.String() {
		t.Errorf("the last message is about %+v", last.User)
	}
	if err := h.dir.DeleteUser(t.Context(), alice, "root"); err != nil {
		t.Fatal(err)
	}
	h.holding(k, "alicia", "")
	soon(t, "nothing waits", func() bool { return h.backlog().Waiting == 0 })
	if told, err := h.store.Told(t.Context(), "hook", alice); err != nil || !told.Nothing() {
		t.Errorf("of a person who is gone is kept %+v, %v", told, err)
	}
}

// GS-15: a target that is down holds nobody up. What waits is one thing a
// person, the latest.
func TestTargetDown(t *testing.T) {
	t.Parallel()
	k := newHook(t)
	k.answers(func(webhook.Message) int { return http.StatusServiceUnavailable })
	h := tellingHouse(t, k, 10*time.Second)
	began := time.Now()
	h.mustLogin("s", "1", 0, groupsOf("alice", "eng"))
	h.mustLogin("s", "2", 0, groupsOf("bob", "eng"))
	h.mustLogin("s", "1", 1, groupsOf("alice", "ops"))
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("logins waited for a target that is down: %s", took)
	}
	soon(t, "several attempts", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.ids) > 4 })
	if b := h.backlog(); b.Waiting != 2 || b.Parked != 0 {
		t.Errorf("%+v", b)
	}
	failed, err := h.store.FailedWork(t.Context(), "hook", 1)
	if err != nil || len(failed) != 1 || failed[0].Reason != "webhook: the target answers 503" {
		t.Errorf("%+v, %v", failed, err)
	}
	k.answers(nil)
	h.holding(k, "alice", "ops")
	h.holding(k, "bob", "eng")
	soon(t, "nothing waits", func() bool { return h.backlog().Waiting == 0 })
	if n := k.count(); n != 2 {
		t.Errorf("%d messages arrived, want the latest of each person", n)
	}
}

// A person on whom a target fails holds up nobody else.
func TestOneFailureHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	k := newHook(t)
	k.answers(func(m webhook.Message) int {
		if m.User.User == "alice" {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	h := tellingHouse(t, k, 0)
	h.mustLogin("s", "1", 0, groupsOf("alice", "eng"))
	soon(t, "an attempt failed", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.ids) > 0 })
	h.mustLogin("s", "2", 0, groupsOf("bob", "eng"))
	h.holding(k, "bob", "eng")
	soon(t, "alice alone waits", func() bool { b := h.backlog(); return b.Waiting == 1 && b.Parked == 0 })
}

// What a target refuses again and again is parked, and keeps nobody else from
// being told. Somebody can have it tried again.
func TestParkedWork(t *testing.T) {
	t.Parallel()
	k := newHook(t)
	k.answers(func(m webhook.Message) int {
		if m.User.User == "alice" {
			return http.StatusUnprocessableEntity
		}
		return http.StatusNoContent
	})
	h := tellingHouse(t, k, 0)
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "eng")).User.ID
	soon(t, "parked", func() bool { return h.backlog().Parked == 1 })
	h.mustLogin("s", "2", 0, groupsOf("bob", "eng"))
	h.holding(k, "bob", "eng")
	soon(t, "alice alone waits", func() bool { return h.backlog().Waiting == 1 })
	k.mu.Lock()
	ids := slices.Clone(k.ids)
	k.mu.Unlock()
	if len(ids) != 5 || len(slices.Compact(ids[:4])) != 1 {
		t.Errorf("attempts %q, want four at the same event and one at another", ids)
	}
	if e := h.events(groups.EventQuery{Kind: groups.EventParked}); len(e) != 1 || e[0].User != alice || e[0].Name != "alice" || e[0].Reason != "hook: webhook: the target answers 422" {
		t.Errorf("events %+v", e)
	}
	h.wantErr(h.dir.RetryTarget(t.Context(), "nobody", "root"), groups.ErrNotFound)
	k.answers(nil)
	if err := h.dir.RetryTarget(t.Context(), "hook", "root"); err != nil {
		t.Fatal(err)
	}
	h.holding(k, "alice", "eng")
	if e := h.events(groups.EventQuery{Kind: groups.EventRetried}); len(e) != 1 || e[0].Actor != "root" || e[0].Reason != "hook: 1 waiting, 1 parked" {
		t.Errorf("events %+v", e)
	}
	soon(t, "nothing waits", func() bool { return h.backlog().Waiting == 0 })
	if err := h.dir.RetryTarget(t.Context(), "hook", "root"); err != nil || len(h.events(groups.EventQuery{Kind: groups.EventRetried})) != 1 {
		t.Errorf("nothing to retry: %v", err)
	}
	n := h.dir.PushStats("hook")
	if n.OK.Load() != 2 || n.Refused.Load() != 4 || n.Failed.Load() != 0 {
		t.Errorf("%d ok, %d refused, %d failed", n.OK.Load(), n.Refused.Load(), n.Failed.Load())
	}
}

// A target that comes into the configuration later hears of everybody.
func TestNewTargetIsIntroduced(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.mustLogin("s", "1", 0, groupsOf("alice", "eng"))
	h.mustLogin("s", "2", 0, groupsOf("bob"))
	h.mustLogin("s", "3", 0, groupsOf("carol", "ops"))
	work := func() int {
		b := h.backlog()
		return b.Waiting
	}
	hooked := func(s *groups.Settings) { s.Targets = []string{"hook"} }
	h.configure(hooked)
	if work() != 2 {
		t.Errorf("%d pieces of work, want those of alice and carol", work())
	}
	all, err := h.store.Outbox(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.Update(t.Context(), func(tx groups.Tx) error { return tx.DoneWork(t.Context(), all[0].ID, all[1].ID) }); err != nil {
		t.Fatal(err)
	}
	h.configure(hooked)
	if work() != 0 {
		t.Error("it is introduced again")
	}
	h.configure()
	h.configure(hooked)
	if work() != 2 {
		t.Error("a target that was away is not told what it missed")
	}
}

// replica is a store as several processes share one.
type replica struct{ groups.Store }

func (replica) Shared() bool { return true }

// Two replicas tell a target, one at a time; when one is gone the other goes on.
func TestReplicasTellOneAtATime(t *testing.T) {
	t.Parallel()
	k := newHook(t)
	k.answers(func(webhook.Message) int { time.Sleep(3 * time.Millisecond); return http.StatusNoContent })
	h := openHouse(t, func(s groups.Store) groups.Store { return s })
	var dirs []*groups.Directory
	for range 2 {
		d := groups.NewDirectory(groups.Options{Store: replica{h.store}, Now: time.Now})
		if err := d.Configure(t.Context(), settings(func(s *groups.Settings) { s.Targets = []string{"hook"} })); err != nil {
			t.Fatal(err)
		}
		tell(t, d, k, 0)
		dirs = append(dirs, d)
	}
	for minute := range 8 {
		for i, name := range []string{"alice", "bob", "carol"} {
			h.dir = dirs[(minute+i)%2]
			h.mustLogin("s", name, minute, groupsOf(name, "eng", []string{"even", "odd"}[minute%2]))
		}
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		h.holding(k, name, "eng odd")
	}
	soon(t, "nothing waits", func() bool { return h.backlog().Waiting == 0 })
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.overlaps > 0 || len(k.messages) > 24 {
		t.Errorf("%d messages, %d overlapped one about the same person", len(k.messages), k.overlaps)
	}
}

// A user name that went from one person to another: nothing that the first one
// had stays, nothing that the second one has goes.
func TestTargetsAndANameThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) { s.Targets = []string{"hook"} })
	first := h.mustLogin("s", "1", 0, groupsOf("alice", "eng", "ops")).User.ID
	put := func(fn func(groups.Tx) error) {
		t.Helper()
		if err := h.store.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	put(func(tx groups.Tx) error {
		return tx.PutTold(t.Context(), "hook", first, groups.Told{Names: []string{"alice"}, Groups: []string{"eng", "ops"}})
	})
	if err := h.dir.DeleteUser(t.Context(), first, "root"); err != nil {
		t.Fatal(err)
	}
	second := h.mustLogin("s", "2", 0, groupsOf("alice", "eng")).User.ID
	seen := make(chan groups.Person, 10)
	h.dir.SetTargets([]groups.TargetEntry{{Name: "hook", Target: note{seen}}})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.dir.Run(ctx) }()
	defer func() { stop(); <-done }()
	gone, next := <-seen, <-seen
	if gone.User.ID != first || !gone.Gone || len(gone.Was) != 0 {
		t.Errorf("of the one who is gone: %+v", gone)
	}
	if next.User.ID != second || !slices.Equal(next.Groups, []string{"eng"}) || !slices.Equal(next.Added, []string{"eng"}) || !slices.Equal(next.Removed, []string{"ops"}) {
		t.Errorf("of the one who has the name: %+v", next)
	}
}

// note is a target that hands on what it is told.
type note struct{ to chan groups.Person }

func (n note) Push(_ context.Context, p groups.Person) error { n.to <- p; return nil }
