package claims

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
)

type ldapName struct {
	claim string
	of    []string
}

// Claims that are made of an entry whatever the attributes are called, each of
// the first attribute that the entry has.
var ldapNames = []ldapName{
	{"preferred_username", []string{"sAMAccountName", "uid", "userPrincipalName", "cn"}},
	{"email", []string{"mail"}},
	{"name", []string{"displayName", "cn"}},
}

// usualAttributes are the claims where nobody says which are needed.
var usualAttributes = []string{
	memberOf, "cn", "sn", "givenName", "displayName", "mail", "uid", "sAMAccountName", "userPrincipalName",
	"department", "title", "company", "employeeType", "co", "c", "l",
}

// The attributes that tell entries apart for good.
const (
	objectGUID = "objectGUID" // [MS-ADTS] section 3.1.1.1.4
	entryUUID  = "entryUUID"  // RFC 4530
)

func (l *LDAP) subjectAttribute(ad bool) string {
	switch {
	case l.cfg.Subject != "":
		return l.cfg.Subject
	case ad:
		return objectGUID
	default:
		return entryUUID
	}
}

// neededAttributes are the claims to make, as they are needed. Two spellings of
// one attribute are two claims.
func (l *LDAP) neededAttributes() []string {
	names := usualAttributes
	if gs := l.cfg.GroupSearch; gs != nil {
		names = append(slices.Clone(names), gs.Claim)
	}
	if l.needed != nil {
		names = nil
		for _, n := range l.needed() {
			names = append(names, topLevel(n))
		}
	}
	var out []string
	for _, n := range names {
		made := slices.ContainsFunc(ldapNames, func(m ldapName) bool { return sameAttribute(m.claim, n) })
		if !made && isAttribute(n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// isAttribute reports whether a server would take it for an attribute
// description (RFC 4512 section 2.5); one that would not spoils a search.
func isAttribute(name string) bool {
	for _, r := range name {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-.;", r) {
			return false
		}
	}
	return name != "" && name[0] != '-' && name[0] != ';' && name[0] != '.'
}

// attributes are what a person's entry is read with. They are named one by
// one: a server's own attributes, memberOf and entryUUID among them, come when
// they are asked for only (RFC 4511 section 4.5.1.8).
func (l *LDAP) attributes(ad bool) []string {
	wanted := slices.Concat(l.neededAttributes(), []string{l.subjectAttribute(ad)}, accountAttributes, l.groupAttributes(ad))
	for _, n := range ldapNames {
		wanted = append(wanted, n.of...)
	}
	var out []string
	for _, w := range wanted {
		if !slices.ContainsFunc(out, func(o string) bool { return sameAttribute(o, w) }) {
			out = append(out, w)
		}
	}
	return out
}

// valuesOf is everything that the entry says under the attribute.
func valuesOf(e *ldap.Entry, attribute string) []string {
	var out []string
	for _, a := range e.Attributes {
		if sameAttribute(a.Name, attribute) {
			out = append(out, a.Values...)
		}
	}
	return out
}

// valueOf is the bytewise first value that is text, or "". What is a set has
// no first one otherwise.
func valueOf(e *ldap.Entry, attribute string) string {
	first := ""
	for _, v := range valuesOf(e, attribute) {
		if v != "" && utf8.ValidString(v) && (first == "" || v < first) {
			first = v
		}
	}
	return first
}

// ldapPerson is somebody's entry.
type ldapPerson struct {
	entry   *ldap.Entry
	ad      bool
	read    time.Time // just before it was read
	subject string
	fault   error // why there is no subject
	account ldapAccount
}

func (l *LDAP) person(e *ldap.Entry, ad bool, read time.Time) *ldapPerson {
	p := &ldapPerson{entry: e, ad: ad, read: read, account: accountOf(e, l.now())}
	p.subject, p.fault = subjectOf(e, l.subjectAttribute(ad))
	return p
}

// subjectOf answers what tells the person apart. Its error is for the operator:
// it names the attribute, never a value.
func subjectOf(e *ldap.Entry, attribute string) (string, error) {
	values := valuesOf(e, attribute)
	if len(values) != 1 {
		return "", fmt.Errorf("the entry has %d values of %s, which tells people apart", len(values), attribute)
	}
	v := values[0]
	if sameAttribute(attribute, objectGUID) {
		return guidText([]byte(v))
	}
	if v == "" || !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
		return "", fmt.Errorf("the entry's %s, which tells people apart, is no text", attribute)
	}
	if sameAttribute(attribute, entryUUID) {
		v = lowerASCII(v) // RFC 4530 section 2.1: one UUID, whatever the case
	}
	return v, nil
}

// guidText is a GUID as people write it: the first three fields are stored
// with the least byte first ([MS-DTYP] section 2.3.4.2).
func guidText(raw []byte) (string, error) {
	if len(raw) != 16 {
		return "", errors.New("the entry's " + objectGUID + " is not 16 bytes long")
	}
	b := guidOrder(raw)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// guidBytes is guidText backwards. It takes the one form that guidText writes.
func guidBytes(text string) ([]byte, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != 16 {
		return nil, errors.New("no GUID")
	}
	raw = guidOrder(raw)
	if back, _ := guidText(raw); back != text {
		return nil, errors.New("no GUID")
	}
	return raw, nil
}

// guidOrder turns the fields of a GUID around. Twice, it does nothing.
func guidOrder(raw []byte) []byte {
	b := slices.Clone(raw)
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// subjectFilter finds the entry of a subject again. It fails for what subjectOf
// does not answer.
func subjectFilter(attribute, subject string) (string, error) {
	value := ldap.EscapeFilter(subject)
	if sameAttribute(attribute, objectGUID) {
		raw, err := guidBytes(subject)
		if err != nil {
			return "", err
		}
		value = ""
		for _, b := range raw {
			value += fmt.Sprintf(`\%02x`, b)
		}
	}
	if value == "" {
		return "", errors.New("no subject")
	}
	return fmt.Sprintf("(%s=%s)", attribute, value), nil
}

// identity is what the entry and the groups say.
func (l *LDAP) identity(p *ldapPerson, groups []ldapGroups) *Identity {
	attrs := map[string][]string{}
	var unknown []string // claims of which a part is known, or nothing that is text
	incomplete := ""
	for _, name := range l.neededAttributes() {
		at := slices.IndexFunc(groups, func(g ldapGroups) bool { return sameAttribute(g.claim, name) })
		if at >= 0 {
			g := groups[at]
			switch {
			case g.unknown != "":
				incomplete = g.unknown
				if g.stated || len(g.values) > 0 {
					unknown = append(unknown, name)
				}
			case g.stated:
				attrs[name] = make([]string, len(g.values))
				for i, v := range g.values {
					attrs[name][i] = v.Value
				}
			}
			continue
		}
		values, whole := textsOf(p.entry, name)
		if !whole {
			unknown = append(unknown, name)
		} else if len(values) > 0 {
			attrs[name] = values
		}
	}
	for _, n := range ldapNames {
		for _, attribute := range n.of {
			if v := valueOf(p.entry, attribute); v != "" {
				attrs[n.claim] = []string{v}
				break
			}
		}
	}
	c := FromMap(attrs)
	if len(unknown) > 0 {
		c = c.WithNull(unknown...)
	}
	if incomplete != "" {
		c = c.WithIncomplete(incomplete)
	}
	return &Identity{Source: l.name, Subject: p.subject, Claims: c, IssuedAt: p.read, Whole: true}
}

// textsOf answers an attribute's values in bytewise order, because a set has
// none and equal entries are to be equal claims. It is not whole when a value
// is no text, or the server gave a range of the values only ([MS-ADTS] section
// 3.1.1.3.1.3.3).
func textsOf(e *ldap.Entry, attribute string) (values []string, whole bool) {
	for _, a := range e.Attributes {
		if strings.HasPrefix(lowerASCII(a.Name), lowerASCII(attribute)+";range=") {
			return nil, false
		}
	}
	values = valuesOf(e, attribute)
	slices.Sort(values)
	return slices.Compact(values), !slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) })
}
