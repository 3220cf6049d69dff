package proxy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// lineage is what is known here of one login.
type lineage struct {
	expires int64                         // Unix milliseconds
	newest  atomic.Pointer[sealedSession] // of the highest generation
	ended   atomic.Int64                  // generations below it are over

	// The generation that the source refused to renew, and when first, Unix
	// nanoseconds: another replica may have renewed it a moment ago, and the
	// browser be about to show that.
	mu        sync.Mutex
	refused   int
	refusedAt int64
}

// line finds a login's lineage, or begins it.
func (k *sealed) line(c *sealedSession) *lineage {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.lines[c.ID]
	if l == nil {
		for id := range k.lines {
			if len(k.lines) < maxMembers {
				break
			}
			delete(k.lines, id)
		}
		l = &lineage{expires: c.Expires}
		k.lines[c.ID] = l
	}
	l.remember(c)
	return l
}

// remember makes a session the login's newest, if it is.
func (l *lineage) remember(c *sealedSession) {
	for {
		now := l.newest.Load()
		if now != nil && now.Generation >= c.Generation || l.newest.CompareAndSwap(now, c) {
			return
		}
	}
}

// finish ends a generation and those before it, here.
func (l *lineage) finish(generation int) {
	for {
		now := l.ended.Load()
		if now > int64(generation) || l.ended.CompareAndSwap(now, int64(generation)+1) {
			return
		}
	}
}

// finishAll ends a login whatever generation comes, here.
func (l *lineage) finishAll() { l.ended.Store(1 << 40) }

// noteRefused writes a source's refusal down.
func (l *lineage) noteRefused(generation int, now int64, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused, l.refusedAt = generation+1, now
	return fmt.Errorf("%w: %w", errRefused, cause)
}

// wasRefused is errRefused for a while after the source refused a generation,
// and another error when that is over.
func (l *lineage) wasRefused(generation int, now int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.refused != generation+1:
		return nil
	case waiting(now, l.refusedAt+int64(renewRetry)):
		return errRefused
	}
	return errors.New("the source did not renew the session, and no newer cookies came")
}
