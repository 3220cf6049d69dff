package groups_test

import (
	"maps"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	h := groups.NewHistogram([]time.Duration{time.Second, time.Minute})
	for _, d := range []time.Duration{-time.Hour, 0, time.Second, time.Second + 1, time.Minute, time.Hour} {
		h.Observe(d)
	}
	within, count, sum := h.Read()
	want := map[time.Duration]uint64{time.Second: 3, time.Minute: 5}
	if !maps.Equal(within, want) || count != 6 || sum != 2*time.Second+1+time.Minute+time.Hour {
		t.Errorf("%v, %d in all, %v", within, count, sum)
	}
}

// A sync counts once, by what came of it; a statement's age counts when it is
// committed.
func TestSyncsAreCountedByOutcome(t *testing.T) {
	t.Parallel()
	var s *spy
	h := openHouse(t, func(store groups.Store) groups.Store {
		s = &spy{Store: store, on: func(string) error { return nil }}
		return s
	})
	h.configure(func(set *groups.Settings) { set.Sources[0].Groups.WhenAbsent = claims.Deny })
	h.pass(10 * time.Minute)
	h.mustLogin("s", "1", 5, groupsOf("alice", "eng"))
	h.mustLogin("s", "1", 6, groupsOf("alice", "eng"))
	h.mustLogin("s", "1", 4, groupsOf("alice", "ops"))
	_, err := h.login(identity(t, "s", "1", 7, `{"user":"alice"}`))
	h.wantErr(err, groups.ErrClaimMissing)
	s.on = func(step string) error {
		if step == "commit" {
			return errBroken
		}
		return nil
	}
	_, err = h.login(identity(t, "s", "1", 7, groupsOf("alice", "ops")))
	h.wantErr(err, groups.ErrUnavailable)
	st := &h.dir.Stats
	got := [...]int64{st.Changed.Load(), st.Unchanged.Load(), st.Stale.Load(), st.Refused.Load(), st.Failed.Load(), st.Added.Load(), st.Removed.Load()}
	if want := [...]int64{1, 1, 1, 1, 1, 1, 0}; got != want {
		t.Errorf("changed, unchanged, stale, refused, failed, added, removed: %v, want %v", got, want)
	}
	// 5 and 4 minutes old; the stale one brought nothing.
	if _, count, sum := st.Lag.Read(); count != 2 || sum != 9*time.Minute {
		t.Errorf("%d statements were %v old", count, sum)
	}
}

func TestActiveSessions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	active := func(want int) {
		t.Helper()
		if n, err := h.dir.ActiveSessions(t.Context(), time.Hour); err != nil || n != want {
			t.Errorf("%d active, %v; want %d", n, err, want)
		}
	}
	active(0)
	h.mustLogin("s", "1", 0, groupsOf("alice"))
	active(0) // of up to ten seconds ago
	h.pass(10 * time.Second)
	active(1)
	h.mustLogin("s", "2", 0, groupsOf("bob"))
	h.pass(59 * time.Minute)
	active(2)
	h.pass(time.Minute)
	active(0) // idle for too long
}
