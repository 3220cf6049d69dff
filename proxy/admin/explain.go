package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

type explainRequest struct {
	Source string          `json:"source"`
	Claims json.RawMessage `json:"claims"`
	User   string          `json:"user"` // a subject of the source, or a user's id
}

// explained is groups.Explained with what the upstream would be told.
type explained struct {
	*groups.Explained
	Headers []header `json:"headers"`
	// HeadersProblem says why the upstream would not be reached.
	HeadersProblem string `json:"headers_problem,omitempty"`
}

type header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// explain says what a statement would do. Nothing is written.
func (s *Server) explain(x *exchange) error {
	var in explainRequest
	if err := x.decode(&in, maxBody); err != nil {
		return err
	}
	ctx := x.r.Context()
	c, err := claims.Parse(in.Claims)
	if err != nil {
		return invalid(Fault{"claims", "one JSON object of claims is wanted: " + strings.TrimPrefix(err.Error(), "claims: ")})
	}
	who, subject, err := s.known(ctx, in.Source, in.User)
	if err != nil {
		return err
	}
	id := &claims.Identity{Source: in.Source, Subject: subject, Claims: c, IssuedAt: s.o.Now()}
	out, err := s.dir.Explain(ctx, id)
	if errors.Is(err, groups.ErrNotFound) {
		return invalid(Fault{"source", fmt.Sprintf("there is no source %q", in.Source)})
	}
	if err != nil {
		return err
	}
	answer := explained{Explained: out, Headers: []header{}}
	if out.Refused == "" && s.o.Headers != nil {
		lines, problem := s.o.Headers(s.view(id, who, out.Groups))
		for _, l := range lines {
			answer.Headers = append(answer.Headers, header{l[0], l[1]})
		}
		answer.HeadersProblem = problem
	}
	return x.ok(answer)
}

// known finds the person a request means. A text that is neither a subject
// nor a user's id is the subject of somebody who has not signed in yet.
func (s *Server) known(ctx context.Context, source, name string) (who *groups.User, subject string, err error) {
	if name == "" {
		return nil, "", nil
	}
	store := s.dir.Store()
	rec, err := store.Identity(ctx, source, name)
	if errors.Is(err, groups.ErrNotFound) {
		rec, err = s.identityOf(ctx, source, name)
	}
	if err != nil {
		return nil, "", err
	}
	if rec == nil {
		return nil, name, nil
	}
	who, err = store.User(ctx, rec.User)
	return who, rec.Subject, err
}

// identityOf finds the source's identity of a user's id; nil when the text is
// no id of a user.
func (s *Server) identityOf(ctx context.Context, source, name string) (*groups.IdentityRecord, error) {
	id, err := groups.ParseUserID(name)
	if err != nil {
		return nil, nil
	}
	recs, err := s.dir.Store().Identities(ctx, id)
	if err != nil && !errors.Is(err, groups.ErrNotFound) {
		return nil, err
	}
	for i := range recs {
		if recs[i].Source == source {
			return &recs[i], nil
		}
	}
	if len(recs) > 0 {
		return nil, invalid(Fault{"user", fmt.Sprintf("the user %q has no identity of this source", name)})
	}
	return nil, nil
}

// view is what a session of the person would look like after the sign-in.
func (s *Server) view(id *claims.Identity, who *groups.User, names []string) *groups.View {
	v := &groups.View{Groups: names, Claims: id.Claims, Login: groups.Login{Source: id.Source, Subject: id.Subject}}
	if who != nil {
		v.User, v.Login.User = *who, who.ID
	}
	if s.o.Person != nil {
		stated := s.o.Person(id)
		for _, f := range []struct{ to, from *string }{
			{&v.User.Name, &stated.Name}, {&v.User.Email, &stated.Email}, {&v.User.Display, &stated.Display},
		} {
			if *f.from != "" {
				*f.to = *f.from
			}
		}
	}
	// A first sign-in without a user name takes the subject.
	v.User.Name = cmp.Or(v.User.Name, id.Subject, id.Claims.Text("sub"))
	return v
}
