package groups

import (
	"context"
	"time"
)

// EndLogins ends the logins that fit, with all their sessions on all hosts,
// and answers them. Reason is for the audit trail; an empty actor is the
// person.
func (d *Directory) EndLogins(ctx context.Context, f LoginFilter, actor, reason, request string) (ended []Login, err error) {
	return d.endLogins(ctx, []LoginFilter{f}, nil, Event{Actor: actor, Reason: reason, Request: request})
}

// SingleUse is the id of a message that counts once, and when the message
// itself is too old to count by the clock that reads it.
type SingleUse struct {
	Kind, ID string
	Until    time.Time
}

// EndLoginsOnce is EndLogins by the word of a message, for the logins that fit
// one of the filters. Its id is noted in the same transaction; used before, it
// is ErrReplayed and nothing ends.
func (d *Directory) EndLoginsOnce(ctx context.Context, once SingleUse, f []LoginFilter, actor, reason, request string) (ended []Login, err error) {
	return d.endLogins(ctx, f, &once, Event{Actor: actor, Reason: reason, Request: request})
}

func (d *Directory) endLogins(ctx context.Context, filters []LoginFilter, once *SingleUse, e Event) (ended []Login, err error) {
	e.Kind = EventSignOut
	err = d.act(ctx, e, func(tx Tx, e *Event) error {
		if once != nil {
			fresh, err := tx.Once(ctx, once.Kind, once.ID, once.Until.Add(clockSlack))
			if err != nil {
				return err
			}
			if !fresh {
				return ErrReplayed
			}
		}
		ended = nil
		for _, f := range filters {
			fit, err := tx.DeleteLogins(ctx, f)
			if err != nil {
				return err
			}
			ended = append(ended, fit...)
		}
		if len(ended) == 0 {
			e.Kind = ""
			return nil
		}
		e.User, e.Source = ended[0].User, ended[0].Source
		if u, err := tx.User(ctx, e.User); err == nil {
			e.Name = u.Name
		}
		for _, l := range ended {
			if err := tx.Notify(ctx, Notice{User: l.User, Login: l.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	return ended, err
}

// AddSession makes another session of a login, for a portal. The single-use
// id is noted in the same transaction; used before, it is ErrReplayed.
func (d *Directory) AddSession(ctx context.Context, s *Session, onceID string, onceUntil time.Time) error {
	return d.store.Update(ctx, func(tx Tx) error {
		fresh, err := tx.Once(ctx, "handover", onceID, onceUntil)
		if err != nil {
			return err
		}
		if !fresh {
			return ErrReplayed
		}
		return tx.PutSession(ctx, s)
	})
}

// KeepLogin writes what changed of a login itself, such as its grant. One that
// ended meanwhile stays ended: ErrNotFound. A lease, when there is one, must
// still be held, or it is ErrLeaseLost.
func (d *Directory) KeepLogin(ctx context.Context, l *Login, by *Lease) error {
	return d.store.Update(ctx, func(tx Tx) error {
		if by != nil {
			if err := lost(tx.PutLease(ctx, *by)); err != nil {
				return err
			}
		}
		if _, err := tx.LoginByID(ctx, l.ID); err != nil {
			return err
		}
		if err := tx.PutLogin(ctx, l); err != nil {
			return err
		}
		return tx.Notify(ctx, Notice{User: l.User, Login: l.ID})
	})
}

// Touch notes when sessions were last used.
func (d *Directory) Touch(ctx context.Context, used map[[32]byte]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	return d.store.Update(ctx, func(tx Tx) error { return tx.TouchSessions(ctx, used) })
}

// Sweep forgets what has expired.
func (d *Directory) Sweep(ctx context.Context) error {
	if !d.Stored() {
		return nil
	}
	return d.store.Update(ctx, func(tx Tx) error { return tx.Sweep(ctx, d.now()) })
}
