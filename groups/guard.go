package groups

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Keys of what the directory keeps for itself in the store.
const (
	metaGuard     = "guard"
	metaEvaluated = "evaluated"
)

// GuardState is the guard as people see it.
type GuardState struct {
	// Tripped is when removals stopped; zero while they go on.
	Tripped time.Time `json:"tripped,omitzero"`
	// Allowed is when an administrator last let removals go on; the window
	// never reaches back before it.
	Allowed time.Time `json:"allowed,omitzero"`
	By      string    `json:"by,omitempty"`
	// Removed, Limit and Holders are filled in when the state is asked for.
	Removed int  `json:"removed"` // users that lost a group within the window
	Limit   int  `json:"limit"`   // users that may
	Holders int  `json:"holders"` // users that hold grants
	Active  bool `json:"active"`
}

// Guard answers the guard's state of now.
func (d *Directory) Guard(ctx context.Context) (*GuardState, error) {
	st := d.state.Load()
	g, removed, err := d.guardState(ctx, d.store, st, d.now())
	if err != nil {
		return nil, err
	}
	g.Holders, err = d.holdersWith(ctx, d.store, removed)
	if err != nil {
		return nil, err
	}
	g.Removed, g.Limit = len(removed), st.guard.MaxRemovedUsers.Of(g.Holders)
	g.Active = st.written || g.Holders >= guardFrom
	return g, nil
}

// RemovalsWait reports whether the guard has stopped removals. It reads one row.
func (d *Directory) RemovalsWait(ctx context.Context) (bool, error) {
	var g GuardState
	raw, err := d.store.Meta(ctx, metaGuard)
	if isNotFound(err) {
		return false, nil
	}
	if err == nil {
		err = decodeJSON(raw, &g)
	}
	return !g.Tripped.IsZero(), err
}

func (d *Directory) guardState(ctx context.Context, r Reader, st *state, at time.Time) (*GuardState, []UserID, error) {
	var g GuardState
	if raw, err := r.Meta(ctx, metaGuard); err == nil {
		if err := decodeJSON(raw, &g); err != nil {
			return nil, nil, err
		}
	} else if !isNotFound(err) {
		return nil, nil, err
	}
	since := at.Add(-st.guard.Window)
	if g.Allowed.After(since) {
		since = g.Allowed.Add(time.Microsecond) // what was removed until then was allowed; the store keeps microseconds
	}
	removed, err := r.RemovedUsers(ctx, since)
	return &g, removed, err
}

// guardSync decides whether a sync may take a group from the user. It answers
// nil, or the event that says why not. Once the guard has stopped removals
// they stay stopped until an administrator allows them.
func (d *Directory) guardSync(ctx context.Context, tx Tx, st *state, user UserID, at time.Time) (*Event, error) {
	return d.guardMany(ctx, tx, st, []UserID{user}, at)
}

func (d *Directory) guardMany(ctx context.Context, tx Tx, st *state, users []UserID, at time.Time) (*Event, error) {
	g, removed, err := d.guardState(ctx, tx, st, at)
	if err != nil {
		return nil, err
	}
	if !g.Tripped.IsZero() {
		return &Event{Kind: EventGuard, Reason: "removals wait for an administrator since " + g.Tripped.UTC().Format(time.RFC3339)}, nil
	}
	total := union(removed, users)
	if total <= 1 {
		return nil, nil // at least one, whatever the share
	}
	holders, err := d.holdersWith(ctx, tx, removed)
	if err != nil {
		return nil, err
	}
	limit := st.guard.MaxRemovedUsers.Of(holders)
	if total <= limit || !st.written && holders < guardFrom {
		return nil, nil
	}
	g.Tripped = at
	raw, err := json.Marshal(GuardState{Tripped: g.Tripped, Allowed: g.Allowed, By: g.By})
	if err != nil {
		return nil, err
	}
	if err := tx.PutMeta(ctx, metaGuard, raw); err != nil {
		return nil, err
	}
	return &Event{Kind: EventGuard, Reason: fmt.Sprintf(
		"syncs would take groups from %d users within %s; %d of %d are allowed: removals stop and wait for an administrator",
		total, st.guard.Window, limit, holders)}, nil
}

func union(a, b []UserID) int {
	set := make(map[UserID]struct{}, len(a)+len(b))
	for _, u := range a {
		set[u] = struct{}{}
	}
	for _, u := range b {
		set[u] = struct{}{}
	}
	return len(set)
}

// holdersWith counts the users who hold grants, and those who held some until
// a removal of this window: the limit must not shrink while it is used up.
func (d *Directory) holdersWith(ctx context.Context, r Reader, removed []UserID) (int, error) {
	still := 0
	if len(removed) > 0 {
		var err error
		if still, err = r.CountHoldersAmong(ctx, removed); err != nil {
			return 0, err
		}
	}
	holders, err := d.holders.count(ctx, r, d.now())
	return holders + len(removed) - still, err
}

// slowCount is from how many users on a count is kept for a while. With fewer
// it is quick, whatever a busy machine makes of it.
const slowCount = 1000

// holdersCache keeps the count of users with grants for a while where counting
// is slow, so that removals in a large directory do not count it every time.
type holdersCache struct {
	mu    sync.Mutex
	n     int
	until time.Time
}

func (c *holdersCache) count(ctx context.Context, r Reader, at time.Time) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.Before(c.until) {
		return c.n, nil
	}
	begin := time.Now()
	_, n, err := r.CountUsers(ctx)
	if err != nil {
		return 0, err
	}
	c.n = n
	if took := time.Since(begin); took > 20*time.Millisecond && n > slowCount {
		c.until = at.Add(20 * took)
	}
	return n, nil
}

// AllowRemovals lets removals go on that the guard stopped, and does those
// that wait. The window starts anew.
func (d *Directory) AllowRemovals(ctx context.Context, actor string) error {
	d.evaluating.Lock()
	defer d.evaluating.Unlock()
	st := d.state.Load()
	if err := d.evaluate(ctx, st, true); err != nil {
		return err
	}
	e := Event{Kind: EventGuardAllowed, At: d.now(), Actor: actor}
	err := d.store.Update(ctx, func(tx Tx) error {
		raw, err := json.Marshal(GuardState{Allowed: d.now(), By: actor})
		if err != nil {
			return err
		}
		if err := tx.PutMeta(ctx, metaGuard, raw); err != nil {
			return err
		}
		return tx.AddEvents(ctx, e)
	})
	if err == nil {
		d.written([]Event{e})
	}
	return err
}
