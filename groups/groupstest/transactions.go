package groupstest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

var transactions = map[string]func(*testing.T, groups.Store){
	"an error rolls everything back and comes out unchanged": func(t *testing.T, s groups.Store) {
		var told atomic.Int64
		s.Watch(func(groups.Notice) { told.Add(1) })
		mine := errors.New("mine")
		err := s.Update(t.Context(), func(tx groups.Tx) error { return errors.Join(everything(t.Context(), tx), mine) })
		isErr(t, "Update", err, mine)
		err = s.Update(t.Context(), func(groups.Tx) error { return mine })
		if err != mine {
			t.Fatalf("got %v, want the very error", err)
		}
		nothing(t, s)
		same(t, "notices", told.Load(), int64(0))
		// The control: the same without the error stays.
		update(t, s, everything)
		must[*groups.User](t)(s.UserByName(t.Context(), "alice"))
		same(t, "notices", told.Load(), int64(1))
	},
	"a panic rolls everything back and goes on": func(t *testing.T, s groups.Store) {
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("recovered %v", p)
				}
			}()
			_ = s.Update(t.Context(), func(tx groups.Tx) error {
				if err := everything(t.Context(), tx); err != nil {
					t.Error(err)
				}
				panic("mine")
			})
		}()
		nothing(t, s)
		update(t, s, everything) // the store is as good as before
	},
	"a cancelled context does nothing": func(t *testing.T, s groups.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Update(ctx, func(tx groups.Tx) error {
			if err := everything(ctx, tx); err != nil {
				t.Error(err)
			}
			cancel()
			return nil
		})
		isErr(t, "cancelled before the commit", err, context.Canceled)
		if errors.Is(err, groups.ErrUnavailable) {
			t.Errorf("a caller who leaves is no fault of the store: %v", err)
		}
		nothing(t, s)
		isErr(t, "cancelled before", s.Update(ctx, func(groups.Tx) error { t.Error("it ran"); return nil }), context.Canceled)
		_, err = s.Epoch(ctx)
		isErr(t, "read", err, context.Canceled)
		update(t, s, everything)
	},
	"a read sees its transaction's writes, others do not": func(t *testing.T, s groups.Store) {
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			if err := everything(ctx, tx); err != nil {
				return err
			}
			nothing(t, s)
			u := must[*groups.User](t)(tx.UserByName(ctx, "alice"))
			same(t, "GroupNames", must[[]string](t)(tx.GroupNames(ctx, u.ID)), []string{"g"})
			same(t, "Events", len(must[[]groups.Event](t)(tx.Events(ctx, groups.EventQuery{Kind: "k"}))), 1)
			return nil
		})
	},
	"a transaction that has ended does nothing": func(t *testing.T, s groups.Store) {
		var kept groups.Tx
		update(t, s, func(_ context.Context, tx groups.Tx) error { kept = tx; return nil })
		if err := everything(t.Context(), kept); err == nil {
			t.Error("it still writes")
		}
		if _, err := kept.Epoch(t.Context()); err == nil {
			t.Error("it still reads")
		}
		if err := kept.Notify(t.Context(), groups.Notice{}); err == nil {
			t.Error("it still tells")
		}
		nothing(t, s)
	},
	"transactions that lock one user do not interleave": func(t *testing.T, s groups.Store) {
		id := addUsers(t, s, "0")[0]
		together(t, 50, func(int) error {
			return s.Update(t.Context(), func(tx groups.Tx) error {
				if err := tx.LockUser(t.Context(), id); err != nil {
					return err
				}
				u, err := tx.User(t.Context(), id)
				if err != nil {
					return err
				}
				var n int
				if _, err := fmt.Sscan(u.Name, &n); err != nil {
					return err
				}
				u.Name = fmt.Sprint(n + 1)
				return tx.UpdateUser(t.Context(), u)
			})
		})
		same(t, "updates", must[*groups.User](t)(s.User(t.Context(), id)).Name, "50")
	},
	"Once answers true once": func(t *testing.T, s groups.Store) {
		var fresh atomic.Int64
		together(t, 20, func(int) error {
			var first bool
			err := s.Update(t.Context(), func(tx groups.Tx) (err error) {
				first, err = tx.Once(t.Context(), "kind", "id", noon)
				return err
			})
			if first && err == nil {
				fresh.Add(1)
			}
			return err
		})
		same(t, "fresh", fresh.Load(), int64(1))
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			for _, id := range [][2]string{{"Kind", "id"}, {"kind", "ID"}, {"kind", ""}} {
				if first, err := tx.Once(ctx, id[0], id[1], noon); !first || err != nil {
					t.Errorf("%q: %v, %v", id, first, err)
				}
			}
			return nil
		})
	},
	"notices reach every watcher before Update returns": func(t *testing.T, s groups.Store) {
		var mu sync.Mutex
		got := map[int][]groups.Notice{}
		for i := range 2 {
			s.Watch(func(n groups.Notice) {
				// A watcher may look at what was committed.
				if _, err := s.UserByName(t.Context(), "alice"); err != nil {
					t.Errorf("told before the commit: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				got[i] = append(got[i], n)
			})
		}
		want := []groups.Notice{{User: 7}, {User: 7, Login: "l"}}
		update(t, s, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.CreateUser(ctx, &groups.User{Name: "alice"}), tx.Notify(ctx, want[0]), tx.Notify(ctx, want[1]))
		})
		mu.Lock()
		defer mu.Unlock()
		for i := range 2 {
			same(t, "notices", got[i], want)
		}
	},
	"readers and a writer work side by side": func(t *testing.T, s groups.Store) {
		// What goes together is seen together: alice and bob are in the same group.
		ids := addUsers(t, s, "alice", "bob")
		addGroups(t, s, "a", "b")
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 40 {
				add, drop := "a", "b"
				if i%2 == 1 {
					add, drop = drop, add
				}
				err := s.Update(t.Context(), func(tx groups.Tx) error {
					return errors.Join(tx.AddManual(t.Context(), ids, add, "root", noon), tx.DropManual(t.Context(), ids[0], []string{drop}),
						tx.DropManual(t.Context(), ids[1], []string{drop}))
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			n := 0
			if err := s.EachMembership(t.Context(), func(_ groups.UserID, have []groups.Membership) error { n += len(have); return nil }); err != nil {
				t.Fatal(err)
			}
			if n != 2 && n != 0 {
				t.Fatalf("%d memberships at one moment", n)
			}
		}
	},
	"a store that was closed is unavailable": func(t *testing.T, s groups.Store) {
		if err := s.Healthy(); err != nil {
			t.Fatalf("Healthy: %v", err)
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatalf("Close: %v", err)
		}
		isErr(t, "Healthy", s.Healthy(), groups.ErrUnavailable)
		isErr(t, "Update", s.Update(t.Context(), func(groups.Tx) error { t.Error("it ran"); return nil }), groups.ErrUnavailable)
		_, err := s.Epoch(t.Context())
		isErr(t, "Epoch", err, groups.ErrUnavailable)
		isErr(t, "EachIdentity", s.EachIdentity(t.Context(), nil), groups.ErrUnavailable)
	},
}

// everything writes into several tables.
func everything(ctx context.Context, tx groups.Tx) error {
	u := groups.User{Name: "alice"}
	return errors.Join(
		tx.CreateUser(ctx, &u),
		tx.CreateGroups(ctx, []groups.Group{{Name: "g", Control: groups.SSO}}),
		tx.AddGrants(ctx, u.ID, []groups.Grant{grant("g", "s", "r")}, noon),
		tx.AddEvents(ctx, groups.Event{Kind: "k"}),
		tx.AddWork(ctx, groups.Work{Target: "t", User: u.ID, Body: []byte(`{}`)}),
		tx.PutMeta(ctx, "m", []byte(`1`)),
		tx.Notify(ctx, groups.Notice{User: u.ID}),
	)
}

// nothing says that everything left no trace.
func nothing(t *testing.T, s groups.Store) {
	t.Helper()
	ctx := t.Context()
	_, err := s.UserByName(ctx, "alice")
	isErr(t, "UserByName", err, groups.ErrNotFound)
	_, err = s.Group(ctx, "g")
	isErr(t, "Group", err, groups.ErrNotFound)
	_, err = s.Meta(ctx, "m")
	isErr(t, "Meta", err, groups.ErrNotFound)
	same(t, "events", must[[]groups.Event](t)(s.Events(ctx, groups.EventQuery{})), []groups.Event{})
	same(t, "outbox", must[[]groups.Work](t)(s.Outbox(ctx, 10)), []groups.Work{})
}

// together runs fn n times at once.
func together(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := fn(i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

var shared = map[string]func(*testing.T, func(*testing.T) groups.Store){
	"what was committed is there after a restart": func(t *testing.T, open func(*testing.T) groups.Store) {
		s := open(t)
		update(t, s, everything)
		epoch := must[int64](t)(s.Epoch(t.Context()))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t)
		u := must[*groups.User](t)(s.UserByName(t.Context(), "alice"))
		same(t, "GroupNames", must[[]string](t)(s.GroupNames(t.Context(), u.ID)), []string{"g"})
		same(t, "Epoch", must[int64](t)(s.Epoch(t.Context())), epoch)
		same(t, "outbox", len(must[[]groups.Work](t)(s.Outbox(t.Context(), 10))), 1)
	},
	"a single use holds on every store and after a restart, until it is swept": func(t *testing.T, open func(*testing.T) groups.Store) {
		a, b := open(t), open(t)
		once := func(s groups.Store, want bool) {
			t.Helper()
			update(t, s, func(ctx context.Context, tx groups.Tx) error {
				fresh, err := tx.Once(ctx, "statement", "id", noon)
				same(t, "fresh", fresh, want)
				return err
			})
		}
		once(a, true)
		once(b, false)
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
		a = open(t)
		once(a, false)
		update(t, a, func(ctx context.Context, tx groups.Tx) error { return tx.Sweep(ctx, noon.Add(-time.Second)) })
		once(a, false)
		update(t, a, func(ctx context.Context, tx groups.Tx) error { return tx.Sweep(ctx, noon) })
		once(a, true)
	},
	"a notice reaches the watchers of other stores within 2 s": func(t *testing.T, open func(*testing.T) groups.Store) {
		a, b := open(t), open(t)
		got := make(chan groups.Notice, 10)
		b.Watch(func(n groups.Notice) {
			if _, err := b.UserByName(t.Context(), "alice"); err == nil { // the write is seen, too
				got <- n
			}
		})
		want := groups.Notice{User: 7, Login: "l"}
		update(t, a, func(ctx context.Context, tx groups.Tx) error {
			return errors.Join(tx.CreateUser(ctx, &groups.User{Name: "alice"}), tx.Notify(ctx, want))
		})
		select {
		case n := <-got:
			same(t, "notice", n, want)
		case <-time.After(2 * time.Second):
			t.Fatal("nothing came")
		}
	},
	"an old notice is not told to a store that is opened later": func(t *testing.T, open func(*testing.T) groups.Store) {
		a := open(t)
		update(t, a, func(ctx context.Context, tx groups.Tx) error { return tx.Notify(ctx, groups.Notice{User: 1}) })
		b := open(t)
		got := make(chan groups.Notice, 10)
		b.Watch(func(n groups.Notice) { got <- n })
		update(t, a, func(ctx context.Context, tx groups.Tx) error { return tx.Notify(ctx, groups.Notice{User: 2}) })
		select {
		case n := <-got:
			same(t, "notice", n, groups.Notice{User: 2})
		case <-time.After(2 * time.Second):
			t.Fatal("nothing came")
		}
	},
	"two stores write at once and lose nothing": func(t *testing.T, open func(*testing.T) groups.Store) {
		a, b := open(t), open(t)
		id := addUsers(t, a, "0")[0]
		var fresh atomic.Int64
		together(t, 20, func(i int) error {
			s := a
			if i%2 == 1 {
				s = b
			}
			return s.Update(t.Context(), func(tx groups.Tx) error {
				if err := tx.LockUser(t.Context(), id); err != nil {
					return err
				}
				u, err := tx.User(t.Context(), id)
				if err != nil {
					return err
				}
				var n int
				if _, err := fmt.Sscan(u.Name, &n); err != nil {
					return err
				}
				u.Name = fmt.Sprint(n + 1)
				if first, err := tx.Once(t.Context(), "k", "id", noon); err != nil {
					return err
				} else if first {
					fresh.Add(1)
				}
				return tx.UpdateUser(t.Context(), u)
			})
		})
		same(t, "updates", must[*groups.User](t)(b.User(t.Context(), id)).Name, "20")
		same(t, "fresh", fresh.Load(), int64(1))
	},
}
