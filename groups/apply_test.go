package groups

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/groupgate/groupgate/claims"
)

// TestThreeStatesDecide is the table of contract section 7: what each state of
// the claim does, for every when_absent, at a login and afterwards. GS-01,
// GS-02, GS-03, GS-04, S0-05.
func TestThreeStatesDecide(t *testing.T) {
	t.Parallel()
	const (
		complete = "complete"
		absent   = "absent"
		unknown  = "unknown"
	)
	claimsOf := []struct {
		name, js, state, groups string
	}{
		{"list", `{"groups":["a","b"]}`, complete, "ga gb"},
		{"one text is one value", `{"groups":"a"}`, complete, "ga"},
		{"duplicates and empty texts", `{"groups":["a","","a"]}`, complete, "ga"},
		{"a comma cuts nothing", `{"groups":"a,b"}`, complete, ""},
		{"empty list", `{"groups":[]}`, complete, ""},
		{"empty text", `{"groups":""}`, complete, ""},
		{"not there", `{"roles":["a"]}`, absent, ""},
		{"other case of the name", `{"Groups":["a"]}`, absent, ""},
		{"null", `{"groups":null}`, unknown, ""},
		{"number", `{"groups":7}`, unknown, ""},
		{"boolean", `{"groups":true}`, unknown, ""},
		{"object", `{"groups":{"a":"b"}}`, unknown, ""},
		{"number in the list", `{"groups":["a",7]}`, unknown, ""},
		{"null in the list", `{"groups":["a",null]}`, unknown, ""},
		{"list in the list", `{"groups":["a",["b"]]}`, unknown, ""},
		{"overage", `{"_claim_names":{"groups":"src1"}}`, unknown, ""},
		{"overage beside values", `{"groups":["a"],"hasgroups":true}`, unknown, ""},
		{"overage link", `{"groups.link":"https://graph"}`, unknown, ""},
		{"too long", `{"groups":["a","` + strings.Repeat("x", claims.MaxValueBytes+1) + `"]}`, unknown, ""},
	}
	rules := ruleset(t,
		Rule{Source: "s", Claim: "groups", Value: "a", Group: "ga"},
		Rule{Source: "s", Claim: "groups", Value: "b", Group: "gb"})
	old := Grant{Group: "gz", Source: "s", Rule: "r9", Claim: "groups", Value: "z"}
	for _, c := range claimsOf {
		for _, absence := range []claims.WhenAbsent{claims.Keep, claims.Clear, claims.Deny} {
			for _, lenient := range []bool{false, true} {
				t.Run(c.name+"/"+string(absence)+map[bool]string{true: "/refresh"}[lenient], func(t *testing.T) {
					p := SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: absence, Lenient: lenient}
					w := rules.Apply(statement(t, "s", c.js), p)
					if got := w.States["groups"].State.String(); got != c.state {
						t.Errorf("state %s, want %s", got, c.state)
					}
					if got := granted(w); got != c.groups {
						t.Errorf("grants %q, want %q", got, c.groups)
					}
					removes := c.state == complete || c.state == absent && absence == claims.Clear
					if w.Complete != removes {
						t.Errorf("complete %v, want %v", w.Complete, removes)
					}
					if w.Keeps(old) == removes {
						t.Errorf("an earlier grant is kept: %v, want %v", !removes, removes)
					}
					if (w.Problems() == nil) != removes {
						t.Errorf("problems %v", w.Problems())
					}
					refused := c.state == absent && absence == claims.Deny && !lenient
					if (w.Denied == "groups") != refused {
						t.Errorf("denied %q, want refused %v", w.Denied, refused)
					}
				})
			}
		}
	}
}

