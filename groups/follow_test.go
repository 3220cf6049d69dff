package groups_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
)

// beside is another replica: a directory with a store of its own on the same
// database.
func (h *house) beside(edit ...func(*groups.Settings)) *groups.Directory {
	h.t.Helper()
	store, err := sqlstore.OpenSQLite(h.t.Context(), h.path, sqlstore.Options{PollInterval: 20 * time.Millisecond, Now: h.now})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { store.Close() })
	d := groups.NewDirectory(groups.Options{Store: store, Now: h.now})
	if err := d.Configure(h.t.Context(), settings(edit...)); err != nil {
		h.t.Fatal(err)
	}
	return d
}

// TestReplicaDecidesByTheStoresRules: from the moment a rule was changed at one
// replica, nobody is signed in by the old one at another, notice or no notice.
func TestReplicaDecidesByTheStoresRules(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored)
	h.putRule(valueRule("r1", "s", "x", "old"))
	other := h.beside(stored)
	signIn := func(subject, user string) groups.UserID {
		t.Helper()
		out, err := other.SignIn(t.Context(), h.signIn(identity(t, "s", subject, 0, groupsOf(user, "x"))))
		if err != nil {
			t.Fatal(err)
		}
		return out.User.ID
	}
	alice := signIn("1", "alice")
	h.want(alice, "old:s")
	h.putRule(valueRule("r1", "s", "x", "new"))
	h.want(alice, "new:s") // evaluated by the replica that changed it
	h.want(signIn("2", "bob"), "new:s")
	if got := len(other.Rules()); got != 1 {
		t.Errorf("%d rules at the other replica", got)
	}
	// And without anybody signing in.
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { other.Run(ctx) })
	defer func() { stop(); work.Wait() }()
	h.putRule(valueRule("r2", "s", "y", "more"))
	for end := time.Now().Add(2 * time.Second); len(other.Rules()) != 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the other replica has %v", other.Rules())
		}
	}
}

// TestReplicasChangeRulesAtOnce: rules are changed at two replicas while people
// sign in at both. In the end everybody stands by the rules of the store.
func TestReplicasChangeRulesAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored, guarded(100))
	h.putRule(valueRule("r1", "s", "x", "g0"))
	replicas := []*groups.Directory{h.dir, h.beside(stored, guarded(100))}
	var work sync.WaitGroup
	for i, d := range replicas {
		work.Go(func() {
			for n := range 6 {
				_, err := d.PutRule(t.Context(), valueRule("r1", "s", "x", fmt.Sprintf("g%d%d", i, n)), "root")
				if err != nil {
					t.Error(err)
				}
			}
		})
		work.Go(func() {
			for n := range 12 {
				in := h.signIn(identity(t, "s", fmt.Sprintf("%d-%d", i, n), 0, groupsOf(fmt.Sprintf("user%d%d", i, n), "x")))
				if _, err := d.SignIn(t.Context(), in); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	h.pass(groups.LeftOver + time.Second)
	for _, d := range replicas {
		if err := d.TakeOver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := h.store.Rules(t.Context())
	if err != nil || len(stored) != 1 {
		t.Fatalf("%v, %v", stored, err)
	}
	for i := range replicas {
		for n := range 12 {
			h.want(h.user(fmt.Sprintf("user%d%d", i, n)), stored[0].Group+":s")
		}
	}
}

// TestEvaluationOfADeadReplica: a replica that changed a rule dies before it
// has evaluated anybody; another does it once the first has been silent long
// enough, and not before.
func TestEvaluationOfADeadReplica(t *testing.T) {
	t.Parallel()
	h, s := spied(t, stored)
	h.putRule(valueRule("r1", "s", "x", "old"))
	alice := h.mustLogin("s", "1", 0, groupsOf("alice", "x")).User.ID
	other := h.beside(stored)
	s.on = func(step string) error {
		if step == "each identity" {
			return errBroken
		}
		return nil
	}
	if _, err := h.dir.PutRule(t.Context(), valueRule("r1", "s", "x", "new"), "root"); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	for _, step := range []struct {
		pass time.Duration
		want string
	}{{groups.LeftOver - time.Second, "old:s"}, {2 * time.Second, "new:s"}} {
		h.pass(step.pass)
		if err := other.TakeOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.want(alice, step.want)
	}
}

// TestRuleDeletedAsItWas: a rule that somebody changed at another replica is not
// deleted by who saw it as it was before.
func TestRuleDeletedAsItWas(t *testing.T) {
	t.Parallel()
	h := newHouse(t, stored)
	h.putRule(valueRule("r1", "s", "x", "old"))
	other := h.beside(stored)
	seen := other.Rules()[0].Version
	h.putRule(valueRule("r1", "s", "x", "new"))
	h.wantErr(other.DeleteRule(t.Context(), "r1", seen, "root"), groups.ErrConflict)
	if got := h.dir.Rules(); len(got) != 1 || got[0].Group != "new" {
		t.Errorf("rules %v", got)
	}
	if err := other.DeleteRule(t.Context(), "r1", h.dir.Rules()[0].Version, "root"); err != nil {
		t.Error(err)
	}
}
