package claims

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// CanonicalDN brings a distinguished name into the one spelling that is equal
// for all spellings of the same name: attribute types in lower case (an OID of
// RFC 4514 section 3 as its short name), ASCII letters of values in lower
// case, escapes resolved, blanks around separators gone, and the parts of a
// multi-valued RDN sorted. The order of RDNs stays. Letters outside ASCII are
// compared as they are: folding them would make different names equal. What it
// answers is to compare, and no distinguished name itself.
func CanonicalDN(s string) (string, error) {
	rdns, err := canonicalRDNs(s)
	if err != nil {
		return "", err
	}
	return strings.Join(rdns, ","), nil
}

// canonicalRDNs is CanonicalDN, RDN by RDN.
func canonicalRDNs(s string) ([]string, error) {
	dn, err := ldap.ParseDN(s)
	if err != nil {
		return nil, err
	}
	if len(dn.RDNs) == 0 {
		return nil, errors.New("the name is empty")
	}
	rdns := make([]string, len(dn.RDNs))
	for i, rdn := range dn.RDNs {
		parts := make([]string, 0, len(rdn.Attributes))
		for _, a := range rdn.Attributes {
			// "OID." before a number is how RFC 2253 section 4 reads old names.
			name := strings.TrimPrefix(lowerASCII(a.Type), "oid.")
			if short, known := dnTypes[name]; known {
				name = short
			}
			// Quoting keeps a separator inside a value apart from one outside.
			parts = append(parts, name+"="+strconv.Quote(lowerASCII(a.Value)))
		}
		slices.Sort(parts)
		rdns[i] = strings.Join(parts, "+")
	}
	return rdns, nil
}

// dnTypes is the table of RFC 4514 section 3.
var dnTypes = map[string]string{
	"2.5.4.3": "cn", "2.5.4.7": "l", "2.5.4.8": "st", "2.5.4.10": "o", "2.5.4.11": "ou",
	"2.5.4.6": "c", "2.5.4.9": "street", "0.9.2342.19200300.100.1.25": "dc", "0.9.2342.19200300.100.1.1": "uid",
}

// sameDN reports whether two distinguished names are one. What is no such name
// is equal to nothing.
func sameDN(a, b string) bool {
	x, errX := CanonicalDN(a)
	y, errY := CanonicalDN(b)
	return errX == nil && errY == nil && x == y
}
