package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// CreateGroups makes those groups that are not there. Without a control a
// group is the sync's; without a time it gets the store's.
func (t *tx) CreateGroups(ctx context.Context, all []groups.Group) error {
	type shared struct {
		control     groups.Control
		description string
		created     int64
	}
	var order []shared
	names := map[shared][]string{}
	now := t.now()
	for _, g := range all {
		if g.Created.IsZero() {
			g.Created = now
		}
		k := shared{cmp.Or(g.Control, groups.SSO), g.Description, micros(g.Created)}
		if _, there := names[k]; !there {
			order = append(order, k)
		}
		names[k] = append(names[k], g.Name)
	}
	made := int64(0)
	for _, k := range order {
		n, err := t.exec(ctx, `insert into groups (name, control, description, created)
			select s.value, $2, $3, $4 from texts($1) s where true on conflict (name) do nothing`,
			jsonList(names[k]), string(k.control), k.description, k.created)
		if err != nil {
			return failed("create groups", err)
		}
		made += n
	}
	if made == 0 {
		return nil
	}
	return t.nextEpoch(ctx)
}

func (t *tx) nextEpoch(ctx context.Context) error {
	return t.do(ctx, "epoch", `update meta set value = cast(cast(value as bigint) + 1 as text) where key = 'store/epoch'`)
}

// groupRow finds what the outside does not see.
func (t *tx) groupRow(ctx context.Context, step, name string) (id int64, control groups.Control, err error) {
	type row struct {
		id      int64
		control groups.Control
	}
	g, err := one(ctx, t, step, func(r *rows, v *row) error { return r.Scan(&v.id, &v.control) },
		`select id, control from groups where name = $1`, name)
	if err != nil {
		return 0, "", err
	}
	return g.id, g.control, nil
}

// UpdateGroup writes a group's name, control and description. When people take
// over, each member becomes a manual one, by the actor, since the time the
// membership began; the grants go, so that no later sync finds something to
// take away.
func (t *tx) UpdateGroup(ctx context.Context, name string, g groups.Group, actor string) error {
	id, control, err := t.groupRow(ctx, "update group", name)
	if err != nil {
		return err
	}
	if g.Control == "" {
		g.Control = control
	}
	n, err := t.exec(ctx, `update groups set name = $2, control = $3, description = $4 where id = $1
		and not exists (select 1 from groups o where o.name = $2 and o.id <> $1)`, id, g.Name, string(g.Control), g.Description)
	switch {
	case err != nil:
		return failed("update group", err)
	case n == 0:
		return taken("update group")
	}
	if g.Control == groups.Manual && control != groups.Manual {
		if err := t.do(ctx, "update group", `insert into manual (user_id, group_id, actor, since)
			select user_id, $1, $2, min(since) from grants where reason_id in (select id from reasons where group_id = $1) group by user_id
			on conflict (user_id, group_id) do nothing`, id, actor); err != nil {
			return err
		}
		if err := t.dropGroupGrants(ctx, "update group", id); err != nil {
			return err
		}
	}
	if g.Control == control && g.Name == name {
		return nil
	}
	return t.nextEpoch(ctx)
}

// dropGroupGrants takes every grant of one group away.
func (t *tx) dropGroupGrants(ctx context.Context, step string, id int64) error {
	for _, text := range []string{
		`update users set holder = 0 where holder = 1
			and id in (select user_id from grants where reason_id in (select id from reasons where group_id = $1))
			and not exists (select 1 from grants where user_id = users.id and reason_id not in (select id from reasons where group_id = $1))`,
		`delete from grants where reason_id in (select id from reasons where group_id = $1)`,
		`delete from reasons where group_id = $1`,
	} {
		if err := t.do(ctx, step, text, id); err != nil {
			return err
		}
	}
	return nil
}

// DeleteGroup takes the group and its memberships away.
func (t *tx) DeleteGroup(ctx context.Context, name string) error {
	id, _, err := t.groupRow(ctx, "delete group", name)
	if err != nil {
		return err
	}
	if err := t.dropGroupGrants(ctx, "delete group", id); err != nil {
		return err
	}
	if err := t.do(ctx, "delete group", `delete from groups where id = $1`, id); err != nil {
		return err
	}
	return t.nextEpoch(ctx)
}

