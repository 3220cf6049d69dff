package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/groupgate/groupgate/claims"
)

// Settings is everything a configuration says about the proxy. It is swapped
// whole and never changed. It has been checked by the configuration.
type Settings struct {
	PublicURL      string
	Prefix         string
	Upstream       string
	Session        SessionConfig
	Keys           [][]byte // of the session; the first writes
	Headers        HeadersConfig
	Routes         []RouteConfig
	TrustedProxies []netip.Prefix
	Sources        []SourceEntry
	Signer         *Signer      // nil without an assertion header
	Tracer         trace.Tracer // nil: nothing is traced, and a client's trace passes through
	// Console serves PREFIX/admin on the public host for members of one of
	// ConsoleGroups, for which the proxy has looked at that very request. by is
	// their user name. Without groups there is none.
	Console       func(w http.ResponseWriter, r *http.Request, by string)
	ConsoleGroups []string
}

// SourceEntry is a source with what the chooser shows of it.
type SourceEntry struct {
	Source   claims.Source
	Label    string
	Protocol string // it is spoken to by, for counting
}

// site is a compiled Settings: what one request is served by from its first
// step to its last.
type site struct {
	set        Settings
	public     string // origin of public_url
	publicHost string
	scheme     string
	secure     bool // public_url is https
	prefix     string
	keys       *keyring
	headers    *headerRules
	hosts      map[string]*host
	hostnames  map[string]bool // the same without ports
	sites      []*host         // the same, public host first
	trusted    []netip.Prefix
	sources    map[string]claims.Source
	logins     map[string]*LoginStats // by source
	byGroups   bool                   // some route asks for groups

	sessionCookie, loginPrefix string
	lifetime, idle, refresh    time.Duration
}

func compileSite(set Settings, ups *upstreams) (*site, error) {
	u, err := url.Parse(set.PublicURL)
	if err != nil {
		return nil, fmt.Errorf("public_url: %w", err)
	}
	s := &site{
		set: set, scheme: u.Scheme, secure: u.Scheme == "https", prefix: set.Prefix,
		publicHost: normalHost(u.Host, u.Scheme), hosts: map[string]*host{}, hostnames: map[string]bool{},
		trusted: set.TrustedProxies, sources: map[string]claims.Source{}, logins: map[string]*LoginStats{},
		lifetime: set.Session.Lifetime, idle: set.Session.Idle, refresh: set.Session.Refresh,
		sessionCookie: cookieWord, loginPrefix: cookieWord + "-login-",
	}
	s.public = s.scheme + "://" + s.publicHost
	if s.secure {
		s.sessionCookie, s.loginPrefix = "__Host-"+s.sessionCookie, "__Host-"+s.loginPrefix
	}
	if s.keys, err = newKeyring(set.Keys); err != nil {
		return nil, fmt.Errorf("session.keys: %w", err)
	}
	s.headers = compileHeaders(set.Headers)
	for _, e := range set.Sources {
		s.sources[e.Source.Name()] = e.Source
	}
	return s, s.compileRoutes(ups)
}

func (s *site) compileRoutes(ups *upstreams) error {
	global, err := ups.get(s.set.Upstream)
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	s.addHost(s.publicHost, false)
	for _, c := range s.set.Routes {
		if c.Host != "" {
			s.addHost(s.portalHost(c.Host), true)
		}
	}
	var shared []*route // of every host
	for i, c := range s.set.Routes {
		rt := &route{path: c.Path, public: c.Access == Public, groups: c.Groups, upstream: global, origin: s.public}
		if rt.path == "" {
			rt.path = "/"
		}
		if c.Upstream != "" {
			if rt.upstream, err = ups.get(c.Upstream); err != nil {
				return fmt.Errorf("routes[%d].upstream: %w", i, err)
			}
		}
		if c.Basic != "" {
			asks := false
			if rt.basic, asks = s.sources[c.Basic].(claims.PasswordSource); !asks {
				return fmt.Errorf("routes[%d].basic: no source of passwords has this name", i)
			}
		}
		s.byGroups = s.byGroups || len(rt.groups) > 0
		if c.Host == "" {
			shared = append(shared, rt)
			continue
		}
		h := s.hosts[s.portalHost(c.Host)]
		rt.origin = h.origin
		h.routes = append(h.routes, rt)
	}
	byLength := func(a, b *route) int { return len(b.path) - len(a.path) }
	slices.SortStableFunc(shared, byLength)
	for _, h := range s.sites {
		slices.SortStableFunc(h.routes, byLength)
		// A host's own routes come first, then those of every host, which on a
		// portal speak for the portal's origin.
		for _, rt := range shared {
			own := *rt
			own.origin = h.origin
			h.routes = append(h.routes, &own)
		}
		h.routes = append(h.routes, &route{path: "/", origin: h.origin, upstream: global})
	}
	return nil
}

// portalHost is a route's host as the Host header names it: a portal is at
// public_url's port unless it says another.
func (s *site) portalHost(name string) string {
	if _, port, ok := strings.Cut(s.publicHost, ":"); ok && !strings.Contains(name, ":") && !strings.Contains(port, ":") {
		name += ":" + port
	}
	return normalHost(name, s.scheme)
}

func (s *site) addHost(name string, portal bool) {
	if s.hosts[name] != nil {
		return // a route may name the public host
	}
	h := &host{name: name, hostname: Hostname(name), origin: s.scheme + "://" + name, portal: portal}
	s.hosts[name] = h
	s.hostnames[h.hostname] = true
	s.sites = append(s.sites, h)
}

// own reports whether a path is one of our endpoints', and which.
func (s *site) own(path string) (endpoint string, ok bool) {
	rest, ok := strings.CutPrefix(path, s.prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return rest, true
}

// label is what people know a source by.
func (s *site) label(source string) string {
	for _, e := range s.set.Sources {
		if e.Source.Name() == source && e.Label != "" {
			return e.Label
		}
	}
	return source
}
