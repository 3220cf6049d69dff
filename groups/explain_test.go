package groups

import (
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
)

// TestExplainSaysWhy: each value with each rule's verdict, in words that tell
// near misses from misses.
func TestExplainSaysWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule  Rule
		value string
		hit   bool
		group string
		why   string
	}{
		{Rule{Value: "Admins", Group: "g"}, "Admins", true, "g", "equal byte for byte"},
		{Rule{Value: "Admins", Group: "g"}, "admins", false, "", "differs in upper and lower case"},
		{Rule{Value: "Admins", Group: "g"}, " Admins", false, "", "differs in blanks at its ends"},
		{Rule{Value: "Admins", Group: "g"}, "other", false, "", "another value"},
		{Rule{Value: "kadmin", Group: "g"}, "\u212aadmin", false, "", "another value"},
		{Rule{Any: true}, "x", true, "x", "any value is a group's name"},
		{Rule{Regexp: "app-(.)", Group: "$1"}, "app-x", true, "x", "the expression matches the whole value"},
		{Rule{Regexp: "app-(.)", Group: "$1"}, "my-app-x", false, "", "the expression does not match the whole value"},
		{Rule{DN: "CN=a,DC=x", Group: "g"}, "cn=A, dc=x", true, "g", "the same distinguished name"},
		{Rule{DN: "CN=a,DC=x", Group: "g"}, "DC=x,CN=a", false, "", "another distinguished name"},
		{Rule{DN: "CN=a,DC=x", Group: "g"}, "a", false, "", "the value is not a distinguished name"},
		{Rule{Value: "a", Group: "g", When: `has(claims.x)`}, "a", false, "", "equal byte for byte, but the condition is false"},
		{Rule{Value: "a", Group: "g", When: `has(claims.groups)`}, "a", true, "g", "equal byte for byte, and the condition holds"},
		{Rule{Value: "a", Group: "g", When: `claims.x == []`}, "a", false, "", "the condition reads x: the claim is absent"},
		{Rule{Value: "a", Group: "g", Split: ";"}, ";a", true, "g", `piece "a": equal byte for byte`},
		{Rule{Value: "a", Group: "g", Split: ";"}, ";;", false, "", "nothing is left after the split"},
	} {
		c.rule.Source, c.rule.Claim, c.rule.Location = "s", "groups", "rules.yaml:3"
		id := statement(t, "s", `{}`)
		id.Claims = claims.FromMap(map[string][]string{"groups": {c.value}})
		x := ruleset(t, c.rule).Explain(id, keep())
		var got ExplainedRule
		for _, ec := range x.Claims {
			if ec.Claim == "groups" {
				got = ec.Values[0].Rules[0]
			}
		}
		if got.Hit != c.hit || got.Group != c.group || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s, value %q: %+v, want %v %q because %q", c.rule.Describe(), c.value, got, c.hit, c.group, c.why)
		}
		if got.Rule != "r0" || got.Location != "rules.yaml:3" || got.Text != c.rule.Describe() {
			t.Errorf("the rule is not named: %+v", got)
		}
	}
}

func TestExplainSaysWhatAStateMayDo(t *testing.T) {
	t.Parallel()
	rules := ruleset(t, Rule{Source: "s", Claim: "roles", Value: "x", Group: "g"}, Rule{Source: "t", Claim: "far", Any: true})
	for _, c := range []struct {
		js      string
		absence claims.WhenAbsent
		effect  string
		denied  string
	}{
		{`{"groups":["a"],"roles":"x"}`, claims.Deny, "grants and removes", ""},
		{`{"roles":"x"}`, claims.Keep, "grants nothing, removes nothing (when_absent: keep)", ""},
		{`{"roles":"x"}`, claims.Clear, "counts as an empty list (when_absent: clear)", ""},
		{`{"roles":"x"}`, claims.Deny, "the login is refused (when_absent: deny)", "groups"},
		{`{"roles":"x","groups":null}`, claims.Clear, "grants nothing, removes nothing", ""},
	} {
		p := SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: c.absence}
		x := rules.Explain(statement(t, "s", c.js), p)
		if len(x.Claims) != 2 || x.Claims[0].Claim != "groups" || x.Claims[1].Claim != "roles" {
			t.Fatalf("claims %+v, want groups and roles of this source, in order", x.Claims)
		}
		if x.Claims[0].Effect != c.effect || x.Denied != c.denied {
			t.Errorf("%s with %s: effect %q, denied %q", c.js, c.absence, x.Claims[0].Effect, x.Denied)
		}
		if !x.Claims[1].Values[0].Rules[0].Hit {
			t.Error("the other claim's rule does not hit")
		}
	}
}