// GS-05: a part that could not be asked removes nothing and refuses nobody.
func TestIncompleteStatementKnowsNothingAbsent(t *testing.T) {
	t.Parallel()
	rules := ruleset(t, Rule{Source: "s", Claim: "groups", Value: "a", Group: "ga"})
	for _, absence := range []claims.WhenAbsent{claims.Keep, claims.Clear, claims.Deny} {
		p := SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: absence}
		id := statement(t, "s", `{}`)
		id.Claims = id.Claims.WithIncomplete("userinfo did not answer")
		if w := rules.Apply(id, p); w.Complete || w.Denied != "" || w.States["groups"].State != claims.Unknown {
			t.Errorf("%s: %+v, want unknown, which neither removes nor refuses", absence, w.States)
		}
	}
}

// TestValueIsComparedByteForByte: GV-04 and GV-05.
func TestValueIsComparedByteForByte(t *testing.T) {
	t.Parallel()
	rules := ruleset(t,
		Rule{Source: "s", Claim: "groups", Value: "kadmin", Group: "k"},
		Rule{Source: "s", Claim: "groups", Value: "admins", Group: "a"},
		Rule{Source: "s", Claim: "groups", Value: "caf\u00e9", Group: "nfc"},
		Rule{Source: "s", Claim: "groups", Value: " pad ", Group: "p"})
	for value, want := range map[string]string{
		"kadmin": "k", "admins": "a", "caf\u00e9": "nfc", " pad ": "p", // controls
		"KADMIN": "", "Kadmin": "", "\u212aadmin": "", // Kelvin sign
		"admin\u017f": "", // long s
		"\u0430dmins": "", // Cyrillic a
		"cafe\u0301":  "", // NFD
		"pad":         "", " pad": "", "pad ": "", "\u00a0pad\u00a0": "", "\\tpad ": "",
		" admins": "", "admins ": "", "admins\u200b": "", "admins\\n": "", "not-admins": "", "admins2": "",
		"admins,kadmin": "", "admins;kadmin": "",
	} {
		checkGrants(t, rules, `{"groups":["`+value+`"]}`, want)
	}
}

// GV-10, GV-12, S0-10.
func TestRegexpIsAnchored(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expr, group, value, want string }{
		{"admins", "g", "admins", "g"},
		{"admins", "g", "not-admins", ""},
		{"admins", "g", "admins2", ""},
		{"a|b", "g", "b", "g"},
		{"a|b", "g", "ab", ""},
		{"a|b", "g", "xb", ""},
		{"(?m)^admins$", "g", "admins", "g"},
		{"(?m)^admins$", "g", `x\nadmins\ny`, ""},
		{"admins$", "g", `admins\n`, ""},
		{"(?i)ADMINS", "g", "admins", "g"},
		{"(?s).*", "g", `x\ny`, "g"},
		{".*", "g", `x\ny`, ""},
		{"CN=app-([a-z0-9]+),OU=Apps,.*", "$1", "CN=app-wiki,OU=Apps,DC=x", "wiki"},
		{"(?P<app>[a-z]+)-(ro|rw)", "${app}/$2", "wiki-ro", "wiki/ro"},
		{"([a-z]+)", "${1}x", "ab", "abx"},
		{"([a-z]+)", "$$1", "ab", "$1"},
		{"([a-z]+)", "cost $", "ab", "cost $"},
		{"a(b)?", "g$1", "a", "g"},
		{"(.*)", "$0", "a", "a"},
		{"(a)|(b)", "$2", "a", ""}, // an empty name is granted to nobody, see TestDiffSkips
	} {
		rules := ruleset(t, Rule{Source: "s", Claim: "groups", Regexp: c.expr, Group: c.group})
		checkGrants(t, rules, `{"groups":["`+c.value+`"]}`, c.want)
	}
}

