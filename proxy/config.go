package proxy

import (
	"time"

	"github.com/invopop/jsonschema"
)

// SessionConfig is "session".
type SessionConfig struct {
	Keys     []string      `yaml:"keys" secret:"true"` // first writes, all read; generated and kept in the store when empty
	Lifetime time.Duration `yaml:"lifetime"`           // absolute; default 12h
	Idle     time.Duration `yaml:"idle"`               // default 1h
	Refresh  time.Duration `yaml:"refresh"`            // age at which claims are renewed; default 5m
}

// TLSConfig is a certificate and its key, read again when the files change.
type TLSConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// ListenConfig is "tls": the certificate of the public listener, from files or
// by ACME (RFC 8555). Without either the listener speaks plain HTTP.
type ListenConfig struct {
	TLSConfig `yaml:",inline"`
	ACME      *ACMEConfig `yaml:"acme"`
}

// On reports whether the listener speaks TLS.
func (c ListenConfig) On() bool { return c.CertFile != "" || c.ACME != nil }

// ACMEConfig is "tls.acme": certificates that an authority issues by itself.
// It proves who we are by connecting to the listener (tls-alpn-01, RFC 8737).
type ACMEConfig struct {
	Email       string   `yaml:"email"`     // whom the authority writes to; may be empty
	Directory   string   `yaml:"directory"` // default Let's Encrypt
	CAFile      string   `yaml:"ca_file"`   // who may have signed the directory's own certificate; default: the system's authorities
	AcceptTerms bool     `yaml:"accept_terms"`
	Hosts       []string `yaml:"hosts"` // default: of public_url, and of every route that has no certificate of its own
}

// DefaultACME is what holds where "tls.acme" says nothing.
var DefaultACME = ACMEConfig{Directory: "https://acme-v02.api.letsencrypt.org/directory"}

// HeadersConfig is "headers": what the upstream is told, and how.
type HeadersConfig struct {
	User         string            `yaml:"user"`
	Email        string            `yaml:"email"`
	Name         string            `yaml:"name"`
	Groups       string            `yaml:"groups"`
	Preset       HeaderPreset      `yaml:"preset"`
	GroupsFormat GroupsFormat      `yaml:"groups_format"` // default comma
	Only         []string          `yaml:"only"`          // group names, or prefixes that end in "*"; default all
	MaxBytes     int               `yaml:"max_bytes"`     // of the groups header; default 8192
	OnOverflow   OnOverflow        `yaml:"on_overflow"`   // default error
	Assertion    string            `yaml:"assertion"`     // header of the signed JWT; off when empty
	Claims       map[string]string `yaml:"claims"`        // header: claim
}

// HeaderPreset is a set of conventional names in one word.
type HeaderPreset string

// headerPresets maps a preset to user, e-mail, name and groups header. The
// empty preset is the default.
var headerPresets = map[HeaderPreset][4]string{
	"":             {"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"},
	"remote":       {"Remote-User", "Remote-Email", "Remote-Name", "Remote-Groups"},
	"auth-request": {"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Preferred-Username", "X-Auth-Request-Groups"},
	"grafana":      {"X-WEBAUTH-USER", "X-WEBAUTH-EMAIL", "X-WEBAUTH-NAME", "X-WEBAUTH-GROUPS"},
}

// Names are the preset's user, e-mail, name and groups header; those of the
// default for the empty preset.
func (p HeaderPreset) Names() [4]string { return headerPresets[p] }

// Valid reports whether the preset exists.
func (p HeaderPreset) Valid() bool { _, ok := headerPresets[p]; return ok }

// JSONSchema lists the presets for editors.
func (HeaderPreset) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"remote", "auth-request", "grafana"}}
}

// GroupsFormat is how the groups header is written.
type GroupsFormat string

// The three formats.
const (
	Comma    GroupsFormat = "comma"
	JSON     GroupsFormat = "json"
	Repeated GroupsFormat = "repeated"
)

// JSONSchema lists the formats for editors.
func (GroupsFormat) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"comma", "json", "repeated"}}
}

// OnOverflow is what happens when the groups header would be too long.
type OnOverflow string

// The two answers to an overflow.
const (
	OverflowError OnOverflow = "error"
	OverflowOmit  OnOverflow = "omit"
)

// JSONSchema lists the values for editors.
func (OnOverflow) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"error", "omit"}}
}

// RouteConfig is one entry of "routes".
type RouteConfig struct {
	Host     string    `yaml:"host"` // empty: every host
	Path     string    `yaml:"path"` // a prefix at whole segments; empty: "/"
	Access   Access    `yaml:"access"`
	Groups   []string  `yaml:"groups"`   // one of them is needed
	Basic    string    `yaml:"basic"`    // source whose people may send their password along (RFC 7617); empty: none
	Upstream string    `yaml:"upstream"` // empty: the global one
	TLS      TLSConfig `yaml:"tls"`      // of the portal; empty: the global one
}

// Access is who may use a route when it asks for no groups.
type Access string

// The values of access.
const (
	Public   Access = "public"
	SignedIn Access = "signed_in" // the default
)

// JSONSchema lists the values for editors.
func (Access) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"public", "signed_in"}}
}
