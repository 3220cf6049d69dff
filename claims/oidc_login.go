package claims

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"
)

// Authenticate answers the provider's redirect back to us.
func (o *OIDC) Authenticate(r *http.Request, f *Flow) (*Identity, *Grant, error) {
	ctx, cancel := context.WithTimeout(r.Context(), o.timeout)
	defer cancel()
	p, err := o.provider(ctx)
	if err != nil {
		return nil, nil, err
	}
	code, err := o.callback(p, r.URL.RawQuery, f)
	if err != nil {
		return nil, nil, err
	}
	tok, err := o.creds.token(ctx, o.client, o.at(p, p.TokenURL), url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {f.RedirectURI}, "code_verifier": {f.Verifier},
	})
	if err != nil {
		return nil, nil, o.exchangeError(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	if raw == "" {
		return nil, nil, o.errorf("exchange code", ErrProtocol, "the answer has no ID token")
	}
	idt, err := o.verify(ctx, p, raw, expected{nonce: &f.Nonce, accessToken: tok.AccessToken})
	if err != nil {
		return nil, nil, err
	}
	id, err := o.identity(ctx, p, idt, tok.AccessToken)
	if err != nil {
		return nil, nil, err
	}
	return id, &Grant{RefreshToken: tok.RefreshToken, IDToken: hint(raw)}, nil
}

// callback reads the authorization response and answers its code.
func (o *OIDC) callback(p *provider, query string, f *Flow) (string, error) {
	const step = "read callback"
	q, err := url.ParseQuery(query)
	if err != nil {
		return "", o.errorf(step, ErrProtocol, "the query is malformed")
	}
	for _, name := range []string{"code", "state", "iss", "error"} {
		if len(q[name]) > 1 { // RFC 6749 section 3.1
			return "", o.errorf(step, ErrProtocol, "%s is given twice", name)
		}
	}
	// The flow was found by its state; this holds even if a caller got that
	// wrong. Two empty ones are not equal.
	if f.State == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.State)) != 1 {
		return "", o.errorf(step, ErrProtocol, "state is not this login's")
	}
	// Before anything else is believed, errors included (RFC 9207 section 2.4).
	switch {
	case q.Has("iss") && q.Get("iss") != o.cfg.Issuer:
		return "", o.errorf(step, ErrProtocol, "iss is another issuer's")
	case !q.Has("iss") && p.IssParameter:
		return "", o.errorf(step, ErrProtocol, "iss is missing, which this provider always sends")
	}
	if q.Has("error") {
		return "", o.refusal(q.Get("error"))
	}
	if q.Get("code") == "" {
		return "", o.errorf(step, ErrProtocol, "code is missing")
	}
	return q.Get("code"), nil
}

// refusal reads the error code of an authorization response. The description
// beside it is foreign text and is not looked at.
func (o *OIDC) refusal(code string) error {
	const step = "read callback"
	switch code {
	case "access_denied", "login_required", "consent_required", "interaction_required", "account_selection_required":
		return o.errorf(step, ErrDenied, "the provider answered %s", code)
	case "server_error", "temporarily_unavailable":
		return o.errorf(step, ErrUnavailable, "the provider answered %s", code)
	default:
		return o.errorf(step, ErrProtocol, "the provider answered %s", registered(code))
	}
}

// exchangeError sorts the token endpoint's refusals. A refused code is the
// message's fault (it may be another login's); everything that says nothing
// about the code may be tried again.
func (o *OIDC) exchangeError(err error) error {
	const step = "exchange code"
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return o.errorf(step, ErrUnavailable, "%w", err)
	}
	status := refused.Response.StatusCode
	switch {
	case refused.ErrorCode == "server_error", refused.ErrorCode == "temporarily_unavailable",
		status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
	case status >= 400 && status < 500, status < 300:
		return o.errorf(step, ErrProtocol, "the token endpoint answered %s, status %d", registered(refused.ErrorCode), status)
	}
	return o.errorf(step, ErrUnavailable, "the token endpoint answered %s, status %d", registered(refused.ErrorCode), status)
}

// registered passes an error code through when it is one of the IANA registry
// (OAuth Extensions Error): everything else is foreign text.
func registered(code string) string {
	switch code {
	case "invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope",
		"server_error", "temporarily_unavailable", "invalid_client", "invalid_grant", "unsupported_grant_type",
		"interaction_required", "login_required", "account_selection_required", "consent_required",
		"invalid_request_uri", "invalid_request_object", "request_not_supported", "request_uri_not_supported",
		"registration_not_supported", "invalid_target", "invalid_dpop_proof", "use_dpop_nonce",
		"unmet_authentication_requirements":
		return code
	case "":
		return "no error code"
	default:
		return "an unregistered error code"
	}
}

// identity makes the identity of a verified ID token, with what it lacks from
// userinfo.
func (o *OIDC) identity(ctx context.Context, p *provider, idt *idToken, accessToken string) (*Identity, error) {
	id := &Identity{
		Source:  o.name,
		Subject: idt.subject,
		// What belongs to the token is not a statement about the person, and
		// would make every login look different from the one before.
		Claims:   idt.claims.Without("nonce", "at_hash", "c_hash", "s_hash", "exp", "iat", "nbf", "auth_time", "jti", "sid"),
		Session:  idt.claims.Text("sid"),
		IssuedAt: idt.issued,
		Expires:  idt.expires,
	}
	if p.UserInfoURL != "" && o.lacks(idt.claims) {
		more, err := o.userinfo(ctx, p, accessToken, idt.subject)
		if err != nil {
			return nil, err
		}
		if why := more.Incomplete(); why != "" {
			id.Claims = id.Claims.WithIncomplete(why)
		} else {
			id.Claims = id.Claims.Fill(more)
		}
	}
	id.Claims = o.fetchOverage(ctx, id.Claims, idt.claims)
	return id, nil
}

// lacks reports whether a claim that somebody reads is not in c.
func (o *OIDC) lacks(c Claims) bool {
	for _, name := range o.needed() {
		if c.Resolve(name).State == Absent {
			return true
		}
	}
	return false
}
