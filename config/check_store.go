package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/groupgate/groupgate/groups"
)

// NoneConfig is "store.none": there is no directory. It has no keys.
type NoneConfig struct{}

// store checks that there is one store, and what can be without any.
func (c *checker) store() {
	var kinds []string
	for _, kind := range []string{"sqlite", "postgres", "none"} {
		if c.written("store." + kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) > 1 {
		c.fault("store", "is of one kind; this one is %s", strings.Join(kinds, " and "))
	}
	if len(kinds) > 0 && kinds[0] != "sqlite" {
		c.cfg.Store.SQLite = ""
	}
	switch {
	case c.cfg.Store.None != nil:
	case c.written("store.postgres"):
		c.database()
	default:
		c.empty("store.sqlite", c.cfg.Store.SQLite, "")
	}
	if c.cfg.Store.None != nil {
		c.stateless()
	}
}

// database looks at the address of a database, as far as that goes without
// asking it. It holds a password: no fault repeats it.
func (c *checker) database() {
	const key = "store.postgres"
	address := c.cfg.Store.Postgres
	switch scheme, _, url := strings.Cut(address, "://"); {
	case address == "": // said already, as of every secret
	case url && scheme != "postgres" && scheme != "postgresql":
		c.fault(key, "is the address of something else: postgres://USER:PASSWORD@HOST/DATABASE is meant")
	case !url && !strings.Contains(address, "="):
		c.fault(key, "is neither an address, postgres://USER:PASSWORD@HOST/DATABASE, nor pairs like host=HOST dbname=DATABASE")
	}
}

var sslMode = regexp.MustCompile(`\bsslmode=(require|verify-ca|verify-full)\b`)

// encrypted reports whether nobody on the way can read what goes to a database:
// it is on this machine, or the address asks for it.
func encrypted(address string) bool {
	if sslMode.MatchString(address) {
		return true
	}
	host := ""
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		host = u.Hostname()
	} else if m := regexp.MustCompile(`\bhost=(\S+)`).FindStringSubmatch(address); m != nil {
		host = m[1]
	}
	ip, err := netip.ParseAddr(host)
	return host == "" || host == "localhost" || strings.HasPrefix(host, "/") || err == nil && ip.IsLoopback()
}

// noDirectory is why a key cannot be told to somebody who keeps nothing.
const noDirectory = "without a directory (store.none) "

// stateless faults what needs a directory. What would only be without effect
// is a fault as well, where somebody may rely on it.
func (c *checker) stateless() {
	cfg := c.cfg
	if !c.written("session.keys") || len(cfg.Session.Keys) == 0 {
		c.fault("session.keys", "is missing: "+noDirectory+"sessions are sealed with it, and nothing keeps a generated one")
	}
	if !c.written("admin.token") || cfg.Admin.Token == "" {
		c.fault("admin.token", "is missing: "+noDirectory+"nothing keeps a generated one")
	}
	for i := range cfg.Sources {
		at := item("sources", i)
		for kind, why := range map[string]string{
			"local": "nobody keeps local users",
			"saml":  "nobody notes which assertions were used",
		} {
			if path := at + "." + kind; c.written(path) {
				c.fault(path, "%s%s", noDirectory, why)
			}
		}
		if name := cfg.Sources[i].Name; len(cfg.Sources) > 1 && name != "" && !slices.Contains(cfg.Identity.Link, name) {
			c.fault(at, noDirectory+"nobody knows whose a user name is: several sources must all be named in identity.link, which says that they share their people")
		}
	}
	for key, why := range map[string]string{
		"sync.remove_from_groups": "memberships are what the last statement says, always",
		"sync.create_new_groups":  "nobody knows which groups there are: sync.group_names says which there may be",
		"sync.guard":              "nobody keeps what it would count",
		"targets":                 "there is nothing to tell them of",
		"tls.acme":                "nothing keeps the certificates: give files",
	} {
		if c.written(key) {
			c.fault(key, "means nothing here: %s%s", noDirectory, why)
		}
	}
	if c.written("sync.enabled") && cfg.Sync.Enabled {
		c.fault("sync.enabled", noDirectory+"nothing is synced: take the key away, or say false")
	}
	for i, g := range cfg.Groups {
		if g.Control == groups.Manual {
			c.fault(item("groups", i)+".control", noDirectory+"nobody keeps members")
		}
	}
	for i := range cfg.Routes {
		if path := item("routes", i) + ".basic"; c.written(path) {
			c.fault(path, noDirectory+"there is no session that no cookie carries")
		}
	}
	cfg.Sync.Enabled = false
}

// Warnings says what the configuration cannot do that people commonly expect,
// one thing each. None of it is a fault.
func (c *Config) Warnings() []string {
	if c.Store.Postgres != "" && !encrypted(c.Store.Postgres) {
		return []string{"store.postgres: what goes to the database and back may not be encrypted, or go to somebody else: add sslmode=verify-full to its address"}
	}
	if c.Store.None == nil {
		return nil
	}
	out := []string{
		"signing out takes the cookies from that browser alone: a copy of them works until session.lifetime or session.idle is over",
		"nobody can be signed out everywhere, and back-channel logout is not offered",
		"no groups by hand, no list of people or groups, no audit trail but the log, no rules but the file's",
		fmt.Sprintf("a changed rule takes groups away at once, and gives groups at the next renewal of the claims (session.refresh, %s) or login", short(c.Session.Refresh)),
		"a login's answer and attempts at passwords are counted by each replica alone",
		"a user name belongs to whom the source says: a second person stated under the same name is not refused",
		"with several replicas the provider must let a refresh token be used again, or for some seconds: turn its rotation off for this client",
	}
	for _, r := range c.Routes {
		if r.Host != "" {
			return append(out, "a sign-out ends the session on one host: a portal's lasts until its own")
		}
	}
	return out
}
