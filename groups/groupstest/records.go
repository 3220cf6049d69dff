package groupstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

var sessions = map[string]func(*testing.T, groups.Store){
	"a session has its login, and PutLogin replaces": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "alice")[0]
		l := groups.Login{ID: "l", User: id, Source: "s", Subject: "x", Session: "sid", Created: noon, Expires: noon.Add(time.Hour), ClaimsAt: noon, Grant: []byte{0, 1, 255}}
		addLogin(t, s, l, 1)
		want := &groups.Session{Hash: hash(1), Used: noon, Login: l}
		same(t, "Session", must[*groups.Session](t)(s.Session(t.Context(), hash(1))), want)
		l.Grant, l.ClaimsAt, l.Session = nil, noon.Add(time.Minute), ""
		addLogin(t, s, l)
		same(t, "replaced", must[*groups.Session](t)(s.Session(t.Context(), hash(1))).Login, l)
		got := must[*groups.Login](t)(s.LoginByID(t.Context(), "l"))
		same(t, "LoginByID", got, &l)
		if got.Grant != nil {
			t.Fatal("no grant came back as one")
		}
		_, err := s.LoginByID(t.Context(), "L")
		isErr(t, "LoginByID", err, groups.ErrNotFound)
		_, err = s.Session(t.Context(), hash(2))
		isErr(t, "Session", err, groups.ErrNotFound)
	},
	"a session needs a login and a hash of its own": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "alice")[0]
		l := groups.Login{ID: "l", User: id}
		addLogin(t, s, l, 1)
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error {
			return tx.PutSession(ctx, &groups.Session{Hash: hash(2), Login: groups.Login{ID: "x"}})
		})
		refused(t, s, groups.ErrConflict, func(ctx context.Context, tx groups.Tx) error {
			return tx.PutSession(ctx, &groups.Session{Hash: hash(1), Login: l})
		})
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.PutSession(ctx, &groups.Session{Hash: hash(2), Host: "eng.example.com", Login: l})
		})
		same(t, "Host", must[*groups.Session](t)(s.Session(t.Context(), hash(2))).Host, "eng.example.com")
	},
	"Sessions lists the newest first": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		addLogin(t, s, groups.Login{ID: "old", User: ids[0], Created: noon}, 1)
		addLogin(t, s, groups.Login{ID: "new", User: ids[0], Created: noon.Add(time.Second)}, 2)
		addLogin(t, s, groups.Login{ID: "other", User: ids[1], Created: noon}, 3)
		var got []string
		for _, x := range must[[]groups.Session](t)(s.Sessions(t.Context(), ids[0])) {
			got = append(got, x.Login.ID)
		}
		same(t, "Sessions", got, []string{"new", "old"})
	},
	"CountSessions counts what is neither over nor unused": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		addLogin(t, s, groups.Login{ID: "over", User: ids[0], Expires: noon}, 1)
		addLogin(t, s, groups.Login{ID: "runs", User: ids[0], Expires: noon.Add(time.Second)}, 2, 3, 4)
		addLogin(t, s, groups.Login{ID: "other", User: ids[1], Expires: noon.Add(time.Hour)}, 5)
		count := func(now, used time.Time) int { return must[int](t)(s.CountSessions(t.Context(), now, used)) }
		same(t, "before", count(noon.Add(-time.Second), noon.Add(-time.Second)), 5)
		same(t, "one is over", count(noon, noon.Add(-time.Second)), 4)
		same(t, "all were used before", count(noon, noon), 0)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.TouchSessions(ctx, map[[32]byte]time.Time{hash(2): noon.Add(time.Minute), hash(1): noon.Add(time.Minute)})
		})
		same(t, "one was used since", count(noon, noon), 1)
	},
	"TouchSessions moves times forward and forgives who is gone": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "alice")[0]
		addLogin(t, s, groups.Login{ID: "l", User: id}, 1, 2, 3)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.TouchSessions(ctx, nil), tx.TouchSessions(ctx, map[[32]byte]time.Time{
				hash(1): noon.Add(time.Minute), hash(2): noon.Add(-time.Minute), hash(9): noon,
			}))
		})
		for c, want := range map[byte]time.Time{1: noon.Add(time.Minute), 2: noon, 3: noon} {
			same(t, fmt.Sprint(c), must[*groups.Session](t)(s.Session(t.Context(), hash(c))).Used, want)
		}
	},
	"DeleteLogins ends what fits every field, with the sessions": testDeleteLogins,
	"Sweep forgets what has expired, and nothing else": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob")
		addLogin(t, s, groups.Login{ID: "over", User: ids[0], Expires: noon}, 1)
		addLogin(t, s, groups.Login{ID: "runs", User: ids[0], Expires: noon.Add(time.Second)}, 2)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			_, err1 := tx.Once(ctx, "k", "over", noon)
			_, err2 := tx.Once(ctx, "k", "runs", noon.Add(time.Second))
			return errors.Join(err1, err2, tx.NoteRemoval(ctx, ids[0], noon.AddDate(0, 0, -40)), tx.NoteRemoval(ctx, ids[1], noon.AddDate(0, 0, -20)),
				tx.AddEvents(ctx, groups.Event{Kind: groups.EventSync, At: noon.AddDate(-9, 0, 0)}))
		})
		must[*groups.Session](t)(s.Session(t.Context(), hash(1))) // until it is swept
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.Sweep(ctx, noon) })
		_, err := s.Session(t.Context(), hash(1))
		isErr(t, "expired", err, groups.ErrNotFound)
		_, err = s.LoginByID(t.Context(), "over")
		isErr(t, "expired login", err, groups.ErrNotFound)
		must[*groups.Session](t)(s.Session(t.Context(), hash(2)))
		same(t, "removals", must[[]groups.UserID](t)(s.RemovedUsers(t.Context(), time.Time{})), ids[1:])
		same(t, "the trail stays", len(must[[]groups.Event](t)(s.Events(t.Context(), groups.EventQuery{}))), 1)
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for id, want := range map[string]bool{"over": true, "runs": false} {
				if fresh, err := tx.Once(ctx, "k", id, noon); fresh != want || err != nil {
					t.Errorf("Once %s: %v, %v", id, fresh, err)
				}
			}
			return nil
		})
	},
}

