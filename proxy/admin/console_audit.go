package admin

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// auditData is the page of the audit trail.
type auditData struct {
	Filter      map[string]string // what stands in the fields
	Filtered    bool
	Unknown     bool     // nobody has the name that was asked for
	Faults      []string // keys of texts: fields that cannot be read
	Kinds       []choice
	Sources     []choice
	Events      []shownEvent
	First, Next string
	CSV, Lines  string // queries of the exports
}

type choice struct {
	Value, Text string
	Here        bool
}

type shownEvent struct {
	groups.Event
	Person eventPerson
	Parts  []eventPart
	States []shownState
}

// eventPart is one list of groups of an event.
type eventPart struct {
	Key, Sign, Class string
	Some, Rest       []eventGroup
}

type eventGroup struct{ Name, Why string }

type shownState struct{ Claim, State, Why string }

// shownGroups is how many groups of one list stand there before the rest is
// folded.
const shownGroups = 8

// eventKinds are all kinds, in the order of the filter.
var eventKinds = []string{
	groups.EventSignIn, groups.EventSignOut, groups.EventSync, groups.EventRefused, groups.EventNotServed, groups.EventNotStored,
	groups.EventGuard, groups.EventGuardAllowed, groups.EventUserCreated, groups.EventUserRenamed, groups.EventUserChanged,
	groups.EventUserDisabled, groups.EventUserEnabled, groups.EventUserDeleted, groups.EventAccountAdded, groups.EventPassword,
	groups.EventGroupCreated, groups.EventGroupChanged, groups.EventGroupDeleted, groups.EventMemberAdded, groups.EventMemberGone,
	groups.EventImported, groups.EventRuleChanged, groups.EventRuleDeleted, groups.EventReloaded, groups.EventOverflow,
	groups.EventParked, groups.EventRetried,
}

// auditFields are the filter's, as they stand in the page's address.
var auditFields = []string{"kind", "user", "group", "source", "request", "from", "to"}

func (s *Server) auditPage(x *exchange) (*view, error) {
	p, err := x.page("audit")
	if err != nil {
		return nil, err
	}
	d := auditData{Filter: map[string]string{}}
	for _, name := range auditFields {
		d.Filter[name] = strings.TrimSpace(p.q.Get(name))
		d.Filtered = d.Filtered || d.Filter[name] != ""
	}
	for _, kind := range eventKinds {
		d.Kinds = append(d.Kinds, choice{kind, "", kind == d.Filter["kind"]})
	}
	d.Sources = s.sourceChoices(d.Filter["source"])
	q, err := s.auditQuery(x, &d)
	if err != nil {
		return nil, err
	}
	v := &view{template: "audit", title: "audit.title", section: "audit", data: &d}
	if d.Unknown || d.Faults != nil {
		return v, nil
	}
	if p.after != "" {
		if q.Before, err = strconv.ParseInt(p.after, 10, 64); err != nil || q.Before < 1 {
			return nil, p.badCursor()
		}
	}
	q.Limit = p.limit + 1
	found, err := s.dir.Store().Events(x.r.Context(), q)
	if err != nil {
		return nil, err
	}
	here := cut(p, found, func(e groups.Event) string { return strconv.FormatInt(e.ID, 10) })
	for i := range here.Items {
		d.Events = append(d.Events, shownEventOf(&here.Items[i]))
	}
	address := func(after string) string {
		all := url.Values{}
		for name, value := range d.Filter {
			put(all, name, value)
		}
		put(all, "limit", p.q.Get("limit"))
		put(all, "after", after)
		return "?" + all.Encode()
	}
	if p.after != "" {
		d.First = address("")
	}
	if here.Next != "" {
		d.Next = address(here.Next)
	}
	d.CSV, d.Lines = exportOf(q, "csv"), exportOf(q, "jsonl")
	return v, nil
}

