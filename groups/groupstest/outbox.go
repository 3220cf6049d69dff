package groupstest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// outbox is what targets have to be told.
var outbox = map[string]func(*testing.T, groups.Store){
	"of a user a target has one piece of work": func(t *testing.T, s groups.Store) {
		add := func(target string, user groups.UserID, body string, at time.Time) {
			update(t, s, func(ctx context.Context, tx groups.Tx) error {
				return tx.AddWork(ctx, groups.Work{Target: target, User: user, Body: json.RawMessage(body), Created: at})
			})
		}
		add("t", 1, `{"n":1}`, noon)
		add("t", 2, `{}`, noon)
		add("u", 1, `{}`, noon)
		first := must[*groups.Work](t)(s.Work(t.Context(), "t", 1))
		failed := *first
		failed.Failures, failed.Refusals, failed.NotBefore, failed.Parked, failed.Reason = 4, 3, noon.Add(time.Minute), noon, "a reason \uFDD0"
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.PutWork(ctx, failed) })
		same(t, "failed", *must[*groups.Work](t)(s.Work(t.Context(), "t", 1)), failed)
		// What changes is another thing, and tried again.
		add("t", 1, `{"n":2}`, noon.Add(time.Hour))
		again := failed
		again.Body, again.Version, again.Failures, again.Refusals, again.Parked = json.RawMessage(`{"n":2}`), 1, 0, 0, time.Time{}
		same(t, "changed", *must[*groups.Work](t)(s.Work(t.Context(), "t", 1)), again)
		again.Failures, again.Refusals = 2, 1
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.PutWork(ctx, again) })
		add("t", 1, `{"n":3}`, noon)
		again.Body, again.Version = json.RawMessage(`{"n":3}`), 2
		same(t, "what was not parked goes on waiting", *must[*groups.Work](t)(s.Work(t.Context(), "t", 1)), again)
		same(t, "all", len(must[[]groups.Work](t)(s.Outbox(t.Context(), 0))), 3)
		_, err := s.Work(t.Context(), "u", 2)
		isErr(t, "another's", err, groups.ErrNotFound)
		again.ID = 1 << 40
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error { return tx.PutWork(ctx, again) })
	},
	"work is due by its time, and counted": func(t *testing.T, s groups.Store) {
		due := func(at time.Time) groups.UserID {
			w, err := s.DueWork(t.Context(), "t", at)
			if errors.Is(err, groups.ErrNotFound) {
				return 0
			}
			return must[*groups.Work](t)(w, err).User
		}
		count := func() groups.Backlog { return must[groups.Backlog](t)(s.Backlog(t.Context(), "t")) }
		same(t, "nothing", count(), groups.Backlog{})
		same(t, "nothing due", due(noon), groups.UserID(0))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for user := range groups.UserID(3) {
				if err := tx.AddWork(ctx, groups.Work{Target: "t", User: 3 - user, Created: noon.Add(time.Duration(user) * time.Second), Body: []byte("{}")}); err != nil {
					return err
				}
			}
			return tx.AddWork(ctx, groups.Work{Target: "other", User: 9, Created: noon, Body: []byte("{}")})
		})
		same(t, "the oldest", due(noon), groups.UserID(3))
		put := func(user groups.UserID, change func(*groups.Work)) {
			w := must[*groups.Work](t)(s.Work(t.Context(), "t", user))
			change(w)
			update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.PutWork(ctx, *w) })
		}
		put(3, func(w *groups.Work) { w.NotBefore, w.Failures = noon.Add(time.Hour), 1 })
		same(t, "the next", due(noon.Add(time.Hour-time.Microsecond)), groups.UserID(2))
		same(t, "what failed comes after what did not", due(noon.Add(time.Hour)), groups.UserID(2))
		put(2, func(w *groups.Work) { w.Parked, w.Failures = noon, 4 })
		same(t, "not parked", due(noon.Add(time.Hour)), groups.UserID(1))
		put(1, func(w *groups.Work) { w.NotBefore = noon.Add(time.Minute) })
		same(t, "its time", due(noon.Add(time.Minute)), groups.UserID(1))
		same(t, "not before", due(noon.Add(time.Minute-time.Microsecond)), groups.UserID(0))
		same(t, "backlog", count(), groups.Backlog{Waiting: 3, Parked: 1, Oldest: noon, Next: noon.Add(time.Minute)})
		bad := must[[]groups.Work](t)(s.FailedWork(t.Context(), "t", 0))
		if len(bad) != 2 || bad[0].User != 2 || bad[1].User != 3 {
			t.Fatalf("failed: %+v", bad)
		}
		same(t, "one failed", len(must[[]groups.Work](t)(s.FailedWork(t.Context(), "t", 1))), 1)
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.RetryWork(ctx, "t") })
		same(t, "all due", count(), groups.Backlog{Waiting: 3, Oldest: noon})
		same(t, "the oldest again", due(noon), groups.UserID(3))
		same(t, "failures in a row stay", must[*groups.Work](t)(s.Work(t.Context(), "t", 3)).Failures, 1)
		same(t, "of what was parked they do not", must[*groups.Work](t)(s.Work(t.Context(), "t", 2)).Failures, 0)
	},
	"everybody in a group is worked for once": func(t *testing.T, s groups.Store) {
		ids := addUsers(t, s, "alice", "bob", "carol", "dora")
		addGroups(t, s, "a", "b")
		give(t, s, ids[0], grant("a", "s", "r"), grant("a", "t", "r"))
		give(t, s, ids[2], grant("b", "s", "r"))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.AddManual(ctx, ids[:2], "a", "root", noon), tx.AddWork(ctx, groups.Work{Target: "t", User: ids[1], Body: []byte("{}"), Created: noon}))
		})
		users := func(target string) (out []groups.UserID) {
			for _, id := range ids {
				if _, err := s.Work(t.Context(), target, id); err == nil {
					out = append(out, id)
				}
			}
			return out
		}
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddWorkOfGroup(ctx, "a", "t", noon) })
		same(t, "members", users("t"), ids[:2])
		same(t, "again", must[*groups.Work](t)(s.Work(t.Context(), "t", ids[1])).Version, int64(1))
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.AddWorkOfGroup(ctx, "", "u", noon) })
		same(t, "members of any group", users("u"), ids[:3])
		refused(t, s, groups.ErrNotFound, func(ctx context.Context, tx groups.Tx) error { return tx.AddWorkOfGroup(ctx, "c", "t", noon) })
	},
	"what a target was told outlives the user": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "alice")[0]
		read := func() groups.Told { return must[groups.Told](t)(s.Told(t.Context(), "t", id)) }
		same(t, "nothing", read(), groups.Told{})
		told := groups.Told{Names: []string{"alice"}, Groups: []string{"a", "a, b \x01"}, Maybe: []string{"c"}}
		put := func(told groups.Told) {
			update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.PutTold(ctx, "t", id, told) })
		}
		put(groups.Told{Groups: []string{"x"}})
		put(told)
		update(t, s, func(ctx context.Context, tx groups.Tx) error { return tx.DeleteUser(ctx, id) })
		same(t, "told", read(), told)
		same(t, "of another target", must[groups.Told](t)(s.Told(t.Context(), "u", id)), groups.Told{})
		put(groups.Told{Names: []string{"alice"}})
		same(t, "no membership is nothing", read(), groups.Told{})
	},
}