func testDeleteLogins(t *testing.T, s groups.Store) {
	ids := addUsers(t, s, "alice", "bob")
	a := groups.Login{ID: "a", User: ids[0], Source: "s", Subject: "x", Session: "1", Alias: "n", Created: noon}
	b := groups.Login{ID: "b", User: ids[0], Source: "s", Subject: "x", Session: "2", Alias: "n", Created: noon.Add(-time.Second)}
	c := groups.Login{ID: "c", User: ids[0], Source: "t", Subject: "x", Session: "1", Alias: "n", Created: noon}
	d := groups.Login{ID: "d", User: ids[1], Source: "s", Subject: "y", Created: noon}
	all := []groups.Login{a, b, c, d}
	for name, step := range map[string]struct {
		f    groups.LoginFilter
		want []groups.Login
	}{
		"id":                {groups.LoginFilter{ID: "c"}, []groups.Login{c}},
		"user":              {groups.LoginFilter{User: ids[0]}, []groups.Login{b, a, c}},
		"source, subject":   {groups.LoginFilter{Source: "s", Subject: "x"}, []groups.Login{b, a}},
		"source session":    {groups.LoginFilter{Source: "s", Session: "1"}, []groups.Login{a}},
		"source, alias":     {groups.LoginFilter{Source: "s", Alias: "n"}, []groups.Login{b, a}},
		"session of alias":  {groups.LoginFilter{Source: "s", Alias: "n", Session: "1"}, []groups.Login{a}},
		"another alias":     {groups.LoginFilter{Source: "s", Alias: "N"}, nil},
		"alias of another":  {groups.LoginFilter{Source: "s", Alias: "n", Subject: "y"}, nil},
		"user and source":   {groups.LoginFilter{User: ids[0], Source: "t"}, []groups.Login{c}},
		"nobody":            {groups.LoginFilter{Source: "s", Subject: "z"}, nil},
		"fields that fight": {groups.LoginFilter{ID: "a", User: ids[1]}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for i, l := range all {
				addLogin(t, s, l, byte(i+1))
			}
			var got []groups.Login
			update(t, s, func(ctx context.Context, tx groups.Tx) (err error) {
				got, err = tx.DeleteLogins(ctx, step.f)
				return err
			})
			same(t, "answer", got, step.want)
			gone := map[string]bool{}
			for _, l := range step.want {
				gone[l.ID] = true
			}
			for i, l := range all {
				_, err := s.Session(t.Context(), hash(byte(i+1)))
				if errors.Is(err, groups.ErrNotFound) != gone[l.ID] {
					t.Errorf("session of %s: %v", l.ID, err)
				}
			}
			update(t, s, func(ctx context.Context, tx groups.Tx) error {
				_, err1 := tx.DeleteLogins(ctx, groups.LoginFilter{User: ids[0]})
				_, err2 := tx.DeleteLogins(ctx, groups.LoginFilter{User: ids[1]})
				return errors.Join(err1, err2)
			})
		})
	}
	addLogin(t, s, d, 9)
	if err := s.Update(t.Context(), func(tx groups.Tx) error {
		_, err := tx.DeleteLogins(t.Context(), groups.LoginFilter{})
		return err
	}); err == nil {
		t.Error("an empty filter was taken for everybody")
	}
	must[*groups.Session](t)(s.Session(t.Context(), hash(9)))
}

