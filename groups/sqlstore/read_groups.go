package sqlstore

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/groups"
)

const groupColumns = `g.name, g.control, g.description, g.created, (select count(*) from (
	select user_id from grants where group_id = g.id union select user_id from manual where group_id = g.id))`

func scanGroup(r *rows, g *groups.Group) error {
	var created int64
	err := r.Scan(&g.Name, &g.Control, &g.Description, &created, &g.Members)
	g.Created = when(created)
	return err
}

// Group finds one group.
func (r reader) Group(ctx context.Context, name string) (*groups.Group, error) {
	return one(ctx, r.q, "group", scanGroup, `select `+groupColumns+` from groups g where g.name = ?1`, name)
}

// Groups lists groups by name.
func (r reader) Groups(ctx context.Context, query, after string, limit int) ([]groups.Group, error) {
	return list(ctx, r.q, "groups", scanGroup, `select `+groupColumns+` from groups g
		where g.name > ?1 and (?2 = '' or instr(lower(g.name), ?2) > 0) order by g.name limit ?3`, after, fold(query), limitOf(limit))
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
	}, `select name, control from groups where name in (select value from json_each(?1))`, jsonList(names))
	if err != nil {
		return nil, failed("controls", err)
	}
	return out, nil
}

// GroupNames lists the names of a user's groups.
func (r reader) GroupNames(ctx context.Context, user groups.UserID) ([]string, error) {
	return list(ctx, r.q, "group names", scanValue[string], `select name from groups where id in (
		select group_id from grants where user_id = ?1 union all select group_id from manual where user_id = ?1) order by name`, int64(user))
}

// reason is one row of grants or manual.
type reason struct {
	grant groups.Grant
	hand  bool
	actor string
	since int64
}

// addTo puts one more reason into a membership.
func (r reason) addTo(m *groups.Membership) {
	since := when(r.since)
	if m.Since.IsZero() || since.Before(m.Since) {
		m.Since = since
	}
	if r.hand {
		m.By = r.actor
		return
	}
	m.Grants = append(m.Grants, r.grant)
}

// sortGrants is cheap: the table's key has nearly this order.
func sortGrants(m *groups.Membership) {
	if !slices.IsSortedFunc(m.Grants, groups.Grant.Compare) {
		slices.SortFunc(m.Grants, groups.Grant.Compare)
	}
}

// Memberships lists a user's memberships.
func (r reader) Memberships(ctx context.Context, user groups.UserID) ([]groups.Membership, error) {
	byGroup := map[string]*groups.Membership{}
	err := each(ctx, r.q, func(r *rows) error {
		var why reason
		var name string
		var control groups.Control
		g := &why.grant
		if err := r.Scan(&name, &control, &why.hand, &g.Source, &g.Rule, &g.Claim, &g.Value, &why.actor, &why.since); err != nil {
			return err
		}
		m := byGroup[name]
		if m == nil {
			m = &groups.Membership{Group: name, Control: control}
			byGroup[name] = m
		}
		why.grant.Group = m.Group
		why.addTo(m)
		return nil
	}, `select g.name, g.control, 0, r.source, r.rule, r.claim, r.value, '', r.since
		from grants r join groups g on g.id = r.group_id where r.user_id = ?1
		union all
		select g.name, g.control, 1, '', '', '', '', m.actor, m.since
		from manual m join groups g on g.id = m.group_id where m.user_id = ?1`, int64(user))
	if err != nil {
		return nil, failed("memberships", err)
	}
	return sortMemberships(slices.Collect(maps.Values(byGroup))), nil
}

func sortMemberships(all []*groups.Membership) []groups.Membership {
	slices.SortFunc(all, func(a, b *groups.Membership) int { return strings.Compare(a.Group, b.Group) })
	out := make([]groups.Membership, len(all))
	for i, m := range all {
		sortGrants(m)
		out[i] = *m
	}
	return out
}

// EachMembership reads a batch of users at a time. Groups are joined here, not
// by the database: a hundred thousand users have far fewer groups than rows.
func (r reader) EachMembership(ctx context.Context, fn func(groups.UserID, []groups.Membership) error) error {
	known := map[int64]groups.Membership{} // by the group's row; name and control
	var after int64
	for {
		upTo, err := one(ctx, r.q, "each membership", scanValue[int64],
			`select coalesce(max(id), 0) from (select id from users where id > ?1 order by id limit ?2)`, after, batch)
		if err != nil {
			return err
		}
		if *upTo == 0 {
			return nil
		}
		byUser, err := r.membershipsOf(ctx, after, *upTo, known)
		if err != nil {
			return failed("each membership", err)
		}
		for _, id := range slices.Sorted(maps.Keys(byUser)) {
			if err := fn(id, sortMemberships(byUser[id])); err != nil {
				return err
			}
		}
		after = *upTo
	}
}

