package groups

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/claims"
)

// Explained is what "explain" answers: the rules' verdicts, the groups, and
// the difference to what is stored.
type Explained struct {
	Source  string       `json:"source"`
	Subject string       `json:"subject,omitempty"`
	User    string       `json:"user,omitempty"`
	Claims  *Explanation `json:"explanation"`
	Groups  []string     `json:"groups"`  // after this sync
	Added   []string     `json:"added"`   // by this sync
	Removed []string     `json:"removed"` // by this sync
	Skipped []Skip       `json:"skipped"`
	Kept    []string     `json:"kept"` // held by something else: people, another source, an unknown claim
	Refused string       `json:"refused,omitempty"`
}

// Explain says what a statement would do, for a known person when subject is
// given. It writes nothing.
func (d *Directory) Explain(ctx context.Context, id *claims.Identity) (*Explained, error) {
	st := d.state.Load()
	src := st.sources[id.Source]
	if src == nil {
		return nil, fmt.Errorf("source %q: %w", id.Source, ErrNotFound)
	}
	p := st.sourcePolicy(src, false)
	want := st.rules.Apply(id, p)
	out := &Explained{
		Source: id.Source, Subject: id.Subject, Claims: st.rules.Explain(id, p),
		Groups: []string{}, Added: []string{}, Removed: []string{}, Skipped: []Skip{}, Kept: []string{},
	}
	if err := src.Require.Check(id.Claims, st.names(src).Email); err != nil {
		out.Refused = err.Error()
	}
	if want.Denied != "" {
		out.Refused = fmt.Sprintf("claim %q is absent and must be there (when_absent: deny)", want.Denied)
	}
	var have []Membership
	if id.Subject != "" && d.Stored() {
		rec, err := d.store.Identity(ctx, id.Source, id.Subject)
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		if err == nil {
			if have, err = d.store.Memberships(ctx, rec.User); err != nil {
				return nil, err
			}
			if u, err := d.store.User(ctx, rec.User); err == nil {
				out.User = u.Name
			}
		}
	}
	controls, err := d.store.Controls(ctx, wantedNames(want))
	if err != nil {
		return nil, err
	}
	change := Diff(have, want, controls, st.policy)
	after := names(change.applyTo(have, controls))
	out.Groups = append(out.Groups, after...)
	out.Added = append(out.Added, change.Added...)
	out.Removed = append(out.Removed, change.Removed...)
	out.Skipped = append(out.Skipped, change.Skipped...)
	for _, g := range after {
		if !slices.ContainsFunc(want.Grants, func(w Grant) bool { return w.Group == g }) {
			out.Kept = append(out.Kept, g)
		}
	}
	return out, nil
}

// Explanation says, value by value, what every rule made of it.
type Explanation struct {
	Claims []ExplainedClaim `json:"claims"`
	Denied string           `json:"denied,omitempty"` // a claim that must be there and is absent
}

// ExplainedClaim is one claim that rules or the source's settings read.
type ExplainedClaim struct {
	Claim  string           `json:"claim"`
	State  claims.State     `json:"state"`
	Why    string           `json:"why,omitempty"`
	Effect string           `json:"effect"` // what the state may do
	Values []ExplainedValue `json:"values"`
}

// ExplainedValue is one value with the verdict of every rule on its claim.
type ExplainedValue struct {
	Value string          `json:"value"`
	Rules []ExplainedRule `json:"rules"`
}

// ExplainedRule is one rule's verdict on one value.
type ExplainedRule struct {
	Rule     string `json:"rule"`
	Location string `json:"location,omitempty"`
	Text     string `json:"text"`
	Hit      bool   `json:"hit"`
	Group    string `json:"group,omitempty"` // of a hit
	Why      string `json:"why"`
}

// Explain applies the rules like Apply and says why each hit or missed.
func (r *Rules) Explain(id *claims.Identity, p SourcePolicy) *Explanation {
	w := r.Apply(id, p)
	out := &Explanation{Claims: []ExplainedClaim{}, Denied: w.Denied}
	if p.Local {
		return out // no rule reads anything of it
	}
	names := map[string]bool{}
	for _, n := range p.Claims {
		names[n] = true
	}
	for _, n := range r.Claims(p.Source) {
		names[n] = true
	}
	for _, name := range sortedKeys(names) {
		out.Claims = append(out.Claims, r.explainClaim(w, name, p))
	}
	return out
}

func (r *Rules) explainClaim(w *Wanted, name string, p SourcePolicy) ExplainedClaim {
	s := w.look(name)
	res := w.States[name]
	ec := ExplainedClaim{Claim: name, State: res.State, Why: res.Why, Values: []ExplainedValue{}}
	switch {
	case s.complete && s.absent:
		ec.Effect = "counts as an empty list (when_absent: clear)"
	case s.complete:
		ec.Effect = "grants and removes"
	case s.absent && p.WhenAbsent == claims.Deny:
		ec.Effect = "the login is refused (when_absent: deny)"
	case s.absent:
		ec.Effect = "grants nothing, removes nothing (when_absent: keep)"
	default:
		ec.Effect = "grants nothing, removes nothing"
	}
	for _, value := range s.values {
		ev := ExplainedValue{Value: value, Rules: []ExplainedRule{}}
		for i := range r.list {
			c := &r.list[i]
			if c.Claim == name && (c.Source == "" || c.Source == p.Source) {
				ev.Rules = append(ev.Rules, c.explain(w, value)...)
			}
		}
		ec.Values = append(ec.Values, ev)
	}
	return ec
}

func (c *compiled) explain(w *Wanted, value string) []ExplainedRule {
	base := ExplainedRule{Rule: c.ID, Location: c.Location, Text: c.Describe()}
	if c.Split == "" {
		return []ExplainedRule{c.verdict(w, base, value)}
	}
	var out []ExplainedRule
	for _, piece := range (&table{split: c.Split}).pieces(value) {
		v := c.verdict(w, base, piece)
		v.Why = fmt.Sprintf("piece %q: %s", piece, v.Why)
		out = append(out, v)
	}
	if out == nil {
		base.Why = "nothing is left after the split"
		out = []ExplainedRule{base}
	}
	return out
}

func (c *compiled) verdict(w *Wanted, v ExplainedRule, value string) ExplainedRule {
	group, hit, why := c.match(value)
	v.Why = why
	if !hit {
		return v
	}
	if c.when != nil {
		out, why := c.when.eval(w)
		if out != holds {
			v.Why += ", but " + why
			return v
		}
		v.Why += ", and the condition holds"
	}
	v.Hit, v.Group = true, group
	return v
}

// match is what the tables of Apply do, one rule at a time and with words.
func (c *compiled) match(value string) (group string, hit bool, why string) {
	switch {
	case c.Any:
		return value, true, "any value is a group's name"
	case c.Regexp != "":
		group, hit = c.scan(value)
		if hit {
			return group, true, "the expression matches the whole value"
		}
		return "", false, "the expression does not match the whole value"
	case c.DN != "":
		have, err := canonicalDN(value)
		if err != nil {
			return "", false, "the value is not a distinguished name"
		}
		if want, _ := canonicalDN(c.DN); have != want {
			return "", false, "another distinguished name"
		}
		return c.Group, true, "the same distinguished name"
	case value == c.Value:
		return c.Group, true, "equal byte for byte"
	case claims.EqualASCII(value, c.Value):
		return "", false, "differs in upper and lower case"
	case strings.TrimSpace(value) == strings.TrimSpace(c.Value):
		return "", false, "differs in blanks at its ends"
	default:
		return "", false, "another value"
	}
}