var records = map[string]func(*testing.T, groups.Store){
	"rules come back by id, with versions that count": func(t *testing.T, s groups.Store) {
		r := groups.Rule{ID: "r2", Source: "s", Claim: "groups", Regexp: `CN=(\w+)<&>`, Split: ";", When: `source == "s"`, Group: "$1"}
		put := func(r groups.Rule) func(context.Context, groups.Tx) error {
			return func(ctx context.Context, tx groups.Tx) error { return tx.PutRule(ctx, r) }
		}
		update(t, s, put(r))
		update(t, s, put(groups.Rule{ID: "r1", Claim: "groups", Any: true, Location: "f:1"}))
		r.Version = 1
		same(t, "Rules", must[[]groups.Rule](t)(s.Rules(t.Context())), []groups.Rule{{ID: "r1", Version: 1, Claim: "groups", Any: true}, r})
		r.Group = "x"
		update(t, s, put(r)) // over version 1
		refused(t, s, groups.ErrConflict, put(r))
		r.Version = 7
		refused(t, s, groups.ErrConflict, put(r))
		r.Version = 0
		update(t, s, put(r)) // whatever the version
		same(t, "version", must[[]groups.Rule](t)(s.Rules(t.Context()))[1].Version, int64(3))
		refused(t, s, groups.ErrConflict, put(groups.Rule{ID: "gone", Version: 1, Claim: "c", Any: true}))
	},
	"DeleteRule of a rule that is not there is ErrNotFound": func(t *testing.T, s groups.Store) {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.PutRule(ctx, groups.Rule{ID: "r", Claim: "c"})
		})
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteRule(ctx, "r") })
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteRule(ctx, "r") })
		same(t, "Rules", must[[]groups.Rule](t)(s.Rules(t.Context())), []groups.Rule{})
	},
	"an event comes back as it was": func(t *testing.T, s groups.Store) {
		e := groups.Event{
			At: noon, Kind: groups.EventSync, User: 35, Name: "alice", Source: "s", Actor: "root", Request: "q", Reason: "because",
			Change: &groups.Change{Created: []string{"n"}, Add: []groups.Grant{grant("a", "s", "r")}, Drop: []groups.Grant{grant("b", "s", "r")},
				DropManual: []string{"m"}, Added: []string{"a"}, Removed: []string{"b"}, Held: []string{"h"},
				Skipped: []groups.Skip{{Grant: grant("c", "s", "r"), Reason: groups.SkipName}}},
			States: map[string]claims.Resolution{"groups": {State: claims.Absent}, "roles": {State: claims.Unknown, Why: "the claim is null"},
				"x": {State: claims.Complete, Values: []string{"v"}}},
		}
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.AddEvents(ctx, e, groups.Event{Kind: groups.EventGuard})
		})
		all := must[[]groups.Event](t)(s.Events(t.Context(), groups.EventQuery{}))
		if len(all) != 2 || all[0].ID <= all[1].ID || all[1].ID <= 0 {
			t.Fatalf("ids of %+v", all)
		}
		e.ID = all[1].ID
		same(t, "event", all[1], e)
		if all[0].At.IsZero() {
			t.Error("an event has no time")
		}
	},
	"events are found by every field, newest first":                           testEvents,
	"events are found by their time, whatever the order they were written in": testEventTimes,
	"events are counted by steps of time":                                     testTally,
	"the outbox keeps its order": func(t *testing.T, s groups.Store) {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for i := range 5 {
				w := groups.Work{Target: "t", User: groups.UserID(5 - i), Body: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)), Created: noon}
				if err := tx.AddWork(ctx, w); err != nil {
					return err
				}
			}
			return nil
		})
		all := must[[]groups.Work](t)(s.Outbox(t.Context(), 100))
		same(t, "first", all[0], groups.Work{ID: all[0].ID, Target: "t", User: 5, Body: json.RawMessage(`{"n":0}`), Created: noon})
		for i, w := range all {
			same(t, "order", string(w.Body), fmt.Sprintf(`{"n":%d}`, i))
		}
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.DoneWork(ctx), tx.DoneWork(ctx, all[4].ID, all[1].ID, 1<<40), tx.AddWork(ctx, all[1]))
		})
		left := must[[]groups.Work](t)(s.Outbox(t.Context(), 3))
		same(t, "done", []int64{left[0].ID, left[1].ID, left[2].ID}, []int64{all[0].ID, all[2].ID, all[3].ID})
		last := must[[]groups.Work](t)(s.Outbox(t.Context(), 100))
		if len(last) != 4 || last[3].ID <= all[4].ID {
			t.Fatalf("an id was given twice: %+v", last)
		}
	},
	"a value of Meta is there once it is put": func(t *testing.T, s groups.Store) {
		_, err := s.Meta(t.Context(), "k")
		isErr(t, "Meta", err, groups.ErrNotFound)
		for _, v := range []string{`{"a":[1, "x"]}`, `null`} {
			update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.PutMeta(ctx, "k", json.RawMessage(v)) })
			got := must[json.RawMessage](t)(s.Meta(t.Context(), "k"))
			var a, b any
			same(t, "both JSON", errors.Join(json.Unmarshal(got, &a), json.Unmarshal([]byte(v), &b)), error(nil))
			same(t, "value", a, b)
		}
	},
}

