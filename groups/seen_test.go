package groups_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

func seenText(in groups.Seen[groups.SeenValue]) string {
	var out []string
	for _, v := range in.Items {
		out = append(out, fmt.Sprintf("%s=%d", v.Value, v.People))
	}
	return strings.Join(out, " ")
}

func TestSeenValuesCountPeople(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.sync(identity(t, "s", "1", 0, groupsOf("alice", "eng", "Ops")))
	h.sync(identity(t, "s", "2", 0, groupsOf("bob", "eng")))
	h.sync(identity(t, "t", "3", 0, groupsOf("carol", "eng", "far")))
	two := groups.IdentityRecord{User: h.user("alice"), Source: "t", Subject: "4", Claims: identity(t, "t", "4", 0, groupsOf("alice", "eng", "own")).Claims, IssuedAt: h.now(), Seen: h.now()}
	if err := h.store.Update(t.Context(), func(tx groups.Tx) error { return tx.PutIdentity(t.Context(), &two) }); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct{ source, claim, query, want string }{
		{"", "groups", "", "eng=3 Ops=1 far=1 own=1"},
		{"s", "groups", "", "eng=2 Ops=1"},
		{"t", "groups", "", "eng=2 far=1 own=1"},
		{"s", "groups", "oPS", "Ops=1"},
		{"s", "groups", "nothing", ""},
		{"s", "roles", "", ""},
		{"nobody", "groups", "", ""},
	} {
		got := h.dir.SeenValues(t.Context(), q.source, q.claim, q.query, 10)
		if seenText(got) != q.want || got.AsOf.IsZero() || !got.Complete || got.More {
			t.Errorf("%+v: %s, %+v", q, seenText(got), got)
		}
	}
	if got := h.dir.SeenValues(t.Context(), "", "groups", "", 1); seenText(got) != "eng=3" || !got.More {
		t.Errorf("limit 1: %+v", got)
	}
	var names []string
	for _, c := range h.dir.SeenClaims(t.Context(), "s", 10).Items {
		names = append(names, fmt.Sprintf("%s=%d %v", c.Claim, c.People, c.Usual))
	}
	if want := []string{"groups=2 true", "user=2 false"}; !slices.Equal(names, want) {
		t.Errorf("claims %q, want %q", names, want)
	}
}

// What was read stays for a minute; then it is read again beside the one who
// asks, and nobody waits.
func TestSeenIsReadAgainAfterAMinute(t *testing.T) {
	t.Parallel()
	h, store := spied(t)
	h.sync(identity(t, "s", "1", 0, groupsOf("alice", "eng")))
	var reads atomic.Int32
	store.on = func(step string) error {
		if step == "each identity" {
			reads.Add(1)
		}
		return nil
	}
	first := h.dir.SeenValues(t.Context(), "", "groups", "", 10)
	h.sync(identity(t, "s", "2", 0, groupsOf("bob", "eng")))
	h.pass(time.Minute)
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); { // a read beside it would be seen by then
		if got := h.dir.SeenValues(t.Context(), "", "groups", "", 10); seenText(got) != "eng=1" || !got.AsOf.Equal(first.AsOf) {
			t.Fatalf("within the minute: %+v", got)
		}
	}
	h.pass(time.Second)
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := h.dir.SeenValues(t.Context(), "", "groups", "", 10)
		if seenText(got) == "eng=2" && got.AsOf.Equal(h.now()) {
			if n := reads.Load(); n != 2 {
				t.Errorf("everybody was read %d times, want 2", n)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after it: %+v", got)
		}
		time.Sleep(time.Millisecond)
	}
}

// A claim that everybody has of their own makes room for values that several
// people share, and says that it is not all.
func TestSeenIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	h := newHouse(t)
	put(t, h, 45_000, func(i int) string {
		return fmt.Sprintf(`{"sub":"s%d","groups":["shared","half-%d"],"long":[%q]}`, i, i%2, strings.Repeat("x", 2000))
	})
	waitSeen(t, h)
	if got := h.dir.SeenValues(t.Context(), "", "sub", "", 500); got.Complete || !got.More {
		t.Errorf("sub: complete %v, %d", got.Complete, len(got.Items))
	}
	if n := len(h.dir.SeenValues(t.Context(), "", "sub", "", 1_000_000).Items); n == 0 || n > 20_000 {
		t.Errorf("%d values of sub are kept", n)
	}
	if got := h.dir.SeenValues(t.Context(), "", "groups", "", 10); seenText(got) != "shared=45000 half-0=22500 half-1=22500" || !got.Complete {
		t.Errorf("groups: %s %v", seenText(got), got.Complete)
	}
	if got := h.dir.SeenValues(t.Context(), "", "long", "", 10); len(got.Items) != 0 || got.Complete {
		t.Errorf("long: %d, %v", len(got.Items), got.Complete)
	}
}

// waitSeen waits for the first summary.
func waitSeen(t *testing.T, h *house) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for h.dir.SeenValues(t.Context(), "", "groups", "", 1).AsOf.IsZero() {
		if time.Now().After(deadline) {
			t.Fatal("no summary")
		}
	}
}

