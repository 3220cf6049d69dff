package config

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// pair checks a certificate and its key.
func (c *checker) pair(at string, t proxy.TLSConfig) {
	switch {
	case t.CertFile == "" && t.KeyFile == "":
		return
	case t.CertFile == "":
		c.fault(at+".cert_file", "is missing: a key needs its certificate")
		return
	case t.KeyFile == "":
		c.fault(at+".key_file", "is missing: a certificate needs its key")
		return
	}
	_, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	var file *fs.PathError
	switch {
	case err == nil:
	case errors.As(err, &file) && file.Path == t.KeyFile:
		c.fault(at+".key_file", "cannot be read: %s", cause(err))
	case file != nil:
		c.fault(at+".cert_file", "cannot be read: %s", cause(err))
	default:
		c.fault(at+".cert_file", "the pair cannot be used: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// routes checks each route by itself and that no two claim one place.
func (c *checker) routes() {
	type place struct{ host, path string }
	first := map[place]int{}
	allowed := c.namesAllowed()
	for i := range c.cfg.Routes {
		r := &c.cfg.Routes[i]
		at := item("routes", i)
		c.routePlace(at, r)
		here := place{c.portal(r.Host), r.Path}
		if here.path == "" {
			here.path = "/"
		}
		if other, twice := first[here]; twice {
			c.fault(at, "host and path are those of the route in line %d", c.at(item("routes", other)).line)
		} else {
			first[here] = i
		}
		c.routeAccess(at, r, allowed)
		c.routeBasic(at, r)
		if c.written(at+".upstream") && !c.empty(at+".upstream", r.Upstream, "") {
			c.problem(at+".upstream", checkUpstream(r.Upstream))
		}
		c.pair(at+".tls", r.TLS)
		c.routeTLS(at+".tls", r)
	}
}

// portal is a route's host as browsers write it: a portal that names no port
// is at that of public_url, and the scheme's usual port is left out.
func (c *checker) portal(host string) string {
	public, err := url.Parse(c.cfg.PublicURL)
	if host == "" || err != nil {
		return host
	}
	if _, _, err := net.SplitHostPort(host); err != nil && public.Port() != "" {
		host += ":" + public.Port()
	}
	return strings.TrimPrefix(origin(&url.URL{Scheme: public.Scheme, Host: host}), public.Scheme+"://")
}

// routePlace checks where a route lies.
func (c *checker) routePlace(at string, r *proxy.RouteConfig) {
	if c.written(at+".host") && !c.empty(at+".host", r.Host, ": take the key away for every host") {
		if err := checkHost(r.Host); err != nil {
			c.problem(at+".host", err)
		}
		r.Host = strings.ToLower(r.Host)
	}
	if !c.written(at+".path") || c.empty(at+".path", r.Path, ": take the key away for every path") {
		return
	}
	if err := checkPath(r.Path); err != nil {
		c.problem(at+".path", err)
	} else if p := c.cfg.Prefix; r.Path == p || strings.HasPrefix(r.Path, p+"/") {
		c.fault(at+".path", "lies under prefix, which is groupgate's own: no request would get here")
	}
}

// namesAllowed answers whether a group of that name can come to be: by
// sync.group_names, or because the file declares it.
func (c *checker) namesAllowed() func(string) bool {
	expr, err := groups.CompileNames(c.cfg.Sync.GroupNames)
	if err != nil || expr == nil {
		return func(string) bool { return true }
	}
	declared := map[string]bool{}
	for _, g := range c.cfg.Groups {
		declared[g.Name] = true
	}
	return func(name string) bool { return declared[name] || expr.MatchString(name) }
}

// routeAccess finds routes that nobody can pass, and those that say two
// things at once.
func (c *checker) routeAccess(at string, r *proxy.RouteConfig, allowed func(string) bool) {
	c.blanks(at+".groups", r.Groups)
	c.repeated(at+".groups", r.Groups)
	if r.Groups == nil {
		return
	}
	possible := false
	for _, g := range r.Groups {
		possible = possible || allowed(g)
	}
	switch {
	case len(r.Groups) == 0:
		c.fault(at+".groups", "a route nobody can pass: the list is empty; take the key away to let everybody in who is signed in")
	case r.Access == proxy.Public:
		c.fault(at+".access", "public lets everybody in, and groups does not: one of them has to go")
	case !possible:
		c.fault(at+".groups", "a route nobody can pass: sync.group_names allows none of these groups, and groups declares none of them")
	}
}

// routeBasic checks whose passwords a route takes by HTTP Basic.
func (c *checker) routeBasic(at string, r *proxy.RouteConfig) {
	path := at + ".basic"
	if !c.written(path) || c.empty(path, r.Basic, ": take the key away for a route without passwords") || r.Basic == "" {
		return
	}
	s := c.cfg.Source(r.Basic)
	switch {
	case !c.names[r.Basic]:
		c.fault(path, "%s", c.noSource(path, r.Basic))
	case s.OIDC != nil || s.SAML != nil:
		c.fault(path, "is a source whose people sign in at its own pages: only an LDAP or a local source checks passwords")
	case r.Access == proxy.Public:
		c.fault(path, "means nothing on a public route: everybody gets in, and nobody is asked")
	}
}

const (
	minHeaderBytes = 64
	maxHeaderBytes = 1 << 20 // what servers commonly accept for a whole request head
)

// headers checks the names the upstream will trust. Owner knows each name by
// its folded spelling, the conventional names and the omitted count included.
func (c *checker) headers() {
	h := c.cfg.Headers
	names := h.Preset.Names()
	owner := map[string]string{} // folded name: key
	for i, own := range []struct{ key, name string }{
		{"user", h.User}, {"email", h.Email}, {"name", h.Name}, {"groups", h.Groups},
	} {
		if c.empty("headers."+own.key, own.name, ": take the key away for the usual name") {
			continue
		}
		if own.name != "" {
			names[i] = own.name
		}
		c.header("headers."+own.key, names[i], owner)
	}
	if names[3] != "" {
		owner[fold(names[3]+"-Omitted")] = "on_overflow"
	}
	if h.Assertion != "" {
		c.header("headers.assertion", h.Assertion, owner)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Claims)) {
		claim := h.Claims[name]
		at := join("headers.claims", name)
		c.header(at, name, owner)
		if !c.empty(at, claim, "") {
			c.claimName(at, claim)
		}
	}
	c.blanks("headers.only", h.Only)
	c.repeated("headers.only", h.Only)
	if h.Only != nil && len(h.Only) == 0 {
		c.fault("headers.only", "is empty: the upstream would see no group; take the key away to show all")
	}
	if h.MaxBytes < minHeaderBytes || h.MaxBytes > maxHeaderBytes {
		c.fault("headers.max_bytes", "is not between %d and %d", minHeaderBytes, maxHeaderBytes)
	}
}

// header checks a name we set for the upstream. Two names that an upstream
// may read as one (CGI and WSGI turn "-" into "_") are one.
func (c *checker) header(at, name string, owner map[string]string) {
	key := strings.TrimPrefix(at, "headers.")
	folded := fold(name)
	switch {
	case name == "" || !fieldName.MatchString(name):
		c.fault(at, "is not the name of a header (RFC 9110 section 5.1)")
	case taken(folded):
		c.fault(at, "%s has a meaning of its own and cannot carry this", http.CanonicalHeaderKey(folded))
	case owner[folded] != "":
		c.fault(at, "is the same header as headers.%s (case and punctuation do not tell headers apart)", owner[folded])
	default:
		owner[folded] = key
	}
}

// fieldName is a token of RFC 9110 section 5.6.2.
var fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")

// fold reads a header's name the way the proxy strips it: lower case, and
// every character that is no letter or digit as "-".
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r > 0x7f || !alphanumeric(byte(r)) {
			return '-'
		}
		return r
	}, strings.ToLower(name))
}

// taken names headers that mean something to HTTP, to proxies or to cookies.
func taken(folded string) bool {
	switch folded {
	case "host", "cookie", "set-cookie", "authorization", "content-length", "content-type", "content-encoding",
		"transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "proxy-connection",
		"proxy-authenticate", "proxy-authorization", "www-authenticate", "expect", "range", "origin", "referer",
		"accept", "accept-encoding", "date", "via", "forwarded", "location",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-method",
		"x-forwarded-port", "x-forwarded-prefix", "x-real-ip":
		return true
	}
	return strings.HasPrefix(folded, "sec-") || strings.HasPrefix(folded, "access-control-")
}