func put(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// sourceChoices lists the configured sources, and the one that is asked for: it
// may have left the configuration.
func (s *Server) sourceChoices(asked string) (out []choice) {
	for _, src := range s.sources() {
		out = append(out, choice{src.Name, src.Name, src.Name == asked})
	}
	if asked != "" && !slices.ContainsFunc(out, func(c choice) bool { return c.Here }) {
		out = append(out, choice{asked, asked, true})
	}
	return out
}

// auditQuery turns the fields into a question. A person is named by user name,
// or by id when nobody has the name: somebody who is gone has only that.
func (s *Server) auditQuery(x *exchange, d *auditData) (q groups.EventQuery, err error) {
	f := d.Filter
	q = groups.EventQuery{Kind: f["kind"], Group: f["group"], Source: f["source"], Request: f["request"]}
	if name := f["user"]; name != "" {
		u, err := s.dir.Store().UserByName(x.r.Context(), name)
		switch {
		case err == nil:
			q.User = u.ID
		case !errors.Is(err, groups.ErrNotFound):
			return q, err
		default:
			if q.User, err = groups.ParseUserID(name); err != nil {
				d.Unknown = true
			}
		}
	}
	for name, at := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		var ok bool
		if *at, ok = fieldTime(f[name]); !ok {
			d.Faults = append(d.Faults, "audit.bad_"+name)
			continue
		}
		if !at.IsZero() {
			f[name] = at.Format("2006-01-02T15:04:05")
			f[name] = strings.TrimSuffix(f[name], ":00") // as a field for times has it
		}
	}
	slices.Sort(d.Faults)
	return q, nil
}

// fieldTime reads what a field for times sends, which is without a zone and
// means UTC here, or a time as the API takes it.
func fieldTime(text string) (time.Time, bool) {
	if text == "" {
		return time.Time{}, true
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), true
		}
	}
	return time.Time{}, false
}

// exportOf is the query of an export of what the page shows, and all that
// follows.
func exportOf(q groups.EventQuery, format string) string {
	out := url.Values{"format": {format}}
	put(out, "kind", q.Kind)
	put(out, "group", q.Group)
	put(out, "source", q.Source)
	put(out, "request", q.Request)
	if q.User != 0 {
		out.Set("user", q.User.String())
	}
	if !q.From.IsZero() {
		out.Set("from", q.From.UTC().Format(time.RFC3339))
	}
	if !q.To.IsZero() {
		out.Set("to", q.To.UTC().Format(time.RFC3339))
	}
	return "?" + out.Encode()
}

func shownEventOf(e *groups.Event) shownEvent {
	out := shownEvent{Event: *e, Person: personIn(e)}
	if c := e.Change; c != nil {
		out.part("added", "+", "plus", named(c.Added))
		out.part("removed", "−", "minus", named(c.Removed))
		out.part("held", "", "", named(c.Held))
		var skipped []eventGroup
		for _, skip := range c.Skipped {
			skipped = append(skipped, eventGroup{skip.Group, skip.Reason})
		}
		out.part("skipped", "", "", skipped)
		out.part("created", "", "", named(c.Created))
	}
	for name, r := range e.States {
		out.States = append(out.States, shownState{name, r.State.String(), r.Why})
	}
	slices.SortFunc(out.States, func(a, b shownState) int { return strings.Compare(a.Claim, b.Claim) })
	return out
}

func named(names []string) (out []eventGroup) {
	for _, name := range names {
		out = append(out, eventGroup{Name: name})
	}
	return out
}

func (e *shownEvent) part(key, sign, class string, all []eventGroup) {
	if len(all) == 0 {
		return
	}
	few := min(len(all), shownGroups)
	e.Parts = append(e.Parts, eventPart{key, sign, class, all[:few], all[few:]})
}

// AuditKind names a kind of event.
func (f *frame) AuditKind(kind string) string { return f.textOr("audit.kind."+kind, kind) }

// AuditLook is the badge of a kind of event.
func (f *frame) AuditLook(kind string) string {
	switch kind {
	case groups.EventRefused, groups.EventNotServed, groups.EventNotStored:
		return "bad"
	case groups.EventGuard, groups.EventOverflow, groups.EventParked:
		return "warn"
	case groups.EventSync:
		return "sso"
	}
	return ""
}
