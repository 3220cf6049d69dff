package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/groupgate/groupgate/claims"
)

func (c *checker) ldap(at string, l *claims.LDAPConfig) {
	c.servers(at, l)
	c.baseDN(at+".base_dn", l.BaseDN)
	c.account(at, l)
	c.userFilter(at+".user_filter", l.UserFilter)
	if path := at + ".subject"; c.written(path) && !c.empty(path, l.Subject, ": take the key away for the directory's own") {
		c.attribute(path, l.Subject)
	}
	c.domains(at+".domains", l.Domains)
	if l.GroupSearch != nil {
		c.groupSearch(at+".group_search", l.GroupSearch)
	}
	if l.CAFile != "" {
		c.problem(at+".ca_file", checkCertificates(l.CAFile))
	}
}

// servers checks the addresses, and that no password goes over a network in
// the clear.
func (c *checker) servers(at string, l *claims.LDAPConfig) {
	path := at + ".url"
	if len(l.URL) == 0 {
		c.fault(path, "is missing: the directory, such as ldaps://dc.example.com")
	}
	seen := map[string]bool{}
	for i, raw := range l.URL {
		one := path
		if _, inList := c.values[item(path, i)]; inList {
			one = item(path, i)
		}
		u, err := checkDirectory(raw)
		switch {
		case strings.TrimSpace(raw) == "":
			c.fault(one, "is empty")
		case err != nil:
			c.problem(one, err)
		case u.Scheme == "ldaps" && l.StartTLS:
			c.fault(at+".starttls", "is for ldap:// alone: ldaps:// begins with TLS")
		case u.Scheme == "ldap" && !l.StartTLS && !loopback(u.Hostname()):
			c.fault(one, "must be ldaps://, or have starttls: plain ldap is accepted on loopback only")
		case seen[strings.ToLower(u.Scheme+u.Host)]:
			c.fault(one, "stands twice")
		default:
			seen[strings.ToLower(u.Scheme+u.Host)] = true
		}
	}
}

// checkDirectory accepts ldap(s)://host[:port]. RFC 4516 puts a search into
// the rest of an address; ours stands in keys of its own.
func checkDirectory(raw string) (*url.URL, error) {
	u, err := address(raw)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "ldap" && u.Scheme != "ldaps":
		return nil, errors.New("must be ldaps://host or ldap://host")
	case u.Path != "" && u.Path != "/":
		return nil, errors.New("has a path: where to search is base_dn")
	}
	return u, checkHostname(u.Hostname())
}

// baseDN wants a name with something in it: the empty one is above all that a
// server has, its own configuration included.
func (c *checker) baseDN(path, name string) {
	if !c.missing(path, name, ": where the people are, such as DC=example,DC=com") {
		c.dn(path, name)
	}
}

func (c *checker) dn(path, name string) {
	if _, err := ldap.ParseDN(name); err != nil {
		c.fault(path, "is not a distinguished name (RFC 4514): %s", c.explain(path, plain(err)))
	}
}

// plain takes the library's name and numbers out of what it says.
func plain(err error) error {
	msg := err.Error()
	if i := strings.LastIndex(msg, "ldap: "); i >= 0 {
		msg = msg[i+len("ldap: "):]
	}
	return errors.New(msg)
}

