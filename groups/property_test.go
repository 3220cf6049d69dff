package groups

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/claims"
)

// Small alphabets, so that what is drawn meets.
var (
	someSources = []string{"s", "t"}
	someClaims  = []string{"groups", "roles"}
	someValues  = []string{"a", "b", "c", "A", "a;b", "cn=a,dc=x", "CN=A, DC=x"}
	someGroups  = []string{"a", "b", "c", "d", "X"}
	noWhen      = []string{""}
	someWhens   = []string{"", "", "", `has(claims.roles)`, `claims.roles.exists(r, r == "a")`, `source == "s"`}
)

func drawRule(t *rapid.T, whens []string) Rule {
	pick := func(from []string, label string) string { return rapid.SampledFrom(from).Draw(t, label) }
	r := Rule{Claim: pick(someClaims, "claim"), Source: pick([]string{"", "s", "t"}, "source"), When: pick(whens, "when")}
	r.Split = pick([]string{"", "", ";"}, "split")
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		r.Value, r.Group = pick(someValues, "value"), pick(someGroups, "group")
	case 1:
		r.DN, r.Group = "CN=a,DC=x", pick(someGroups, "group")
	case 2:
		r.Regexp, r.Group = "([a-c])", "$1"
	case 3:
		r.Any = true
	}
	return r
}

func drawRules(t *rapid.T, whens []string) []Rule {
	rule := rapid.Custom(func(t *rapid.T) Rule { return drawRule(t, whens) })
	return named(rapid.SliceOfN(rule, 0, 8).Draw(t, "rules"))
}

// drawClaims answers claims in any of the three states.
func drawClaims(t *rapid.T) claims.Claims {
	m := map[string]any{}
	for _, name := range someClaims {
		switch rapid.IntRange(0, 5).Draw(t, name) {
		case 0: // absent
		case 1:
			m[name] = nil
		case 2:
			m[name] = []any{"a", 7}
		default:
			m[name] = rapid.SliceOfN(rapid.SampledFrom(someValues), 0, 4).Draw(t, name)
		}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	c, err := claims.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func drawPolicy(t *rapid.T, source string) SourcePolicy {
	return SourcePolicy{
		Source: source, Claims: rapid.SliceOfNDistinct(rapid.SampledFrom(someClaims), 0, 2, rapid.ID).Draw(t, "claims"),
		WhenAbsent: rapid.SampledFrom([]claims.WhenAbsent{claims.Keep, claims.Clear, claims.Deny}).Draw(t, "when_absent"),
		Default:    rapid.SliceOfN(rapid.SampledFrom(someGroups), 0, 2).Draw(t, "default"),
		Lenient:    rapid.Bool().Draw(t, "lenient"),
	}
}

// scene is a directory's view of one user, and one statement about them.
type scene struct {
	have     []Membership
	controls map[string]Control // of every group there is
	rules    *Rules
	id       *claims.Identity
	source   SourcePolicy
	policy   Policy
}

func (s scene) wanted() *Wanted { return s.rules.Apply(s.id, s.source) }

func drawScene(t *rapid.T, whens []string) scene {
	s := scene{controls: map[string]Control{}}
	rules := drawRules(t, whens)
	var err error
	if s.rules, err = Compile(rules); err != nil {
		t.Fatal(err)
	}
	for _, name := range someGroups {
		if rapid.Bool().Draw(t, "exists") {
			s.controls[name] = rapid.SampledFrom([]Control{SSO, SSO, Manual}).Draw(t, "control")
		}
	}
	for _, name := range sortedKeys(s.controls) {
		m := Membership{Group: name, Control: s.controls[name]}
		if m.Control == SSO {
			m.Grants = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Grant { return drawGrant(t, name) }), 0, 3).Draw(t, "grants")
			slices.SortFunc(m.Grants, Grant.Compare)
			m.Grants = slices.Compact(m.Grants)
		}
		m.By = rapid.SampledFrom([]string{"", "root"}).Draw(t, "by")
		if len(m.Grants) > 0 || m.By != "" {
			s.have = append(s.have, m)
		}
	}
	source := rapid.SampledFrom(someSources).Draw(t, "of")
	s.id = &claims.Identity{Source: source, Subject: "1", Claims: drawClaims(t)}
	s.source = drawPolicy(t, source)
	s.policy = Policy{Remove: rapid.IntRange(0, 3).Draw(t, "remove") > 0, Create: rapid.Bool().Draw(t, "create")}
	if rapid.Bool().Draw(t, "names") {
		s.policy.Names, _ = CompileNames("[a-z]")
	}
	return s
}

