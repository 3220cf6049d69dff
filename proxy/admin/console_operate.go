package admin

import (
	"cmp"
	"context"
	"errors"
	"html/template"
	"time"

	"github.com/groupgate/groupgate/groups"
)

func (s *Server) operatePages() []consoleRoute {
	return []consoleRoute{
		{pattern: "/sources", make: s.sourcesPage},
		{pattern: "/sync", make: s.syncPage},
		{pattern: "/audit", make: s.auditPage},
		{pattern: "/targets", make: s.targetsPage},
	}
}

// sourcesData is the page of sources.
type sourcesData struct {
	Sources []shownSource
}

type shownSource struct {
	SourceStatus
	Certificate, Metadata expiry
	Read                  time.Time // when its metadata or keys were last read
	SignIn, Fault         *groups.Event
}

// expiry is when something runs out, and how bad that is.
type expiry struct {
	At   time.Time
	Days int    // until then
	Look string // of the badge: ok, warn, bad
}

// expirySoon is from when on an expiry is a warning.
const expirySoon = 30 * 24 * time.Hour

func expiryOf(at, now time.Time) expiry {
	e := expiry{At: at, Look: "ok"}
	if at.IsZero() {
		return e
	}
	left := at.Sub(now)
	e.Days = int(left / (24 * time.Hour))
	switch {
	case left <= 0:
		e.Look = "bad"
	case left < expirySoon:
		e.Look = "warn"
	}
	return e
}

func (s *Server) sourcesPage(x *exchange) (*view, error) {
	var d sourcesData
	now := s.o.Now()
	for _, st := range s.sources() {
		one := shownSource{SourceStatus: st, Certificate: expiryOf(st.CertificateExpires, now), Metadata: expiryOf(st.MetadataExpires, now)}
		if st.MetadataAge != nil {
			one.Read = now.Add(-time.Duration(*st.MetadataAge) * time.Second)
		}
		var err error
		if one.SignIn, err = s.lastEvent(x.r.Context(), st.Name, groups.EventSignIn); err != nil {
			return nil, err
		}
		if one.Fault, err = s.lastEvent(x.r.Context(), st.Name, groups.EventRefused, groups.EventNotServed); err != nil {
			return nil, err
		}
		d.Sources = append(d.Sources, one)
	}
	return &view{template: "sources", title: "sources.title", section: "sources", scripts: []string{"operate.js"}, data: &d}, nil
}

// lastEvent is the newest event of a source that is of one of the kinds; nil:
// there is none.
func (s *Server) lastEvent(ctx context.Context, source string, kinds ...string) (last *groups.Event, err error) {
	for _, kind := range kinds {
		found, err := s.dir.Store().Events(ctx, groups.EventQuery{Source: source, Kind: kind, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(found) > 0 && (last == nil || found[0].ID > last.ID) {
			last = &found[0]
		}
	}
	return last, nil
}

// SourceKind names a kind of source.
func (f *frame) SourceKind(kind string) string { return f.textOr("sources.kind."+kind, kind) }

// textOr is the text of a key, or a text of another origin.
func (f *frame) textOr(key, other string) string {
	if f.Lang.has(key) {
		return f.T(key)
	}
	return other
}

// targetsData is the page of targets.
type targetsData struct {
	Targets []shownTarget
}

// shownTarget is a target with the first of the people whom it was not told of
// although somebody tried.
type shownTarget struct {
	TargetStatus
	Failed []failedWork
}

type failedWork struct {
	Person eventPerson
	groups.Work
}

// shownFailures is how many people of a target are listed.
const shownFailures = 20

func (s *Server) targetsPage(x *exchange) (*view, error) {
	var d targetsData
	var all []TargetStatus
	if s.o.Targets != nil {
		all = s.o.Targets()
	}
	for _, st := range all {
		one := shownTarget{TargetStatus: st}
		failed, err := s.dir.Store().FailedWork(x.r.Context(), st.Name, shownFailures)
		if err != nil {
			return nil, err
		}
		for _, w := range failed {
			p := eventPerson{Name: w.User.String()}
			switch u, err := s.dir.Store().User(x.r.Context(), w.User); {
			case err == nil:
				p = eventPerson{u.ID, u.Name}
			case !errors.Is(err, groups.ErrNotFound): // forgotten here, and not there yet
				return nil, err
			}
			one.Failed = append(one.Failed, failedWork{p, w})
		}
		d.Targets = append(d.Targets, one)
	}
	return &view{template: "targets", title: "targets.title", section: "targets", data: &d}, nil
}

// eventPerson is whom an event is about; 0 is somebody who was never known.
type eventPerson struct {
	ID   groups.UserID
	Name string
}

func personIn(e *groups.Event) eventPerson {
	if e.User == 0 {
		return eventPerson{Name: e.Name}
	}
	return eventPerson{ID: e.User, Name: cmp.Or(e.Name, e.User.String())}
}

// shownExpiry is an expiry in words.
type shownExpiry struct {
	Time       template.HTML
	Look, Text string
}

// Expiry says how long something is still good for.
func (f *frame) Expiry(e expiry) shownExpiry {
	text := f.T("sources.expired")
	switch {
	case e.Look == "bad":
	case e.Days == 0:
		text = f.T("sources.today")
	default:
		text = f.T("sources.days", f.Count(e.Days))
	}
	return shownExpiry{f.Time(e.At), e.Look, text}
}

type link struct{ URL, Name string }

// Linked leads to the page of a person who is known by id.
func (f *frame) Linked(p eventPerson) link {
	if p.ID == 0 {
		return link{Name: p.Name}
	}
	return link{f.Path("people", p.ID.String()), p.Name}
}
