package sqlstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// CreateUser gives the user an id, and the store's time when Created is zero.
func (t *tx) CreateUser(ctx context.Context, u *groups.User) error {
	created := u.Created
	if created.IsZero() {
		created = t.now()
	}
	id, err := one(ctx, t, "create user", scanValue[groups.UserID],
		`insert into users (name, name_key, email, email_key, display, created) values ($1, $2, $3, $4, $5, $6)
		on conflict (name_key) do nothing returning id`,
		u.Name, fold(u.Name), u.Email, fold(u.Email), u.Display, micros(created))
	if errors.Is(err, groups.ErrNotFound) { // no row was made
		return taken("create user")
	}
	if err != nil {
		return err
	}
	u.ID, u.Created = *id, when(micros(created))
	return nil
}

// UpdateUser writes name, e-mail address and display name.
func (t *tx) UpdateUser(ctx context.Context, u *groups.User) error {
	// Asked for, not found out by a fault: PostgreSQL ends a transaction with it.
	n, err := t.exec(ctx, `update users set name = $2, name_key = $3, email = $4, email_key = $5, display = $6 where id = $1
		and not exists (select 1 from users o where o.name_key = $3 and o.id <> $1)`,
		int64(u.ID), u.Name, fold(u.Name), u.Email, fold(u.Email), u.Display)
	if err != nil || n > 0 {
		return failed("update user", err)
	}
	if _, err := t.User(ctx, u.ID); err != nil {
		return err
	}
	return taken("update user")
}

// taken is the answer to a name that is another's.
func taken(step string) error {
	return failed(step, fmt.Errorf("%w: the name is taken", groups.ErrConflict))
}

// DeleteUser takes the user away; everything that refers to the row goes with
// it.
func (t *tx) DeleteUser(ctx context.Context, id groups.UserID) error {
	return t.change(ctx, "delete user", `delete from users where id = $1`, int64(id))
}

// PutIdentity creates or replaces an identity.
func (t *tx) PutIdentity(ctx context.Context, rec *groups.IdentityRecord) error {
	body, err := rec.Claims.MarshalJSON()
	if err != nil {
		return failed("put identity", err)
	}
	return t.do(ctx, "put identity", `insert into identities (user_id, source, subject, claims, incomplete, issued_at, seen, fingerprint)
		values ($1, $2, $3, $4, $5, $6, $7, $8)
		on conflict (source, subject) do update set user_id = excluded.user_id, claims = excluded.claims, incomplete = excluded.incomplete,
			issued_at = excluded.issued_at, seen = excluded.seen, fingerprint = excluded.fingerprint`,
		int64(rec.User), rec.Source, rec.Subject, string(body), rec.Claims.Incomplete(), micros(rec.IssuedAt), micros(rec.Seen), rec.Fingerprint)
}

// ClearFingerprints makes the user's next sync look at everything again.
func (t *tx) ClearFingerprints(ctx context.Context, user groups.UserID) error {
	return t.do(ctx, "clear fingerprints", `update identities set fingerprint = '' where user_id = $1 and fingerprint <> ''`, int64(user))
}

// NoteRemoval remembers the latest removal of each user.
func (t *tx) NoteRemoval(ctx context.Context, user groups.UserID, at time.Time) error {
	return t.do(ctx, "note removal", `insert into removals (user_id, at) values ($1, $2)
		on conflict (user_id) do update set at = greatest(removals.at, excluded.at)`, int64(user), micros(at))
}

// PutRule writes a rule. A version other than 0 has to be the stored one: who
// edits a rule that somebody else changed meanwhile gets ErrConflict.
func (t *tx) PutRule(ctx context.Context, r groups.Rule) error {
	id, version := r.ID, r.Version
	if id == "" {
		return failed("put rule", errors.New("the rule has no id"))
	}
	r.ID, r.Location, r.Version = "", "", 0
	body, err := json.Marshal(r)
	if err != nil {
		return failed("put rule", err)
	}
	n, err := t.exec(ctx, `update rules set body = $2, version = version + 1 where id = $1 and (version = $3 or $3 = 0)`, id, string(body), version)
	switch {
	case err != nil:
		return failed("put rule", err)
	case n > 0:
		return nil
	case version != 0:
		return failed("put rule", groups.ErrConflict)
	}
	return t.do(ctx, "put rule", `insert into rules (id, body, version) values ($1, $2, 1)`, id, string(body))
}

// DeleteRule takes a rule away.
func (t *tx) DeleteRule(ctx context.Context, id string) error {
	return t.change(ctx, "delete rule", `delete from rules where id = $1`, id)
}

