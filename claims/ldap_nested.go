package claims

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// groupsASearch is for how many groups one search looks for what holds them.
const groupsASearch = 50

// inChain is the matching rule by which an Active Directory follows a DN
// through every level (LDAP_MATCHING_RULE_IN_CHAIN, MS-ADTS 3.1.1.3.4.4.3).
const inChain = "1.2.840.113556.1.4.1941"

// groupWalk finds what one entry is in, breadth first: what it comes to first
// it comes to by a shortest path. Every step is in an order of its own, never
// in the server's.
type groupWalk struct {
	l       *LDAP
	c       *ldapConn
	entry   *ldap.Entry
	search  *GroupSearch // nil: by memberOf
	explain bool         // paths are wanted

	nodes  map[string]*groupNode
	order  []*groupNode           // nearer ones first
	read   map[string]*ldap.Entry // groups that the in-chain rule found
	stated bool
}

// groupNode is one group.
type groupNode struct {
	key    string // equal for all spellings of the name
	dn     string
	values []string // of the claim
	how    How
	via    *groupNode // the next one on the way to the person
	lost   bool       // which that is, is not known
	// entry is nil for a group that nothing but the name is known of.
	entry *ldap.Entry
}

// textKey marks the key of a text that is no distinguished name. A canonical
// name never begins with a capital.
const textKey = "T"

// key is what tells groups apart in this walk. Where nothing is climbed they
// are as the server spells them: reading 200 names takes a third of a login.
func (w *groupWalk) key(dn string) string {
	if !w.l.cfg.NestedGroups {
		return textKey + dn
	}
	return groupKey(dn)
}

// groupKey is what tells groups apart. A text that is no distinguished name is
// equal to itself only.
func groupKey(dn string) string {
	if key, err := CanonicalDN(dn); err == nil {
		return key
	}
	return textKey + dn
}

// through is the path from the person to a group.
func (w *groupWalk) through(n *groupNode) []string {
	if !w.explain || n.lost {
		return nil
	}
	var path []string
	for at := n.via; at != nil; at = at.via {
		path = append(path, cmp.Or(firstOf(at.values), at.dn))
	}
	slices.Reverse(path)
	return path
}

func firstOf(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// run comes to every group, or answers why it did not.
func (w *groupWalk) run(ctx context.Context) error {
	level, err := w.direct(ctx)
	if err != nil || !w.l.cfg.NestedGroups {
		return err
	}
	if w.c.ad {
		primary, err := w.primary(ctx)
		if err != nil {
			return err
		}
		if primary != nil {
			if level, err = w.addLevel(level, []*groupNode{w.node(primary, Primary, nil)}); err != nil {
				return err
			}
		}
		if err := w.chain(ctx, primary); err != nil {
			return err
		}
	}
	return w.climb(ctx, level)
}

// node makes a node of a group's entry.
func (w *groupWalk) node(e *ldap.Entry, how How, via *groupNode) *groupNode {
	n := &groupNode{key: w.key(e.DN), dn: e.DN, values: []string{e.DN}, how: how, via: via, entry: e}
	if w.search != nil && w.search.Value != "" {
		n.values = slices.Sorted(slices.Values(e.GetEqualFoldAttributeValues(w.search.Value)))
	}
	return n
}

// direct answers the groups that the person is in without another between.
func (w *groupWalk) direct(ctx context.Context) ([]*groupNode, error) {
	var found []*groupNode
	if w.search != nil {
		filter, err := w.fill(ctx, w.entry)
		if err != nil {
			return nil, err
		}
		entries, err := w.searchGroups(ctx, filter)
		if err != nil {
			return nil, err
		}
		w.stated = true
		for _, e := range entries {
			found = append(found, w.node(e, Direct, nil))
		}
		return w.addLevel(nil, found)
	}
	names, there, err := wholeAttribute(ctx, w.c, w.entry, memberOf)
	if err != nil {
		return nil, during("the groups of the person", err)
	}
	w.stated = there
	for _, dn := range names {
		found = append(found, &groupNode{key: w.key(dn), dn: dn, values: []string{dn}, how: Direct})
	}
	return w.addLevel(nil, found)
}

// addLevel adds the groups that nobody came to yet to a level, in the order of
// their names. One that several lead to is come to by the first of them; of
// several spellings the first counts.
func (w *groupWalk) addLevel(level, found []*groupNode) ([]*groupNode, error) {
	slices.SortStableFunc(found, func(a, b *groupNode) int { return cmp.Compare(a.dn, b.dn) })
	for _, n := range found {
		if w.nodes[n.key] != nil {
			continue
		}
		if len(w.order) == maxGroups {
			return level, fault(fmt.Sprintf("there are more than %d groups", maxGroups))
		}
		if len(n.values) == 0 {
			// Nothing can be stated of it, and it may be one that a rule means.
			return level, fault("a group has no attribute " + w.search.Value)
		}
		w.nodes[n.key] = n
		w.order = append(w.order, n)
		level = append(level, n)
	}
	return level, nil
}

// climb goes up from a level until there is nothing above. What it came to
// before ends it, so a cycle does.
func (w *groupWalk) climb(ctx context.Context, level []*groupNode) error {
	for depth := 1; ; depth++ {
		found, err := w.above(ctx, level, depth)
		if err != nil {
			return during("nested groups", err)
		}
		before := len(w.order)
		if level, err = w.addLevel(nil, found); err != nil {
			return err
		}
		if len(level) == 0 {
			if level, err = w.addLevel(nil, w.lost()); err != nil || len(level) == 0 {
				return err
			}
		}
		if depth >= maxGroupDepth {
			w.forget(before)
			return fault(fmt.Sprintf("groups are nested more than %d deep", maxGroupDepth))
		}
	}
}

// forget drops what was added last: how much of it there is depends on nothing
// but the bound.
func (w *groupWalk) forget(from int) {
	for _, n := range w.order[from:] {
		delete(w.nodes, n.key)
	}
	w.order = w.order[:from]
}

// above answers the groups that those of a level are in.
func (w *groupWalk) above(ctx context.Context, level []*groupNode, depth int) ([]*groupNode, error) {
	asked := w.c.asked
	w.c.asked = nil // a line a level says it
	defer func() { w.c.asked = asked }()
	if asked != nil && len(level) > 0 {
		asked(fmt.Sprintf("nested groups, level %d: what holds these %d", depth, len(level)))
	}
	if w.search != nil {
		return w.searchAbove(ctx, level)
	}
	if err := w.readAll(ctx, level); err != nil {
		return nil, err
	}
	var found []*groupNode
	for _, n := range level {
		if n.entry == nil {
			continue // the object is missing, or not ours to see: nothing is above it
		}
		names, _, err := wholeAttribute(ctx, w.c, n.entry, memberOf)
		if err != nil {
			return nil, err
		}
		for _, dn := range names {
			found = append(found, &groupNode{key: groupKey(dn), dn: dn, values: []string{dn}, how: Nested, via: n, lost: n.lost})
		}
	}
	return found, nil
}

// searchAbove looks by the filter for what holds the groups of a level: one by
// one for the sake of the paths, otherwise many at once.
func (w *groupWalk) searchAbove(ctx context.Context, level []*groupNode) ([]*groupNode, error) {
	size := groupsASearch
	if w.explain {
		size = 1
	}
	var found []*groupNode
	for some := range slices.Chunk(level, size) {
		filters := make([]string, len(some))
		for i, n := range some {
			var err error
			if filters[i], err = w.fill(ctx, n.entry); err != nil {
				return nil, err
			}
		}
		entries, err := w.searchGroups(ctx, anyOf(filters))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			found = append(found, w.node(e, Nested, some[0]))
		}
	}
	return found, nil
}

