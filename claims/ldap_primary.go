package claims

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// primarySID is the security identifier of an account's primary group: that of
// the account with the last part, which counts within the domain, replaced
// (MS-DTYP section 2.4.2.2; MS-ADA3 primaryGroupID).
func primarySID(account []byte, group string) ([]byte, error) {
	const head = 8 // revision, number of parts, authority in six bytes
	if len(account) < head || account[0] != 1 || len(account) != head+4*int(account[1]) || account[1] < 2 {
		return nil, errors.New("objectSid is no security identifier")
	}
	id, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		return nil, errors.New("primaryGroupID is no number")
	}
	sid := slices.Clone(account)
	binary.LittleEndian.PutUint32(sid[len(sid)-4:], uint32(id))
	return sid, nil
}

// escapeBytes writes every byte of a value for a filter (RFC 4515 section 3).
func escapeBytes(value []byte) string {
	var b strings.Builder
	for _, c := range value {
		fmt.Fprintf(&b, `\%02x`, c)
	}
	return b.String()
}

// primary finds the primary group, which an Active Directory leaves out of
// memberOf. nil: the entry has none, as a contact.
func (w *groupWalk) primary(ctx context.Context) (*ldap.Entry, error) {
	const step = "the primary group"
	group := w.entry.GetEqualFoldAttributeValue("primaryGroupID")
	if group == "" {
		return nil, nil
	}
	sid, err := primarySID(w.entry.GetEqualFoldRawAttributeValue("objectSid"), group)
	if err != nil {
		return nil, fault("the primary group cannot be told: " + err.Error())
	}
	found, err := w.c.search(ctx, ldapQuery{
		base: w.wholeDomain(), scope: ldap.ScopeWholeSubtree, filter: "(objectSid=" + escapeBytes(sid) + ")",
		attributes: w.groupAttributes(), limit: 2,
	})
	switch {
	case err != nil:
		return nil, during(step, err)
	case len(found) != 1:
		return nil, fault(fmt.Sprintf("the primary group cannot be told: %d groups have its objectSid", len(found)))
	}
	return found[0], nil
}
