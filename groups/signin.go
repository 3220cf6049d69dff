package groups

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// SignIn is one statement of a source about a person, and what comes of it.
type SignIn struct {
	// Identity is the statement. One with a StatementID is taken in once.
	Identity *claims.Identity
	// Login and Session are created with the sync, in the same transaction;
	// the login's user is filled in. On a refresh Login is updated instead, and
	// Session is nil.
	Login   *Login
	Session *Session
	Refresh bool
	// OnceKind and OnceID name what else may be used a single time for this
	// sign-in, until OnceUntil.
	OnceKind, OnceID string
	OnceUntil        time.Time
	// Lease is what a refresh goes by, when it goes by one: it must still be
	// held, and is given back with the sync. ErrLeaseLost when it is not.
	Lease   *Lease
	Request string // id of the request, for the audit trail
}

// Signed is the outcome of a sign-in.
type Signed struct {
	User    User
	Change  *Change // nil when the sync had nothing to do
	Stale   bool    // the statement is older than the one that holds: nothing was synced
	Created bool    // the user's first login
}

// SignIn takes a statement in: it finds or makes the user, syncs memberships
// and creates the session, all in one transaction or not at all. Errors:
// claims.ErrDenied (require), ErrClaimMissing (when_absent: deny),
// ErrNameTaken, ErrReplayed, ErrUnavailable.
func (d *Directory) SignIn(ctx context.Context, in SignIn) (*Signed, error) {
	for {
		out, err := d.signIn(ctx, in)
		if errors.Is(err, errRulesMoved) {
			if err = d.followRules(ctx); err == nil {
				continue
			}
		}
		if errors.Is(err, errStateSwapped) {
			continue
		}
		switch {
		case refusal(err):
			d.Stats.Refused.Add(1)
			d.noteRefusal(ctx, in, err)
		case err != nil:
			d.Stats.Failed.Add(1)
		case in.Session != nil:
			d.awaitTargets(ctx, out.User.ID)
		}
		return out, err
	}
}

// errStateSwapped: rules changed while a sync was computed with the old ones.
// Or what a refresh was merged with is not the last-seen statement any more.
var errStateSwapped = errors.New("what the sync was computed from changed meanwhile")

func refusal(err error) bool {
	return errors.Is(err, claims.ErrDenied) || errors.Is(err, ErrClaimMissing) ||
		errors.Is(err, ErrNameTaken) || errors.Is(err, ErrReplayed)
}

func (d *Directory) signIn(ctx context.Context, in SignIn) (*Signed, error) {
	st := d.state.Load()
	id := in.Identity
	src := st.sources[id.Source]
	if src == nil {
		return nil, fmt.Errorf("%s: the source is not configured: %w", id.Source, claims.ErrDenied)
	}
	names := st.names(src)
	var earlier *IdentityRecord
	if in.Refresh {
		// What a refresh does not mention stays as it was.
		var err error
		if earlier, err = d.store.Identity(ctx, id.Source, id.Subject); err != nil {
			return nil, err
		}
		if earlier.gone() {
			return nil, fmt.Errorf("%s: the person is gone: %w", id.Source, ErrNotFound)
		}
		if !id.Whole {
			merged := *id
			merged.Claims = id.Claims.FillFromEarlier(earlier.Claims)
			id = &merged
		}
	}
	if err := src.Require.Check(id.Claims, names.Email); err != nil {
		return nil, fmt.Errorf("%s: %w", id.Source, err)
	}
	want := st.rules.Apply(id, st.sourcePolicy(src, in.Refresh))
	if want.Denied != "" {
		return nil, fmt.Errorf("%s: claim %q: %w", id.Source, want.Denied, ErrClaimMissing)
	}
	if want.Problems() != nil {
		d.Stats.Unknown.Add(1)
	}
	s := &oneSync{d: d, st: st, in: in, id: id, earlier: earlier, want: want, names: names, at: d.now()}
	if in.Login == nil && in.OnceID == "" && id.StatementID == "" {
		if done, out, err := s.unchanged(ctx); done || err != nil {
			return out, err
		}
	}
	if err := s.update(ctx); err != nil {
		return nil, err
	}
	d.written(s.events)
	s.count()
	return &s.out, nil
}

// oneSync is one sync under way.
type oneSync struct {
	d  *Directory
	st *state
	in SignIn
	id *claims.Identity
	// earlier is what a refresh was merged with.
	earlier *IdentityRecord
	want    *Wanted
	names   claims.Names
	at      time.Time

	events []Event
	out    Signed
}

