package groups

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// g is a grant of source s by rule r0 for a value of the claim "groups".
func g(group, value string) Grant { return Grant{group, "s", "r0", "groups", value} }

// member is a membership in a group that SSO controls, held by grants.
func member(group string, grants ...Grant) Membership {
	return Membership{Group: group, Control: SSO, Grants: grants}
}

func manual(m Membership, by string) Membership { m.By = by; return m }

// anyGroup is a rule that takes values of "groups" as names.
var anyGroup = Rule{Source: "s", Claim: "groups", Any: true}

// TestDiff walks contract section 7, steps 2 to 4.
func TestDiff(t *testing.T) {
	t.Parallel()
	other := Grant{"a", "t", "r9", "groups", "x"}
	names, err := CompileNames("[a-z]+")
	if err != nil {
		t.Fatal(err)
	}
	all := Policy{Remove: true, Create: true}
	for _, c := range []struct {
		name     string
		js       string
		have     []Membership
		controls map[string]Control
		policy   Policy
		want     Change
	}{
		{
			name: "a missing group is made and entered", js: `{"groups":["a"]}`, policy: all,
			want: Change{Created: []string{"a"}, Add: []Grant{g("a", "a")}, Added: []string{"a"}},
		}, {
			name: "a group that is there is entered", js: `{"groups":["a"]}`, policy: all,
			controls: map[string]Control{"a": SSO},
			want:     Change{Add: []Grant{g("a", "a")}, Added: []string{"a"}},
		}, {
			name: "a group that may not be made is skipped", js: `{"groups":["a","b"]}`, policy: Policy{Remove: true},
			controls: map[string]Control{"b": SSO},
			want:     Change{Add: []Grant{g("b", "b")}, Added: []string{"b"}, Skipped: []Skip{{g("a", "a"), SkipMissing}}},
		}, {
			name: "a name that is not allowed is skipped, never altered", js: `{"groups":["a","B","a b"]}`,
			policy: Policy{Remove: true, Create: true, Names: names},
			want: Change{Created: []string{"a"}, Add: []Grant{g("a", "a")}, Added: []string{"a"},
				Skipped: []Skip{{g("B", "B"), SkipName}, {g("a b", "a b"), SkipName}}},
		}, {
			name: "a manual group is skipped", js: `{"groups":["a"]}`, policy: all,
			controls: map[string]Control{"a": Manual},
			want:     Change{Skipped: []Skip{{g("a", "a"), SkipManual}}},
		}, {
			name: "a member by hand of a manual group stays", js: `{"groups":[]}`, policy: all,
			have:     []Membership{{Group: "a", Control: Manual, By: "root"}},
			controls: map[string]Control{"a": Manual},
		}, {
			name: "what is granted already is left alone", js: `{"groups":["a"]}`, policy: all,
			have: []Membership{member("a", g("a", "a"))}, controls: map[string]Control{"a": SSO},
		}, {
			name: "what is no longer stated goes", js: `{"groups":[]}`, policy: all,
			have: []Membership{member("a", g("a", "a")), member("b", g("b", "b"))},
			want: Change{Drop: []Grant{g("a", "a"), g("b", "b")}, Removed: []string{"a", "b"}},
		}, {
			name: "not without remove_from_groups", js: `{"groups":[]}`, policy: Policy{Create: true},
			have: []Membership{member("a", g("a", "a")), manual(member("b"), "root")},
		}, {
			name: "an absent claim takes nothing", js: `{}`, policy: all,
			have: []Membership{member("a", g("a", "a")), manual(member("b"), "root")},
		}, {
			name: "an unknown claim takes nothing", js: `{"groups":["a",null]}`, policy: all,
			have: []Membership{member("b", g("b", "b"))},
		}, {
			name: "one claim of two is known: only its grants go", js: `{"groups":[],"roles":null}`, policy: all,
			have: []Membership{member("a", g("a", "a")), member("b", Grant{"b", "s", "r1", "roles", "x"}), manual(member("c"), "root")},
			want: Change{Drop: []Grant{g("a", "a")}, Removed: []string{"a"}},
		}, {
			name: "a membership lasts until its last reason goes", js: `{"groups":["a"]}`, policy: all,
			have: []Membership{member("a", g("a", "a"), g("a", "z"))}, controls: map[string]Control{"a": SSO},
			want: Change{Drop: []Grant{g("a", "z")}},
		}, {
			name: "another value for the same group changes only the reason", js: `{"groups":["a"]}`, policy: all,
			have: []Membership{member("a", g("a", "z"))}, controls: map[string]Control{"a": SSO},
			want: Change{Add: []Grant{g("a", "a")}, Drop: []Grant{g("a", "z")}},
		}, {
			name: "grants of another source are not touched", js: `{"groups":[]}`, policy: all,
			have: []Membership{member("a", g("a", "a"), other), member("b", Grant{"b", "t", "r9", "groups", "b"})},
			want: Change{Drop: []Grant{g("a", "a")}},
		}, {
			name: "a member by hand of an SSO group goes with a complete sync", js: `{"groups":[]}`, policy: all,
			have: []Membership{manual(member("a"), "root")},
			want: Change{DropManual: []string{"a"}, Removed: []string{"a"}},
		}, {
			name: "and becomes a granted one when a claim supports it", js: `{"groups":["a"]}`, policy: all,
			have: []Membership{manual(member("a"), "root")}, controls: map[string]Control{"a": SSO},
			want: Change{Add: []Grant{g("a", "a")}, DropManual: []string{"a"}},
		}, {
			name: "a claim that supports it keeps it, even if it may not grant", js: `{"groups":["A"]}`,
			policy: Policy{Remove: true, Create: true, Names: names},
			have:   []Membership{manual(member("A"), "root")}, controls: map[string]Control{"A": SSO},
			want: Change{Skipped: []Skip{{g("A", "A"), SkipName}}},
		}, {
			name: "it does not go while another source grants the group", js: `{"groups":[]}`, policy: all,
			have: []Membership{manual(member("a", other), "root")},
			want: Change{DropManual: []string{"a"}},
		}, {
			name: "wanted but skipped stays: the name is no longer allowed", js: `{"groups":["A"]}`,
			policy: Policy{Remove: true, Create: true, Names: names},
			have:   []Membership{member("A", g("A", "A"))}, controls: map[string]Control{"A": SSO},
			want: Change{Skipped: []Skip{{g("A", "A"), SkipName}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			roles := Rule{ID: "r1", Source: "s", Claim: "roles", Value: "nothing", Group: "n"}
			rules := ruleset(t, anyGroup)
			if c.name == "one claim of two is known: only its grants go" {
				rules = ruleset(t, anyGroup, roles)
			}
			got := Diff(c.have, rules.Apply(statement(t, "s", c.js), keep()), c.controls, c.policy)
			if d := cmp.Diff(c.want, *got); d != "" {
				t.Error(d)
			}
			nothing := len(c.want.Created)+len(c.want.Add)+len(c.want.Drop)+len(c.want.DropManual) == 0
			if got.Empty() != nothing {
				t.Errorf("Empty() = %v", got.Empty())
			}
		})
	}
}

// TestDiffSkipsAnEmptyName: an empty name, which a template can expand to, is
// no group (GV-12).
func TestDiffSkipsAnEmptyName(t *testing.T) {
	t.Parallel()
	w := ruleset(t, Rule{Source: "s", Claim: "groups", Regexp: "(a)|(b)", Group: "$2"}).
		Apply(statement(t, "s", `{"groups":["a","b"]}`), keep())
	c := Diff(nil, w, nil, Policy{Create: true})
	if !slices.Equal(c.Added, []string{"b"}) || len(c.Skipped) != 1 || c.Skipped[0].Reason != SkipName {
		t.Errorf("added %v, skipped %v", c.Added, c.Skipped)
	}
}

func TestHoldKeepsTheUserInEveryGroup(t *testing.T) {
	t.Parallel()
	have := []Membership{
		member("a", g("a", "a")), member("b", g("b", "b"), g("b", "z")), manual(member("c"), "root"),
		manual(member("d", g("d", "z")), "root"),
	}
	controls := map[string]Control{"a": SSO, "b": SSO, "c": SSO, "d": SSO}
	w := ruleset(t, anyGroup).Apply(statement(t, "s", `{"groups":["b","n"]}`), keep())
	c := Diff(have, w, controls, Policy{Remove: true, Create: true})
	if want := []string{"a", "c", "d"}; !slices.Equal(c.Removed, want) {
		t.Fatalf("control: removed %v, want %v", c.Removed, want)
	}
	c.Hold()
	want := Change{
		Created: []string{"n"}, Add: []Grant{g("n", "n")}, Added: []string{"n"},
		Drop: []Grant{g("b", "z")}, DropManual: []string{}, Held: []string{"a", "c", "d"},
	}
	if d := cmp.Diff(want, *c); d != "" {
		t.Error(d)
	}
	if after := names(c.applyTo(have, controls)); !slices.Equal(after, []string{"a", "b", "c", "d", "n"}) {
		t.Errorf("after: %v", after)
	}
}

// TestFingerprint tells syncs apart that are not the same, and only those.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	rule := Rule{Source: "s", Claim: "groups", Value: "a", Group: "g", When: `has(claims.x)`}
	of := func(js string, p Policy, epoch int64, rules ...Rule) string {
		return fingerprint(ruleset(t, rules...).Apply(statement(t, "s", js), keep()), p, epoch)
	}
	names, _ := CompileNames("[a-z]+")
	p := Policy{Remove: true, Create: true}
	base := of(`{"groups":["a"]}`, p, 1, anyGroup)
	for name, fp := range map[string]string{
		"twice":           of(`{"groups":["a"]}`, p, 1, anyGroup),
		"another order":   of(`{"email":"x","groups":["","a","a"]}`, p, 1, anyGroup),
		"a rule unheard":  of(`{"groups":["a"]}`, p, 1, anyGroup, Rule{Source: "t", Claim: "z", Any: true}),
		"same rule again": of(`{"groups":["a"]}`, p, 1, Rule{ID: "r1", Source: "s", Claim: "groups", Value: "no", Group: "x"}, Rule{ID: "r0", Source: "s", Claim: "groups", Any: true}),
	} {
		if fp != base {
			t.Errorf("%s: another fingerprint", name)
		}
	}
	seen := map[string]string{base: "base"}
	for name, fp := range map[string]string{
		"epoch":          of(`{"groups":["a"]}`, p, 2, anyGroup),
		"no removal":     of(`{"groups":["a"]}`, Policy{Create: true}, 1, anyGroup),
		"no creation":    of(`{"groups":["a"]}`, Policy{Remove: true}, 1, anyGroup),
		"names":          of(`{"groups":["a"]}`, Policy{Remove: true, Create: true, Names: names}, 1, anyGroup),
		"value":          of(`{"groups":["b"]}`, p, 1, anyGroup),
		"one more":       of(`{"groups":["a","b"]}`, p, 1, anyGroup),
		"joined":         of(`{"groups":["ab"]}`, p, 1, anyGroup),
		"none":           of(`{"groups":[]}`, p, 1, anyGroup),
		"absent":         of(`{}`, p, 1, anyGroup),
		"by rule":        of(`{"groups":["a"]}`, p, 1, Rule{Source: "s", Claim: "groups", Value: "a", Group: "a", ID: "rx"}),
		"when undecided": of(`{"groups":["a"],"x":null}`, p, 1, rule),
		"when it holds":  of(`{"groups":["a"],"x":""}`, p, 1, rule),
	} {
		if was, dup := seen[fp]; dup {
			t.Errorf("%s has the fingerprint of %s", name, was)
		}
		seen[fp] = name
	}
}
