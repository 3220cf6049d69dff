package claims_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func asks(parts ...string) func(claimstest.SearchQuery) bool {
	return func(q claimstest.SearchQuery) bool {
		text := fmt.Sprintf("base=%s scope=%d filter=%s attributes=%s", q.Base, q.Scope, q.Filter, strings.Join(q.Attributes, ","))
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
	}
}

// Whatever step ends before its end: nobody loses a group by it, and nobody is
// kept out.
func TestPartsAreNeverTakenForAll(t *testing.T) { // LD-09, GS-05
	t.Parallel()
	const chain = "1.2.840.113556.1.4.1941"
	for name, c := range map[string]struct {
		ad    bool
		cfg   func(*claims.LDAPConfig)
		at    func(claimstest.SearchQuery) bool
		words string
	}{
		"in-chain search":     {ad: true, cfg: nested, at: asks(chain), words: "nested groups (in-chain rule)"},
		"primary group":       {ad: true, cfg: nested, at: asks("(objectSid="), words: "the primary group"},
		"group above":         {cfg: nested, at: asks("scope=0", "base=cn=a,"), words: "nested groups"},
		"next range":          {ad: true, at: asks("range="), words: "the groups of the person"},
		"next range, above":   {cfg: nested, at: asks("base=cn=a,", "range="), words: "nested groups"},
		"group search":        {cfg: searching(claims.DefaultGroupSearch), at: asks("uniqueMember", "uid=alice"), words: "the group search"},
		"group search, above": {cfg: func(c *claims.LDAPConfig) { nested(c); searching(claims.DefaultGroupSearch)(c) }, at: asks("uniqueMember", "cn=a,"), words: "the group search"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := []func(*claims.LDAPConfig){}
			if c.cfg != nil {
				change = append(change, c.cfg)
			}
			r := newGroupsRig(t, claimstest.DirectoryOptions{AD: c.ad}, change...)
			r.member([2]string{"alice", "a"}, [2]string{"alice", "b"}, [2]string{"alice", "c"}, [2]string{"a", "x"}, [2]string{"a", "y"}, [2]string{"a", "z"})
			ranges := func(k *claimstest.DirectoryKnobs) { k.RangeStep = 2 }
			r.d.Lie(ranges)
			honest := r.find(r.src)
			if len(honest.Unknown) > 0 || len(honest.Groups) < 3 {
				t.Fatalf("without a fault: %q, %v", honest.Unknown, honest.Groups)
			}
			for _, result := range []claimstest.Result{{Code: 3, Entries: -1}, {Code: 4, Entries: 1}, {Code: 11}, {Code: 10}, {Code: 51}, {Code: 1}} {
				if name == "in-chain search" && !slices.Contains([]int{3, 4, 11}, result.Code) {
					continue // the walk takes its place, see below
				}
				if name == "group above" && result.Code == 10 {
					continue // it is elsewhere, see below
				}
				hit := false
				r.d.Lie(func(k *claimstest.DirectoryKnobs) {
					ranges(k)
					k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
						if !c.at(q) {
							return nil
						}
						hit = true
						return &result
					}
				})
				f := r.unknown(r.src, c.words)
				if !hit {
					t.Fatal("nothing was asked that fits")
				}
				if strings.Contains(strings.Join(f.Unknown, ""), "part") != slices.Contains([]int{3, 4, 11}, result.Code) {
					t.Errorf("result %d: %q", result.Code, f.Unknown)
				}
			}
			r.d.Lie(func(k *claimstest.DirectoryKnobs) { *k = claimstest.DirectoryKnobs{RangeStep: 2} })
			if again := r.find(r.src); !slices.EqualFunc(again.Groups, honest.Groups, sameFound) || len(again.Unknown) > 0 {
				t.Errorf("afterwards: %q %v", again.Unknown, again.Groups)
			}
		})
	}
}

