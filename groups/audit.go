package groups

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
)

// Note appends one event that belongs to no other write, before it returns. A
// store that cannot take it does not stop the caller: the log line is written
// either way.
func (d *Directory) Note(ctx context.Context, e Event) {
	if e.At.IsZero() {
		e.At = d.now()
	}
	if err := d.append(ctx, e); err != nil {
		d.log.Error("audit event not stored", zap.String("kind", e.Kind), zap.Error(err))
	}
	d.written([]Event{e})
}

// Bounds of what NoteSoon stores: so many at once, so many a second after that,
// and so many while the store does not answer.
const (
	soonBurst = 200
	soonRate  = 5
	soonQueue = 1000

	soonEvery = 250 * time.Millisecond // how long an event waits for others
	lostEvery = 10 * time.Second       // how often what was not stored is told
)

// trail holds events that nobody waits for until Run stores them. Anybody can
// cause a refusal, so a token bucket bounds what they can make us keep.
type trail struct {
	mu      sync.Mutex
	waiting []Event
	tokens  float64
	filled  time.Time // when tokens was right
	lost    int       // events that were not kept and not told of
	told    time.Time
}

// NoteSoon appends one event in the background, within a second while Run
// runs. It does not wait for the store. When there are too many the event is
// counted and not stored; the log line is written either way.
func (d *Directory) NoteSoon(e Event) {
	now := d.now()
	if e.At.IsZero() {
		e.At = now
	}
	d.soon.add(e, now)
	d.written([]Event{e})
}

func (t *trail) add(e Event, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.filled.IsZero() {
		t.tokens = soonBurst
	} else if passed := now.Sub(t.filled); passed > 0 {
		t.tokens = min(soonBurst, t.tokens+passed.Seconds()*soonRate)
	}
	t.filled = now
	if t.tokens < 1 || len(t.waiting) >= soonQueue {
		t.lost++
		return
	}
	t.tokens--
	t.waiting = append(t.waiting, e)
}

// take empties the trail. What was lost becomes one event, now and then: each
// of them is stored too.
func (t *trail) take(now time.Time, last bool) (batch []Event, lost *Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	batch, t.waiting = t.waiting, nil
	if since := now.Sub(t.told); t.lost > 0 && (last || since < 0 || since >= lostEvery) {
		lost = &Event{Kind: EventNotStored, At: now, Reason: fmt.Sprintf("%d refusals not stored", t.lost)}
		batch = append(batch, *lost)
		t.lost, t.told = 0, now
	}
	return batch, lost
}

// giveBack keeps what could not be stored for the next attempt.
func (t *trail) giveBack(batch []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(batch, t.waiting...)
	if over := len(t.waiting) - soonQueue; over > 0 {
		t.waiting = t.waiting[:soonQueue:soonQueue]
		t.lost += over
	}
}

// Run does the directory's work that is nobody's request: it stores what
// NoteSoon took in, tells targets, and follows other replicas. It returns when
// the context ends, with all of it stored.
func (d *Directory) Run(ctx context.Context) {
	if d.Stored() {
		d.pushers.begin(ctx, d)
		defer d.pushers.halt()
	}
	tick, left := time.NewTicker(soonEvery), time.NewTicker(leftOver)
	defer tick.Stop()
	defer left.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			d.storeSoon(ctx, failing, true)
			return
		case <-tick.C:
			failing = d.storeSoon(ctx, failing, false)
		case <-d.follow:
			d.background(ctx, "rules of another replica not taken in", d.followRules)
		case <-left.C:
			d.background(ctx, "unfinished evaluation not done", d.takeOver)
		}
	}
}

// background does one piece of work whose failing nobody waits for: a sync
// finds out by itself that the rules moved, and what is unfinished is tried
// again.
func (d *Directory) background(ctx context.Context, failed string, work func(context.Context) error) {
	if err := work(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errRulesMoved) {
		d.log.Warn(failed, zap.Error(err))
	}
}

// storeSoon writes what waits, in one transaction. A store that is down is
// asked again at the next tick, and complained about once.
func (d *Directory) storeSoon(ctx context.Context, failing, last bool) (fails bool) {
	batch, lost := d.soon.take(d.now(), last)
	if lost != nil {
		d.written([]Event{*lost})
	}
	if len(batch) == 0 {
		return failing
	}
	err := d.append(ctx, batch...)
	if err == nil {
		return false
	}
	again := errors.Is(err, ErrUnavailable) && !last
	if !failing || !again {
		d.log.Error("audit events not stored", zap.Int("events", len(batch)), zap.Bool("kept_for_later", again), zap.Error(err))
	}
	if again {
		d.soon.giveBack(batch)
	}
	return true
}

// append stores events. The request may be over already, or the process about
// to end; the trail must not depend on it.
func (d *Directory) append(ctx context.Context, events ...Event) error {
	if !d.Stored() {
		return nil // the log has them
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return d.store.Update(ctx, func(tx Tx) error { return tx.AddEvents(ctx, events...) })
}

// Refused reports whether an error of SignIn is a refusal, which SignIn wrote
// down itself.
func Refused(err error) bool { return refusal(err) }

// written repeats events in the log, one line each, once they are stored.
func (d *Directory) written(events []Event) {
	for _, e := range events {
		fields := []zap.Field{zap.String("kind", e.Kind)}
		add := func(key, value string) {
			if value != "" {
				fields = append(fields, zap.String(key, value))
			}
		}
		if e.User != 0 {
			add("user_id", e.User.String())
		}
		add("user", e.Name)
		add("source", e.Source)
		add("group", e.Group)
		add("actor", e.Actor)
		add("request_id", e.Request)
		add("reason", e.Reason)
		if c := e.Change; c != nil {
			fields = append(fields, zap.Strings("added", c.Added), zap.Strings("removed", c.Removed),
				zap.Strings("held", c.Held), zap.Int("skipped", len(c.Skipped)))
		}
		for name, res := range e.States {
			fields = append(fields, zap.String("claim_"+res.State.String(), name))
		}
		d.audit.Info("audit", fields...)
	}
}

func decodeJSON(raw []byte, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("directory: stored value: %w", err)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// sameClaims compares what two statements say.
func sameClaims(a, b claims.Claims) bool {
	if a.Incomplete() != b.Incomplete() {
		return false
	}
	x, errX := a.MarshalJSON()
	y, errY := b.MarshalJSON()
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
