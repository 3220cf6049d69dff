package claims

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/sync/errgroup"
)

// How groups are read by their names, on one connection.
const (
	readsAtOnce = 8
	readsABatch = 256 // within the time of one operation
)

// readAll reads the groups of a level that nothing is known of yet.
func (w *groupWalk) readAll(ctx context.Context, level []*groupNode) error {
	var missing []*groupNode
	for _, n := range level {
		switch {
		case n.entry != nil || strings.HasPrefix(n.key, textKey):
		case w.read[n.key] != nil:
			n.entry = w.read[n.key]
		default:
			missing = append(missing, n)
		}
	}
	for some := range slices.Chunk(missing, readsABatch) {
		entries, err := w.c.readEach(ctx, some, memberOf)
		if err != nil {
			return err
		}
		for i, e := range entries {
			some[i].entry = e
		}
	}
	return nil
}

// readEach reads groups by their names, a few at a time; nil for one that is
// not there. One that is elsewhere, such as in another domain of a forest, is
// not here either: no referral is followed, and what it is in there does not
// count. Calling that unknown would be right only if it ever became known.
func (c *ldapConn) readEach(ctx context.Context, groups []*groupNode, attribute string) ([]*ldap.Entry, error) {
	answers := make([]*ldap.SearchResult, len(groups))
	err := c.do(ctx, func() error {
		return inParallel(len(groups), func(i int) (err error) {
			answers[i], err = c.conn.Search(&ldap.SearchRequest{
				BaseDN: groups[i].dn, Scope: ldap.ScopeBaseObject, Filter: "(objectClass=*)", Attributes: []string{attribute},
				TimeLimit: int(operationTimeout / time.Second),
			})
			if ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultReferral) {
				answers[i] = nil
				return nil
			}
			return err
		})
	})
	if err != nil {
		_, err = c.searchFailed(nil, err)
		return nil, err
	}
	entries := make([]*ldap.Entry, len(groups))
	for i, a := range answers {
		switch {
		case a == nil || len(a.Entries) == 0:
		case len(a.Entries) != 1 || groupKey(a.Entries[0].DN) != groups[i].key:
			return nil, fmt.Errorf("%w: a group was asked for, and not that one answered", ErrUnavailable)
		default:
			entries[i] = a.Entries[0]
		}
	}
	return entries, nil
}

// inParallel calls f for 0 to n-1, and answers its first error. The library may
// panic on what nobody foresaw.
func inParallel(n int, f func(int) error) error {
	var g errgroup.Group
	g.SetLimit(readsAtOnce)
	var failed atomic.Bool
	for i := range n {
		g.Go(func() (err error) {
			defer func() {
				if recover() != nil {
					err = errors.New("the answer is one that cannot be read")
				}
				if err != nil {
					failed.Store(true)
				}
			}()
			if failed.Load() {
				return nil
			}
			return f(i)
		})
	}
	return g.Wait()
}
