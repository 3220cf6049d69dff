package groups

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/groupgate/groupgate/claims"
)

// Rule says which value of which group claim of which source means which
// group. Exactly one of Value, DN, Regexp and Any is set.
type Rule struct {
	ID string `yaml:"-" json:"id,omitempty"` // stable; of a file's rule a hash of its content
	// Location is "FILE:LINE" of a rule that a configuration file owns, empty
	// for one that the store owns.
	Location string `yaml:"-" json:"location,omitempty"`
	// Version counts the writes of a rule that the store owns.
	Version int64 `yaml:"-" json:"version,omitempty"`

	Source string `yaml:"source" json:"source,omitempty"` // empty: every source that has the claim
	Claim  string `yaml:"claim" json:"claim"`
	Value  string `yaml:"value" json:"value,omitempty"`   // byte for byte
	DN     string `yaml:"dn" json:"dn,omitempty"`         // a distinguished name, by RFC 4514 structure
	Regexp string `yaml:"regexp" json:"regexp,omitempty"` // RE2, anchored at both ends
	Any    bool   `yaml:"any" json:"any,omitempty"`       // the value is the group's name
	Split  string `yaml:"split" json:"split,omitempty"`   // cut each value at this text first
	When   string `yaml:"when" json:"when,omitempty"`     // CEL over claims and source
	Group  string `yaml:"group" json:"group,omitempty"`   // with Regexp a template: $1, ${name}
}

// Describe writes what the rule looks for, in one line for people.
func (r Rule) Describe() string {
	var b strings.Builder
	if r.Source != "" {
		b.WriteString(r.Source + " ")
	}
	b.WriteString(r.Claim)
	switch {
	case r.Any:
		b.WriteString(" any")
	case r.DN != "":
		b.WriteString(" dn " + strconv.Quote(r.DN))
	case r.Regexp != "":
		b.WriteString(" regexp " + strconv.Quote(r.Regexp))
	default:
		b.WriteString(" = " + strconv.Quote(r.Value))
	}
	if r.Split != "" {
		b.WriteString(" split " + strconv.Quote(r.Split))
	}
	if r.When != "" {
		b.WriteString(" when " + r.When)
	}
	return b.String()
}

// Bounds of one rule. A legal expression can still cost seconds on a long
// value (RE2 is linear in both), so its compiled size is bounded as well.
const (
	maxExpression = 4 << 10 // bytes of a regexp, a DN or a CEL expression
	maxProgram    = 2000    // instructions of a compiled regexp
	maxNameBytes  = 512     // of a group's name
)

// RuleError is what is wrong with one rule.
type RuleError struct {
	Index int    // in the list given to Compile
	Key   string // the rule's key that is wrong
	Err   error
}

func (e *RuleError) Error() string { return fmt.Sprintf("rules[%d].%s: %v", e.Index, e.Key, e.Err) }
func (e *RuleError) Unwrap() error { return e.Err }

// Rules is a compiled set of rules. It is immutable and safe for concurrent
// use. Exact and DN rules cost one map lookup a value, however many there are.
type Rules struct {
	list     []compiled
	tables   map[string][]*table // by source; "" holds the rules of every source
	covered  map[string]bool     // sources that a rule names; "" when a rule names none
	byClaims map[string][]string // claims that rules read or ask for, by source
	required map[string][]string // of these, those that count when they are absent
}

type compiled struct {
	Rule
	expr *regexp.Regexp
	when *condition
}

// table holds the rules of one source that read one claim in one way.
type table struct {
	claim, split string
	exact, dn    map[string][]int // indexes into Rules.list
	scan         []int
}

// Compile checks rules and makes them ready to apply. Its error joins one
// [*RuleError] for every fault of every rule.
func Compile(rules []Rule) (*Rules, error) {
	out := &Rules{
		list:     make([]compiled, len(rules)),
		tables:   map[string][]*table{},
		covered:  map[string]bool{},
		byClaims: map[string][]string{},
		required: map[string][]string{},
	}
	type tableKey struct{ source, claim, split string }
	tables := map[tableKey]*table{}
	var faults []error
	for i, r := range rules {
		c, dn, errs := compileRule(i, r)
		if errs != nil {
			faults = append(faults, errs...)
			continue
		}
		out.list[i] = c
		key := tableKey{r.Source, r.Claim, r.Split}
		t := tables[key]
		if t == nil {
			t = &table{claim: r.Claim, split: r.Split, exact: map[string][]int{}, dn: map[string][]int{}}
			tables[key] = t
			out.tables[r.Source] = append(out.tables[r.Source], t)
		}
		switch {
		case r.DN != "":
			t.dn[dn] = append(t.dn[dn], i)
		case r.Regexp != "" || r.Any:
			t.scan = append(t.scan, i)
		default:
			t.exact[r.Value] = append(t.exact[r.Value], i)
		}
		out.covered[r.Source] = true
		out.noteClaims(r.Source, c)
	}
	return out, errors.Join(faults...)
}

