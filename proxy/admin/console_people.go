package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"slices"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

func (s *Server) peoplePages() []consoleRoute {
	return []consoleRoute{
		{pattern: "/people", make: s.peoplePage},
		{pattern: "/people/{id}", make: s.personPage},
		{pattern: "/explain", make: s.explainPage},
	}
}

// Coded is T with each value in <code>: a sentence around what somebody wrote.
func (f *frame) Coded(key string, values ...string) template.HTML {
	wrapped := make([]any, len(values))
	for i, v := range values {
		wrapped[i] = "<code>" + template.HTMLEscapeString(v) + "</code>"
	}
	text := template.HTMLEscapeString(f.T(key))
	if len(wrapped) > 0 {
		text = fmt.Sprintf(text, wrapped...)
	}
	return template.HTML(text)
}

// peopleData is a page of the list of people.
type peopleData struct {
	groups.UserQuery
	All         int // people there are, whatever is searched for
	Sources     []choice
	People      []listedPerson
	First, Next string
	Local       bool // users can be made here
	MinPassword int
}

// Filtered reports whether something was looked for.
func (d *peopleData) Filtered() bool { return d.Query != "" || d.Source != "" }

// Sort is the query of the same list in an order.
func (d *peopleData) Sort(f *frame, by string) string {
	return f.With("query", d.Query, "source", d.Source, "sort", by)
}

type listedPerson struct {
	person
	Created, Seen time.Time
	Sources       []string
	Groups        int
}

func (s *Server) peoplePage(x *exchange) (*view, error) {
	p, q, here, err := s.findUsers(x)
	if err != nil {
		return nil, err
	}
	ctx, store := x.r.Context(), s.dir.Store()
	d := peopleData{UserQuery: q, Sources: s.sourceChoices(q.Source)}
	if d.All, _, err = store.CountUsers(ctx); err != nil {
		return nil, err
	}
	for i := range here.Items {
		u := &here.Items[i]
		row := listedPerson{person: personOf(&u.User), Created: u.Created, Seen: u.Seen}
		if row.Sources, err = s.sourcesOf(ctx, u.ID); err != nil {
			return nil, err
		}
		names, err := store.GroupNames(ctx, u.ID)
		if err != nil {
			return nil, err
		}
		row.Groups = len(names)
		d.People = append(d.People, row)
	}
	filters := []string{"query", "source", "sort"}
	if p.after != "" {
		d.First = p.address("", filters...)
	}
	if here.Next != "" {
		d.Next = p.address(here.Next, filters...)
	}
	var local claims.LocalConfig
	_, local, d.Local = s.dir.LocalSource()
	d.MinPassword = local.MinPasswordLength
	return &view{template: "people", title: "people.title", section: "people", data: &d}, nil
}

// sourcesOf names the sources that know a person, each once.
func (s *Server) sourcesOf(ctx context.Context, id groups.UserID) ([]string, error) {
	recs, err := s.dir.Store().Identities(ctx, id)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rec := range recs { // by source
		if len(out) == 0 || out[len(out)-1] != rec.Source {
			out = append(out, rec.Source)
		}
	}
	return out, nil
}

// Bounds of what the page of one person shows. Past them it says how much more
// there is.
const (
	shownMemberships = 100
	shownSessions    = 20
	shownEvents      = 20
	shownChanges     = 8        // groups that one event added, or removed
	shownValues      = 8        // of one claim
	shownClaims      = 64 << 10 // bytes of a statement
)

// personData is the page of one person.
type personData struct {
	person
	Created     time.Time
	Identities  []shownIdentity
	Memberships []membership
	MoreGroups  int // memberships that are not shown
	AllGroups   int
	Rules       map[string]string // id to where it stands, of rules of the file
	Sessions    []session
	AllSessions int
	Local       *local
	Changeable  bool // the account is of the source that is configured now
	Tag         string
	MinPassword int
	Events      []event
	MoreEvents  bool
	// Self: the page is about who looks at it. What is done here may end the
	// way into the console.
	Self bool
	// OnlyLocal: no rule reads anything of the person.
	OnlyLocal bool
}

// shownIdentity is what a source knows of a person, and what it said last.
type shownIdentity struct {
	identityRef
	Kind         string // empty: the source has left the configuration
	Issued, Seen time.Time
	Claims       []shownClaim
	Raw          string
	RawBytes     int // of all of it, when Raw is a part; else 0
}

type shownClaim struct {
	groups.ExplainedClaim
	Some []string // values
	More int      // values beside
}

// RuleAt is where a rule of the file stands, or else its id.
func (d *personData) RuleAt(id string) string {
	if at := d.Rules[id]; at != "" {
		return at
	}
	return id
}

// Some are the first of the groups that an event changed, Beyond is how many
// more there are.
func (*personData) Some(names []string) []string { return names[:min(len(names), shownChanges)] }

// Beyond counts what Some leaves out.
func (*personData) Beyond(names []string) int { return max(0, len(names)-shownChanges) }

