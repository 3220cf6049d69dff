package claims

import (
	"time"

	"github.com/invopop/jsonschema"
)

// Config is one entry of "sources". Exactly one of OIDC, SAML, LDAP and Local
// is set.
type Config struct {
	Name  string       `yaml:"name"`
	Label string       `yaml:"label"` // shown on the chooser; the name when empty
	OIDC  *OIDCConfig  `yaml:"oidc"`
	SAML  *SAMLConfig  `yaml:"saml"`
	LDAP  *LDAPConfig  `yaml:"ldap"`
	Local *LocalConfig `yaml:"local"`

	Require  Require     `yaml:"require"`
	Groups   GroupClaims `yaml:"groups"`
	Identity Names       `yaml:"identity"` // of this source; what it leaves empty is the global "identity"
}

// OIDCConfig is an OpenID Connect provider.
type OIDCConfig struct {
	Issuer       string `yaml:"issuer"`
	ClientID     string `yaml:"client_id"`
	ClientSecret string `yaml:"client_secret" secret:"true"`
	// ClientKey is a private key, PEM, in place of a secret: the client then
	// proves with a signature who it is (private_key_jwt).
	ClientKey         string       `yaml:"client_key" secret:"true"`
	ClientCertificate string       `yaml:"client_certificate"` // of the key, PEM; Entra ID wants one
	ClientKeyID       string       `yaml:"client_key_id"`      // kid; the RFC 7638 thumbprint when there is neither this nor a certificate
	Scopes            []string     `yaml:"scopes"`             // default openid, profile, email
	Preset            Preset       `yaml:"preset"`
	Graph             *GraphConfig `yaml:"graph"`
}

// SAMLConfig is a SAML identity provider.
type SAMLConfig struct {
	// The provider's metadata, by one of the two.
	MetadataURL  string `yaml:"metadata_url"`
	MetadataFile string `yaml:"metadata_file"`
	// MetadataCertificate, PEM: the metadata must be signed with its key.
	MetadataCertificate string        `yaml:"metadata_certificate"`
	MetadataRefresh     time.Duration `yaml:"metadata_refresh"` // at most
	IDPEntityID         string        `yaml:"idp_entity_id"`    // the only provider that is believed; needed where the metadata has several
	EntityID            string        `yaml:"entity_id"`        // ours; default the address of our metadata
	// Subject says what tells people apart: [SubjectNameID], or the name of an
	// attribute.
	Subject      string        `yaml:"subject"`
	KeyFile      string        `yaml:"key_file"` // ours, RSA; generated and kept in the store when empty
	CertFile     string        `yaml:"cert_file"`
	SignRequests bool          `yaml:"sign_requests"`
	IDPInitiated bool          `yaml:"idp_initiated"` // logins that begin at the provider
	ClockSkew    time.Duration `yaml:"clock_skew"`
	Graph        *GraphConfig  `yaml:"graph"`
}

// SubjectNameID makes the NameID the subject.
const SubjectNameID = "nameid"

// DefaultSAML is what holds where a SAML source says nothing.
var DefaultSAML = SAMLConfig{
	MetadataRefresh: time.Hour, Subject: SubjectNameID, SignRequests: true, ClockSkew: time.Minute,
}

// LDAPConfig is a directory: Active Directory, or any that speaks LDAPv3 (RFC
// 4511).
type LDAPConfig struct {
	// URL lists servers with the same content: the next is asked when one
	// cannot be reached.
	URL          URLs   `yaml:"url"`
	BindDN       string `yaml:"bind_dn"` // of the service account; empty: searches are anonymous
	BindPassword string `yaml:"bind_password" secret:"true"`
	BaseDN       string `yaml:"base_dn"`
	// UserFilter finds the person (RFC 4515); {user} is what was typed.
	UserFilter string `yaml:"user_filter"`
	// Subject names the attribute that tells people apart for good. Empty:
	// objectGUID of an Active Directory, else entryUUID (RFC 4530).
	Subject string `yaml:"subject"`
	// Domains are what may stand before a backslash or behind an @ around the
	// account's name. Empty: an Active Directory is asked.
	Domains      []string     `yaml:"domains"`
	NestedGroups bool         `yaml:"nested_groups"`
	GroupSearch  *GroupSearch `yaml:"group_search"`
	StartTLS     bool         `yaml:"starttls"`
	CAFile       string       `yaml:"ca_file"` // PEM; empty: the system's
}

// DefaultLDAP is what holds where an LDAP source says nothing.
var DefaultLDAP = LDAPConfig{
	UserFilter: "(&(objectClass=person)(|(sAMAccountName={user})(userPrincipalName={user})(uid={user})))",
}

// GroupSearch finds groups by who is in them, for a directory that keeps no
// memberOf. What it finds are the values of a claim.
type GroupSearch struct {
	BaseDN string `yaml:"base_dn"` // empty: the source's
	// Filter finds the groups of an entry: {dn} is its distinguished name, and
	// any other {attribute} what that attribute of the entry holds.
	Filter string `yaml:"filter"`
	Claim  string `yaml:"claim"` // default memberOf
	// Value names the attribute of the group that is the value; empty: its
	// distinguished name.
	Value string `yaml:"value"`
}

// DefaultGroupSearch is what holds where "group_search" says nothing.
var DefaultGroupSearch = GroupSearch{Filter: "(|(member={dn})(uniqueMember={dn}))", Claim: "memberOf"}

// URLs is one address or a list of them.
type URLs []string

// JSONSchema describes the two spellings.
func (URLs) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}},
	}}
}

// LocalConfig is the users that an administrator made here.
type LocalConfig struct {
	MinPasswordLength int `yaml:"min_password_length"` // characters
}

// DefaultLocal is what holds where a local source says nothing.
var DefaultLocal = LocalConfig{MinPasswordLength: 12}

// GraphConfig is how groups are asked of Microsoft Graph when Entra ID says
// that a person has more of them than it sends. What is empty is taken from
// the source, see [OIDCConfig.GraphSettings].
type GraphConfig struct {
	Tenant            string      `yaml:"tenant"`
	ClientID          string      `yaml:"client_id"`
	ClientSecret      string      `yaml:"client_secret" secret:"true"`
	ClientKey         string      `yaml:"client_key" secret:"true"`
	ClientCertificate string      `yaml:"client_certificate"`
	ClientKeyID       string      `yaml:"client_key_id"`
	Cloud             Cloud       `yaml:"cloud"`
	URL               string      `yaml:"url"`       // in place of the cloud's
	TokenURL          string      `yaml:"token_url"` // in place of the cloud's
	Groups            GraphGroups `yaml:"groups"`
}

// Cloud is one of Microsoft's clouds, which share nothing.
type Cloud string

// JSONSchema lists the clouds for editors.
func (Cloud) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{"global", "us-gov", "us-gov-dod", "china"}}
}

// GraphGroups says which groups of a person count.
type GraphGroups string

// The two kinds of a group claim that Entra ID can be told to send and that
// Graph can tell apart.
const (
	SecurityGroups GraphGroups = "security" // what a token carries by default
	AllGroups      GraphGroups = "all"      // Microsoft 365 and distribution groups too
)

// JSONSchema lists the values for editors.
func (GraphGroups) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Enum: []any{string(SecurityGroups), string(AllGroups)}}
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
