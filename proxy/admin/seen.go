package admin

import (
	"fmt"
	"net/url"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// What helps to write a rule: claims and values that people's statements held
// when they were last seen, and whom a rule would match.

const (
	matchTime  = 2 * time.Second
	matchItems = 10
)

// seen is a list out of the summary of last-seen claims. It has no next page:
// a longer query finds what is further down.
type seen[T any] struct {
	Items []T `json:"items"`
	// AsOf is absent while the first summary is being made.
	AsOf     time.Time `json:"as_of,omitzero"`
	Complete bool      `json:"complete"`
	More     bool      `json:"more"`
}

func seenOf[T any](in groups.Seen[T]) seen[T] {
	return seen[T]{in.Items, in.AsOf.UTC(), in.Complete, in.More}
}

func (s *Server) listValues(x *exchange) error {
	p, err := x.page("values")
	if err != nil {
		return err
	}
	source, err := s.sourceParam(p.q)
	if err != nil {
		return err
	}
	claim := p.q.Get("claim")
	if claim == "" {
		return badRequest("claim is wanted: the name of a claim, or a JSON Pointer.")
	}
	return x.ok(seenOf(s.dir.SeenValues(x.r.Context(), source, claim, p.q.Get("query"), p.limit)))
}

func (s *Server) listClaims(x *exchange) error {
	p, err := x.page("claims")
	if err != nil {
		return err
	}
	source, err := s.sourceParam(p.q)
	if err != nil {
		return err
	}
	return x.ok(seenOf(s.dir.SeenClaims(x.r.Context(), source, p.limit)))
}

func (s *Server) sourceParam(q url.Values) (string, error) {
	source := q.Get("source")
	if known := s.sourceNames(); source != "" && known != nil && !known[source] {
		return "", badRequest("There is no source %q.", source)
	}
	return source, nil
}

// matchRule says whom a rule would match. It runs while the rule is typed, and
// ends with whoever asked.
func (s *Server) matchRule(x *exchange) error {
	var in struct {
		Rule *rule `json:"rule"`
	}
	if err := x.decode(&in, maxBody); err != nil {
		return err
	}
	if in.Rule == nil {
		return invalid(Fault{"rule", "a rule is wanted"})
	}
	if known := s.sourceNames(); in.Rule.Source != "" && known != nil && !known[in.Rule.Source] {
		return invalid(Fault{"source", fmt.Sprintf("there is no source %q", in.Rule.Source)})
	}
	m, err := s.dir.MatchRule(x.r.Context(), in.Rule.rule(), matchItems, matchTime)
	if err != nil {
		return err
	}
	return x.ok(m)
}
