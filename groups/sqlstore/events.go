package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

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
// for, To is not.
func (r reader) Events(ctx context.Context, q groups.EventQuery) ([]groups.Event, error) {
	var w where
	w.add(true, `id < ?`, beforeOf(q.Before))
	w.add(q.Kind != "", `kind = ?`, q.Kind)
	w.add(q.User != 0, `user_id = ?`, int64(q.User))
	w.add(q.Source != "", `source = ?`, q.Source)
	w.add(q.Request != "", `request = ?`, q.Request)
	w.add(!q.From.IsZero(), `at >= ?`, micros(q.From))
	w.add(!q.To.IsZero(), `at < ?`, micros(q.To))
	// A row per group and sync would make writing slow for a question that is
	// seldom asked. The instr spares most rows the reading of their JSON.
	w.add(q.Group != "", `(grp = ? or (instr(body, ?) > 0 and (
		exists (select 1 from json_each(body, '$.change.added') where value = ?) or
		exists (select 1 from json_each(body, '$.change.removed') where value = ?))))`,
		q.Group, quoted(q.Group), q.Group, q.Group)
	w.write(` order by id desc limit ?`, limitOf(q.Limit))
	return list(ctx, r.q, "events", scanEvent,
		`select id, at, kind, user_id, source, grp, request, body from events where `+w.text.String(), w.args...)
}

func beforeOf(id int64) int64 {
	if id <= 0 {
		return 1<<63 - 1
	}
	return id
}

// quoted is the text as a body holds it.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // text always has a JSON form
		return s
	}
	return string(b)
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
			e.At = t.s.opts.Now()
		}
		err = t.do(ctx, "add event", `insert into events (at, kind, user_id, source, grp, request, body) values ($1, $2, $3, $4, $5, $6, $7)`,
			micros(e.At), e.Kind, int64(e.User), e.Source, e.Group, e.Request, body)
		if err != nil {
			return err
		}
	}
	return nil
}
