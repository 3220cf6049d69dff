package proxy

import (
	"cmp"
	"net/http"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/proxy/page"
)

// signOut ends the login on every host, here and at the source.
func (p *Proxy) signOut(x *exchange, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	s := x.site
	after := ""
	if rd := q.Get("rd"); rd != "" {
		portal, path := s.returnAddress(rd)
		switch {
		case portal != nil:
			after = portal.origin + path
		case path != "/" || rd == "/":
			after = path
		}
	}
	if sealed := q.Get("state"); sealed != "" {
		// The source sends the browser back (RP-Initiated Logout 1.0 section
		// 3). The session ended before it was sent there; one that is here now
		// is a new one, and stays.
		if plain, err := s.keys.openText(purposeSignOut, sealed); err == nil {
			return p.signedOut(x, r, cmp.Or(after, string(plain)))
		}
	}
	m, err := p.find(s, r, x.host.session())
	if err != nil {
		return err
	}
	p.keeper.forget(x)
	if m == nil {
		return p.signedOut(x, r, after)
	}
	if err := p.keeper.end(r.Context(), &m.view.Login, "", "signed out", x.id); err != nil {
		x.Header().Del("Set-Cookie")
		return err
	}
	if away := p.sourceSignOut(x, m, after); away != nil {
		p.sendAway(x, r, away)
		return nil
	}
	return p.signedOut(x, r, after)
}

// sourceSignOut is where the source ends its own session, nil when it does not
// or cannot now: here it is over either way.
func (p *Proxy) sourceSignOut(x *exchange, m *member, after string) *claims.Away {
	s := x.site
	grant, err := s.openGrant(&m.view.Login)
	if err != nil {
		grant = &claims.Grant{}
	}
	switch src := s.sources[m.view.Login.Source].(type) {
	case claims.SignOuter:
		at := src.SignOutURL(grant, s.public+s.prefix+"/sign_out", s.keys.sealText(purposeSignOut, []byte(after)))
		if at != "" {
			return &claims.Away{URL: at}
		}
	case claims.LogoutEndpoint:
		l := leaving{Request: newRequestID(), After: after, Began: p.now().Unix()}
		away, err := src.RequestLogout(grant, l.Request)
		if err != nil {
			p.log.Warn("the source is not told of a sign-out", zap.String("request_id", x.id), zap.Error(err))
		}
		if away != nil && !x.host.portal { // the answer comes to public_url
			s.rememberLeaving(x, l)
		}
		return away
	}
	return nil
}

func (p *Proxy) signedOut(x *exchange, r *http.Request, after string) error {
	if after != "" {
		redirect(x, http.StatusSeeOther, after)
		return nil
	}
	p.writePage(x, r, http.StatusOK, page.SignedOut{SignIn: x.site.public + x.site.prefix + "/sign_in"})
	return nil
}
