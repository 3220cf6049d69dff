package migrate

import (
	"regexp"
	"slices"
	"strings"
)

// undecided is the group that is asked for until somebody decides who gets in.
const undecided = "to-be-decided"

// route is one of groupgate's on the way.
type route struct {
	path, upstream, from string
	public               bool
}

// route answers the route of a path, made if need be.
func (m *oauth2Migration) route(path, from string) *route {
	for i := range m.routed {
		if m.routed[i].path == path {
			return &m.routed[i]
		}
	}
	m.routed = append(m.routed, route{path: path, from: from})
	return &m.routed[len(m.routed)-1]
}

// routes open paths, and ask for groups.
func (m *oauth2Migration) routes() {
	comments := m.open()
	groups := m.allowed()
	if len(groups) == 0 && m.undecided {
		groups = []string{undecided}
		m.need("routes: who gets in could not be taken over, so nobody does: %s is asked for, which no rule grants", undecided)
	}
	ask := ""
	if len(groups) > 0 {
		ask = ", groups: " + list(groups)
		m.route("/", "one of the groups is needed")
	}
	if len(m.routed) > 0 {
		m.out.line(0, "routes:", "")
	}
	for _, r := range m.routed {
		text := "- {path: " + quoted(r.path)
		if up := m.upstreamOf(r.path); up != "" {
			text += ", upstream: " + quoted(up)
		}
		if r.public {
			text += ", access: public"
		} else {
			text += ask
		}
		m.out.line(1, text+"}", r.from)
	}
	for _, c := range comments {
		m.out.line(1, "# - {path: "+quoted(c.path)+", access: public}", c.from+": decide")
	}
}

// upstreamOf is that of the longest path above, because the first route that
// fits a request is the only one.
func (m *oauth2Migration) upstreamOf(path string) (upstream string) {
	longest := 0
	for _, r := range m.routed {
		above := strings.TrimSuffix(r.path, "/")
		if r.upstream != "" && len(r.path) > longest && (path == r.path || path == above || strings.HasPrefix(path, above+"/")) {
			longest, upstream = len(r.path), r.upstream
		}
	}
	return upstream
}

// open makes routes of the paths that need no login, and answers those that a
// person has to decide about.
func (m *oauth2Migration) open() (comments []route) {
	for _, name := range []string{"skip_auth_routes", "skip_auth_regex"} {
		s, _ := m.take(name)
		for _, entry := range s.values {
			path, why := openedPath(entry)
			switch {
			case path == "":
				m.lack(s, "an entry opens paths by %s: a route opens a path and all below it, for every method", why)
			case path == m.prefix || strings.HasPrefix(path, m.prefix+"/"): // open anyway
			case why != "":
				comments = append(comments, route{path: path, from: why})
				m.lack(s, "a route is written as a comment, because it would open more than before: %s", why)
			default:
				m.route(path, s.from()).public = true
			}
		}
	}
	return comments
}

// opened is a path that needs no login, when a regular expression says no more
// than a prefix.
var opened = regexp.MustCompile(`^\^?(/[A-Za-z0-9/_-]*)(\.\*)?\$?$`)

// openedPath answers the path that an entry opens, and why a route of it would
// open more; no path when none says the same.
func openedPath(entry string) (path, why string) {
	method, expr, by := strings.Cut(entry, "=")
	if !by || strings.ContainsAny(method, `^/\(`) {
		method, expr = "", entry
	}
	m := opened.FindStringSubmatch(expr)
	if m == nil || !strings.HasPrefix(expr, "^") {
		return "", "an expression that is more than a prefix"
	}
	path = m[1]
	switch {
	case path == "/" || path == "":
		return "", "an expression for everything"
	case strings.Contains(path, "//"):
		return "", "an expression that is no path"
	case method != "":
		return path, "it was for one method"
	case strings.HasSuffix(expr, "$") && m[2] == "":
		return path, "it was for this path alone, not for what is below"
	}
	return path, ""
}

func (m *oauth2Migration) allowed() (groups []string) {
	for _, name := range []string{"allowed_groups", "gitlab_groups", "keycloak_groups", "allowed_roles"} {
		s, ok := m.take(name)
		if !ok {
			continue
		}
		for _, g := range s.values {
			if name == "allowed_roles" {
				g = "role:" + g
			}
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
		if name == "allowed_roles" && !m.keycloak() {
			m.lack(s, "add the claim of the roles to sources[0].groups.claims, and a rule {claim: roles, regexp: '(.+)', group: 'role:$1'}")
		}
	}
	return groups
}