func (r *Rules) noteClaims(source string, c compiled) {
	note := func(m map[string][]string, names ...string) {
		for _, n := range names {
			if !slices.Contains(m[source], n) {
				m[source] = append(m[source], n)
			}
		}
	}
	note(r.byClaims, c.Claim)
	note(r.required, c.Claim)
	if c.when != nil {
		note(r.byClaims, c.when.reads...)
		note(r.required, c.when.reads...)
		note(r.byClaims, c.when.tests...)
	}
}

func compileRule(i int, r Rule) (c compiled, dn string, faults []error) {
	fault := func(key, format string, args ...any) {
		faults = append(faults, &RuleError{i, key, fmt.Errorf(format, args...)})
	}
	c.Rule = r
	if err := claims.CheckName(r.Claim); err != nil {
		fault("claim", "%w", err)
	}
	kinds := 0
	for _, set := range []bool{r.Value != "", r.DN != "", r.Regexp != "", r.Any} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		fault("value", "a rule has exactly one of value, dn, regexp and any; this one has %d", kinds)
	}
	switch {
	case r.Any && r.Group != "":
		fault("group", "with any, the value is the group's name: group must go")
	case !r.Any && r.Group == "":
		fault("group", "the rule does not say which group it means")
	case len(r.Group) > maxNameBytes:
		fault("group", "longer than %d bytes", maxNameBytes)
	}
	var err error
	if r.DN != "" {
		if len(r.DN) > maxExpression {
			fault("dn", "longer than %d bytes", maxExpression)
		} else if dn, err = canonicalDN(r.DN); err != nil {
			fault("dn", "not a distinguished name (RFC 4514): %w", err)
		}
	}
	if r.Regexp != "" {
		if c.expr, err = compileRegexp(r.Regexp); err != nil {
			fault("regexp", "%w", err)
		} else if err = checkTemplate(c.expr, r.Group); err != nil {
			fault("group", "%w", err)
		}
	}
	if r.When != "" {
		if c.when, err = compileCondition(r.When); err != nil {
			fault("when", "%w", err)
		}
	}
	return c, dn, faults
}

// compileRegexp anchors the expression at both ends of the value: unanchored,
// "admins" would also match "not-admins".
func compileRegexp(expr string) (*regexp.Regexp, error) {
	if len(expr) > maxExpression {
		return nil, fmt.Errorf("longer than %d bytes", maxExpression)
	}
	// Compiled alone first, so that "a)(b" does not become legal inside the
	// group that anchors it.
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxProgram {
		return nil, fmt.Errorf("too costly: it compiles to %d instructions, at most %d are allowed", len(prog.Inst), maxProgram)
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

// templateRef finds what regexp.Expand takes for a reference: letters and
// digits are those of Unicode there.
var templateRef = regexp.MustCompile(`\$(\$|[\p{L}\p{Nd}_]+|\{[^}]*\}?)`)

// checkTemplate refuses a reference to something the expression does not
// capture: regexp would silently put nothing there, and "$1x" reads "1x".
// A number is one only as Expand reads it: "$01" is a name.
func checkTemplate(expr *regexp.Regexp, template string) error {
	for _, m := range templateRef.FindAllStringSubmatch(template, -1) {
		if m[1] == "$" {
			continue
		}
		name, closed := m[1], true
		if inner, braced := strings.CutPrefix(name, "{"); braced {
			name, closed = strings.CutSuffix(inner, "}")
		}
		if n, err := strconv.Atoi(name); closed && err == nil && n >= 0 && strconv.Itoa(n) == name {
			if n > expr.NumSubexp() {
				return fmt.Errorf("%s: the expression has %d capture groups", m[0], expr.NumSubexp())
			}
			continue
		}
		if !closed || name == "" || !slices.Contains(expr.SubexpNames(), name) {
			return fmt.Errorf("%s: the expression captures no %q (write ${1}x for group 1 followed by x, $$ for a dollar sign)", m[0], name)
		}
	}
	return nil
}

// All lists the rules in the order they were given.
func (r *Rules) All() []Rule {
	out := make([]Rule, len(r.list))
	for i := range r.list {
		out[i] = r.list[i].Rule
	}
	return out
}

// Covers reports whether a rule speaks about the source: default groups end
// where rules begin.
func (r *Rules) Covers(source string) bool { return r.covered[source] || r.covered[""] }

// Claims lists the claims that rules read of the source's statements, sorted.
func (r *Rules) Claims(source string) []string {
	set := map[string]bool{}
	for _, n := range r.byClaims[source] {
		set[n] = true
	}
	for _, n := range r.byClaims[""] {
		set[n] = true
	}
	return slices.Sorted(maps.Keys(set))
}