// unchanged is the short cut of a sync that nothing depends on but itself: it
// reads one row, and when that says so there is nothing to write.
func (s *oneSync) unchanged(ctx context.Context) (bool, *Signed, error) {
	rec, err := s.d.store.Identity(ctx, s.id.Source, s.id.Subject)
	if errors.Is(err, ErrNotFound) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if rec.Fingerprint == "" || !rec.IssuedAt.Equal(s.id.IssuedAt) || !sameClaims(rec.Claims, s.id.Claims) {
		return false, nil, nil
	}
	if rec.Fingerprint != fingerprint(s.want, s.st.policy, rec.Epoch) {
		return false, nil, nil
	}
	s.d.Stats.Unchanged.Add(1)
	return true, &Signed{User: User{ID: rec.User}}, nil
}

func (s *oneSync) update(ctx context.Context) error {
	s.d.syncing.RLock()
	defer s.d.syncing.RUnlock()
	return s.d.store.Update(ctx, func(tx Tx) error { return s.run(ctx, tx) })
}

func (s *oneSync) run(ctx context.Context, tx Tx) error {
	s.events, s.out = nil, Signed{}
	if s.d.state.Load() != s.st {
		return errStateSwapped
	}
	if err := s.st.current(ctx, tx); err != nil {
		return err
	}
	if l := s.in.Lease; l != nil {
		if err := lost(tx.DropLease(ctx, l.Name, l.Holder)); err != nil {
			return err
		}
	}
	if s.in.OnceID != "" {
		if err := s.once(ctx, tx, s.in.OnceKind, s.in.OnceID, s.in.OnceUntil); err != nil {
			return err
		}
	}
	if s.id.StatementID != "" {
		until := s.id.StatementUntil.Add(clockSlack)
		if err := s.once(ctx, tx, "statement", statementKey(s.id), until); err != nil {
			return err
		}
	}
	rec, err := s.person(ctx, tx)
	if err != nil {
		return err
	}
	if s.earlier != nil && (!rec.IssuedAt.Equal(s.earlier.IssuedAt) || !sameClaims(rec.Claims, s.earlier.Claims)) {
		return errStateSwapped
	}
	if !s.out.Stale {
		if err := s.sync(ctx, tx, rec); err != nil {
			return err
		}
	}
	if err := s.session(ctx, tx); err != nil {
		return err
	}
	return tx.AddEvents(ctx, s.events...)
}

func (s *oneSync) once(ctx context.Context, tx Tx, kind, id string, until time.Time) error {
	fresh, err := tx.Once(ctx, kind, id, until)
	if err == nil && !fresh {
		err = fmt.Errorf("%s: %s: %w", s.id.Source, kind, ErrReplayed)
	}
	return err
}

// clockSlack is for replicas whose clocks differ: none of them forgets a
// message that another would still believe.
const clockSlack = 10 * time.Minute

// statementKey is what is remembered of a statement: of one length, and another
// at every source.
func statementKey(id *claims.Identity) string {
	sum := sha256.Sum256([]byte(id.Source + "\x00" + id.StatementID))
	return hex.EncodeToString(sum[:])
}

// sync makes the memberships what the statement wants, and keeps the statement.
func (s *oneSync) sync(ctx context.Context, tx Tx, rec *IdentityRecord) error {
	next := IdentityRecord{
		User: rec.User, Source: s.id.Source, Subject: s.id.Subject,
		Claims: s.id.Claims, IssuedAt: s.id.IssuedAt, Seen: s.at,
	}
	if s.st.settings.Sync.Enabled {
		var err error
		if next.Fingerprint, err = s.memberships(ctx, tx, rec); err != nil {
			return err
		}
	}
	if s.in.Login == nil && next.Fingerprint == rec.Fingerprint && next.IssuedAt.Equal(rec.IssuedAt) &&
		sameClaims(next.Claims, rec.Claims) {
		return nil
	}
	if !sameClaims(next.Claims, rec.Claims) && !s.out.Created {
		// Headers may carry any claim.
		if err := tx.Notify(ctx, Notice{User: rec.User}); err != nil {
			return err
		}
	}
	return tx.PutIdentity(ctx, &next)
}

