package sqlstore

import (
	"cmp"
	"context"
	"slices"

	"github.com/groupgate/groupgate/groups"
)

// FindUsers lists users by id, by name or by when they were last seen.
func (r reader) FindUsers(ctx context.Context, q groups.UserQuery) ([]groups.FoundUser, error) {
	if q.By == groups.UsersBySeen {
		return r.usersBySeen(ctx, q)
	}
	w := wanted(q)
	order := `u.id`
	if q.By == groups.UsersByName {
		order = `u.name_key`
		if q.Query != "" {
			// A search reads everybody: as they lie, not by an index of names that
			// leads from one to the next all over the table.
			order = `u.name_key || ''`
		}
		w.add(q.After.Name != "", order+` > ?`, fold(q.After.Name))
	} else {
		w.add(q.After.ID != 0, order+` > ?`, int64(q.After.ID))
	}
	found, err := r.foundUsers(ctx, w, order, q.Limit)
	if q.By == groups.UsersByName {
		slices.SortFunc(found, func(a, b groups.FoundUser) int { return cmp.Compare(fold(a.Name), fold(b.Name)) })
	}
	return found, err
}

// wanted is what a user in a list fits, beside its place.
func wanted(q groups.UserQuery) *where {
	w := &where{}
	text := fold(q.Query)
	w.add(text != "", `(replace(u.name_key, ?, '') <> u.name_key or replace(u.email_key, ?, '') <> u.email_key or
		replace(lower(u.display), ?, '') <> lower(u.display))`, text, text, text)
	w.add(q.Source != "", `exists (select 1 from identities s where s.user_id = u.id and s.source = ?)`, q.Source)
	return w
}

// foundUsers reads a page of users, by id. When they were seen is looked up
// for those of the page alone.
func (r reader) foundUsers(ctx context.Context, w *where, order string, limit int) ([]groups.FoundUser, error) {
	page := w.text.String()
	if page != "" {
		page = ` where ` + page
	}
	w.text.Reset()
	w.write(`select ` + userColumns + `, coalesce((select max(i.seen) from identities i where i.user_id = u.id), 0)
		from (select u.id as page_id from users u` + page + ` order by ` + order)
	w.write(` limit ?) p cross join users u where u.id = p.page_id order by u.id`, limitOf(limit))
	return list(ctx, r.q, "find users", scanFound, w.text.String(), w.args...)
}

func scanFound(r *rows, u *groups.FoundUser) error {
	var created, seen int64
	err := r.Scan(&u.ID, &u.Name, &u.Email, &u.Display, &created, &seen)
	u.Created, u.Seen = when(created), when(seen)
	return err
}

// fewUsers is up to how many people that fit are gathered and then sorted. With
// more, a page of them is never far in the index.
const fewUsers = 2000

// usersBySeen walks through the index of when identities were seen, and takes
// each user where the newest of the user's stands. Whoever was never seen is
// not in it, and follows by id. A filter that few fit would lead through all of
// the index: these are gathered.
func (r reader) usersBySeen(ctx context.Context, q groups.UserQuery) ([]groups.FoundUser, error) {
	if q.Query != "" || q.Source != "" {
		all, err := r.foundUsers(ctx, wanted(q), `u.id`, fewUsers+1)
		if err != nil {
			return nil, err
		}
		if len(all) <= fewUsers {
			return seenAfter(all, q), nil
		}
	}
	var out []groups.FoundUser
	if q.After.ID == 0 || !q.After.Seen.IsZero() {
		w := wanted(q)
		w.add(true, `i.seen > 0 and not exists (select 1 from identities j
			where j.user_id = i.user_id and (j.source <> i.source or j.subject <> i.subject)
			and (j.seen > i.seen or j.seen = i.seen and (j.source > i.source or j.source = i.source and j.subject > i.subject)))`)
		seen := micros(q.After.Seen)
		w.add(q.After.ID != 0, `i.seen <= ? and (i.seen < ? or i.user_id > ?)`, seen, seen, int64(q.After.ID))
		page := w.text.String()
		w.text.Reset()
		w.write(`select `+userColumns+`, i.seen from identities i cross join users u where u.id = i.user_id and `+page+`
			order by i.seen desc, i.user_id limit ?`, limitOf(q.Limit))
		var err error
		out, err = list(ctx, r.q, "find users", scanFound, w.text.String(), w.args...)
		if err != nil || q.Limit > 0 && len(out) >= q.Limit {
			return out, err
		}
		q.After = groups.FoundUser{}
	}
	w := wanted(q)
	w.add(q.After.ID != 0, `u.id > ?`, int64(q.After.ID))
	w.add(true, `u.id not in (select user_id from identities where seen > 0)`)
	if q.Limit > 0 {
		q.Limit -= len(out)
	}
	never, err := r.foundUsers(ctx, w, `u.id`, q.Limit)
	return append(out, never...), err
}

// seenAfter is a page of all who fit.
func seenAfter(all []groups.FoundUser, q groups.UserQuery) []groups.FoundUser {
	order := func(a, b groups.FoundUser) int { return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.ID, b.ID)) }
	slices.SortFunc(all, order)
	if q.After.ID != 0 {
		all = slices.DeleteFunc(all, func(u groups.FoundUser) bool { return order(u, q.After) <= 0 })
	}
	if q.Limit > 0 {
		all = all[:min(len(all), q.Limit)]
	}
	return all
}
