package groups

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// localWrite is one transaction about one local user. Its state stays the one
// in force: the caller holds d.syncing.
type localWrite struct {
	d             *Directory
	st            *state
	source, actor string
	at            time.Time

	account LocalAccount
	events  []Event
}

func (w *localWrite) update(ctx context.Context, fn func(Tx) error) (*LocalAccount, error) {
	err := w.d.store.Update(ctx, func(tx Tx) error {
		w.account, w.events = LocalAccount{}, nil
		if err := fn(tx); err != nil {
			return err
		}
		return tx.AddEvents(ctx, w.events...)
	})
	if err != nil {
		return nil, err
	}
	w.d.written(w.events)
	return &w.account, nil
}

func (w *localWrite) event(e Event) *Event {
	e.At, e.User, e.Name, e.Source, e.Actor = w.at, w.account.User.ID, w.account.User.Name, w.source, w.actor
	w.events = append(w.events, e)
	return &w.events[len(w.events)-1]
}

func (w *localWrite) create(ctx context.Context, tx Tx, in LocalUser) error {
	w.account = LocalAccount{
		User:   User{Name: in.Name, Email: in.Email, Display: in.Display, Created: w.at},
		Source: w.source, Subject: rand.Text(), Changed: w.at,
	}
	u := &w.account.User
	switch owner, err := tx.UserByName(ctx, in.Name); {
	case isNotFound(err):
		if err := tx.CreateUser(ctx, u); err != nil {
			return err
		}
		w.event(Event{Kind: EventUserCreated})
	case err != nil:
		return err
	default:
		if err := w.join(ctx, tx, owner); err != nil {
			return err
		}
		w.event(Event{Kind: EventAccountAdded})
	}
	// No time of a statement: the first one counts, whatever clock it is by.
	rec := &IdentityRecord{User: u.ID, Source: w.source, Subject: w.account.Subject, Claims: localClaims(u)}
	if err := tx.PutIdentity(ctx, rec); err != nil {
		return err
	}
	if err := tx.CreateLocalAccount(ctx, &w.account, in.Password); err != nil {
		return err
	}
	return w.evaluate(ctx, tx, rec, "local user made")
}

// join gives the account to the user who has the name.
func (w *localWrite) join(ctx context.Context, tx Tx, owner *User) error {
	why, err := w.st.mayNotJoin(ctx, tx, w.source, owner)
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%s: %s: %w", w.source, why, ErrConflict)
	}
	if err := tx.LockUser(ctx, owner.ID); err != nil {
		return err
	}
	w.account.User = *owner
	return nil
}

// evaluate gives the default groups, which a sign-in would give. A source that
// is not configured here has none.
func (w *localWrite) evaluate(ctx context.Context, tx Tx, rec *IdentityRecord, reason string) error {
	if w.st.sources[w.source] == nil || !w.st.settings.Sync.Enabled {
		return nil
	}
	epoch, err := tx.Epoch(ctx)
	if err != nil {
		return err
	}
	events, err := w.d.evaluateIdentity(ctx, tx, w.st, &w.account.User, rec, false, &epoch)
	for _, e := range events {
		e.Reason = reason
		w.event(e)
	}
	return err
}

func (w *localWrite) change(ctx context.Context, tx Tx, subject string, c LocalChange) error {
	a, err := tx.LocalAccount(ctx, w.source, subject)
	if err != nil {
		return err
	}
	if err := tx.LockUser(ctx, a.User.ID); err != nil {
		return err
	}
	if a, err = tx.LocalAccount(ctx, w.source, subject); err != nil { // as it is now that nobody else writes
		return err
	}
	if c.If != nil {
		if err := c.If(a); err != nil {
			return err
		}
	}
	w.account = *a
	rec, err := tx.Identity(ctx, w.source, subject)
	if err != nil {
		return err
	}
	if err := w.describe(ctx, tx, rec, c); err != nil {
		return err
	}
	if c.Password != nil {
		if err := w.password(ctx, tx, c); err != nil {
			return err
		}
	}
	if c.Disabled != nil && *c.Disabled != a.Disabled {
		return w.disable(ctx, tx, rec, *c.Disabled)
	}
	return nil
}

