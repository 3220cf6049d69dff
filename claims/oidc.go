package claims

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// Bounds of talking to a provider.
const (
	providerTimeout = 10 * time.Second // of one login step, or one try of discovery
	maxAnswer       = 1 << 20          // bytes of any answer
	firstRetry      = 250 * time.Millisecond
	lastRetry       = 15 * time.Second
)

var (
	_ Source         = (*OIDC)(nil)
	_ Refresher      = (*OIDC)(nil)
	_ SignOuter      = (*OIDC)(nil)
	_ LogoutVerifier = (*OIDC)(nil)
	_ Starter        = (*OIDC)(nil)
	_ Prober         = (*OIDC)(nil)
	_ Ager           = (*OIDC)(nil)
)

// OIDCOptions is what an OpenID Connect source is made of.
type OIDCOptions struct {
	Name   string
	Config OIDCConfig
	// Needed lists every claim that anything reads now, by name or JSON
	// Pointer. Userinfo is asked only when the ID token lacks one of them. nil:
	// none.
	Needed func() []string
	// Client's Transport and Timeout are used when set; redirects are never
	// followed, whatever it says. nil is a client with bounded waits.
	Client *http.Client
	Log    *zap.Logger      // nil: none
	Now    func() time.Time // nil: time.Now
}

// OIDC signs people in at an OpenID Connect provider, by the code flow with
// PKCE (RFC 7636) and a nonce. It is safe for concurrent use.
type OIDC struct {
	name    string
	cfg     OIDCConfig
	needed  func() []string
	scopes  []string
	client  *http.Client
	creds   *credentials
	graph   *Graph // nil: overages stay unknown
	timeout time.Duration
	log     *zap.Logger
	now     func() time.Time

	flight    singleflight.Group
	found     atomic.Pointer[provider]
	lastError atomic.Pointer[error] // of discovery, for Ready
}

// NewOIDC makes the source. It does not touch the network: the provider is
// found by [OIDC.Start], or by the first login when that did not succeed yet.
func NewOIDC(opts OIDCOptions) *OIDC {
	o := &OIDC{
		name:   opts.Name,
		cfg:    opts.Config,
		needed: opts.Needed,
		scopes: slices.Clone(opts.Config.Scopes),
		client: SafeClient(opts.Client, providerTimeout),
		log:    opts.Log,
		now:    opts.Now,
	}
	o.timeout = o.client.Timeout
	if len(o.scopes) == 0 {
		o.scopes = []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail}
	}
	if !slices.Contains(o.scopes, oidc.ScopeOpenID) {
		o.scopes = append([]string{oidc.ScopeOpenID}, o.scopes...)
	}
	if o.needed == nil {
		o.needed = func() []string { return nil }
	}
	if o.log == nil {
		o.log = zap.NewNop()
	}
	if o.now == nil {
		o.now = time.Now
	}
	c := o.cfg
	o.creds = newCredentials(c.ClientID, c.ClientSecret, c.ClientKey, c.ClientCertificate, c.ClientKeyID, o.now)
	if g := c.GraphSettings(); g != nil {
		o.graph = NewGraph(*g, opts.Client, o.now)
	}
	return o
}

// Name is the source's name in the configuration.
func (o *OIDC) Name() string { return o.name }

// Start looks for the provider in the background until it is found or the
// context ends. It returns at once.
func (o *OIDC) Start(ctx context.Context) { go o.find(ctx) }

func (o *OIDC) find(ctx context.Context) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		p, err := o.provider(ctx)
		if err == nil {
			err = p.keys.load(ctx)
		}
		if err == nil {
			o.log.Info("source is ready", zap.String("source", o.name))
			return
		}
		if ctx.Err() != nil {
			return
		}
		o.log.Warn("source is not ready", zap.String("source", o.name), zap.Duration("retry_in", wait), zap.Error(err))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Ready is nil once the provider's metadata and keys are known.
