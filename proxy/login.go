package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/page"
)

// serveOwn serves our own endpoints, contract section 4. What is not one of
// them is 404 and never forwarded.
func (p *Proxy) serveOwn(x *exchange, r *http.Request, endpoint string) {
	x.limitBody(r)
	name, rest, _ := strings.Cut(strings.TrimPrefix(endpoint, "/"), "/")
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case endpoint == "/auth":
		p.forwardAuth(x, r, false)
		return
	case endpoint == "/auth/redirect":
		p.forwardAuth(x, r, true)
		return
	case endpoint == "/jwks.json" && read:
		p.jwks(x)
		return
	}
	if x.host = x.site.requestHost(r, x.peer); x.host == nil {
		p.fail(x, r, errHost)
		return
	}
	serve := map[string]func(*exchange, *http.Request) error{
		"/sign_in": p.signIn, "/start": p.start, "/handover": p.handover,
		"/userinfo": p.userinfo, "/sign_out": p.signOut,
	}[endpoint]
	allowed, methods := read || endpoint == "/sign_out" && r.Method == http.MethodPost, "GET, HEAD"
	if of := p.ofSource(name); of != nil && rest != "" && !strings.Contains(rest, "/") {
		serve = func(x *exchange, r *http.Request) error { return of(x, r, rest) }
		if name == "backchannel" {
			allowed, methods = r.Method == http.MethodPost, "POST"
		}
	}
	switch {
	case serve == nil:
		p.fail(x, r, errNotFound)
	case !allowed:
		x.Header().Set("Allow", methods)
		p.fail(x, r, errMethod)
	default:
		if err := serve(x, r); err != nil {
			p.fail(x, r, err)
		}
	}
}

// ofSource answers what serves PREFIX/NAME/SOURCE, nil when nothing does.
func (p *Proxy) ofSource(name string) func(x *exchange, r *http.Request, source string) error {
	switch name {
	case "callback":
		return p.callback
	case "backchannel":
		return p.backchannel
	case "frontchannel":
		return p.frontchannel
	}
	return nil
}

// query reads the parameters of one of our own endpoints. One that stands
// twice is refused: two readers could pick different ones.
func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errQuery
	}
	for _, values := range q {
		if len(values) > 1 {
			return nil, errQuery
		}
	}
	return q, nil
}

func redirect(x *exchange, status int, location string) {
	ownHeaders(x.Header())
	x.Header().Set("Location", location)
	x.WriteHeader(status)
}

// toLogin sends a navigation without a session to the login at public_url. On
// a portal it also plants the cookie that binds the way back to this browser.
func (p *Proxy) toLogin(x *exchange, r *http.Request) {
	redirect(x, http.StatusFound, p.loginAddress(x, r, returnPath(r.URL.RequestURI())))
}

func (p *Proxy) loginAddress(x *exchange, r *http.Request, rd string) string {
	s := x.site
	q := url.Values{}
	if x.host != nil && x.host.portal {
		f := flow{ID: newID(), Began: p.now().Unix()}
		s.bindFlow(x, r, f)
		q.Set("bind", bindHash(f.ID))
		rd = x.host.origin + rd
	}
	q.Set("rd", rd)
	page := "/sign_in"
	if len(s.set.Sources) == 1 {
		page = "/start"
	}
	return s.public + s.prefix + page + "?" + q.Encode()
}

// signIn is the chooser. One source alone needs no choosing.
func (p *Proxy) signIn(x *exchange, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	s := x.site
	if x.host.portal || len(s.set.Sources) == 1 || q.Get("source") != "" {
		return p.start(x, r)
	}
	data := page.SignIn{}
	for _, e := range s.set.Sources {
		link := url.Values{"source": {e.Source.Name()}}
		for _, keep := range []string{"rd", "bind"} {
			if v := q.Get(keep); v != "" {
				link.Set(keep, v)
			}
		}
		data.Sources = append(data.Sources, page.Source{Label: e.Label, URL: s.prefix + "/start?" + link.Encode()})
	}
	p.writePage(x, r, http.StatusOK, data)
	return nil
}

// start begins a login.
func (p *Proxy) start(x *exchange, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	s := x.site
	portal, path := s.returnAddress(q.Get("rd"))
	if x.host.portal {
		// Logins happen at public_url, and come back here.
		redirect(x, http.StatusFound, p.loginAddress(x, r, path))
		return nil
	}
	f := flow{ID: newID(), Source: q.Get("source"), Began: p.now().Unix(), Return: path}
	if portal != nil {
		f.Return, f.Bind = portal.origin+path, q.Get("bind")
		if f.Bind == "" {
			// Nobody can hand a session over to a browser that did not ask for
			// one there: let it ask.
			redirect(x, http.StatusFound, f.Return)
			return nil
		}
		m, err := p.find(s, r, "")
		if err != nil {
			return err
		}
		if m != nil {
			p.handOver(x, m.view.Login.ID, portal, path, f.Bind)
			return nil
		}
	}
	if f.Source == "" && len(s.set.Sources) == 1 {
		f.Source = s.set.Sources[0].Source.Name()
	}
	if f.Source == "" {
		redirect(x, http.StatusFound, s.public+s.prefix+"/sign_in?"+q.Encode())
		return nil
	}
	src := s.sources[f.Source]
	if src == nil {
		return fmt.Errorf("start: %w", errSource)
	}
	x.source = f.Source
	state := s.sealFlow(f)
	ownHeaders(x.Header())
	s.bindFlow(x, r, f)
	_, end := s.step(r.Context(), "source challenge", f.Source)
	err = src.Challenge(x, r, s.claimsFlow(f, 0, state))
	end(err)
	if err != nil {
		x.Header().Del("Set-Cookie")
		s.logins[f.Source].add(err)
		return err
	}
	return nil
}

