package groups

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Policy is what syncs may do.
type Policy struct {
	Remove bool           // take away what is no longer granted
	Create bool           // make groups that do not exist
	Names  *regexp.Regexp // a group's name must match whole; nil: any
}

// Allows reports whether a group may have the name.
func (p Policy) Allows(name string) bool {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.Contains(name, "\x00") {
		return false
	}
	return p.Names == nil || p.Names.MatchString(name)
}

// CompileNames compiles sync.group_names: the whole name must match.
func CompileNames(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, nil
	}
	return compileRegexp(expr)
}

// Change is what one sync does to one user.
type Change struct {
	Created    []string `json:"created,omitempty"` // groups made, control sso
	Add        []Grant  `json:"add,omitempty"`
	Drop       []Grant  `json:"drop,omitempty"`
	DropManual []string `json:"drop_manual,omitempty"` // manual memberships that end, by group

	Added   []string `json:"added,omitempty"`   // groups the user enters
	Removed []string `json:"removed,omitempty"` // groups the user leaves
	Skipped []Skip   `json:"skipped,omitempty"`
	Held    []string `json:"held,omitempty"` // groups the user would leave, but for the guard
}

// Skip is a grant that could not be given, and why.
type Skip struct {
	Grant
	Reason string `json:"reason"` // one of the Skip... reasons
}

// Reasons of a Skip.
const (
	SkipMissing = "group does not exist"
	SkipName    = "name not allowed"
	SkipManual  = "manually controlled"
)

// Empty reports whether there is nothing to write.
func (c *Change) Empty() bool {
	return len(c.Created)+len(c.Add)+len(c.Drop)+len(c.DropManual) == 0
}

// Diff says what has to change so that a user's memberships are what a
// statement wants. It is pure. controls holds the control of every wanted
// group that exists. Grants of other sources are never touched.
func Diff(have []Membership, want *Wanted, controls map[string]Control, p Policy) *Change {
	c := &Change{}
	allowed := c.allow(want, controls, p)
	old := make(map[string]*Membership, len(have))
	for i := range have {
		old[have[i].Group] = &have[i]
	}
	c.add(old, allowed)
	if p.Remove {
		c.drop(have, want)
		c.dropManual(have, want)
	}
	c.summarise(have, allowed)
	return c
}

// allow sorts out what cannot be granted, and says why.
func (c *Change) allow(want *Wanted, controls map[string]Control, p Policy) (allowed map[string][]Grant) {
	allowed = make(map[string][]Grant, len(want.Grants))
	for _, g := range want.Grants {
		control, exists := controls[g.Group]
		switch {
		case !p.Allows(g.Group):
			c.Skipped = append(c.Skipped, Skip{g, SkipName})
		case !exists && !p.Create:
			c.Skipped = append(c.Skipped, Skip{g, SkipMissing})
		case control == Manual:
			c.Skipped = append(c.Skipped, Skip{g, SkipManual})
		default:
			if !exists && len(allowed[g.Group]) == 0 {
				c.Created = append(c.Created, g.Group)
			}
			allowed[g.Group] = append(allowed[g.Group], g)
		}
	}
	return allowed
}

func (c *Change) add(old map[string]*Membership, allowed map[string][]Grant) {
	for group, grants := range allowed {
		m := old[group]
		for _, g := range grants {
			if m == nil || !slices.Contains(m.Grants, g) {
				c.Add = append(c.Add, g)
			}
		}
	}
	slices.SortFunc(c.Add, Grant.Compare)
}

// drop takes away what this source granted earlier and does not want now. A
// grant that is wanted but may not be given again (its group's name, say, is
// no longer allowed) is not taken away either.
func (c *Change) drop(have []Membership, want *Wanted) {
	for _, m := range have {
		for _, g := range m.Grants {
			if g.Source != want.Source || want.Keeps(g) {
				continue
			}
			if _, wanted := slices.BinarySearchFunc(want.Grants, g, Grant.Compare); !wanted {
				c.Drop = append(c.Drop, g)
			}
		}
	}
	slices.SortFunc(c.Drop, Grant.Compare)
}