func (r reader) membershipsOf(ctx context.Context, after, upTo int64, known map[int64]groups.Membership) (map[groups.UserID][]*groups.Membership, error) {
	type row struct {
		user  groups.UserID
		group int64
		why   reason
	}
	var all []row
	// A copy less for each text that stands in thousands of rows.
	words := interner{}
	missing := false
	err := each(ctx, r.q, func(r *rows) error {
		var v row
		g := &v.why.grant
		err := r.Scan(&v.user, &v.group, &v.why.hand, &g.Source, &g.Rule, &g.Claim, &g.Value, &v.why.actor, &v.why.since)
		g.Source, g.Rule, g.Claim = words.get(g.Source), words.get(g.Rule), words.get(g.Claim)
		_, there := known[v.group]
		missing = missing || !there
		all = append(all, v)
		return err
	}, `select user_id, group_id, 0, source, rule, claim, value, '', since from grants where user_id > ?1 and user_id <= ?2
		union all
		select user_id, group_id, 1, '', '', '', '', actor, since from manual where user_id > ?1 and user_id <= ?2`, after, upTo)
	if err != nil {
		return nil, err
	}
	if missing {
		if err := r.loadGroups(ctx, known); err != nil {
			return nil, err
		}
	}
	byUser := map[groups.UserID][]*groups.Membership{}
	at := map[[2]int64]*groups.Membership{}
	for _, v := range all {
		group, there := known[v.group]
		if !there {
			continue // the group went between the two reads
		}
		key := [2]int64{int64(v.user), v.group}
		m := at[key]
		if m == nil {
			m = &groups.Membership{Group: group.Group, Control: group.Control}
			at[key] = m
			byUser[v.user] = append(byUser[v.user], m)
		}
		v.why.grant.Group = m.Group
		v.why.addTo(m)
	}
	return byUser, nil
}

func (r reader) loadGroups(ctx context.Context, known map[int64]groups.Membership) error {
	return each(ctx, r.q, func(r *rows) error {
		var id int64
		var m groups.Membership
		err := r.Scan(&id, &m.Group, &m.Control)
		known[id] = m
		return err
	}, `select id, name, control from groups`)
}

// interner keeps one copy of each text.
type interner map[string]string

func (in interner) get(s string) string {
	if first, there := in[s]; there {
		return first
	}
	in[s] = s
	return s
}

// Members lists a group's members; ErrNotFound when there is no such group.
func (r reader) Members(ctx context.Context, group string, after groups.UserID, limit int) ([]groups.Member, error) {
	type found struct {
		id      int64
		control groups.Control
	}
	g, err := one(ctx, r.q, "members", func(r *rows, f *found) error { return r.Scan(&f.id, &f.control) },
		`select id, control from groups where name = ?1`, group)
	if err != nil {
		return nil, err
	}
	var out []groups.Member
	err = each(ctx, r.q, func(r *rows) error {
		var u groups.User
		why := reason{grant: groups.Grant{Group: group}}
		var created int64
		err := r.Scan(&u.ID, &u.Name, &u.Email, &u.Display, &created, &why.hand,
			&why.grant.Source, &why.grant.Rule, &why.grant.Claim, &why.grant.Value, &why.actor, &why.since)
		if err != nil {
			return err
		}
		if len(out) == 0 || out[len(out)-1].User.ID != u.ID {
			u.Created = when(created)
			out = append(out, groups.Member{User: u, Membership: groups.Membership{Group: group, Control: g.control}})
		}
		why.addTo(&out[len(out)-1].Membership)
		return nil
	}, `with page (user_id) as (
			select user_id from grants where group_id = ?1 and user_id > ?2
			union
			select user_id from manual where group_id = ?1 and user_id > ?2
			order by user_id limit ?3)
		select `+userColumns+`, 0, r.source, r.rule, r.claim, r.value, '', r.since
		from page p join users u on u.id = p.user_id join grants r on r.user_id = p.user_id and r.group_id = ?1
		union all
		select `+userColumns+`, 1, '', '', '', '', m.actor, m.since
		from page p join users u on u.id = p.user_id join manual m on m.user_id = p.user_id and m.group_id = ?1
		order by 1, 6, 7, 8, 9, 10`, g.id, int64(after), limitOf(limit))
	if err != nil {
		return nil, failed("members", err)
	}
	return out, nil
}
