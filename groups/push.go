package groups

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Target is a downstream system that holds the same memberships. It is safe for
// concurrent use, though no two pushes of one person overlap.
type Target interface {
	// Push makes what the target holds of a person what it should be. Doing it
	// again changes nothing. An error that is ErrTargetRefused says that trying
	// the same again is of no use; a [*TargetBusy] says when it may be tried. An
	// error holds no secret and nothing of what the target answered but its
	// status: it is shown.
	Push(ctx context.Context, p Person) error
}

// ErrTargetRefused is the answer of a target that does not take what it is
// told, however often.
var ErrTargetRefused = errors.New("the target refuses it")

// TargetBusy is the answer of a target that said when to come again.
type TargetBusy struct {
	After time.Duration
	Err   error
}

func (e *TargetBusy) Error() string { return e.Err.Error() }
func (e *TargetBusy) Unwrap() error { return e.Err }

// Person is what a target is told of a user: all there is to say, not what
// changed.
type Person struct {
	Event string    // one change has one, every attempt at it the same
	At    time.Time // when this was read: what has a later time is newer
	User  User
	Gone  bool     // forgotten here; of User only ID and the last known Name are left
	Was   []string // user names, beside that of somebody not gone, that the target may know the person by

	Groups  []string // that the person is in, sorted bytewise
	Added   []string // of these, the ones the target has not confirmed yet
	Removed []string // that the target may have by our doing, and the person is not in
}

// Told is what a target holds of a user by our doing.
type Told struct {
	Names  []string `json:"names,omitempty"`  // user names that were told
	Groups []string `json:"groups,omitempty"` // told, and confirmed
	Maybe  []string `json:"maybe,omitempty"`  // told, and not confirmed: an attempt failed on the way
}

// Nothing reports whether the target holds no membership.
func (t Told) Nothing() bool { return len(t.Groups)+len(t.Maybe) == 0 }

// begun is what the target may hold once an attempt began.
func (t Told) begun(p *Person) Told {
	out := Told{Names: slices.Clone(p.Was), Groups: without(t.Groups, p.Removed)}
	if !p.Gone {
		out.Names = append(out.Names, p.User.Name)
	}
	out.Maybe = without(slices.Concat(t.Maybe, p.Added, p.Removed), out.Groups)
	return out
}

// How work is tried again. A target that cannot be reached may be back any
// moment; one that refuses needs a person, who sees what is parked.
const (
	pushFirst = time.Second     // after the first failure; then twice as long each time
	pushMost  = 5 * time.Minute // at most
	pushAsked = time.Hour       // at most, where the target says when
	pushPause = 30 * time.Second

	parkAfter = 4 // refusals in a row
)

// pushDelay is how long work waits after so many failures in a row, of which the
// last ones were refusals; about a quarter more or less, so that what failed
// together is not tried together.
func pushDelay(failures, refusals int) time.Duration {
	d := pushFirst << min(failures-1, 16)
	if refusals > 0 {
		d = 5 * time.Second << min(2*(refusals-1), 16) // 5 s, 20 s, 80 s
	}
	d = min(d, pushMost)
	return d*3/4 + time.Duration(mathrand.Int64N(int64(d/2)))
}

// push is one attempt.
type push struct {
	work   Work
	person Person
	told   Told // confirmed, before the attempt
}

// claim begins the attempt at the oldest work that is due. It is nil when there
// is none; mine says whether that is so because another replica tells this
// target. What the attempt may do at the target is written down before it
// begins.
func (d *Directory) claim(ctx context.Context, target string, by Lease) (p *push, mine bool, err error) {
	err = d.store.Update(ctx, func(tx Tx) error {
		p = nil
		now := d.now()
		by.Until = now.Add(pushLease)
		if mine, err = tx.TakeLease(ctx, by, now); err != nil || !mine {
			return err
		}
		for range 100 {
			w, err := tx.DueWork(ctx, target, now)
			if isNotFound(err) {
				return tx.DropLease(ctx, by.Name, by.Holder)
			}
			if err != nil {
				return err
			}
			next, err := d.load(ctx, tx, *w, now)
			if err != nil {
				return err
			}
			if next.told.Nothing() && len(next.person.Groups) == 0 {
				// It holds nothing, and should not.
				if err := errors.Join(tx.DoneWork(ctx, w.ID), tx.PutTold(ctx, target, w.User, Told{})); err != nil {
					return err
				}
				continue
			}
			p = next
			return tx.PutTold(ctx, target, w.User, p.told.begun(&p.person))
		}
		return nil // the next turn goes on
	})
	return p, mine, err
}

