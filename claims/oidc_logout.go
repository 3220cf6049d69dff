package claims

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	logoutPast  = 5 * time.Minute // a logout is news, or it is a replay
	logoutLife  = time.Hour       // at most, from iat to exp
	maxLogoutID = 255             // bytes of jti and of sid; section 2.4 names no bound
)

// Issuer is the issuer identifier of the configuration, which the provider's
// own is compared with byte for byte.
func (o *OIDC) Issuer() string { return o.cfg.Issuer }

// VerifyLogout checks a logout token by OpenID Connect Back-Channel Logout 1.0
// section 2.6, with the keys, algorithms and bounds of ID tokens. Beyond that
// section it wants a recent iat, and holds exp to an hour after it: what is
// remembered against replay must end some day.
func (o *OIDC) VerifyLogout(ctx context.Context, token string) (*Logout, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, err := o.provider(ctx)
	if err != nil {
		return nil, err
	}
	const step = "check logout token"
	jws, err := jose.ParseSignedCompact(token, p.algs)
	if err != nil {
		return nil, o.errorf(step, ErrProtocol, "not a signed JWT of an allowed algorithm")
	}
	// Section 2.4 recommends the type and does not demand it.
	if typ := tokenType(jws); typ != "" && typ != "jwt" && typ != "logout+jwt" {
		return nil, o.errorf(step, ErrProtocol, "a token of another type")
	}
	keys := &noting{set: p.keys}
	if _, err := keys.VerifySignature(ctx, token); errors.Is(err, ErrUnavailable) {
		return nil, o.errorf(step, ErrUnavailable, "%w", err)
	} else if err != nil {
		return nil, o.errorf(step, ErrProtocol, "%w", err)
	}
	l, err := o.checkLogout(keys.claims)
	if err != nil {
		return nil, o.errorf(step, ErrProtocol, "%w", err)
	}
	return l, nil
}

// checkLogout is everything of section 2.6 that comes after the signature.
func (o *OIDC) checkLogout(c Claims) (*Logout, error) {
	if err := exactKeys(c); err != nil {
		return nil, err
	}
	if err := o.checkIssuer(c); err != nil {
		return nil, err
	}
	if err := o.checkAudience(c); err != nil {
		return nil, err
	}
	events, _ := c.all()["events"].(map[string]any)
	if _, object := events[logoutEvent].(map[string]any); !object {
		return nil, errors.New("events has no object for back-channel logout")
	}
	// Whatever its value: it is what tells an ID token from a logout token.
	if _, there := c.all()["nonce"]; there {
		return nil, errors.New("a nonce, which belongs to an ID token")
	}
	l, sid := &Logout{}, ""
	for _, f := range []struct {
		name     string
		to       *string
		bound    int
		required bool
	}{{"jti", &l.ID, maxLogoutID, true}, {"sub", &l.Subject, maxSubject, false}, {"sid", &sid, maxLogoutID, false}} {
		v, there := c.all()[f.name]
		if !there && !f.required {
			continue
		}
		text, _ := v.(string)
		if text == "" || len(text) > f.bound {
			return nil, fmt.Errorf("%s is missing, no text, empty or longer than %d bytes", f.name, f.bound)
		}
		*f.to = text
	}
	if sid != "" {
		l.Sessions = []string{sid}
	}
	if l.Subject == "" && sid == "" {
		return nil, errors.New("neither sub nor sid")
	}
	return l, o.checkLogoutTimes(c, l)
}

func (o *OIDC) checkLogoutTimes(c Claims, l *Logout) error {
	now := o.now()
	var ok bool
	if l.IssuedAt, ok = instant(c, "iat"); !ok {
		return errors.New("iat is missing or not a time")
	}
	l.Expires = l.IssuedAt.Add(logoutPast)
	if _, there := c.all()["exp"]; there {
		exp, ok := instant(c, "exp")
		switch {
		case !ok:
			return errors.New("exp is not a time")
		case exp.Before(l.IssuedAt), exp.After(l.IssuedAt.Add(logoutLife)):
			return errors.New("exp is before iat, or more than an hour after it")
		case now.After(exp.Add(expLeeway)):
			return errors.New("the token has expired")
		}
		if end := exp.Add(expLeeway); end.Before(l.Expires) {
			l.Expires = end
		}
	}
	if _, there := c.all()["nbf"]; there {
		if nbf, ok := instant(c, "nbf"); !ok || nbf.After(now.Add(iatFuture)) {
			return errors.New("nbf is not a time or in the future")
		}
	}
	switch {
	case l.IssuedAt.After(now.Add(iatFuture)):
		return errors.New("iat is in the future")
	case l.IssuedAt.Before(now.Add(-logoutPast)):
		return errors.New("iat is more than five minutes ago")
	}
	return nil
}