func drawGrant(t *rapid.T, group string) Grant {
	if rapid.IntRange(0, 5).Draw(t, "default") == 0 {
		return Grant{Group: group, Source: rapid.SampledFrom(someSources).Draw(t, "source"), Rule: DefaultRule}
	}
	return Grant{
		Group: group, Source: rapid.SampledFrom(someSources).Draw(t, "source"),
		Rule:  fmt.Sprintf("r%d", rapid.IntRange(0, 8).Draw(t, "rule")),
		Claim: rapid.SampledFrom(someClaims).Draw(t, "claim"), Value: rapid.SampledFrom(someValues).Draw(t, "value"),
	}
}

// GV-12: contradictory rules give one answer.
func TestApplyDoesNotHeedTheOrderOfRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRules(t, someWhens)
		source := rapid.SampledFrom(someSources).Draw(t, "of")
		id := &claims.Identity{Source: source, Subject: "1", Claims: drawClaims(t)}
		p := drawPolicy(t, source)
		var first *Wanted
		for _, order := range [][]Rule{rules, rapid.Permutation(rules).Draw(t, "order")} {
			compiled, err := Compile(order)
			if err != nil {
				t.Fatal(err)
			}
			w := compiled.Apply(id, p)
			if first == nil {
				first = w
				continue
			}
			if d := cmp.Diff(first.Grants, w.Grants) + cmp.Diff(first.States, w.States) +
				cmp.Diff(sortedKeys(first.Undecided), sortedKeys(w.Undecided)); d != "" {
				t.Fatal(d)
			}
			if first.Complete != w.Complete || (first.Denied == "") != (w.Denied == "") {
				t.Fatalf("complete %v and %v, denied %q and %q", first.Complete, w.Complete, first.Denied, w.Denied)
			}
			if fingerprint(first, Policy{}, 1) != fingerprint(w, Policy{}, 1) {
				t.Fatal("another fingerprint")
			}
		}
	})
}