func sameFound(a, b claims.FoundGroup) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func TestServerThatRefusesTheInChainRuleIsWalked(t *testing.T) { // LD-09
	t.Parallel()
	for _, code := range []int{1, 12, 18, 53} {
		r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true}, nested)
		r.member([2]string{"alice", "a"}, [2]string{"a", "b"}, [2]string{"b", "c"})
		r.d.Lie(func(k *claimstest.DirectoryKnobs) {
			k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
				if asks(".1941")(q) {
					return &claimstest.Result{Code: code}
				}
				return nil
			}
		})
		f := r.complete(r.src, append(r.dns("a", "b", "c"), "CN=Domain Users,CN=Users,"+r.d.BaseDN)...)
		if w := r.ways(f); w["c"] != "nested a>b" {
			t.Error(w)
		}
	}
}

// The in-chain rule knows one answer more than a walk: what is behind a group
// that the service account may not read.
func TestInChainRuleFindsBehindWhatIsHidden(t *testing.T) { // LD-09
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true}, nested)
	r.member([2]string{"alice", "a"}, [2]string{"a", "hidden"}, [2]string{"hidden", "top"}, [2]string{"top", "over"})
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.Rewrite = func(q claimstest.SearchQuery, found []claimstest.Found) []claimstest.Found {
			return slices.DeleteFunc(found, func(e claimstest.Found) bool {
				// What is over the top is not below the base, and read for itself.
				return strings.HasPrefix(e.DN, "cn=hidden,") || asks(".1941")(q) && strings.HasPrefix(e.DN, "cn=over,")
			})
		}
	})
	f := r.complete(r.src, append(r.dns("a", "hidden", "top", "over"), "CN=Domain Users,CN=Users,"+r.d.BaseDN)...)
	if w := r.ways(f); w["hidden"] != "nested a" || w["top"] != "nested" || w["over"] != "nested" {
		t.Error(w)
	}
}

func TestPrimaryGroupCountsWithWhatHoldsIt(t *testing.T) { // LD-09
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true}, nested)
	users := "CN=Domain Users,CN=Users," + r.d.BaseDN
	r.d.Put(r.d.Group("staff", users), r.d.Group("everything", r.d.GroupDN("staff")), r.d.Group("a", r.alice))
	want := append(r.dns("a", "staff", "everything"), users)
	f := r.complete(r.src, want...)
	if w := r.ways(f); w["Domain Users"] != "primary" || w["everything"] != "nested Domain Users>staff" || w["a"] != "direct" {
		t.Error(w)
	}
	// The same where people and groups are below different names.
	r.d.Put(r.d.Group("apart", r.alice))
	people := r.source(nested, func(c *claims.LDAPConfig) { c.BaseDN = "CN=Users," + r.d.BaseDN })
	r.complete(people, append(want, r.d.GroupDN("apart"))...)

	// And where the primary group is not below the base.
	apart := newGroupsRig(t, claimstest.DirectoryOptions{AD: true})
	apart.d.Change(apart.alice, func(e *claimstest.Entry) { e.DN = "CN=alice,OU=Staff," + apart.d.BaseDN })
	apart.complete(apart.source(nested, func(c *claims.LDAPConfig) { c.BaseDN = "OU=Staff," + apart.d.BaseDN }), users)

	flat := r.source()
	r.complete(flat, r.dns("a", "apart")...) // not without nested_groups

	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["primaryGroupID"] = []string{"4711"} })
	r.unknown(r.src, "0 groups have its objectSid")
	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["primaryGroupID"] = []string{"many"} })
	r.unknown(r.src, "primaryGroupID is no number")
	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["primaryGroupID"] = nil })
	r.complete(r.src, r.dns("a", "apart")...)
}

