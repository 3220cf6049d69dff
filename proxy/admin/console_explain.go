package admin

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/groupgate/groupgate/groups"
)

const (
	foundPeople = 8         // that a search on the page of explain lists
	filledIn    = 512 << 10 // bytes of a statement at most: the API takes 1 MiB
)

// explainData is the page on which a statement is explained. What came of it
// is the API's answer, which the page's script shows.
type explainData struct {
	Sources []SourceStatus
	Source  string // chosen
	Gone    string // a source that was asked for and is not configured
	User    string // as it was asked for
	Claims  string
	TooLong bool // the statement is: it is not filled in

	Who  *person // whose statement is filled in
	IDs  []identityRef
	Seen time.Time

	Query string
	Found []explainedPerson
	More  bool
}

type explainedPerson struct {
	person
	Sources []string // that are configured
}

// LDAP reports whether any source can be asked about people.
func (d *explainData) LDAP() bool {
	return slices.ContainsFunc(d.Sources, func(s SourceStatus) bool { return s.Kind == "ldap" })
}

func (s *Server) explainPage(x *exchange) (*view, error) {
	q, err := x.query()
	if err != nil {
		return nil, err
	}
	ctx := x.r.Context()
	d := explainData{Sources: s.sources(), Source: q.Get("source"), User: q.Get("user"), Query: q.Get("query")}
	if d.Query != "" {
		if err := s.searchForExplain(ctx, &d); err != nil {
			return nil, err
		}
	}
	if d.User != "" {
		if err := s.fillIn(ctx, &d); err != nil {
			return nil, err
		}
	}
	if d.Source != "" && !slices.ContainsFunc(d.Sources, func(src SourceStatus) bool { return src.Name == d.Source }) {
		d.Gone, d.Source = d.Source, ""
	}
	return &view{template: "explain", title: "explain.title", section: "explain", scripts: []string{"explain.js"}, data: &d}, nil
}

func (s *Server) searchForExplain(ctx context.Context, d *explainData) error {
	found, err := s.dir.Store().Users(ctx, d.Query, 0, foundPeople+1)
	if err != nil {
		return err
	}
	d.More = len(found) > foundPeople
	for _, u := range found[:min(len(found), foundPeople)] {
		known, err := s.sourcesOf(ctx, u.ID)
		if err != nil {
			return err
		}
		d.Found = append(d.Found, explainedPerson{personOf(&u), known})
	}
	return nil
}

// fillIn takes what a source said last about a user. Without a source it takes
// the one that was seen last. Who is not known leaves the page as it is: the
// text may be the subject of somebody who has not signed in yet.
func (s *Server) fillIn(ctx context.Context, d *explainData) error {
	id, err := groups.ParseUserID(d.User)
	if err != nil {
		return nil
	}
	store := s.dir.Store()
	u, err := store.User(ctx, id)
	if errors.Is(err, groups.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	recs, err := store.Identities(ctx, id)
	if err != nil {
		return err
	}
	var take *groups.IdentityRecord
	for i := range recs {
		rec := &recs[i]
		if !slices.ContainsFunc(d.IDs, func(have identityRef) bool { return have.Source == rec.Source }) {
			d.IDs = append(d.IDs, identityRef{rec.Source, rec.Subject})
		}
		switch {
		case d.Source != "" && rec.Source != d.Source:
		case take == nil || d.Source == "" && rec.Seen.After(take.Seen):
			take = rec
		}
	}
	who := personOf(u)
	d.Who = &who
	if take == nil {
		return nil
	}
	d.Source, d.Seen = take.Source, take.Seen
	text, size, err := statement(take.Claims, filledIn)
	if d.TooLong = size > 0; !d.TooLong {
		d.Claims = text
	}
	return err
}
