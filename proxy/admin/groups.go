package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/groupgate/groupgate/groups"
)

const maxDescription = 4 << 10 // bytes

func (s *Server) listGroups(x *exchange) error {
	_, _, here, err := s.findGroups(x)
	if err != nil {
		return err
	}
	return x.ok(each(here, shown))
}

func shown(g groups.Group) groups.Group {
	g.Created = g.Created.UTC()
	return g
}

// groupTag covers what PATCH can change. The number of members is not in it:
// whoever edits a description does not mind that somebody signed in.
func groupTag(g *groups.Group) string { return tag(g.Name, string(g.Control), g.Description) }

func (s *Server) group(x *exchange, name string) (*groups.Group, error) {
	g, err := s.dir.Store().Group(x.r.Context(), name)
	if errors.Is(err, groups.ErrNotFound) {
		return nil, noGroup(name)
	}
	return g, err
}

func noGroup(name string) error { return notFound("There is no group %q.", name) }

func (s *Server) getGroup(x *exchange) error {
	g, err := s.group(x, x.args[0])
	if err != nil {
		return err
	}
	return x.group(g)
}

func (x *exchange) group(g *groups.Group) error {
	x.Header().Set("ETag", groupTag(g))
	return x.ok(shown(*g))
}

func groupAddress(name string) string { return apiPrefix + "groups/" + segmentOf(name) }

func (s *Server) createGroup(x *exchange) error {
	in := struct {
		Name        string         `json:"name"`
		Control     groups.Control `json:"control"`
		Description string         `json:"description"`
	}{Control: groups.Manual}
	if err := x.decode(&in, maxBody); err != nil {
		return err
	}
	faults := append(s.nameFaults(in.Name), controlFaults(in.Control)...)
	if faults = append(faults, descriptionFaults(in.Description)...); faults != nil {
		return invalid(faults...)
	}
	made := []groups.Group{{Name: in.Name, Control: in.Control, Description: in.Description, Created: s.o.Now()}}
	err := s.dir.CreateGroups(x.r.Context(), made, x.from.actor)
	if errors.Is(err, groups.ErrConflict) {
		return conflict("There is a group %q already.", in.Name)
	}
	if err != nil {
		return err
	}
	x.Header().Set("ETag", groupTag(&made[0]))
	return x.created(groupAddress(in.Name), shown(made[0]))
}

func (s *Server) nameFaults(name string) []Fault {
	if err := s.dir.CheckGroupName(name); err != nil {
		return []Fault{{"name", err.Error()}}
	}
	if strings.Contains(name, "\x00") {
		return []Fault{{"name", "the name holds a NUL character"}}
	}
	return nil
}

func controlFaults(c groups.Control) []Fault {
	if c != groups.SSO && c != groups.Manual {
		return []Fault{{"control", fmt.Sprintf("%q is neither %q nor %q", c, groups.SSO, groups.Manual)}}
	}
	return nil
}

func descriptionFaults(text string) []Fault {
	if len(text) > maxDescription || strings.Contains(text, "\x00") {
		return []Fault{{"description", fmt.Sprintf("longer than %d bytes, or with a NUL character", maxDescription)}}
	}
	return nil
}

// change is one member of a merge patch (RFC 7396): not there, null, or a
// text.
type change struct {
	set   bool
	value *string
}

func (c *change) UnmarshalJSON(raw []byte) error {
	c.set = true
	return json.Unmarshal(raw, &c.value)
}

type groupPatch struct {
	Name        change `json:"name"`
	Control     change `json:"control"`
	Description change `json:"description"`
}

// change checks a patch of a group. A null takes a value away, and only a
// description can be gone.
func (s *Server) change(g *groups.Group, in *groupPatch) (groups.GroupChange, []Fault) {
	var out groups.GroupChange
	var faults []Fault
	if in.Name.set {
		switch out.Name = in.Name.value; {
		case out.Name == nil:
			faults = append(faults, Fault{"name", "a group has a name"})
		case *out.Name != g.Name:
			faults = append(faults, s.nameFaults(*out.Name)...)
		}
	}
	if in.Control.set {
		if in.Control.value == nil {
			faults = append(faults, Fault{"control", "a group has a control"})
		} else {
			c := groups.Control(*in.Control.value)
			out.Control = &c
			faults = append(faults, controlFaults(c)...)
		}
	}
	if in.Description.set {
		if out.Description = in.Description.value; out.Description == nil {
			out.Description = new(string)
		}
		faults = append(faults, descriptionFaults(*out.Description)...)
	}
	return out, faults
}