func (s *Server) personPage(x *exchange) (*view, error) {
	id, err := userArg(x.args[0])
	if err != nil {
		return nil, err
	}
	q, err := x.query()
	if err != nil {
		return nil, err
	}
	ctx, store := x.r.Context(), s.dir.Store()
	u, err := store.User(ctx, id)
	if errors.Is(err, groups.ErrNotFound) {
		return nil, noUser(id.String())
	}
	if err != nil {
		return nil, err
	}
	d := personData{person: personOf(u), Created: u.Created, Self: x.from.public && x.from.person == u.Name, Rules: map[string]string{}}
	if d.Identities, err = s.shownIdentities(ctx, id); err != nil {
		return nil, err
	}
	d.OnlyLocal = !slices.ContainsFunc(d.Identities, func(known shownIdentity) bool { return known.Kind != "local" })
	if d.Memberships, err = s.memberships(ctx, id); err != nil {
		return nil, err
	}
	if d.AllGroups = len(d.Memberships); d.AllGroups > shownMemberships && q.Get("groups") != "all" {
		d.Memberships, d.MoreGroups = d.Memberships[:shownMemberships], d.AllGroups-shownMemberships
	}
	for _, r := range s.dir.Rules() {
		if r.Location != "" {
			d.Rules[r.ID] = r.Location
		}
	}
	if d.Sessions, err = s.sessions(ctx, id); err != nil {
		return nil, err
	}
	d.AllSessions = len(d.Sessions)
	d.Sessions = d.Sessions[:min(d.AllSessions, shownSessions)]
	if err := s.accountOf(ctx, u, &d); err != nil {
		return nil, err
	}
	found, err := store.Events(ctx, groups.EventQuery{User: id, Limit: shownEvents + 1})
	if err != nil {
		return nil, err
	}
	d.MoreEvents = len(found) > shownEvents
	for _, e := range found[:min(len(found), shownEvents)] {
		d.Events = append(d.Events, eventOf(e))
	}
	return &view{template: "person", title: u.Name, section: "people", data: &d}, nil
}

// accountOf fills in how a local user signs in.
func (s *Server) accountOf(ctx context.Context, u *groups.User, d *personData) error {
	a, err := s.dir.LocalOf(ctx, u.ID)
	if errors.Is(err, groups.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	source, cfg, there := s.dir.LocalSource()
	d.Local = &local{a.Source, a.Disabled, a.Changed}
	d.Changeable, d.MinPassword, d.Tag = there && a.Source == source, cfg.MinPasswordLength, accountTag(a)
	return nil
}

func (s *Server) shownIdentities(ctx context.Context, id groups.UserID) ([]shownIdentity, error) {
	recs, err := s.dir.Store().Identities(ctx, id)
	if err != nil {
		return nil, err
	}
	kinds := map[string]string{}
	for _, src := range s.sources() {
		kinds[src.Name] = src.Kind
	}
	out := make([]shownIdentity, 0, len(recs))
	for _, rec := range recs {
		one := shownIdentity{identityRef: identityRef{rec.Source, rec.Subject}, Kind: kinds[rec.Source], Issued: rec.IssuedAt, Seen: rec.Seen}
		if one.Raw, one.RawBytes, err = statement(rec.Claims, shownClaims); err != nil {
			return nil, err
		}
		explained, err := s.dir.Explain(ctx, &claims.Identity{Source: rec.Source, Claims: rec.Claims})
		if err != nil && !errors.Is(err, groups.ErrNotFound) {
			return nil, err
		}
		if err == nil {
			one.Claims = shorten(explained.Claims.Claims)
		}
		out = append(out, one)
	}
	return out, nil
}

func shorten(all []groups.ExplainedClaim) []shownClaim {
	out := make([]shownClaim, len(all))
	for i, c := range all {
		out[i].ExplainedClaim = c
		for _, v := range c.Values[:min(len(c.Values), shownValues)] {
			out[i].Some = append(out[i].Some, v.Value)
		}
		out[i].More = len(c.Values) - len(out[i].Some)
	}
	return out
}

// statement writes claims for people to read: all of it and 0, or the
// beginning and how many bytes there are.
func statement(c claims.Claims, limit int) (text string, size int, err error) {
	raw, err := c.MarshalJSON()
	if err != nil {
		return "", 0, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return "", 0, err
	}
	if out.Len() <= limit {
		return out.String(), 0, nil
	}
	return string(bytes.ToValidUTF8(out.Bytes()[:limit], nil)), out.Len(), nil
}

// wordOf is a state of a claim with the look of its badge.
type wordOf struct{ Class, Text string }

// StateOf names a state of a claim.
func (f *frame) StateOf(s claims.State) wordOf {
	class := map[claims.State]string{claims.Complete: "ok", claims.Absent: "warn", claims.Unknown: "bad"}[s]
	return wordOf{class, f.T("js.explain.state." + s.String())}
}

// EventKind names a kind of event; one that is not a person's keeps its name.
func (f *frame) EventKind(kind string) string {
	if key := "people.kind." + kind; f.Lang.has(key) {
		return f.T(key)
	}
	return kind
}

// Known is a fixed text of a directory's answer in the page's language, or as
// it is.
func (f *frame) Known(kind, text string) template.HTML {
	if key := "js.explain." + kind + "." + text; f.Lang.has(key) {
		return template.HTML(template.HTMLEscapeString(f.T(key)))
	}
	return template.HTML(`<span lang="en">` + template.HTMLEscapeString(text) + `</span>`)
}