// account checks the service account. A name without a password would be a
// bind that every server grants and that proves nothing (RFC 4513 section
// 5.1.2).
func (c *checker) account(at string, l *claims.LDAPConfig) {
	name, user, domain := at+".bind_dn", "", ""
	if l.BindDN != "" {
		user, domain, _ = strings.Cut(l.BindDN, "@")
		if before, behind, windows := strings.Cut(l.BindDN, `\`); windows {
			user, domain = behind, before
		}
	}
	switch {
	case l.BindDN == "" && l.BindPassword != "":
		c.fault(name, "is missing: bind_password is somebody's")
	case l.BindDN == "":
	case strings.ContainsAny(l.BindDN, "\x00\r\n"):
		c.fault(name, "has a line break in it")
	case strings.Contains(l.BindDN, "="):
		c.dn(name, l.BindDN)
	case strings.TrimSpace(user) == "" || strings.TrimSpace(domain) == "":
		c.fault(name, `is neither a distinguished name nor, as Active Directory takes it, user@domain or DOMAIN\user`)
	}
	if l.BindDN != "" && l.BindPassword == "" {
		c.fault(at+".bind_password", "is missing: bind_dn cannot sign in without one")
	}
}

// placeholder is a name in braces. A brace that is meant as one is written
// \7b in a filter (RFC 4515 section 3).
var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// userFilter wants the typed name where a whole value stands. When a session
// is renewed nobody has typed a name: * stands for {user} then, which means
// "any" in (attribute={user}) alone.
func (c *checker) userFilter(path, filter string) {
	if c.empty(path, filter, ": take the key away for the usual one") || filter == "" {
		return
	}
	for _, name := range placeholder.FindAllString(filter, -1) {
		if name != "{user}" {
			c.fault(path, "%s means nothing here: {user} is what was typed", c.show(path, name))
		}
	}
	if !strings.Contains(filter, "{user}") {
		c.fault(path, "lacks {user}, what was typed: everybody would be found")
	}
	c.filter(path, filter)
	for _, at := range placeholder.FindAllStringIndex(filter, -1) {
		switch name, _, _ := strings.Cut(comparison(filter[:at[0]]), "="); {
		case strings.HasSuffix(filter[:at[0]], "*") || strings.HasPrefix(filter[at[1]:], "*"):
			c.fault(path, "has {user} beside a *: people would be found by a part of their name")
		case strings.TrimRight(name, ":~<>") != name:
			c.fault(path, "compares {user} in a way that finds nobody when a session is renewed: write (attribute={user})")
		}
	}
}

// filter checks the syntax, with each placeholder filled in, and that each
// stands in a value: in place of an attribute it would say what is compared.
func (c *checker) filter(path, filter string) {
	if err := compiles(filter, "x"); err != nil {
		c.fault(path, "is not a filter (RFC 4515): %s", c.explain(path, plain(err)))
	}
	for _, at := range placeholder.FindAllStringIndex(filter, -1) {
		if !strings.Contains(comparison(filter[:at[0]]), "=") {
			c.fault(path, "%s stands where no value does: write (attribute={...})", c.show(path, filter[at[0]:at[1]]))
		}
	}
}

// comparison is the part of a filter's beginning that is not closed yet, from
// its attribute on.
func comparison(before string) string { return before[strings.LastIndexAny(before, "()")+1:] }

func compiles(filter, value string) error {
	_, err := ldap.CompileFilter(placeholder.ReplaceAllLiteralString(filter, value))
	return err
}

// domains checks what may stand around an account's name: a NetBIOS name, or
// one of DNS.
func (c *checker) domains(path string, names []string) {
	c.blanks(path, names)
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
		if strings.TrimSpace(name) != "" && strings.ContainsAny(name, "\\@/ \t\r\n") {
			c.fault(item(path, i), `is a domain alone, such as CORP or corp.example.com, without "\", "@" and blanks`)
		}
	}
	c.repeated(path, lower)
}

func (c *checker) groupSearch(at string, g *claims.GroupSearch) {
	if path := at + ".base_dn"; c.written(path) && !c.empty(path, g.BaseDN, ": take the key away for the source's") {
		c.dn(path, g.BaseDN)
	}
	if path := at + ".filter"; !c.empty(path, g.Filter, ": take the key away for the usual one") && g.Filter != "" {
		names := placeholder.FindAllString(g.Filter, -1)
		if len(names) == 0 {
			c.fault(path, "lacks {dn}, the person's entry: everybody would be in every group")
		}
		for _, name := range names {
			if !attributeName.MatchString(strings.Trim(name, "{}")) {
				c.fault(path, "%s is neither {dn} nor the name of an attribute", c.show(path, name))
			}
		}
		c.filter(path, g.Filter)
	}
	for key, name := range map[string]string{"claim": g.Claim, "value": g.Value} {
		if path := at + "." + key; c.written(path) && !c.empty(path, name, "") {
			c.attribute(path, name)
		}
	}
}

// attributeName is an attribute description of RFC 4512 section 2.5: a name or
// an OID, and options.
var attributeName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+)(;[A-Za-z0-9-]+)*$`)

// attribute wants the name of an attribute, or of one of the claims that every
// directory's people have.
func (c *checker) attribute(path, name string) {
	switch {
	case name == "" || name == claims.LocalNames.User:
	case strings.HasPrefix(name, "/"):
		c.fault(path, "is a JSON Pointer, and a directory has attributes: write the name of one")
	case !attributeName.MatchString(name):
		c.fault(path, "%s is not the name of an attribute (RFC 4512)", c.show(path, name))
	}
}

// attributes checks the claims of a source whose claims are attributes.
func (c *checker) attributes(at string, s *claims.Config) {
	for i, name := range s.Groups.Claims {
		c.attribute(item(at+".groups.claims", i), name)
	}
	for key, name := range map[string]string{"user": s.Identity.User, "email": s.Identity.Email, "name": s.Identity.Name} {
		c.attribute(at+".identity."+key, name)
	}
	if user := c.cfg.Identity.User; s.Identity.User == "" && strings.HasPrefix(user, "/") {
		c.fault(at, "needs an identity of its own: identity.user is a JSON Pointer, and a directory has attributes")
	}
	c.notVerified(at, s)
}

// checkCertificates reads a file of certificates as the source will. One that
// cannot be read among others would be missed when the others run out.
func checkCertificates(name string) error {
	rest, err := readFile(name)
	if err != nil {
		return errors.New("cannot be read: " + cause(err))
	}
	found := false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("holds something else beside certificates: the directory's authority is known by its certificate alone")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return errors.New("holds a certificate that cannot be read")
		}
		found = true
	}
	if !found {
		return errors.New("holds no certificate (PEM)")
	}
	return nil
}
