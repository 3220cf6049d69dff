package groups

import "context"

// How a person leaves: for good, or by the word of one source.

// DeleteUser forgets a person: sessions end, memberships go, the user name is
// free.
func (d *Directory) DeleteUser(ctx context.Context, id UserID, actor string) error {
	return d.act(ctx, Event{Kind: EventUserDeleted, User: id, Actor: actor}, func(tx Tx, e *Event) error {
		u, err := tx.User(ctx, id)
		if err != nil {
			return err
		}
		e.Name = u.Name
		had, err := tx.GroupNames(ctx, id)
		if err != nil {
			return err
		}
		if err := tx.DeleteUser(ctx, id); err != nil {
			return err
		}
		if err := d.state.Load().tellTargets(ctx, tx, id, &Change{Removed: had}, e.At); err != nil {
			return err
		}
		return tx.Notify(ctx, Notice{User: id})
	})
}

// goneMark stands in the last-seen claims of a person whom the source called
// disabled or gone. Until the source makes a new statement, an evaluation must
// not give back what that took away.
const goneMark = "the source says the person is disabled or gone"

func (rec *IdentityRecord) gone() bool { return rec.Claims.Incomplete() == goneMark }

// Gone is for a person whom the source says is disabled or gone: sessions of
// the source end, and its grants go.
func (d *Directory) Gone(ctx context.Context, source, subject, request string) error {
	return d.act(ctx, Event{Kind: EventRefused, Source: source, Request: request, Reason: goneMark},
		func(tx Tx, e *Event) error {
			rec, err := tx.Identity(ctx, source, subject)
			if isNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := tx.LockUser(ctx, rec.User); err != nil {
				return err
			}
			u, err := tx.User(ctx, rec.User)
			if err != nil {
				return err
			}
			e.User, e.Name = rec.User, u.Name
			return d.leave(ctx, tx, rec, e)
		})
}

// leave ends what a source does for a person: sessions and grants. The event
// gets the change.
func (d *Directory) leave(ctx context.Context, tx Tx, rec *IdentityRecord, e *Event) (err error) {
	if e.Change, err = dropSource(ctx, tx, rec.User, rec.Source); err != nil {
		return err
	}
	if err := d.state.Load().tellTargets(ctx, tx, rec.User, e.Change, e.At); err != nil {
		return err
	}
	if _, err := tx.DeleteLogins(ctx, LoginFilter{User: rec.User, Source: rec.Source}); err != nil {
		return err
	}
	rec.Claims, rec.Fingerprint = rec.Claims.WithIncomplete(goneMark), ""
	if err := tx.PutIdentity(ctx, rec); err != nil {
		return err
	}
	return tx.Notify(ctx, Notice{User: rec.User})
}

// dropSource takes all grants of one source from a user.
func dropSource(ctx context.Context, tx Tx, user UserID, source string) (*Change, error) {
	have, err := tx.Memberships(ctx, user)
	if err != nil {
		return nil, err
	}
	c := &Change{}
	for _, m := range have {
		for _, g := range m.Grants {
			if g.Source == source {
				c.Drop = append(c.Drop, g)
			}
		}
	}
	c.summarise(have, nil)
	return c, tx.DropGrants(ctx, user, c.Drop)
}
