package sqlstore

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	clockSamples = 5
	clockStep    = 5 * time.Millisecond // less is the way there and back
	clockFar     = time.Second
)

// dbClock is the database's clock: this machine's, which never jumps, and how
// far the two are apart.
type dbClock struct {
	machine func() time.Time // nil: steady
	offset  atomic.Int64

	mu      sync.Mutex
	samples []time.Duration
}

// clockZero has a monotonic reading: what is measured from it does not follow
// when somebody sets the machine's clock.
var clockZero = time.Now()

func steady() time.Time { return clockZero.Add(time.Since(clockZero)) }

// ours is what this machine takes for the time.
func (c *dbClock) ours() time.Time {
	if c.machine != nil {
		return c.machine()
	}
	return steady()
}

func (c *dbClock) now() time.Time {
	return c.ours().Add(time.Duration(c.offset.Load())).Round(0)
}

// note takes in what the database's clock said between two moments of ours.
func (c *dbClock) note(said, before, after time.Time, log *zap.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = append(c.samples, said.Sub(before.Add(after.Sub(before)/2)))
	if len(c.samples) > clockSamples {
		c.samples = c.samples[1:]
	}
	middle := slices.Sorted(slices.Values(c.samples))[len(c.samples)/2]
	was := time.Duration(c.offset.Load())
	if (middle - was).Abs() < clockStep {
		return
	}
	c.offset.Store(int64(middle))
	if (middle - was).Abs() >= clockFar {
		log.Warn("the database's clock is another than this machine's, and the one that counts", zap.Duration("ahead", middle))
	}
}
