package claims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// What a source's answer can be beside an identity. Every other error is a
// fault of ours or of the machine.
var (
	// ErrNoCredentials: the request carries nothing for this source.
	ErrNoCredentials = errors.New("no credentials for this source")
	// ErrProtocol: the message breaks the protocol: bad signature, wrong
	// nonce, unknown state, replay. Nobody is signed in.
	ErrProtocol = errors.New("the message breaks the protocol")
	// ErrDenied: the source, or what is required of it, refuses the person.
	ErrDenied = errors.New("the person is refused")
	// ErrDisabled: the source says the person is disabled or gone. It wraps
	// ErrDenied; sessions end and grants of the source go.
	ErrDisabled = disabled{}
	// ErrUnavailable: the source cannot be reached, or answers with a fault of
	// its own. Trying again later may help.
	ErrUnavailable = errors.New("the source is unavailable")
	// ErrGrantEnded: the source will not renew this session any more.
	ErrGrantEnded = errors.New("the source ended the session")
	// ErrBadPassword: nobody has this user name, or several do, or the password
	// is another. Which of them is nobody's business.
	ErrBadPassword = errors.New("the user name or the password is wrong")
)

type disabled struct{}

func (disabled) Error() string { return "the source says the person is disabled or gone" }
func (disabled) Unwrap() error { return ErrDenied }

// DisabledError is [ErrDisabled] of a login: nothing else says whom the source
// spoke of. The password was right.
type DisabledError struct {
	Subject string
	Why     string // in plain words, for the log and the audit trail
}

func (e *DisabledError) Error() string { return e.Why }
func (e *DisabledError) Unwrap() error { return ErrDisabled }

// Source is a place people come from. It is a [Redirecting] one or a
// [PasswordSource]. An implementation is safe for concurrent use.
type Source interface {
	// Name is the source's name in the configuration.
	Name() string
}

// Redirecting is a source with pages of its own to sign in at. It never writes
// to a response on error.
type Redirecting interface {
	Source
	// Challenge begins a login: it sends the browser to the source. Errors: ErrUnavailable. On error nothing was written.
	Challenge(w http.ResponseWriter, r *http.Request, f *Flow) error
	// Authenticate answers a login's second half. The flow was found by the
	// request's own state and belongs to this browser and this source.
	// Errors: ErrNoCredentials, ErrProtocol, ErrDenied, ErrUnavailable.
	Authenticate(r *http.Request, f *Flow) (*Identity, *Grant, error)
}

// PasswordSource is a source whose people say their user name and password to
// us, on a form or by HTTP Basic.
type PasswordSource interface {
	Source
	// CheckPassword answers who has the credentials. Errors: ErrBadPassword,
	// ErrDenied for an account that may not sign in now although the password is
	// right, a [DisabledError] when it is disabled or has expired,
	// ErrUnavailable; and what Attempt answers, unchanged.
	CheckPassword(ctx context.Context, c Credentials) (*Identity, *Grant, error)
}

// Credentials are what somebody typed. The password is a secret.
type Credentials struct {
	User, Password string
	// Attempt is called once, when it is known whose password is about to be
	// tried, with that identity's subject. Its error ends the check. Several
	// user names may lead to one account. nil: nobody counts.
	Attempt func(subject string) error
}

// PasswordChanger is a source that keeps passwords of its own, and lets people
// choose another one.
type PasswordChanger interface {
	PasswordSource
	// ChangePassword replaces the password of who knows the old one. The
	// person's sessions of this source end, but for those of the login with the
	// id keepLogin. The old password counts as an attempt: throttle it like a
	// login. Errors: ErrBadPassword when it is another, [PasswordRuleError] when
	// the new one may not be one, ErrDenied when the account is disabled or
	// gone, ErrUnavailable. On error nothing changed.
	ChangePassword(ctx context.Context, subject, old, new, keepLogin string) error
}

// PasswordRule is what is wrong with a password that somebody wants to have.
type PasswordRule string

// The rules, in the order in which they are looked at.
const (
	PasswordLong       PasswordRule = "long"       // more than Limit bytes
	PasswordCharacters PasswordRule = "characters" // not UTF-8, or with control characters
	PasswordBlank      PasswordRule = "blank"      // nothing, or blanks only
	PasswordShort      PasswordRule = "short"      // Length characters, fewer than Limit
	PasswordUserName   PasswordRule = "user name"  // it is the user name
)