func (w *groupWalk) searchGroups(ctx context.Context, filter string) ([]*ldap.Entry, error) {
	found, err := w.c.search(ctx, ldapQuery{
		base: cmp.Or(w.search.BaseDN, w.l.cfg.BaseDN), scope: ldap.ScopeWholeSubtree, filter: filter,
		attributes: w.groupAttributes(), limit: maxGroups,
	})
	return found, during("the group search", err)
}

// fill makes the search's filter for what one entry is in.
func (w *groupWalk) fill(ctx context.Context, e *ldap.Entry) (string, error) {
	holds := map[string][]string{}
	for _, name := range placeholders(w.search.Filter) {
		var err error
		if holds[name], _, err = wholeAttribute(ctx, w.c, e, name); err != nil {
			return "", during("what the group search's filter needs", err)
		}
	}
	return fillFilter(w.search.Filter, e.DN, func(name string) []string { return holds[name] }), nil
}

// groupAttributes are what is read of a group.
func (w *groupWalk) groupAttributes() []string {
	if w.search == nil {
		return []string{memberOf}
	}
	names := placeholders(w.search.Filter)
	if w.search.Value != "" {
		names = append(names, w.search.Value)
	}
	if len(names) == 0 {
		names = []string{noAttributes}
	}
	return names
}

// wholeDomain is where everything of an Active Directory's domain is; the
// primary group is seldom where people are.
func (w *groupWalk) wholeDomain() string { return cmp.Or(w.c.root.naming, w.l.cfg.BaseDN) }

// chain has the server find all groups at once. What it answers saves the
// reads of a walk and is no more than that: there are servers that know the
// rule's name and answer nothing to it.
func (w *groupWalk) chain(ctx context.Context, primary *ldap.Entry) error {
	if w.search != nil {
		return nil
	}
	filters := []string{"(member:" + inChain + ":=" + ldap.EscapeFilter(w.entry.DN) + ")"}
	if primary != nil {
		filters = append(filters, "(member:"+inChain+":="+ldap.EscapeFilter(primary.DN)+")")
	}
	found, err := w.c.search(ctx, ldapQuery{
		base: w.l.cfg.BaseDN, scope: ldap.ScopeWholeSubtree, filter: anyOf(filters),
		attributes: w.groupAttributes(), limit: maxGroups,
	})
	if err != nil && (errors.Is(err, errPartial) || w.c.dead() || ctx.Err() != nil) {
		return during("nested groups (in-chain rule)", err)
	}
	// Another error is a result: the server does not do it. The walk finds them.
	w.read = make(map[string]*ldap.Entry, len(found))
	for _, e := range found {
		w.read[groupKey(e.DN)] = e
	}
	return nil
}

// lost are the groups that the in-chain rule found and no path leads to, such
// as one behind a group that the service account must not read.
func (w *groupWalk) lost() []*groupNode {
	var found []*groupNode
	for key, e := range w.read {
		if w.nodes[key] == nil {
			n := w.node(e, Nested, nil)
			n.lost = true
			found = append(found, n)
		}
	}
	return found
}
