package groups

import (
	"slices"
	"strings"

	"github.com/groupgate/groupgate/claims"
)

// DefaultRule is the rule id of a grant by sync.default_groups.
const DefaultRule = "default"

// SourcePolicy is how the statements of one source are read.
type SourcePolicy struct {
	Source     string
	Claims     []string          // its usual group claims
	WhenAbsent claims.WhenAbsent // of any claim that is read
	Default    []string          // groups while no rule covers the source
	// Lenient reads "deny" as "keep": a refresh, or a rule that changed, does
	// not refuse a person who is signed in already.
	Lenient bool
	// Local is for the users that were made here: default groups are all that
	// the source grants, whatever rules there are, and what it does not say means
	// nothing, since people alone make them members of other groups.
	Local bool
}

// Wanted is what one statement grants, and what is known about it.
type Wanted struct {
	Source string
	Grants []Grant // without duplicates, in the order of Grant.Compare
	// States holds every claim that was looked at.
	States map[string]claims.Resolution
	// Undecided holds rules whose condition could not be known, and why: they
	// grant nothing and take nothing away.
	Undecided map[string]string
	// Denied names an absent claim that must be there; empty when none is.
	Denied string
	// Complete reports whether every claim was known: only then may manual
	// memberships of groups controlled by SSO end.
	Complete bool

	local bool                   // as in SourcePolicy
	look  func(string) effective // notes the claim in States
	peek  func(string) effective // does not
}

// effective is a claim's resolution after when_absent.
type effective struct {
	complete bool
	absent   bool // not there, even if it counts as empty
	unknown  bool
	values   []string
	why      string // unless complete
}

// Apply says which groups a statement grants, and why. It is pure: the same
// rules, statement and policy always answer the same, in whatever order the
// rules were written.
func (r *Rules) Apply(id *claims.Identity, p SourcePolicy) *Wanted {
	w := newWanted(id, p)
	if p.Local {
		w.defaults(p)
		return w
	}
	for _, name := range p.Claims {
		w.require(name, p)
	}
	if r.Covers(p.Source) {
		for _, t := range r.tables[p.Source] {
			w.require(t.claim, p)
			r.applyTable(w, t)
		}
		for _, t := range r.tables[""] {
			r.applyTable(w, t)
		}
		for _, name := range r.required[p.Source] {
			w.require(name, p)
		}
	} else {
		w.defaults(p)
	}
	w.sort()
	w.Complete = true
	for name := range w.States {
		w.Complete = w.Complete && w.look(name).complete
	}
	w.Complete = w.Complete && len(w.Undecided) == 0
	return w
}

// defaults grants the groups of everybody whom no rule mentions.
func (w *Wanted) defaults(p SourcePolicy) {
	for _, g := range p.Default {
		w.Grants = append(w.Grants, Grant{Group: g, Source: p.Source, Rule: DefaultRule})
	}
	w.sort()
}

func (w *Wanted) sort() {
	slices.SortFunc(w.Grants, Grant.Compare)
	w.Grants = slices.Compact(w.Grants)
}

func newWanted(id *claims.Identity, p SourcePolicy) *Wanted {
	w := &Wanted{Source: p.Source, local: p.Local, States: map[string]claims.Resolution{}, Undecided: map[string]string{}}
	w.look = func(name string) effective {
		if _, seen := w.States[name]; !seen {
			w.States[name] = id.Claims.Resolve(name)
		}
		return w.peek(name)
	}
	w.peek = func(name string) effective {
		res, seen := w.States[name]
		if !seen {
			res = id.Claims.Resolve(name)
		}
		switch {
		case res.State == claims.Complete:
			return effective{complete: true, values: res.Values}
		case res.State == claims.Unknown:
			return effective{unknown: true, why: res.Why}
		case p.WhenAbsent == claims.Clear:
			return effective{complete: true, absent: true}
		default:
			return effective{absent: true, why: "the claim is absent"}
		}
	}
	return w
}

// require looks a claim up that the source should state, and notes when its
// absence refuses the login.
func (w *Wanted) require(name string, p SourcePolicy) {
	if s := w.look(name); s.absent && p.WhenAbsent == claims.Deny && !p.Lenient && w.Denied == "" {
		w.Denied = name
	}
}

func (r *Rules) applyTable(w *Wanted, t *table) {
	s := w.look(t.claim)
	if !s.complete {
		return
	}
	for _, value := range s.values {
		for _, piece := range t.pieces(value) {
			r.applyValue(w, t, piece)
		}
	}
}

// pieces cuts a value where the rule says so; an empty piece is no value.
func (t *table) pieces(value string) []string {
	if t.split == "" {
		return []string{value}
	}
	return slices.DeleteFunc(strings.Split(value, t.split), func(s string) bool { return s == "" })
}

func (r *Rules) applyValue(w *Wanted, t *table, value string) {
	r.eachHit(t, value, func(c *compiled, group string) { r.grant(w, c, value, group) })
}

// eachHit calls fn for every rule of the table that a value hits, whatever its
// condition says.
func (r *Rules) eachHit(t *table, value string, fn func(c *compiled, group string)) {
	for _, i := range t.exact[value] {
		fn(&r.list[i], r.list[i].Group)
	}
	if len(t.dn) > 0 {
		if dn, err := canonicalDN(value); err == nil {
			for _, i := range t.dn[dn] {
				fn(&r.list[i], r.list[i].Group)
			}
		}
	}
	for _, i := range t.scan {
		if group, hit := r.list[i].scan(value); hit {
			fn(&r.list[i], group)
		}
	}
}

// scan tries a rule that no map can hold.
func (c *compiled) scan(value string) (group string, hit bool) {
	if c.Any {
		return value, true
	}
	m := c.expr.FindStringSubmatchIndex(value)
	if m == nil {
		return "", false
	}
	return string(c.expr.ExpandString(nil, c.Group, value, m)), true
}

func (r *Rules) grant(w *Wanted, c *compiled, value, group string) {
	if c.when != nil {
		switch out, why := c.when.eval(w); out {
		case fails:
			return
		case undecided:
			w.Undecided[c.ID] = why
			return
		}
	}
	w.Grants = append(w.Grants, Grant{Group: group, Source: w.Source, Rule: c.ID, Claim: c.Claim, Value: value})
}

// Keeps reports whether a grant of an earlier statement must stay although
// this one does not repeat it, because its reason is not known to be gone.
func (w *Wanted) Keeps(g Grant) bool {
	if w.local {
		return false // nobody but us says what a local source grants
	}
	if g.Rule == DefaultRule {
		return !w.Complete
	}
	if _, open := w.Undecided[g.Rule]; open {
		return true
	}
	return !w.peek(g.Claim).complete
}

// keepsUnread reports whether a grant stays only because of a claim that no
// rule reads any more. What that claim says next is not in the fingerprint.
func (w *Wanted) keepsUnread(have []Membership) bool {
	for _, m := range have {
		for _, g := range m.Grants {
			_, read := w.States[g.Claim]
			if !read && g.Source == w.Source && g.Rule != DefaultRule && w.Keeps(g) {
				return true
			}
		}
	}
	return false
}

// Problems lists the claims that are not complete, for the audit trail.
func (w *Wanted) Problems() map[string]claims.Resolution {
	var out map[string]claims.Resolution
	for name, res := range w.States {
		if w.peek(name).complete {
			continue
		}
		if out == nil {
			out = map[string]claims.Resolution{}
		}
		out[name] = claims.Resolution{State: res.State, Why: res.Why}
	}
	return out
}
