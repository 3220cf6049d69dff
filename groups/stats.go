package groups

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts what the directory did. Nothing in it ever goes down. Read it
// with Load.
type Stats struct {
	// A sync counts once, by its outcome: it changed memberships, found
	// nothing to change, or had an older statement than the one that holds;
	// or the person was refused, or it could not be done.
	Changed, Unchanged, Stale, Refused, Failed atomic.Int64
	// Memberships, by what syncs did to them.
	Added, Removed, Skipped, Held atomic.Int64
	// Unknown counts syncs with a claim that was absent or unknown.
	Unknown atomic.Int64
	// Lag is the time from a source's statement to the commit of its sync. A
	// source whose clock is ahead of ours counts as no time.
	Lag *Histogram
}

// lagBounds reach from an ID token that was just made to an entry of a
// directory that was read long ago.
var lagBounds = []time.Duration{
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, time.Hour,
}

func (s *oneSync) count() {
	st := &s.d.Stats
	c := s.out.Change
	switch {
	case s.out.Stale:
		st.Stale.Add(1)
	case c == nil || c.Empty():
		st.Unchanged.Add(1)
	default:
		st.Changed.Add(1)
	}
	if !s.out.Stale {
		st.Lag.Observe(s.d.now().Sub(s.id.IssuedAt))
	}
	if c != nil {
		st.Added.Add(int64(len(c.Added)))
		st.Removed.Add(int64(len(c.Removed)))
		st.Skipped.Add(int64(len(c.Skipped)))
		st.Held.Add(int64(len(c.Held)))
	}
}

// Histogram counts durations in fixed buckets, without a lock. Make it with
// NewHistogram.
type Histogram struct {
	bounds []time.Duration
	counts []atomic.Int64 // one more than bounds
	sum    atomic.Int64   // nanoseconds
}

// NewHistogram makes a histogram with upper bounds of buckets, ascending.
func NewHistogram(bounds []time.Duration) *Histogram {
	return &Histogram{bounds: slices.Clone(bounds), counts: make([]atomic.Int64, len(bounds)+1)}
}

// Observe counts one duration; a negative one is none at all.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Read answers how many durations were within each bound, how many there were
// in all, and their sum.
func (h *Histogram) Read() (within map[time.Duration]uint64, count uint64, sum time.Duration) {
	sum = time.Duration(h.sum.Load())
	within = make(map[time.Duration]uint64, len(h.bounds))
	for i := range h.counts {
		count += uint64(h.counts[i].Load())
		if i < len(h.bounds) {
			within[h.bounds[i]] = count
		}
	}
	return within, count, sum
}

// activeFor is how long a count of sessions is good for: whoever asks every
// second does not make the store count every second.
const activeFor = 10 * time.Second

// activeCount is the last count of sessions.
type activeCount struct {
	mu sync.Mutex
	at time.Time
	n  int
}

// ActiveSessions counts the sessions that a request could still use: not
// expired, and used within idle. The answer is up to ten seconds old. It is not
// for the path of a request.
func (d *Directory) ActiveSessions(ctx context.Context, idle time.Duration) (int, error) {
	d.active.mu.Lock()
	defer d.active.mu.Unlock()
	now := d.now()
	if age := now.Sub(d.active.at); age >= 0 && age < activeFor {
		return d.active.n, nil
	}
	n, err := d.store.CountSessions(ctx, now, now.Add(-idle))
	if err != nil {
		return 0, err
	}
	d.active.at, d.active.n = now, n
	return n, nil
}