// GV-08: no text is cut unless a rule asks for it.
func TestSplitOnlyWhereAsked(t *testing.T) {
	t.Parallel()
	rules := ruleset(t,
		Rule{Source: "s", Claim: "groups", Split: ";", Value: "Sales", Group: "sales"},
		Rule{Source: "s", Claim: "groups", Value: "Sales", Group: "whole"},
		Rule{Source: "s", Claim: "groups", Split: "||", Any: true},
		Rule{Source: "s", Claim: "groups", Split: ";", DN: "cn=a,dc=x", Group: "dn"},
		Rule{Source: "s", Claim: "groups", Split: ";", Regexp: "t-(.)", Group: "team-$1"})
	for value, want := range map[string]string{
		"Sales":           "Sales sales whole",
		"Sales;IT":        "Sales;IT sales",
		";;Sales;":        ";;Sales; sales",
		"Sales ;IT":       "Sales ;IT", // blanks are part of the piece
		"one||two":        "one two",
		"||":              "",
		"|||a":            "|a", // cut from the left: "" and "|a"
		"CN=A, DC=x;t-1":  "CN=A, DC=x;t-1 dn team-1",
		"t-1;t-2;t-1;t-3": "t-1;t-2;t-1;t-3 team-1 team-2 team-3",
	} {
		checkGrants(t, rules, `{"groups":["`+value+`"]}`, want)
	}
}

func TestAnyTakesTheValueAsTheName(t *testing.T) {
	t.Parallel()
	w := ruleset(t, Rule{Source: "s", Claim: "groups", Any: true}).
		Apply(statement(t, "s", `{"groups":["b"," a ","\u0000","a,b"]}`), keep())
	want := []Grant{
		{"\x00", "s", "r0", "groups", "\x00"}, {" a ", "s", "r0", "groups", " a "},
		{"a,b", "s", "r0", "groups", "a,b"}, {"b", "s", "r0", "groups", "b"},
	}
	if d := cmp.Diff(want, w.Grants); d != "" {
		t.Error(d)
	}
}

// TestEveryReasonIsAGrant: two rules and two values that mean one group are
// four reasons.
func TestEveryReasonIsAGrant(t *testing.T) {
	t.Parallel()
	w := ruleset(t,
		Rule{ID: "y", Source: "s", Claim: "groups", Regexp: "[ab]", Group: "g"},
		Rule{ID: "x", Claim: "groups", Value: "a", Group: "g"},
	).Apply(statement(t, "s", `{"groups":["b","a"]}`), keep())
	want := []Grant{{"g", "s", "x", "groups", "a"}, {"g", "s", "y", "groups", "a"}, {"g", "s", "y", "groups", "b"}}
	if d := cmp.Diff(want, w.Grants); d != "" {
		t.Error(d)
	}
}

// GV-13: a rule names the source and the exact claim it believes.
func TestRulesOfAnotherSourceDoNotSpeak(t *testing.T) {
	t.Parallel()
	rules := ruleset(t,
		Rule{Source: "other", Claim: "groups", Value: "admin", Group: "other"},
		Rule{Source: "s", Claim: "groups", Value: "user", Group: "ours"},
		Rule{Claim: "roles", Value: "admin", Group: "everywhere"})
	checkGrants(t, rules, `{"groups":["admin"]}`, "")
	checkGrants(t, rules, `{"groups":["user"]}`, "ours")
	checkGrants(t, rules, `{"roles":["admin"]}`, "everywhere")
	p := SourcePolicy{Source: "other", Claims: []string{"groups"}, WhenAbsent: claims.Clear}
	w := rules.Apply(statement(t, "other", `{"groups":["admin","user"],"roles":"admin"}`), p)
	if got := granted(w); got != "everywhere other" {
		t.Errorf("other grants %q", got)
	}
	for _, g := range w.Grants {
		if g.Source != "other" {
			t.Errorf("grant %+v does not name the source that stated it", g)
		}
	}
}

// TestSourcelessRuleIsForSourcesThatHaveTheClaim: a rule of every source does
// not refuse the logins of a source that never sends the claim.
func TestSourcelessRuleIsForSourcesThatHaveTheClaim(t *testing.T) {
	t.Parallel()
	p := SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: claims.Deny}
	id := statement(t, "s", `{"groups":["a"]}`)
	if w := ruleset(t, Rule{Claim: "roles", Value: "x", Group: "g"}).Apply(id, p); w.Denied != "" {
		t.Errorf("a rule of every source refuses the login for %q", w.Denied)
	}
	if w := ruleset(t, Rule{Source: "s", Claim: "roles", Value: "x", Group: "g"}).Apply(id, p); w.Denied != "roles" {
		t.Errorf("denied %q, want roles: a rule of this source reads it", w.Denied)
	}
}

