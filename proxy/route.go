package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/groupgate/groupgate/claims"
)

// host is one origin that browsers reach us at: the public one, or a portal.
type host struct {
	name     string // as in the Host header, lower case, with the port unless it is the default one
	hostname string // without the port
	origin   string // scheme://name
	portal   bool
	routes   []*route // longest path first; ends with a route for "/"
}

// route is one compiled entry of "routes", or the default.
type route struct {
	path     string
	origin   string // the audience of its assertions
	public   bool
	groups   []string              // one of them is needed; none: any session will do
	basic    claims.PasswordSource // whose passwords requests may bring; nil: nobody's
	upstream *upstream
}

// covers reports whether the route's path is a prefix of the path at whole
// segments. A route that asks for groups and ends in "/" covers the path
// without that slash too, because applications serve both alike; a public one
// does not, because that would open more than is written.
func (rt *route) covers(path string) bool {
	p := rt.path
	if !strings.HasPrefix(path, p) {
		return len(rt.groups) > 0 && p[len(p)-1] == '/' && path == p[:len(p)-1]
	}
	return len(path) == len(p) || p[len(p)-1] == '/' || path[len(p)] == '/'
}

func (h *host) match(path string) *route {
	for _, rt := range h.routes {
		if rt.covers(path) {
			return rt
		}
	}
	return nil // never: the last one covers everything
}

// decision is the outcome of routing: all readings of the path agree on an
// upstream, and each has its say on who may pass.
type decision struct {
	*route
	others []*route // of the other readings; nil when they agree
}

func (h *host) decide(path string, others []string) (decision, error) {
	d := decision{route: h.match(path)}
	for _, other := range others {
		rt := h.match(other)
		if rt == d.route || slices.Contains(d.others, rt) {
			continue
		}
		if rt.upstream != d.upstream {
			return d, errPath
		}
		d.others = append(d.others, rt)
	}
	return d, nil
}

func (d decision) isPublic() bool {
	return d.public && !slices.ContainsFunc(d.others, func(rt *route) bool { return !rt.public })
}

// admits reports whether a person in these groups may pass. groups is sorted.
func (d decision) admits(groups []string) bool {
	return d.route.admits(groups) && !slices.ContainsFunc(d.others, func(rt *route) bool { return !rt.admits(groups) })
}

func (rt *route) admits(groups []string) bool {
	return len(rt.groups) == 0 || oneOf(rt.groups, groups)
}

// wants lists the groups that a person lacks, for the 403 page.
func (d decision) wants(groups []string) []string {
	for _, rt := range d.others {
		if !rt.admits(groups) && d.route.admits(groups) {
			return rt.groups
		}
	}
	return d.route.groups
}

func oneOf(wanted, sorted []string) bool {
	for _, g := range wanted {
		if _, in := slices.BinarySearch(sorted, g); in {
			return true
		}
	}
	return false
}

// host finds the origin a request was made to. The public host is also known
// by loopback names, where a front proxy in the same pod may not pass the
// Host header on; any other name is nobody's.
func (s *site) host(name string) *host {
	if h := s.hosts[name]; h != nil {
		return h
	}
	name = normalHost(name, s.scheme)
	if h := s.hosts[name]; h != nil {
		return h
	}
	if isLoopback(name) {
		return s.hosts[s.publicHost]
	}
	return nil
}

// misdirected reports whether a request for one host of ours came over a TLS
// connection that was made for another. Browsers share an HTTP/2 connection
// between hosts of one certificate (RFC 9113 section 9.1.1); what the
// connection was made by, such as the rules of a firewall for its server name,
// would then count for the wrong portal. They come again with a connection of
// its own when told 421. A server name that is none of ours says nothing, and
// neither does that of a trusted peer, who speaks for all hosts.
func (s *site) misdirected(r *http.Request, from peer) bool {
	if r.TLS == nil || r.TLS.ServerName == "" || from.trusted {
		return false
	}
	name := strings.ToLower(r.TLS.ServerName)
	if !s.hostnames[name] {
		return false
	}
	h := s.host(r.Host)
	return h != nil && h.hostname != name
}

// Hostname is the name or address in a Host header, in lower case and without
// the port.
func Hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.Trim(strings.TrimSuffix(strings.ToLower(host), "."), "[]")
}

// normalHost brings a Host header into the form of host.name.
func normalHost(name, scheme string) string {
	name = strings.ToLower(name)
	h, port, err := net.SplitHostPort(name)
	if err != nil {
		return strings.TrimSuffix(name, ".")
	}
	h = strings.TrimSuffix(h, ".")
	if port == "443" && scheme == "https" || port == "80" && scheme == "http" || port == "" {
		if strings.Contains(h, ":") {
			return "[" + h + "]"
		}
		return h
	}
	return net.JoinHostPort(h, port)
}

func isLoopback(name string) bool {
	if h, port, err := net.SplitHostPort(name); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false // 127.0.0.1:80.evil.example
		}
		name = h
	}
	name = strings.Trim(name, "[]")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// peer is who is at the other end of the connection.
type peer struct {
	addr    netip.Addr // invalid for a unix socket
	trusted bool       // stands in trusted_proxies
}

func (s *site) peer(r *http.Request) peer {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return peer{}
	}
	p := peer{addr: ap.Addr().Unmap().WithZone("")}
	for _, prefix := range s.trusted {
		if prefix.Contains(p.addr) {
			p.trusted = true
		}
	}
	return p
}

// forwarded reads one of the X-Forwarded-... headers of a trusted peer. Two
// lines of one name, or a list where one value is meant, say nothing.
func (p peer) forwarded(r *http.Request, name string) string {
	if !p.trusted {
		return ""
	}
	lines := r.Header[name]
	if len(lines) != 1 || (name != "X-Forwarded-Uri" && strings.Contains(lines[0], ",")) {
		return ""
	}
	return lines[0]
}
