package sqlstore

import (
	"context"
	"maps"
	"slices"

	"github.com/groupgate/groupgate/groups"
)

// Most groups have one reason and nobody by hand, or people by hand alone: then
// members are rows, and need no comparing.
const groupColumns = `g.name, g.control, g.description, g.created,
	case when (select count(*) from reasons where group_id = g.id) < 2 and not exists (select 1 from manual where group_id = g.id)
	then (select count(*) from grants where reason_id = (select id from reasons where group_id = g.id))
	when not exists (select 1 from reasons where group_id = g.id) then (select count(*) from manual where group_id = g.id)
	else (select count(*) from (
		select user_id from grants where reason_id in (select id from reasons where group_id = g.id)
		union select user_id from manual where group_id = g.id) m) end`

func scanGroup(r *rows, g *groups.Group) error {
	var created int64
	err := r.Scan(&g.Name, &g.Control, &g.Description, &created, &g.Members)
	g.Created = when(created)
	return err
}

// Group finds one group.
func (r reader) Group(ctx context.Context, name string) (*groups.Group, error) {
	return one(ctx, r.q, "group", scanGroup, `select `+groupColumns+` from groups g where g.name = $1`, name)
}

// Groups lists groups by name.
func (r reader) Groups(ctx context.Context, query, after string, limit int) ([]groups.Group, error) {
	return r.FindGroups(ctx, groups.GroupQuery{Query: query, After: after, Limit: limit})
}

// CountGroups counts the groups of each control.
func (r reader) CountGroups(ctx context.Context) (map[groups.Control]int, error) {
	out := map[groups.Control]int{}
	err := each(ctx, r.q, func(r *rows) error {
		var control groups.Control
		var n int
		err := r.Scan(&control, &n)
		out[control] = n
		return err
	}, `select control, count(*) from groups group by control`)
	if err != nil {
		return nil, failed("count groups", err)
	}
	return out, nil
}

// Controls answers the control of those names that are groups.
func (r reader) Controls(ctx context.Context, names []string) (map[string]groups.Control, error) {
	out := make(map[string]groups.Control, len(names))
	if len(names) == 0 {
		return out, nil
	}
	err := each(ctx, r.q, func(r *rows) error {
		var name string
		var control groups.Control
		err := r.Scan(&name, &control)
		out[name] = control
		return err
	}, `select name, control from groups where name in texts($1)`, jsonList(names))
	if err != nil {
		return nil, failed("controls", err)
	}
	return out, nil
}

// GroupNames lists the names of a user's groups.
func (r reader) GroupNames(ctx context.Context, user groups.UserID) ([]string, error) {
	return list(ctx, r.q, "group names", scanValue[string], `select name from groups where id in (
		select r.group_id from grants g join reasons r on r.id = g.reason_id where g.user_id = $1
		union all select group_id from manual where user_id = $1) order by name`, int64(user))
}

// reason is why somebody may be in a group: a row of reasons or, with no more
// than the group, the word of a person.
type reason struct {
	grant   groups.Grant
	control groups.Control
}

// held is a reason of one user: a row of grants or of manual.
type held struct {
	*reason
	hand  bool
	actor string
	since int64
}

const (
	grantReason  = `g.name, g.control, false, r.source, r.rule, r.claim, r.value, '', h.since`
	manualReason = `g.name, g.control, true, '', '', '', '', m.actor, m.since`
)

func scanHeld(r *rows, why *held, before ...any) error {
	why.reason = &reason{}
	g := &why.grant
	return r.Scan(append(before, &g.Group, (*string)(&why.control), &why.hand, &g.Source, &g.Rule, &g.Claim, &g.Value, &why.actor, &why.since)...)
}

// membershipsOf makes memberships of one user's reasons; it sorts them.
func membershipsOf(all []held) []groups.Membership {
	slices.SortFunc(all, func(a, b held) int { return a.grant.Compare(b.grant) })
	out := make([]groups.Membership, 0, len(all))
	grants := make([]groups.Grant, 0, len(all))
	for _, why := range all {
		if len(out) == 0 || out[len(out)-1].Group != why.grant.Group {
			out = append(out, groups.Membership{Group: why.grant.Group, Control: why.control})
		}
		m := &out[len(out)-1]
		if since := when(why.since); m.Since.IsZero() || since.Before(m.Since) {
			m.Since = since
		}
		if why.hand {
			m.By = why.actor
			continue
		}
		// Neighbours share one array, but none can grow into the next.
		grants = append(grants, why.grant)
		first := len(grants) - 1 - len(m.Grants)
		m.Grants = grants[first:len(grants):len(grants)]
	}
	return out
}

// Memberships lists a user's memberships.
func (r reader) Memberships(ctx context.Context, user groups.UserID) ([]groups.Membership, error) {
	all, err := list(ctx, r.q, "memberships", func(r *rows, why *held) error { return scanHeld(r, why) },
		`select `+grantReason+` from grants h join reasons r on r.id = h.reason_id join groups g on g.id = r.group_id where h.user_id = $1
		union all
		select `+manualReason+` from manual m join groups g on g.id = m.group_id where m.user_id = $1`, int64(user))
	if err != nil {
		return nil, err
	}
	return membershipsOf(all), nil
}

