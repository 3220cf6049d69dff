package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// frontchannel ends the login of the browser that asks, in a frame of its
// provider's page (OpenID Connect Front-Channel Logout 1.0 section 3). Anybody
// can make a browser ask, so it ends nothing but what that browser holds, and
// never calls the provider. It answers alike whether anything ended.
//
// The session cookie is SameSite=Lax, which browsers do not send with a frame
// of another site: this works for a provider on the same site as public_url
// alone. For every other one back-channel logout is the answer.
func (p *Proxy) frontchannel(x *exchange, r *http.Request, source string) error {
	src, ok := x.site.sources[source].(claims.LogoutVerifier)
	if !ok || x.host.portal {
		return fmt.Errorf("front-channel logout: %w", errSource)
	}
	x.source = source
	q, err := query(r)
	if err != nil {
		return err
	}
	login, err := p.keeper.browserLogin(r.Context(), x.site, r)
	if err != nil {
		return err
	}
	if login != nil && login.Source == source && namesLogin(q, src.Issuer(), login.Session) {
		if err := p.keeper.end(r.Context(), login, "source "+source, "signed out at the source, in this browser", x.id); err != nil {
			return err
		}
		p.keeper.forget(x)
	}
	h := x.Header()
	ownHeaders(h)
	h.Del("X-Frame-Options") // it knows no origins
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "+originOf(src.Issuer()))
	h.Set("Content-Type", "text/html; charset=utf-8")
	x.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = x.Write([]byte(frontchannelPage)) // the frame may be gone
	}
	return nil
}

// frontchannelPage is for a frame that nobody sees.
const frontchannelPage = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>groupgate</title>\n"

// namesLogin reports whether iss and sid fit a login. A provider sends both or
// none (section 2); one alone fits nothing.
func namesLogin(q url.Values, issuer, session string) bool {
	if !q.Has("iss") && !q.Has("sid") {
		return true
	}
	return q.Get("iss") == issuer && session != "" && q.Get("sid") == session
}

// originOf answers 'none' for what is no address: nobody may frame then.
func originOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "'none'"
	}
	return u.Scheme + "://" + u.Host
}

// browserLogin is the login of the request's session on public_url, nil
// without one. Unlike find it asks the store alone: find may renew the claims,
// and a login that ends needs none. Two sessions are none, as for find.
func (p stored) browserLogin(ctx context.Context, s *site, r *http.Request) (*groups.Login, error) {
	if err := p.dir.Healthy(); err != nil {
		return nil, err
	}
	var found *groups.Session
	tried := 0
	for name, value := range cookies(r) {
		hash, ok := sessionHash(value)
		if name != s.sessionCookie || !ok || found != nil && found.Hash == hash {
			continue
		}
		if tried++; tried > maxSessionCookies {
			return nil, nil
		}
		session, err := p.dir.Store().Session(ctx, hash)
		if errors.Is(err, groups.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if session.Host != "" {
			continue
		}
		if found != nil {
			return nil, nil
		}
		found = session
	}
	if found == nil {
		return nil, nil
	}
	return &found.Login, nil
}