// TestDiffKeepsItsPromises draws scenes and checks contract section 7 line by
// line.
func TestDiffKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawScene(t, someWhens)
		w := s.wanted()
		c := Diff(s.have, w, s.controls, s.policy)
		checkChange(t, s, w, c)
		after := c.applyTo(s.have, s.controls)
		checkEntersAndLeaves(t, s.have, after, c)

		controls := maps.Clone(s.controls)
		for _, name := range c.Created {
			controls[name] = SSO
		}
		if again := Diff(after, s.wanted(), controls, s.policy); !again.Empty() || len(again.Added)+len(again.Removed) > 0 {
			t.Fatalf("the same sync again: %+v", again)
		}

		held := Diff(s.have, w, s.controls, s.policy)
		held.Hold()
		stay := names(held.applyTo(s.have, s.controls))
		for _, m := range s.have {
			if _, in := slices.BinarySearch(stay, m.Group); !in {
				t.Fatalf("held, but the user left %s", m.Group)
			}
		}
		if !slices.Equal(held.Added, c.Added) || !slices.Equal(held.Held, c.Removed) {
			t.Fatalf("held: %+v, else %+v", held, c)
		}
	})
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// checkChange holds a change against what a sync may do.
func checkChange(t failer, s scene, w *Wanted, c *Change) {
	t.Helper()
	have := map[Grant]bool{}
	for _, m := range s.have {
		for _, g := range m.Grants {
			have[g] = true
		}
	}
	for _, g := range c.Drop {
		switch res := s.id.Claims.Resolve(g.Claim); {
		case !s.policy.Remove:
			t.Fatalf("removed without remove_from_groups: %+v", g)
		case g.Source != s.source.Source:
			t.Fatalf("touched a grant of another source: %+v", g)
		case !have[g]:
			t.Fatalf("dropped what was not there: %+v", g)
		case slices.Contains(w.Grants, g):
			t.Fatalf("dropped what is wanted: %+v", g)
		case g.Rule != DefaultRule && res.State != claims.Complete &&
			!(res.State == claims.Absent && s.source.WhenAbsent == claims.Clear):
			t.Fatalf("removed by a claim that is %s: %+v", res.State, g)
		}
	}
	for _, g := range c.Add {
		switch {
		case g.Source != s.source.Source || have[g] || !slices.Contains(w.Grants, g):
			t.Fatalf("added %+v", g)
		case s.controls[g.Group] == Manual:
			t.Fatalf("granted into a manual group: %+v", g)
		case s.controls[g.Group] == "" && !slices.Contains(c.Created, g.Group):
			t.Fatalf("granted into a group that does not exist: %+v", g)
		case !s.policy.Allows(g.Group):
			t.Fatalf("granted a name that is not allowed: %+v", g)
		}
	}
	for _, name := range c.Created {
		if s.controls[name] != "" || !s.policy.Create {
			t.Fatalf("made group %s", name)
		}
	}
	for _, name := range c.DropManual {
		if !s.policy.Remove || !w.Complete || s.controls[name] != SSO {
			t.Fatalf("ended a manual membership of %s (%s), complete %v", name, s.controls[name], w.Complete)
		}
	}
	if got := len(c.Skipped); got > 0 {
		for _, skip := range c.Skipped {
			if slices.Contains(c.Add, skip.Grant) || slices.Contains(c.Drop, skip.Grant) {
				t.Fatalf("skipped and changed: %+v", skip)
			}
		}
	}
	for _, g := range w.Grants {
		skipped := slices.ContainsFunc(c.Skipped, func(s Skip) bool { return s.Grant == g })
		if !have[g] && !skipped && !slices.Contains(c.Add, g) {
			t.Fatalf("wanted, not had, not skipped, not added: %+v", g)
		}
	}
}

// checkEntersAndLeaves compares the change's words with the sets.
func checkEntersAndLeaves(t failer, have, after []Membership, c *Change) {
	t.Helper()
	before, then := names(have), names(after)
	if added := minus(then, before); !slices.Equal(added, c.Added) {
		t.Fatalf("added %v, but the change says %v", added, c.Added)
	}
	if removed := minus(before, then); !slices.Equal(removed, c.Removed) {
		t.Fatalf("removed %v, but the change says %v", removed, c.Removed)
	}
}

// TestEqualFingerprintsMeanNothingToDo: the short cut of an unchanged sync is
// only as good as this.
func TestEqualFingerprintsMeanNothingToDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawScene(t, someWhens)
		first := s.wanted()
		c := Diff(s.have, first, s.controls, s.policy)
		after := c.applyTo(s.have, s.controls)
		controls := maps.Clone(s.controls)
		for _, name := range c.Created {
			controls[name] = SSO
		}
		stored := fingerprint(first, s.policy, 1)
		if first.keepsUnread(s.have) {
			stored = "" // as SignIn does
		}
		s.id = &claims.Identity{Source: s.id.Source, Subject: "1", Claims: drawClaims(t)}
		second := s.wanted()
		if stored != fingerprint(second, s.policy, 1) {
			return
		}
		if again := Diff(after, second, controls, s.policy); !again.Empty() {
			t.Fatalf("equal fingerprints, but %+v", again)
		}
	})
}