func testEvents(t *testing.T, s groups.Store) {
	in := []groups.Event{
		{Kind: "a", User: 1, Source: "s", Group: "g", Request: "q1", At: noon},
		{Kind: "a", User: 2, Source: "t", Request: "q2", At: noon.Add(1 * time.Second)},
		{Kind: "sync", User: 2, Source: "s", At: noon.Add(2 * time.Second), Change: &groups.Change{Added: []string{"x", "g"}}},
		{Kind: "sync", User: 1, Source: "s", At: noon.Add(3 * time.Second), Change: &groups.Change{Removed: []string{"g", `q"<`}}},
		{Kind: "sync", User: 1, Source: "s", At: noon.Add(4 * time.Second), Reason: `says "g"`,
			Change: &groups.Change{Held: []string{"g"}, Skipped: []groups.Skip{{Grant: groups.Grant{Group: "g"}}}}},
	}
	update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddEvents(ctx, in...) })
	all := must[[]groups.Event](t)(s.Events(t.Context(), groups.EventQuery{}))
	for name, q := range map[string]struct {
		q    groups.EventQuery
		want []int
	}{
		"all":             {groups.EventQuery{}, []int{4, 3, 2, 1, 0}},
		"limit":           {groups.EventQuery{Limit: 2}, []int{4, 3}},
		"before":          {groups.EventQuery{Before: all[1].ID, Limit: 2}, []int{2, 1}},
		"kind":            {groups.EventQuery{Kind: "a"}, []int{1, 0}},
		"user":            {groups.EventQuery{User: 2}, []int{2, 1}},
		"source":          {groups.EventQuery{Source: "t"}, []int{1}},
		"request":         {groups.EventQuery{Request: "q1"}, []int{0}},
		"group":           {groups.EventQuery{Group: "g"}, []int{3, 2, 0}},
		"group, page":     {groups.EventQuery{Group: "g", Limit: 1, Before: all[1].ID}, []int{2}},
		"quoted group":    {groups.EventQuery{Group: `q"<`}, []int{3}},
		"other group":     {groups.EventQuery{Group: "G"}, nil},
		"from":            {groups.EventQuery{From: noon.Add(3 * time.Second)}, []int{4, 3}},
		"to":              {groups.EventQuery{To: noon.Add(1 * time.Second)}, []int{0}},
		"several at once": {groups.EventQuery{Group: "g", Source: "s", User: 1, From: noon, To: noon.Add(time.Minute)}, []int{3, 0}},
		"nothing":         {groups.EventQuery{Kind: "a", Request: "q9"}, nil},
		"kind and source": {groups.EventQuery{Kind: "sync", Source: "s"}, []int{4, 3, 2}},
		"group of a user": {groups.EventQuery{Group: "g", User: 2}, []int{2}},
		"group, request":  {groups.EventQuery{Group: "g", Request: "q1"}, []int{0}},
		"group and time":  {groups.EventQuery{Group: "g", To: noon.Add(3 * time.Second)}, []int{2, 0}},
		"held":            {groups.EventQuery{Held: true}, []int{4}},
		"held, group":     {groups.EventQuery{Held: true, Group: "g"}, nil}, // who is in it did not change
		"skipped":         {groups.EventQuery{Skipped: true, From: noon}, []int{4}},
		"held, user":      {groups.EventQuery{Held: true, User: 2}, nil},
		"time of a kind":  {groups.EventQuery{Kind: "a", From: noon.Add(1 * time.Second), To: noon.Add(time.Hour)}, []int{1}},
		"before any":      {groups.EventQuery{To: noon.Add(-48 * time.Hour)}, nil},
		"after all":       {groups.EventQuery{From: noon.Add(48 * time.Hour)}, nil},
	} {
		var want []groups.Event
		for _, i := range q.want {
			want = append(want, all[len(all)-1-i])
		}
		same(t, name, must[[]groups.Event](t)(s.Events(t.Context(), q.q)), want)
	}
}