// Which reasons a JSON parameter of grants means. The outer joins make the
// number of what is not there null, which the tables refuse.
const (
	joinGroup  = ` from tuples($1) j left join groups g on g.name = j.value->>0`
	joinReason = joinGroup + ` left join reasons r on r.group_id = g.id and r.source = $2
		and r.rule = j.value->>1 and r.claim = $3 and r.value = j.value->>2`
)

// perClaim calls fn with the JSON parameter of the grants of each claim of each
// source: what they share need not be parsed from each.
func perClaim(grants []groups.Grant, fn func(param document, source, claim string) error) error {
	type key struct{ source, claim string }
	var order []key
	sets := map[key][]groups.Grant{}
	for _, g := range grants {
		k := key{g.Source, g.Claim}
		if _, there := sets[k]; !there {
			order = append(order, k)
		}
		sets[k] = append(sets[k], g)
	}
	for _, k := range order {
		param := jsonRows(sets[k], func(g groups.Grant) []string { return []string{g.Group, g.Rule, g.Value} })
		if err := fn(param, k.source, k.claim); err != nil {
			return err
		}
	}
	return nil
}

// AddGrants adds reasons; a group that is not there is ErrNotFound, not a
// grant less.
func (t *tx) AddGrants(ctx context.Context, user groups.UserID, grants []groups.Grant, at time.Time) error {
	if len(grants) == 0 {
		return nil
	}
	err := perClaim(grants, func(param document, source, claim string) error {
		add := func() error {
			_, err := t.exec(ctx, `insert into grants (user_id, reason_id, since) select $4, r.id, $5`+joinReason+` where true
				on conflict (user_id, reason_id) do nothing`, param, source, claim, int64(user), micros(at))
			return err
		}
		err := add()
		if !errors.Is(meaning(err), groups.ErrNotFound) {
			return err
		}
		// A reason that nobody had yet, most likely.
		if _, err := t.exec(ctx, `insert into reasons (group_id, source, rule, claim, value)
			select g.id, $2, j.value->>1, $3, j.value->>2`+joinGroup+` where true
			on conflict (group_id, source, rule, claim, value) do nothing`, param, source, claim); err != nil {
			return err
		}
		return add()
	})
	if err != nil {
		return failed("add grants", err)
	}
	return t.do(ctx, "add grants", `update users set holder = 1 where id = $1 and holder = 0`, int64(user))
}

// DropGrants takes reasons away.
func (t *tx) DropGrants(ctx context.Context, user groups.UserID, grants []groups.Grant) error {
	if len(grants) == 0 {
		return nil
	}
	err := perClaim(grants, func(param document, source, claim string) error {
		_, err := t.exec(ctx, `delete from grants where user_id = $4 and reason_id in (select r.id`+joinReason+`)`, param, source, claim, int64(user))
		return err
	})
	if err != nil {
		return failed("drop grants", err)
	}
	return t.noHolder(ctx, user)
}

// noHolder notes when somebody has lost the last grant.
func (t *tx) noHolder(ctx context.Context, user groups.UserID) error {
	return t.do(ctx, "drop grants", `update users set holder = 0 where id = $1 and holder = 1
		and not exists (select 1 from grants where user_id = $1)`, int64(user))
}

// AddManual adds people to a group by hand; who is a manual member already
// stays as he is.
func (t *tx) AddManual(ctx context.Context, users []groups.UserID, group, by string, at time.Time) error {
	id, _, err := t.groupRow(ctx, "add members", group)
	if err != nil {
		return err
	}
	return t.do(ctx, "add members", `insert into manual (user_id, group_id, actor, since)
		select s.value, $2, $3, $4 from ids($1) s where true
		on conflict (user_id, group_id) do nothing`, jsonUsers(users), id, by, micros(at))
}

// DropManual takes manual memberships away; grants stay.
func (t *tx) DropManual(ctx context.Context, user groups.UserID, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return t.do(ctx, "drop members", `delete from manual where user_id = $1
		and group_id in (select id from groups where name in texts($2))`, int64(user), jsonList(names))
}
