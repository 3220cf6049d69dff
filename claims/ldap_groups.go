package claims

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"
)

// Bounds of one person's groups. Past them the claim is unknown.
const (
	maxGroupDepth = 64     // a group that the person is in directly is one deep
	maxGroups     = 20_000 // of one claim
)

// memberOf is the attribute of a person, or of a group, that names the groups
// it is in.
const memberOf = "memberOf"

// ldapGroups are the values of one of an entry's group claims.
type ldapGroups struct {
	claim  string
	values []FoundGroup // in the order of their values, each once
	// stated: the claim is there, even when values is empty. An entry without
	// the attribute states nothing; a search that found nothing does.
	stated bool
	// unknown says in our own words why more of them may exist; empty: these
	// are all.
	unknown string
}

// groupAttributes are what groupsOf wants to be read of the entry.
func (l *LDAP) groupAttributes(ad bool) []string {
	var names []string
	if !l.searchesFor(memberOf) {
		names = append(names, memberOf)
	}
	if gs := l.cfg.GroupSearch; gs != nil {
		names = append(names, placeholders(gs.Filter)...)
	}
	if ad && l.cfg.NestedGroups {
		names = append(names, "objectSid", "primaryGroupID")
	}
	return names
}

// searchesFor reports whether the group search is where this claim comes from.
func (l *LDAP) searchesFor(claim string) bool {
	gs := l.cfg.GroupSearch
	return gs != nil && sameAttribute(gs.Claim, claim)
}

// readsClaim reports whether anybody reads the claim.
func (l *LDAP) readsClaim(claim string) bool {
	return l.needed == nil ||
		slices.ContainsFunc(l.needed(), func(name string) bool { return sameAttribute(topLevel(name), claim) })
}

// sameAttribute compares names of attributes, which are ASCII (RFC 4512
// section 1.4), and whose case does not count (2.5).
func sameAttribute(a, b string) bool { return EqualASCII(a, b) }

// groupsOf answers what the entry is in, by everything that the configuration
// asks for: the attribute memberOf, the group search, nested groups and the
// primary group; of these, the claims that somebody reads. It never answers
// less than all without saying so. The entry was read with groupAttributes.
func (l *LDAP) groupsOf(ctx context.Context, c *ldapConn, entry *ldap.Entry) []ldapGroups {
	return l.findGroups(ctx, c, entry, false)
}

// findGroups is groupsOf. With explain it answers every claim, and the path to
// each group, which may take more searches.
func (l *LDAP) findGroups(ctx context.Context, c *ldapConn, entry *ldap.Entry, explain bool) []ldapGroups {
	var all []ldapGroups
	add := func(claim string, search *GroupSearch) {
		if explain || l.readsClaim(claim) {
			w := &groupWalk{l: l, c: c, entry: entry, search: search, explain: explain, nodes: map[string]*groupNode{}}
			all = append(all, w.answer(ctx, claim))
		}
	}
	if !l.searchesFor(memberOf) {
		add(memberOf, nil)
	}
	if gs := l.cfg.GroupSearch; gs != nil {
		add(gs.Claim, gs)
	}
	return all
}

// answer walks, and says what came of it.
func (w *groupWalk) answer(ctx context.Context, claim string) ldapGroups {
	err := w.run(ctx)
	values, odd := w.found(claim)
	g := ldapGroups{claim: claim, values: values, stated: w.stated || len(values) > 0}
	if err = cmp.Or(err, odd); err != nil {
		g.unknown = claim + ": " + inWords(err)
		w.l.log.Warn("the directory did not tell all groups of a person; they count as unknown",
			zap.String("source", w.l.name), zap.String("claim", claim), zap.Error(err))
	}
	return g
}

// found are the values of every group that the walk came to. Of two groups
// with one value the nearer one counts.
func (w *groupWalk) found(claim string) ([]FoundGroup, error) {
	byValue := map[string]FoundGroup{}
	var err error
	for _, n := range w.order {
		for _, v := range n.values {
			_, had := byValue[v]
			switch {
			case !utf8.ValidString(v):
				err = fault("the name of a group is not UTF-8")
			case v == "" || had:
			default:
				byValue[v] = FoundGroup{Claim: claim, Value: v, How: n.how, Through: w.through(n)}
			}
		}
	}
	return slices.SortedFunc(maps.Values(byValue), func(a, b FoundGroup) int { return cmp.Compare(a.Value, b.Value) }), err
}

// groupsFault is why a walk did not come to all groups.
type groupsFault struct {
	words string // ours: they are stored and shown
	cause error  // for the log; nil: the words say it all
}

func (e *groupsFault) Error() string {
	if e.cause == nil {
		return e.words
	}
	return e.words + ": " + e.cause.Error()
}

func (e *groupsFault) Unwrap() error { return e.cause }

func fault(words string) error { return &groupsFault{words: words} }

// during says in which step the directory failed.
func during(step string, err error) error {
	if _, said := errors.AsType[*groupsFault](err); said || err == nil {
		return err
	}
	if errors.Is(err, errPartial) {
		return &groupsFault{"the directory answered a part of " + step + " only", err}
	}
	return &groupsFault{"the directory failed when it was asked for " + step, err}
}

// inWords is what may be stored and shown of an error.
func inWords(err error) string {
	if f, ok := errors.AsType[*groupsFault](err); ok {
		return f.words
	}
	return "the directory failed"
}