// Clocks are set back, and some events are written later than they happened.
func testEventTimes(t *testing.T, s groups.Store) {
	for _, hours := range []int{5, 1, 30, 2, 1, -7} {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return tx.AddEvents(ctx, groups.Event{Kind: "k", Source: "s", At: noon.Add(time.Duration(hours) * time.Hour)})
		})
	}
	hour := func(h int) time.Time { return noon.Add(time.Duration(h) * time.Hour) }
	for _, tc := range []struct{ from, to, want int }{{1, 2, 2}, {1, 6, 4}, {-100, 100, 6}, {2, 3, 1}, {6, 30, 0}, {6, 31, 1}, {-8, 1, 1}} {
		for _, q := range []groups.EventQuery{{}, {Kind: "k"}, {Source: "s"}, {Kind: "k", Source: "s"}} {
			q.From, q.To = hour(tc.from), hour(tc.to)
			if got := must[[]groups.Event](t)(s.Events(t.Context(), q)); len(got) != tc.want {
				t.Errorf("%+v: %d events, want %d", q, len(got), tc.want)
			}
		}
	}
}

func testTally(t *testing.T, s groups.Store) {
	same(t, "nothing", must[[]groups.Tally](t)(s.Tally(t.Context(), noon, time.Hour, 24)), []groups.Tally{})
	change := &groups.Change{Added: []string{"a", "b"}, Removed: []string{"c"}, Held: []string{"d"}}
	update(t, s, func(ctx context.Context, tx groups.Tx) error {
		return tx.AddEvents(ctx,
			groups.Event{Kind: "sync", Source: "s", At: noon.Add(-time.Hour), Change: change},
			groups.Event{Kind: "sync", Source: "s", At: noon, Change: change},
			groups.Event{Kind: "sync", Source: "s", At: noon.Add(time.Minute), Change: change},
			groups.Event{Kind: "sync", Source: "t", At: noon.Add(time.Minute)},
			groups.Event{Kind: "a", At: noon.Add(2 * time.Hour)},
			groups.Event{Kind: "a", At: noon.Add(25 * time.Hour)},
		)
	})
	begin := noon.Truncate(time.Hour)
	first := groups.Tally{At: begin, Kind: "sync", Source: "s", Events: 2, Added: 4, Removed: 2}
	other := groups.Tally{At: begin, Kind: "sync", Source: "t", Events: 1}
	same(t, "by the hour", must[[]groups.Tally](t)(s.Tally(t.Context(), noon, time.Hour, 3)),
		[]groups.Tally{first, other, {At: begin.Add(2 * time.Hour), Kind: "a", Events: 1}})
	same(t, "its end is not part of it", must[[]groups.Tally](t)(s.Tally(t.Context(), noon, time.Hour, 2)), []groups.Tally{first, other})
	same(t, "by the day", must[[]groups.Tally](t)(s.Tally(t.Context(), noon, 24*time.Hour, 2)),
		[]groups.Tally{{At: begin, Kind: "a", Events: 1}, first, other, {At: begin.Add(24 * time.Hour), Kind: "a", Events: 1}})
	// What did not happen is not counted.
	gone := errors.New("gone")
	refused(t, s, gone, func(ctx context.Context, tx groups.Tx) error {
		return errors.Join(tx.AddEvents(ctx, groups.Event{Kind: "a", At: noon}), gone)
	})
	same(t, "a transaction that was given up", must[[]groups.Tally](t)(s.Tally(t.Context(), noon, time.Hour, 1)), []groups.Tally{first, other})
}
