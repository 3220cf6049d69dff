package claims

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Probe signs in to the directory with the service account, on a connection of
// its own, and looks whether the base is there.
func (l *LDAP) Probe(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	l.refused.forget() // somebody wants to know now
	c, err := l.dial(ctx, l.asService(ctx))
	if err != nil {
		return "", l.failed("sign in with the service account", err)
	}
	defer c.close()
	base, err := c.search(ctx, ldapQuery{
		base: l.cfg.BaseDN, scope: ldap.ScopeBaseObject, filter: "(objectClass=*)", attributes: []string{noAttributes},
	})
	if err == nil && len(base) == 0 {
		err = fmt.Errorf("base_dn: %s is not there, or the service account may not see it", l.cfg.BaseDN)
	}
	if err == nil {
		_, err = l.domains(ctx, c)
	}
	if err == nil {
		err = l.showsAnybody(ctx, c, strings.ReplaceAll(l.cfg.UserFilter, "{user}", "*"))
	}
	if err != nil {
		return "", l.failed("look at the directory", err)
	}
	return strings.Join([]string{
		c.server.url, l.probedTLS(c), l.probedKind(c), l.probedBind(), "base " + l.cfg.BaseDN + " found", l.probedNesting(c),
	}, ", "), nil
}

func (l *LDAP) probedTLS(c *ldapConn) string {
	state, encrypted := c.conn.TLSConnectionState()
	switch {
	case !encrypted:
		return "no TLS (this machine)"
	case c.server.starttls:
		return tls.VersionName(state.Version) + " by StartTLS"
	default:
		return tls.VersionName(state.Version)
	}
}

func (l *LDAP) probedKind(c *ldapConn) string {
	if !c.ad {
		return "LDAPv3"
	}
	if known := l.askedDomains.Load(); known != nil && len(*known) > 0 {
		return "Active Directory (" + strings.Join(*known, ", ") + ")"
	}
	return "Active Directory"
}

func (l *LDAP) probedBind() string {
	if l.cfg.BindDN == "" {
		return "searches are anonymous"
	}
	return "bound as " + l.cfg.BindDN
}

func (l *LDAP) probedNesting(c *ldapConn) string {
	switch {
	case !l.cfg.NestedGroups:
		return "no nested groups"
	case c.ad:
		return "nested groups by the in-chain rule"
	default:
		return "nested groups by a walk"
	}
}
