package claims

import (
	"context"
	"errors"
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
)

type disabled struct{}

func (disabled) Error() string { return "the source says the person is disabled or gone" }
func (disabled) Unwrap() error { return ErrDenied }

// Source is a place people come from. An implementation is safe for
// concurrent use. It never writes to a response on error.
type Source interface {
	// Name is the source's name in the configuration.
	Name() string
	// Challenge begins a login: it sends the browser to the source, or shows
	// a form. Errors: ErrUnavailable. On error nothing was written.
	Challenge(w http.ResponseWriter, r *http.Request, f *Flow) error
	// Authenticate answers a login's second half. The flow was found by the
	// request's own state and belongs to this browser and this source.
	// Errors: ErrNoCredentials, ErrProtocol, ErrDenied, ErrUnavailable.
	Authenticate(r *http.Request, f *Flow) (*Identity, *Grant, error)
}

// Flow is one login under way.
type Flow struct {
	ID       string // unguessable, used once
	State    string // what the source must echo; it finds the flow again
	Nonce    string // bound into the ID token (OpenID Connect Core 3.1.2.1)
	Verifier string // PKCE code verifier (RFC 7636)
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
// of one of its own sessions, or that session of that person.
type Logout struct {
	Subject string // empty: whoever the session is of
	Session string // empty: every session of the subject
	ID      string // of the message, which counts once
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
