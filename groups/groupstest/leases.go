package groupstest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// leases is what replicas agree about.
var leases = map[string]func(*testing.T, groups.Store){
	"a lease is one holder's until it is over": func(t *testing.T, s groups.Store) {
		a := groups.Lease{Name: "l", Holder: "a", Until: noon.Add(time.Minute)}
		b := groups.Lease{Name: "l", Holder: "b", Until: noon.Add(2 * time.Minute), Note: "n"}
		back := func(l groups.Lease, d time.Duration) groups.Lease {
			l.Until = b.Until.Add(-d)
			return l
		}
		for _, step := range []struct {
			lease groups.Lease
			at    time.Time
			got   bool
			then  groups.Lease
		}{
			{a, noon, true, a},
			{b, noon, false, a},
			{b, noon.Add(time.Minute - time.Microsecond), false, a},
			{a, noon, true, a}, // its own again
			{b, noon.Add(time.Minute), true, b},
			{a, noon.Add(time.Minute), false, b},
			// The clock was set back, by which nobody's turn may last for ever.
			{back(a, groups.LeaseSlack-time.Microsecond), noon.Add(-time.Hour), false, b},
			{back(a, groups.LeaseSlack+time.Microsecond), noon.Add(-time.Hour), true, back(a, groups.LeaseSlack+time.Microsecond)},
		} {
			update(t, s, func(ctx context.Context, tx groups.Tx) error {
				got, err := tx.TakeLease(ctx, step.lease, step.at)
				same(t, step.lease.Holder+" gets it", got, step.got)
				return err
			})
			same(t, "lease", *must[*groups.Lease](t)(s.Lease(t.Context(), "l")), step.then)
		}
		_, err := s.Lease(t.Context(), "other")
		isErr(t, "no lease", err, groups.ErrNotFound)
	},
	"who has lost a lease can write nothing by it": func(t *testing.T, s groups.Store) {
		a := groups.Lease{Name: "l", Holder: "a", Until: noon}
		b := groups.Lease{Name: "l", Holder: "b", Until: noon.Add(time.Minute)}
		take := func(l groups.Lease) {
			update(t, s, func(ctx context.Context, tx groups.Tx) error {
				_, err := tx.TakeLease(ctx, l, noon)
				return err
			})
		}
		take(a)
		take(b)
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error { return tx.PutLease(ctx, a) })
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error { return tx.DropLease(ctx, "l", "a") })
		same(t, "lease", *must[*groups.Lease](t)(s.Lease(t.Context(), "l")), b)
		b.Until, b.Note = noon.Add(time.Hour), "later"
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.PutLease(ctx, b) })
		same(t, "lease", *must[*groups.Lease](t)(s.Lease(t.Context(), "l")), b)
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DropLease(ctx, "l", "b") })
		_, err := s.Lease(t.Context(), "l")
		isErr(t, "dropped", err, groups.ErrNotFound)
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error { return tx.DropLease(ctx, "l", "b") })
	},
	"attempts are kept until they expire": func(t *testing.T, s groups.Store) {
		one, two, three := [16]byte{1}, [16]byte{2}, [16]byte{3}
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			if err := tx.PutAttempts(ctx, one, json.RawMessage(`{"n":1}`), noon); err != nil {
				return err
			}
			if err := tx.PutAttempts(ctx, one, json.RawMessage(`{"n":2}`), noon.Add(time.Second)); err != nil {
				return err
			}
			return tx.PutAttempts(ctx, two, json.RawMessage(`[]`), noon)
		})
		read := func() []json.RawMessage {
			return must[[]json.RawMessage](t)(s.Attempts(t.Context(), three, two, one))
		}
		same(t, "attempts", read(), []json.RawMessage{nil, json.RawMessage(`[]`), json.RawMessage(`{"n":2}`)})
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.Sweep(ctx, noon) })
		same(t, "swept", read(), []json.RawMessage{nil, nil, json.RawMessage(`{"n":2}`)})
	},
	"a lease that is over is swept": func(t *testing.T, s groups.Store) {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for name, until := range map[string]time.Time{"over": noon, "runs": noon.Add(time.Microsecond)} {
				if _, err := tx.TakeLease(ctx, groups.Lease{Name: name, Holder: "a", Until: until}, noon); err != nil {
					return err
				}
			}
			return tx.Sweep(ctx, noon)
		})
		_, err := s.Lease(t.Context(), "over")
		isErr(t, "over", err, groups.ErrNotFound)
		must[*groups.Lease](t)(s.Lease(t.Context(), "runs"))
	},
}