// PasswordRuleError refuses a password that somebody wants to have. It never
// holds the password.
type PasswordRuleError struct {
	Rule          PasswordRule
	Length, Limit int // of PasswordShort and PasswordLong
}

func (e *PasswordRuleError) Error() string {
	switch e.Rule {
	case PasswordLong:
		return fmt.Sprintf("the password is too long: at most %d bytes", e.Limit)
	case PasswordCharacters:
		return "the password has characters that cannot be typed everywhere: control characters, or bytes that are not UTF-8"
	case PasswordBlank:
		return "the password is empty, or nothing but blanks"
	case PasswordShort:
		return fmt.Sprintf("the password is too short: %d characters of at least %d", e.Length, e.Limit)
	default:
		return "the password is the user name"
	}
}

// Finder is a source that can be asked about a person without the person.
type Finder interface {
	// Find looks a person up by the user name as a login does, and says how.
	// Nobody found is no error. Errors: ErrUnavailable.
	Find(ctx context.Context, user string) (*Found, error)
}

// Found is what a [Finder] found out.
type Found struct {
	Searches []string `json:"searches"` // what was asked, in order, one line each
	// Problem says why nobody was found: no entry, or several. Then the rest is
	// empty.
	Problem  string       `json:"problem,omitempty"`
	Identity *Identity    `json:"-"`
	Entry    string       `json:"entry,omitempty"` // its distinguished name
	Subject  string       `json:"subject,omitempty"`
	Account  string       `json:"account,omitempty"` // why the person could not sign in now; empty: could
	Groups   []FoundGroup `json:"groups"`
	// Unknown says why there may be more groups; empty: these are all.
	Unknown []string `json:"unknown,omitempty"`
}

// FoundGroup is one value of a group claim, and how the person came by it.
type FoundGroup struct {
	Claim string `json:"claim"`
	Value string `json:"value"`
	How   How    `json:"how"`
	// Through are the groups between the person and this one, nearest first;
	// the shortest such path.
	Through []string `json:"through,omitempty"`
}

// How is how a group holds a person.
type How string

// The three ways into a group of a directory.
const (
	Direct  How = "direct"
	Nested  How = "nested"  // by being in another group that is in it
	Primary How = "primary" // Active Directory's primary group, which lists nobody
)

// Flow is one login under way.
type Flow struct {
	ID    string // unguessable, used once
	State string // what the source must echo; it finds the flow again
	// RequestID is the id of the request to a [PostBack] source. It is made of
	// ID, so that the answer can be held to it. Empty in Authenticate: the
	// answer to nothing, which the source began by itself.
	RequestID string
	Nonce     string // bound into the ID token (OpenID Connect Core 3.1.2.1)
	Verifier  string // PKCE code verifier (RFC 7636)
	// RedirectURI is the exact address the source answers to.
	RedirectURI string
	Started     time.Time
}

// Grant is what a session keeps to ask its source again. It is a secret: at
// rest it is encrypted, and it is never logged.
type Grant struct {
	RefreshToken string `json:"r,omitempty"`
	IDToken      string `json:"i,omitempty"`
	AccessToken  string `json:"a,omitempty"`
	// NameID is how a SAML provider names the person and its session, as it
	// said it.
	NameID json.RawMessage `json:"n,omitempty"`
}

// Refresher is a source that can renew its statement without the person.
type Refresher interface {
	// Refresh answers the person's claims of now. Errors: ErrGrantEnded when
	// the session is over at the source, ErrDisabled, ErrUnavailable when
	// nothing is known. A returned grant replaces g, beside an error too: the
	// source may have used the old one up.
	Refresh(ctx context.Context, g *Grant, subject string) (*Identity, *Grant, error)
}

// SignOuter is a source with a session of its own that can be ended by
// sending the browser there (OpenID Connect RP-Initiated Logout 1.0).
type SignOuter interface {
	// SignOutURL answers "" when the source offers no such address.
	SignOutURL(g *Grant, returnTo, state string) string
}

