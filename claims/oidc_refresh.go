package claims

import (
	"context"
	"errors"
	"net/url"

	"golang.org/x/oauth2"
)

// Refresh asks the provider with the refresh token (OpenID Connect Core 1.0
// section 12). Only invalid_grant, and an answer that speaks of somebody else
// or breaks the protocol, end the session; every other refusal may pass.
//
// Once the provider has answered, the returned grant is the one to keep even
// when there is an error: its refresh token may have replaced the old one.
func (o *OIDC) Refresh(ctx context.Context, g *Grant, sub string) (*Identity, *Grant, error) {
	if g == nil || g.RefreshToken == "" {
		return nil, nil, o.errorf("refresh", ErrNoCredentials, "there is no refresh token")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, err := o.provider(ctx)
	if err != nil {
		return nil, nil, err
	}
	tok, err := o.creds.token(ctx, o.client, o.at(p, p.TokenURL), url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {g.RefreshToken},
	})
	if err != nil {
		return nil, nil, o.refreshError(err)
	}
	next := &Grant{RefreshToken: tok.RefreshToken, IDToken: g.IDToken}
	id, raw, err := o.renewed(ctx, p, tok, sub)
	if err != nil {
		if errors.Is(err, errKeyUnknown) {
			// A provider that signs with a key before it publishes it is not
			// the person's fault; the session can wait.
			return nil, next, o.errorf("refresh", ErrUnavailable, "%v", errKeyUnknown)
		}
		if errors.Is(err, ErrProtocol) {
			err = o.errorf("refresh", ErrGrantEnded, "%w", err)
		}
		return nil, next, err
	}
	if raw != "" {
		next.IDToken = hint(raw)
	}
	return id, next, nil
}

func (o *OIDC) refreshError(err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case !errors.As(err, &refused):
		return o.errorf("refresh", ErrUnavailable, "%w", err)
	case refused.ErrorCode == "invalid_grant":
		return o.errorf("refresh", ErrGrantEnded, "the token endpoint answered invalid_grant")
	default:
		return o.errorf("refresh", ErrUnavailable, "the token endpoint answered %s, status %d",
			registered(refused.ErrorCode), refused.Response.StatusCode)
	}
}

// renewed reads the person's claims of now: from a new ID token, or from
// userinfo alone when the provider sends none (section 12.2 lets it), or not
// at all. It answers the new ID token as well.
func (o *OIDC) renewed(ctx context.Context, p *provider, tok *oauth2.Token, sub string) (*Identity, string, error) {
	raw, _ := tok.Extra("id_token").(string)
	if raw == "" {
		id := &Identity{Source: o.name, Subject: sub, IssuedAt: o.now()}
		if p.UserInfoURL == "" {
			return id, "", nil
		}
		var err error
		id.Claims, err = o.userinfo(ctx, p, tok.AccessToken, sub)
		return id, "", err
	}
	// The nonce of the first login may be repeated or left out (section 12.2).
	idt, err := o.verify(ctx, p, raw, expected{accessToken: tok.AccessToken})
	if err != nil {
		return nil, "", err
	}
	if idt.subject != sub {
		return nil, "", o.errorf("check ID token", ErrProtocol, "sub is another person's")
	}
	id, err := o.identity(ctx, p, idt, tok.AccessToken)
	return id, raw, err
}
