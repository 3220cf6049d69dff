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
	first, local := map[string]int{}, ""
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
		switch {
		case s.LDAP != nil:
			c.attributes(at, s)
		case s.Local != nil:
			c.local(at, s)
			if local != "" {
				c.fault(at+".local", "the source in line %d is local already: there is one list of local users", c.at(local).line)
			}
			local = at
		}
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

// sourceKind counts what is written, not what was decoded: a kind with nothing
// in it is still a kind.
func (c *checker) sourceKind(at string, s *claims.Config) {
	c.oneKind(at, "source", "oidc", "saml", "ldap", "local")
	if s.OIDC != nil {
		c.oidc(at+".oidc", s.OIDC)
	}
	if s.SAML != nil {
		c.saml(at+".saml", s.SAML)
	}
	if s.LDAP != nil {
		c.ldap(at+".ldap", s.LDAP)
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
	c.clientKey(at, o.ClientSecret, o.ClientKey, o.ClientCertificate, o.ClientKeyID)
	if o.Graph != nil {
		c.graph(at+".graph", o)
	}
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

// clientKey checks what a client may show in place of a secret. What is
// wrong with a key or certificate is said without a word of it.
func (c *checker) clientKey(at, secret, key, certificate, id string) {
	if key != "" {
		if secret != "" {
			c.fault(at+".client_key", "stands beside client_secret: a client shows one of them")
		}
		c.problem(at+".client_key", claims.CheckClientKey(key))
	}
	for name, value := range map[string]string{"client_certificate": certificate, "client_key_id": id} {
		if value != "" && !c.written(at+".client_key") {
			c.fault(at+"."+name, "means nothing without client_key")
		}
	}
	if certificate != "" && key != "" {
		c.problem(at+".client_certificate", claims.CheckClientCertificate(certificate, key))
	}
	if strings.ContainsAny(id, " \t\r\n") {
		c.fault(at+".client_key_id", "has a blank or a line break in it")
	}
}

// graph checks what is written and what is taken from the source and cloud.
func (c *checker) graph(at string, o *claims.OIDCConfig) {
	g, own := o.GraphSettings(), o.Graph
	c.empty(at+".client_id", own.ClientID, "")
	c.ownGraph(at, own)
	if !c.empty(at+".tenant", own.Tenant, "") && o.Issuer != "" {
		c.tenant(at+".tenant", g.Tenant)
	}
	given := c.written(at+".client_secret") || c.written(at+".client_key") // and faulted, when it is not there after all
	switch {
	case given || g.ClientSecret != "" || g.ClientKey != "":
	case own.ClientID != "" && own.ClientID != o.ClientID:
		c.fault(at, "needs a client_secret or client_key of its own: its client_id is not the source's")
	case !c.written(above(at)+".client_secret") && !c.written(above(at)+".client_key"):
		c.fault(at, "needs client_secret or client_key, here or in the source: Graph is asked in the application's own name")
	}
}

// ownGraph checks what needs nothing but the section itself.
func (c *checker) ownGraph(at string, own *claims.GraphConfig) {
	c.clientKey(at, own.ClientSecret, own.ClientKey, own.ClientCertificate, own.ClientKeyID)
	for name, raw := range map[string]string{"url": own.URL, "token_url": own.TokenURL} {
		if path := at + "." + name; c.written(path) && !c.empty(path, raw, "") {
			u, err := address(raw)
			if err == nil {
				err = secure(u)
			}
			c.problem(path, err)
		}
	}
}

// tenant accepts an id or a domain of one tenant.
func (c *checker) tenant(path, tenant string) {
	switch strings.ToLower(tenant) {
	case "":
		c.fault(path, "is missing, and the issuer does not name it as https://login.microsoftonline.com/TENANT/v2.0 does")
	case "common", "organizations", "consumers":
		c.fault(path, "is not one tenant but many: write the tenant's id")
	default:
		if strings.Contains(tenant, ":") || checkHostname(tenant) != nil {
			c.fault(path, "is neither the id nor a domain of a tenant")
		}
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

// oneKind says when an entry has none of the kinds there are, or several.
func (c *checker) oneKind(at, what string, kinds ...string) {
	var has []string
	for _, kind := range kinds {
		if c.written(at + "." + kind) {
			has = append(has, kind)
		}
	}
	switch last := len(kinds) - 1; {
	case len(has) == 0:
		c.fault(at, "a %s needs its kind: %s or %s", what, strings.Join(kinds[:last], ", "), kinds[last])
	case len(has) > 1:
		c.fault(at, "a %s has one kind; this one has %s", what, strings.Join(has, " and "))
	}
}
