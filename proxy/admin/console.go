package admin

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"
)

// The console is pages around the API: they are made from the same directory,
// and everything that changes something is a call of the API by the page's
// script. It is served on the admin listener, to whom has the token, and on the
// public host, to whom the proxy lets through (ServeConsole).

// visitor is who asks, and where the console is for them.
type visitor struct {
	base  string // path in front of every address of ours; empty on the admin listener
	actor string // whom audit events name; empty: nobody has signed in
	// person is the user name of who has signed in on the public host.
	person string
	// public: the proxy let the person in, and signs the person out.
	public bool
}

// ServeConsole answers a request of the public host from somebody who may use
// the console: the caller has made sure of that, for this very request. base is
// the path under which the console is, by the user name. The handler reads the
// path behind base.
func (s *Server) ServeConsole(w http.ResponseWriter, r *http.Request, base, by string) {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), base)
	if !ok {
		path = "\x00" // nothing
	}
	s.serve(w, r, path, visitor{base: base, actor: personActor(by), person: by, public: true})
}

// consolePolicy is the Content-Security-Policy of pages: our own style sheet
// and scripts, and nothing else from anywhere.
const consolePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// errSignIn leads a person to the page that asks for the token.
var errSignIn = errors.New("no session of the console")

// serveConsole answers everything that is neither the API nor open to
// everybody.
func (s *Server) serveConsole(x *exchange, path string) {
	err := s.consolePage(x, path)
	if errors.Is(err, errSignIn) {
		next := ""
		if x.r.Method == http.MethodGet {
			if q := x.r.URL.RawQuery; q != "" {
				path += "?" + q
			}
			next = "?" + url.Values{"next": {path}}.Encode()
		}
		x.redirect("/login" + next)
		return
	}
	switch {
	case err == nil:
	case strings.Contains(x.r.Header.Get("Accept"), "text/html"):
		s.failPage(x, err)
	default:
		s.fail(x, err)
	}
}

func (s *Server) consolePage(x *exchange, path string) error {
	if name, asset := strings.CutPrefix(path, "/assets/"); asset {
		return s.asset(x, name)
	}
	if !x.from.public {
		if !s.hostAllowed(x.r.Host) {
			return errHost
		}
		if err := s.csrf.Check(x.r); err != nil {
			return errCrossOrigin
		}
		switch path {
		case "/login":
			return s.login(x)
		case "/logout":
			return s.logout(x)
		}
	}
	p := s.consoleRoute(x, path)
	start := path == "" || path == "/"
	switch {
	case p == nil && !start:
		return errNoPage
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		return notAllowed("GET, HEAD")
	case start:
		x.redirect("/groups")
		return nil
	case x.from.actor == "":
		return errSignIn
	case !s.dir.Stored():
		return errNoDirectory // all pages are about it
	}
	return s.show(x, p)
}

// consoleRoute finds a page and sets the arguments in its path.
func (s *Server) consoleRoute(x *exchange, path string) *consoleRoute {
	parts, ok := split(path)
	if !ok {
		return nil
	}
	for i := range s.pages {
		if args, fits := match(s.pages[i].segments, parts); fits {
			x.args = args
			return &s.pages[i]
		}
	}
	return nil
}

func (x *exchange) redirect(path string) {
	x.Header().Set("Location", cmp.Or(x.from.base, "")+path)
	x.WriteHeader(http.StatusSeeOther)
}

// Sessions of the console: who has shown the token, in this process. They are
// few, and end with it.
const (
	consoleCookie   = "groupgate-console"
	consoleIdle     = 30 * time.Minute
	consoleLife     = 8 * time.Hour
	maxConsoleUsers = 100 // sessions; the one that was used longest ago goes
)

type consoleSession struct {
	token       [32]byte // the hash that counted when it began
	began, used time.Time
}

// signedIn answers who a cookie of the console belongs to; "" for nobody.
func (s *Server) signedIn(r *http.Request) string {
	hash, ok := consoleID(r)
	if !ok {
		return ""
	}
	now := s.o.Now()
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	c := s.consoleSessions[hash]
	if c == nil {
		return ""
	}
	// Another token is another administrator's, as far as anybody knows.
	if now.Sub(c.used) > consoleIdle || now.Sub(c.began) > consoleLife || c.token != s.o.TokenHash() {
		delete(s.consoleSessions, hash)
		return ""
	}
	c.used = now
	return actorToken
}

// consoleID reads the cookie. Two of them are none.
func consoleID(r *http.Request) (hash [32]byte, ok bool) {
	found := r.CookiesNamed(consoleCookie)
	if len(found) != 1 || found[0].Value == "" {
		return hash, false
	}
	return sha256.Sum256([]byte(found[0].Value)), true
}

func (s *Server) beginSession(x *exchange) {
	id, now := rand.Text(), s.o.Now()
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	if len(s.consoleSessions) >= maxConsoleUsers {
		var oldest [32]byte
		for hash, c := range s.consoleSessions {
			if o := s.consoleSessions[oldest]; o == nil || c.used.Before(o.used) {
				oldest = hash
			}
		}
		delete(s.consoleSessions, oldest)
	}
	s.consoleSessions[sha256.Sum256([]byte(id))] = &consoleSession{token: s.o.TokenHash(), began: now, used: now}
	http.SetCookie(x, s.consoleCookie(x, id, int(consoleLife/time.Second)))
}

