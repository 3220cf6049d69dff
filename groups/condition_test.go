package groups

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
)

func TestConditionDecides(t *testing.T) {
	t.Parallel()
	const yes, no, open = "granted", "not granted", "undecided"
	for _, c := range []struct{ when, js, keep, clear string }{
		{`true`, `{}`, yes, yes},
		{`source == "s"`, `{}`, yes, yes},
		{`source == "t"`, `{}`, no, no},
		{`claims.country.exists(c, c == "CZ")`, `{"country":["DE","CZ"]}`, yes, yes},
		{`claims.country.exists(c, c == "CZ")`, `{"country":"CZ"}`, yes, yes},
		{`claims.country.exists(c, c == "CZ")`, `{"country":["cz"]}`, no, no},
		{`claims.country.exists(c, c == "CZ")`, `{"country":[]}`, no, no},
		{`claims.country.exists(c, c == "CZ")`, `{}`, open, no},
		{`!claims.country.exists(c, c == "CZ")`, `{}`, open, yes},
		{`claims.country.exists(c, c == "CZ")`, `{"country":null}`, open, open},
		{`claims.country.exists(c, c == "CZ")`, `{"country":["CZ",1]}`, open, open},
		{`"CZ" in claims.country`, `{"country":["CZ"]}`, yes, yes},
		{`"CZ" in claims["country"]`, `{"country":["DE"]}`, no, no},
		{`claims["/address/country"] == ["CZ"]`, `{"address":{"country":"CZ"}}`, yes, yes},
		{`has(claims.country)`, `{"country":[]}`, yes, yes},
		{`has(claims.country)`, `{}`, no, no}, // absent is absent, whatever it counts as
		{`!has(claims.country)`, `{}`, yes, yes},
		{`has(claims.country)`, `{"country":null}`, open, open},
		{`"country" in claims`, `{"country":"x"}`, yes, yes},
		{`"country" in claims`, `{}`, no, no},
		{`"country" in claims`, `{"country":7}`, open, open},
		{`has(claims.country) && claims.country[0] == "CZ"`, `{"country":"CZ"}`, yes, yes},
		{`has(claims.country) && claims.country[0] == "CZ"`, `{}`, no, no}, // who asks first may read
		{`claims.country[0] == "CZ"`, `{"country":[]}`, open, open},        // cannot be computed
		{`claims.country[0].matches("^C")`, `{"country":"CZ"}`, yes, yes},
		{`size(claims.country) > 1`, `{"country":["a","b"]}`, yes, yes},
	} {
		for absence, want := range map[claims.WhenAbsent]string{claims.Keep: c.keep, claims.Clear: c.clear} {
			rules := ruleset(t, Rule{Source: "s", Claim: "groups", Value: "a", Group: "g", When: c.when})
			js := strings.Replace(c.js, "{", `{"groups":["a"],`, 1)
			js = strings.Replace(js, ",}", "}", 1)
			p := SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: absence}
			w := rules.Apply(statement(t, "s", js), p)
			got := no
			switch {
			case len(w.Undecided) > 0 && len(w.Grants) == 0:
				got = open
			case len(w.Undecided) == 0 && len(w.Grants) > 0:
				got = yes
			}
			if got != want {
				t.Errorf("when %s, claims %s, when_absent %s: %s, want %s (%v)", c.when, js, absence, got, want, w.Undecided)
			}
			old := Grant{"g", "s", "r0", "groups", "a"}
			if w.Keeps(old) != (want == open) {
				t.Errorf("when %s, claims %s, when_absent %s: an earlier grant is kept: %v", c.when, js, absence, w.Keeps(old))
			}
			if want == open && w.Complete {
				t.Errorf("when %s: undecided, but the sync counts as complete", c.when)
			}
		}
	}
}

