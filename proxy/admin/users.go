package admin

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// person is a user as the API shows it.
type person struct {
	ID    groups.UserID `json:"id"`
	User  string        `json:"user"`
	Email string        `json:"email"`
	Name  string        `json:"name"`
}

func personOf(u *groups.User) person {
	return person{ID: u.ID, User: u.Name, Email: u.Email, Name: u.Display}
}

type listedUser struct {
	person
	Created    time.Time     `json:"created"`
	LastSeen   time.Time     `json:"last_seen,omitzero"`
	Identities []identityRef `json:"identities"`
}

type identityRef struct {
	Source  string `json:"source"`
	Subject string `json:"subject"`
}

// user is everything about one person. It holds nothing that lets anybody in:
// neither ids of sessions, which are hashes of cookies, nor what a source gave
// for refreshing.
type user struct {
	person
	Created     time.Time    `json:"created"`
	Identities  []identity   `json:"identities"`
	Memberships []membership `json:"memberships"`
	Sessions    []session    `json:"sessions"`
	Local       *local       `json:"local,omitempty"`

	tag string // of what can be changed of a local user
}

type identity struct {
	identityRef
	IssuedAt time.Time             `json:"issued_at,omitzero"`
	LastSeen time.Time             `json:"last_seen,omitzero"`
	Claims   json.RawMessage       `json:"claims"`
	States   map[string]claimState `json:"states"` // of the claims that rules and settings read
}

type claimState struct {
	State claims.State `json:"state"`
	Why   string       `json:"why,omitempty"`
}

type membership struct {
	Group   string         `json:"group"`
	Control groups.Control `json:"control"`
	Origin  groups.Control `json:"origin"`
	Since   time.Time      `json:"since,omitzero"`
	Why     []why          `json:"why"`
	By      string         `json:"by,omitempty"`
}

type why struct {
	Source string `json:"source"`
	Rule   string `json:"rule"`
	Claim  string `json:"claim"`
	Value  string `json:"value"`
}

