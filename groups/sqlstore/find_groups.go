package sqlstore

import (
	"context"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/groups"
)

// What lists and searches of groups and members ask for.

// FindGroups lists groups by name or by their number of members.
func (r reader) FindGroups(ctx context.Context, q groups.GroupQuery) ([]groups.Group, error) {
	var w where
	w.add(q.Query != "", `instr(lower(g.name), ?) > 0`, fold(q.Query))
	w.add(q.Control != "", `g.control = ?`, string(q.Control))
	w.add(q.After != "" && !q.ByMembers, `g.name > ?`, q.After)
	only := w.text.String()
	if only != "" {
		only = ` where ` + only
	}
	w.text.Reset()
	w.write(`select * from (select ` + groupColumns + ` as members from groups g` + only + `) found`)
	switch {
	case !q.ByMembers:
		w.write(` order by name`)
	case q.After != "":
		w.write(` where members < ? or members = ? and name > ? order by members desc, name`, q.AfterMembers, q.AfterMembers, q.After)
	default:
		w.write(` order by members desc, name`)
	}
	w.write(` limit ?`, limitOf(q.Limit))
	return list(ctx, r.q, "find groups", scanGroup, w.text.String(), w.args...)
}

// GroupFacts reads the facts of those names that are groups.
func (r reader) GroupFacts(ctx context.Context, names []string) (map[string]groups.GroupFacts, error) {
	out := make(map[string]groups.GroupFacts, len(names))
	if len(names) == 0 {
		return out, nil
	}
	err := each(ctx, r.q, func(r *rows) error {
		var name, rule string
		var changed int64
		if err := r.Scan(&name, &changed, &rule); err != nil {
			return err
		}
		f := out[name]
		f.Changed = when(changed)
		if rule != "" {
			f.Rules = append(f.Rules, rule)
		}
		out[name] = f
		return nil
	}, `select distinct g.name, coalesce((select at from events where id = (
			select max(event_id) from mentions where what = 'group' and name = g.name)), 0), coalesce(r.rule, '') from groups g
		left join reasons r on r.group_id = g.id and exists (select 1 from grants where reason_id = r.id)
		where g.name in texts($1) order by 1, 3`, jsonList(names))
	if err != nil {
		return nil, failed("group facts", err)
	}
	return out, nil
}

// CountMembersAmong counts those of the users who are in a group.
func (r reader) CountMembersAmong(ctx context.Context, group string, users []groups.UserID) (int, error) {
	id, err := one(ctx, r.q, "count members", scanValue[int64], `select id from groups where name = $1`, group)
	if err != nil {
		return 0, err
	}
	n, err := one(ctx, r.q, "count members", scanValue[int], `select count(*) from users u where u.id in ids($2) and (
			exists (select 1 from manual where user_id = u.id and group_id = $1) or
			exists (select 1 from grants where user_id = u.id and reason_id in (select id from reasons where group_id = $1)))`,
		*id, jsonUsers(users))
	if err != nil {
		return 0, err
	}
	return *n, nil
}

// smallGroup is up to how many members are gathered and then sorted by name.
// Of more, people are walked through by name and those who are members kept:
// with that many, a page is never far. A search may find few: it reads
// everybody as they lie, and sorts what it found.
const smallGroup = 2000

const (
	isWanted = `($3 = '' or instr(u.name_key, $3) > 0 or instr(u.email_key, $3) > 0 or instr(lower(u.display), $3) > 0)`
	isMember = `(exists (select 1 from grants where user_id = u.id and reason_id in (select id from reasons where group_id = $1)) or
			exists (select 1 from manual where user_id = u.id and group_id = $1))`

	gathered = `select u.id from users u where u.id in (
			select user_id from grants where reason_id in (select id from reasons where group_id = $1)
			union
			select user_id from manual where group_id = $1)
		and u.name_key > $2 and ` + isWanted + ` order by u.name_key limit $4`
	walked   = `select u.id from users u where u.name_key > $2 and $3 = '' and ` + isMember + ` order by u.name_key limit $4`
	searched = `select u.id from users u where +u.name_key > $2 and ` + isWanted + ` and ` + isMember + ` order by +u.name_key limit $4`
)

// FindMembers lists a group's members by user name.
func (r reader) FindMembers(ctx context.Context, q groups.MemberQuery) ([]groups.Member, error) {
	type row struct {
		id      int64
		members int
	}
	g, err := one(ctx, r.q, "find members", func(r *rows, v *row) error { return r.Scan(&v.id, &v.members) },
		`select id, (select count(*) from (
			select 1 from grants where reason_id in (select id from reasons where group_id = g.id)
			union all select 1 from manual where group_id = g.id limit $2) m) from groups g where name = $1`, q.Group, smallGroup+1)
	if err != nil {
		return nil, err
	}
	text := gathered
	switch {
	case g.members > smallGroup && q.Query == "":
		text = walked
	case g.members > smallGroup:
		text = searched
	}
	out, err := r.membersOf(ctx, "find members", text, g.id, fold(q.After), fold(q.Query), limitOf(q.Limit))
	slices.SortFunc(out, func(a, b groups.Member) int { return strings.Compare(fold(a.User.Name), fold(b.User.Name)) })
	return out, err
}