func TestRangesAreReadToTheirEnd(t *testing.T) { // LD-09
	t.Parallel()
	var want []string
	r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true})
	for i := range 37 {
		name := fmt.Sprintf("g%02d", i)
		r.d.Put(r.d.Group(name, r.alice))
		want = append(want, r.d.GroupDN(name))
	}
	for _, step := range []int{1, 2, 36, 37, 38} {
		r.d.Lie(func(k *claimstest.DirectoryKnobs) { *k = claimstest.DirectoryKnobs{RangeStep: step} })
		r.complete(r.src, want...)
	}
	for _, lie := range []string{"endless", "back", "hole", "silent"} {
		r.d.Lie(func(k *claimstest.DirectoryKnobs) { *k = claimstest.DirectoryKnobs{RangeStep: 5, RangeLie: lie} })
		r.unknown(r.src, "a part of the groups of the person only")
	}
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		*k = claimstest.DirectoryKnobs{RangeStep: 5, Rewrite: func(q claimstest.SearchQuery, found []claimstest.Found) []claimstest.Found {
			if asks("range=")(q) {
				for i := range found {
					found[i].DN = "CN=somebody else,CN=Users," + r.d.BaseDN
				}
			}
			return found
		}}
	})
	r.unknown(r.src, "a part of the groups of the person only")
}

// A group of a page too many, and one whose memberOf comes in ranges.
func TestPagesAndRangesAbove(t *testing.T) { // LD-09
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{AD: true}, nested)
	var all []claimstest.Entry
	want := append(r.dns("a"), "CN=Domain Users,CN=Users,"+r.d.BaseDN)
	for i := range 1_600 { // pages of 1,000, ranges of 1,500
		name := fmt.Sprintf("g%04d", i)
		all = append(all, r.d.Group(name, r.d.GroupDN("a")))
		want = append(want, r.d.GroupDN(name))
	}
	r.d.Put(append(all, r.d.Group("a", r.alice))...)
	r.complete(r.src, want...)
	r.d.Lie(func(k *claimstest.DirectoryKnobs) { k.PagesEndless = true })
	r.unknown(r.src, "a part of nested groups (in-chain rule) only")
}

func TestGroupThatIsAnotherIsUnknownAndOneElsewhereEndsAPath(t *testing.T) { // LD-07
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{}, nested)
	r.member([2]string{"alice", "a"}, [2]string{"a", "b"})
	r.complete(r.src, r.dns("a", "b")...)
	above := asks("scope=0", "base=cn=a,")
	for name, rewrite := range map[string]func([]claimstest.Found) []claimstest.Found{
		"another": func(f []claimstest.Found) []claimstest.Found { f[0].DN = r.d.GroupDN("other"); return f },
		"twice":   func(f []claimstest.Found) []claimstest.Found { return append(f, f[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			r.d.Lie(func(k *claimstest.DirectoryKnobs) {
				k.Rewrite = func(q claimstest.SearchQuery, found []claimstest.Found) []claimstest.Found {
					if above(q) {
						return rewrite(found)
					}
					return found
				}
			})
			r.unknown(r.src, "the directory failed when it was asked for nested groups")
		})
	}
	r.d.Honest()
	r.d.Remove(r.d.GroupDN("a"))
	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["memberOf"] = r.dns("a") })
	r.complete(r.src, r.dns("a")...)
	r.d.Put(r.d.Group("a"))
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.Rewrite = func(q claimstest.SearchQuery, found []claimstest.Found) []claimstest.Found {
			if above(q) {
				return nil
			}
			return found
		}
		k.Continuations = []string{"ldap://elsewhere.example.com/"}
	})
	r.complete(r.src, r.dns("a")...)
	r.d.Honest()
	r.d.Put(r.d.Group("b", r.d.GroupDN("a")))
	r.complete(r.src, r.dns("a", "b")...)
	r.d.Lie(func(k *claimstest.DirectoryKnobs) {
		k.SearchResult = func(q claimstest.SearchQuery) *claimstest.Result {
			if above(q) {
				return &claimstest.Result{Code: ldap.LDAPResultReferral}
			}
			return nil
		}
	})
	r.complete(r.src, r.dns("a")...)
}

