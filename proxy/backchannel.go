package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

const (
	maxLogoutBody = 64 << 10
	drainBody     = 2 << 20
	// logoutSlack is for replicas whose clocks differ: none of them forgets a
	// token that another would still believe.
	logoutSlack = 10 * time.Minute
)

// backchannel ends logins by a provider's word (OpenID Connect Back-Channel
// Logout 1.0 section 2.7). The provider itself calls, so no cookie is looked
// at and none could help: what counts is the signature of the token. It answers
// alike whether anybody was signed in or not.
func (p *Proxy) backchannel(x *exchange, r *http.Request, source string) error {
	src, ok := x.site.sources[source].(claims.LogoutVerifier)
	if !ok || x.host.portal {
		return fmt.Errorf("back-channel logout: %w", errSource)
	}
	x.source = source
	if err := p.endByToken(x, r, src); err != nil {
		if errors.Is(err, errLogout) {
			// With its own reason, which the code alone does not tell. Anybody
			// can send such a request, so it must not wait for the store.
			p.dir.NoteSoon(groups.Event{Kind: groups.EventRefused, Source: source, Request: x.id, Reason: err.Error()})
			x.noted = true
		}
		return err
	}
	ownHeaders(x.Header())
	x.WriteHeader(http.StatusOK)
	return nil
}

func (p *Proxy) endByToken(x *exchange, r *http.Request, src claims.LogoutVerifier) error {
	token, err := logoutToken(r)
	if err != nil {
		return err
	}
	l, err := src.VerifyLogout(r.Context(), token)
	switch {
	case errors.Is(err, claims.ErrProtocol):
		return fmt.Errorf("%w: %w", errLogout, err)
	case err != nil:
		return err
	case l.Subject == "" && l.Session == "":
		return fmt.Errorf("%w: it would end everybody's login", errLogout)
	}
	// The provider may not wait for the answer; the person is signed out there
	// all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeWait)
	defer cancel()
	_, err = p.dir.EndLoginsOnce(ctx,
		groups.SingleUse{Kind: "logout", ID: logoutID(x.source, l.ID), Until: l.Expires.Add(logoutSlack)},
		groups.LoginFilter{Source: x.source, Subject: l.Subject, Session: l.Session},
		"source "+x.source, "signed out at the source", x.id)
	if errors.Is(err, groups.ErrReplayed) {
		return fmt.Errorf("%w: the logout token was used before", errLogout)
	}
	return err
}

// logoutID is what is remembered of a token: of one length, and another at
// every source.
func logoutID(source, jti string) string {
	sum := sha256.Sum256([]byte(source + "\x00" + jti))
	return hex.EncodeToString(sum[:])
}

// logoutToken reads the form (section 2.5). What else it holds is passed over;
// the query is not looked at.
func logoutToken(r *http.Request) (string, error) {
	types := r.Header["Content-Type"]
	if len(types) != 1 {
		return "", fmt.Errorf("%w: there is not one content type", errLogout)
	}
	if kind, _, err := mime.ParseMediaType(types[0]); err != nil || kind != "application/x-www-form-urlencoded" {
		return "", fmt.Errorf("%w: the body is not a form", errLogout)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxLogoutBody+1))
	if err != nil {
		return "", fmt.Errorf("%w: the body broke off", errLogout)
	}
	if len(body) > maxLogoutBody {
		// Who is cut off while writing does not read why: the connection is
		// reset under it. Who sends much more has been told in other ways.
		_, _ = io.CopyN(io.Discard, r.Body, drainBody)
		return "", errBody
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", fmt.Errorf("%w: the form is malformed", errLogout)
	}
	if len(form["logout_token"]) != 1 || form["logout_token"][0] == "" {
		return "", fmt.Errorf("%w: there is not one logout token", errLogout)
	}
	return form["logout_token"][0], nil
}
