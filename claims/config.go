package claims

import "github.com/invopop/jsonschema"

// Config is one entry of "sources". Exactly one of OIDC, SAML, LDAP and Local
// is set.
type Config struct {
	Name  string      `yaml:"name"`
	Label string      `yaml:"label"` // shown on the chooser; the name when empty
	OIDC  *OIDCConfig `yaml:"oidc"`
	SAML  any         `yaml:"saml" later:"SAML sources"`
	LDAP  any         `yaml:"ldap" later:"LDAP sources"`
	Local any         `yaml:"local" later:"local users"`

	Require  Require     `yaml:"require"`
	Groups   GroupClaims `yaml:"groups"`
	Identity Names       `yaml:"identity"` // of this source; what it leaves empty is the global "identity"
}

// OIDCConfig is an OpenID Connect provider.
type OIDCConfig struct {
	Issuer       string   `yaml:"issuer"`
	ClientID     string   `yaml:"client_id"`
	ClientSecret string   `yaml:"client_secret" secret:"true"`
	Scopes       []string `yaml:"scopes"` // default openid, profile, email
	Preset       Preset   `yaml:"preset"`
	Graph        any      `yaml:"graph" later:"Microsoft Graph"`
}

// Preset names a provider whose habits are known.
type Preset string

// Presets says which there are: what a missing group claim means, and which
// claim usually carries groups.
var Presets = map[Preset]struct {
	WhenAbsent WhenAbsent
	Claims     []string
}{
	"entra":    {Clear, []string{"groups"}},
	"okta":     {Clear, []string{"groups"}},
	"keycloak": {Clear, []string{"groups"}},
	"google":   {Clear, []string{"groups"}},
	"adfs":     {Clear, []string{"group"}},
	"auth0":    {Clear, []string{"groups"}},
	"generic":  {Keep, []string{"groups"}},
}

// JSONSchema lists the presets for editors.
func (Preset) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"entra", "okta", "keycloak", "google", "adfs", "auth0", "generic"}}
}

// Require is what a person's statement must hold, whatever the source.
type Require struct {
	EmailDomains  []string `yaml:"email_domains"`
	EmailVerified bool     `yaml:"email_verified"`
}

// GroupClaims names the claims that carry groups, and says what a missing one
// means.
type GroupClaims struct {
	Claims     []string   `yaml:"claims"`
	WhenAbsent WhenAbsent `yaml:"when_absent"`
}

// WhenAbsent is what a claim that is not there means.
type WhenAbsent string

// The three meanings of an absent claim.
const (
	Keep  WhenAbsent = "keep"  // grants nothing, removes nothing
	Clear WhenAbsent = "clear" // as an empty list
	Deny  WhenAbsent = "deny"  // the login is refused
)

// JSONSchema lists the values for editors.
func (WhenAbsent) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{string(Keep), string(Clear), string(Deny)}}
}

// Names says which claims become the person's user name, e-mail address and
// display name.
type Names struct {
	User  string `yaml:"user"`
	Email string `yaml:"email"`
	Name  string `yaml:"name"`
}
