// Package admin is the second listener: the JSON API of those who run
// groupgate, the console, and what a platform asks (healthz, readyz, metrics).
//
// It serves a [groups.Directory] and knows nothing of the proxy. Every answer
// that is not a success is an RFC 9457 problem, made in one place (problem.go).
//
// # Design
//
// Requests do not meet a ServeMux. It would clean the path, and a group's name
// may hold "/" or be "..": paths are split as they were sent, segment by
// segment (route.go). A path that could be read in two ways is not found.
//
// The listener is meant for loopback or a cluster's inside, and a browser is
// what carries an attack there. A program shows its token in a header that a
// foreign page cannot set. The console has a cookie, which no other site's page
// makes the browser send (SameSite=Strict), and what other sites send is refused
// besides. The Host must be one that nobody can point at us by DNS (access.go).
package admin

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// Options of the admin listener. Directory and TokenHash are required.
type Options struct {
	Directory *groups.Directory
	// TokenHash answers the SHA-256 of the token that counts now.
	TokenHash func() [32]byte
	Log       *zap.Logger
	Metrics   http.Handler
	// Ready is nil when everything is there; else its text says what is
	// missing, one thing a line. Without it the directory's health decides.
	Ready func() error
	// Remarks are lines that /readyz adds when everything is there.
	Remarks func() []string

	Sources func() []SourceStatus
	// TestSource reaches a source and answers one line for people.
	TestSource func(ctx context.Context, name string) (string, error)
	// FindPerson looks a person up in a source. One that cannot be asked is
	// groups.ErrNotFound.
	FindPerson func(ctx context.Context, source, person string) (*claims.Found, error)
	Targets    func() []TargetStatus
	// RetryTarget makes a target's work due, parked or not, by the word of the
	// actor. An unknown target is groups.ErrNotFound.
	RetryTarget func(ctx context.Context, name, actor string) error

	// Sessions counts those that a request could still use.
	Sessions func(ctx context.Context) (int, error)

	// Headers renders the header lines an upstream would get, or says why it
	// would not be reached.
	Headers func(*groups.View) (lines [][2]string, problem string)
	// Person says who a statement's person is by the configured identity
	// claims, for explain. What it leaves empty is taken from the directory.
	Person func(*claims.Identity) groups.User

	// ConsoleGroups are the groups whose members the caller lets into the
	// console of the public host; nil: nobody's.
	ConsoleGroups func() []string

	Hosts []string // names this listener may be addressed by, beside the usual
	Now   func() time.Time
}

// SourceStatus is a configured source as the API shows it.
type SourceStatus struct {
	Name    string `json:"name"`
	Label   string `json:"label"`
	Kind    string `json:"kind"` // oidc, saml, ldap, local
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"`
	// CertificateExpires and MetadataExpires are when what the source is
	// trusted by runs out. Zero: it does not say, or nothing is known.
	CertificateExpires time.Time `json:"certificate_expires,omitzero"`
	MetadataExpires    time.Time `json:"metadata_expires,omitzero"`
	// MetadataAge is how many seconds ago that was last read; nil: never, or
	// there is nothing to read.
	MetadataAge *int64 `json:"metadata_age,omitempty"`
}

// TargetStatus is a configured target as the API shows it.
type TargetStatus struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Waiting int    `json:"waiting"` // pieces of work that are still to be done
	Parked  int    `json:"parked"`  // of these, the ones the target refused for good
	// Oldest is since when the oldest of it waits; zero when nothing does.
	Oldest  time.Time `json:"oldest,omitzero"`
	Problem string    `json:"problem,omitempty"`
}

// Server is the admin listener's handler. It is safe for concurrent use.
type Server struct {
	o      Options
	dir    *groups.Directory
	log    *zap.Logger
	routes []route
	pages  []consoleRoute
	csrf   *http.CrossOriginProtection
	wrong  attempts
	hosts  map[string]bool

	// A precondition (If-Match) is looked at and then acted on; between the
	// two nobody else may write through this API.
	groupWrites, ruleWrites, userWrites sync.Mutex

	sessionsMu      sync.Mutex
	consoleSessions map[[32]byte]*consoleSession
}

