package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/proxy"
)

// tls checks the listener's certificate, from files or by ACME.
func (c *checker) tls() {
	t := &c.cfg.TLS
	c.pair("tls", t.TLSConfig)
	if t.ACME == nil {
		return
	}
	if t.CertFile != "" || t.KeyFile != "" {
		c.fault("tls.acme", "stands beside cert_file and key_file: a listener's certificate is from files or by ACME")
	}
	if public, err := url.Parse(c.cfg.PublicURL); err == nil && public.Scheme == "http" {
		c.fault("tls.acme", "is for https, and public_url is plain http")
	}
	if c.cfg.Store.None != nil {
		c.fault("tls.acme", "needs a store to keep certificates in, and store.none is none: every start would ask for new ones")
	}
	c.acme("tls.acme", t.ACME)
}

func (c *checker) acme(at string, a *proxy.ACMEConfig) {
	if path := at + ".email"; c.written(path) && !c.empty(path, a.Email, ": take the key away for none") && !mailbox(a.Email) {
		c.fault(path, "is no e-mail address")
	}
	if path := at + ".directory"; !c.empty(path, a.Directory, ": take the key away for Let's Encrypt") {
		if u, err := address(a.Directory); err != nil {
			c.problem(path, err)
		} else if u.Scheme != "https" {
			c.fault(path, "must be https (RFC 8555 section 6.1)")
		}
	}
	if a.CAFile != "" {
		c.problem(at+".ca_file", checkCertificates(a.CAFile))
	}
	if !a.AcceptTerms {
		path := at + ".accept_terms"
		if !c.written(path) {
			path = at
		}
		c.fault(path, "the authority's terms must be agreed to: read them at its directory, then write accept_terms: true")
	}
	c.acmeNames(at+".hosts", a)
}

// acmeNames checks what certificates are asked for. A name that is not ours
// would be an order for nothing, again and again.
func (c *checker) acmeNames(at string, a *proxy.ACMEConfig) {
	c.blanks(at, a.Hosts)
	for i := range a.Hosts {
		a.Hosts[i] = strings.ToLower(a.Hosts[i])
	}
	c.repeated(at, a.Hosts)
	if a.Hosts != nil && len(a.Hosts) == 0 {
		c.fault(at, "is empty: take the key away for the hosts of public_url and routes")
	}
	names, ours := a.Hosts, c.cfg.hostnames(false)
	if names == nil {
		names = c.cfg.hostnames(true)
	}
	for i, name := range names {
		one := at
		if a.Hosts != nil {
			one = item(at, i)
		}
		_, notIP := netip.ParseAddr(name)
		switch {
		case name == "":
		case strings.Contains(name, "*"):
			c.fault(one, "a wildcard cannot be proved by this listener: name the hosts one by one")
		case notIP == nil || !strings.Contains(name, "."):
			c.fault(one, "%s is no public name: an authority issues for names such as portal.example.com", c.show(one, name))
		case checkHostname(name) != nil:
			c.problem(one, checkHostname(name))
		case a.Hosts != nil && !slices.Contains(ours, name):
			c.fault(one, "%s is neither the host of public_url nor of a route", c.show(one, name))
		}
	}
}

// mailbox is of an address for a machine: anything@host.
func mailbox(s string) bool {
	name, host, ok := strings.Cut(s, "@")
	return ok && name != "" && !strings.ContainsAny(name, " \t,;<>\"") && checkHostname(host) == nil
}

// routeTLS checks a portal's own certificate.
func (c *checker) routeTLS(at string, r *proxy.RouteConfig) {
	c.pair(at, r.TLS)
	switch {
	case r.TLS == (proxy.TLSConfig{}):
	case r.Host == "":
		c.fault(at, "belongs to a portal: the route needs a host")
	case !c.cfg.TLS.On() && c.cfg.TLS.KeyFile == "":
		c.fault(at, "would never be used: without tls the listener speaks plain HTTP")
	}
}

// hostnames are those of public_url and of the routes, without ports, each
// once; with bare, only of routes that have no certificate of their own.
func (c *Config) hostnames(bare bool) []string {
	var names []string
	if u, err := url.Parse(c.PublicURL); err == nil && u.Hostname() != "" {
		names = append(names, strings.ToLower(u.Hostname()))
	}
	own := map[string]bool{}
	for _, r := range c.Routes {
		if bare && r.TLS.CertFile != "" {
			own[proxy.Hostname(r.Host)] = true
		}
	}
	for _, r := range c.Routes {
		name := proxy.Hostname(r.Host)
		if name != "" && !own[name] && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
