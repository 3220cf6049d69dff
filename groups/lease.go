package groups

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Lease is the right of one holder to do something for a while, whichever
// replica it is in. A holder that outlives its lease finds out when it writes:
// PutLease and DropLease refuse it, and the transaction with them.
type Lease struct {
	Name   string
	Holder string // of this one attempt
	Until  time.Time
	Note   string // what the holder leaves to those who wait
}

// LeaseSlack is how much longer than another a lease of the same name may last.
const LeaseSlack = time.Minute

// ErrLeaseLost: what was done under a lease took longer than the lease, and
// somebody else may do it by now. Nothing was written.
var ErrLeaseLost = errors.New("the lease is lost")

// lost tells a lease that is somebody else's from other conflicts.
func lost(err error) error {
	if errors.Is(err, ErrConflict) {
		return fmt.Errorf("%w: %w", ErrLeaseLost, err)
	}
	return err
}

// Replicas reports whether other processes may work on the same store.
func (d *Directory) Replicas() bool { return d.store.Shared() }

// Now is the time by the clock that all replicas share.
func (d *Directory) Now() time.Time { return d.now() }

// Refreshing is the right to ask a source about a login anew.
type Refreshing struct {
	// Login as it stood when the right was given.
	Login Login
	// Lease is the caller's when Mine; else somebody's who is asking already,
	// or who could not reach the source and said so in the note.
	Lease Lease
	Mine  bool
}

// BeginRefresh gives the right to refresh a login to one caller at a time, for
// so long. The login is read in the same transaction: who asked before has
// written what came of it. A login that ended is ErrNotFound.
func (d *Directory) BeginRefresh(ctx context.Context, login string, lasts time.Duration) (*Refreshing, error) {
	var out Refreshing
	err := d.store.Update(ctx, func(tx Tx) error {
		now := d.now()
		out = Refreshing{Lease: Lease{Name: "refresh/" + login, Holder: rand.Text(), Until: now.Add(lasts)}}
		l, err := tx.LoginByID(ctx, login)
		if err != nil {
			return err
		}
		out.Login = *l
		if out.Mine, err = tx.TakeLease(ctx, out.Lease, now); err != nil || out.Mine {
			return err
		}
		theirs, err := tx.Lease(ctx, out.Lease.Name)
		if err != nil {
			return err
		}
		out.Lease = *theirs
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	return &out, nil
}

// Refreshed reads how a refresh of somebody else goes: its lease, and the login
// as it is. Over means that the lease was given back or has run out.
func (d *Directory) Refreshed(ctx context.Context, login string) (l *Login, lease *Lease, over bool, err error) {
	if l, err = d.store.LoginByID(ctx, login); err != nil {
		return nil, nil, false, err
	}
	lease, err = d.store.Lease(ctx, "refresh/"+login)
	if isNotFound(err) {
		return l, nil, true, nil
	}
	if err != nil {
		return nil, nil, false, err
	}
	return l, lease, !d.now().Before(lease.Until), nil
}

// LeaveLease ends a holder's work without a result: the note and the time until
// which it holds are for those who wait. A lease that is somebody else's by now
// is left alone.
func (d *Directory) LeaveLease(ctx context.Context, l Lease, until time.Time, note string) error {
	l.Until, l.Note = until, note
	err := d.store.Update(ctx, func(tx Tx) error { return tx.PutLease(ctx, l) })
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// CountAttempts lets fn decide by what all replicas noted under the keys: it is
// given that, nil for nothing, and answers what to note from now on until when,
// nil to leave it. fn may run again.
func (d *Directory) CountAttempts(ctx context.Context, keys [][16]byte, fn func(noted []json.RawMessage) (next []json.RawMessage, until time.Time)) error {
	return d.store.Update(ctx, func(tx Tx) error {
		noted, err := tx.Attempts(ctx, keys...)
		if err != nil {
			return err
		}
		next, until := fn(noted)
		for i, body := range next {
			if body == nil {
				continue
			}
			if err := tx.PutAttempts(ctx, keys[i], body, until); err != nil {
				return err
			}
		}
		return nil
	})
}
