// Package config reads the configuration file: strict YAML, with every fault
// at once, each at its line and column.
//
// [Load] answers either a configuration that is fit to run or [Faults]; there
// is nothing in between, so a reload can swap it in whole or leave the old
// one alone. It composes the Config types of the packages that use them and
// adds no meaning of its own beside defaults and checks.
//
// # Design
//
// The YAML library's decoder stops at the first fault and turns 010 into 8
// and null into "". The file decides who may enter where, so nothing in it is
// guessed: only the library's parser is used, and a decoder of our own walks
// its tree, notes where everything stands, and goes on after a fault. Checks
// name what they find by path ("rules[3].regexp"); the path leads back to the
// position.
package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/kaltura"
	"github.com/groupgate/groupgate/groups/scim"
	"github.com/groupgate/groupgate/groups/webhook"
	"github.com/groupgate/groupgate/proxy"
)

// Config is a whole configuration as [Load] answers it: checked, with
// defaults filled in and ${env:} and ${file:} replaced.
type Config struct {
	Listen    string             `yaml:"listen"`
	PublicURL string             `yaml:"public_url"` // an origin: lower case, no trailing slash, no default port
	TLS       proxy.ListenConfig `yaml:"tls"`
	Prefix    string             `yaml:"prefix"`
	Upstream  string             `yaml:"upstream"`

	Session proxy.SessionConfig `yaml:"session"`
	Store   StoreConfig         `yaml:"store"`

	Sources  []claims.Config      `yaml:"sources"`
	Identity IdentityConfig       `yaml:"identity"`
	Sync     groups.SyncConfig    `yaml:"sync"`
	Rules    []groups.Rule        `yaml:"rules"`
	Groups   []groups.GroupConfig `yaml:"groups"`

	Headers proxy.HeadersConfig `yaml:"headers"`
	Routes  []proxy.RouteConfig `yaml:"routes"`
	Targets []TargetConfig      `yaml:"targets"`

	Admin          AdminConfig    `yaml:"admin"`
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	Log            LogConfig      `yaml:"log"`
	Tracing        TracingConfig  `yaml:"tracing"`

	path     string
	read     []string // by ${file:}
	compiled *groups.Rules
}

// StoreConfig is "store": where the directory is kept.
type StoreConfig struct {
	SQLite   string      `yaml:"sqlite"`                 // a path, relative to the working directory
	Postgres string      `yaml:"postgres" secret:"true"` // the address of a database
	None     *NoneConfig `yaml:"none"`                   // sessions in the browser, and no directory
}

// IdentityConfig is "identity": which claims become the person's user name,
// e-mail address and display name, and which sources share their people.
type IdentityConfig struct {
	claims.Names      `yaml:",inline"`
	groups.LinkConfig `yaml:",inline"`
}

// TargetConfig is one of "targets": a system that has to hold the same
// memberships. It is of one kind.
type TargetConfig struct {
	Name    string          `yaml:"name"`
	SCIM    *scim.Config    `yaml:"scim"`
	Webhook *webhook.Config `yaml:"webhook"`
	Kaltura *kaltura.Config `yaml:"kaltura"`
	Wait    time.Duration   `yaml:"wait"` // how long a login waits for its own work; 0: not at all
}

// Kind is the key that says of which kind the target is.
func (t *TargetConfig) Kind() string {
	switch {
	case t.SCIM != nil:
		return "scim"
	case t.Kaltura != nil:
		return "kaltura"
	default:
		return "webhook"
	}
}

// AdminConfig is "admin": the listener for people who run groupgate, and who
// may use its console on the public host.
type AdminConfig struct {
	Listen string   `yaml:"listen"`
	Token  string   `yaml:"token" secret:"true"` // generated when empty
	Groups []string `yaml:"groups"`              // whose members may use the console at PREFIX/admin/; nobody when empty
}

// LogConfig is "log".
type LogConfig struct {
	Level  LogLevel  `yaml:"level"`
	Format LogFormat `yaml:"format"`
}

// TracingConfig is "tracing": where spans go. There are none without it.
type TracingConfig struct {
	Endpoint string            `yaml:"endpoint"`                                // of an OTLP collector, by HTTP; /v1/traces is added
	Sample   float64           `yaml:"sample" jsonschema:"minimum=0,maximum=1"` // 0 to 1, of the traces that begin here
	Headers  map[string]string `yaml:"headers" secret:"true"`
}

// LogLevel is the least severity that is logged. The audit trail is not
// subject to it.
type LogLevel string

// JSONSchema lists the levels for editors.
func (LogLevel) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"debug", "info", "warn", "error"}}
}

// LogFormat is how a log line is written.
type LogFormat string

// JSONSchema lists the formats for editors.
func (LogFormat) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"json", "console"}}
}

// Default is the configuration of a file that says nothing. It is not fit to
// run: public_url, upstream and sources have no default.
func Default() *Config {
	return &Config{
		Listen: ":4180",
		Prefix: "/_auth",
		Session: proxy.SessionConfig{
			Lifetime: 12 * time.Hour,
			Idle:     time.Hour,
			Refresh:  5 * time.Minute,
		},
		Store:    StoreConfig{SQLite: "groupgate.db"},
		Identity: IdentityConfig{Names: claims.Names{User: "preferred_username", Email: "email", Name: "name"}},
		Sync:     groups.DefaultSync,
		Headers: proxy.HeadersConfig{
			GroupsFormat: proxy.Comma,
			MaxBytes:     8192,
			OnOverflow:   proxy.OverflowError,
		},
		Admin:   AdminConfig{Listen: "127.0.0.1:4181"},
		Log:     LogConfig{Level: "info", Format: "json"},
		Tracing: TracingConfig{Sample: 1},
	}
}

