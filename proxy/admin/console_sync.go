package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// syncData is the page of what syncs do.
type syncData struct {
	People, Holders     int
	Sessions            int
	CountsSessions      bool
	Groups, SSO         int
	Guard               *groups.GuardState
	Waiting             []waiting
	MoreWaiting         bool
	Charts              []chart
	Skipped             []skippedValue
	Looked              int // syncs that skipped something and were looked at
	SkippedFrom         time.Time
	MoreSkips, AnySkips bool
}

// Bounds of what the page reads and shows.
const (
	readHeld     = 500 // syncs that the guard held
	shownWaiting = 50  // people
	readSkips    = 400 // syncs that skipped something
	skipStep     = 25  // that are read at a time: one may hold thousands
	maxSkips     = 20_000
	shownSkips   = 100
	skipDays     = 14
)

func (s *Server) syncPage(x *exchange) (*view, error) {
	ctx, store, now := x.r.Context(), s.dir.Store(), s.o.Now()
	d := syncData{CountsSessions: s.o.Sessions != nil, SkippedFrom: now.AddDate(0, 0, -skipDays)}
	var err error
	if d.People, d.Holders, err = store.CountUsers(ctx); err != nil {
		return nil, err
	}
	if d.CountsSessions {
		if d.Sessions, err = s.o.Sessions(ctx); err != nil {
			return nil, err
		}
	}
	controls, err := store.CountGroups(ctx)
	if err != nil {
		return nil, err
	}
	d.SSO = controls[groups.SSO]
	d.Groups = d.SSO + controls[groups.Manual]
	if d.Guard, err = s.dir.Guard(ctx); err != nil {
		return nil, err
	}
	if !d.Guard.Tripped.IsZero() {
		if d.Waiting, d.MoreWaiting, err = s.waitingFor(ctx, d.Guard.Tripped); err != nil {
			return nil, err
		}
	}
	for _, by := range []step{byHour, byDay} {
		from := by.end(now).Add(-time.Duration(by.usual) * by.width)
		st, err := s.count(x, from, by, by.usual)
		if err != nil {
			return nil, err
		}
		d.Charts = append(d.Charts, chart{statistics: st})
	}
	if err := s.skips(ctx, &d); err != nil {
		return nil, err
	}
	return &view{template: "sync", title: "sync.title", section: "sync", data: &d}, nil
}

// waiting is a person whom the guard kept in groups.
type waiting struct {
	Person eventPerson
	Source string
	At     time.Time
	Groups []string
}

// waitingFor lists whom the guard has kept in groups since it stopped removals,
// as their last syncs said, newest first.
func (s *Server) waitingFor(ctx context.Context, since time.Time) (out []waiting, more bool, err error) {
	// A plan of everybody would take seconds with 100,000 people.
	found, err := s.dir.Store().Events(ctx, groups.EventQuery{Held: true, From: since, Limit: readHeld})
	if err != nil {
		return nil, false, err
	}
	type key struct {
		user   groups.UserID
		source string
	}
	seen := map[key]bool{}
	for i := range found {
		e := &found[i]
		if k := (key{e.User, e.Source}); seen[k] {
			continue
		} else {
			seen[k] = true
		}
		if len(out) == shownWaiting {
			return out, true, nil
		}
		out = append(out, waiting{personIn(e), e.Source, e.At, e.Change.Held})
	}
	return out, len(found) == readHeld, nil
}

// skippedValue is a value that would have meant a group, and why it did not.
type skippedValue struct {
	groups.Skip
	People int
	Last   time.Time
	Offer  offer
}

// offer is what would let a value into its group, as things are now.
type offer string

const (
	offerGroup   offer = "group"   // make it: the rule is there
	offerRule    offer = "rule"    // into a group whose name is allowed
	offerControl offer = "control" // let SSO decide about the group
	offerNothing offer = ""        // settled since, or in nobody's hands here
)

// offers says what helps each of the skipped values.
func (s *Server) offers(ctx context.Context, all []skippedValue) error {
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Group
	}
	controls, err := s.dir.Store().Controls(ctx, names)
	if err != nil {
		return err
	}
	for i := range all {
		v := &all[i]
		switch control, there := controls[v.Group]; {
		case v.Reason == groups.SkipName:
			if v.Value != "" && s.dir.CheckGroupName(v.Group) != nil && !s.mapped(&v.Skip) {
				v.Offer = offerRule
			}
		case there && control == groups.Manual:
			v.Offer = offerControl
		case !there && v.Reason == groups.SkipMissing:
			v.Offer = offerGroup
		}
	}
	return nil
}