func (s *Server) patchGroup(x *exchange) error {
	var in groupPatch
	if err := x.decode(&in, maxBody, "application/merge-patch+json"); err != nil {
		return err
	}
	s.groupWrites.Lock()
	defer s.groupWrites.Unlock()
	name := x.args[0]
	g, err := s.group(x, name)
	if err != nil {
		return err
	}
	if err := x.precondition(groupTag(g)); err != nil {
		return err
	}
	change, faults := s.change(g, &in)
	if faults != nil {
		return invalid(faults...)
	}
	if change.Name != nil && *change.Name != name || change.Control != nil && *change.Control != g.Control {
		if err := s.keepsWay(x, name); err != nil {
			return err
		}
	}
	change.If = func(g *groups.Group) error { return x.precondition(groupTag(g)) } // another replica may have been faster
	g, err = s.dir.UpdateGroup(x.r.Context(), name, change, x.from.actor)
	if errors.Is(err, groups.ErrConflict) {
		return conflict("There is a group %q already.", *change.Name)
	}
	if err != nil {
		return err
	}
	x.Header().Set("Content-Location", x.from.base+groupAddress(g.Name))
	return x.group(g)
}

func (s *Server) deleteGroup(x *exchange) error {
	s.groupWrites.Lock()
	defer s.groupWrites.Unlock()
	name := x.args[0]
	etag := ""
	g, err := s.dir.Store().Group(x.r.Context(), name)
	switch {
	case err == nil:
		etag = groupTag(g)
	case !errors.Is(err, groups.ErrNotFound):
		return err
	}
	if err := x.precondition(etag); err != nil {
		return err
	}
	if err := s.keepsWay(x, name); g != nil && err != nil {
		return err
	}
	same := func(g *groups.Group) error { return x.precondition(groupTag(g)) }
	if err := s.dir.DeleteGroup(x.r.Context(), name, x.from.actor, same); err != nil && !errors.Is(err, groups.ErrNotFound) {
		return err
	}
	return x.done()
}

// member is a user in a group as the API shows it.
type member struct {
	person
	Origin groups.Control `json:"origin"`
	Since  time.Time      `json:"since,omitzero"`
	Why    []why          `json:"why"`
	By     string         `json:"by,omitempty"`
}

func memberOf(m groups.Member) member {
	return member{personOf(&m.User), m.Membership.Origin(), m.Membership.Since.UTC(), reasons(m.Membership.Grants), m.Membership.By}
}

// findMembers answers a page of a group's members, by user name, as the API and
// the console list them.
func (s *Server) findMembers(x *exchange, group string) (*page, list[groups.Member], error) {
	p, err := x.page("group-members")
	if err != nil {
		return nil, list[groups.Member]{}, err
	}
	q := groups.MemberQuery{Group: group, Query: p.q.Get("query"), After: p.after, Limit: p.limit + 1}
	found, err := s.dir.Store().FindMembers(x.r.Context(), q)
	if errors.Is(err, groups.ErrNotFound) {
		err = noGroup(group)
	}
	if err != nil {
		return nil, list[groups.Member]{}, err
	}
	return p, cut(p, found, func(m groups.Member) string { return m.User.Name }), nil
}

func (s *Server) listMembers(x *exchange) error {
	_, here, err := s.findMembers(x, x.args[0])
	if err != nil {
		return err
	}
	return x.ok(each(here, memberOf))
}

func (s *Server) addMember(x *exchange) error {
	id, err := userArg(x.args[1])
	if err != nil {
		return err
	}
	if err := s.dir.AddMember(x.r.Context(), x.args[0], id, x.from.actor); err != nil {
		return memberFault(err)
	}
	return x.done()
}

func (s *Server) removeMember(x *exchange) error {
	id, err := userArg(x.args[1])
	if err != nil {
		return err
	}
	if err := s.keepsPeople(x, id, x.args[0]); err != nil {
		return err
	}
	if err := s.dir.RemoveMember(x.r.Context(), x.args[0], id, x.from.actor); err != nil {
		return memberFault(err)
	}
	return x.done()
}

func memberFault(err error) error {
	if errors.Is(err, groups.ErrNotFound) {
		return notFound("There is no such group, or no such user.")
	}
	return err
}
