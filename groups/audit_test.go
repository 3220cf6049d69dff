package groups_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/groups"
)

// lines is where a directory's audit log goes.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sometimes is a store that can be taken away, and counts transactions.
type sometimes struct {
	groups.Store
	down           atomic.Bool
	updates, tries atomic.Int64
}

func (s *sometimes) Update(ctx context.Context, fn func(groups.Tx) error) error {
	s.tries.Add(1)
	if s.down.Load() {
		return fmt.Errorf("test: %w", groups.ErrUnavailable)
	}
	s.updates.Add(1)
	return s.Store.Update(ctx, fn)
}

// trailHouse is a house whose directory runs and logs. end stops it.
func trailHouse(t *testing.T) (h *house, store *sometimes, log *lines, end func()) {
	t.Helper()
	store, log = &sometimes{}, &lines{}
	h = openHouse(t, func(s groups.Store) groups.Store { store.Store = s; return store })
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(log), zapcore.DebugLevel))
	h.dir = groups.NewDirectory(groups.Options{Store: store, Log: logger, Audit: logger, Now: h.now})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { h.dir.Run(ctx) })
	end = func() { cancel(); work.Wait() }
	t.Cleanup(end)
	return h, store, log, end
}

func refused(i int) groups.Event {
	return groups.Event{Kind: groups.EventRefused, Name: "alice", Request: fmt.Sprintf("req-%d", i), Reason: "forbidden"}
}

func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// An event that nobody waited for is in the log at once, and found by its
// request within a second.
func TestNoteSoonIsFoundByRequest(t *testing.T) {
	t.Parallel()
	h, _, log, _ := trailHouse(t)
	began := time.Now()
	h.dir.NoteSoon(refused(1))
	h.dir.NoteSoon(refused(2))
	if !strings.Contains(log.String(), `"request_id":"req-1"`) {
		t.Errorf("not in the log: %s", log)
	}
	soon(t, "stored", func() bool { return len(h.events(groups.EventQuery{Request: "req-2"})) == 1 })
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	got := h.events(groups.EventQuery{Request: "req-1"})
	if len(got) != 1 || got[0].Kind != groups.EventRefused || got[0].Name != "alice" || got[0].Reason != "forbidden" || !got[0].At.Equal(epoch0) {
		t.Errorf("%+v", got)
	}
	if n := strings.Count(log.String(), "req-1"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// A flood of refusals fills neither memory nor disk: two hundred are stored,
// then five a second, and one event says how many were not. The log has all.
func TestFloodOfRefusals(t *testing.T) {
	t.Parallel()
	h, store, log, end := trailHouse(t)
	for i := range 1000 {
		h.dir.NoteSoon(refused(i))
	}
	soon(t, "stored", func() bool { return len(h.events(groups.EventQuery{Kind: groups.EventRefused, Limit: 500})) == 200 })
	h.pass(2 * time.Second)
	for i := range 20 {
		h.dir.NoteSoon(refused(1000 + i))
	}
	h.pass(-time.Hour) // a clock that is set back gives nothing away, and takes nothing
	h.dir.NoteSoon(refused(2000))
	end()
	if got := h.events(groups.EventQuery{Kind: groups.EventRefused, Limit: 500}); len(got) != 210 {
		t.Errorf("%d events are stored", len(got))
	}
	sum, told := 0, h.events(groups.EventQuery{Kind: groups.EventNotStored})
	for _, e := range told {
		var n int
		if _, err := fmt.Sscanf(e.Reason, "%d refusals not stored", &n); err != nil {
			t.Errorf("%q: %v", e.Reason, err)
		}
		sum += n
	}
	if sum != 811 || len(told) > 3 {
		t.Errorf("the trail says: %+v", told)
	}
	if n := strings.Count(log.String(), `"reason":"forbidden"`); n != 1021 {
		t.Errorf("%d lines in the log", n)
	}
	if n := store.updates.Load(); n > 8 {
		t.Errorf("%d transactions", n)
	}
}

// While the store is down events wait, and are complained about once.
func TestRefusalsOutliveAStoreThatIsDown(t *testing.T) {
	t.Parallel()
	h, store, log, _ := trailHouse(t)
	store.down.Store(true)
	h.dir.NoteSoon(refused(1))
	soon(t, "complained about", func() bool { return strings.Contains(log.String(), "audit events not stored") })
	h.dir.NoteSoon(refused(2))
	tries := store.tries.Load()
	soon(t, "tried again", func() bool { return store.tries.Load() >= tries+2 })
	store.down.Store(false)
	soon(t, "stored", func() bool { return len(h.events(groups.EventQuery{Kind: groups.EventRefused})) == 2 })
	if n := strings.Count(log.String(), "audit events not stored"); n != 1 {
		t.Errorf("%d complaints", n)
	}
	if got := h.events(groups.EventQuery{Kind: groups.EventRefused}); got[0].Request != "req-1" || got[1].Request != "req-2" {
		t.Errorf("out of order: %+v", got)
	}
}

// What waits when the process stops is stored, or complained about.
func TestStoppingStoresWhatWaits(t *testing.T) {
	t.Parallel()
	h, _, log, end := trailHouse(t)
	h.dir.NoteSoon(refused(1))
	end()
	if got := h.events(groups.EventQuery{Request: "req-1"}); len(got) != 1 {
		t.Errorf("%+v; %s", got, log)
	}
	h, store, log, end := trailHouse(t)
	store.down.Store(true)
	h.dir.NoteSoon(refused(1))
	end()
	if !strings.Contains(log.String(), `"kept_for_later":false`) {
		t.Errorf("lost in silence: %s", log)
	}
}

// SC-08: whatever a name or a reason holds, an event is one line of JSON.
func TestOneLineAnEvent(t *testing.T) {
	t.Parallel()
	h, _, log, end := trailHouse(t)
	hostile := "x\r\n{\"kind\":\"forged\"}\x1b[2J\x1b[31m\x00\x7f\u2028\xff\"\\"
	h.dir.NoteSoon(groups.Event{Kind: groups.EventRefused, Name: hostile, Source: hostile, Request: "soon", Reason: hostile})
	h.dir.Note(t.Context(), groups.Event{Kind: groups.EventRefused, Name: hostile, Group: hostile, Actor: hostile, Request: "now", Reason: hostile})
	end()
	all := strings.TrimSuffix(log.String(), "\n")
	for _, line := range strings.Split(all, "\n") {
		var e struct{ Kind, User, Reason string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Kind != groups.EventRefused {
			t.Errorf("not an event: %v: %q", err, line)
		}
		if want := strings.ToValidUTF8(hostile, "\ufffd"); e.User != want || e.Reason != want {
			t.Errorf("the name became %q", e.User)
		}
	}
	if n := strings.Count(all, "\n") + 1; n != 2 || strings.ContainsAny(all, "\r\x1b\x00") {
		t.Errorf("%d lines: %q", n, all)
	}
	for _, id := range []string{"soon", "now"} {
		if got := h.events(groups.EventQuery{Request: id}); len(got) != 1 || !strings.HasPrefix(got[0].Reason, "x\r\n{") {
			t.Errorf("%s: %+v", id, got)
		}
	}
}