func (o *OIDC) Ready() error {
	p := o.found.Load()
	if p == nil {
		if err := o.lastError.Load(); err != nil {
			return *err
		}
		return o.errorf("read discovery document", ErrUnavailable, "the provider has not answered yet")
	}
	if err := p.keys.ready(); err != nil {
		return o.errorf("read keys", ErrUnavailable, "%w", err)
	}
	return nil
}

// MetadataAge is that of the provider's signing keys. The rest of what the
// provider says about itself is read once.
func (o *OIDC) MetadataAge(now time.Time) (age time.Duration, known bool) {
	p := o.found.Load()
	if p == nil {
		return 0, false
	}
	return p.keys.age(now)
}

// Probe reads the provider's metadata and keys afresh.
func (o *OIDC) Probe(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, err := o.discover(ctx)
	if err != nil {
		return "", err
	}
	if err := p.keys.load(ctx); err != nil {
		return "", o.errorf("read keys", ErrUnavailable, "%w", err)
	}
	line := fmt.Sprintf("issuer %s, %d keys", o.cfg.Issuer, p.keys.size())
	if p.keys.size() == 1 {
		line = strings.TrimSuffix(line, "s")
	}
	if p.UserInfoURL != "" {
		line += ", userinfo"
	}
	if p.EndSessionURL != "" {
		line += ", end session"
	}
	if o.graph != nil {
		if err := o.graph.Probe(ctx); err != nil {
			return "", o.errorf("ask Microsoft Graph for a token", ErrUnavailable, "%w", err)
		}
		line += ", Microsoft Graph"
	}
	return line, nil
}

// Challenge sends the browser to the provider's authorization endpoint.
func (o *OIDC) Challenge(w http.ResponseWriter, r *http.Request, f *Flow) error {
	if f.State == "" || f.Nonce == "" || f.Verifier == "" || f.RedirectURI == "" {
		return o.errorf("begin login", nil, "the flow lacks state, nonce, verifier or redirect address")
	}
	ctx, cancel := context.WithTimeout(r.Context(), o.timeout)
	defer cancel()
	p, err := o.provider(ctx)
	if err != nil {
		return err
	}
	to, err := o.authorizationURL(ctx, p, f)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
	return nil
}

// maxHint bounds the id_token_hint, which may be left out (RP-Initiated Logout
// 1.0 section 2): one that carries thousands of groups makes an address that
// no server reads. A longer token is not kept either.
const maxHint = 4 << 10

// hint is what of an ID token is worth keeping for SignOutURL.
func hint(raw string) string {
	if len(raw) > maxHint {
		return ""
	}
	return raw
}

// SignOutURL is the provider's end session address (OpenID Connect
// RP-Initiated Logout 1.0 section 2), or "".
func (o *OIDC) SignOutURL(g *Grant, returnTo, state string) string {
	p := o.found.Load()
	if p == nil || p.EndSessionURL == "" {
		return ""
	}
	u, err := url.Parse(p.EndSessionURL)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("client_id", o.cfg.ClientID)
	if g != nil && g.IDToken != "" && len(g.IDToken) <= maxHint {
		q.Set("id_token_hint", g.IDToken)
	}
	if returnTo != "" {
		q.Set("post_logout_redirect_uri", returnTo)
		if state != "" {
			q.Set("state", state)
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// errorf makes "source: step: kind: cause". A nil kind is a fault of ours.
func (o *OIDC) errorf(step string, kind error, format string, args ...any) error {
	cause := fmt.Errorf(format, args...)
	switch {
	case kind == nil:
		return fmt.Errorf("%s: %s: %w", o.name, step, cause)
	case errors.Is(cause, kind):
		return fmt.Errorf("%s: %s: %w", o.name, step, cause)
	default:
		return fmt.Errorf("%s: %s: %w: %w", o.name, step, kind, cause)
	}
}
