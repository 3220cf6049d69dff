package claims_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// groupsRig is a directory with alice in it, and a source that reads it.
type groupsRig struct {
	t     testing.TB
	d     *claimstest.Directory
	src   *claims.LDAP
	alice string // her DN
}

func newGroupsRig(t testing.TB, o claimstest.DirectoryOptions, change ...func(*claims.LDAPConfig)) *groupsRig {
	t.Helper()
	d := claimstest.StartDirectory(t, o)
	r := &groupsRig{t: t, d: d, alice: d.PersonDN("alice")}
	d.Put(d.Person("alice", "the password of alice"))
	r.src = r.source(change...)
	return r
}

// source reads the rig's directory with another configuration.
func (r *groupsRig) source(change ...func(*claims.LDAPConfig)) *claims.LDAP {
	r.t.Helper()
	cfg := claims.DefaultLDAP
	cfg.URL, cfg.CAFile = claims.URLs{r.d.URLS}, r.d.CAFile
	cfg.BindDN, cfg.BindPassword, cfg.BaseDN = r.d.ServiceDN, r.d.ServicePassword, r.d.BaseDN
	for _, fn := range change {
		fn(&cfg)
	}
	src, err := claims.NewLDAP(claims.LDAPOptions{Name: "corp", Config: cfg})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = src.Close() })
	return src
}

func nested(c *claims.LDAPConfig) { c.NestedGroups = true }

func searching(s claims.GroupSearch) func(*claims.LDAPConfig) {
	return func(c *claims.LDAPConfig) { c.GroupSearch = &s }
}

// member puts groups: each is named, and is in those named behind it.
func (r *groupsRig) member(pairs ...[2]string) {
	members := map[string][]string{}
	var names []string
	for _, p := range pairs {
		member := r.d.GroupDN(p[0])
		if p[0] == "alice" {
			member = r.alice
		}
		for _, name := range []string{p[0], p[1]} {
			if name != "alice" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		members[p[1]] = append(members[p[1]], member)
	}
	for _, name := range names {
		r.d.Put(r.d.Group(name, members[name]...))
	}
}

// chain puts alice into the first of n groups, each in the next.
func (r *groupsRig) chain(n int) (names []string) {
	below := r.alice
	var all []claimstest.Entry
	for i := range n {
		name := fmt.Sprintf("g%05d", i)
		all = append(all, r.d.Group(name, below))
		names = append(names, r.d.GroupDN(name))
		below = r.d.GroupDN(name)
	}
	r.d.Put(all...)
	return names
}

func (r *groupsRig) find(src *claims.LDAP) *claims.Found {
	r.t.Helper()
	f, err := src.Find(r.t.Context(), "alice")
	if err != nil {
		r.t.Fatal(err)
	}
	if f.Problem != "" {
		r.t.Fatalf("%s: %q", f.Problem, f.Searches)
	}
	return f
}

// login is what a login states about a claim.
func (r *groupsRig) login(src *claims.LDAP, claim string) claims.Resolution {
	r.t.Helper()
	id, _, err := src.CheckPassword(r.t.Context(), claims.Credentials{User: "alice", Password: "the password of alice"})
	if err != nil {
		r.t.Fatal(err)
	}
	return id.Claims.Resolve(claim)
}

// complete wants exactly these values, told to a login and to who asks.
func (r *groupsRig) complete(src *claims.LDAP, want ...string) *claims.Found {
	r.t.Helper()
	slices.Sort(want)
	f := r.find(src)
	var got []string
	for _, g := range f.Groups {
		got = append(got, g.Value)
	}
	if !slices.Equal(got, want) || len(f.Unknown) > 0 {
		r.t.Errorf("found %d %q, unknown %q; want %d %q", len(got), got, f.Unknown, len(want), want)
	}
	for what, res := range map[string]claims.Resolution{
		"Find": f.Identity.Claims.Resolve("memberOf"), "a login": r.login(src, "memberOf"),
	} {
		if res.State != claims.Complete || !slices.Equal(res.Values, want) {
			r.t.Errorf("%s states %v %q (%s), want all of %q", what, res.State, res.Values, res.Why, want)
		}
	}
	return f
}

// unknown wants nobody to take what there is for all.
func (r *groupsRig) unknown(src *claims.LDAP, words string) *claims.Found {
	r.t.Helper()
	f := r.find(src)
	if why := strings.Join(f.Unknown, "\n"); !strings.Contains(why, words) {
		r.t.Errorf("unknown because of %q, want %q", why, words)
	}
	for what, res := range map[string]claims.Resolution{
		"Find": f.Identity.Claims.Resolve("memberOf"), "a login": r.login(src, "memberOf"),
	} {
		if res.State != claims.Unknown {
			r.t.Errorf("%s states %v %q", what, res.State, res.Values)
		}
	}
	return f
}

func (r *groupsRig) dns(names ...string) (dns []string) {
	for _, n := range names {
		dns = append(dns, r.d.GroupDN(n))
	}
	return dns
}

// ways says how each group was come to, by its name.
func (r *groupsRig) ways(f *claims.Found) map[string]string {
	out := map[string]string{}
	for _, g := range f.Groups {
		out[nameIn(g.Value)] = strings.TrimSpace(string(g.How) + " " + strings.Join(eachName(g.Through), ">"))
	}
	return out
}

func eachName(dns []string) (names []string) {
	for _, dn := range dns {
		names = append(names, nameIn(dn))
	}
	return names
}

func nameIn(dn string) string {
	first, _, _ := strings.Cut(dn, ",")
	_, name, _ := strings.Cut(first, "=")
	return name
}

// kinds are the ways in which nested groups are found.
var kinds = map[string]struct {
	o   claimstest.DirectoryOptions
	lie func(*claimstest.DirectoryKnobs)
	cfg func(*claims.LDAPConfig)
}{
	"in-chain":         {o: claimstest.DirectoryOptions{AD: true}},
	"in-chain, silent": {o: claimstest.DirectoryOptions{AD: true}, lie: func(k *claimstest.DirectoryKnobs) { k.InChainEmpty = true }},
	"walk":             {},
	"group search":     {o: claimstest.DirectoryOptions{NoMemberOf: true}, cfg: searching(claims.DefaultGroupSearch)},
}

// forEachKind runs a test for every way, all at once. extra are the groups that
// the kind has of its own.
func forEachKind(t *testing.T, fn func(t *testing.T, r *groupsRig, extra []string)) {
	for name := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ofKind(t, name, fn)
		})
	}
}

