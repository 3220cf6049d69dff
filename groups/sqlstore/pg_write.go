package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// What PostgreSQL does in another way than SQLite.

// DeleteUser takes the grants away as well, which do not refer to the user.
func (t *pgTx) DeleteUser(ctx context.Context, id groups.UserID) error {
	if err := t.do(ctx, "delete user", `delete from grants where user_id = $1`, int64(id)); err != nil {
		return err
	}
	return t.tx.DeleteUser(ctx, id)
}

// LockUser waits for other transactions that have the user locked.
func (t *pgTx) LockUser(ctx context.Context, id groups.UserID) error {
	_, err := one(ctx, t.tx, "lock user", scanValue[int64], `select id from users where id = $1 for no key update`, int64(id))
	return err
}

// The reasons that a JSON parameter of grants means, null where there is none:
// for each, one look into two indexes. The planner does not know how many there
// are, and what it makes of a plain join can take a thousand times as long.
const (
	pgGroup  = ` from json_array_elements($1::json) j left join lateral (select id from groups where name = j.value->>0 offset 0) g on true`
	pgReason = pgGroup + ` left join lateral (select id from reasons where group_id = g.id and source = $2
		and rule = j.value->>1 and claim = $3 and value = j.value->>2 and md5(value) = md5(j.value->>2) offset 0) r on true`
)

// AddGrants asks what is missing instead of finding out by a fault, which would
// end the transaction.
func (t *pgTx) AddGrants(ctx context.Context, user groups.UserID, grants []groups.Grant, at time.Time) error {
	if len(grants) == 0 {
		return nil
	}
	// In one order, whoever writes: two that add the same reasons wait for each
	// other one way only.
	grants = slices.SortedFunc(slices.Values(grants), groups.Grant.Compare)
	err := perClaim(grants, func(param document, source, claim string) error {
		add := func() (noGroup, noReason int64, err error) {
			type missing struct{ groups, reasons int64 }
			m, err := one(ctx, t.tx, "add grants", func(r *rows, m *missing) error { return r.Scan(&m.groups, &m.reasons) },
				// Of a user who is not there, no row comes.
				`with wanted as materialized (select g.id as group_id, r.id as reason_id`+pgReason+`),
				added as (insert into grants (user_id, reason_id, since) select $4, reason_id, $5 from wanted
					where not exists (select 1 from wanted where reason_id is null) and exists (select 1 from users where id = $4) on conflict do nothing)
				select count(*) filter (where group_id is null), count(*) filter (where reason_id is null) from wanted
				having exists (select 1 from users where id = $4)`,
				param, source, claim, int64(user), micros(at))
			if err != nil {
				return 0, 0, err
			}
			return m.groups, m.reasons, nil
		}
		noGroup, noReason, err := add()
		if err == nil && noGroup == 0 && noReason > 0 {
			if _, err = t.exec(ctx, `insert into reasons (group_id, source, rule, claim, value)
				select g.id, $2, j.value->>1, $3, j.value->>2`+pgGroup+` on conflict do nothing`, param, source, claim); err != nil {
				return failed("add grants", err)
			}
			noGroup, noReason, err = add()
		}
		if err == nil && (noGroup > 0 || noReason > 0) {
			return failed("add grants", groups.ErrNotFound)
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.do(ctx, "add grants", `update users set holder = 1 where id = $1 and holder = 0`, int64(user))
}

// DropGrants takes reasons away.
func (t *pgTx) DropGrants(ctx context.Context, user groups.UserID, grants []groups.Grant) error {
	if len(grants) == 0 {
		return nil
	}
	err := perClaim(grants, func(param document, source, claim string) error {
		return t.do(ctx, "drop grants", `delete from grants where ctid = any(array(select h.ctid`+pgReason+`
			join lateral (select ctid from grants where user_id = $4 and reason_id = r.id offset 0) h on true))`,
			param, source, claim, int64(user))
	})
	if err != nil {
		return err
	}
	return t.noHolder(ctx, user)
}

// AddEvents writes events, their tallies and their mentions in one statement.
// Triggers could not: a body may hold what PostgreSQL's JSON functions refuse.
func (t *pgTx) AddEvents(ctx context.Context, events ...groups.Event) error {
	if len(events) == 0 {
		return nil
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var lines, mentions [][]string
	for i, e := range events {
		body, err := bodyOf(e)
		if err != nil {
			return failed("add event", err)
		}
		if e.At.IsZero() {
			e.At = t.now()
		}
		c := cmp.Or(e.Change, &groups.Change{})
		lines = append(lines, []string{number(micros(e.At)), e.Kind, number(int64(e.User)), e.Source, e.Group, e.Request, body,
			number(int64(len(c.Added))), number(int64(len(c.Removed)))})
		for _, m := range mentionsOf(e.Group, c) {
			mentions = append(mentions, []string{number(int64(i + 1)), m[0], m[1]})
		}
	}
	same := func(line []string) []string { return line }
	return t.do(ctx, "add event", `with written as materialized (
			select nextval(pg_get_serial_sequence('events', 'id')) as id, line.* from (
				select no, (v->>0)::bigint as at, v->>1 as kind, (v->>2)::bigint as user_id, v->>3 as source, v->>4 as grp, v->>5 as request,
					v->>6 as body, (v->>7)::bigint as added, (v->>8)::bigint as removed
				from json_array_elements($1::json) with ordinality j (v, no) order by no) line),
		event as (insert into events (id, at, kind, user_id, source, grp, request, body)
			select id, at, kind, user_id, source, grp, request, body from written),
		mention as (insert into mentions (what, name, event_id)
			select v->>1, v->>2, w.id from json_array_elements($2::json) j (v) join written w on w.no = (v->>0)::bigint)
		insert into tallies (hour, kind, source, n, added, removed, first_id, last_id)
			select at / 3600000000, kind, source, count(*), sum(added), sum(removed), min(id), max(id) from written group by 1, 2, 3`,
		jsonRows(lines, same), jsonRows(mentions, same))
}

// mentionsOf is what an event is found by beside its columns; see SQLite's
// triggers. Each is there once.
func mentionsOf(group string, c *groups.Change) (all [][2]string) {
	if group != "" {
		all = append(all, [2]string{"group", group})
	}
	for _, name := range slices.Concat(c.Added, c.Removed) {
		all = append(all, [2]string{"group", name})
	}
	if len(c.Skipped) > 0 {
		all = append(all, [2]string{"skipped", ""})
	}
	if len(c.Held) > 0 {
		all = append(all, [2]string{"held", ""})
	}
	slices.SortFunc(all, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return slices.Compact(all)
}

// Sweep forgets marks as well, and makes one row of each past hour's tallies.
func (t *pgTx) Sweep(ctx context.Context, now time.Time) error {
	return errors.Join(
		t.tx.Sweep(ctx, now),
		t.do(ctx, "sweep", `delete from marks where at < $1`, micros(now.Add(-keepNotices))),
		t.do(ctx, "sweep", `with loose as (delete from tallies where not folded and hour < $1 returning *)
			insert into tallies (hour, kind, source, n, added, removed, first_id, last_id, folded)
			select hour, kind, source, sum(n), sum(added), sum(removed), min(first_id), max(last_id), true from loose group by 1, 2, 3`,
			micros(now)/hourMicros),
	)
}