// New makes the handler of the admin listener.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = o.Directory.Now
	}
	if o.Ready == nil {
		o.Ready = o.Directory.Healthy
	}
	s := &Server{
		o: o, dir: o.Directory, log: o.Log, csrf: http.NewCrossOriginProtection(),
		wrong: attempts{now: o.Now, seen: map[string]*attempt{}}, hosts: map[string]bool{},
		consoleSessions: map[[32]byte]*consoleSession{},
	}
	for _, h := range o.Hosts {
		s.hosts[strings.ToLower(h)] = true
	}
	s.routes, s.pages = s.table(), s.consoleTable()
	return s
}

// exchange is one request on its way through.
type exchange struct {
	*recorder
	r    *http.Request
	id   string
	from visitor
	rt   *route
	args []string // of the path, decoded, in its order
}

// recorder remembers the status for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP answers one request of the admin listener.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, r.URL.EscapedPath(), visitor{actor: s.signedIn(r)})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, path string, from visitor) {
	x := &exchange{recorder: &recorder{ResponseWriter: w}, r: r, id: strings.ToLower(rand.Text()[:16]), from: from}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")

	if path == "/api/v1" || strings.HasPrefix(path, apiPrefix) {
		began := s.o.Now()
		h.Set("X-Request-Id", x.id)
		if err := s.serveAPI(x, path); err != nil {
			s.fail(x, err)
		}
		s.access(x, began)
		return
	}
	if x.from.public {
		s.serveConsole(x, path)
		return
	}
	switch open, err := s.serveOpen(x, path); {
	case err != nil:
		s.fail(x, err)
	case !open:
		s.serveConsole(x, path)
	}
}

// serveOpen answers what needs no token, if this is it. None of it says
// anything about a person.
func (s *Server) serveOpen(x *exchange, path string) (open bool, err error) {
	var serve func(*exchange)
	switch path {
	case "/healthz":
		serve = alive
	case "/readyz":
		serve = s.ready
	case "/metrics":
		if s.o.Metrics != nil {
			serve = func(x *exchange) { s.o.Metrics.ServeHTTP(x, x.r) }
		}
	}
	if serve == nil {
		return false, nil
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return true, notAllowed("GET, HEAD")
	}
	serve(x)
	return true, nil
}

// alive is liveness: it looks at nothing, because restarting helps neither a
// store nor a source that is down.
func alive(x *exchange) { text(x, http.StatusOK, "ok") }

func (s *Server) ready(x *exchange) {
	if err := s.o.Ready(); err != nil {
		text(x, http.StatusServiceUnavailable, strings.TrimSuffix(err.Error(), "\n")+"\n")
		return
	}
	body := "ok"
	if s.o.Remarks != nil {
		body = strings.Join(append([]string{body}, s.o.Remarks()...), "\n")
	}
	text(x, http.StatusOK, body)
}

func text(x *exchange, status int, body string) {
	x.Header().Set("Content-Type", "text/plain; charset=utf-8")
	x.WriteHeader(status)
	_, _ = io.WriteString(x, body) // the client may be gone
}

// serveAPI is the walk of an API request: from where, by whom, to what.
func (s *Server) serveAPI(x *exchange, path string) error {
	if !x.from.public && !s.hostAllowed(x.r.Host) {
		return errHost
	}
	if s.crossOrigin(x) {
		return errCrossOrigin
	}
	if err := s.authorize(x); err != nil {
		return err
	}
	if err := s.find(x, path); err != nil {
		return err
	}
	if !s.dir.Stored() && !needsNoDirectory[x.rt.pattern] {
		return errNoDirectory
	}
	return x.rt.serve(x)
}

// access writes one line a request. The path stays out of it: the audit trail
// says what was done to whom, in order and unsampled.
func (s *Server) access(x *exchange, began time.Time) {
	pattern := ""
	if x.rt != nil {
		pattern = x.rt.pattern
	}
	s.log.Info("api request", zap.String("request_id", x.id), zap.String("method", x.r.Method),
		zap.String("endpoint", pattern), zap.Int("status", x.status),
		zap.Float64("ms", float64(s.o.Now().Sub(began).Microseconds())/1000), zap.String("client", clientOf(x.r)))
}
