package config

import (
	"strings"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// checker finds what is wrong with a configuration that was decoded, and
// brings addresses into one spelling. Defaults that depend on other keys are
// not filled in yet: an empty value is one that was not written, or was
// faulted.
type checker struct {
	*book
	cfg  *Config
	base string // the file's name, for rules

	names map[string]bool // of sources
}

// check runs every check; none depends on another having passed. Sources come
// first because rules and links name them.
func (c *checker) check() {
	c.addresses()
	c.session()
	c.sources()
	c.identity()
	c.sync()
	c.rules()
	c.declared()
	c.headers()
	c.routes()
	c.targets()
	c.store()
	c.tracing()
}

// empty faults a key that was written with nothing in it, and reports so.
func (c *checker) empty(path, value, hint string) bool {
	if !c.written(path) || strings.TrimSpace(value) != "" {
		return false
	}
	c.fault(path, "is empty%s", hint)
	return true
}

// missing faults a key that has to be there, and reports so.
func (c *checker) missing(path, value, hint string) bool {
	if c.empty(path, value, "") {
		return true
	}
	if value == "" {
		c.fault(path, "is missing%s", hint)
	}
	return value == ""
}

// blanks faults entries of a list that say nothing. An empty string that
// slips into a list of groups must not come to mean "no group" or "any group".
func (c *checker) blanks(path string, list []string) {
	for i, s := range list {
		if strings.TrimSpace(s) == "" {
			c.fault(item(path, i), "an empty entry")
		}
	}
}

// repeated faults entries that stand twice.
func (c *checker) repeated(path string, list []string) {
	seen := map[string]bool{}
	for i, s := range list {
		if seen[s] && s != "" {
			c.fault(item(path, i), "%s stands twice", c.show(item(path, i), s))
		}
		seen[s] = true
	}
}

// problem faults a path with what an address check found. Those errors never
// repeat the text they are about.
func (c *checker) problem(path string, err error) {
	if err != nil {
		c.fault(path, "%s", err)
	}
}

// addresses checks where we listen, where we are reached, and where we forward.
func (c *checker) addresses() {
	cfg := c.cfg
	if !c.empty("listen", cfg.Listen, "") {
		c.problem("listen", checkListen(cfg.Listen))
	}
	if !c.empty("admin.listen", cfg.Admin.Listen, "") {
		c.problem("admin.listen", checkListen(cfg.Admin.Listen))
		if sameListener(cfg.Listen, cfg.Admin.Listen) {
			c.fault("admin.listen", "is the public listener (listen): the console must have its own")
		}
	}
	c.blanks("admin.groups", cfg.Admin.Groups)
	c.repeated("admin.groups", cfg.Admin.Groups)
	c.publicURL()
	c.prefix()
	if !c.missing("upstream", cfg.Upstream, ": the application to protect, such as http://127.0.0.1:8080") {
		c.problem("upstream", checkUpstream(cfg.Upstream))
	}
	c.tls()
}

// publicURL holds the address to an origin. Redirects and cookies are made
// from it alone, so a client cannot choose them (RFC 9700 section 4.11).
func (c *checker) publicURL() {
	const key = "public_url"
	if c.missing(key, c.cfg.PublicURL, ": the address people use, such as https://portal.example.com") {
		return
	}
	u, err := address(c.cfg.PublicURL)
	switch {
	case err != nil:
		c.problem(key, err)
	case u.Path != "" && u.Path != "/":
		c.fault(key, "has a path: it is an origin, scheme and host")
	case secure(u) != nil:
		c.problem(key, secure(u))
	case checkHostname(u.Hostname()) != nil:
		c.problem(key, checkHostname(u.Hostname()))
	default:
		c.cfg.PublicURL = origin(u)
	}
}

// prefix holds our own pages to a path that no client, proxy or router writes
// in a second way: unreserved characters only (RFC 3986 section 2.3).
func (c *checker) prefix() {
	p := c.cfg.Prefix
	if c.empty("prefix", p, "") {
		return
	}
	switch err := checkPath(p); {
	case err != nil:
		c.problem("prefix", err)
	case p == "/":
		c.fault("prefix", `cannot be "/": nothing would be left for the upstream`)
	case strings.HasSuffix(p, "/"):
		c.fault("prefix", `must not end with "/"`)
	default:
		for i := range len(p) {
			if !alphanumeric(p[i]) && !strings.ContainsRune("/-._~", rune(p[i])) {
				c.fault("prefix", `may hold letters, digits, "-", ".", "_", "~" and "/"`)
			}
		}
	}
}

const minKey = 32 // bytes of a session key

// session checks the keys after expansion: what counts is the secret, not its
// reference.
func (c *checker) session() {
	s := c.cfg.Session
	for i, key := range s.Keys {
		if len(key) < minKey {
			c.fault(item("session.keys", i), "a secret under %d bytes", minKey)
		}
	}
	if s.Idle > s.Lifetime {
		key := "session.idle"
		if !c.written(key) {
			key = "session.lifetime"
		}
		c.fault(key, "idle (%s) is longer than lifetime (%s)", short(s.Idle), short(s.Lifetime))
	}
}

// identity checks the claims and that every linked source exists: a slip there
// would let nobody, or the wrong source, speak for a person.
func (c *checker) identity() {
	id := c.cfg.Identity
	c.claimNames("identity", id.Names)
	c.blanks("identity.link", id.Link)
	c.repeated("identity.link", id.Link)
	for i, name := range id.Link {
		if at := item("identity.link", i); name != "" && !c.names[name] {
			c.fault(at, "%s", c.noSource(at, name))
		}
	}
	if n := len(id.Link); c.written("identity.link") && n == 1 {
		c.fault("identity.link", "one source alone shares its people with nobody: name two or more")
	}
}

// claimNames checks the names of an "identity" section.
func (c *checker) claimNames(path string, n claims.Names) {
	for key, name := range map[string]string{"user": n.User, "email": n.Email, "name": n.Name} {
		if at := path + "." + key; c.written(at) && !c.empty(at, name, "") {
			c.claimName(at, name)
		}
	}
}

func (c *checker) claimName(path, name string) {
	if err := claims.CheckName(name); err != nil {
		c.fault(path, "%s", c.explain(path, err))
	}
}

// noSource says that nothing has the name, and which one may have been meant.
func (c *checker) noSource(path, name string) string {
	if c.expanded[path] {
		return "there is no source of that name"
	}
	msg := "there is no source " + quote(name)
	var known []string
	for n := range c.names {
		known = append(known, n)
	}
	if near := nearest(name, known); near != "" {
		msg += " (did you mean " + near + "?)"
	}
	return msg
}

// sync checks "sync"; its amounts and durations checked themselves.
func (c *checker) sync() {
	s := c.cfg.Sync
	if c.written("sync.group_names") && !c.empty("sync.group_names", s.GroupNames, ": take the key away to allow every name") {
		if _, err := groups.CompileNames(s.GroupNames); err != nil {
			c.fault("sync.group_names", "%s", c.explain("sync.group_names", err))
		}
	}
	c.blanks("sync.default_groups", s.DefaultGroups)
	c.repeated("sync.default_groups", s.DefaultGroups)
}

// declared checks "groups".
func (c *checker) declared() {
	first := map[string]int{}
	for i, g := range c.cfg.Groups {
		at := item("groups", i)
		if !c.missing(at+".name", strings.TrimSpace(g.Name), "") {
			if other, twice := first[g.Name]; twice {
				c.fault(at+".name", "the group is declared in line %d already", c.at(item("groups", other)).line)
			} else {
				first[g.Name] = i
			}
		}
		c.missing(at+".control", string(g.Control), ": sso or manual")
	}
}