// Logout is a source's word that logins are over: all of a person's, or those
// of some of its own sessions, or those sessions of that person.
type Logout struct {
	Subject  string   // empty: whoever the sessions are of
	Aliases  []string // one of these as in Identity; empty: it does not say
	Sessions []string // empty: every session of the person
	ID       string   // of the message, which counts once
	// IssuedAt is by the source. Expires is when the same message would be
	// refused, so nobody need remember ID for longer.
	IssuedAt, Expires time.Time
}

// LogoutVerifier is a source that may say on its own that logins are over.
type LogoutVerifier interface {
	// VerifyLogout checks a logout token (OpenID Connect Back-Channel Logout
	// 1.0 section 2.6), but for whether ID was seen before. Subject or Session
	// is set, or both. Errors: ErrProtocol, ErrUnavailable.
	VerifyLogout(ctx context.Context, token string) (*Logout, error)
	// Issuer is what the source calls itself in its messages.
	Issuer() string
}

// LogoutEndpoint is a source whose logout goes through the browser in both
// directions, to one address of ours: PREFIX/saml/SOURCE/slo (SAML 2.0 Profiles
// 4.4).
type LogoutEndpoint interface {
	// RequestLogout asks the source to end its own session. id is an XML name
	// that the answer comes back with. It answers nil when the source offers no
	// such address, or the grant does not say who is to be signed out.
	RequestLogout(g *Grant, id string) (*Away, error)
	// ReadLogout reads what a browser brought by GET, or by POST in a form that
	// the caller has read within bounds, and checks everything but what only
	// the caller knows: whether a request was seen before, and whether an answer
	// is one to us. Errors: ErrProtocol, ErrUnavailable.
	ReadLogout(r *http.Request) (*LogoutMessage, error)
	// AnswerLogout answers a request, nil when the source has no address for
	// that.
	AnswerLogout(m *LogoutMessage) (*Away, error)
}

// LogoutMessage is one message of a LogoutEndpoint: a request, or an answer.
type LogoutMessage struct {
	// Logout is what the source asks for; nil in an answer.
	Logout *Logout
	// Refused says in our own words why a request that is really the source's
	// is not followed. Nothing ends then, and AnswerLogout says so.
	Refused string
	// State is what a request wants back with its answer.
	State string
	// InResponseTo is the id of the request that an answer is to, and Done
	// whether the source says that its session is over.
	InResponseTo string
	Done         bool
}

// Away is where a browser is sent with a message: by a redirect to URL, or by
// a form that posts Form there.
type Away struct {
	URL  string
	Form map[string]string // nil: a redirect
}

// Starter is a source that must reach something before it can work. Start
// returns at once and tries in the background until it succeeds or the context
// ends; Ready says whether it did.
type Starter interface {
	Start(ctx context.Context)
	// Ready is nil, or says what is missing.
	Ready() error
}

// Prober is a source that can be tried from the command line and the API.
type Prober interface {
	// Probe reaches the source and reads its metadata. It answers one line
	// for people.
	Probe(ctx context.Context) (string, error)
}

// Ager is a source that checks statements with something it read earlier.
type Ager interface {
	// MetadataAge is how long before now that was last read; false: never.
	MetadataAge(now time.Time) (age time.Duration, known bool)
}

// Expirer is a source whose trust ends at a time that is known before, and
// that somebody should hear of.
type Expirer interface {
	// Expires is when the first of the certificates that still hold runs out,
	// and when the metadata does. Zero: it does not say, or nothing is known.
	Expires() (certificate, metadata time.Time)
}

// Rereader is a source that keeps what it read and reads it again by itself.
type Rereader interface {
	// Reread has it read now, in the background. What is there stays until
	// something good takes its place.
	Reread()
}

// PostBack is a source whose answer is a form that the browser posts from the
// source's site to ours (SAML V2.0 Bindings 3.5), to PREFIX/saml/NAME/acs. The
// form carries [Flow.State] as RelayState, which must stay under 80 bytes
// (3.5.3).
type PostBack interface {
	PostBack()
}

// Publisher is a source that has to know us first.
type Publisher interface {
	// Metadata is what the source is to be told about us. It is no secret.
	Metadata() (contentType string, body []byte, err error)
}
