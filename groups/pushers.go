package groups

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// TargetEntry is a target that is told of changes. Its name is one of
// Settings.Targets, by which the work is written.
type TargetEntry struct {
	Name   string
	Target Target
	Wait   time.Duration // how long a login waits for its own work; 0: it does not
}

// PushStats counts attempts at telling a target, by what came of them.
type PushStats struct{ OK, Failed, Refused atomic.Int64 }

const (
	// pushLease is how long a replica that died keeps others from telling a
	// target; a living one renews it.
	pushLease = time.Minute
	pushRenew = 15 * time.Second
	// pushLook is how often work is looked for without a word that there is
	// any, and how often whether the replica that tells a target is gone.
	pushLook = 5 * time.Second
)

// pushers are the goroutines that tell targets, one each: a slow target holds
// up no other, and no person's work overtakes itself.
type pushers struct {
	mu      sync.Mutex
	entries []TargetEntry
	running map[string]*pusher
	stats   map[string]*PushStats
	ctx     context.Context // of Run; nil while it does not run
}

// pusher tells one target.
type pusher struct {
	d     *Directory
	entry TargetEntry
	lease Lease
	held  bool // the lease, as far as is known
	stats *PushStats
	log   *zap.Logger
	stop  context.CancelFunc
	ended chan struct{}
	wake  chan struct{}

	row     int       // failures in a row, whosever work it was
	pause   time.Time // nobody's work is tried before
	hurried atomic.Bool
	down    atomic.Bool // the last attempt failed, and was no refusal
	failing bool        // the store; complained about once
}

// SetTargets makes these the targets that are told. One that stands there
// already, the very same, is not disturbed.
func (d *Directory) SetTargets(entries []TargetEntry) {
	p := &d.pushers
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries = slices.Clone(entries)
	for name, w := range p.running {
		if !slices.Contains(p.entries, w.entry) {
			w.end()
			delete(p.running, name)
		}
	}
	p.start(d)
}

// start runs what should and does not. The caller holds mu.
func (p *pushers) start(d *Directory) {
	if p.running == nil {
		p.running, p.stats = map[string]*pusher{}, map[string]*PushStats{}
	}
	for _, e := range p.entries {
		if p.stats[e.Name] == nil {
			p.stats[e.Name] = &PushStats{}
		}
		if p.running[e.Name] != nil {
			continue
		}
		w := &pusher{
			d: d, entry: e, stats: p.stats[e.Name], log: d.log.With(zap.String("target", e.Name)),
			lease: Lease{Name: "target/" + e.Name, Holder: d.holder()},
			ended: make(chan struct{}), wake: make(chan struct{}, 1),
		}
		p.running[e.Name] = w
		if p.ctx == nil {
			close(w.ended)
			w.stop = func() {}
			delete(p.running, e.Name) // begin makes another
			continue
		}
		ctx, stop := context.WithCancel(p.ctx)
		w.stop = stop
		go w.run(ctx)
	}
}

func (p *pushers) begin(ctx context.Context, d *Directory) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = ctx
	p.start(d)
}

// halt ends all of them, and waits.
func (p *pushers) halt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = nil
	for name, w := range p.running {
		w.end()
		delete(p.running, name)
	}
}

func (p *pushers) named(name string) (*pusher, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := slices.ContainsFunc(p.entries, func(e TargetEntry) bool { return e.Name == name })
	return p.running[name], known
}

// poke wakes every pusher: something was committed, here or in another replica.
func (p *pushers) poke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.running {
		w.poke()
	}
}

// PushStats answers a target's counters; nil for one that is not configured.
func (d *Directory) PushStats(name string) *PushStats {
	d.pushers.mu.Lock()
	defer d.pushers.mu.Unlock()
	return d.pushers.stats[name]
}

func (w *pusher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *pusher) end() {
	w.stop()
	<-w.ended
}

func (w *pusher) run(ctx context.Context) {
	defer close(w.ended)
	defer w.release(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		wait, err := w.drain(ctx)
		if err != nil && ctx.Err() == nil {
			wait = pushLook
			if !w.failing {
				w.log.Warn("target not told", zap.Error(err))
			}
		}
		w.failing = err != nil
		timer.Reset(wait)
	}
}

