package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

const maxLogoutBody = 64 << 10

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
		return p.refuseLogout(x, err)
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
	}
	return p.endBySource(x, r, l)
}

// endBySource ends the logins that a source's message names, once.
func (p *Proxy) endBySource(x *exchange, r *http.Request, l *claims.Logout) error {
	if l.Subject == "" && len(l.Aliases) == 0 && len(l.Sessions) == 0 {
		return fmt.Errorf("%w: it would end everybody's login", errLogout)
	}
	var fit []groups.LoginFilter
	for _, alias := range orAny(l.Aliases) {
		for _, session := range orAny(l.Sessions) {
			fit = append(fit, groups.LoginFilter{Source: x.source, Subject: l.Subject, Alias: alias, Session: session})
		}
	}
	// The provider may not wait for the answer; the person is signed out there
	// all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeWait)
	defer cancel()
	err := p.keeper.endOnce(ctx,
		groups.SingleUse{Kind: "logout", ID: logoutID(x.source, l.ID), Until: l.Expires},
		fit, "source "+x.source, "signed out at the source", x.id)
	if errors.Is(err, groups.ErrReplayed) {
		return fmt.Errorf("%w: the message was used before", errLogout)
	}
	return err
}

// orAny is a list to filter by; nothing in it filters nothing.
func orAny(list []string) []string {
	if len(list) == 0 {
		return []string{""}
	}
	return list
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
	form, err := readForm(r, maxLogoutBody)
	switch {
	case errors.Is(err, errBody):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w: %w", errLogout, err)
	case len(form["logout_token"]) != 1 || form["logout_token"][0] == "":
		return "", fmt.Errorf("%w: there is not one logout token", errLogout)
	}
	return form["logout_token"][0], nil
}
