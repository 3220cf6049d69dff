package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/groupgate/groupgate/groups"
)

// rules checks what only the file can tell (a key written empty, a source
// that does not exist, the same rule twice) and leaves what a rule means to
// package groups. It gives each rule its id and its place.
func (c *checker) rules() {
	for i := range c.cfg.Rules {
		r := &c.cfg.Rules[i]
		at := item("rules", i)
		line := c.at(at).line
		r.Location = c.base + ":" + strconv.Itoa(line)
		r.ID = ruleID(*r)
		for key, value := range map[string]string{
			"source": r.Source, "claim": r.Claim, "value": r.Value, "dn": r.DN,
			"regexp": r.Regexp, "split": r.Split, "when": r.When, "group": r.Group,
		} {
			// A blank is a value like any other, and may be what splits one.
			if value == "" && c.written(at+"."+key) {
				c.fault(at+"."+key, "is empty")
			}
		}
		c.missing(at+".claim", r.Claim, "")
		c.empty(at+".group", r.Group, "")
		c.ruleSource(at, r)
	}
	var err error
	c.cfg.compiled, err = groups.Compile(c.cfg.Rules)
	for _, e := range ruleErrors(err) {
		c.ruleFault(item("rules", e.Index), e)
	}
	first := map[string]int{}
	for i, r := range c.cfg.Rules {
		at := item("rules", i)
		if c.inside[at] {
			continue
		}
		if other, twice := first[r.ID]; twice {
			c.fault(at, "the same rule stands in line %d", c.at(item("rules", other)).line)
		} else {
			first[r.ID] = i
		}
	}
}

// ruleSource checks the source that a rule names, and that the claim is one
// that such a source can have.
func (c *checker) ruleSource(at string, r *groups.Rule) {
	if r.Source == "" {
		return
	}
	s := c.cfg.Source(r.Source)
	switch {
	case s == nil:
		c.fault(at+".source", "%s", c.noSource(at+".source", r.Source))
	case s.Local != nil:
		c.fault(at+".source", "is local, and nothing states the groups of local users: an administrator makes them members")
	case s.LDAP != nil:
		c.attribute(at+".claim", r.Claim)
	}
}

// ruleFault brings a fault of package groups to its place in the file.
func (c *checker) ruleFault(at string, e *groups.RuleError) {
	path := at + "." + e.Key
	if e.Key == "value" && !c.written(path) {
		// How many of the four a rule has is said of the rule as a whole, and
		// only when it is not the outcome of another fault.
		if path = at; c.inside[at] {
			return
		}
	}
	msg := e.Err.Error()
	for _, key := range []string{"value", "dn", "regexp", "when", "group", "claim"} {
		if c.expanded[at+"."+key] {
			msg = c.explain(at+"."+key, e.Err)
		}
	}
	c.fault(path, "%s", msg)
}

// ruleErrors takes apart what [groups.Compile] joined.
func ruleErrors(err error) []*groups.RuleError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*groups.RuleError
		for _, e := range joined.Unwrap() {
			all = append(all, ruleErrors(e)...)
		}
		return all
	}
	var one *groups.RuleError
	if errors.As(err, &one) {
		return []*groups.RuleError{one}
	}
	return nil
}

// ruleID is a name that a rule keeps while it means the same: moving it about
// in the file changes nothing, changing a word makes it another rule. Lengths
// keep neighbouring parts from running together.
func ruleID(r groups.Rule) string {
	h := sha256.New()
	for _, part := range []string{
		r.Source, r.Claim, r.Value, r.DN, r.Regexp, strconv.FormatBool(r.Any), r.Split, r.When, r.Group,
	} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return "f-" + hex.EncodeToString(h.Sum(nil))[:10]
}
