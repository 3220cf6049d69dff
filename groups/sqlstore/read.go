package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// reader is groups.Reader over whatever answers its statements: the store, or
// one of its transactions.
type reader struct{ q querier }

var _ groups.Reader = reader{}

const loginColumns = `l.id, l.user_id, l.source, l.subject, l.session, l.alias, l.created, l.expires, l.claims_at, l.sealed`

func scanLogin(r *rows, l *groups.Login) error { return scanLoginAfter(r, l) }

func scanLoginAfter(r *rows, l *groups.Login, before ...any) error {
	var created, expires, claimsAt int64
	err := r.Scan(append(before, &l.ID, &l.User, &l.Source, &l.Subject, &l.Session, &l.Alias, &created, &expires, &claimsAt, &l.Grant)...)
	l.Created, l.Expires, l.ClaimsAt = when(created), when(expires), when(claimsAt)
	return err
}

func scanSession(r *rows, s *groups.Session) error {
	var hash []byte
	var used int64
	if err := scanLoginAfter(r, &s.Login, &hash, &s.Host, &used); err != nil {
		return err
	}
	s.Used = when(used)
	if len(hash) != len(s.Hash) {
		return fmt.Errorf("a session's hash has %d bytes", len(hash))
	}
	copy(s.Hash[:], hash)
	return nil
}

// Session finds a session and its login.
func (r reader) Session(ctx context.Context, hash [32]byte) (*groups.Session, error) {
	return one(ctx, r.q, "session", scanSession,
		`select s.hash, s.host, s.used, `+loginColumns+` from sessions s join logins l on l.id = s.login_id where s.hash = $1`, hash[:])
}

// Sessions lists a user's sessions, newest login first.
func (r reader) Sessions(ctx context.Context, user groups.UserID) ([]groups.Session, error) {
	return list(ctx, r.q, "sessions", scanSession,
		`select s.hash, s.host, s.used, `+loginColumns+` from sessions s join logins l on l.id = s.login_id
		 where l.user_id = $1 order by l.created desc, l.id, s.host, s.hash`, int64(user))
}

// LoginByID finds a login.
func (r reader) LoginByID(ctx context.Context, id string) (*groups.Login, error) {
	return one(ctx, r.q, "login", scanLogin, `select `+loginColumns+` from logins l where l.id = $1`, id)
}

const identityColumns = `user_id, source, subject, claims, incomplete, issued_at, seen, fingerprint,
	(select cast(value as bigint) from meta where key = 'store/epoch')`

func scanIdentity(r *rows, rec *groups.IdentityRecord) error {
	var body, incomplete string
	var issued, seen int64
	if err := r.Scan(&rec.User, &rec.Source, &rec.Subject, &body, &incomplete, &issued, &seen, &rec.Fingerprint, &rec.Epoch); err != nil {
		return err
	}
	rec.Claims = claims.Stored([]byte(body), incomplete)
	rec.IssuedAt, rec.Seen = when(issued), when(seen)
	return nil
}

// Identity finds one identity.
func (r reader) Identity(ctx context.Context, source, subject string) (*groups.IdentityRecord, error) {
	return one(ctx, r.q, "identity", scanIdentity,
		`select `+identityColumns+` from identities where source = $1 and subject = $2`, source, subject)
}

// Identities lists a user's identities by source.
func (r reader) Identities(ctx context.Context, user groups.UserID) ([]groups.IdentityRecord, error) {
	return list(ctx, r.q, "identities", scanIdentity,
		`select `+identityColumns+` from identities where user_id = $1 order by source, subject`, int64(user))
}

// batch is how many identities, or users with memberships, are read at a time:
// no connection is held while the caller looks at them.
const batch = 500

// EachIdentity reads in batches; what changes meanwhile is seen old or new.
func (r reader) EachIdentity(ctx context.Context, fn func(*groups.IdentityRecord) error) error {
	var last groups.IdentityRecord
	for {
		some, err := list(ctx, r.q, "each identity", scanIdentity, `select `+identityColumns+` from identities
			where (user_id, source, subject) > ($1, $2, $3) order by user_id, source, subject limit $4`,
			int64(last.User), last.Source, last.Subject, batch)
		if err != nil {
			return err
		}
		for i := range some {
			if err := fn(&some[i]); err != nil {
				return err
			}
		}
		if len(some) < batch {
			return nil
		}
		last = some[len(some)-1]
	}
}

const userColumns = `u.id, u.name, u.email, u.display, u.created`

func scanUser(r *rows, u *groups.User) error {
	var created int64
	err := r.Scan(&u.ID, &u.Name, &u.Email, &u.Display, &created)
	u.Created = when(created)
	return err
}