// PutLogin creates or replaces a login.
func (t *tx) PutLogin(ctx context.Context, l *groups.Login) error {
	return t.do(ctx, "put login", `insert into logins (id, user_id, source, subject, session, alias, created, expires, claims_at, sealed)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		on conflict (id) do update set user_id = excluded.user_id, source = excluded.source, subject = excluded.subject, session = excluded.session,
			alias = excluded.alias, created = excluded.created, expires = excluded.expires, claims_at = excluded.claims_at, sealed = excluded.sealed`,
		l.ID, int64(l.User), l.Source, l.Subject, l.Session, l.Alias, micros(l.Created), micros(l.Expires), micros(l.ClaimsAt), blob(l.Grant))
}

// blob keeps "nothing" apart from a slice of length 0.
func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// PutSession creates a session.
func (t *tx) PutSession(ctx context.Context, s *groups.Session) error {
	return t.do(ctx, "put session", `insert into sessions (hash, login_id, host, used) values ($1, $2, $3, $4)`,
		s.Hash[:], s.Login.ID, s.Host, micros(s.Used))
}

// TouchSessions notes the last uses; a time never goes back.
func (t *tx) TouchSessions(ctx context.Context, used map[[32]byte]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	hashes := make([][32]byte, 0, len(used))
	for h := range used {
		hashes = append(hashes, h)
	}
	param := jsonRows(hashes, func(h [32]byte) []string {
		return []string{hex.EncodeToString(h[:]), strconv.FormatInt(micros(used[h]), 10)}
	})
	return t.do(ctx, "touch sessions", `update sessions set used = n.used
		from (select unhex(value->>0) as hash, cast(value->>1 as bigint) as used from tuples($1)) n
		where sessions.hash = n.hash and sessions.used < n.used`, param)
}

// DeleteLogins ends logins with their sessions, oldest first.
func (t *tx) DeleteLogins(ctx context.Context, f groups.LoginFilter) ([]groups.Login, error) {
	if f == (groups.LoginFilter{}) {
		return nil, failed("delete logins", errors.New("the filter is empty"))
	}
	var w where
	w.add(f.ID != "", `l.id = ?`, f.ID)
	w.add(f.User != 0, `l.user_id = ?`, int64(f.User))
	w.add(f.Source != "", `l.source = ?`, f.Source)
	w.add(f.Subject != "", `l.subject = ?`, f.Subject)
	w.add(f.Session != "", `l.session = ?`, f.Session)
	w.add(f.Alias != "", `l.alias = ?`, f.Alias)
	// Read, then delete by id: RETURNING promises no order.
	logins, err := list(ctx, t, "delete logins", scanLogin,
		`select `+loginColumns+` from logins l where `+w.text.String()+` order by l.created, l.id`, w.args...)
	if err != nil || len(logins) == 0 {
		return nil, err
	}
	ids := make([]string, len(logins))
	for i := range logins {
		ids[i] = logins[i].ID
	}
	if err := t.do(ctx, "delete logins", `delete from logins where id in texts($1)`, jsonList(ids)); err != nil {
		return nil, err
	}
	return logins, nil
}

// Once notes a single-use id.
func (t *tx) Once(ctx context.Context, kind, id string, expires time.Time) (bool, error) {
	n, err := t.exec(ctx, `insert into once (kind, id, expires) values ($1, $2, $3) on conflict (kind, id) do nothing`, kind, id, micros(expires))
	return n == 1, failed("once", err)
}

// PutMeta writes one value of the program's own.
func (t *tx) PutMeta(ctx context.Context, key string, value json.RawMessage) error {
	if !json.Valid(value) {
		return failed("put meta", fmt.Errorf("the value of %q is not JSON", key))
	}
	return t.do(ctx, "put meta", `insert into meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value`, key, string(value))
}

// How long things are kept that only matter for a while.
const (
	keepNotices  = 10 * time.Minute
	keepRemovals = 31 * 24 * time.Hour
)

// Sweep forgets what has expired, and reasons that nobody has any more: their
// values are what a source said about people.
func (t *tx) Sweep(ctx context.Context, now time.Time) error {
	for _, s := range []struct {
		text   string
		before time.Time
	}{
		{`delete from logins where expires <= $1`, now}, // sessions go with them
		{`delete from once where expires <= $1`, now},
		{`delete from leases where until <= $1`, now},
		{`delete from attempts where expires <= $1`, now},
		{`delete from notices where at < $1`, now.Add(-keepNotices)},
		{`delete from removals where at < $1`, now.Add(-keepRemovals)},
	} {
		if err := t.do(ctx, "sweep", s.text, micros(s.before)); err != nil {
			return err
		}
	}
	return t.do(ctx, "sweep", `delete from reasons where not exists (select 1 from grants where reason_id = reasons.id)`)
}