// dropManual ends manual memberships of groups that SSO controls: a complete
// statement either supports one, and then a grant holds it from now on, or it
// does not. Such memberships are left from when people controlled the group.
// One that is supported by a grant that may not be given stays as it is.
func (c *Change) dropManual(have []Membership, want *Wanted) {
	if !want.Complete {
		return
	}
	skipped := make(map[string]bool, len(c.Skipped))
	for _, s := range c.Skipped {
		skipped[s.Group] = true
	}
	for _, m := range have {
		if m.By != "" && m.Control == SSO && !skipped[m.Group] {
			c.DropManual = append(c.DropManual, m.Group)
		}
	}
	slices.Sort(c.DropManual)
}

// summarise counts reasons before and after to tell who enters and who leaves.
func (c *Change) summarise(have []Membership, allowed map[string][]Grant) {
	gone := map[string]int{}
	for _, g := range c.Drop {
		gone[g.Group]++
	}
	member := make(map[string]bool, len(have))
	for _, m := range have {
		member[m.Group] = true
		left := len(m.Grants) - gone[m.Group] + len(allowed[m.Group])
		if m.By != "" && !slices.Contains(c.DropManual, m.Group) {
			left++
		}
		if left == 0 {
			c.Removed = append(c.Removed, m.Group)
		}
	}
	for group := range allowed {
		if !member[group] {
			c.Added = append(c.Added, group)
		}
	}
	slices.Sort(c.Added)
	slices.Sort(c.Removed)
}

// Hold takes the removals out of the change, for the guard: the user stays in
// every group. What only changes the reasons for a membership stays.
func (c *Change) Hold() {
	leaves := make(map[string]bool, len(c.Removed))
	for _, g := range c.Removed {
		leaves[g] = true
	}
	c.Drop = slices.DeleteFunc(c.Drop, func(g Grant) bool { return leaves[g.Group] })
	c.DropManual = slices.DeleteFunc(c.DropManual, func(g string) bool { return leaves[g] })
	c.Held, c.Removed = c.Removed, nil
}

// applyTo answers the memberships after the change, for a sequence of syncs
// that is only planned.
func (c *Change) applyTo(have []Membership, controls map[string]Control) []Membership {
	m := make(map[string]*Membership, len(have))
	for _, h := range have {
		h.Grants = slices.Clone(h.Grants)
		m[h.Group] = &h
	}
	for _, g := range c.Add {
		if m[g.Group] == nil {
			m[g.Group] = &Membership{Group: g.Group, Control: cmp.Or(controls[g.Group], SSO)}
		}
		m[g.Group].Grants = append(m[g.Group].Grants, g)
	}
	for _, g := range c.Drop {
		at := m[g.Group]
		at.Grants = slices.DeleteFunc(at.Grants, func(x Grant) bool { return x == g })
	}
	for _, name := range c.DropManual {
		m[name].By = ""
	}
	out := make([]Membership, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if at := m[name]; len(at.Grants) > 0 || at.By != "" {
			slices.SortFunc(at.Grants, Grant.Compare)
			out = append(out, *at)
		}
	}
	return out
}

// fingerprint is equal for two syncs of one identity exactly when the second
// has nothing to do, provided nobody else changed the user's memberships (who
// does clears it) and the groups are as they were (the epoch).
func fingerprint(w *Wanted, p Policy, epoch int64) string {
	h := sha256.New()
	field := func(s string) {
		var n [8]byte
		h.Write(strconv.AppendInt(n[:0], int64(len(s)), 36))
		h.Write([]byte{':'})
		h.Write([]byte(s))
	}
	field(strconv.FormatInt(epoch, 10))
	field(strconv.FormatBool(p.Remove) + strconv.FormatBool(p.Create))
	if p.Names != nil {
		field(p.Names.String())
	}
	for _, g := range w.Grants {
		field(g.Group)
		field(g.Rule)
		field(g.Claim)
		field(g.Value)
	}
	for _, name := range sortedKeys(w.States) {
		field(name)
		field(w.States[name].State.String() + strconv.FormatBool(w.peek(name).complete))
	}
	for _, rule := range sortedKeys(w.Undecided) {
		field(rule)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// describe is a change as the outbox carries it.
func (c *Change) describe() json.RawMessage {
	b, _ := json.Marshal(map[string][]string{"added": nonNil(c.Added), "removed": nonNil(c.Removed)})
	return b
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