// describe writes e-mail address and display name, and what the source last
// said, so that headers made of claims follow.
func (w *localWrite) describe(ctx context.Context, tx Tx, rec *IdentityRecord, c LocalChange) error {
	u := &w.account.User
	old := *u
	if c.Email != nil {
		u.Email = *c.Email
	}
	if c.Display != nil {
		u.Display = *c.Display
	}
	if *u == old {
		return nil
	}
	if err := tx.UpdateUser(ctx, u); err != nil {
		return err
	}
	rec.Claims = localClaims(u).WithIncomplete(rec.Claims.Incomplete())
	if err := tx.PutIdentity(ctx, rec); err != nil {
		return err
	}
	w.event(Event{Kind: EventUserChanged})
	if err := w.st.tellAgain(ctx, tx, u.ID, &Change{}, w.at); err != nil {
		return err
	}
	return tx.Notify(ctx, Notice{User: u.ID})
}

func (w *localWrite) password(ctx context.Context, tx Tx, c LocalChange) error {
	if c.Was != "" {
		have, err := tx.LocalPassword(ctx, w.source, w.account.Subject)
		if err != nil {
			return err
		}
		switch {
		case w.account.Disabled:
			return fmt.Errorf("%s: the local user is disabled: %w", w.source, claims.ErrDenied)
		case have != c.Was:
			return fmt.Errorf("%s: the password was changed meanwhile: %w", w.source, ErrConflict)
		}
	}
	w.account.Changed = w.at
	if err := tx.UpdateLocalAccount(ctx, &w.account, *c.Password); err != nil {
		return err
	}
	ended, err := w.endOthers(ctx, tx, c.KeepLogin)
	if err != nil {
		return err
	}
	w.event(Event{Kind: EventPassword, Reason: fmt.Sprintf("%d other logins ended", ended)})
	return nil
}

// endOthers ends the logins of the account but for one.
func (w *localWrite) endOthers(ctx context.Context, tx Tx, keep string) (ended int, err error) {
	sessions, err := tx.Sessions(ctx, w.account.User.ID)
	if err != nil {
		return 0, err
	}
	var logins []string
	for _, s := range sessions {
		l := &s.Login
		if l.Source == w.source && l.Subject == w.account.Subject && l.ID != keep && !slices.Contains(logins, l.ID) {
			logins = append(logins, l.ID)
		}
	}
	for _, id := range logins {
		if _, err := tx.DeleteLogins(ctx, LoginFilter{ID: id}); err != nil {
			return 0, err
		}
		if err := tx.Notify(ctx, Notice{User: w.account.User.ID, Login: id}); err != nil {
			return 0, err
		}
	}
	return len(logins), nil
}

func (w *localWrite) disable(ctx context.Context, tx Tx, rec *IdentityRecord, disabled bool) error {
	w.account.Disabled = disabled
	if err := tx.UpdateLocalAccount(ctx, &w.account, ""); err != nil {
		return err
	}
	if disabled {
		return w.d.leave(ctx, tx, rec, w.event(Event{Kind: EventUserDisabled}))
	}
	w.event(Event{Kind: EventUserEnabled})
	rec.Claims = localClaims(&w.account.User)
	if err := tx.PutIdentity(ctx, rec); err != nil {
		return err
	}
	return w.evaluate(ctx, tx, rec, "local user enabled")
}

// account refuses a sign-in of a local user that an administrator was faster
// than: the password was checked before the transaction.
func (s *oneSync) account(ctx context.Context, tx Tx) error {
	a, err := tx.LocalAccount(ctx, s.id.Source, s.id.Subject)
	why := ""
	switch {
	case isNotFound(err):
		why = "the local user is gone"
	case err != nil:
		return err
	case a.Disabled:
		why = "the local user is disabled"
	case a.Changed.After(s.id.IssuedAt) && !s.in.Refresh:
		why = "the password was changed meanwhile"
	default:
		return nil
	}
	return fmt.Errorf("%s: %s: %w", s.id.Source, why, claims.ErrDenied)
}
