package proxy

import (
	"context"
	"errors"
	"time"
)

// Recheck is what Run does every few seconds for open sockets and streams.
func (p *Proxy) Recheck(ctx context.Context) { p.recheck(ctx) }

// Tidy is what Run does every half minute: note uses, forget what is unused.
func (p *Proxy) Tidy() { p.sessions.tidy(0) }

// RecheckEvery bounds how long a socket outlives its session.
const RecheckEvery = recheckEvery

// CloseWait bounds how long an ending socket may take.
const CloseWait = closeWait

// GoOn takes back that EndLive also ends what comes later.
func (p *Proxy) GoOn() {
	p.live.mu.Lock()
	p.live.stopping = false
	p.live.mu.Unlock()
}

// Throttle is the throttle of attempts, with a clock and names of the test's.
type Throttle struct{ throttle }

// Try counts one attempt for keys of some limits; 0 means that it may go on.
func (t *Throttle) Try(now time.Time, keys map[string]int) (wait time.Duration) {
	var all []throttleKey
	for name, limit := range keys {
		all = append(all, newThrottleKey(limit, name))
	}
	var refused *throttledError
	if err := t.take(now, all...); errors.As(err, &refused) {
		return refused.wait
	}
	return 0
}

// Keys is how many keys are remembered.
func (t *Throttle) Keys() int { return len(t.keys) }

// Sweep is what Run does every half minute.
func (t *Throttle) Sweep(now time.Time) { t.sweep(now) }

// CanonicalUser is the user name that attempts are counted for.
func CanonicalUser(name string) string { return canonicalUser(name) }

// What bounds the throttle.
const (
	MaxThrottled = maxThrottled
	RenewWait    = renewWait
)

// Basics are the credentials that are remembered.
type Basics struct{ basics }

// NewBasics makes an empty table.
func NewBasics() *Basics {
	b := &Basics{}
	b.setUp()
	return b
}

// Put remembers credentials as checked at a time.
func (b *Basics) Put(user, password string, checked time.Time) {
	b.put(b.keyOf("source", basicCredentials{user, password}), &basicLogin{checked: checked})
}

// Has reports whether credentials are remembered.
func (b *Basics) Has(user, password string) bool {
	return b.get(b.keyOf("source", basicCredentials{user, password})) != nil
}

// Len is how many are.
func (b *Basics) Len() (n int) {
	b.table.Range(func(any, any) bool { n++; return true })
	return n
}

// MaxBasics bounds them.
const MaxBasics = maxBasics

// ReadBasic reads one line of the header Authorization.
func ReadBasic(line string) (user, password string, ok bool) {
	if !sendsBasic([]string{line}) {
		return "", "", false
	}
	c, ok := readBasic([]string{line})
	return c.user, c.password, ok
}