// mapped reports whether a rule names the very value.
func (s *Server) mapped(v *groups.Skip) bool {
	return slices.ContainsFunc(s.dir.Rules(), func(r groups.Rule) bool {
		return r.Value == v.Value && r.Claim == v.Claim && (r.Source == "" || r.Source == v.Source) && s.dir.CheckGroupName(r.Group) == nil
	})
}

// skips reads the latest syncs that skipped something, as many as can be read
// quickly, and counts by value.
func (s *Server) skips(ctx context.Context, d *syncData) error {
	type count struct {
		people map[groups.UserID]bool
		last   time.Time
	}
	by := map[groups.Skip]*count{}
	q := groups.EventQuery{Skipped: true, From: d.SkippedFrom, Limit: skipStep}
	for n := 0; ; {
		found, err := s.dir.Store().Events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range found {
			for _, skip := range e.Change.Skipped {
				skip.Rule = "" // two rules may skip one value for one reason
				c := by[skip]
				if c == nil {
					c = &count{people: map[groups.UserID]bool{}, last: e.At}
					by[skip] = c
				}
				c.people[e.User] = true
				n++
			}
		}
		d.Looked += len(found)
		if len(found) < skipStep {
			break
		}
		if d.Looked >= readSkips || n >= maxSkips {
			d.MoreSkips = true
			break
		}
		q.Before = found[len(found)-1].ID
	}
	for skip, c := range by {
		d.Skipped = append(d.Skipped, skippedValue{Skip: skip, People: len(c.people), Last: c.last})
	}
	slices.SortFunc(d.Skipped, func(a, b skippedValue) int {
		return cmp.Or(cmp.Compare(b.People, a.People), cmp.Compare(a.Reason, b.Reason), a.Grant.Compare(b.Grant))
	})
	if len(d.Skipped) > shownSkips {
		d.Skipped, d.MoreSkips = d.Skipped[:shownSkips], true
	}
	return s.offers(ctx, d.Skipped)
}

// SkipReason says why a group was skipped.
func (f *frame) SkipReason(reason string) string {
	key := map[string]string{groups.SkipMissing: "missing", groups.SkipName: "name", groups.SkipManual: "manual"}[reason]
	return f.textOr("sync.skip."+key, reason)
}

// chart draws counts as bars, in units of its own that are stretched.
type chart struct{ *statistics }

const (
	chartStep   = 10  // width of a step
	chartHeight = 100 // of the highest bar
)

type bar struct {
	X, Y, Width, Height int
	Class               string
	At                  time.Time
	N                   int
}

// Width is the whole drawing's.
func (c chart) Width() int { return len(c.Items) * chartStep }

// series is one row of bars.
type series struct {
	Key       string
	Bars      []bar
	Sum, Most int
}

// Series are what happened, each with its own height.
func (c chart) Series() []series {
	signIns, changes := series{Key: "sign_ins"}, series{Key: "changes"}
	for _, i := range c.Items {
		signIns.Most, signIns.Sum = max(signIns.Most, i.SignIns), signIns.Sum+i.SignIns
		changes.Most, changes.Sum = max(changes.Most, i.Changes()), changes.Sum+i.Changes()
	}
	for n, i := range c.Items {
		signIns.stack(n, i.At, part{"bar", i.SignIns})
		changes.stack(n, i.At, part{"bar operate-added", i.Added}, part{"bar operate-removed", i.Removed})
	}
	return []series{signIns, changes}
}

type part struct {
	class string
	n     int
}

// stack puts the parts of one step on top of each other.
func (s *series) stack(at int, begin time.Time, parts ...part) {
	y := chartHeight
	for _, p := range parts {
		if p.n == 0 {
			continue
		}
		h := max(p.n*chartHeight/s.Most, 2)
		y = max(y-h, 0)
		s.Bars = append(s.Bars, bar{at*chartStep + 1, y, chartStep - 2, h, p.class, begin, p.n})
	}
}

// Short is a time on a chart's axis.
func (c chart) Short(t time.Time) string {
	if c.Step == byDay.name {
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format("15:04")
}

// First and Last begin at the ends of the axis.
func (c chart) First() time.Time { return c.Items[0].At }
func (c chart) Last() time.Time  { return c.Items[len(c.Items)-1].At }
