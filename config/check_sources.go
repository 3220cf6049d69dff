package config

import (
	"slices"
	"strings"

	"github.com/groupgate/groupgate/claims"
)

const maxSourceName = 32

// sources checks "sources" and collects their names for rules and links.
func (c *checker) sources() {
	c.names = map[string]bool{}
	if len(c.cfg.Sources) == 0 {
		c.fault("sources", "at least one source is needed: nobody could sign in")
	}
	first := map[string]int{}
	for i := range c.cfg.Sources {
		s := &c.cfg.Sources[i]
		at := item("sources", i)
		c.sourceName(at+".name", s.Name)
		if other, twice := first[s.Name]; twice && s.Name != "" {
			c.fault(at+".name", "the name belongs to the source in line %d already", c.at(item("sources", other)).line)
		} else {
			first[s.Name] = i
		}
		c.names[s.Name] = true
		c.empty(at+".label", s.Label, "")
		c.sourceKind(at, s)
		c.require(at+".require", &s.Require)
		c.blanks(at+".groups.claims", s.Groups.Claims)
		c.repeated(at+".groups.claims", s.Groups.Claims)
		for j, name := range s.Groups.Claims {
			c.claimName(item(at+".groups.claims", j), name)
		}
		c.claimNames(at+".identity", s.Identity)
	}
	delete(c.names, "")
}

// sourceName holds a name to what fits into one segment of a path and of a
// cookie as it is.
func (c *checker) sourceName(path, name string) {
	if c.missing(path, name, "") {
		return
	}
	for _, r := range name {
		if !strings.ContainsRune("-_.", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') || name[0] == '.' {
			c.fault(path, `may hold letters, digits, "-", "_" and ".", but not begin with a dot: it is part of URLs`)
			return
		}
	}
	if len(name) > maxSourceName {
		c.fault(path, "is longer than %d characters", maxSourceName)
	}
}

// sourceKind counts what is written, not what was decoded: a kind that is not
// supported yet is still a kind.
func (c *checker) sourceKind(at string, s *claims.Config) {
	var kinds []string
	for _, kind := range []string{"oidc", "saml", "ldap", "local"} {
		if c.written(at + "." + kind) {
			kinds = append(kinds, kind)
		}
	}
	switch {
	case len(kinds) == 0:
		c.fault(at, "a source needs its kind: oidc, saml, ldap or local")
	case len(kinds) > 1:
		c.fault(at, "a source has one kind; this one has %s", strings.Join(kinds, " and "))
	}
	if s.OIDC != nil {
		c.oidc(at+".oidc", s.OIDC)
	}
}

func (c *checker) oidc(at string, o *claims.OIDCConfig) {
	if !c.missing(at+".issuer", o.Issuer, "") {
		// The issuer itself stays as it is written: it is compared byte for
		// byte with what the provider says (OpenID Connect Discovery 4.3).
		if u, err := address(o.Issuer); err != nil {
			c.problem(at+".issuer", err)
		} else {
			c.problem(at+".issuer", secure(u))
		}
	}
	c.missing(at+".client_id", o.ClientID, "")
	c.blanks(at+".scopes", o.Scopes)
	c.repeated(at+".scopes", o.Scopes)
	for i, scope := range o.Scopes {
		if strings.TrimSpace(scope) != "" && strings.ContainsAny(scope, " \t\r\n\"\\") {
			c.fault(item(at+".scopes", i), "one scope an entry, without blanks and quotes (RFC 6749 section 3.3)")
		}
	}
	if o.Scopes != nil && !slices.Contains(o.Scopes, "openid") {
		c.fault(at+".scopes", "openid is missing: without it the provider states nobody's identity")
	}
}

// require checks conditions on a person. A slip must not widen who gets in, so
// a list that means nothing is a fault and not "everybody".
func (c *checker) require(at string, r *claims.Require) {
	c.blanks(at+".email_domains", r.EmailDomains)
	if c.written(at+".email_domains") && len(r.EmailDomains) == 0 {
		c.fault(at+".email_domains", "is empty: nobody could sign in; take the key away to let every domain in")
	}
	for i, d := range r.EmailDomains {
		path := item(at+".email_domains", i)
		switch {
		case strings.TrimSpace(d) == "":
		case strings.Contains(d, "@"):
			c.fault(path, "a domain is what stands behind the @")
		case strings.Contains(d, "*"):
			c.fault(path, `a domain is written out: "*" means nothing here`)
		case strings.ContainsAny(d, ":") || checkHostname(d) != nil:
			c.fault(path, "is not a domain")
		default:
			r.EmailDomains[i] = strings.ToLower(d)
		}
	}
	c.repeated(at+".email_domains", r.EmailDomains)
}
