package claims

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
)

// Bounds of what somebody types.
const (
	maxTypedUser     = 256  // bytes
	maxTypedPassword = 1024 // bytes
)

// typed answers the user name as it is looked for. What no account can have is
// refused here, before the network: above all the empty password, to which a
// server may answer success without looking at it (RFC 4513 section 5.1.2).
func typed(c Credentials) (user string, err error) {
	user = strings.TrimSpace(c.User)
	switch {
	case user == "", len(user) > maxTypedUser, !utf8.ValidString(user), strings.ContainsFunc(user, unicode.IsControl):
		return "", ErrBadPassword
	case len(c.Password) > maxTypedPassword, strings.TrimFunc(c.Password, blankOrNUL) == "":
		return "", ErrBadPassword
	}
	return user, nil
}

func blankOrNUL(r rune) bool { return r == 0 || unicode.IsSpace(r) }

// lookUp finds the entries that the user name could mean: none, one, or two,
// which stand for any number.
func (l *LDAP) lookUp(ctx context.Context, c *ldapConn, user string) ([]*ldap.Entry, error) {
	domains, err := l.domains(ctx, c)
	if err != nil {
		return nil, err
	}
	names := spellings(user, domains)
	if len(names) == 0 {
		return nil, nil
	}
	return l.atMostTwo(ctx, c, userFilter(l.cfg.UserFilter, names))
}

// atMostTwo searches below the base. It asks for two entries and no more:
// several are as good as none, and a name that fits thousands costs nothing.
func (l *LDAP) atMostTwo(ctx context.Context, c *ldapConn, filter string) ([]*ldap.Entry, error) {
	found, err := c.search(ctx, ldapQuery{
		base: l.cfg.BaseDN, scope: ldap.ScopeWholeSubtree, filter: filter, attributes: l.attributes(c.ad), limit: 2,
	})
	if errors.Is(err, errPartial) && len(found) >= 2 {
		return found[:2], nil
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// userFilter is the configured filter for each of the names, in an OR.
func userFilter(filter string, names []string) string {
	var each []string
	for _, n := range names {
		each = append(each, strings.ReplaceAll(filter, "{user}", ldap.EscapeFilter(n)))
	}
	if len(each) == 1 {
		return each[0]
	}
	return "(|" + strings.Join(each, "") + ")"
}

// spellings are the names to look for when somebody typed user. Where domains
// are known, they are not part of the account's name: DOMAIN\u is u, and
// u@domain is u as well as itself, which may be a principal name or an
// address. Elsewhere these are letters like others.
func spellings(user string, domains []string) []string {
	if len(domains) == 0 {
		return []string{user}
	}
	known := func(domain string) bool {
		return slices.ContainsFunc(domains, func(d string) bool { return lowerASCII(d) == lowerASCII(domain) })
	}
	if domain, account, found := strings.Cut(user, `\`); found {
		if !known(domain) || account == "" {
			return nil
		}
		return []string{account}
	}
	if account, domain, found := strings.Cut(user, "@"); found && account != "" && known(domain) {
		return []string{user, account}
	}
	return []string{user}
}

// domains answers the names that a domain goes by. An Active Directory that
// nobody told us about is asked once ([MS-ADTS] section 6.1.1.2.1.1): its
// crossRef objects hold the NetBIOS name and the DNS name.
func (l *LDAP) domains(ctx context.Context, c *ldapConn) ([]string, error) {
	if len(l.cfg.Domains) > 0 || !c.ad || c.root.configurations == "" || c.root.naming == "" {
		return l.cfg.Domains, nil
	}
	if known := l.askedDomains.Load(); known != nil {
		return *known, nil
	}
	found, err := c.search(ctx, ldapQuery{
		base: "CN=Partitions," + c.root.configurations, scope: ldap.ScopeSingleLevel,
		filter:     fmt.Sprintf("(&(objectClass=crossRef)(nCName=%s))", ldap.EscapeFilter(c.root.naming)),
		attributes: []string{"nETBIOSName", "dnsRoot"},
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the domain's names: %w", err)
	}
	var names []string
	for _, e := range found {
		for _, attribute := range []string{"nETBIOSName", "dnsRoot"} {
			names = append(names, valuesOf(e, attribute)...)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	l.askedDomains.Store(&names)
	return names, nil
}
