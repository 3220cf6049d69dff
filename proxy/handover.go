package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// handOver sends a signed-in browser to a portal with a single-use ticket.
func (p *Proxy) handOver(x *exchange, login string, portal *host, path, bind string) {
	s := x.site
	code := s.sealHandover(handover{
		ID: newID(), Login: login, Host: portal.name, Return: path, Bind: bind,
		Expires: p.now().Add(handoverLife).Unix(),
	})
	redirect(x, http.StatusSeeOther, portal.origin+s.prefix+"/handover?code="+code)
}

// handover makes a ticket a session of the portal's host.
func (p *Proxy) handover(x *exchange, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	s := x.site
	if !x.host.portal {
		return errNotFound
	}
	h, err := s.openHandover(q.Get("code"), x.host.name, p.now())
	if err != nil {
		return fmt.Errorf("handover: %w: %w", errNoFlow, err)
	}
	cookie, bound := s.boundHash(r, h.Bind)
	if !bound {
		return fmt.Errorf("handover: %w", errNoFlow)
	}
	login, err := p.dir.Store().LoginByID(r.Context(), h.Login)
	if errors.Is(err, groups.ErrNotFound) {
		return fmt.Errorf("handover: the login is over: %w", errNoFlow)
	}
	if err != nil {
		return err
	}
	value, hash := newSessionID()
	session := &groups.Session{Hash: hash, Host: x.host.name, Used: p.now(), Login: *login}
	if err := p.dir.AddSession(r.Context(), session, h.ID, time.Unix(h.Expires, 0).Add(time.Minute)); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	s.dropLoginCookie(x, cookie)
	s.setSession(x, value, login.Expires.Sub(p.now()))
	redirect(x, http.StatusSeeOther, returnPath(h.Return))
	return nil
}