func TestClaimByPointer(t *testing.T) {
	t.Parallel()
	rules := ruleset(t,
		Rule{Source: "s", Claim: "/realm_access/roles", Value: "admin", Group: "nested"},
		Rule{Source: "s", Claim: "a/b", Value: "x", Group: "plain"},
		Rule{Source: "s", Claim: "/a~1b", Value: "x", Group: "escaped"})
	checkGrants(t, rules, `{"realm_access":{"roles":["admin"]}}`, "nested")
	checkGrants(t, rules, `{"/realm_access/roles":["admin"]}`, "")
	checkGrants(t, rules, `{"a/b":"x"}`, "escaped plain")
	w := rules.Apply(statement(t, "s", `{"realm_access":"admin"}`), keep())
	if w.States["/realm_access/roles"].State != claims.Unknown {
		t.Error("a step through a text is not absence")
	}
}

func TestDefaultGroupsEndWhereRulesBegin(t *testing.T) {
	t.Parallel()
	p := keep()
	p.Default = []string{"everyone", "beta", "everyone"}
	id := statement(t, "s", `{"groups":["a"]}`)
	w := ruleset(t, Rule{Source: "other", Claim: "groups", Value: "a", Group: "g"}).Apply(id, p)
	want := []Grant{{"beta", "s", DefaultRule, "", ""}, {"everyone", "s", DefaultRule, "", ""}}
	if d := cmp.Diff(want, w.Grants); d != "" {
		t.Errorf("uncovered source: %s", d)
	}
	for name, r := range map[string]Rule{
		"its own":      {Source: "s", Claim: "groups", Value: "nobody", Group: "g"},
		"every source": {Claim: "groups", Value: "nobody", Group: "g"},
	} {
		w := ruleset(t, r).Apply(id, p)
		if len(w.Grants) > 0 {
			t.Errorf("rule of %s: default groups still granted: %v", name, w.Grants)
		}
		if w.Keeps(want[0]) {
			t.Errorf("rule of %s: an earlier default group stays", name)
		}
	}
	covered := ruleset(t, Rule{Source: "s", Claim: "groups", Value: "nobody", Group: "g"})
	if w := covered.Apply(statement(t, "s", `{"groups":null}`), p); !w.Keeps(want[0]) {
		t.Error("an unknown claim took a default group away")
	}
}

func TestProblemsCarryNoValues(t *testing.T) {
	t.Parallel()
	rules := ruleset(t, Rule{Source: "s", Claim: "roles", Value: "x", Group: "g"})
	w := rules.Apply(statement(t, "s", `{"groups":["canary",7],"roles":["x"]}`), keep())
	problems := w.Problems()
	if len(problems) != 1 || problems["groups"].State != claims.Unknown || problems["groups"].Why == "" {
		t.Fatalf("problems %v, want groups unknown with a reason", problems)
	}
	if strings.Contains(problems["groups"].Why, "canary") || len(problems["groups"].Values) > 0 {
		t.Errorf("a value leaks: %v", problems)
	}
}

func TestRulesListsWhatItReads(t *testing.T) {
	t.Parallel()
	rules := ruleset(t,
		Rule{Source: "s", Claim: "groups", Value: "x", Group: "g", When: `has(claims.b) && "c" in claims && claims.a == []`},
		Rule{Claim: "everywhere", Any: true},
		Rule{Source: "other", Claim: "elsewhere", Any: true})
	if got, want := rules.Claims("s"), []string{"a", "b", "c", "everywhere", "groups"}; !slices.Equal(got, want) {
		t.Errorf("claims %v, want %v", got, want)
	}
	if len(rules.All()) != 3 || rules.All()[1].Claim != "everywhere" {
		t.Errorf("All does not keep the order: %v", rules.All())
	}
}
