package groups

import (
	"cmp"
	"context"
	"maps"
	"slices"
)

// Plan is what a set of rules would change for everybody, from last-seen
// claims. Nothing is written.
type Plan struct {
	Users   []PlannedUser  `json:"users"`  // who would change, by user name
	Groups  []PlannedGroup `json:"groups"` // what would change, by name
	Added   int            `json:"added"`
	Removed int            `json:"removed"`
	Known   int            `json:"known_users"` // users with a statement
	Guard   PlannedGuard   `json:"guard"`
}

// PlannedUser is one user's difference.
type PlannedUser struct {
	ID      UserID   `json:"id"`
	User    string   `json:"user"`
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	Skipped []Skip   `json:"skipped,omitempty"`
}

// PlannedGroup is one group's difference, in numbers of users.
type PlannedGroup struct {
	Group   string `json:"group"`
	Created bool   `json:"created,omitempty"`
	Added   int    `json:"added"`
	Removed int    `json:"removed"`
}

// PlannedGuard is the guard's verdict on a plan.
type PlannedGuard struct {
	Stops   bool `json:"stops"`
	Removed int  `json:"removed_users"` // users that would lose a group, with those of the window
	Limit   int  `json:"limit"`
	Holders int  `json:"holders"`
}

// PlanRules says what would change if the store's rules were these; the
// file's stay.
func (d *Directory) PlanRules(ctx context.Context, stored []Rule) (*Plan, error) {
	st, err := compileState(d.state.Load().settings, stored)
	if err != nil {
		return nil, err
	}
	return d.plan(ctx, st)
}

// PlanSettings says what would change if the configuration were this one,
// with the store's rules as they are.
func (d *Directory) PlanSettings(ctx context.Context, s Settings) (*Plan, error) {
	stored, err := d.store.Rules(ctx)
	if err != nil {
		return nil, err
	}
	st, err := compileState(s, stored)
	if err != nil {
		return nil, err
	}
	return d.plan(ctx, st)
}

func (d *Directory) plan(ctx context.Context, st *state) (*Plan, error) {
	diffs, known, err := d.differences(ctx, st)
	if err != nil {
		return nil, err
	}
	p := &Plan{Users: []PlannedUser{}, Groups: []PlannedGroup{}, Known: known}
	groups := map[string]*PlannedGroup{}
	at := func(name string) *PlannedGroup {
		if groups[name] == nil {
			groups[name] = &PlannedGroup{Group: name}
		}
		return groups[name]
	}
	var losers []UserID
	for _, diff := range diffs {
		u, err := d.store.User(ctx, diff.user)
		if err != nil {
			return nil, err
		}
		pu := diff.planned(u)
		if len(pu.Added)+len(pu.Removed)+len(pu.Skipped) == 0 {
			continue
		}
		p.Users = append(p.Users, pu)
		for _, g := range pu.Added {
			at(g).Added++
		}
		for _, g := range pu.Removed {
			at(g).Removed++
		}
		for _, g := range diff.created {
			at(g).Created = true
		}
		p.Added += len(pu.Added)
		p.Removed += len(pu.Removed)
		if len(pu.Removed) > 0 {
			losers = append(losers, diff.user)
		}
	}
	slices.SortFunc(p.Users, func(a, b PlannedUser) int { return cmp.Compare(a.User, b.User) })
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		p.Groups = append(p.Groups, *groups[name])
	}
	p.Guard, err = d.plannedGuard(ctx, st, losers)
	return p, err
}

func (d *Directory) plannedGuard(ctx context.Context, st *state, losers []UserID) (PlannedGuard, error) {
	g, removed, err := d.guardState(ctx, d.store, st, d.now())
	if err != nil {
		return PlannedGuard{}, err
	}
	holders, err := d.holdersWith(ctx, d.store, removed)
	if err != nil {
		return PlannedGuard{}, err
	}
	out := PlannedGuard{Removed: union(removed, losers), Holders: holders, Limit: st.guard.MaxRemovedUsers.Of(holders)}
	if len(losers) > 0 {
		over := out.Removed > out.Limit && (st.written || holders >= guardFrom)
		out.Stops = over || !g.Tripped.IsZero()
	}
	return out, nil
}
