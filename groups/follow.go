package groups

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// How replicas follow each other's rules. The one that changes a rule swaps it
// in and evaluates everybody; the others only swap. No sync can be decided by
// rules that are not the store's any more: each looks at their number in its
// own transaction.

// metaRules is how often the rules of the store were changed.
const metaRules = "rules"

// errRulesMoved: another replica changed the rules of the store.
var errRulesMoved = errors.New("the rules changed in another replica meanwhile")

// compile makes a state of settings and the rules of the store.
func (d *Directory) compile(ctx context.Context, s Settings) (*state, error) {
	// The number first: rules newer than their number are only read once more.
	version, err := rulesVersion(ctx, d.store)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	stored, err := d.store.Rules(ctx)
	if err != nil {
		return nil, fmt.Errorf("directory: read rules: %w", err)
	}
	st, err := compileState(s, stored)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	st.version = version
	return st, nil
}

func rulesVersion(ctx context.Context, r Reader) (n int64, err error) {
	raw, err := r.Meta(ctx, metaRules)
	if isNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", metaRules, err)
	}
	return n, decodeJSON(raw, &n)
}

// moveRules tells every replica that the rules of the store are others, and
// the store that nobody stands by them yet.
func moveRules(ctx context.Context, tx Tx, now time.Time) error {
	n, err := rulesVersion(ctx, tx)
	if err != nil {
		return err
	}
	return errors.Join(
		tx.PutMeta(ctx, metaRules, fmt.Appendf(nil, "%d", n+1)),
		markEvaluated(ctx, tx, ""), working(ctx, tx, now),
		tx.Notify(ctx, Notice{}),
	)
}

// current is errRulesMoved unless the state has the rules of the store.
func (st *state) current(ctx context.Context, tx Tx) error {
	n, err := rulesVersion(ctx, tx)
	if err == nil && n != st.version {
		err = errRulesMoved
	}
	return err
}

// followRules takes the rules of the store in when they are not those in
// force. Nobody is evaluated: whoever changed them does it. A sync that has to
// wait for this waits for the rules alone, not for an evaluation under way.
func (d *Directory) followRules(ctx context.Context) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		n, err := rulesVersion(ctx, d.store)
		if err != nil {
			return fmt.Errorf("directory: %w", err)
		}
		if n == d.state.Load().version {
			return nil
		}
		if d.evaluating.TryLock() {
			defer d.evaluating.Unlock()
			return d.takeRulesIn(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C: // this very process changes them, or the settings
		}
	}
}

func (d *Directory) takeRulesIn(ctx context.Context) error {
	st := d.state.Load()
	fresh, err := d.compile(ctx, st.settings)
	if err != nil || fresh.version == st.version {
		return err
	}
	d.swap(fresh)
	d.log.Info("rules of another replica taken in", zap.Int64("version", fresh.version))
	return nil
}

// noticed looks at the rules after a notice to everybody, and at what targets
// have to be told after any.
func (d *Directory) noticed(n Notice) {
	d.pushers.poke()
	if n != (Notice{}) {
		return
	}
	select {
	case d.follow <- struct{}{}:
	default:
	}
}

// leftOver is how long an evaluation may stand still before another replica
// takes it over: longer than a batch takes on a busy machine.
const leftOver = 30 * time.Second

const evaluationLease = "evaluation"

// working says that an evaluation goes on. Whose it is does not matter: two
// that want the same may run at once, and come to the same.
func working(ctx context.Context, tx Tx, now time.Time) error {
	_, err := tx.TakeLease(ctx, Lease{Name: evaluationLease, Holder: evaluationLease, Until: now.Add(leftOver)}, now)
	return err
}

// takeOver evaluates everybody when some replica began to and is gone: between
// its first sync by new rules and the end of its evaluation, the store says of
// no state that everybody stands by it.
func (d *Directory) takeOver(ctx context.Context) error {
	d.evaluating.Lock()
	defer d.evaluating.Unlock()
	last := "nobody evaluated yet"
	if err := d.meta(ctx, metaEvaluated, &last); err != nil || last != "" {
		return err
	}
	l, err := d.store.Lease(ctx, evaluationLease)
	if err == nil && d.now().Before(l.Until) || err != nil && !isNotFound(err) {
		return err
	}
	if err := d.takeRulesIn(ctx); err != nil {
		return err
	}
	d.log.Warn("an evaluation was left unfinished: doing it again")
	return d.evaluate(ctx, d.state.Load(), false)
}
