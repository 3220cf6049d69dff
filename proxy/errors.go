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
	errConnection      = errors.New("the connection was made for another host of ours")
	errMethod          = errors.New("method not allowed")
	errQuery           = errors.New("the query is malformed, or says something twice")
	errSource          = errors.New("no such source")
	errForm            = errors.New("not a form that counts")
	errMedia           = errors.New("not a form at all")
	errBody            = errors.New("the body is too large")
	errLogout          = errors.New("not a logout request that counts")
	errOrigin          = errors.New("the socket was opened by another site's page")
	errUpstreamDown    = errors.New("the upstream cannot be reached")
	errUpstreamSlow    = errors.New("the upstream did not answer in time")
	errStarting        = errors.New("not configured yet")
	errRouteUnknown    = errors.New("routes ask for groups and the route is unknown: the peer is not in trusted_proxies, or sent no X-Forwarded-Uri")
)

// answer is what a client may know about an error. What a person is told about
// its code stands in page/text, in every language.
type answer struct {
	status int
	code   string // for scripts
	again  bool   // offer to start the login again
	reload bool   // offer to ask for a page of the upstream again
	retry  int    // seconds, for Retry-After
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
	{errUnauthenticated, answer{status: 401, code: "unauthenticated", again: true}},
	{errNoGroup, answer{status: 403, code: "forbidden", level: quiet}},
	{errRouteUnknown, answer{status: 403, code: "route_unknown", level: alarm}},
	{errOrigin, answer{status: 403, code: "cross_origin", level: info}},
	{errNotFound, answer{status: 404, code: "not_found"}},
	{errHost, answer{status: 421, code: "misdirected", level: info}},
	{errConnection, answer{status: 421, code: "misdirected"}},
	{errMethod, answer{status: 405, code: "method_not_allowed"}},
	{errPath, answer{status: 400, code: "bad_path"}},
	{errQuery, answer{status: 400, code: "bad_request", level: info}},
	{errSource, answer{status: 404, code: "unknown_source", again: true}},
	{errBody, answer{status: 413, code: "too_large", level: info}},
	{errLogout, answer{status: 400, code: "invalid_request", level: info}}, // the word of RFC 6749 section 5.2
	{errForm, answer{status: 400, code: "bad_request", level: info}},
	{errMedia, answer{status: 415, code: "unsupported_media_type", level: info}},
	{errNoFlow, answer{status: 400, code: "no_login", again: true, level: info}},
	{groups.ErrReplayed, answer{status: 400, code: "replayed", again: true, level: info}},
	{groups.ErrNameTaken, answer{status: 403, code: "name_taken", level: info}},
	{groups.ErrClaimMissing, answer{status: 403, code: "claim_missing", level: info}},
	{errOldPassword, answer{status: 401, code: "wrong_old_password", level: info}},
	{errDiffer, answer{status: 400, code: "passwords_differ"}},
	{errShort, answer{status: 400, code: "password_short"}},
	{errLong, answer{status: 400, code: "password_long"}},
	{errCharacters, answer{status: 400, code: "password_characters"}},
	{errUserName, answer{status: 400, code: "password_user_name"}},
	{claims.ErrBadPassword, answer{status: 401, code: "wrong_password", level: info}},
	{errThrottled, answer{status: 429, code: "too_many_attempts", level: info}},
	{claims.ErrDenied, answer{status: 403, code: "denied", again: true, level: info}},
	{claims.ErrProtocol, answer{status: 400, code: "bad_answer", again: true, level: info}},
	{claims.ErrUnavailable, answer{status: 503, code: "source_unavailable", again: true, retry: 10, level: alarm}},
	{groups.ErrUnavailable, answer{status: 503, code: "store_unavailable", reload: true, retry: 5, level: alarm}},
	{errStarting, answer{status: 503, code: "starting", reload: true, retry: 1}},
	{errOverflow, answer{status: 502, code: "groups_overflow", level: alarm}},
	{errUpstreamSlow, answer{status: 504, code: "upstream_timeout", reload: true, level: alarm}},
	{errUpstreamDown, answer{status: 502, code: "upstream_unreachable", reload: true, level: alarm}},
}

var unknown = answer{status: 500, code: "internal", reload: true, level: alarm}

func answerFor(err error) answer {
	for _, a := range answers {
		if errors.Is(err, a.err) {
			var throttled *throttledError
			if errors.As(err, &throttled) {
				a.retry = throttled.seconds()
			}
			return a.answer
		}
	}
	return unknown
}