func TestGroupSearchStatesAnAttributeOfTheGroup(t *testing.T) {
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{NoMemberOf: true})
	posix := func(name, in string, members ...string) claimstest.Entry {
		return claimstest.Entry{DN: "cn=" + name + ",ou=" + in + "," + r.d.BaseDN, Attributes: map[string][]string{
			"objectClass": {"posixGroup"}, "memberUid": members, "description": {"Team " + name},
		}}
	}
	r.d.Put(posix("a", "groups", "alice", "bob"), posix("b", "groups", "bob"), posix("c", "other", "alice"))
	byUID := claims.GroupSearch{Filter: "(&(objectClass=posixGroup)(memberUid={uid}))", Claim: "teams", Value: "description"}
	src := r.source(searching(byUID))
	if res := r.login(src, "teams"); res.State != claims.Complete || !slices.Equal(res.Values, []string{"Team a", "Team c"}) {
		t.Errorf("%+v", res)
	}
	if res := r.login(src, "memberOf"); res.State != claims.Absent {
		t.Errorf("memberOf is %+v", res)
	}
	byUID.BaseDN = "ou=other," + r.d.BaseDN
	if res := r.login(r.source(searching(byUID)), "teams"); !slices.Equal(res.Values, []string{"Team c"}) {
		t.Errorf("below another base: %+v", res)
	}
	// To have found nothing is a statement, unlike an attribute that is not there.
	byUID.BaseDN = "ou=people," + r.d.BaseDN
	if res := r.login(r.source(searching(byUID)), "teams"); res.State != claims.Complete || len(res.Values) > 0 {
		t.Errorf("nothing found: %+v", res)
	}
	// Nesting by {uid} has no next step: a group has no uid.
	if f := r.find(r.source(searching(claims.GroupSearch{Filter: byUID.Filter, Claim: "memberOf", Value: "cn"}), nested)); len(f.Groups) != 2 || len(f.Unknown) > 0 {
		t.Errorf("nested: %v %q", f.Groups, f.Unknown)
	}
	// Two groups with one value are one, and the nearer one tells how.
	r.d.Put(claimstest.Entry{DN: "cn=a,ou=other," + r.d.BaseDN, Attributes: map[string][]string{
		"objectClass": {"groupOfNames"}, "member": {"cn=a,ou=groups," + r.d.BaseDN},
	}})
	both := claims.GroupSearch{Filter: "(|(member={dn})(memberUid={uid}))", Claim: "memberOf", Value: "cn"}
	var how []string
	for _, g := range r.find(r.source(searching(both), nested)).Groups {
		how = append(how, g.Value+" "+string(g.How))
	}
	if !slices.Equal(how, []string{"a direct", "c direct"}) {
		t.Errorf("two groups of one name: %q", how)
	}
	r.d.Change("cn=c,ou=other,"+r.d.BaseDN, func(e *claimstest.Entry) { delete(e.Attributes, "description") })
	if f := r.find(src); !slices.Contains(f.Unknown, "teams: a group has no attribute description") {
		t.Errorf("%q", f.Unknown)
	}
}

// graph is a random one: alice and groups, who is in what.
type graph struct {
	n  int
	in map[int][]int // 0 is alice
}

// closure is what somebody is in, the plainest way: by which number of steps.
func (g graph) closure() map[int]int {
	far := map[int]int{}
	at := []int{0}
	for steps := 1; len(at) > 0; steps++ {
		var next []int
		for _, child := range at {
			for _, parent := range g.in[child] {
				if far[parent] == 0 {
					far[parent] = steps
					next = append(next, parent)
				}
			}
		}
		at = next
	}
	return far
}

func drawGraph(t *rapid.T) graph {
	g := graph{n: rapid.IntRange(1, 12).Draw(t, "groups"), in: map[int][]int{}}
	for range rapid.IntRange(0, 30).Draw(t, "edges") {
		child, parent := rapid.IntRange(0, g.n).Draw(t, "child"), rapid.IntRange(1, g.n).Draw(t, "parent")
		if !slices.Contains(g.in[child], parent) {
			g.in[child] = append(g.in[child], parent)
		}
	}
	return g
}

