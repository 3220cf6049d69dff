package admin

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

// Bounds of an export of the audit trail.
const (
	maxExport  = 100_000 // lines
	exportStep = 500     // that are read at a time
)

// exportEvents answers the events that a filter finds as a file, newest first.
// What was read is sent before more is read; a store that fails half way
// breaks the connection off, so that nobody takes a part for the whole.
func (s *Server) exportEvents(x *exchange) error {
	params, err := x.query()
	if err != nil {
		return err
	}
	q, err := eventQuery(params)
	if err != nil {
		return err
	}
	var out eventWriter
	contentType := ""
	switch params.Get("format") {
	case "csv":
		out, contentType = newEventCSV(x), "text/csv; charset=utf-8"
	case "jsonl":
		out, contentType = eventLines{json.NewEncoder(x)}, "application/jsonl"
	default:
		return badRequest("format is csv or jsonl.")
	}
	ctx, store := x.r.Context(), s.dir.Store()
	q.Limit = exportStep
	found, err := store.Events(ctx, q)
	if err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", `attachment; filename="audit-`+s.o.Now().UTC().Format(time.DateOnly)+"."+params.Get("format")+`"`)
	x.WriteHeader(http.StatusOK)
	if x.r.Method == http.MethodHead {
		return nil
	}
	for n := 0; ; {
		for _, e := range found {
			if err := out.write(eventOf(e)); err != nil {
				return nil // the client is gone
			}
		}
		if err := out.flush(); err != nil {
			return nil
		}
		n += len(found)
		if len(found) < exportStep || n >= maxExport {
			return nil
		}
		_ = http.NewResponseController(x).Flush() // if it cannot, the whole comes at once
		q.Before = found[len(found)-1].ID
		if found, err = store.Events(ctx, q); err != nil {
			s.log.Error("export of events broken off", zap.String("request_id", x.id), zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}
}

type eventWriter interface {
	write(event) error
	flush() error
}

// eventLines writes one JSON object a line, as the API lists them.
type eventLines struct{ *json.Encoder }

func (w eventLines) write(e event) error { return w.Encode(e) }
func (w eventLines) flush() error        { return nil }

// eventCSV writes a line an event, for spreadsheets.
type eventCSV struct{ *csv.Writer }

func newEventCSV(w io.Writer) eventCSV {
	out := eventCSV{csv.NewWriter(w)}
	_ = out.Write([]string{"id", "at", "kind", "user_id", "user", "source", "group", "actor", "request", "reason", "added", "removed", "held", "skipped", "claims"}) // w keeps the error
	return out
}

func (w eventCSV) flush() error { w.Flush(); return w.Error() }

func (w eventCSV) write(e event) error {
	id := ""
	if e.UserID != 0 {
		id = e.UserID.String()
	}
	c := e.Change
	if c == nil {
		c = &groups.Change{}
	}
	var skipped, states []string
	for _, skip := range c.Skipped {
		skipped = append(skipped, skip.Group+" ("+skip.Reason+")")
	}
	for name, r := range e.States {
		states = append(states, name+" ("+r.State.String()+")")
	}
	slices.Sort(states)
	row := []string{
		e.ID, e.At.Format(time.RFC3339), e.Kind, id, e.User, e.Source, e.Group, e.Actor, e.Request, e.Reason,
		joinNames(c.Added), joinNames(c.Removed), joinNames(c.Held), joinNames(skipped), joinNames(states),
	}
	for i := range row {
		row[i] = asText(row[i])
	}
	return w.Write(row)
}

func joinNames(names []string) string { return strings.Join(names, "; ") }

// Bounds of counts.
const maxSteps = 500

// step is a width of time that counts are made in.
type step struct {
	name  string
	width time.Duration
	usual int // how many there are unless somebody says
}

var (
	byHour = step{"hour", time.Hour, 24}
	byDay  = step{"day", 24 * time.Hour, 14}
)

// end is when the step ends that is under way.
func (s step) end(now time.Time) time.Time { return now.UTC().Truncate(s.width).Add(s.width) }

// counts is what happened in one step of time.
type counts struct {
	At        time.Time `json:"at"`
	SignIns   int       `json:"sign_ins"`
	Refused   int       `json:"refused"`
	NotServed int       `json:"not_served"`
	Syncs     int       `json:"syncs"` // that changed something, or could not
	Added     int       `json:"added"`
	Removed   int       `json:"removed"`
}

// Changes is how many memberships syncs began or ended.
func (c counts) Changes() int { return c.Added + c.Removed }

type statistics struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Step  string    `json:"step"`
	Items []counts  `json:"items"`
}

// stats counts the audit trail by hours or by days of UTC.
func (s *Server) stats(x *exchange) error {
	q, err := x.query()
	if err != nil {
		return err
	}
	by, err := stepParam(q)
	if err != nil {
		return err
	}
	from, err := timeParam(q, "from")
	if err != nil {
		return err
	}
	to, err := timeParam(q, "to")
	if err != nil {
		return err
	}
	n := by.usual
	if to.IsZero() {
		to = by.end(s.o.Now())
	} else {
		to = ceil(to, by.width)
	}
	if from.IsZero() {
		from = to.Add(-time.Duration(n) * by.width)
	}
	from = from.UTC().Truncate(by.width)
	if n = int(to.Sub(from) / by.width); n < 1 || n > maxSteps || from.Before(time.Unix(0, 0)) {
		return badRequest("from and to are 1 to %d steps apart.", maxSteps)
	}
	out, err := s.count(x, from, by, n)
	if err != nil {
		return err
	}
	return x.ok(out)
}

func stepParam(q url.Values) (step, error) {
	switch q.Get("step") {
	case "", byHour.name:
		return byHour, nil
	case byDay.name:
		return byDay, nil
	}
	return step{}, badRequest("step is hour or day.")
}

// ceil is the beginning of the first step that begins at t or later.
func ceil(t time.Time, width time.Duration) time.Time {
	t = t.UTC()
	if begin := t.Truncate(width); begin.Before(t) {
		return begin.Add(width)
	}
	return t
}

// count answers every step, those too in which nothing happened.
func (s *Server) count(x *exchange, from time.Time, by step, n int) (*statistics, error) {
	found, err := s.dir.Store().Tally(x.r.Context(), from, by.width, n)
	if err != nil {
		return nil, err
	}
	out := &statistics{From: from, To: from.Add(time.Duration(n) * by.width), Step: by.name, Items: make([]counts, n)}
	for i := range out.Items {
		out.Items[i].At = from.Add(time.Duration(i) * by.width)
	}
	for _, t := range found {
		c := &out.Items[int(t.At.Sub(from)/by.width)]
		switch t.Kind {
		case groups.EventSignIn:
			c.SignIns += t.Events
		case groups.EventRefused:
			c.Refused += t.Events
		case groups.EventNotServed:
			c.NotServed += t.Events
		case groups.EventSync:
			c.Syncs += t.Events
			c.Added += t.Added
			c.Removed += t.Removed
		}
	}
	return out, nil
}
