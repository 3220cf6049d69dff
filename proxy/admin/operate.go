package admin

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// testLimit is how long a source may take to be reached by a test.
const testLimit = 15 * time.Second

// event is one line of the audit trail as the API shows it.
type event struct {
	ID      string                       `json:"id"`
	At      time.Time                    `json:"at"`
	Kind    string                       `json:"kind"`
	UserID  groups.UserID                `json:"user_id,omitzero"`
	User    string                       `json:"user,omitempty"`
	Source  string                       `json:"source,omitempty"`
	Group   string                       `json:"group,omitempty"`
	Actor   string                       `json:"actor,omitempty"`
	Request string                       `json:"request,omitempty"`
	Reason  string                       `json:"reason,omitempty"`
	Change  *groups.Change               `json:"change,omitempty"`
	States  map[string]claims.Resolution `json:"states,omitempty"`
}

func eventOf(e groups.Event) event {
	return event{
		ID: strconv.FormatInt(e.ID, 10), At: e.At.UTC(), Kind: e.Kind, UserID: e.User, User: e.Name, Source: e.Source,
		Group: e.Group, Actor: e.Actor, Request: e.Request, Reason: e.Reason, Change: e.Change, States: e.States,
	}
}

// listEvents answers the audit trail, newest first.
func (s *Server) listEvents(x *exchange) error {
	p, err := x.page("events")
	if err != nil {
		return err
	}
	q, err := eventQuery(p.q)
	if err != nil {
		return err
	}
	q.Limit = p.limit + 1
	if p.after != "" {
		if q.Before, err = strconv.ParseInt(p.after, 10, 64); err != nil || q.Before < 1 {
			return p.badCursor()
		}
	}
	found, err := s.dir.Store().Events(x.r.Context(), q)
	if err != nil {
		return err
	}
	return x.ok(each(cut(p, found, func(e groups.Event) string { return strconv.FormatInt(e.ID, 10) }), eventOf))
}

// eventQuery reads the filter of the audit trail.
func eventQuery(q url.Values) (out groups.EventQuery, err error) {
	out = groups.EventQuery{Kind: q.Get("kind"), Group: q.Get("group"), Source: q.Get("source"), Request: q.Get("request")}
	if id := q.Get("user"); id != "" {
		if out.User, err = groups.ParseUserID(id); err != nil {
			return out, badRequest("user is the id of a user.")
		}
	}
	if out.From, err = timeParam(q, "from"); err != nil {
		return out, err
	}
	out.To, err = timeParam(q, "to")
	return out, err
}

func (s *Server) guard(x *exchange) error {
	g, err := s.dir.Guard(x.r.Context())
	if err != nil {
		return err
	}
	g.Tripped, g.Allowed = g.Tripped.UTC(), g.Allowed.UTC()
	return x.ok(g)
}

// allowRemovals is the administrator's word that the guard waits for. It
// answers the guard as it is then.
func (s *Server) allowRemovals(x *exchange) error {
	if err := s.dir.AllowRemovals(context.WithoutCancel(x.r.Context()), x.from.actor); err != nil {
		return err
	}
	return s.guard(x)
}

func (s *Server) sources() []SourceStatus {
	if s.o.Sources == nil {
		return nil
	}
	return s.o.Sources()
}

// sourceNames is nil when nobody says which sources there are.
func (s *Server) sourceNames() map[string]bool {
	if s.o.Sources == nil {
		return nil
	}
	out := map[string]bool{}
	for _, src := range s.o.Sources() {
		out[src.Name] = true
	}
	return out
}

func (s *Server) listSources(x *exchange) error {
	return byPlace(x, "sources", s.sources())
}

// tested is what came of trying a source.
type tested struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	// Found is what the source says of a person that was asked about; nil when
	// nobody was, or the source failed.
	Found *found `json:"found,omitempty"`
}

// found is claims.Found with what the person's statement would be.
type found struct {
	*claims.Found
	Claims *claims.Claims `json:"claims,omitempty"`
}

// testSource reaches a source. With a person in its body it looks for the
// person too, by the source's own service account.
func (s *Server) testSource(x *exchange) error {
	name := x.args[0]
	if s.o.TestSource == nil || !s.sourceNames()[name] {
		return notFound("There is no source %q.", name)
	}
	var in struct {
		Person *string `json:"person"`
	}
	if err := x.decodeIfAny(&in, maxBody); err != nil {
		return err
	}
	if in.Person != nil && (*in.Person == "" || !plain(*in.Person)) {
		return invalid(Fault{"person", "a user name is wanted"})
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), testLimit)
	defer cancel()
	out := tested{OK: true}
	var err error
	if out.Detail, err = s.o.TestSource(ctx, name); err == nil && in.Person != nil {
		out.Found, err = s.findPerson(ctx, name, *in.Person)
		if errors.Is(err, groups.ErrNotFound) {
			return invalid(Fault{"person", fmt.Sprintf("the source %q cannot be asked about people", name)})
		}
	}
	if err != nil {
		// A source's errors say what went wrong and hold no secrets: they are
		// what this endpoint is for.
		out.OK, out.Detail = false, err.Error()
	}
	return x.ok(out)
}

func (s *Server) findPerson(ctx context.Context, source, person string) (*found, error) {
	if s.o.FindPerson == nil {
		return nil, groups.ErrNotFound
	}
	f, err := s.o.FindPerson(ctx, source, person)
	if err != nil {
		return nil, err
	}
	out := &found{Found: f}
	if f.Identity != nil {
		out.Claims = &f.Identity.Claims
	}
	return out, nil
}

func (s *Server) listTargets(x *exchange) error {
	var all []TargetStatus
	if s.o.Targets != nil {
		all = s.o.Targets()
	}
	return byPlace(x, "targets", all)
}

func (s *Server) retryTarget(x *exchange) error {
	err := groups.ErrNotFound
	if s.o.RetryTarget != nil {
		err = s.o.RetryTarget(context.WithoutCancel(x.r.Context()), x.args[0], x.from.actor)
	}
	if errors.Is(err, groups.ErrNotFound) {
		return notFound("There is no target %q.", x.args[0])
	}
	if err != nil {
		return err
	}
	return x.done()
}

// byPlace pages a short list that stands in the configuration.
func byPlace[T any](x *exchange, kind string, all []T) error {
	p, err := x.page(kind)
	if err != nil {
		return err
	}
	from := 0
	if p.after != "" {
		if from, err = strconv.Atoi(p.after); err != nil || from < 0 {
			return p.badCursor()
		}
	}
	rest := all[min(from, len(all)):]
	return x.ok(cut(p, rest, func(T) string { return strconv.Itoa(from + p.limit) }))
}

//go:embed openapi.json
var description []byte

func describe(x *exchange) error {
	x.Header().Set("Content-Type", "application/json")
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(description) // the client may be gone
	return nil
}
