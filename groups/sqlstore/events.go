package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// eventBody is what an event has beside its columns. It is a type of its own,
// so that the stored form does not change when the API's does.
type eventBody struct {
	Name   string                `json:"name,omitempty"`
	Actor  string                `json:"actor,omitempty"`
	Reason string                `json:"reason,omitempty"`
	Change *groups.Change        `json:"change,omitempty"`
	States map[string]eventState `json:"states,omitempty"`
}

type eventState struct {
	State  string   `json:"state"`
	Values []string `json:"values,omitempty"`
	Why    string   `json:"why,omitempty"`
}

func bodyOf(e groups.Event) (string, error) {
	b := eventBody{Name: e.Name, Actor: e.Actor, Reason: e.Reason, Change: e.Change}
	for name, r := range e.States {
		if b.States == nil {
			b.States = map[string]eventState{}
		}
		b.States[name] = eventState{State: r.State.String(), Values: r.Values, Why: r.Why}
	}
	text, err := json.Marshal(b)
	return string(text), err
}

func (b eventBody) fill(e *groups.Event) {
	e.Name, e.Actor, e.Reason, e.Change = b.Name, b.Actor, b.Reason, b.Change
	for name, s := range b.States {
		r := claims.Resolution{Values: s.Values, Why: s.Why}
		switch s.State {
		case claims.Absent.String():
			r.State = claims.Absent
		case claims.Complete.String():
			r.State = claims.Complete
		default:
			r.State = claims.Unknown
		}
		if e.States == nil {
			e.States = map[string]claims.Resolution{}
		}
		e.States[name] = r
	}
}

// Events lists the audit trail, newest first. From is part of the time asked
// for, To is not. Every single field has an index, and so have source and kind
// together; the trail is read from its end until the page is full.
func (r reader) Events(ctx context.Context, q groups.EventQuery) ([]groups.Event, error) {
	var w where
	var mentioned [][2]string
	if q.Group != "" {
		mentioned = append(mentioned, [2]string{"group", q.Group})
	}
	if q.Held {
		mentioned = append(mentioned, [2]string{"held", ""})
	}
	if q.Skipped {
		mentioned = append(mentioned, [2]string{"skipped", ""})
	}
	from, id := `events`, `id`
	if len(mentioned) > 0 && q.User == 0 && q.Request == "" { // which are fewer
		from, id = `mentions cross join events on id = event_id`, `event_id` // in this order
		w.add(true, `what = ? and name = ?`, mentioned[0][0], mentioned[0][1])
		mentioned = mentioned[1:]
	}
	for _, m := range mentioned {
		w.add(true, `exists (select 1 from mentions m where m.what = ? and m.name = ? and m.event_id = id)`, m[0], m[1])
	}
	w.add(q.Kind != "", `kind = ?`, q.Kind)
	// The indexes leave out who has none, and are used only when that is said.
	w.add(q.User != 0, `user_id = ? and user_id <> 0`, int64(q.User))
	w.add(q.Source != "", `source = ? and source <> ''`, q.Source)
	w.add(q.Request != "", `request = ? and request <> ''`, q.Request)
	w.add(!q.From.IsZero(), `at >= ?`, micros(q.From))
	w.add(!q.To.IsZero(), `at < ?`, micros(q.To))
	if !q.From.IsZero() || !q.To.IsZero() {
		bounds(&w, id, q)
	} else {
		w.add(true, id+` < ?`, beforeOf(q.Before))
	}
	w.write(` order by `+id+` desc limit ?`, limitOf(q.Limit))
	return list(ctx, r.q, "events", scanEvent,
		`select id, at, kind, user_id, source, grp, request, body from `+from+` where `+w.text.String(), w.args...)
}

// bounds says between which ids the events of a time are. Ids and times run
// nearly together, but clocks are set, and some events are written later.
func bounds(w *where, id string, q groups.EventQuery) {
	var t where
	t.add(true, `hour >= ?`, micros(q.From)/hourMicros)
	t.add(!q.To.IsZero(), `hour <= ?`, micros(q.To)/hourMicros)
	t.add(q.Kind != "", `kind = ?`, q.Kind)
	t.add(q.Source != "", `source = ?`, q.Source)
	hours := numbered.ReplaceAllString(t.text.String(), "?")
	w.add(true, id+` >= (select min(first_id) from tallies where `+hours+`)`, t.args...)
	// One upper bound: SQLite goes by one, and would take the other.
	w.add(true, id+` < least(?, (select max(last_id) from tallies where `+hours+`) + 1)`, append([]any{beforeOf(q.Before)}, t.args...)...)
}

var numbered = regexp.MustCompile(`\$[0-9]+`)

const hourMicros = int64(time.Hour / time.Microsecond)

// Tally counts events by steps of time.
func (r reader) Tally(ctx context.Context, from time.Time, step time.Duration, steps int) ([]groups.Tally, error) {
	first, width := micros(from)/hourMicros, int64(step/time.Hour)
	if width < 1 || steps < 1 {
		return nil, fmt.Errorf("tally: %d steps of %s", steps, step)
	}
	return list(ctx, r.q, "tally", func(r *rows, t *groups.Tally) error {
		var hour int64
		err := r.Scan(&hour, &t.Kind, &t.Source, &t.Events, &t.Added, &t.Removed)
		t.At = when(hour * hourMicros)
		return err
	}, `select $1 + (hour - $1) / $2 * $2 as begin, kind, source, cast(sum(n) as bigint), cast(sum(added) as bigint), cast(sum(removed) as bigint) from tallies
		where hour >= $1 and hour < $3 group by begin, kind, source order by begin, kind, source`,
		first, width, first+width*int64(steps))
}

func beforeOf(id int64) int64 {
	if id <= 0 {
		return 1<<63 - 1
	}
	return id
}

func scanEvent(r *rows, e *groups.Event) error {
	var at int64
	var text string
	if err := r.Scan(&e.ID, &at, &e.Kind, &e.User, &e.Source, &e.Group, &e.Request, &text); err != nil {
		return err
	}
	e.At = when(at)
	var b eventBody
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return fmt.Errorf("stored event %d: %w", e.ID, err)
	}
	b.fill(e)
	return nil
}

// AddEvents appends to the audit trail. The store gives the ids, and its own
// time to an event that has none.
func (t *tx) AddEvents(ctx context.Context, events ...groups.Event) error {
	for _, e := range events {
		body, err := bodyOf(e)
		if err != nil {
			return failed("add event", err)
		}
		if e.At.IsZero() {
			e.At = t.now()
		}
		err = t.do(ctx, "add event", `insert into events (at, kind, user_id, source, grp, request, body) values ($1, $2, $3, $4, $5, $6, $7)`,
			micros(e.At), e.Kind, int64(e.User), e.Source, e.Group, e.Request, body)
		if err != nil {
			return err
		}
	}
	return nil
}