type session struct {
	Host     string    `json:"host"` // empty: the public host
	Source   string    `json:"source"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	LastUsed time.Time `json:"last_used"`
}

func reasons(grants []groups.Grant) []why {
	out := make([]why, len(grants))
	for i, g := range grants {
		out[i] = why{g.Source, g.Rule, g.Claim, g.Value}
	}
	return out
}

// findUsers answers a page of the people that are asked for, as the API and the
// console list them.
func (s *Server) findUsers(x *exchange) (*page, groups.UserQuery, list[groups.FoundUser], error) {
	none := list[groups.FoundUser]{}
	p, by, err := x.sorted("users", string(groups.UsersByName), string(groups.UsersBySeen))
	if err != nil {
		return nil, groups.UserQuery{}, none, err
	}
	q := groups.UserQuery{Query: p.q.Get("query"), Source: p.q.Get("source"), By: groups.UserOrder(by), Limit: p.limit + 1}
	if p.after != "" {
		if q.After, err = userBefore(q.By, p.after); err != nil {
			return nil, q, none, p.badCursor()
		}
	}
	found, err := s.dir.Store().FindUsers(x.r.Context(), q)
	if err != nil {
		return nil, q, none, err
	}
	return p, q, cut(p, found, func(u groups.FoundUser) string { return userCursor(q.By, &u) }), nil
}

// userCursor is what the next page of an order has to know of a user.
func userCursor(by groups.UserOrder, u *groups.FoundUser) string {
	switch by {
	case groups.UsersByName:
		return u.Name
	case groups.UsersBySeen:
		seen := int64(0)
		if !u.Seen.IsZero() {
			seen = u.Seen.UnixMicro()
		}
		return strconv.FormatInt(seen, 10) + ":" + u.ID.String()
	}
	return u.ID.String()
}

// userBefore reads what userCursor wrote.
func userBefore(by groups.UserOrder, cursor string) (u groups.FoundUser, err error) {
	switch by {
	case groups.UsersByName:
		u.Name = cursor
		return u, nil
	case groups.UsersBySeen:
		seen, id, _ := strings.Cut(cursor, ":")
		at, err := strconv.ParseInt(seen, 10, 64)
		if err != nil {
			return u, err
		}
		if at != 0 {
			u.Seen = time.UnixMicro(at)
		}
		cursor = id
	}
	u.ID, err = groups.ParseUserID(cursor)
	return u, err
}

func (s *Server) listUsers(x *exchange) error {
	_, _, here, err := s.findUsers(x)
	if err != nil {
		return err
	}
	out := each(here, func(u groups.FoundUser) listedUser {
		return listedUser{person: personOf(&u.User), Created: u.Created.UTC(), LastSeen: u.Seen.UTC(), Identities: []identityRef{}}
	})
	for i := range out.Items {
		ids, err := s.dir.Store().Identities(x.r.Context(), out.Items[i].ID)
		if err != nil {
			return err
		}
		for _, id := range ids {
			out.Items[i].Identities = append(out.Items[i].Identities, identityRef{id.Source, id.Subject})
		}
	}
	return x.ok(out)
}

func (s *Server) getUser(x *exchange) error {
	id, err := userArg(x.args[0])
	if err != nil {
		return err
	}
	return s.showUser(x, id)
}

// showUser answers a person, and the tag that a change of a local user may
// name in If-Match.
func (s *Server) showUser(x *exchange, id groups.UserID) error {
	out, err := s.user(x.r.Context(), id)
	if err != nil {
		return err
	}
	if out.Local != nil {
		x.Header().Set("ETag", out.tag)
	}
	return x.ok(out)
}

func (s *Server) user(ctx context.Context, id groups.UserID) (*user, error) {
	u, err := s.dir.Store().User(ctx, id)
	if errors.Is(err, groups.ErrNotFound) {
		return nil, noUser(id.String())
	}
	if err != nil {
		return nil, err
	}
	out := &user{person: personOf(u), Created: u.Created.UTC()}
	if out.Identities, err = s.identities(ctx, id); err != nil {
		return nil, err
	}
	if out.Memberships, err = s.memberships(ctx, id); err != nil {
		return nil, err
	}
	if out.Local, out.tag, err = s.local(ctx, id); err != nil {
		return nil, err
	}
	out.Sessions, err = s.sessions(ctx, id)
	return out, err
}

func (s *Server) identities(ctx context.Context, id groups.UserID) ([]identity, error) {
	recs, err := s.dir.Store().Identities(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]identity, 0, len(recs))
	for _, rec := range recs {
		raw, err := rec.Claims.MarshalJSON()
		if err != nil {
			return nil, err
		}
		states, err := s.states(ctx, &rec)
		if err != nil {
			return nil, err
		}
		out = append(out, identity{
			identityRef: identityRef{rec.Source, rec.Subject}, IssuedAt: rec.IssuedAt.UTC(), LastSeen: rec.Seen.UTC(),
			Claims: raw, States: states,
		})
	}
	return out, nil
}

// states says how the claims that matter resolve. A source that has left the
// configuration reads none.
func (s *Server) states(ctx context.Context, rec *groups.IdentityRecord) (map[string]claimState, error) {
	out := map[string]claimState{}
	explained, err := s.dir.Explain(ctx, &claims.Identity{Source: rec.Source, Claims: rec.Claims})
	if errors.Is(err, groups.ErrNotFound) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, c := range explained.Claims.Claims {
		out[c.Claim] = claimState{c.State, c.Why}
	}
	return out, nil
}

func (s *Server) memberships(ctx context.Context, id groups.UserID) ([]membership, error) {
	have, err := s.dir.Store().Memberships(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]membership, len(have))
	for i, m := range have {
		out[i] = membership{m.Group, m.Control, m.Origin(), m.Since.UTC(), reasons(m.Grants), m.By}
	}
	return out, nil
}

func (s *Server) sessions(ctx context.Context, id groups.UserID) ([]session, error) {
	have, err := s.dir.Store().Sessions(ctx, id)
	if err != nil {
		return nil, err
	}
	out := []session{}
	for _, h := range have {
		if !s.o.Now().Before(h.Login.Expires) {
			continue // over, and not swept yet
		}
		out = append(out, session{
			Host: h.Host, Source: h.Login.Source, Created: h.Login.Created.UTC(),
			Expires: h.Login.Expires.UTC(), LastUsed: h.Used.UTC(),
		})
	}
	return out, nil
}

// deleteUser forgets a person. Asked again it has nothing to do, and says the
// same (RFC 9110, 9.2.2).
func (s *Server) deleteUser(x *exchange) error {
	id, err := userArg(x.args[0])
	if err != nil {
		return err
	}
	if err := s.keepsPeople(x, id, s.waysIn(x)...); err != nil {
		return err
	}
	if err := s.dir.DeleteUser(x.r.Context(), id, x.from.actor); err != nil && !errors.Is(err, groups.ErrNotFound) {
		return err
	}
	return x.done()
}

func (s *Server) endSessions(x *exchange) error {
	id, err := userArg(x.args[0])
	if err != nil {
		return err
	}
	_, err = s.dir.EndLogins(x.r.Context(), groups.LoginFilter{User: id}, x.from.actor, "signed out everywhere by an administrator", x.id)
	if err != nil {
		return err
	}
	return x.done()
}

func userArg(arg string) (groups.UserID, error) {
	id, err := groups.ParseUserID(arg)
	if err != nil {
		return 0, noUser(arg)
	}
	return id, nil
}

func noUser(id string) error { return notFound("There is no user with the id %q.", id) }