// fill completes what depends on other keys, so that nobody past this package
// has to know where a value would come from.
func (c *Config) fill() {
	for i := range c.Sources {
		c.fillSource(&c.Sources[i])
	}
	if a := c.TLS.ACME; a != nil && a.Hosts == nil {
		a.Hosts = c.hostnames(true)
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Path == "" {
			r.Path = "/"
		}
		if r.Access == "" {
			r.Access = proxy.SignedIn
		}
	}
}

func (c *Config) fillSource(s *claims.Config) {
	if s.Label == "" {
		s.Label = s.Name
	}
	if s.SAML != nil && s.SAML.EntityID == "" {
		s.SAML.EntityID = c.PublicURL + c.Prefix + "/saml/" + s.Name + "/metadata"
	}
	preset := claims.Presets["generic"]
	switch {
	case s.LDAP != nil:
		preset.WhenAbsent, preset.Claims = claims.Clear, []string{"memberOf"}
		if g := s.LDAP.GroupSearch; g != nil && g.Claim != "memberOf" {
			preset.Claims = append(preset.Claims, g.Claim)
		}
	case s.Local != nil:
		preset.Claims = []string{}
		s.Identity = claims.LocalNames
	case s.OIDC != nil:
		if s.OIDC.Scopes == nil {
			s.OIDC.Scopes = []string{"openid", "profile", "email"}
		}
		if p, known := claims.Presets[s.OIDC.Preset]; known {
			preset = p
		}
	}
	// An empty list that was written stays empty: then only what rules name
	// is a group claim.
	if s.Groups.Claims == nil {
		s.Groups.Claims = slices.Clone(preset.Claims)
	}
	if s.Groups.WhenAbsent == "" {
		s.Groups.WhenAbsent = preset.WhenAbsent
	}
	own := []*string{&s.Identity.User, &s.Identity.Email, &s.Identity.Name}
	for i, global := range []string{c.Identity.User, c.Identity.Email, c.Identity.Name} {
		if *own[i] == "" {
			*own[i] = global
		}
	}
}

// Path is the file the configuration was read from.
func (c *Config) Path() string { return c.path }

// Files lists every file whose change may change the configuration: the
// configuration itself, what ${file:} named, certificates, keys and metadata.
func (c *Config) Files() []string {
	files := append([]string{c.path}, c.read...)
	pairs := []proxy.TLSConfig{c.TLS.TLSConfig}
	for _, r := range c.Routes {
		pairs = append(pairs, r.TLS)
	}
	for _, p := range pairs {
		files = append(files, p.CertFile, p.KeyFile)
	}
	if a := c.TLS.ACME; a != nil {
		files = append(files, a.CAFile)
	}
	for _, s := range c.Sources {
		if s.SAML != nil {
			files = append(files, s.SAML.MetadataFile, s.SAML.CertFile, s.SAML.KeyFile)
		}
		if s.LDAP != nil {
			files = append(files, s.LDAP.CAFile)
		}
	}
	slices.Sort(files)
	files = slices.Compact(files)
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// Source finds a source by name; nil when there is none.
func (c *Config) Source(name string) *claims.Config {
	for i := range c.Sources {
		if c.Sources[i].Name == name {
			return &c.Sources[i]
		}
	}
	return nil
}

// Needed lists, sorted, every claim of the source that anything in the file
// reads: group claims, rules and their conditions, identity, headers, and
// what is required of a person. Rules kept in the store come on top.
func (c *Config) Needed(source string) []string {
	s := c.Source(source)
	if s == nil {
		return nil
	}
	need := slices.Clone(s.Groups.Claims)
	need = append(need, s.Identity.User, s.Identity.Email, s.Identity.Name)
	if c.compiled != nil {
		need = append(need, c.compiled.Claims(source)...)
	}
	for _, claim := range c.Headers.Claims {
		need = append(need, claim)
	}
	if s.Require.EmailVerified {
		need = append(need, "email_verified") // the address itself is identity's
	}
	slices.Sort(need)
	need = slices.Compact(need)
	return slices.DeleteFunc(need, func(n string) bool { return n == "" })
}

// RestartKeys lists the keys that differ from old and only take effect in a
// new process: sockets, the store and the log's form are made once. Everything
// else swaps while running.
func (c *Config) RestartKeys(old *Config) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		differs bool
	}{
		{"listen", c.Listen != old.Listen},
		{"tls", c.TLS.On() != old.TLS.On()},
		{"store.sqlite", c.Store.SQLite != old.Store.SQLite},
		{"store.postgres", c.Store.Postgres != old.Store.Postgres},
		{"store.none", (c.Store.None == nil) != (old.Store.None == nil)},
		{"admin.listen", c.Admin.Listen != old.Admin.Listen},
		{"log.format", c.Log.Format != old.Log.Format},
	} {
		if k.differs {
			keys = append(keys, k.key)
		}
	}
	return keys
}