// callback is a login's second half.
func (p *Proxy) callback(x *exchange, r *http.Request, source string) error {
	s := x.site
	src := s.sources[source]
	if src == nil {
		return fmt.Errorf("callback: %w", errSource)
	}
	x.source = source
	q, err := query(r)
	if err != nil {
		return err
	}
	state := q.Get("state")
	f, key, ok := s.openFlow(state, p.now())
	if !ok || f.Source != source || !s.bound(r, f.ID) || !p.used.first(f.ID, p.now()) {
		s.logins[source].add(errNoFlow)
		return fmt.Errorf("%s: %w", source, errNoFlow)
	}
	s.dropLoginCookie(x, s.loginCookie(f.ID))
	login, err := p.authenticate(x, r, src, f, key, state)
	s.logins[source].add(err)
	p.Stats.LoginTook.Observe(p.now().Sub(x.began))
	if err != nil {
		return err
	}
	portal, path := s.returnAddress(f.Return)
	if portal != nil {
		p.handOver(x, login, portal, path, f.Bind)
		return nil
	}
	redirect(x, http.StatusSeeOther, path)
	return nil
}

// authenticate makes the source's answer a session, under a new cookie.
func (p *Proxy) authenticate(x *exchange, r *http.Request, src claims.Source, f flow, key int, state string) (login string, err error) {
	s := x.site
	_, end := s.step(r.Context(), "source authenticate", src.Name())
	id, grant, err := src.Authenticate(r, s.claimsFlow(f, key, state))
	end(err)
	if err != nil {
		p.noteFailure(x, r, err)
		return "", err
	}
	now := p.now()
	l := &groups.Login{
		ID: newID(), Source: id.Source, Subject: id.Subject, Session: id.Session,
		Created: now, Expires: now.Add(s.lifetime), ClaimsAt: now,
	}
	if l.Grant, err = s.sealGrant(l, grant); err != nil {
		return "", err
	}
	old, err := p.find(s, r, "")
	if err != nil {
		return "", err
	}
	value, hash := newSessionID()
	_, end = s.step(r.Context(), "sync", id.Source)
	_, err = p.dir.SignIn(r.Context(), groups.SignIn{
		Identity: id, Login: l, Session: &groups.Session{Hash: hash, Used: now},
		OnceKind: "login", OnceID: f.ID, OnceUntil: time.Unix(f.Began, 0).Add(loginLife + time.Minute),
		Request: x.id,
	})
	end(err)
	if err != nil {
		x.noted = groups.Refused(err)
		return "", err
	}
	if old != nil {
		// A new login is a new session: the old id must not live on beside it.
		if _, err := p.dir.EndLogins(r.Context(), groups.LoginFilter{ID: old.view.Login.ID}, "", "signed in again", x.id); err != nil {
			p.log.Warn("old session not ended", zap.String("request_id", x.id), zap.Error(err))
		}
	}
	s.setSession(x, value, s.lifetime)
	return l.ID, nil
}

// noteFailure writes down what SignIn cannot: an answer of a source that never
// became a statement, with its own reason and before the person is told.
func (p *Proxy) noteFailure(x *exchange, r *http.Request, err error) {
	p.dir.Note(r.Context(), groups.Event{Kind: groups.EventRefused, Source: x.source, Request: x.id, Reason: err.Error()})
	x.noted = true
}

// usedFlows remembers which logins were answered, so that a second answer
// costs the source nothing. What must hold across restarts and replicas is in
// the store (SignIn's Once); this is only first.
type usedFlows struct {
	mu  sync.Mutex
	ids map[string]time.Time
}

// maxUsedFlows bounds the memory; past it the store alone refuses replays.
const maxUsedFlows = 100_000

func (u *usedFlows) first(id string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, used := u.ids[id]; used {
		return false
	}
	if u.ids == nil {
		u.ids = map[string]time.Time{}
	}
	if len(u.ids) < maxUsedFlows {
		u.ids[id] = now
	}
	return true
}

func (u *usedFlows) sweep(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, at := range u.ids {
		if now.Sub(at) > loginLife+time.Minute {
			delete(u.ids, id)
		}
	}
}