// User finds a user.
func (r reader) User(ctx context.Context, id groups.UserID) (*groups.User, error) {
	return one(ctx, r.q, "user", scanUser, `select `+userColumns+` from users u where u.id = $1`, int64(id))
}

// UserByName finds a user by name, whatever the ASCII case.
func (r reader) UserByName(ctx context.Context, name string) (*groups.User, error) {
	return one(ctx, r.q, "user by name", scanUser, `select `+userColumns+` from users u where u.name_key = $1`, fold(name))
}

// UsersByEmail finds at most two users. Nobody is found by an empty address.
func (r reader) UsersByEmail(ctx context.Context, email string) ([]groups.User, error) {
	return list(ctx, r.q, "users by email", scanUser,
		`select `+userColumns+` from users u where u.email_key = $1 and u.email_key <> '' order by u.id limit 2`, fold(email))
}

// Users lists users by id.
func (r reader) Users(ctx context.Context, query string, after groups.UserID, limit int) ([]groups.User, error) {
	return list(ctx, r.q, "users", scanUser, `select `+userColumns+` from users u
		where u.id > $1 and ($2 = '' or instr(u.name_key, $2) > 0 or instr(u.email_key, $2) > 0 or instr(lower(u.display), $2) > 0)
		order by u.id limit $3`, int64(after), fold(query), limitOf(limit))
}

// CountUsers counts the users, and those who hold a grant.
func (r reader) CountUsers(ctx context.Context) (all, holders int, err error) {
	n, err := one(ctx, r.q, "count users", func(r *rows, n *[2]int) error { return r.Scan(&n[0], &n[1]) },
		`select (select count(*) from users), (select count(*) from users where holder = 1)`)
	if err != nil {
		return 0, 0, err
	}
	return n[0], n[1], nil
}

// CountSessions counts the sessions that have not expired and were used since.
// Logins are large rows, so only those are read that are over and not swept
// yet: 100,000 sessions take tens of milliseconds, not more than half a second.
func (r reader) CountSessions(ctx context.Context, now, used time.Time) (int, error) {
	n, err := one(ctx, r.q, "count sessions", scanValue[int],
		`select (select count(*) from sessions where used > $2) -
			(select count(*) from logins l cross join sessions s
				where s.login_id = l.id and l.expires <= $1 and s.used > $2)`, micros(now), micros(used))
	if err != nil {
		return 0, err
	}
	return *n, nil
}

// CountHoldersAmong counts those of the users who hold a grant.
func (r reader) CountHoldersAmong(ctx context.Context, users []groups.UserID) (int, error) {
	n, err := one(ctx, r.q, "count holders", scanValue[int],
		`select count(*) from users where holder = 1 and id in ids($1)`, jsonUsers(users))
	if err != nil {
		return 0, err
	}
	return *n, nil
}

// RemovedUsers lists the users noted since then.
func (r reader) RemovedUsers(ctx context.Context, since time.Time) ([]groups.UserID, error) {
	return list(ctx, r.q, "removed users", scanValue[groups.UserID],
		`select user_id from removals where at >= $1 order by user_id`, micros(since))
}

// Rules lists the rules of the store.
func (r reader) Rules(ctx context.Context) ([]groups.Rule, error) {
	return list(ctx, r.q, "rules", func(r *rows, rule *groups.Rule) error {
		var id, body string
		var version int64
		if err := r.Scan(&id, &body, &version); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), rule); err != nil {
			return fmt.Errorf("stored rule: %w", err)
		}
		rule.ID, rule.Version = id, version
		return nil
	}, `select id, body, version from rules order by id`)
}

// Meta reads one value. Keys that begin with "store/" are the store's own.
func (r reader) Meta(ctx context.Context, key string) (json.RawMessage, error) {
	v, err := one(ctx, r.q, "meta", scanValue[string], `select value from meta where key = $1`, key)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(*v), nil
}

// Epoch reads the number.
func (r reader) Epoch(ctx context.Context) (int64, error) {
	n, err := one(ctx, r.q, "epoch", scanValue[int64], `select cast(value as bigint) from meta where key = 'store/epoch'`)
	if err != nil {
		return 0, err
	}
	return *n, nil
}

// where joins conditions on fields that are set.
type where struct {
	text strings.Builder
	args []any
}

func (w *where) add(set bool, condition string, args ...any) {
	if !set {
		return
	}
	if w.text.Len() > 0 {
		w.text.WriteString(" and ")
	}
	w.write(condition, args...)
}

// write adds text with a "?" for each argument, and numbers them.
func (w *where) write(text string, args ...any) {
	for i, part := range strings.Split(text, "?") {
		if i > 0 {
			w.args = append(w.args, args[i-1])
			fmt.Fprintf(&w.text, "$%d", len(w.args))
		}
		w.text.WriteString(part)
	}
}
