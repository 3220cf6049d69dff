package groups

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// person finds the user of the identity, or makes one, and locks the user's
// row. The record it answers is the identity as stored; a new one is empty.
func (s *oneSync) person(ctx context.Context, tx Tx) (*IdentityRecord, error) {
	if s.st.sources[s.id.Source].Local != nil {
		if err := s.account(ctx, tx); err != nil {
			return nil, err
		}
	}
	stated := s.id.Claims.Text(s.names.User)
	if stated == "" {
		stated = s.id.Subject
	}
	rec, err := tx.Identity(ctx, s.id.Source, s.id.Subject)
	switch {
	case err == nil:
		if err := tx.LockUser(ctx, rec.User); err != nil {
			return nil, err
		}
		user, err := tx.User(ctx, rec.User)
		if err != nil {
			return nil, err
		}
		s.out.User = *user
		if s.out.Stale = s.id.IssuedAt.Before(rec.IssuedAt); s.out.Stale {
			return rec, nil // it does not name the person either
		}
		return rec, s.describe(ctx, tx, stated)
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	rec = &IdentityRecord{Source: s.id.Source, Subject: s.id.Subject}
	owner, err := tx.UserByName(ctx, stated)
	switch {
	case errors.Is(err, ErrNotFound):
		return rec, s.create(ctx, tx, rec, stated)
	case err != nil:
		return nil, err
	}
	why, err := s.st.mayNotJoin(ctx, tx, s.id.Source, owner)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return nil, fmt.Errorf("%s: %s: %w", s.id.Source, why, ErrNameTaken)
	}
	if err := tx.LockUser(ctx, owner.ID); err != nil {
		return nil, err
	}
	rec.User, s.out.User = owner.ID, *owner
	return rec, s.describe(ctx, tx, owner.Name)
}

func (s *oneSync) create(ctx context.Context, tx Tx, rec *IdentityRecord, name string) error {
	s.out.User = User{
		Name: name, Email: s.id.Claims.Text(s.names.Email), Display: s.id.Claims.Text(s.names.Name), Created: s.at,
	}
	s.out.Created = true
	if err := tx.CreateUser(ctx, &s.out.User); err != nil {
		return err
	}
	rec.User = s.out.User.ID
	s.event(Event{Kind: EventUserCreated})
	return nil
}

// mayNotJoin says why a new identity of the source may not join the user whose
// name it has; "" when it may. Another identity stated the name first, so all
// sources concerned must share their people. A second subject of the same
// source is another person, whatever it calls itself.
func (st *state) mayNotJoin(ctx context.Context, tx Tx, source string, owner *User) (why string, err error) {
	ids, err := tx.Identities(ctx, owner.ID)
	if err != nil {
		return "", err
	}
	if !st.links(source) {
		return "the user name is another person's, and the source is not linked", nil
	}
	for _, other := range ids {
		if other.Source == source {
			return "the source states the user name for a second subject", nil
		}
		if !st.links(other.Source) {
			return "the user name is stated by a source that is not linked", nil
		}
	}
	if len(ids) == 0 {
		return "the user name is one that no source stated", nil
	}
	return "", nil
}

func (st *state) links(source string) bool { return slices.Contains(st.settings.Link, source) }

// describe writes a new user name, e-mail address or display name down. What
// a statement does not say stays.
func (s *oneSync) describe(ctx context.Context, tx Tx, stated string) error {
	old := s.out.User
	u := &s.out.User
	if s.id.Claims.Text(s.names.User) != "" && stated != u.Name {
		u.Name = stated
	}
	if v := s.id.Claims.Text(s.names.Email); v != "" {
		u.Email = v
	}
	if v := s.id.Claims.Text(s.names.Name); v != "" {
		u.Display = v
	}
	if *u == old {
		return nil
	}
	if err := tx.UpdateUser(ctx, u); err != nil {
		if errors.Is(err, ErrConflict) {
			return fmt.Errorf("%s: the new user name is another person's: %w", s.id.Source, ErrNameTaken)
		}
		return err
	}
	if u.Name != old.Name {
		s.event(Event{Kind: EventUserRenamed, Reason: "was " + old.Name})
	}
	if err := s.st.tellAgain(ctx, tx, u.ID, &Change{}, s.at); err != nil {
		return err
	}
	return tx.Notify(ctx, Notice{User: u.ID})
}
