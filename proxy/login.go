package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

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
		p.forwardAuth(x, r, false, http.StatusAccepted)
		return
	case endpoint == "/auth/redirect":
		p.forwardAuth(x, r, true, http.StatusAccepted)
		return
	case endpoint == envoyEndpoint:
		p.envoyAuth(x, r)
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
		"/userinfo": p.userinfo, "/sign_out": p.signOut, "/password": p.password,
	}[endpoint]
	posts := endpoint == "/sign_out" || endpoint == "/password" || endpoint == "/handover"
	allowed, methods := read || posts && r.Method == http.MethodPost, "GET, HEAD"
	if of, source, takes := p.ofSource(name, rest); of != nil {
		serve = func(x *exchange, r *http.Request) error { return of(x, r, source) }
		if takes != "" {
			allowed, methods = slices.Contains(strings.Split(takes, ", "), r.Method), takes
		}
	}
	if endpoint == consoleEndpoint || strings.HasPrefix(endpoint, consoleEndpoint+"/") {
		serve, allowed = p.console, true
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

// ofSource answers what serves PREFIX/NAME/REST for which source, nil when
// nothing does, and the methods it takes where those are not the reading ones.
func (p *Proxy) ofSource(name, rest string) (serve func(x *exchange, r *http.Request, source string) error, source, takes string) {
	source, what, below := strings.Cut(rest, "/")
	if source == "" {
		return nil, "", ""
	}
	if below {
		name += "/" + what
	}
	switch name {
	case "callback":
		serve = p.callback
	case "login":
		serve, takes = p.logIn, "GET, HEAD, POST"
	case "backchannel":
		serve, takes = p.backchannel, "POST"
	case "frontchannel":
		serve = p.frontchannel
	case "saml/acs":
		serve, takes = p.postBack, "POST"
	case "saml/metadata":
		serve = p.metadata
	case "saml/slo":
		// Not HEAD, by which nobody is answered: a message counts once.
		serve, takes = p.singleLogout, "GET, POST"
	}
	return serve, source, takes
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
		s.bindFlow(x, r, f, "")
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
	data, last := page.SignIn{}, s.recallKnown(r, p.now()).Last
	for _, e := range s.set.Sources {
		link := url.Values{"source": {e.Source.Name()}}
		for _, keep := range []string{"rd", "bind"} {
			if v := q.Get(keep); v != "" {
				link.Set(keep, v)
			}
		}
		choice := page.Source{Label: e.Label, URL: s.prefix + "/start?" + link.Encode(), Last: e.Source.Name() == last}
		if choice.Last {
			data.Sources = slices.Insert(data.Sources, 0, choice)
		} else {
			data.Sources = append(data.Sources, choice)
		}
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
			return p.handOver(x, r, m.view.Login.ID, portal, path, f.Bind)
		}
	}
	if f.Source == "" && len(s.set.Sources) == 1 {
		f.Source = s.set.Sources[0].Source.Name()
	}
	if f.Source == "" {
		redirect(x, http.StatusFound, s.public+s.prefix+"/sign_in?"+q.Encode())
		return nil
	}
	src, redirects := s.sources[f.Source].(claims.Redirecting)
	if !redirects {
		return p.startForm(x, r, f)
	}
	x.source = f.Source
	state, kept := f.ID, ""
	if _, posts := src.(claims.PostBack); posts {
		if m, err := p.find(s, r, ""); err == nil && m != nil {
			f.Old = m.view.Login.ID
		}
		kept = s.keepFlow(f)
	} else {
		state = s.sealFlow(purposeState, f)
	}
	ownHeaders(x.Header())
	s.bindFlow(x, r, f, kept)
	_, end := s.step(r.Context(), "source challenge", f.Source)
	err = src.Challenge(x, r, s.claimsFlow(src, f, 0, state))
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
	src, redirects := s.sources[source].(claims.Redirecting)
	if !redirects {
		return fmt.Errorf("callback: %w", errSource)
	}
	x.source = source
	q, err := query(r)
	if err != nil {
		return err
	}
	state := q.Get("state")
	f, key, ok := s.openFlow(purposeState, state, p.now())
	if ok {
		_, ok = s.bound(r, f.ID)
	}
	if !ok || f.Source != source || !p.used.first(f.ID, p.now()) {
		s.logins[source].add(errNoFlow)
		return fmt.Errorf("%s: %w", source, errNoFlow)
	}
	s.dropLoginCookie(x, s.loginCookie(f.ID))
	return p.land(x, r, src, f, s.claimsFlow(src, f, key, state))
}

