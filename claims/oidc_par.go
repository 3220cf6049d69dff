package claims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

const (
	maxRequestURI = 1024             // bytes; it travels in an address
	parPause      = 10 * time.Minute // until a provider that refused is asked again
)

// pushing remembers a provider that offers pushed authorization requests and
// refuses ours: some offer them to everybody and allow them to few.
type pushing struct {
	pausedUntil atomic.Int64 // Unix seconds
	warned      atomic.Bool
}

// authorizationURL is where the browser goes. A provider that takes pushed
// authorization requests (RFC 9126) gets the parameters from us, authenticated
// and unseen by the browser, which carries a reference alone.
func (o *OIDC) authorizationURL(ctx context.Context, p *provider, f *Flow) (string, error) {
	conf := &oauth2.Config{
		ClientID: o.cfg.ClientID, RedirectURL: f.RedirectURI, Scopes: o.scopes, Endpoint: oauth2.Endpoint{AuthURL: p.AuthURL},
	}
	// S256 whatever the provider lists: one that does not know PKCE ignores
	// the parameter (RFC 7636 section 5).
	opts := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	plain := conf.AuthCodeURL(f.State, opts...)
	if p.PushURL == "" || !p.RequirePush && o.now().Unix() < p.pushing.pausedUntil.Load() {
		return plain, nil
	}
	conf.Endpoint.AuthURL = ""
	form, err := url.ParseQuery(strings.TrimPrefix(conf.AuthCodeURL(f.State, opts...), "?"))
	if err != nil {
		return "", o.errorf("push authorization request", nil, "%w", err)
	}
	requestURI, err := o.push(ctx, p, form)
	var refused pushRefused
	switch {
	case err == nil:
	case errors.As(err, &refused) && !p.RequirePush:
		p.pushing.pausedUntil.Store(o.now().Add(parPause).Unix())
		if !p.pushing.warned.Swap(true) {
			o.log.Warn("the provider offers pushed authorization requests and refuses ours; logins go on without",
				zap.String("source", o.name), zap.Error(err))
		}
		return plain, nil
	default:
		return "", o.errorf("push authorization request", ErrUnavailable, "%w", err)
	}
	sep := "?"
	if strings.Contains(p.AuthURL, "?") {
		sep = "&"
	}
	// Nothing else: the request is what was pushed (RFC 9126 section 4).
	return p.AuthURL + sep + url.Values{"client_id": {o.cfg.ClientID}, "request_uri": {requestURI}}.Encode(), nil
}

// pushRefused is an answer that says no to us, not one of a broken provider.
type pushRefused struct {
	status int
	code   string
}

func (r pushRefused) Error() string {
	return fmt.Sprintf("the endpoint answered %s, status %d", r.code, r.status)
}

// push sends the parameters and answers the reference to them.
func (o *OIDC) push(ctx context.Context, p *provider, form url.Values) (string, error) {
	req, err := o.creds.request(ctx, o.at(p, p.PushURL), form)
	if err != nil {
		return "", err
	}
	ans, err := exchange(o.client, req)
	if err != nil {
		return "", err
	}
	switch {
	case ans.status >= 400 && ans.status < 500:
		var told struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(ans.body, &told) // what is no JSON has no error code
		return "", pushRefused{ans.status, registered(told.Error)}
	case ans.status != http.StatusCreated && ans.status != http.StatusOK: // RFC 9126 section 2.2 says 201
		return "", fmt.Errorf("the endpoint answered with status %d", ans.status)
	}
	said, err := Parse(ans.body)
	if err != nil {
		return "", errors.New("the answer is not one unambiguous JSON object")
	}
	requestURI, _ := said.all()["request_uri"].(string)
	if err := checkRequestURI(requestURI); err != nil {
		return "", err
	}
	// The browser is sent on at once, so any life at all is long enough.
	lives, _ := said.all()["expires_in"].(json.Number)
	if seconds, err := lives.Float64(); err != nil || seconds < 1 {
		return "", errors.New("expires_in is missing or no time to live")
	}
	return requestURI, nil
}

// checkRequestURI wants an absolute URI in plain characters.
func checkRequestURI(s string) error {
	if s == "" || len(s) > maxRequestURI {
		return fmt.Errorf("request_uri is missing or longer than %d bytes", maxRequestURI)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("request_uri has characters that no URI has")
		}
	}
	if u, err := url.Parse(s); err != nil || u.Scheme == "" || u.Opaque == "" && u.Host == "" {
		return errors.New("request_uri is not an absolute URI")
	}
	return nil
}
