package admin

import (
	"context"
	"errors"
	"slices"

	"github.com/groupgate/groupgate/groups"
)

// Who works in the console of the public host is in there by a group, and could
// take that group away: from themselves, and from everybody. They are told
// before it happens, by a problem of its own (errLastWay), and have to say that
// they mean it. Who shows the token keeps a way in, and is not asked.

// waysIn are the groups by which people come into the console, when this act
// could take one of them away and has not been confirmed.
func (s *Server) waysIn(x *exchange) []string {
	if !x.from.public || s.o.ConsoleGroups == nil || slices.Equal(x.r.URL.Query()["confirm"], []string{"last-way"}) {
		return nil
	}
	return s.o.ConsoleGroups()
}

// keepsWay refuses to take a group away by which people come in, or to change
// who is in it altogether.
func (s *Server) keepsWay(x *exchange, group string) error {
	if slices.Contains(s.waysIn(x), group) {
		return errLastWay
	}
	return nil
}

// keepsPeople refuses to take the last person out of one of the groups by which
// people come in.
func (s *Server) keepsPeople(x *exchange, id groups.UserID, from ...string) error {
	ways := s.waysIn(x)
	for _, name := range from {
		if !slices.Contains(ways, name) {
			continue
		}
		g, err := s.dir.Store().Group(x.r.Context(), name)
		if errors.Is(err, groups.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if g.Members != 1 {
			continue
		}
		in, err := s.dir.Store().CountMembersAmong(x.r.Context(), name, []groups.UserID{id})
		if err != nil {
			return err
		}
		if in == 1 {
			return errLastWay
		}
	}
	return nil
}

// rulesKeepPeople refuses a rule that would leave nobody in one of the groups by
// which people come in, as the plan says. It is the rule of that id as it would
// be; nil: it would be gone.
func (s *Server) rulesKeepPeople(x *exchange, id string, changed *groups.Rule) error {
	ctx := x.r.Context()
	people, err := s.membersByRules(ctx, s.waysIn(x))
	if err != nil || len(people) == 0 {
		return err
	}
	stored, err := s.dir.Store().Rules(ctx)
	if err != nil {
		return err
	}
	stored = slices.DeleteFunc(stored, func(r groups.Rule) bool { return r.ID == id })
	if changed != nil {
		stored = append(stored, *changed)
	}
	p, err := s.dir.PlanRules(ctx, stored)
	if errors.Is(err, groups.ErrUnavailable) {
		return err
	}
	if err != nil {
		return nil // the rule cannot be, and who writes it is told why there
	}
	for _, g := range p.Groups {
		if n, counts := people[g.Group]; counts && n+g.Added <= g.Removed {
			return errLastWay
		}
	}
	return nil
}

// membersByRules counts the people of those groups that rules decide about.
func (s *Server) membersByRules(ctx context.Context, names []string) (map[string]int, error) {
	out := map[string]int{}
	for _, name := range names {
		g, err := s.dir.Store().Group(ctx, name)
		if errors.Is(err, groups.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if g.Members > 0 && g.Control == groups.SSO {
			out[name] = g.Members
		}
	}
	return out, nil
}
