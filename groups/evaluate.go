package groups

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/groupgate/groupgate/claims"
)

// evaluateBatch is how many users one transaction of an evaluation writes:
// logins wait for it no longer than that takes.
const evaluateBatch = 200

// evaluate makes everybody's memberships what the state wants, from last-seen
// claims. The guard decides about all removals together, unless an
// administrator has allowed them. The caller holds d.evaluating.
func (d *Directory) evaluate(ctx context.Context, st *state, allowed bool) error {
	diffs, _, err := d.differences(ctx, st)
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	hold := false
	if !allowed {
		var losers []UserID
		for _, f := range diffs {
			if len(f.removed) > 0 {
				losers = append(losers, f.user)
			}
		}
		if hold, err = d.guardEvaluation(ctx, st, losers); err != nil {
			return fmt.Errorf("evaluate: %w", err)
		}
	}
	for batch := range slices.Chunk(diffs, evaluateBatch) {
		if err := d.evaluateUsers(ctx, st, batch, hold); err != nil {
			return fmt.Errorf("evaluate: %w", err)
		}
	}
	return d.store.Update(ctx, func(tx Tx) error {
		if err := st.current(ctx, tx); err != nil {
			return err
		}
		// Everybody's view: without stored memberships the rules alone decide.
		if err := tx.Notify(ctx, Notice{}); err != nil {
			return err
		}
		return markEvaluated(ctx, tx, st.hash)
	})
}

// markEvaluated notes which state everybody stands by; "" is none.
func markEvaluated(ctx context.Context, tx Tx, hash string) error {
	raw, err := json.Marshal(hash)
	if err != nil {
		return err
	}
	return tx.PutMeta(ctx, metaEvaluated, raw)
}

func (d *Directory) guardEvaluation(ctx context.Context, st *state, losers []UserID) (hold bool, err error) {
	if len(losers) == 0 {
		return false, nil
	}
	var events []Event
	err = d.store.Update(ctx, func(tx Tx) error {
		events = nil
		verdict, err := d.guardMany(ctx, tx, st, losers, d.now())
		if err != nil || verdict == nil {
			return err
		}
		verdict.At = d.now()
		events = []Event{*verdict}
		return tx.AddEvents(ctx, events...)
	})
	if err == nil {
		d.written(events)
	}
	return len(events) > 0, err
}

// evaluateUsers writes one batch. Each user is compared again inside the
// transaction: a login may have come in between.
func (d *Directory) evaluateUsers(ctx context.Context, st *state, batch []*difference, hold bool) error {
	var events []Event
	err := d.store.Update(ctx, func(tx Tx) error {
		events = nil
		if err := errors.Join(st.current(ctx, tx), working(ctx, tx, d.now())); err != nil {
			return err
		}
		epoch, err := tx.Epoch(ctx)
		if err != nil {
			return err
		}
		for _, f := range batch {
			e, err := d.evaluateUser(ctx, tx, st, f, hold, &epoch)
			if err != nil {
				return err
			}
			events = append(events, e...)
		}
		return tx.AddEvents(ctx, events...)
	})
	if err == nil {
		d.written(events)
	}
	return err
}

func (d *Directory) evaluateUser(ctx context.Context, tx Tx, st *state, f *difference, hold bool, epoch *int64) ([]Event, error) {
	user, err := tx.User(ctx, f.user)
	if isNotFound(err) {
		return nil, nil // deleted meanwhile
	}
	if err != nil {
		return nil, err
	}
	var events []Event
	for _, id := range f.identities {
		rec, err := tx.Identity(ctx, id[0], id[1])
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if rec.gone() {
			continue
		}
		e, err := d.evaluateIdentity(ctx, tx, st, user, rec, hold, epoch)
		if err != nil {
			return nil, err
		}
		events = append(events, e...)
	}
	return events, nil
}

func (d *Directory) evaluateIdentity(ctx context.Context, tx Tx, st *state, user *User, rec *IdentityRecord, hold bool, epoch *int64) ([]Event, error) {
	at := d.now()
	want := st.rules.Apply(rec.identity(), st.sourcePolicy(st.sources[rec.Source], true))
	have, err := tx.Memberships(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	controls, err := tx.Controls(ctx, wantedNames(want))
	if err != nil {
		return nil, err
	}
	change := Diff(have, want, controls, st.policy)
	if hold && len(change.Removed) > 0 {
		change.Hold()
	}
	if err := d.write(ctx, tx, st, user.ID, change, at); err != nil {
		return nil, err
	}
	if len(change.Created) > 0 {
		if *epoch, err = tx.Epoch(ctx); err != nil {
			return nil, err
		}
	}
	rec.Fingerprint = ""
	if len(change.Held) == 0 && !want.keepsUnread(have) {
		rec.Fingerprint = fingerprint(want, st.policy, *epoch)
	}
	if err := tx.PutIdentity(ctx, rec); err != nil {
		return nil, err
	}
	if change.Empty() && len(change.Held) == 0 {
		return nil, nil
	}
	return []Event{{
		Kind: EventSync, At: at, User: user.ID, Name: user.Name, Source: rec.Source, Actor: "rules",
		Reason: "rules or groups changed", Change: change, States: want.Problems(),
	}}, nil
}

// digest covers everything the outcome of a sync depends on beside the
// statement and the directory.
func (st *state) digest() string {
	type source struct {
		Name   string
		Groups claims.GroupClaims
		Local  bool `json:",omitempty"` // left out, as it was before there were local users
	}
	in := struct {
		Enabled, Remove, Create bool
		Names                   string
		Default                 []string
		Sources                 []source
		Rules                   []Rule
	}{
		st.settings.Sync.Enabled, st.policy.Remove, st.policy.Create, st.settings.Sync.GroupNames,
		st.settings.Sync.DefaultGroups, nil, st.rules.All(),
	}
	for _, s := range st.settings.Sources {
		in.Sources = append(in.Sources, source{s.Name, s.Groups, s.Local != nil})
	}
	for i := range in.Rules {
		in.Rules[i].Location, in.Rules[i].Version = "", 0
	}
	raw, _ := json.Marshal(in)
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
