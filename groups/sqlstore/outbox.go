package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/groupgate/groupgate/groups"
)

const workColumns = `id, target, user_id, body, created, version, failures, refusals, not_before, parked, reason`

func scanWork(r *rows, w *groups.Work) error {
	var body string
	var created, notBefore, parked int64
	err := r.Scan(&w.ID, &w.Target, &w.User, &body, &created, &w.Version, &w.Failures, &w.Refusals, &notBefore, &parked, &w.Reason)
	w.Body, w.Created, w.NotBefore, w.Parked = json.RawMessage(body), when(created), when(notBefore), when(parked)
	return err
}

// Outbox lists waiting work.
func (r reader) Outbox(ctx context.Context, limit int) ([]groups.Work, error) {
	return list(ctx, r.q, "outbox", scanWork, `select `+workColumns+` from outbox order by id limit $1`, limitOf(limit))
}

// Work finds what a target has to be told of a user.
func (r reader) Work(ctx context.Context, target string, user groups.UserID) (*groups.Work, error) {
	return one(ctx, r.q, "work", scanWork, `select `+workColumns+` from outbox where target = $1 and user_id = $2`, target, int64(user))
}

// DueWork finds what may be tried. Work that failed does not come before work
// that nobody has tried: one person whom a target chokes on would hold up all.
func (r reader) DueWork(ctx context.Context, target string, now time.Time) (*groups.Work, error) {
	return one(ctx, r.q, "due work", scanWork, `select `+workColumns+` from outbox
		where target = $1 and parked = 0 and not_before <= $2 order by not_before, id limit 1`, target, micros(now))
}

// FailedWork lists work whose last attempt failed, parked work first.
func (r reader) FailedWork(ctx context.Context, target string, limit int) ([]groups.Work, error) {
	return list(ctx, r.q, "failed work", scanWork, `select `+workColumns+` from outbox
		where target = $1 and (parked > 0 or failures > 0) order by case when parked > 0 then 0 else 1 end, id limit $2`, target, limitOf(limit))
}

// Backlog counts a target's work.
func (r reader) Backlog(ctx context.Context, target string) (groups.Backlog, error) {
	b, err := one(ctx, r.q, "backlog", func(r *rows, b *groups.Backlog) error {
		var oldest, next int64
		err := r.Scan(&b.Waiting, &b.Parked, &oldest, &next)
		b.Oldest, b.Next = when(oldest), when(next)
		return err
	}, `select count(*), count(case when parked > 0 then 1 end), coalesce(min(created), 0),
			coalesce(min(case when parked = 0 then not_before end), 0)
		from outbox where target = $1`, target)
	if err != nil {
		return groups.Backlog{}, err
	}
	return *b, nil
}

// Told reads what a target holds of a user.
func (r reader) Told(ctx context.Context, target string, user groups.UserID) (groups.Told, error) {
	var told groups.Told
	body, err := one(ctx, r.q, "told", scanValue[string], `select body from told where target = $1 and user_id = $2`, target, int64(user))
	switch {
	case errors.Is(err, groups.ErrNotFound):
		return told, nil
	case err != nil:
		return told, err
	}
	return told, failed("told", json.Unmarshal([]byte(*body), &told))
}

// newWork makes a row, or turns the person's row into what has to be told now.
// What was parked is tried again: it is another thing by now.
const newWork = ` on conflict (target, user_id) do update set body = excluded.body, version = outbox.version + 1,
	failures = case when outbox.parked > 0 then 0 else outbox.failures end,
	refusals = case when outbox.parked > 0 then 0 else outbox.refusals end, parked = 0`

// AddWork writes what targets have to be told of people.
func (t *tx) AddWork(ctx context.Context, work ...groups.Work) error {
	for _, w := range work {
		if w.Created.IsZero() {
			w.Created = t.now()
		}
		err := t.do(ctx, "add work", `insert into outbox (target, user_id, body, created) values ($1, $2, $3, $4)`+newWork,
			w.Target, int64(w.User), string(w.Body), micros(w.Created))
		if err != nil {
			return err
		}
	}
	return nil
}

// AddWorkOfGroup writes the same for every member of a group, or of any.
func (t *tx) AddWorkOfGroup(ctx context.Context, group, target string, at time.Time) error {
	if group == "" {
		return t.do(ctx, "add work", `insert into outbox (target, user_id, body, created)
			select cast($1 as text), m.user_id, '{}', cast($2 as bigint) from (select user_id from grants union select user_id from manual) m where true`+newWork,
			target, micros(at))
	}
	id, err := one(ctx, t, "add work", scanValue[int64], `select id from groups where name = $1`, group)
	if err != nil {
		return err
	}
	// "where true" tells SQLite's parser that "on conflict" is not a join's.
	return t.do(ctx, "add work", `insert into outbox (target, user_id, body, created)
		select cast($1 as text), m.user_id, '{}', cast($2 as bigint) from (
			select user_id from grants where reason_id in (select id from reasons where group_id = $3)
			union
			select user_id from manual where group_id = $3) m where true`+newWork,
		target, micros(at), *id)
}

// DoneWork takes work from the outbox.
func (t *tx) DoneWork(ctx context.Context, ids ...int64) error {
	if len(ids) == 0 {
		return nil
	}
	return t.do(ctx, "done work", `delete from outbox where id in ids($1)`, jsonNumbers(ids))
}

// PutWork writes how the attempts went.
func (t *tx) PutWork(ctx context.Context, w groups.Work) error {
	return t.change(ctx, "put work", `update outbox set failures = $2, refusals = $3, not_before = $4, parked = $5, reason = $6 where id = $1`,
		w.ID, w.Failures, w.Refusals, micros(w.NotBefore), micros(w.Parked), w.Reason)
}

// RetryWork makes a target's work due.
func (t *tx) RetryWork(ctx context.Context, target string) error {
	return t.do(ctx, "retry work", `update outbox set not_before = 0, parked = 0,
		failures = case when parked > 0 then 0 else failures end, refusals = case when parked > 0 then 0 else refusals end
		where target = $1 and (not_before > 0 or parked > 0)`, target)
}

// PutTold remembers what a target holds of a user; nothing is forgotten.
func (t *tx) PutTold(ctx context.Context, target string, user groups.UserID, told groups.Told) error {
	if told.Nothing() {
		return t.do(ctx, "put told", `delete from told where target = $1 and user_id = $2`, target, int64(user))
	}
	body, err := json.Marshal(told)
	if err != nil {
		return failed("put told", err)
	}
	return t.do(ctx, "put told", `insert into told (target, user_id, body) values ($1, $2, $3)
		on conflict (target, user_id) do update set body = excluded.body`, target, int64(user), string(body))
}