// EachMembership reads a batch of users at a time. Reasons and groups are
// joined here, not by the database: a hundred thousand users have millions of
// grants, but the same few thousand reasons.
func (r reader) EachMembership(ctx context.Context, fn func(groups.UserID, []groups.Membership) error) error {
	known := directoryReasons{}
	var after int64
	for {
		upTo, err := one(ctx, r.q, "each membership", scanValue[int64],
			`select coalesce(max(id), 0) from (select id from users where id > $1 order by id limit $2) page`, after, batch)
		if err != nil {
			return err
		}
		if *upTo == 0 {
			return nil
		}
		byUser, err := r.reasonsOf(ctx, after, *upTo, &known)
		if err != nil {
			return failed("each membership", err)
		}
		for _, id := range slices.Sorted(maps.Keys(byUser)) {
			if err := fn(groups.UserID(id), membershipsOf(byUser[id])); err != nil {
				return err
			}
		}
		after = *upTo
	}
}

// directoryReasons is every reason and group by its number.
type directoryReasons struct{ grants, groups map[int64]*reason }

func (r reader) reasonsOf(ctx context.Context, after, upTo int64, known *directoryReasons) (map[int64][]held, error) {
	type row struct {
		user, ref, since int64
		actor            any // nil: ref is a reason's number; else a group's
	}
	all := make([]row, 0, 20*batch)
	missing := false
	err := each(ctx, r.q, func(r *rows) error {
		// Into "any", which is the one way that needs no reflection.
		var user, ref, since any
		var v row
		if err := r.Scan(&user, &ref, &since, &v.actor); err != nil {
			return err
		}
		v.user, _ = user.(int64)
		v.ref, _ = ref.(int64)
		v.since, _ = since.(int64)
		missing = missing || known.find(v.ref, v.actor) == nil
		all = append(all, v)
		return nil
	}, `select user_id, reason_id, since, null from grants where user_id > $1 and user_id <= $2
		union all
		select user_id, group_id, since, actor from manual where user_id > $1 and user_id <= $2`, after, upTo)
	if err != nil {
		return nil, err
	}
	if missing {
		if err := r.loadReasons(ctx, known); err != nil {
			return nil, err
		}
	}
	byUser := make(map[int64][]held, batch)
	for from := 0; from < len(all); {
		// Rows of one user stand together, once for grants and once by hand.
		to := from
		for to < len(all) && all[to].user == all[from].user {
			to++
		}
		mine := slices.Grow(byUser[all[from].user], to-from)
		for _, v := range all[from:to] {
			if why := known.find(v.ref, v.actor); why != nil { // else the group went between the two reads
				actor, hand := v.actor.(string)
				mine = append(mine, held{why, hand, actor, v.since})
			}
		}
		if len(mine) > 0 {
			byUser[all[from].user] = mine
		}
		from = to
	}
	return byUser, nil
}

func (d *directoryReasons) find(ref int64, actor any) *reason {
	if actor == nil {
		return d.grants[ref]
	}
	return d.groups[ref]
}

func (r reader) loadReasons(ctx context.Context, d *directoryReasons) error {
	d.grants, d.groups = map[int64]*reason{}, map[int64]*reason{}
	err := each(ctx, r.q, func(r *rows) error {
		var id int64
		var why held
		err := scanHeld(r, &why, &id)
		d.grants[id] = why.reason
		return err
	}, `select r.id, g.name, g.control, false, r.source, r.rule, r.claim, r.value, '', 0 from reasons r join groups g on g.id = r.group_id`)
	if err != nil {
		return err
	}
	return each(ctx, r.q, func(r *rows) error {
		var id int64
		var why reason
		err := r.Scan(&id, &why.grant.Group, (*string)(&why.control))
		d.groups[id] = &why
		return err
	}, `select id, name, control from groups`)
}

// Members lists a group's members; ErrNotFound when there is no such group.
func (r reader) Members(ctx context.Context, group string, after groups.UserID, limit int) ([]groups.Member, error) {
	id, err := one(ctx, r.q, "members", scanValue[int64], `select id from groups where name = $1`, group)
	if err != nil {
		return nil, err
	}
	return r.membersOf(ctx, "members", `
			select user_id from grants where reason_id in (select id from reasons where group_id = $1) and user_id > $2
			union
			select user_id from manual where group_id = $1 and user_id > $2
			order by user_id limit $3`, *id, int64(after), limitOf(limit))
}

// membersOf reads the members whose ids a statement selects, by id. The
// statement's first argument is the group's number. "cross join" keeps the
// order: SQLite does not know that a page is short, and would begin with all of
// the group.
func (r reader) membersOf(ctx context.Context, step, page string, args ...any) ([]groups.Member, error) {
	var out []groups.Member
	var reasons [][]held
	err := each(ctx, r.q, func(r *rows) error {
		var u groups.User
		var why held
		var created int64
		if err := scanHeld(r, &why, &u.ID, &u.Name, &u.Email, &u.Display, &created); err != nil {
			return err
		}
		if len(out) == 0 || out[len(out)-1].User.ID != u.ID {
			u.Created = when(created)
			out = append(out, groups.Member{User: u})
			reasons = append(reasons, nil)
		}
		reasons[len(reasons)-1] = append(reasons[len(reasons)-1], why)
		return nil
	}, `with page (user_id) as (`+page+`)
		select `+userColumns+`, `+grantReason+`
		from page p cross join users u on u.id = p.user_id cross join groups g on g.id = $1 cross join reasons r on r.group_id = $1
			cross join grants h on h.user_id = p.user_id and h.reason_id = r.id
		union all
		select `+userColumns+`, `+manualReason+`
		from page p cross join users u on u.id = p.user_id cross join groups g on g.id = $1
			cross join manual m on m.user_id = p.user_id and m.group_id = $1
		order by 1`, args...)
	if err != nil {
		return nil, failed(step, err)
	}
	for i := range out {
		out[i].Membership = membershipsOf(reasons[i])[0]
	}
	return out, nil
}
