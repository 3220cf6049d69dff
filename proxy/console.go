package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// consoleEndpoint is the path below PREFIX at which the console is.
const consoleEndpoint = "/admin"

// consoleLimit takes the place of ownLimit for who may use the console: they
// send files of people, and fetch some.
const consoleLimit = 5 * time.Minute

// hasConsole reports whether anybody may use the console here.
func (s *site) hasConsole() bool { return s.set.Console != nil && len(s.set.ConsoleGroups) > 0 }

// namesConsole tells a path that can be nothing but the console's from others
// that may be read in several ways. What follows the console's own name is the
// console's to read, segment by segment: the names of groups may hold what no
// honest path does. It is served here, and never forwarded.
func (s *site) namesConsole(u *url.URL) bool {
	return s.hasConsole() && u.Scheme == "" && u.Host == "" && u.User == nil && u.Opaque == "" &&
		strings.HasPrefix(u.Path, s.prefix+"/") && strings.HasPrefix(u.EscapedPath(), s.prefix+consoleEndpoint+"/") && !strings.Contains(u.RawPath, "#")
}

// console lets members of the console's groups through to it, on the public
// host alone: a portal's session is worth its portal.
func (p *Proxy) console(x *exchange, r *http.Request) error {
	s := x.site
	if !s.hasConsole() || x.host.portal {
		return errNotFound
	}
	x.console = true
	x.decision = decision{route: &route{path: s.prefix + consoleEndpoint, origin: s.public, groups: s.set.ConsoleGroups}}
	m, err := p.find(s, r, "")
	if err != nil {
		return err
	}
	if m == nil {
		return errUnauthenticated
	}
	x.member = m
	if !x.decision.admits(m.view.Groups) {
		return errNoGroup
	}
	x.carry(x.Header())
	x.within = consoleLimit
	x.limited = false
	x.limitBody(r)
	s.set.Console(x, r, m.view.User.Name)
	return nil
}