// load reads what there is to say of a user.
func (d *Directory) load(ctx context.Context, tx Tx, w Work, now time.Time) (*push, error) {
	told, err := tx.Told(ctx, w.Target, w.User)
	if err != nil {
		return nil, err
	}
	p := &push{work: w, told: told, person: Person{Event: eventID(w), At: now}}
	u, err := tx.User(ctx, w.User)
	switch {
	case isNotFound(err):
		p.person.Gone, p.person.User = true, User{ID: w.User}
		if n := len(told.Names); n > 0 {
			p.person.User.Name = told.Names[n-1]
		}
	case err != nil:
		return nil, err
	default:
		p.person.User = *u
		if p.person.Groups, err = tx.GroupNames(ctx, w.User); err != nil {
			return nil, err
		}
	}
	for _, name := range told.Names {
		if !p.person.Gone && name == u.Name {
			continue
		}
		taken, err := d.handOver(ctx, tx, w, told, name, now)
		if err != nil {
			return nil, err
		}
		if !taken {
			p.person.Was = append(p.person.Was, name)
		}
	}
	p.person.Added = without(p.person.Groups, told.Groups)
	p.person.Removed = without(slices.Concat(told.Groups, told.Maybe), p.person.Groups)
	return p, nil
}

// handOver is for a user name that is somebody else's by now: whatever the
// target holds under it is theirs to be set right, by their own work.
func (d *Directory) handOver(ctx context.Context, tx Tx, w Work, told Told, name string, now time.Time) (taken bool, err error) {
	heir, err := tx.UserByName(ctx, name)
	if isNotFound(err) || err == nil && heir.ID == w.User {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	theirs, err := tx.Told(ctx, w.Target, heir.ID)
	if err != nil {
		return false, err
	}
	theirs.Maybe = without(slices.Concat(theirs.Maybe, told.Groups, told.Maybe), theirs.Groups)
	// What the two have in common may go with the name: it is told again.
	theirs.Groups = without(theirs.Groups, slices.Concat(told.Groups, told.Maybe))
	return true, errors.Join(
		tx.PutTold(ctx, w.Target, heir.ID, theirs),
		tx.AddWork(ctx, Work{Target: w.Target, User: heir.ID, Body: (&Change{}).describe(), Created: now}),
	)
}

// without lists what of a is not in b, sorted and each once.
func without(a, b []string) []string {
	have := make(map[string]bool, len(b))
	for _, s := range b {
		have[s] = true
	}
	var out []string
	for _, s := range a {
		if !have[s] {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// eventID is the same for each attempt at the same change.
func eventID(w Work) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d\x00%d\x00%d", w.Target, w.User, w.ID, w.Version, w.Created.UnixMicro()))
	return "evt_" + hex.EncodeToString(sum[:16])
}

// finish writes down how an attempt ended. When the lease was lost meanwhile,
// another replica may have told the target before this attempt did: it is told
// once more.
func (d *Directory) finish(ctx context.Context, p *push, by Lease, failure error) error {
	var events []Event
	err := d.store.Update(ctx, func(tx Tx) error {
		events = nil
		now := d.now()
		by.Until = now.Add(pushLease)
		if err := tx.PutLease(ctx, by); errors.Is(err, ErrConflict) {
			return tx.AddWork(ctx, Work{Target: p.work.Target, User: p.work.User, Body: p.work.Body, Created: now})
		} else if err != nil {
			return err
		}
		if failure == nil {
			told := Told{Names: []string{p.person.User.Name}, Groups: p.person.Groups}
			if err := tx.PutTold(ctx, p.work.Target, p.work.User, told); err != nil {
				return err
			}
		}
		w, err := tx.Work(ctx, p.work.Target, p.work.User)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		changed := w.Version != p.work.Version // there is more to say by now
		if failure == nil {
			if !changed {
				return tx.DoneWork(ctx, w.ID)
			}
			w.Failures, w.Refusals, w.NotBefore, w.Reason = 0, 0, time.Time{}, ""
			return tx.PutWork(ctx, *w)
		}
		d.failed(w, failure, now)
		if changed {
			w.Parked = time.Time{}
		}
		if !w.Parked.IsZero() {
			events = []Event{{Kind: EventParked, At: now, User: w.User, Name: p.person.User.Name, Reason: w.Target + ": " + w.Reason}}
		}
		return errors.Join(tx.PutWork(ctx, *w), tx.AddEvents(ctx, events...))
	})
	if err == nil {
		d.written(events)
	}
	return err
}

// failed notes a failure on the work.
func (d *Directory) failed(w *Work, failure error, now time.Time) {
	w.Failures++
	w.Reason = clipped(failure.Error(), 300)
	if !errors.Is(failure, ErrTargetRefused) {
		w.Refusals = 0
	} else if w.Refusals++; w.Refusals >= parkAfter {
		w.Parked = now
	}
	w.NotBefore = now.Add(max(d.delay(w.Failures, w.Refusals), asked(failure)))
}

// asked is how long a target asked to be left alone, within bounds.
func asked(failure error) time.Duration {
	var busy *TargetBusy
	if !errors.As(failure, &busy) {
		return 0
	}
	return min(max(busy.After, 0), pushAsked)
}

func clipped(s string, most int) string {
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// RetryTarget makes a target's work due, parked or not. A target that is not
// configured is ErrNotFound.
func (d *Directory) RetryTarget(ctx context.Context, name, actor string) error {
	w, known := d.pushers.named(name)
	if !known {
		return fmt.Errorf("target %q: %w", name, ErrNotFound)
	}
	err := d.act(ctx, Event{Kind: EventRetried, Actor: actor, Reason: name}, func(tx Tx, e *Event) error {
		b, err := tx.Backlog(ctx, name)
		if err != nil {
			return err
		}
		if b.Waiting == 0 {
			e.Kind = ""
			return nil
		}
		e.Reason = fmt.Sprintf("%s: %d waiting, %d parked", name, b.Waiting, b.Parked)
		// Another replica may be the one that tells the target.
		return errors.Join(tx.RetryWork(ctx, name), tx.Notify(ctx, Notice{}))
	})
	if err == nil && w != nil {
		w.hurried.Store(true)
		w.poke()
	}
	return err
}

// tellTargets writes the work that a change of memberships makes.
func (st *state) tellTargets(ctx context.Context, tx Tx, user UserID, c *Change, at time.Time) error {
	if len(c.Added)+len(c.Removed) == 0 {
		return nil
	}
	return st.tellAgain(ctx, tx, user, c, at)
}

// tellAgain writes work whatever changed: a name, an address.
func (st *state) tellAgain(ctx context.Context, tx Tx, user UserID, c *Change, at time.Time) error {
	for _, target := range st.settings.Targets {
		if err := tx.AddWork(ctx, Work{Target: target, User: user, Body: c.describe(), Created: at}); err != nil {
			return err
		}
	}
	return nil
}

// tellOfGroup writes the work that a change of a group makes; "" is every group.
func (st *state) tellOfGroup(ctx context.Context, tx Tx, group string, at time.Time) error {
	for _, target := range st.settings.Targets {
		if err := tx.AddWorkOfGroup(ctx, group, target, at); err != nil {
			return err
		}
	}
	return nil
}

// metaTargets is which targets were told of everybody.
const metaTargets = "targets"

// introduce has targets that are new in the configuration told of everybody who
// is in a group.
func (d *Directory) introduce(ctx context.Context, targets []string) error {
	var known []string
	if err := d.meta(ctx, metaTargets, &known); err != nil {
		return err
	}
	targets = slices.Sorted(slices.Values(targets))
	if slices.Equal(known, targets) {
		return nil
	}
	raw, err := json.Marshal(targets)
	if err != nil {
		return err
	}
	err = d.store.Update(ctx, func(tx Tx) error {
		for _, target := range targets {
			if slices.Contains(known, target) {
				continue
			}
			if err := tx.AddWorkOfGroup(ctx, "", target, d.now()); err != nil {
				return err
			}
		}
		return tx.PutMeta(ctx, metaTargets, raw)
	})
	if err != nil {
		return fmt.Errorf("directory: introduce targets: %w", err)
	}
	d.log.Info("targets in the configuration", zap.Strings("targets", targets), zap.Strings("before", known))
	return nil
}

// holder names one process among those that tell a target. Alone, a process
// that died has left its own lease.
func (d *Directory) holder() string {
	if !d.store.Shared() {
		return "alone"
	}
	return rand.Text()
}