// In every graph the ways of finding groups agree with each other and with the
// plainest closure, and every path is one that is there and a shortest.
func TestWaysAgree(t *testing.T) { // LD-08
	t.Parallel()
	type way struct {
		*groupsRig
		src *claims.LDAP
	}
	var ways []way
	for _, name := range []string{"in-chain", "in-chain, silent", "walk", "group search"} {
		k := kinds[name]
		change := []func(*claims.LDAPConfig){nested}
		if k.cfg != nil {
			change = append(change, k.cfg)
		}
		r := newGroupsRig(t, k.o, change...)
		if k.lie != nil {
			r.d.Lie(k.lie)
		}
		if k.o.AD {
			r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["primaryGroupID"] = nil })
		}
		ways = append(ways, way{r, r.src})
	}
	name := func(i int) string { return fmt.Sprintf("g%02d", i) }
	rapid.Check(t, func(rt *rapid.T) {
		g := drawGraph(rt)
		want := g.closure()
		var first []claims.FoundGroup
		for _, w := range ways {
			members := map[int][]string{}
			for child, parents := range g.in {
				dn := w.d.GroupDN(name(child))
				if child == 0 {
					dn = w.alice
				}
				for _, p := range parents {
					members[p] = append(members[p], dn)
				}
			}
			for i := 1; i <= 12; i++ {
				w.d.Remove(w.d.GroupDN(name(i)))
			}
			for i := 1; i <= g.n; i++ {
				w.d.Put(w.d.Group(name(i), members[i]...))
			}
			f, err := w.src.Find(t.Context(), "alice")
			if err != nil || len(f.Unknown) > 0 || len(f.Groups) != len(want) {
				rt.Fatalf("%v %q: %v, want %v", err, f.Unknown, f.Groups, want)
			}
			for _, group := range f.Groups {
				checkPath(rt, g, want, name, group)
			}
			id, _, err := w.src.CheckPassword(t.Context(), claims.Credentials{User: "alice", Password: "the password of alice"})
			if err != nil || cmp.Diff(f.Identity.Claims.Resolve("memberOf"), id.Claims.Resolve("memberOf")) != "" {
				rt.Fatalf("a login states something else: %v", err)
			}
			if first == nil {
				first = f.Groups
			} else if d := cmp.Diff(first, f.Groups); d != "" {
				rt.Fatal(d)
			}
		}
	})
}

func checkPath(t *rapid.T, g graph, want map[int]int, name func(int) string, group claims.FoundGroup) {
	number := func(dn string) int {
		for i := 1; i <= g.n; i++ {
			if nameIn(dn) == name(i) {
				return i
			}
		}
		t.Fatalf("%s is nowhere", dn)
		return 0
	}
	at, how := 0, claims.Direct
	if len(group.Through) > 0 {
		how = claims.Nested
	}
	for _, dn := range append(slices.Clone(group.Through), group.Value) {
		next := number(dn)
		if !slices.Contains(g.in[at], next) {
			t.Fatalf("%v: %d is not in %d", group, at, next)
		}
		at = next
	}
	if len(group.Through)+1 != want[at] || group.How != how {
		t.Fatalf("%v: a shortest path has %d steps", group, want[at])
	}
}

// A directory that stops answering in the middle of the groups keeps nobody
// out, and takes nothing away.
func TestHangInTheGroupsIsBounded(t *testing.T) { // LD-10
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{}, nested)
	r.member([2]string{"alice", "a"}, [2]string{"a", "b"})
	r.complete(r.src, r.dns("a", "b")...)
	r.d.Lie(func(k *claimstest.DirectoryKnobs) { k.HangSearch = asks("scope=0", "base=cn=a,") })
	began := time.Now()
	res := r.login(r.src, "memberOf")
	if took := time.Since(began); res.State != claims.Unknown || took > 15*time.Second {
		t.Errorf("%v after %v", res, took)
	}
	r.d.Honest()
	r.complete(r.src, r.dns("a", "b")...)
}
