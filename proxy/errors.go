package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/page"
)

var (
	errUnauthenticated = errors.New("no session")
	errNoGroup         = errors.New("no group of the route")
	errNoFlow          = errors.New("no such login is under way in this browser")
	errNotFound        = errors.New("no such page of ours")
	errHost            = errors.New("not a host of ours")
	errMethod          = errors.New("method not allowed")
	errQuery           = errors.New("the query is malformed, or says something twice")
	errSource          = errors.New("no such source")
	errOrigin          = errors.New("the socket was opened by another site's page")
	errUpstreamDown    = errors.New("the upstream cannot be reached")
	errUpstreamSlow    = errors.New("the upstream did not answer in time")
	errStarting        = errors.New("not configured yet")
	errRouteUnknown    = errors.New("routes ask for groups and the route is unknown: the peer is not in trusted_proxies, or sent no X-Forwarded-Uri")
)

// answer is what a client may know about an error.
type answer struct {
	status int
	code   string // for scripts
	title  string
	text   string
	again  bool // offer to start the login again
	retry  int  // seconds, for Retry-After
	level  int8
}

const (
	quiet int8 = iota // the access line says enough
	info
	alarm
)

// answers maps errors to answers, the first that fits. It is the only place
// that does; what it does not know is 500, and nothing is forwarded.
var answers = []struct {
	err error
	answer
}{
	{errUnauthenticated, answer{status: 401, code: "unauthenticated", title: "Sign in first", text: "This page is for people who have signed in.", again: true}},
	{errNoGroup, answer{status: 403, code: "forbidden", title: "Not for you, so far", text: "You have signed in, but this page is for members of other groups.", level: quiet}},
	{errRouteUnknown, answer{status: 403, code: "route_unknown", title: "Not allowed", text: "The proxy in front could not be trusted to say which page this is. An administrator finds the reason in the log.", level: alarm}},
	{errOrigin, answer{status: 403, code: "cross_origin", title: "Not allowed", text: "Another site's page tried to open a connection here.", level: info}},
	{errNotFound, answer{status: 404, code: "not_found", title: "No such page", text: "There is nothing at this address."}},
	{errHost, answer{status: 421, code: "misdirected", title: "Wrong address", text: "This server does not serve the host that the request names.", level: info}},
	{errMethod, answer{status: 405, code: "method_not_allowed", title: "Not allowed", text: "This address does not take requests of this kind."}},
	{errPath, answer{status: 400, code: "bad_path", title: "Unclear address", text: "The address can be read in more than one way, so it was not passed on."}},
	{errQuery, answer{status: 400, code: "bad_request", title: "Unclear request", text: "The request could not be read, or says one thing twice.", level: info}},
	{errSource, answer{status: 404, code: "unknown_source", title: "No such way to sign in", text: "The address names a way to sign in that does not exist here.", again: true}},
	{errNoFlow, answer{status: 400, code: "no_login", title: "This sign-in is over", text: "It took too long, was used already, or was begun in another browser.", again: true, level: info}},
	{groups.ErrReplayed, answer{status: 400, code: "replayed", title: "This sign-in is over", text: "It was used already.", again: true, level: info}},
	{groups.ErrNameTaken, answer{status: 403, code: "name_taken", title: "That name is somebody else's", text: "The user name you signed in with belongs to another account here. An administrator can sort that out.", level: info}},
	{groups.ErrClaimMissing, answer{status: 403, code: "claim_missing", title: "Your groups are not known", text: "The place you signed in at did not say which groups you are in, and that is needed here.", level: info}},
	{claims.ErrDenied, answer{status: 403, code: "denied", title: "You cannot sign in here", text: "Your account was recognised, but it may not be used here.", again: true, level: info}},
	{claims.ErrProtocol, answer{status: 400, code: "bad_answer", title: "The sign-in did not work", text: "The answer of the place you signed in at could not be accepted.", again: true, level: info}},
	{claims.ErrUnavailable, answer{status: 503, code: "source_unavailable", title: "Sign-in is not possible right now", text: "The place you sign in at cannot be reached. Please try again in a moment.", again: true, retry: 10, level: alarm}},
	{groups.ErrUnavailable, answer{status: 503, code: "store_unavailable", title: "Out of order for a moment", text: "You are still signed in. Please try again in a moment.", retry: 5, level: alarm}},
	{errStarting, answer{status: 503, code: "starting", title: "Starting", text: "Please try again in a moment.", retry: 1}},
	{errOverflow, answer{status: 502, code: "groups_overflow", title: "Too many groups", text: "You are in more groups than this application can be told about. An administrator can change that.", level: alarm}},
	{errUpstreamSlow, answer{status: 504, code: "upstream_timeout", title: "The application is too slow", text: "It did not answer in time.", level: alarm}},
	{errUpstreamDown, answer{status: 502, code: "upstream_unreachable", title: "The application does not answer", text: "It may be starting, or out of order.", level: alarm}},
}

