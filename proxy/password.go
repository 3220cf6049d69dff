package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/page"
)

// maxPasswordForm is what our own forms may take: a password of 1 KiB and a
// token with the longest return path, each byte written as three.
const maxPasswordForm = 24 << 10

// attempt is one try to sign in with a password.
type attempt struct {
	user, password string
	// by is who is known to have had the right password before, by this browser
	// or these very credentials: then it counts in a bucket of its own, and
	// nobody else can use that up. nil: it counts in everybody's.
	by *known
}

// checkPassword asks a source whose password it is, for the form and for HTTP
// Basic alike: it counts the attempt (LD-12), bounds the time, and writes every
// failure down in the audit trail, but for a source that cannot be reached,
// which [Proxy.fault] does. What it answers is not signed in yet; its errors are
// claims.ErrBadPassword, a *throttledError, claims.ErrDenied,
// claims.ErrUnavailable and the store's, and are all in the table of answers.
//
// By HTTP Basic: p.checkPassword(x, r, src, attempt{user: u, password: pw}); when
// credentials that were right before are checked again, with
// by: newKnown(login.ID, source, canonicalUser(u), login.Subject).
// Who calls it also calls s.logins[source].add(err).
func (p *Proxy) checkPassword(x *exchange, r *http.Request, src claims.PasswordSource, a attempt) (*claims.Identity, *claims.Grant, error) {
	ctx, cancel := context.WithTimeout(r.Context(), renewWait)
	defer cancel()
	x.source = src.Name()
	t := p.newTry(ctx, x, r, src.Name(), a)
	err := t.begin()
	var id *claims.Identity
	var grant *claims.Grant
	if err == nil {
		_, end := x.site.step(r.Context(), "source password", src.Name())
		id, grant, err = src.CheckPassword(ctx, claims.Credentials{User: a.user, Password: a.password, Attempt: t.subject})
		if err != nil && ctx.Err() != nil && !errors.Is(err, claims.ErrUnavailable) {
			err = fmt.Errorf("%s: no answer in time: %w: %w", src.Name(), claims.ErrUnavailable, ctx.Err())
		}
		end(err)
	}
	if err != nil {
		return nil, nil, p.passwordFailed(x, r, t, err)
	}
	return id, grant, nil
}

// try is an attempt on its way.
type try struct {
	ctx       context.Context // of the one attempt
	p         *Proxy
	source    string
	user      string // as it was typed
	canonical string
	network   string
	by        *known
	account   string // the subject, once it is known whose password is tried
}

func (p *Proxy) newTry(ctx context.Context, x *exchange, r *http.Request, source string, a attempt) *try {
	return &try{
		ctx: ctx, p: p, source: source, user: a.user, canonical: canonicalUser(a.user), network: clientNetwork(x, r), by: a.by,
	}
}

// begin counts the attempt before anybody is asked.
func (t *try) begin() error {
	if t.by != nil {
		return t.p.takeAttempt(t.ctx, newThrottleKey(userLimit, "known", t.by.ID))
	}
	return t.p.takeAttempt(t.ctx, t.everybodys()...)
}

func (t *try) everybodys() []throttleKey {
	return []throttleKey{
		newThrottleKey(networkLimit, "network", t.network), newThrottleKey(userLimit, "user", t.source, t.canonical),
	}
}

// subject counts the attempt for the account that the user name led to: it may
// have several. Who is known for one account is not for another.
func (t *try) subject(subject string) error {
	t.account = subject
	key := newThrottleKey(userLimit, "subject", t.source, subject)
	switch {
	case t.by == nil:
		return t.p.takeAttempt(t.ctx, key)
	case t.by.isOf(subject):
		return nil
	}
	return t.p.takeAttempt(t.ctx, append(t.everybodys(), key)...)
}

// passwordFailed writes a failure down.
func (p *Proxy) passwordFailed(x *exchange, r *http.Request, t *try, err error) error {
	a := answerFor(err)
	if a.status >= http.StatusInternalServerError {
		return err
	}
	// Read whether there is such an account or not: it must take the same time
	// (LD-13).
	e := groups.Event{Kind: groups.EventRefused, Source: t.source, Request: x.id, Reason: a.code + ", from " + t.network}
	rec, missing := p.dir.Store().Identity(r.Context(), t.source, t.account)
	var gone *claims.DisabledError
	if errors.As(err, &gone) {
		t.account = gone.Subject
		if missing == nil {
			x.noted = true
			return errors.Join(err, p.dir.Gone(r.Context(), t.source, gone.Subject, x.id))
		}
	}
	if errors.Is(err, claims.ErrDenied) {
		e.Reason = err.Error() + ", from " + t.network
	}
	if t.account != "" {
		e.Name = t.user // somebody's: it is no password in the wrong field
	}
	if missing == nil {
		e.User = rec.User
		if u, err := p.dir.Store().User(r.Context(), rec.User); err == nil {
			e.Name = u.Name
		}
	}
	p.dir.NoteSoon(e)
	x.noted = true
	return err
}

