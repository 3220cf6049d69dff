package groups

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// faultsOf lists "index.key" of every fault in an error of Compile.
func faultsOf(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not a joined error: %v", err, err)
	}
	var out []string
	for _, e := range joined.Unwrap() {
		re, ok := errors.AsType[*RuleError](e)
		if !ok {
			t.Fatalf("%v is no RuleError", e)
		}
		out = append(out, fmt.Sprintf("%d.%s", re.Index, re.Key))
	}
	return out
}

// GV-10, S0-10: costly and long expressions do not start.
func TestCompileNamesEachFault(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	good := Rule{Source: "s", Claim: "groups", Value: "a", Group: "g"}
	re := func(expr, group string) Rule { return Rule{Claim: "groups", Regexp: expr, Group: group} }
	when := func(expr string) Rule { r := good; r.When = expr; return r }
	for name, c := range map[string]struct {
		rule Rule
		key  string // empty: legal
	}{
		"value":                        {good, ""},
		"dn":                           {Rule{Claim: "memberOf", DN: "CN=a,DC=b", Group: "g"}, ""},
		"any":                          {Rule{Claim: "groups", Any: true}, ""},
		"no claim":                     {Rule{Value: "a", Group: "g"}, "claim"},
		"bad pointer":                  {Rule{Claim: "/a~2", Value: "a", Group: "g"}, "claim"},
		"no kind":                      {Rule{Claim: "groups", Group: "g"}, "value"},
		"two kinds":                    {Rule{Claim: "groups", Value: "a", DN: "CN=a", Group: "g"}, "value"},
		"value and any":                {Rule{Claim: "groups", Value: "a", Any: true}, "value"},
		"no group":                     {Rule{Claim: "groups", Value: "a"}, "group"},
		"any with a group":             {Rule{Claim: "groups", Any: true, Group: "g"}, "group"},
		"long group":                   {Rule{Claim: "groups", Value: "a", Group: long}, "group"},
		"bad dn":                       {Rule{Claim: "memberOf", DN: "admins", Group: "g"}, "dn"},
		"long dn":                      {Rule{Claim: "memberOf", DN: "CN=" + long, Group: "g"}, "dn"},
		"regexp":                       {re("a(b|c)", "g-$1"), ""},
		"bad regexp":                   {re("a(b", "g"), "regexp"},
		"regexp that leaves its group": {re("a)(b", "g"), "regexp"},
		"alternative out of the group": {re("a)|(?:b", "g"), "regexp"},
		"look-ahead":                   {re("(?=a)", "g"), "regexp"},
		"open quote":                   {re(`\Qa`, "g"), "regexp"},
		"long regexp":                  {re(long, "g"), "regexp"},
		"costly regexp":                {re("(x{1,1000})*y?(.*)*(.*)*z", "g"), "regexp"},
		"costly nest":                  {re("((a{1,30}){1,30}){1,30}", "g"), "regexp"},
		"named group":                  {re("(?P<n>a)", "$n"), ""},
		"braces":                       {re("(a)", "${1}x"), ""},
		"whole match":                  {re("a", "$0"), ""},
		"dollar":                       {re("a", "$$1"), ""},
		"unknown number":               {re("(a)", "$2"), "group"},
		"unknown name":                 {re("(?P<n>a)", "$m"), "group"},
		"$1x reads 1x":                 {re("(a)", "$1x"), "group"},
		"$1_ reads 1_":                 {re("(a)", "$1_b"), "group"},
		"$1\u00e9 reads 1\u00e9":       {re("(a)", "$1\u00e9"), "group"},
		"$\u00e9":                      {re("(a)", "$\u00e9"), "group"},
		"leading zero":                 {re("(a)", "$01"), "group"},
		"signed number":                {re("(a)", "${+1}"), "group"},
		"negative number":              {re("(a)", "${-1}"), "group"},
		"empty braces":                 {re("(a)", "${}"), "group"},
		"open brace":                   {re("(a)", "${1"), "group"},
		"huge number":                  {re("(a)", "$99999999999999999999"), "group"},
		"when":                         {when(`source == "s"`), ""},
		"bad when":                     {when(`claims.`), "when"},
		"long when":                    {when(`"` + long + `" == ""`), "when"},
		"when is no condition":         {when(`claims.a`), "when"},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := Compile([]Rule{good, c.rule})
			var want []string
			if c.key != "" {
				want = []string{"1." + c.key}
			}
			if got := faultsOf(t, err); !slices.Equal(got, want) {
				t.Errorf("faults %v, want %v (%v)", got, want, err)
			}
			if rules == nil {
				t.Error("Compile answers no rules beside the faults")
			}
		})
	}
}

func TestCompileReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Compile([]Rule{
		{Claim: "", Value: "a", DN: "x", When: "1"},
		{Claim: "groups", Value: "a", Group: "g"},
		{Claim: "groups", Regexp: "(", Group: "g"},
		{Claim: "groups", Regexp: "a", Group: "$1"},
	})
	want := []string{"0.claim", "0.value", "0.group", "0.dn", "0.when", "2.regexp", "3.group"}
	if got := faultsOf(t, err); !slices.Equal(got, want) {
		t.Errorf("faults %v, want %v", got, want)
	}
	if !strings.Contains(err.Error(), "rules[2].regexp: ") {
		t.Errorf("a fault does not say where it is: %v", err)
	}
}

func TestGroupNamesMatchWhole(t *testing.T) {
	t.Parallel()
	names, err := CompileNames(`^[A-Za-z0-9]+$`)
	if err != nil {
		t.Fatal(err)
	}
	p := Policy{Names: names}
	for name, want := range map[string]bool{
		"abc": true, "A1": true, "": false, "a b": false, "a\n": false, "a,b": false, "\u00e9": false,
		"a\xff": false, strings.Repeat("a", maxNameBytes): true, strings.Repeat("a", maxNameBytes+1): false,
	} {
		if p.Allows(name) != want {
			t.Errorf("Allows(%q) = %v", name, !want)
		}
	}
	open := Policy{}
	if !open.Allows("a,b \u00e9") || open.Allows("") || open.Allows("\xff") {
		t.Error("without group_names any text that is UTF-8 is a name, and the empty one never")
	}
	if loose, err := CompileNames(`a|b`); err != nil || loose.MatchString("ab") || !loose.MatchString("b") {
		t.Errorf("group_names is not anchored: %v", err)
	}
	if none, err := CompileNames(""); none != nil || err != nil {
		t.Errorf("no group_names: %v, %v", none, err)
	}
	if _, err := CompileNames("("); err == nil {
		t.Error("a faulty group_names is taken")
	}
}

func TestDescribeSaysWhatARuleLooksFor(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Rule{
		`s groups = "a"`:                {Source: "s", Claim: "groups", Value: "a"},
		`groups any split ";"`:          {Claim: "groups", Any: true, Split: ";"},
		`s m dn "CN=a"`:                 {Source: "s", Claim: "m", DN: "CN=a"},
		`m regexp "a.*" when has(c.x)`:  {Claim: "m", Regexp: "a.*", When: "has(c.x)"},
		`s groups = "a" when true == 1`: {Source: "s", Claim: "groups", Value: "a", When: "true == 1"},
	} {
		if got := r.Describe(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
