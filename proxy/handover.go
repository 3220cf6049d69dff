package proxy

import (
	"fmt"
	"net/http"

	"github.com/groupgate/groupgate/proxy/page"
)

// maxHandoverQuery bounds a ticket in an address: beyond it proxies on the way
// may refuse the address, and the ticket goes by a form.
const maxHandoverQuery = 4 << 10

// handOver sends a signed-in browser to a portal with a single-use ticket.
func (p *Proxy) handOver(x *exchange, r *http.Request, login string, portal *host, path, bind string) error {
	s := x.site
	code, err := p.keeper.ticket(s, handover{
		ID: newID(), Login: login, Host: portal.name, Return: path, Bind: bind,
		Expires: p.now().Add(handoverLife).Unix(),
	})
	if err != nil {
		return err
	}
	to := portal.origin + s.prefix + "/handover"
	if len(code) > maxHandoverQuery {
		p.writePage(x, r, http.StatusOK, page.Continue{To: to, Fields: map[string]string{"code": code}})
		return nil
	}
	redirect(x, http.StatusSeeOther, to+"?code="+code)
	return nil
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
	if r.Method == http.MethodPost {
		x.posted = true
		if q, err = readForm(r, maxLogoutBody); err != nil {
			return err
		}
	}
	h, err := s.openHandover(q.Get("code"), x.host.name, p.now())
	if err != nil {
		return fmt.Errorf("handover: %w: %w", errNoFlow, err)
	}
	cookie, bound := s.boundHash(r, h.Bind)
	if !bound {
		return fmt.Errorf("handover: %w", errNoFlow)
	}
	if err := p.keeper.redeem(x, r, h); err != nil {
		return err
	}
	s.dropLoginCookie(x, cookie)
	redirect(x, http.StatusSeeOther, returnPath(h.Return))
	return nil
}