// oneByOne is forEachKind for what has much to do within the time of a login:
// nothing else of this package runs at the same time.
func oneByOne(t *testing.T, fn func(t *testing.T, r *groupsRig, extra []string)) {
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(name, func(t *testing.T) { ofKind(t, name, fn) })
	}
}

func ofKind(t *testing.T, name string, fn func(t *testing.T, r *groupsRig, extra []string)) {
	k := kinds[name]
	change := []func(*claims.LDAPConfig){nested}
	if k.cfg != nil {
		change = append(change, k.cfg)
	}
	r := newGroupsRig(t, k.o, change...)
	if k.lie != nil {
		r.d.Lie(k.lie)
	}
	var extra []string
	if k.o.AD {
		extra = []string{"CN=Domain Users,CN=Users," + r.d.BaseDN}
	}
	fn(t, r, extra)
}

func TestGroupsWithoutNestingAreTheAttribute(t *testing.T) {
	t.Parallel()
	for _, ad := range []bool{false, true} {
		r := newGroupsRig(t, claimstest.DirectoryOptions{AD: ad})
		none := r.find(r.src)
		if res := r.login(r.src, "memberOf"); res.State != claims.Absent || len(none.Groups) > 0 || len(none.Unknown) > 0 {
			t.Errorf("AD %v: nothing is %v, %v", ad, res.State, none.Groups)
		}
		r.member([2]string{"alice", "b"}, [2]string{"alice", "a"}, [2]string{"a", "above"})
		f := r.complete(r.src, r.dns("a", "b")...)
		if w := r.ways(f); w["a"] != "direct" || w["b"] != "direct" {
			t.Errorf("AD %v: %v", ad, w)
		}
	}
}

func TestNestedGroupsSayTheirPath(t *testing.T) {
	t.Parallel()
	forEachKind(t, func(t *testing.T, r *groupsRig, extra []string) {
		// Two ways to the top: the shorter one counts, of two equal ones always
		// the same.
		r.member([2]string{"alice", "a"}, [2]string{"alice", "b"}, [2]string{"a", "mid"}, [2]string{"mid", "top"}, [2]string{"b", "top"},
			[2]string{"a", "twice"}, [2]string{"b", "twice"}, [2]string{"alice", "both"}, [2]string{"a", "both"})
		f := r.complete(r.src, append(r.dns("a", "b", "mid", "top", "twice", "both"), extra...)...)
		want := map[string]string{"a": "direct", "b": "direct", "both": "direct", "mid": "nested a", "top": "nested b", "twice": "nested a"}
		if len(extra) > 0 {
			want["Domain Users"] = "primary"
		}
		if got := r.ways(f); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
		r.d.Lie(func(k *claimstest.DirectoryKnobs) {
			k.Rewrite = func(_ claimstest.SearchQuery, found []claimstest.Found) []claimstest.Found {
				slices.Reverse(found)
				for _, e := range found {
					for _, a := range e.Attributes {
						slices.Reverse(a.Values)
					}
				}
				return found
			}
		})
		if again := r.find(r.src); fmt.Sprint(again.Groups) != fmt.Sprint(f.Groups) {
			t.Errorf("in another order: %v, was %v", again.Groups, f.Groups)
		}
	})
}

