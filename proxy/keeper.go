package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

// keeper is where sessions are: in the directory, which a cookie's opaque id
// leads to (stored), or sealed in the browser's own cookies (sealed.go). Both
// serve a signed-in request from memory.
type keeper interface {
	// find answers the session of a request on a host, or nil; see Proxy.find.
	find(s *site, r *http.Request, portal string) (*member, error)
	// again answers a session that was found before, as it is now, or nil.
	again(ctx context.Context, s *site, m *member) (*member, error)
	// browserLogin is the login of the request's session on public_url, nil
	// without one. The source is not asked.
	browserLogin(ctx context.Context, s *site, r *http.Request) (*groups.Login, error)

	// begin makes a statement a session of this browser, and ends its old login.
	begin(x *exchange, r *http.Request, in *groups.SignIn, old string) error
	// ticket is what a portal's host makes a session of, by redeem.
	ticket(s *site, h handover) (string, error)
	redeem(x *exchange, r *http.Request, h *handover) error

	// end ends a login, and forget takes the session's cookies from the browser.
	end(ctx context.Context, l *groups.Login, actor, reason, request string) error
	forget(x *exchange)
	// endOnce ends the logins that a source's message names.
	endOnce(ctx context.Context, once groups.SingleUse, f []groups.LoginFilter, actor, reason, request string) error

	// clear forgets what was made by other settings, tidy what is over.
	clear()
	tidy()
}

// find answers the session of a request on a host, or nil. Two different
// sessions in one request are none: nobody can tell which is the person's.
// An error means that the store could not say.
func (p *Proxy) find(s *site, r *http.Request, portal string) (*member, error) {
	return p.keeper.find(s, r, portal)
}

// stored keeps sessions in the directory.
type stored struct{ *Proxy }

func (p stored) again(ctx context.Context, s *site, m *member) (*member, error) {
	return p.lookUp(ctx, s, m.hash)
}

func (p stored) begin(x *exchange, r *http.Request, in *groups.SignIn, old string) error {
	value := ""
	in.Session = &groups.Session{Used: in.Login.Created}
	value, in.Session.Hash = newSessionID()
	if _, err := p.dir.SignIn(r.Context(), *in); err != nil {
		return err
	}
	if old != "" {
		// A new login is a new session: the old id must not live on beside it.
		if _, err := p.dir.EndLogins(r.Context(), groups.LoginFilter{ID: old}, "", "signed in again", x.id); err != nil {
			p.log.Warn("old session not ended", zap.String("request_id", x.id), zap.Error(err))
		}
	}
	x.site.setSession(x, value, in.Login.Expires.Sub(in.Login.Created))
	return nil
}

func (p stored) ticket(s *site, h handover) (string, error) { return s.sealHandover(h), nil }

func (p stored) redeem(x *exchange, r *http.Request, h *handover) error {
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
	x.site.setSession(x, value, login.Expires.Sub(p.now()))
	return nil
}

func (p stored) end(ctx context.Context, l *groups.Login, actor, reason, request string) error {
	_, err := p.dir.EndLogins(ctx, groups.LoginFilter{ID: l.ID}, actor, reason, request)
	return err
}

func (p stored) forget(x *exchange) { x.site.dropSession(x) }

func (p stored) endOnce(ctx context.Context, once groups.SingleUse, f []groups.LoginFilter, actor, reason, request string) error {
	_, err := p.dir.EndLoginsOnce(ctx, once, f, actor, reason, request)
	return err
}

func (p stored) clear() { p.sessions.clear() }
func (p stored) tidy()  { p.sessions.tidy(10 * time.Minute) }