// drain tells the target everything that is due, and answers when to look
// again.
func (w *pusher) drain(ctx context.Context) (time.Duration, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		now := w.d.now()
		if w.hurried.Swap(false) {
			w.pause = time.Time{}
		}
		if left := w.pause.Sub(now); left > 0 {
			return min(left, pushLook), nil
		}
		// A look that writes nothing: mostly there is nothing to do.
		switch _, err := w.d.store.DueWork(ctx, w.entry.Name, now); {
		case isNotFound(err):
			w.release(ctx)
			return w.next(ctx, now)
		case err != nil:
			return 0, err
		}
		p, mine, err := w.d.claim(ctx, w.entry.Name, w.lease)
		if err != nil {
			return 0, err
		}
		if !mine {
			return pushLook, nil
		}
		if w.held = p != nil; !w.held {
			continue
		}
		if err := w.tell(ctx, p); err != nil {
			return 0, err
		}
	}
}

// next is how long it takes until something is due.
func (w *pusher) next(ctx context.Context, now time.Time) (time.Duration, error) {
	b, err := w.d.store.Backlog(ctx, w.entry.Name)
	if err != nil {
		return 0, err
	}
	if b.Waiting > b.Parked {
		return min(max(b.Next.Sub(now), time.Millisecond), pushLook), nil
	}
	return pushLook, nil
}

// release gives the lease back, so that whoever has work first gets it.
func (w *pusher) release(ctx context.Context) {
	if !w.held {
		return
	}
	w.held = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pushLook)
	defer cancel()
	err := w.d.store.Update(ctx, func(tx Tx) error { return tx.DropLease(ctx, w.lease.Name, w.lease.Holder) })
	if err != nil && !errors.Is(err, ErrConflict) {
		w.log.Debug("lease not given back: it runs out", zap.Error(err))
	}
}

// tell makes one attempt.
func (w *pusher) tell(ctx context.Context, p *push) error {
	failure := w.attempt(ctx, p)
	w.down.Store(failure != nil && !errors.Is(failure, ErrTargetRefused))
	if ctx.Err() != nil {
		return ctx.Err() // we stop; that is no failure of the target's
	}
	switch {
	case failure == nil:
		w.stats.OK.Add(1)
		w.row, w.pause = 0, time.Time{}
	case errors.Is(failure, ErrTargetRefused):
		w.stats.Refused.Add(1)
		w.row = 0 // it answers
		w.log.Warn("target refuses a person", zap.Stringer("user_id", p.work.User), zap.Error(failure))
	default:
		w.stats.Failed.Add(1)
		w.row++
		w.pause = w.d.now().Add(max(min(w.d.delay(w.row, 0), pushPause), asked(failure)))
		w.log.Warn("target not told", zap.Stringer("user_id", p.work.User), zap.Int("failures", w.row), zap.Error(failure))
	}
	return w.d.finish(ctx, p, w.lease, failure)
}

// attempt pushes with the lease renewed all the while; losing it ends the
// attempt.
func (w *pusher) attempt(ctx context.Context, p *push) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pushRenew)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			l := w.lease
			l.Until = w.d.now().Add(pushLease)
			err := w.d.store.Update(ctx, func(tx Tx) error { return tx.PutLease(ctx, l) })
			if errors.Is(err, ErrConflict) {
				cancel()
			}
		}
	}()
	err := w.entry.Target.Push(ctx, p.person)
	cancel()
	<-done
	return err
}

// awaitTargets waits for what a login has to say to targets, for as long as
// each target's settings allow. Whatever comes of it, the login goes on.
func (d *Directory) awaitTargets(ctx context.Context, user UserID) {
	d.pushers.mu.Lock()
	entries := d.pushers.entries
	d.pushers.mu.Unlock()
	var all sync.WaitGroup
	for _, e := range entries {
		if e.Wait > 0 {
			all.Go(func() { d.awaitTarget(ctx, e, user) })
		}
	}
	all.Wait()
}

func (d *Directory) awaitTarget(ctx context.Context, e TargetEntry, user UserID) {
	ctx, cancel := context.WithTimeout(ctx, e.Wait)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		w, err := d.store.Work(ctx, e.Name, user)
		if err != nil || w.Failures > 0 {
			return // told; or the store or the target has a fault, for which nobody waits
		}
		if p, _ := d.pushers.named(e.Name); p != nil && p.down.Load() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
