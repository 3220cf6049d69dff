package groups_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/groupgate/groupgate/groups"
)

// OI-30: an e-mail address names nobody. Who states somebody else's, from the
// same source or another, gets nothing of theirs; who gets a new one stays who
// they are.
func TestEMailIsNoIdentity(t *testing.T) {
	t.Parallel()
	for what, edit := range map[string]func(*groups.Settings){"apart": func(*groups.Settings) {}, "linked": linked} {
		h := newHouse(t, edit)
		say := func(user, email string, names ...string) string {
			return fmt.Sprintf(`{"user":%q,"email":%q,"email_verified":true,"groups":[%s]}`, user, email, quoted(names))
		}
		alice := h.mustLogin("s", "1", 0, say("alice", "alice@example.com", "admins")).User.ID
		for i, source := range []string{"s", "t"} {
			out := h.mustLogin(source, "666", 0, say(fmt.Sprintf("eve%d", i), "alice@example.com", "guests"))
			if out.User.ID == alice || !out.Created {
				t.Errorf("%s: source %s made the address an identity: %+v", what, source, out.User)
			}
			h.want(out.User.ID, "guests:"+source)
		}
		h.want(alice, "admins:s")
		if out := h.mustLogin("s", "1", 1, say("alice", "alice@elsewhere.example", "admins")); out.User.ID != alice {
			t.Errorf("%s: a new address is a new person", what)
		}
	}
}

// PX-20, GS-21: a person is found by source and subject, two texts that are
// compared byte for byte and never run together.
func TestIdentitiesNeverRunTogether(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	pairs := [][2]string{
		{"s", "1"}, {"t", "1"}, {"s", "11"}, {"s", "t1"}, {"s", "t:1"}, {"t", "s:1"}, {"s", "s1"}, {"s", "s\x1f1"}, {"s", `t","1`}, {"s", "t/1"},
		{"s", "Abc"}, {"s", "abc"}, {"s", "ABC"}, {"s", "abc "}, {"s", " abc"}, {"s", "abc\u200b"}, {"s", "\u00e9"}, {"s", "e\u0301"}, {"s", "\u212a"}, {"s", "k"}, {"s", "K"},
		{"s", "1.0"}, {"s", "01"}, {"s", "1%"}, {"s", "_"}, {"s", "%"},
	}
	ids := map[groups.UserID]int{}
	for i, p := range pairs {
		out := h.mustLogin(p[0], p[1], 0, groupsOf(fmt.Sprintf("user%d", i), fmt.Sprintf("only%d", i)))
		if before, known := ids[out.User.ID]; known || !out.Created {
			t.Errorf("%q is %q as well", p, pairs[before])
		}
		ids[out.User.ID] = i
	}
	for i, p := range pairs { // and each is found again
		out := h.mustLogin(p[0], p[1], 1, groupsOf(fmt.Sprintf("user%d", i), fmt.Sprintf("only%d", i)))
		if ids[out.User.ID] != i || out.Created {
			t.Errorf("%q came back as %q", p, pairs[ids[out.User.ID]])
		}
		h.want(out.User.ID, fmt.Sprintf("only%d:%s", i, p[0]))
	}
}

// GS-14: what the guard counts cannot be overtaken: of eight people who leave
// at the same moment as many go as may, not one more.
func TestGuardHoldsAgainstParallelSyncs(t *testing.T) {
	t.Parallel()
	for range 5 {
		h := newHouse(t, guarded(25))
		ids := h.people(8, "eng")
		var wg sync.WaitGroup
		for i := range ids {
			in := h.signIn(identity(t, "s", fmt.Sprint(i), 1, groupsOf(fmt.Sprintf("user%d", i))))
			wg.Go(func() {
				if _, err := h.dir.SignIn(t.Context(), in); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if left := 8 - h.members("eng"); left != 2 || !h.tripped() {
			t.Errorf("%d of 8 left, tripped %v; two may", left, h.tripped())
		}
	}
}

// GV-11: a rule whose result is the name of a group that is kept by hand
// changes nothing in it, in any spelling a template can give.
func TestRulesDoNotReachGroupsKeptByHand(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *groups.Settings) {
		s.Groups = []groups.GroupConfig{{Name: "admins", Control: groups.Manual}}
		s.Rules = []groups.Rule{
			{ID: "a", Source: "s", Claim: "groups", Any: true},
			{ID: "b", Source: "s", Claim: "groups", Value: "boss", Group: "admins"},
			{ID: "c", Source: "s", Claim: "groups", Regexp: "(ad)-(mins)", Group: "$1$2"},
		}
	})
	keeper := h.mustLogin("s", "1", 0, groupsOf("keeper")).User.ID
	if err := h.dir.AddMember(t.Context(), "admins", keeper, "root"); err != nil {
		t.Fatal(err)
	}
	eve := h.mustLogin("s", "2", 0, groupsOf("eve", "admins", "boss", "ad-mins", "eng")).User.ID
	h.want(eve, "ad-mins:s boss:s eng:s")
	h.mustLogin("s", "1", 1, groupsOf("keeper")) // present and empty
	h.want(keeper, "admins:by root")
}