// checkExplain: Explain and Apply agree about hits and groups.
func checkExplain(t failer, rules *Rules, id *claims.Identity, p SourcePolicy) {
	t.Helper()
	w := rules.Apply(id, p)
	x := rules.Explain(id, p)
	type hit struct{ rule, group string }
	want, got := map[hit]bool{}, map[hit]bool{}
	for _, g := range w.Grants {
		if g.Rule != DefaultRule {
			want[hit{g.Rule, g.Group}] = true
		}
	}
	for _, ec := range x.Claims {
		for _, v := range ec.Values {
			for _, r := range v.Rules {
				if r.Why == "" {
					t.Fatalf("no reason: %+v", r)
				}
				if r.Hit {
					got[hit{r.Rule, r.Group}] = true
				}
			}
		}
	}
	if !maps.Equal(want, got) {
		t.Fatalf("Apply grants %v, Explain says %v", want, got)
	}
	if x.Denied != w.Denied {
		t.Fatalf("Apply denies %q, Explain %q", w.Denied, x.Denied)
	}
}

func TestExplainAgreesWithApply(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawScene(t, someWhens)
		checkExplain(t, s.rules, s.id, s.source)
	})
}

// FuzzRules: no rule and no statement makes Compile or Apply panic, and
// Explain says the same as Apply. DN rules and values are FuzzDN's as well.
func FuzzRules(f *testing.F) {
	add := func(r Rule, js string) {
		f.Add(r.Claim, r.Value, r.DN, r.Regexp, r.Any, r.Split, r.When, r.Group, js)
	}
	add(Rule{Claim: "groups", Value: "a", Group: "g"}, `{"groups":["a","b"]}`)
	add(Rule{Claim: "memberOf", DN: `CN=Smith\2C Bob,DC=x`, Group: "g"}, `{"memberOf":["cn=smith\\, bob, dc=X"]}`)
	add(Rule{Claim: "groups", Regexp: "app-(?P<n>.*)", Group: "${n}-$1"}, `{"groups":"app-x"}`)
	add(Rule{Claim: "/a/b/0", Any: true, Split: ";"}, `{"a":{"b":["x;y;;"]}}`)
	add(Rule{Claim: "groups", Value: "a", Group: "g", When: `claims.c.exists(x, x == "CZ") || has(claims.d)`}, `{"groups":"a","c":["CZ"]}`)
	add(Rule{Claim: "groups", Value: "a", Group: "g", When: `claims["x"][0].matches("(a")`}, `{"groups":"a","x":["("]}`)
	add(Rule{Claim: "groups", Regexp: "(x{1,1000})*y?(.*)*z", Group: "g"}, `{"_claim_names":{"groups":"s"}}`)
	add(Rule{Claim: "groups", Regexp: "a)|(b", Group: "$1x"}, `{"groups":null}`)
	f.Fuzz(func(t *testing.T, claim, value, dn, expr string, anyValue bool, split, when, group, js string) {
		c, err := claims.Parse([]byte(js))
		if err != nil || len(js) > 4096 || len(when) > 200 {
			return
		}
		r := Rule{ID: "r", Source: "s", Claim: claim, Value: value, DN: dn, Regexp: expr, Any: anyValue, Split: split, When: when, Group: group}
		rules, err := Compile([]Rule{r})
		if err != nil {
			return
		}
		id := &claims.Identity{Source: "s", Subject: "1", Claims: c}
		for _, absence := range []claims.WhenAbsent{claims.Keep, claims.Clear, claims.Deny} {
			checkExplain(t, rules, id, SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: absence})
		}
	})
}

// FuzzDiff drives the properties of Diff with coverage in place of chance.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("groups"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
	f.Add(make([]byte, 512))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		s := drawScene(t, noWhen) // compiling conditions would take most of the time
		w := s.wanted()
		c := Diff(s.have, w, s.controls, s.policy)
		checkChange(t, s, w, c)
		checkEntersAndLeaves(t, s.have, c.applyTo(s.have, s.controls), c)
	}))
}