func TestCyclesEnd(t *testing.T) { // LD-08
	t.Parallel()
	forEachKind(t, func(t *testing.T, r *groupsRig, extra []string) {
		r.member([2]string{"alice", "a"}, [2]string{"a", "b"}, [2]string{"b", "c"}, [2]string{"c", "a"}, [2]string{"b", "b"}, [2]string{"c", "end"})
		f := r.complete(r.src, append(r.dns("a", "b", "c", "end"), extra...)...)
		if w := r.ways(f); w["end"] != "nested a>b>c" || w["a"] != "direct" {
			t.Error(w)
		}
	})
}

func TestDepthIsBounded(t *testing.T) { // LD-08
	t.Parallel()
	forEachKind(t, func(t *testing.T, r *groupsRig, extra []string) {
		names := r.chain(64)
		f := r.complete(r.src, append(names, extra...)...)
		if last := f.Groups[len(f.Groups)-1]; len(last.Through) != 63 {
			t.Errorf("%d between alice and the last", len(last.Through))
		}
		for _, n := range []int{65, 200} {
			r.chain(n)
			f := r.unknown(r.src, "nested more than 64 deep")
			if len(f.Groups) != 64+len(extra) {
				t.Errorf("%d deep: %d groups are known", n, len(f.Groups))
			}
		}
	})
}

func TestManyGroups(t *testing.T) { // LD-08
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	oneByOne(t, func(t *testing.T, r *groupsRig, extra []string) {
		n := 10_000
		switch {
		case strings.HasSuffix(t.Name(), "search"):
			n = 1_000 // the fake has no index: it looks at every entry for every group
		case strings.HasSuffix(t.Name(), "silent"):
			n = 2_000 // from there on it is the walk
		}
		all := make([]claimstest.Entry, 0, n)
		var want []string
		for i := range n {
			name := fmt.Sprintf("g%05d", i)
			below := r.alice
			if i >= 100 { // 100 direct ones, 100 in each of them
				below = r.d.GroupDN(fmt.Sprintf("g%05d", i%100))
			}
			all = append(all, r.d.Group(name, below))
			want = append(want, r.d.GroupDN(name))
		}
		r.d.Put(all...)
		began := time.Now()
		res := r.login(r.src, "memberOf")
		t.Logf("%d groups: %v", n, time.Since(began).Round(time.Millisecond))
		want = append(want, extra...)
		slices.Sort(want)
		if res.State != claims.Complete || !slices.Equal(res.Values, want) {
			t.Errorf("%v, %d values: %s", res.State, len(res.Values), res.Why)
		}
	})
}

// 2,000 groups, nested ten deep: 200 chains. What takes longer than a login may
// would be unknown.
func TestDeepAndManyGroupsTakeBoundedTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	oneByOne(t, func(t *testing.T, r *groupsRig, extra []string) {
		var all []claimstest.Entry
		for i := range 200 {
			below := r.alice
			for level := range 10 {
				g := r.d.Group(fmt.Sprintf("g%03d-%d", i, level), below)
				all, below = append(all, g), g.DN
			}
		}
		r.d.Put(all...)
		r.login(r.src, "memberOf") // the fake makes its index of members
		began := time.Now()
		res := r.login(r.src, "memberOf")
		took := time.Since(began)
		t.Logf("2,000 groups ten deep: %v", took.Round(time.Millisecond))
		if res.State != claims.Complete || len(res.Values) != 2000+len(extra) {
			t.Errorf("%v, %d values: %s", res.State, len(res.Values), res.Why)
		}
	})
}

// A group that is named and not there holds nobody more.
func TestGroupObjectsThatAreMissingEndAPath(t *testing.T) { // LD-08
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{NoMemberOf: true}, nested)
	gone := r.d.GroupDN("gone")
	above := r.d.Group("a")
	above.Attributes["memberOf"] = []string{r.d.GroupDN("top"), "not a name at all"}
	r.d.Put(above, r.d.Group("top"))
	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["memberOf"] = []string{gone, above.DN} })
	f := r.complete(r.src, gone, above.DN, r.d.GroupDN("top"), "not a name at all")
	if w := r.ways(f); w["gone"] != "direct" || w["top"] != "nested a" {
		t.Error(w)
	}
}

func TestSpellingsOfANameAreOneGroup(t *testing.T) {
	t.Parallel()
	r := newGroupsRig(t, claimstest.DirectoryOptions{NoMemberOf: true}, nested)
	bob := `cn=Smith\2C Bob,ou=groups,` + r.d.BaseDN
	same := `CN=Smith\, Bob, OU=Groups,` + r.d.BaseDN
	above := `cn=R\+D \"x\" #1\;,ou=groups,` + r.d.BaseDN
	for _, pair := range [][2]string{{bob, above}, {above, same}} {
		r.d.Put(claimstest.Entry{DN: pair[0], Attributes: map[string][]string{"objectClass": {"groupOfNames"}, "memberOf": {pair[1]}}})
	}
	r.d.Change(r.alice, func(e *claimstest.Entry) { e.Attributes["memberOf"] = []string{bob, same} })
	f := r.complete(r.src, same, above) // of two spellings the bytewise first
	for _, g := range f.Groups {
		if g.Value == above && !slices.Equal(g.Through, []string{same}) {
			t.Errorf("%v", g)
		}
	}
}
