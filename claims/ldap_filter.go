package claims

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// placeholder is {name} in the filter of a group search.
var placeholder = regexp.MustCompile(`\{([A-Za-z0-9.;-]+)\}`)

const placeholderDN = "dn"

// nothing is a filter that no entry fits. The one of RFC 4526 is not known
// everywhere.
const nothing = "(!(objectClass=*))"

// placeholders lists the attributes that a filter asks for.
func placeholders(filter string) []string {
	var names []string
	for _, m := range placeholder.FindAllStringSubmatch(filter, -1) {
		if m[1] != placeholderDN && !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}

// fillFilter puts what an entry holds in the place of the placeholders. An item
// whose attribute has several values is true for any of them, one whose
// attribute is not there for nothing: an empty value is a value.
func fillFilter(filter, dn string, values func(attribute string) []string) string {
	var b strings.Builder
	for rest := filter; rest != ""; {
		// An item holds no parentheses, they are escaped in values (RFC 4515).
		at := placeholder.FindStringIndex(rest)
		if at == nil {
			b.WriteString(rest)
			break
		}
		from := max(strings.LastIndexByte(rest[:at[0]], '('), 0)
		to := len(rest)
		if end := strings.IndexByte(rest[at[1]:], ')'); end >= 0 {
			to = at[1] + end + 1
		}
		b.WriteString(rest[:from])
		b.WriteString(fillItem(rest[from:to], dn, values))
		rest = rest[to:]
	}
	return b.String()
}

// fillItem fills one item, in one pass: what a value holds is never read as a
// placeholder.
func fillItem(item, dn string, values func(string) []string) string {
	fills := []map[string]string{{placeholderDN: dn}}
	for _, name := range placeholders(item) {
		var next []map[string]string
		for _, fill := range fills {
			for _, v := range values(name) {
				more := maps.Clone(fill)
				more[name] = v
				next = append(next, more)
			}
		}
		fills = next
	}
	if len(fills) == 0 {
		return nothing
	}
	filled := make([]string, len(fills))
	for i, fill := range fills {
		filled[i] = placeholder.ReplaceAllStringFunc(item, func(p string) string { return ldap.EscapeFilter(fill[p[1:len(p)-1]]) })
	}
	return anyOf(filled)
}

// anyOf is a filter that is true where one of these is.
func anyOf(filters []string) string {
	if len(filters) == 1 {
		return filters[0]
	}
	return "(|" + strings.Join(filters, "") + ")"
}
