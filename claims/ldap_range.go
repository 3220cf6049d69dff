package claims

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// maxRangeReads is how often one attribute is read on. An Active Directory
// gives 1,500 values at a time and more where it was told to.
const maxRangeReads = 200

// valueRange is the option of an attribute that holds a part of its values
// (MS-ADTS section 3.1.1.3.1.3.3).
type valueRange struct{ from, to int } // to is -1 for the last part, which ends with *

// parseRange splits the name of an attribute from its range. Other options
// stay with the name.
func parseRange(attribute string) (name string, r valueRange, ranged bool) {
	var kept []string
	for i, part := range strings.Split(attribute, ";") {
		text, isRange := strings.CutPrefix(lowerASCII(part), "range=")
		if i == 0 || !isRange || ranged {
			kept = append(kept, part)
			continue
		}
		from, to, _ := strings.Cut(text, "-")
		var ok bool
		if r.from, ok = rangeBound(from); !ok {
			return attribute, valueRange{}, false
		}
		if to == "*" {
			r.to = -1
		} else if r.to, ok = rangeBound(to); !ok || r.to < r.from {
			return attribute, valueRange{}, false
		}
		ranged = true
	}
	return strings.Join(kept, ";"), r, ranged
}

func rangeBound(s string) (n int, ok bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && strconv.Itoa(n) == s
}

// attributeValues answers the values of an attribute as far as the entry holds
// them. next is where the rest begins; 0: there is none.
func attributeValues(entry *ldap.Entry, name string, from int) (values []string, found bool, next int, err error) {
	for _, a := range entry.Attributes {
		base, r, ranged := parseRange(a.Name)
		if !sameAttribute(base, name) || !ranged && len(a.Values) == 0 {
			continue // a server sends a part beside the empty whole
		}
		if found {
			return nil, false, 0, fmt.Errorf("%w: attribute %q came twice", errPartial, name)
		}
		found, values = true, a.Values
		switch {
		case !ranged && from > 0, ranged && r.from != from:
			return nil, false, 0, fmt.Errorf("%w: attribute %q came with another range than was asked for", errPartial, name)
		case !ranged || r.to < 0:
		case r.to-r.from+1 != len(a.Values):
			return nil, false, 0, fmt.Errorf("%w: attribute %q came with %d values and says %d", errPartial, name, len(a.Values), r.to-r.from+1)
		default:
			next = r.to + 1
		}
	}
	return values, found, next, nil
}

// wholeAttribute answers all values of an entry's attribute. What came in a
// range is read on to its end. found is false when the entry does not have it.
func wholeAttribute(ctx context.Context, c *ldapConn, entry *ldap.Entry, name string) (values []string, found bool, err error) {
	values, found, next, err := attributeValues(entry, name, 0)
	if err != nil || next == 0 {
		return values, found, err
	}
	for range maxRangeReads {
		q := ldapQuery{
			base: entry.DN, scope: ldap.ScopeBaseObject, filter: "(objectClass=*)",
			attributes: []string{fmt.Sprintf("%s;range=%d-*", name, next)}, limit: 1,
		}
		read, err := c.search(ctx, q)
		if err != nil {
			return nil, false, err
		}
		if len(read) != 1 || !sameDN(read[0].DN, entry.DN) {
			return nil, false, fmt.Errorf("%w: the entry went away between two ranges of %q", errPartial, name)
		}
		part, there, after, err := attributeValues(read[0], name, next)
		if err != nil {
			return nil, false, err
		}
		if !there {
			return nil, false, fmt.Errorf("%w: attribute %q ends before its last range", errPartial, name)
		}
		if values = append(values[:len(values):len(values)], part...); len(values) > MaxValues {
			return nil, false, fmt.Errorf("%w: attribute %q has more than %d values", errPartial, name, MaxValues)
		}
		if after == 0 {
			return values, true, nil
		}
		next = after
	}
	return nil, false, fmt.Errorf("%w: attribute %q has ranges without end", errPartial, name)
}
