package groups

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// canonicalDN brings a distinguished name into the one spelling that is equal
// for all spellings of the same name: attribute types in lower case (an OID of
// RFC 4514 section 3 as its short name), ASCII letters of values in lower
// case, escapes resolved, blanks around separators gone, and the parts of a
// multi-valued RDN sorted. The order of RDNs stays. Letters outside ASCII are
// compared as they are: folding them would make different names equal.
func canonicalDN(s string) (string, error) {
	dn, err := ldap.ParseDN(s)
	if err != nil {
		return "", err
	}
	if len(dn.RDNs) == 0 {
		return "", errors.New("the name is empty")
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i, rdn := range dn.RDNs {
		if i > 0 {
			b.WriteByte(',')
		}
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
		b.WriteString(strings.Join(parts, "+"))
	}
	return b.String(), nil
}

// dnTypes is the table of RFC 4514 section 3.
var dnTypes = map[string]string{
	"2.5.4.3": "cn", "2.5.4.7": "l", "2.5.4.8": "st", "2.5.4.10": "o", "2.5.4.11": "ou",
	"2.5.4.6": "c", "2.5.4.9": "street", "0.9.2342.19200300.100.1.25": "dc", "0.9.2342.19200300.100.1.1": "uid",
}

// lowerASCII folds A to Z only. strings.ToLower would fold the Kelvin sign
// into "k" and so make a name that somebody else may choose equal to ours.
func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