// memberships answers the fingerprint of what holds from now on, or "" when
// the next sync has to look again.
func (s *oneSync) memberships(ctx context.Context, tx Tx, rec *IdentityRecord) (string, error) {
	if rec.Fingerprint != "" && rec.Fingerprint == fingerprint(s.want, s.st.policy, rec.Epoch) {
		return rec.Fingerprint, nil
	}
	have, err := tx.Memberships(ctx, rec.User)
	if err != nil {
		return "", err
	}
	controls, err := tx.Controls(ctx, wantedNames(s.want))
	if err != nil {
		return "", err
	}
	change := Diff(have, s.want, controls, s.st.policy)
	if len(change.Removed) > 0 {
		verdict, err := s.d.guardSync(ctx, tx, s.st, rec.User, s.at)
		if err != nil {
			return "", err
		}
		if verdict != nil {
			change.Hold()
			s.events = append(s.events, s.about(*verdict))
		}
	}
	s.out.Change = change
	if err := s.d.write(ctx, tx, s.st, rec.User, change, s.at); err != nil {
		return "", err
	}
	if problems := s.want.Problems(); !change.Empty() || len(change.Held)+len(change.Skipped) > 0 || problems != nil {
		s.event(Event{Kind: EventSync, Change: change, States: problems})
	}
	if len(change.Held) > 0 || s.want.keepsUnread(have) {
		return "", nil
	}
	epoch := rec.Epoch
	if epoch == 0 || len(change.Created) > 0 { // a new identity, or new groups
		if epoch, err = tx.Epoch(ctx); err != nil {
			return "", err
		}
	}
	return fingerprint(s.want, s.st.policy, epoch), nil
}

func wantedNames(w *Wanted) []string {
	names := make([]string, 0, len(w.Grants))
	for i, g := range w.Grants {
		if i == 0 || g.Group != w.Grants[i-1].Group {
			names = append(names, g.Group)
		}
	}
	return names
}

// write is the one way memberships that syncs grant are written.
func (d *Directory) write(ctx context.Context, tx Tx, st *state, user UserID, c *Change, at time.Time) error {
	if c.Empty() {
		return nil
	}
	if len(c.Created) > 0 {
		groups := make([]Group, len(c.Created))
		for i, name := range c.Created {
			groups[i] = Group{Name: name, Control: SSO, Created: at}
		}
		if err := tx.CreateGroups(ctx, groups); err != nil {
			return err
		}
	}
	if err := errors.Join(
		tx.AddGrants(ctx, user, c.Add, at),
		tx.DropGrants(ctx, user, c.Drop),
		tx.DropManual(ctx, user, c.DropManual),
	); err != nil {
		return err
	}
	if len(c.Removed) > 0 {
		if err := tx.NoteRemoval(ctx, user, at); err != nil {
			return err
		}
	}
	if err := st.tellTargets(ctx, tx, user, c, at); err != nil {
		return err
	}
	return tx.Notify(ctx, Notice{User: user})
}

func (s *oneSync) session(ctx context.Context, tx Tx) error {
	l := s.in.Login
	if l == nil {
		return nil
	}
	l.User = s.out.User.ID
	if s.in.Refresh {
		// A login that ended while its source was asked stays ended.
		if _, err := tx.LoginByID(ctx, l.ID); err != nil {
			return err
		}
	}
	if err := tx.PutLogin(ctx, l); err != nil {
		return err
	}
	if s.in.Refresh {
		return tx.Notify(ctx, Notice{Login: l.ID, User: l.User})
	}
	s.event(Event{Kind: EventSignIn, Reason: staleReason(s.out.Stale), States: s.want.Problems()})
	s.in.Session.Login = *l
	return tx.PutSession(ctx, s.in.Session)
}

func staleReason(stale bool) string {
	if stale {
		return "the statement is older than the one that holds: memberships were left alone"
	}
	return ""
}

func (s *oneSync) event(e Event) { s.events = append(s.events, s.about(e)) }

func (s *oneSync) about(e Event) Event {
	e.At, e.User, e.Name, e.Source, e.Request = s.at, s.out.User.ID, s.out.User.Name, s.id.Source, s.in.Request
	return e
}

// noteRefusal writes the refusal down. The login's own transaction is gone;
// when this one fails too, the log line is what remains.
func (d *Directory) noteRefusal(ctx context.Context, in SignIn, cause error) {
	st := d.state.Load()
	e := Event{Kind: EventRefused, At: d.now(), Source: in.Identity.Source, Request: in.Request, Reason: cause.Error()}
	if src := st.sources[in.Identity.Source]; src != nil {
		e.Name = in.Identity.Claims.Text(st.names(src).User)
	}
	d.Note(ctx, e)
}