// startForm begins a login at a source whose people say their password to us:
// it shows the form.
func (p *Proxy) startForm(x *exchange, r *http.Request, f flow) error {
	s := x.site
	src, asks := s.sources[f.Source].(claims.PasswordSource)
	if !asks {
		return fmt.Errorf("start: %w", errSource)
	}
	x.source = f.Source
	ownHeaders(x.Header())
	s.bindFlow(x, r, f, "")
	p.showForm(x, r, src, f, page.Login{Token: s.sealFlow(purposeForm, f)}, answer{status: http.StatusOK})
	return nil
}

// showForm writes the form, empty or again.
func (p *Proxy) showForm(x *exchange, r *http.Request, src claims.PasswordSource, f flow, d page.Login, a answer) {
	s := x.site
	d.Source, d.Action = s.label(src.Name()), s.prefix+"/login/"+src.Name()
	d.Code, d.Wait = a.code, a.retry
	if len(s.set.Sources) > 1 {
		q := url.Values{"rd": {f.Return}}
		if f.Bind != "" {
			q.Set("bind", f.Bind)
		}
		d.Others = s.prefix + "/sign_in?" + q.Encode()
	}
	if portal, _ := s.returnAddress(f.Return); portal != nil {
		d.Onward = portal.origin
	}
	p.writePage(x, r, a.status, d)
}

// logIn takes the form of a source whose people say their password to us.
func (p *Proxy) logIn(x *exchange, r *http.Request, source string) error {
	s := x.site
	src, asks := s.sources[source].(claims.PasswordSource)
	if !asks || x.host.portal {
		return fmt.Errorf("login: %w", errSource)
	}
	if r.Method != http.MethodPost {
		// The form was here when it was wrong before, and browsers come back to
		// the address of a page that they lost.
		redirect(x, http.StatusFound, s.public+s.prefix+"/start?"+url.Values{"source": {source}}.Encode())
		return nil
	}
	x.source, x.posted = source, true
	form, err := x.ownForm(r, "username", "password", "token")
	if err != nil {
		return err
	}
	f, _, ok := s.openFlow(purposeForm, form.Get("token"), p.now())
	if ok {
		_, ok = s.bound(r, f.ID)
	}
	if !ok || f.Source != source {
		s.logins[source].add(errNoFlow)
		return fmt.Errorf("%s: %w", source, errNoFlow)
	}
	a := attempt{user: form.Get("username"), password: form.Get("password")}
	if a.by, err = p.knownBrowser(s, r, src, a.user); err != nil {
		return err
	}
	login, err := p.passwordLogin(x, r, src, f, a)
	err = p.landed(x, r, f, source, login, err)
	if (errors.Is(err, claims.ErrBadPassword) || errors.Is(err, errThrottled)) && navigatesAs(r, http.MethodGet) {
		again := p.fault(x, err)
		x.setRetry(again)
		p.showForm(x, r, src, f, page.Login{Token: form.Get("token"), User: a.user}, again)
		return nil
	}
	return err
}

// passwordLogin makes a right password a session of this browser. The flow is
// used up by that alone, in the same transaction: who mistyped types again.
func (p *Proxy) passwordLogin(x *exchange, r *http.Request, src claims.PasswordSource, f flow, a attempt) (login string, err error) {
	s := x.site
	id, grant, err := p.checkPassword(x, r, src, a)
	if err != nil {
		return "", err
	}
	if login, err = p.takeIn(x, r, f, id, grant); err != nil {
		return "", err
	}
	s.dropLoginCookie(x, s.loginCookie(f.ID))
	s.rememberKnown(x, r, src.Name(), newKnown(newID(), src.Name(), canonicalUser(a.user), id.Subject), p.now())
	return login, nil
}

// ownForm reads a form of one of our own pages. Each field stands once, and
// nothing in the address; a form on another site's page is refused before it
// is looked at, whatever token it found (LD-16).
func (x *exchange) ownForm(r *http.Request, fields ...string) (url.Values, error) {
	if r.URL.RawQuery != "" {
		return nil, fmt.Errorf("%w: a form's address has no query", errQuery)
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return nil, fmt.Errorf("%w: another site's page sent it", errForm)
	}
	// Browsers that say nothing of the site say the origin; "null" is what our
	// own pages get, which send no referrer (Fetch, "append a request Origin header").
	if origin := r.Header.Get("Origin"); r.Header.Get("Sec-Fetch-Site") == "" && origin != "" && origin != "null" && origin != x.host.origin {
		return nil, fmt.Errorf("%w: another origin's page sent it", errForm)
	}
	form, err := readForm(r, maxPasswordForm)
	if err != nil {
		return nil, err
	}
	for _, name := range fields {
		if len(form[name]) != 1 {
			return nil, fmt.Errorf("%w: there is not one %s", errForm, name)
		}
	}
	return form, nil
}
