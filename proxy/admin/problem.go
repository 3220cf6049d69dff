package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// problem is an RFC 9457 document, and an error. Its type is a name to compare
// with, not an address.
type problem struct {
	Type     string      `json:"type"`
	Title    string      `json:"title"`
	Status   int         `json:"status"`
	Detail   string      `json:"detail,omitempty"`
	Instance string      `json:"instance"` // id of the request
	Errors   []Fault     `json:"errors,omitempty"`
	Faults   []LineFault `json:"faults,omitempty"` // of a CSV file

	header [2]string // one more header of the answer
}

// Fault is what is wrong with one key of a body.
type Fault struct {
	Key     string `json:"key"`
	Message string `json:"message"`
}

func (p *problem) Error() string { return p.Title }

func newProblem(status int, code, title, detail string) *problem {
	return &problem{Type: "urn:groupgate:problem:" + code, Title: title, Status: status, Detail: detail}
}

// with answers a copy that carries a header.
func (p *problem) with(name, value string) *problem {
	c := *p
	c.header = [2]string{name, value}
	return &c
}

// Refusals that need no words of their own.
var (
	errNoPage      = newProblem(404, "not-found", "Not found", "There is nothing at this address.")
	errHost        = newProblem(421, "misdirected", "Misdirected request", "The Host header is not a name of this listener.")
	errCrossOrigin = newProblem(403, "cross-origin", "Cross-origin request", "Another site's page sent this request.")
	errNoToken     = unauthorized("The API wants one Authorization header with a bearer token.", `Bearer realm="groupgate"`)
	errWrongToken  = unauthorized("The token is wrong.", `Bearer realm="groupgate", error="invalid_token"`)
	errTooLarge    = newProblem(413, "too-large", "Content too large", "The body is larger than this endpoint takes.")
	errNoMatch     = newProblem(412, "precondition-failed", "Precondition failed", "It was changed meanwhile, or is not there.")
	errUnavailable = newProblem(503, "unavailable", "Unavailable", "The store does not answer. Try again in a moment.").with("Retry-After", "5")
	errBusy        = newProblem(503, "unavailable", "Unavailable", "Other passwords are being checked. Try again in a moment.").with("Retry-After", "1")
	errNotThere    = newProblem(404, "not-found", "Not found", "What the address names does not exist.")
	errControlled  = newProblem(409, "controlled-by-sso", "Conflict", "The group is controlled by SSO: rules alone decide who is in it.")
	errConflict    = newProblem(409, "conflict", "Conflict", "The name or id is taken already, or it was changed meanwhile.")
	errLastWay     = newProblem(409, "last-way", "Conflict", "The group lets people into the console at this address (admin.groups), and you may not come in here any more. "+
		"If that is what you want, send it again with ?confirm=last-way. The admin listener's token is another way in.")
	errNoDirectory = newProblem(501, "no-directory", "There is no directory", "This groupgate keeps nobody: sessions are in people's browsers, and the rules of its file "+
		"alone say who is in which group (store.none). Sources and explain work; the log is the audit trail.")
	errInternal = newProblem(500, "internal", "Internal error", "This is a fault of groupgate. The log has more under this request's id.")
)

// unauthorized carries the challenge that RFC 6750, 3 asks for.
func unauthorized(detail, challenge string) *problem {
	return newProblem(401, "unauthorized", "Unauthorized", detail).with("WWW-Authenticate", challenge)
}

func tooMany(wait time.Duration) *problem {
	seconds := int64((wait + time.Second - 1) / time.Second)
	return newProblem(429, "too-many-attempts", "Too many attempts", "There were too many wrong tokens from this address.").
		with("Retry-After", strconv.FormatInt(seconds, 10))
}

func notAllowed(allow string) *problem {
	return newProblem(405, "method-not-allowed", "Method not allowed", "Allowed here: "+allow+".").with("Allow", allow)
}

func notFound(format string, args ...any) *problem {
	return newProblem(404, "not-found", "Not found", fmt.Sprintf(format, args...))
}

func conflict(format string, args ...any) *problem {
	return newProblem(409, "conflict", "Conflict", fmt.Sprintf(format, args...))
}

func badRequest(format string, args ...any) *problem {
	return newProblem(400, "bad-request", "Bad request", fmt.Sprintf(format, args...))
}

// invalid is a body that can be read and cannot be accepted.
func invalid(faults ...Fault) *problem {
	p := newProblem(422, "invalid", "Invalid content", "See errors.")
	p.Errors = faults
	return p
}

// problemFor is the only place that turns an error into a problem. What it
// does not know is 500 with fixed words: an error's own text is for the log.
func problemFor(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if faults := ruleFaults(err); faults != nil {
		return invalid(faults...)
	}
	if f, ok := errors.AsType[*groups.FieldError](err); ok {
		return invalid(Fault{f.Key, f.Err.Error()})
	}
	if f, ok := errors.AsType[*claims.PasswordRuleError](err); ok {
		return invalid(Fault{"password", f.Error()})
	}
	switch {
	case errors.Is(err, claims.ErrUnavailable):
		return errBusy
	case errors.Is(err, groups.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errUnavailable
	case errors.Is(err, groups.ErrNotFound):
		return errNotThere
	case errors.Is(err, groups.ErrNoDirectory):
		return errNoDirectory
	case errors.Is(err, groups.ErrControlled):
		return errControlled
	case errors.Is(err, groups.ErrConflict):
		return errConflict
	}
	return errInternal
}

// fail writes an error as a problem document.
func (s *Server) fail(x *exchange, err error) {
	p := *problemFor(err)
	p.Instance = x.id
	if p.Status >= 500 && x.r.Context().Err() == nil {
		s.log.Error("api request not served", zap.String("request_id", x.id), zap.Error(err))
	}
	if p.header[0] != "" {
		x.Header().Set(p.header[0], p.header[1])
	}
	// What a success would have said of itself does not hold for a refusal.
	x.Header().Del("ETag")
	x.Header().Del("Location")
	writeJSON(x, p.Status, "application/problem+json", p)
}

// ruleFaults takes apart what groups.Compile joined.
func ruleFaults(err error) []Fault {
	var out []Fault
	for _, e := range ruleErrors(err) {
		out = append(out, Fault{Key: e.Key, Message: e.Err.Error()})
	}
	return out
}

func ruleErrors(err error) []*groups.RuleError {
	switch e := err.(type) {
	case nil:
		return nil
	case *groups.RuleError:
		return []*groups.RuleError{e}
	case interface{ Unwrap() []error }:
		var out []*groups.RuleError
		for _, inner := range e.Unwrap() {
			out = append(out, ruleErrors(inner)...)
		}
		return out
	case interface{ Unwrap() error }:
		return ruleErrors(e.Unwrap())
	}
	return nil
}
