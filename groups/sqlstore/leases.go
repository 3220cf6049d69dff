package sqlstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// Lease finds a lease by its name.
func (r reader) Lease(ctx context.Context, name string) (*groups.Lease, error) {
	return one(ctx, r.q, "lease", func(r *rows, l *groups.Lease) error {
		var until int64
		err := r.Scan(&l.Name, &l.Holder, &until, &l.Note)
		l.Until = when(until)
		return err
	}, `select name, holder, until, note from leases where name = $1`, name)
}

// TakeLease writes a lease that nobody else has.
func (t *tx) TakeLease(ctx context.Context, l groups.Lease, now time.Time) (bool, error) {
	n, err := t.exec(ctx, `insert into leases (name, holder, until, note) values ($1, $2, $3, $4)
		on conflict (name) do update set holder = excluded.holder, until = excluded.until, note = excluded.note
		where leases.until <= $5 or leases.until > $6 or leases.holder = excluded.holder`,
		l.Name, l.Holder, micros(l.Until), l.Note, micros(now), micros(l.Until.Add(groups.LeaseSlack)))
	return n == 1, failed("take lease", err)
}

// PutLease changes a lease that is still its holder's.
func (t *tx) PutLease(ctx context.Context, l groups.Lease) error {
	return stillHeld(t.change(ctx, "put lease", `update leases set until = $3, note = $4 where name = $1 and holder = $2`,
		l.Name, l.Holder, micros(l.Until), l.Note))
}

// DropLease gives a lease back.
func (t *tx) DropLease(ctx context.Context, name, holder string) error {
	return stillHeld(t.change(ctx, "drop lease", `delete from leases where name = $1 and holder = $2`, name, holder))
}

func stillHeld(err error) error {
	if errors.Is(err, groups.ErrNotFound) {
		return fmt.Errorf("the lease is somebody else's: %w", groups.ErrConflict)
	}
	return err
}

// Attempts reads what was noted under each key.
func (r reader) Attempts(ctx context.Context, keys ...[16]byte) ([]json.RawMessage, error) {
	out := make([]json.RawMessage, len(keys))
	for i, key := range keys {
		body, err := list(ctx, r.q, "attempts", scanValue[string], `select body from attempts where id = $1`, hex.EncodeToString(key[:]))
		if err != nil {
			return nil, err
		}
		if len(body) > 0 {
			out[i] = json.RawMessage(body[0])
		}
	}
	return out, nil
}

// PutAttempts notes something under a key.
func (t *tx) PutAttempts(ctx context.Context, key [16]byte, body json.RawMessage, expires time.Time) error {
	return t.do(ctx, "put attempts", `insert into attempts (id, body, expires) values ($1, $2, $3)
		on conflict (id) do update set body = excluded.body, expires = excluded.expires`,
		hex.EncodeToString(key[:]), string(body), micros(expires))
}

// Now is the clock of the machine: whoever opens the file runs on it.
func (s *Store) Now() time.Time { return s.opts.Now() }

// Shared is false: SQLite is for one replica. A command beside it changes
// users and groups, which notices tell.
func (s *Store) Shared() bool { return false }
