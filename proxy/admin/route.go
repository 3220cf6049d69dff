package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

const apiPrefix = "/api/v1/"

// route is one method of one path. The pattern is written as OpenAPI writes
// it: "/sources/{name}:test". A test compares the two.
type route struct {
	method, pattern string
	serve           func(*exchange) error
	segments        []segment
}

// segment is a literal, or a parameter with what follows it.
type segment struct {
	param   bool
	literal string // of a parameter: its suffix
}

// table lists everything the API serves.
func (s *Server) table() []route {
	routes := []route{
		{method: "GET", pattern: "/users", serve: s.listUsers},
		{method: "POST", pattern: "/users", serve: s.createUser},
		{method: "GET", pattern: "/users/{id}", serve: s.getUser},
		{method: "PATCH", pattern: "/users/{id}", serve: s.patchUser},
		{method: "DELETE", pattern: "/users/{id}", serve: s.deleteUser},
		{method: "DELETE", pattern: "/users/{id}/sessions", serve: s.endSessions},

		{method: "GET", pattern: "/groups", serve: s.listGroups},
		{method: "POST", pattern: "/groups", serve: s.createGroup},
		{method: "GET", pattern: "/groups/{name}", serve: s.getGroup},
		{method: "PATCH", pattern: "/groups/{name}", serve: s.patchGroup},
		{method: "DELETE", pattern: "/groups/{name}", serve: s.deleteGroup},
		{method: "GET", pattern: "/groups/{name}/members", serve: s.listMembers},
		{method: "PUT", pattern: "/groups/{name}/members/{id}", serve: s.addMember},
		{method: "DELETE", pattern: "/groups/{name}/members/{id}", serve: s.removeMember},
		{method: "POST", pattern: "/groups/{name}/members:import", serve: s.importMembers},
		{method: "GET", pattern: "/groups/{name}/members:export", serve: s.exportMembers},

		{method: "GET", pattern: "/rules", serve: s.listRules},
		{method: "POST", pattern: "/rules", serve: s.createRule},
		{method: "POST", pattern: "/rules:match", serve: s.matchRule},
		{method: "GET", pattern: "/claims", serve: s.listClaims},
		{method: "GET", pattern: "/values", serve: s.listValues},
		{method: "PUT", pattern: "/rules/{id}", serve: s.putRule},
		{method: "DELETE", pattern: "/rules/{id}", serve: s.deleteRule},
		{method: "POST", pattern: "/plan", serve: s.plan},
		{method: "POST", pattern: "/explain", serve: s.explain},

		{method: "GET", pattern: "/events", serve: s.listEvents},
		{method: "GET", pattern: "/events:export", serve: s.exportEvents},
		{method: "GET", pattern: "/stats", serve: s.stats},
		{method: "GET", pattern: "/guard", serve: s.guard},
		{method: "POST", pattern: "/guard:allow", serve: s.allowRemovals},
		{method: "GET", pattern: "/sources", serve: s.listSources},
		{method: "POST", pattern: "/sources/{name}:test", serve: s.testSource},
		{method: "GET", pattern: "/targets", serve: s.listTargets},
		{method: "POST", pattern: "/targets/{name}:retry", serve: s.retryTarget},
		{method: "GET", pattern: "/openapi.json", serve: describe},
	}
	for i := range routes {
		routes[i].segments = compile(routes[i].pattern)
	}
	return routes
}

// needsNoDirectory is what works where there is none (store.none).
var needsNoDirectory = map[string]bool{"/explain": true, "/sources": true, "/sources/{name}:test": true, "/openapi.json": true}

func compile(pattern string) []segment {
	var out []segment
	for part := range strings.SplitSeq(pattern[1:], "/") {
		if rest, param := strings.CutPrefix(part, "{"); param {
			_, suffix, _ := strings.Cut(rest, "}")
			out = append(out, segment{param: true, literal: suffix})
			continue
		}
		out = append(out, segment{literal: part})
	}
	return out
}

// find sets the route of a request and the arguments in its path.
func (s *Server) find(x *exchange, path string) error {
	parts, ok := split("/" + strings.TrimPrefix(path, apiPrefix))
	if !ok {
		return errNoPage
	}
	var allow []string
	for i := range s.routes {
		rt := &s.routes[i]
		args, fits := match(rt.segments, parts)
		if !fits {
			continue
		}
		if rt.method == x.r.Method || rt.method == http.MethodGet && x.r.Method == http.MethodHead {
			x.rt, x.args = rt, args
			return nil
		}
		allow = append(allow, rt.method)
	}
	if allow == nil {
		return errNoPage
	}
	if slices.Contains(allow, http.MethodGet) {
		allow = append(allow, http.MethodHead)
	}
	return notAllowed(strings.Join(allow, ", "))
}

// split cuts a path at its slashes and only then decodes, so that a "%2F"
// stays inside a name. Empty and dot segments are refused: something on the
// way may have meant to remove them (RFC 3986, 5.2.4).
func split(path string) (parts []string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, false
	}
	for raw := range strings.SplitSeq(rest, "/") {
		if raw == "" || raw == "." || raw == ".." {
			return nil, false
		}
		part, err := url.PathUnescape(raw)
		if err != nil || !plain(part) {
			return nil, false
		}
		parts = append(parts, part)
	}
	return parts, true
}

// plain reports whether a text can be looked up anywhere.
func plain(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func match(segments []segment, parts []string) (args []string, fits bool) {
	if len(parts) != len(segments) {
		return nil, false
	}
	for i, seg := range segments {
		if !seg.param {
			if parts[i] != seg.literal {
				return nil, false
			}
			continue
		}
		arg, ends := strings.CutSuffix(parts[i], seg.literal)
		if !ends || arg == "" {
			return nil, false
		}
		args = append(args, arg)
	}
	return args, true
}

// segmentOf writes a name as one segment of a path.
func segmentOf(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}