var unknown = answer{status: 500, code: "internal", title: "Something went wrong", text: "This is our fault, not yours.", level: alarm}

func answerFor(err error) answer {
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return a.answer
		}
	}
	return unknown
}

// fail answers an error: with a page for people, with JSON for scripts. The
// client gets fixed words and the request's id, never the error's text.
func (p *Proxy) fail(x *exchange, r *http.Request, err error) {
	a := answerFor(err)
	x.err = err
	p.logFault(x, a, err)
	if errors.Is(err, errOverflow) {
		p.noteOverflow(x, r, err)
	}
	navigation := navigates(r)
	if a.status == http.StatusUnauthorized && navigation {
		p.toLogin(x, r)
		return
	}
	p.writeAnswer(x, r, a, navigation)
}

func (p *Proxy) logFault(x *exchange, a answer, err error) {
	fields := []zap.Field{zap.String("request_id", x.id), zap.String("code", a.code), zap.Error(err)}
	switch a.level {
	case info:
		p.log.Info("refused", fields...)
	case alarm:
		p.log.Error("not served", fields...)
	}
}

func (p *Proxy) noteOverflow(x *exchange, r *http.Request, err error) {
	v := x.member.view
	p.dir.Note(r.Context(), groups.Event{
		Kind: groups.EventOverflow, User: v.User.ID, Name: v.User.Name, Source: v.Login.Source, Request: x.id, Reason: err.Error(),
	})
}

func (p *Proxy) writeAnswer(x *exchange, r *http.Request, a answer, asPage bool) {
	ownHeaders(x.Header())
	if a.retry > 0 {
		x.Header().Set("Retry-After", strconv.Itoa(a.retry))
	}
	if a.status == http.StatusMethodNotAllowed && x.Header().Get("Allow") == "" {
		x.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	if !asPage {
		body := map[string]any{"error": a.code, "message": a.text, "request_id": x.id}
		if a.status == http.StatusUnauthorized && x.site != nil {
			body["sign_in"] = x.site.public + x.site.prefix + "/sign_in"
		}
		writeJSON(x, a.status, body)
		return
	}
	data := page.Error{Status: a.status, Title: a.title, Text: a.text, RequestID: x.id}
	if x.site != nil {
		data.SignOut = x.site.prefix + "/sign_out"
		if a.again {
			data.SignIn = x.site.public + x.site.prefix + "/sign_in"
		}
	}
	if a.status == http.StatusForbidden && x.member != nil {
		v := x.member.view
		data.User, data.Email, data.Source = v.User.Name, v.User.Email, x.site.label(v.Login.Source)
		data.Groups = v.Groups
		if x.decision.route != nil {
			data.Wanted = x.decision.wants(v.Groups)
		}
	}
	x.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_ = page.WriteError(x, data) // the client may be gone
	}
}

// ownHeaders are on every answer of ours.
func ownHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", page.Policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Vary", "Accept, Sec-Fetch-Mode")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = 500, []byte(`{"error":"internal"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// navigates reports whether a person's browser asks for a page, so that a
// redirect or a page helps; a script is told by status and JSON.
func navigates(r *http.Request) bool { return navigatesAs(r, r.Method) }

func navigatesAs(r *http.Request, method string) bool {
	if method != http.MethodGet && method != http.MethodHead {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	if r.Header.Get("X-Requested-With") != "" || r.Header.Get("Upgrade") != "" && isWebSocket(r) {
		return false
	}
	for _, line := range r.Header["Accept"] {
		if strings.Contains(strings.ToLower(line), "text/html") {
			return true
		}
	}
	return false
}
