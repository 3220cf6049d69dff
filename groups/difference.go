package groups

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// difference is what one user's syncs would change, all sources together.
type difference struct {
	user           UserID
	added, removed []string
	skipped        []Skip
	created        []string
	identities     [][2]string // source and subject of each
}

func (f *difference) planned(u *User) PlannedUser {
	return PlannedUser{ID: u.ID, User: u.Name, Added: nonNil(f.added), Removed: nonNil(f.removed), Skipped: f.skipped}
}

func minus(a, b []string) []string {
	var out []string
	for _, s := range a {
		if _, in := slices.BinarySearch(b, s); !in {
			out = append(out, s)
		}
	}
	return out
}

// pending is an identity whose last sync was not this one.
type pending struct {
	source, subject string
	want            *Wanted
}

// fewUsers is up to how many users memberships are read one by one. Past it,
// one pass over all of them is faster.
const fewUsers = 500

var errTooMany = errors.New("more than a few users differ")

// differences compares what everybody has with what the state wants. Users
// whose fingerprints already fit are not looked at further: with an unchanged
// rule set it is one pass over the identities. It answers how many users have
// a statement as well.
func (d *Directory) differences(ctx context.Context, st *state) (out []*difference, known int, err error) {
	if !st.settings.Sync.Enabled {
		return nil, 0, nil
	}
	epoch, err := d.store.Epoch(ctx)
	if err != nil {
		return nil, 0, err
	}
	controls := &controls{store: d.store, known: map[string]Control{}, asked: map[string]struct{}{}}
	type todo struct {
		user UserID
		ids  []pending
	}
	var few []todo
	known, err = d.eachPending(ctx, st, epoch, func(user UserID, ids []pending) error {
		if len(few) == fewUsers {
			return errTooMany
		}
		few = append(few, todo{user, ids})
		return nil
	})
	if errors.Is(err, errTooMany) {
		return d.differencesOfMany(ctx, st, epoch, controls)
	}
	for i := 0; err == nil && i < len(few); i++ {
		var have []Membership
		if have, err = d.store.Memberships(ctx, few[i].user); err == nil {
			out, err = appendDiff(ctx, out, few[i].user, have, few[i].ids, controls, st.policy)
		}
	}
	return out, known, err
}

// eachPending calls fn for every user with an identity whose last sync was
// not this one, in the order of the ids.
func (d *Directory) eachPending(ctx context.Context, st *state, epoch int64, fn func(UserID, []pending) error) (known int, err error) {
	var user UserID
	var ids []pending
	flush := func() error {
		if len(ids) == 0 {
			return nil
		}
		done := ids
		ids = nil
		return fn(user, done)
	}
	err = d.store.EachIdentity(ctx, func(rec *IdentityRecord) error {
		if rec.User != user {
			if err := flush(); err != nil {
				return err
			}
			user = rec.User
			known++
		}
		src := st.sources[rec.Source]
		if src == nil || rec.gone() {
			return nil // a source that is gone takes nothing with it; a person who is gone gets nothing
		}
		want := st.rules.Apply(rec.identity(), st.sourcePolicy(src, true))
		if rec.Fingerprint == "" || rec.Fingerprint != fingerprint(want, st.policy, epoch) {
			ids = append(ids, pending{rec.Source, rec.Subject, want})
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return known, err
}

// differencesOfMany walks identities and memberships side by side, both in
// the order of the users, so that neither is held in memory.
func (d *Directory) differencesOfMany(ctx context.Context, st *state, epoch int64, controls *controls) (out []*difference, known int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows := d.streamMemberships(ctx)
	var at membershipRow
	more := true
	known, err = d.eachPending(ctx, st, epoch, func(user UserID, ids []pending) error {
		for more && at.user < user {
			at, more = rows.next()
		}
		var have []Membership
		if more && at.user == user {
			have = at.have
		}
		var err error
		out, err = appendDiff(ctx, out, user, have, ids, controls, st.policy)
		return err
	})
	cancel()
	if streamErr := rows.wait(); err == nil {
		err = streamErr
	}
	return out, known, err
}

type membershipRow struct {
	user UserID
	have []Membership
}

// membershipStream hands rows over in batches: one at a time, the hand-over
// would cost more than the row.
type membershipStream struct {
	batches chan []membershipRow
	batch   []membershipRow
	err     error // once batches is closed
	ended   bool  // every row was handed over
}

func (d *Directory) streamMemberships(ctx context.Context) *membershipStream {
	s := &membershipStream{batches: make(chan []membershipRow, 4)}
	go func() {
		defer close(s.batches)
		var batch []membershipRow
		send := func() error {
			select {
			case s.batches <- batch:
				batch = nil
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.err = d.store.EachMembership(ctx, func(user UserID, have []Membership) error {
			batch = append(batch, membershipRow{user, have})
			if len(batch) < 256 {
				return nil
			}
			return send()
		})
		if s.err == nil && len(batch) > 0 {
			s.err = send()
		}
		s.ended = s.err == nil
	}()
	return s
}

func (s *membershipStream) next() (membershipRow, bool) {
	for len(s.batch) == 0 {
		batch, more := <-s.batches
		if !more {
			return membershipRow{}, false
		}
		s.batch = batch
	}
	row := s.batch[0]
	s.batch = s.batch[1:]
	return row, true
}

// wait ends the stream. A stream that was cancelled because nobody needs its
// rest is no error.
func (s *membershipStream) wait() error {
	for range s.batches {
	}
	if errors.Is(s.err, context.Canceled) {
		return nil
	}
	return s.err
}

func appendDiff(ctx context.Context, out []*difference, user UserID, have []Membership, todo []pending, cs *controls, p Policy) ([]*difference, error) {
	f := &difference{user: user}
	before, changed := names(have), false
	for _, t := range todo {
		controls, err := cs.of(ctx, t.want)
		if err != nil {
			return nil, err
		}
		c := Diff(have, t.want, controls, p)
		f.skipped = append(f.skipped, c.Skipped...)
		f.identities = append(f.identities, [2]string{t.source, t.subject})
		if c.Empty() {
			continue
		}
		changed = true
		have = c.applyTo(have, controls)
		f.created = append(f.created, c.Created...)
	}
	if !changed && len(f.skipped) == 0 {
		return out, nil
	}
	after := names(have)
	f.added, f.removed = minus(after, before), minus(before, after)
	return append(out, f), nil
}

func names(ms []Membership) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = m.Group
	}
	slices.Sort(out)
	return out
}

// controls remembers the control of every group it was asked for: the users of
// a directory share most of their groups.
type controls struct {
	store Reader
	known map[string]Control // of groups that exist
	asked map[string]struct{}
}

func (c *controls) of(ctx context.Context, w *Wanted) (map[string]Control, error) {
	var names []string
	for _, g := range w.Grants {
		if _, asked := c.asked[g.Group]; !asked {
			c.asked[g.Group] = struct{}{}
			names = append(names, g.Group)
		}
	}
	if len(names) > 0 {
		found, err := c.store.Controls(ctx, names)
		if err != nil {
			return nil, err
		}
		maps.Copy(c.known, found)
	}
	return c.known, nil
}