func (s *Server) consoleCookie(x *exchange, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: consoleCookie, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true,
		Secure: x.r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
}

// login takes the token, once, for a session.
func (s *Server) login(x *exchange) error {
	next := localPath(x.r.URL.Query().Get("next"))
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
		if x.from.actor != "" {
			x.redirect(next)
			return nil
		}
		return s.render(x, http.StatusOK, view{template: "login", title: "login.title", data: loginData{Next: next}})
	case http.MethodPost:
	default:
		return notAllowed("GET, HEAD, POST")
	}
	x.r.Body = http.MaxBytesReader(x.ResponseWriter, x.r.Body, 16<<10)
	if err := x.wantType("application/x-www-form-urlencoded"); err != nil {
		return err
	}
	if err := x.r.ParseForm(); err != nil {
		return bodyFault(err)
	}
	switch err := s.checkToken(x.r, x.r.PostForm.Get("token")); {
	case err == nil:
		s.beginSession(x)
		s.log.Info("signed in to the console by the token", zap.String("request_id", x.id), zap.String("client", clientOf(x.r)))
		x.redirect(next)
		return nil
	default:
		p, data := problemFor(err), loginData{Next: next, Wrong: true}
		if p.Status == http.StatusTooManyRequests {
			x.Header().Set(p.header[0], p.header[1])
			data.Wait = p.header[1]
		}
		return s.render(x, p.Status, view{template: "login", title: "login.title", data: data})
	}
}

type loginData struct {
	Next  string
	Wrong bool
	Wait  string // seconds, when there were too many attempts
}

// localPath is a page of ours to go to. Everything else leads to the first.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/groups"
	}
	return next
}

func (s *Server) logout(x *exchange) error {
	if x.r.Method != http.MethodPost {
		return notAllowed("POST")
	}
	if hash, ok := consoleID(x.r); ok {
		s.sessionsMu.Lock()
		delete(s.consoleSessions, hash)
		s.sessionsMu.Unlock()
	}
	http.SetCookie(x, s.consoleCookie(x, "", -1))
	x.redirect("/login")
	return nil
}

// failPage answers an error to a person: what happened, and the request's id.
func (s *Server) failPage(x *exchange, err error) {
	p := problemFor(err)
	if p.Status >= 500 && x.r.Context().Err() == nil {
		s.log.Error("page of the console not served", zap.String("request_id", x.id), zap.Error(err))
	}
	if p.header[0] != "" {
		x.Header().Set(p.header[0], p.header[1])
	}
	data := faultData{Status: p.Status, ID: x.id, Detail: p.Detail}
	if p == errNoPage {
		data.Detail = "" // the page says so itself
	}
	if err := s.render(x, p.Status, view{template: "fault", title: "fault.title", data: data}); err != nil {
		s.log.Error("page of the console not written", zap.String("request_id", x.id), zap.Error(err))
		text(x, http.StatusInternalServerError, "The page cannot be shown.\n")
	}
}

type faultData struct {
	Status int
	ID     string
	Detail string // of the API's problem, in English
}

// view is one page: which template, and what it says.
type view struct {
	template string
	title    string // key of a text, or the text itself when there is no such key
	section  string // of the navigation
	scripts  []string
	data     any
}

// consoleRoute is one page of the console.
type consoleRoute struct {
	pattern  string
	segments []segment
	make     func(*exchange) (*view, error)
}

// consoleTable lists every page, in the order of their parts' files.
func (s *Server) consoleTable() []consoleRoute {
	var all []consoleRoute
	for _, part := range [][]consoleRoute{s.groupPages(), s.rulePages(), s.peoplePages(), s.operatePages(), s.helpPages()} {
		all = append(all, part...)
	}
	for i := range all {
		all[i].segments = compile(all[i].pattern)
	}
	return all
}

func (s *Server) show(x *exchange, p *consoleRoute) error {
	v, err := p.make(x)
	if err != nil {
		return err
	}
	return s.render(x, http.StatusOK, *v)
}

// render writes a page. On an error nothing was written.
func (s *Server) render(x *exchange, status int, v view) error {
	l := consoleLanguage(x.r.Header.Get("Accept-Language"))
	f := &frame{
		Lang: l, Base: x.from.base, Actor: x.from.actor, Public: x.from.public, Section: v.section, Scripts: v.scripts, Data: v.data,
		now: s.o.Now(),
	}
	if f.Title = v.title; l.has(v.title) {
		f.Title = f.T(v.title)
	}
	f.Targets = s.o.Targets != nil && len(s.o.Targets()) > 0
	var body, out bytes.Buffer
	if err := consoleTemplates.ExecuteTemplate(&body, v.template, f); err != nil {
		return err
	}
	f.Body = trusted(body.String())
	if err := consoleTemplates.ExecuteTemplate(&out, "layout", f); err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Security-Policy", consolePolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", l.tag)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Vary", "Accept-Language, Cookie")
	x.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.Write(out.Bytes()) // the client may be gone
	}
	return nil
}