// TestConditionReadsClaimsByFixedNames: only then it can be told what its
// outcome depends on.
func TestConditionReadsClaimsByFixedNames(t *testing.T) {
	t.Parallel()
	for when, legal := range map[string]bool{
		`claims.a == []`:    true,
		`claims["a"] == []`: true,
		`has(claims.a)`:     true,
		`"a" in claims`:     true,
		`claims.a.all(x, claims.b.exists(y,x==y))`: true,
		`claims == {}`:                              false,
		`size(claims) > 0`:                          false,
		`claims.all(k, k != "a")`:                   false,
		`claims[source] == []`:                      false,
		`claims["a" + "b"] == []`:                   false,
		`source in claims`:                          false,
		`[claims] == []`:                            false,
		`(source == "a" ? claims : claims).a == []`: false,
		`["a"].exists(k, k in claims)`:              false,
		`"x"`:                                       false, // not a condition
		`1 + 1`:                                     false,
		`dyn(true)`:                                 false,
		`unknown == 1`:                              false,
		`claims.a ==`:                               false,
		`claims.a == "text"`:                        false, // a claim is a list
	} {
		c, err := compileCondition(when)
		if (err == nil) != legal {
			t.Errorf("%s: %v, want legal %v (%+v)", when, err, legal, c)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the fault takes several lines: %v", when, err)
		}
	}
}

// TestCostlyConditionIsUndecided: a condition that would run for long neither
// grants nor removes.
func TestCostlyConditionIsUndecided(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf(`"v%d"`, i))
	}
	const when = `claims.many.exists(a, claims.many.exists(b, claims.many.exists(c, a + b + c == "no")))`
	rules := ruleset(t, Rule{Source: "s", Claim: "groups", Value: "a", Group: "g", When: when})
	w := rules.Apply(statement(t, "s", `{"groups":"a","many":[`+strings.Join(many, ",")+`]}`), keep())
	if len(w.Undecided) != 1 || len(w.Grants) > 0 || w.Complete {
		t.Errorf("undecided %v, grants %v", w.Undecided, w.Grants)
	}
	w = rules.Apply(statement(t, "s", `{"groups":"a","many":["n","o",""]}`), keep())
	if len(w.Undecided) != 0 {
		t.Errorf("a cheap evaluation is undecided: %v", w.Undecided)
	}
}

// TestUndecidedRuleHoldsOnlyItsOwnGrants: what another rule no longer grants
// goes all the same.
func TestUndecidedRuleHoldsOnlyItsOwnGrants(t *testing.T) {
	t.Parallel()
	rules := ruleset(t,
		Rule{Source: "s", Claim: "groups", Value: "a", Group: "g", When: `claims.x == ["y"]`},
		Rule{Source: "s", Claim: "groups", Value: "b", Group: "h"})
	w := rules.Apply(statement(t, "s", `{"groups":["a"]}`), keep())
	if !w.Keeps(Grant{"g", "s", "r0", "groups", "a"}) {
		t.Error("the undecided rule's grant went")
	}
	if w.Keeps(Grant{"h", "s", "r1", "groups", "b"}) {
		t.Error("a grant whose value is gone stays")
	}
}

// TestAskingForAClaimDoesNotDemandIt: has() exists for people who lack the
// claim. Reading it without asking is what when_absent speaks about.
func TestAskingForAClaimDoesNotDemandIt(t *testing.T) {
	t.Parallel()
	for when, denied := range map[string]string{
		`!has(claims.contractor)`:     "",
		`claims.contractor == ["no"]`: "contractor",
	} {
		rules := ruleset(t, Rule{Source: "s", Claim: "groups", Value: "a", Group: "g", When: when})
		w := rules.Apply(statement(t, "s", `{"groups":["a"]}`), SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: claims.Deny})
		if w.Denied != denied || denied == "" && (!w.Complete || len(w.Grants) != 1) {
			t.Errorf("when %s: denied %q, complete %v, grants %v", when, w.Denied, w.Complete, w.Grants)
		}
		if !slices.Contains(rules.Claims("s"), "contractor") {
			t.Errorf("when %s: nobody would ask userinfo for the claim", when)
		}
	}
}