// put makes n people of source s who said that last.
func put(t *testing.T, h *house, n int, statement func(int) string) {
	t.Helper()
	err := h.store.Update(t.Context(), func(tx groups.Tx) error {
		for i := range n {
			u := groups.User{Name: fmt.Sprintf("person-%06d", i), Created: h.now()}
			if err := tx.CreateUser(t.Context(), &u); err != nil {
				return err
			}
			c, err := claims.Parse([]byte(statement(i)))
			if err != nil {
				return err
			}
			rec := groups.IdentityRecord{User: u.ID, Source: "s", Subject: fmt.Sprint("subject-", i), Claims: c, IssuedAt: h.now(), Seen: h.now()}
			if err := tx.PutIdentity(t.Context(), &rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMatchRuleSaysWhom(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.sync(identity(t, "s", "1", 0, `{"user":"alice","groups":["a,b","CN=Eng,DC=x"],"type":["staff"]}`))
	h.sync(identity(t, "s", "2", 0, groupsOf("bob", "b", "eng-west")))
	h.sync(identity(t, "t", "3", 0, groupsOf("carol", "b")))
	if err := h.dir.Gone(t.Context(), "t", "3", "r"); err != nil {
		t.Fatal(err)
	}
	h.sync(identity(t, "t", "4", 0, groupsOf("dave", "b", "c")))
	h.sync(identity(t, "t", "5", 0, `{"user":"erin","groups":["<q\"\\>\u0007\u2028é"]}`))
	for _, c := range []struct {
		rule groups.Rule
		want string
	}{
		{groups.Rule{Claim: "groups", Value: "b", Group: "x"}, "bob:b:x dave:b:x of 4"},
		{groups.Rule{Claim: "groups", Value: "b"}, "bob:b: dave:b: of 4"},
		{groups.Rule{Source: "s", Claim: "groups", Value: "b", Group: "x"}, "bob:b:x of 2"},
		{groups.Rule{Source: "s", Claim: "groups", Value: "b", Split: ",", Group: "x"}, "alice:b:x bob:b:x of 2"},
		{groups.Rule{Claim: "groups", DN: "cn=eng, dc=X", Group: "x"}, "alice:CN=Eng,DC=x:x of 4"},
		{groups.Rule{Claim: "groups", Regexp: "eng-(.*)", Group: "at-$1"}, "bob:eng-west:at-west of 4"},
		{groups.Rule{Source: "t", Claim: "groups", Any: true}, "dave:b:b erin:<q\"\\>\a\u2028é:<q\"\\>\a\u2028é of 2"},
		{groups.Rule{Claim: "groups", Any: true, When: `"staff" in claims.type`}, "alice:CN=Eng,DC=x:CN=Eng,DC=x of 4"},
		{groups.Rule{Claim: "groups", Value: "<q\"\\>\a\u2028é", Group: "x"}, "erin:<q\"\\>\a\u2028é:x of 4"},
		{groups.Rule{Claim: "groups", Value: "none", Group: "x"}, "of 4"},
	} {
		m, err := h.dir.MatchRule(t.Context(), c.rule, 10, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range m.Items {
			got = append(got, i.User+":"+i.Value+":"+i.Group)
		}
		if text := strings.Join(append(got, fmt.Sprint("of ", m.Known)), " "); text != c.want || m.People != len(m.Items) || !m.Complete {
			t.Errorf("%s: %s, want %s (%+v)", c.rule.Describe(), text, c.want, m)
		}
	}
	if m, err := h.dir.MatchRule(t.Context(), groups.Rule{Claim: "groups", Value: "b", Group: "x"}, 1, time.Minute); err != nil || m.People != 2 || len(m.Items) != 1 {
		t.Errorf("the first one: %+v, %v", m, err)
	}
	for key, r := range map[string]groups.Rule{
		"source": {Source: "nobody", Claim: "groups", Value: "b"}, "claim": {Value: "b"}, "regexp": {Claim: "g", Regexp: "("},
		"group": {Claim: "g", Regexp: "a", Group: "$1"}, "when": {Claim: "g", Value: "b", When: "claims."},
	} {
		_, err := h.dir.MatchRule(t.Context(), r, 10, time.Minute)
		if err == nil || !strings.Contains(err.Error(), "."+key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// Out of time it answers what it has, and says so.
func TestMatchRuleEndsInTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	put(t, h, 1000, func(int) string { return `{"groups":["eng"]}` })
	rule := groups.Rule{Claim: "groups", Value: "eng"}
	if m, err := h.dir.MatchRule(t.Context(), rule, 3, time.Minute); err != nil || m.People != 1000 || m.Known != 1000 || !m.Complete {
		t.Errorf("control: %+v, %v", m, err)
	}
	if m, err := h.dir.MatchRule(t.Context(), rule, 3, 0); err != nil || m.Complete || m.People == 0 || m.People >= 1000 || len(m.Items) != 3 {
		t.Errorf("without time: %+v, %v", m, err)
	}
}