// fail answers an error: with a page for people, with JSON for scripts. The
// client gets fixed words and the request's id, never the error's text.
func (p *Proxy) fail(x *exchange, r *http.Request, err error) {
	a := p.fault(x, err)
	navigation := !x.basic && (navigates(r) || x.posted && navigatesAs(r, http.MethodGet))
	if a.status == http.StatusUnauthorized && navigation {
		p.toLogin(x, r)
		return
	}
	p.writeAnswer(x, r, a, navigation)
}

// fault writes an error down, in the log and in the audit trail, and says how
// to answer it.
func (p *Proxy) fault(x *exchange, err error) answer {
	a := answerFor(err)
	x.err = err
	fields := []zap.Field{zap.String("request_id", x.id), zap.String("code", a.code), zap.Error(err)}
	switch a.level {
	case info:
		p.log.Info("refused", fields...)
	case alarm:
		p.log.Error("not served", fields...)
	}
	p.noteFault(x, a, err)
	return a
}

// noteMessage writes down why a source's message was refused, with a reason of
// its own, which the code alone does not tell. Anybody can send such a request,
// so it must not wait for the store.
func (p *Proxy) noteMessage(x *exchange, why string) {
	p.dir.NoteSoon(groups.Event{Kind: groups.EventRefused, Source: x.source, Request: x.id, Reason: why})
	x.noted = true
}

// noteFault makes the id that the client is shown one that the audit trail
// knows. That somebody has not signed in yet, or that we are not configured
// yet, is no refusal.
func (p *Proxy) noteFault(x *exchange, a answer, err error) {
	if x.noted || a.status == http.StatusUnauthorized || a.code == "starting" {
		return
	}
	x.noted = true
	e := groups.Event{Kind: groups.EventRefused, Source: x.source, Request: x.id, Reason: a.code}
	if a.status >= http.StatusInternalServerError {
		e.Kind = groups.EventNotServed
	}
	if a.code == "groups_overflow" {
		e.Kind, e.Reason = groups.EventOverflow, err.Error() // it says how many bytes there are
	}
	if x.member != nil {
		v := x.member.view
		e.User, e.Name, e.Source = v.User.ID, v.User.Name, v.Login.Source
	}
	p.dir.NoteSoon(e)
}

func (p *Proxy) writeAnswer(x *exchange, r *http.Request, a answer, asPage bool) {
	ownHeaders(x.Header())
	x.setRetry(a)
	if a.status == http.StatusUnauthorized {
		x.challenge(r)
	}
	if a.status == http.StatusMethodNotAllowed && x.Header().Get("Allow") == "" {
		x.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	if !asPage {
		body := map[string]any{"error": a.code, "message": page.Message(a.code), "request_id": x.id}
		if a.code == "invalid_request" {
			// What OAuth calls it, for the provider's log (OpenID Connect
			// Back-Channel Logout 1.0 section 2.8).
			body["error_description"] = body["message"]
		}
		if a.code == "forbidden" && x.console {
			body["groups"] = x.site.set.ConsoleGroups // one of them is needed
		}
		if a.status == http.StatusUnauthorized && x.site != nil {
			body["sign_in"] = x.site.public + x.site.prefix + "/sign_in"
		}
		writeJSON(x, a.status, body)
		return
	}
	data := page.Error{Code: a.code, Status: a.status, RequestID: x.id}
	data.Reload = a.reload && (x.site == nil || x.decision.route != nil)
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
	p.writePage(x, r, a.status, data)
}

func (x *exchange) setRetry(a answer) {
	if a.retry > 0 {
		x.Header().Set("Retry-After", strconv.Itoa(a.retry))
	}
}

// writePage writes a page in the language that the browser asks for.
func (p *Proxy) writePage(x *exchange, r *http.Request, status int, d page.Data) {
	l := page.In(r.Header.Get("Accept-Language"))
	body, err := l.Render(d)
	if err != nil {
		p.log.Error("page not written", zap.String("request_id", x.id), zap.Error(err))
	}
	ownHeaders(x.Header())
	switch d := d.(type) {
	case page.Continue:
		x.Header().Set("Content-Security-Policy", d.Policy())
		x.Header().Del("X-Frame-Options") // it knows no origins
	case page.Login:
		x.Header().Set("Content-Security-Policy", d.Policy())
	}
	x.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.Header().Set("Content-Language", l.Tag)
	x.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = x.Write(body) // the client may be gone
	}
}

// ownHeaders are on every answer of ours.
func ownHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", page.Policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Vary", "Accept, Accept-Language, Sec-Fetch-Mode")
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