// land ends a login: it takes the source's answer in, and sends the browser
// where the flow says.
func (p *Proxy) land(x *exchange, r *http.Request, src claims.Redirecting, f flow, cf *claims.Flow) error {
	login, err := p.authenticate(x, r, src, f, cf)
	if err == nil {
		x.site.rememberKnown(x, r, src.Name(), nil, p.now())
	}
	return p.landed(x, r, f, src.Name(), login, err)
}

// landed counts a login that has ended, and sends the browser where the flow
// says.
func (p *Proxy) landed(x *exchange, r *http.Request, f flow, source, login string, err error) error {
	s := x.site
	s.logins[source].add(err)
	p.Stats.LoginTook.Observe(p.now().Sub(x.began))
	if err != nil {
		return err
	}
	portal, path := s.returnAddress(f.Return)
	if portal != nil {
		return p.handOver(x, r, login, portal, path, f.Bind)
	}
	redirect(x, http.StatusSeeOther, path)
	return nil
}

// authenticate makes the source's answer a session, under a new cookie.
func (p *Proxy) authenticate(x *exchange, r *http.Request, src claims.Redirecting, f flow, cf *claims.Flow) (login string, err error) {
	s := x.site
	_, end := s.step(r.Context(), "source authenticate", src.Name())
	id, grant, err := src.Authenticate(r, cf)
	end(err)
	if err == nil && f.ID == "" && id.StatementID == "" {
		err = fmt.Errorf("%s: %w: nothing says that the answer is new", src.Name(), claims.ErrProtocol)
	}
	if err != nil {
		p.noteFailure(x, r, f, err)
		return "", err
	}
	return p.takeIn(x, r, f, id, grant)
}

// takeIn makes a source's statement a session of this browser, under a new
// cookie. It answers the login's id.
func (p *Proxy) takeIn(x *exchange, r *http.Request, f flow, id *claims.Identity, grant *claims.Grant) (login string, err error) {
	s := x.site
	l, err := p.newLogin(s, id, grant)
	if err != nil {
		return "", err
	}
	old, err := p.find(s, r, "")
	if err != nil {
		return "", err
	}
	if old != nil {
		f.Old = old.view.Login.ID
	}
	in := groups.SignIn{Identity: id, Login: l, Request: x.id}
	if f.ID != "" {
		in.OnceKind, in.OnceID, in.OnceUntil = "login", f.ID, time.Unix(f.Began, 0).Add(loginLife+time.Minute)
	}
	_, end := s.step(r.Context(), "sync", id.Source)
	err = p.keeper.begin(x, r, &in, f.Old)
	end(err)
	if err != nil {
		x.noted = groups.Refused(err)
		return "", err
	}
	return l.ID, nil
}

// newLogin is the login that a source's statement begins now.
func (p *Proxy) newLogin(s *site, id *claims.Identity, grant *claims.Grant) (l *groups.Login, err error) {
	now := p.now()
	l = &groups.Login{
		ID: newID(), Source: id.Source, Subject: id.Subject, Session: id.Session, Alias: id.Alias,
		Created: now, Expires: now.Add(s.lifetime), ClaimsAt: now,
	}
	if !id.SessionEnds.IsZero() && id.SessionEnds.Before(l.Expires) {
		l.Expires = id.SessionEnds
	}
	l.Grant, err = s.sealGrant(l, grant)
	return l, err
}

// noteFailure writes down what SignIn cannot: an answer of a source that never
// became a statement, with its own reason and before the person is told. What
// belongs to no login of ours anybody can send, so it does not wait for the
// store.
func (p *Proxy) noteFailure(x *exchange, r *http.Request, f flow, err error) {
	e := groups.Event{Kind: groups.EventRefused, Source: x.source, Request: x.id, Reason: err.Error()}
	if f.ID == "" {
		p.dir.NoteSoon(e)
	} else {
		p.dir.Note(r.Context(), e)
	}
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
