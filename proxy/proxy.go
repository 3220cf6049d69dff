package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/groups"
)

// Options of a Proxy. Directory is required.
type Options struct {
	Directory *groups.Directory
	Log       *zap.Logger
	Access    *zap.Logger // one line a request
	Now       func() time.Time
}

// Proxy is the public listener's handler. It is safe for concurrent use.
type Proxy struct {
	dir    *groups.Directory
	log    *zap.Logger
	access *zap.Logger
	now    func() time.Time

	site      atomic.Pointer[site]
	sessions  *sessions
	upstreams *upstreams
	used      usedFlows
	live      live
	buffers   *bufferPool
	exchanges sync.Pool

	idPrefix string
	idNext   atomic.Uint64

	Stats Stats
}

// Stats counts what the proxy did. Read it with Load.
type Stats struct {
	Requests [6]atomic.Int64 // by class of status: 1xx at 1 ... 5xx at 5
	Took     [len(TookBounds) + 1]atomic.Int64
	TookSum  atomic.Int64 // nanoseconds
	Logins   LoginCounts
}

// TookBounds are the upper bounds of Stats.Took, in seconds.
var TookBounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New makes a proxy that serves nothing until Configure was called.
func New(o Options) *Proxy {
	p := &Proxy{
		dir: o.Directory, log: o.Log, access: o.Access, now: o.Now,
		upstreams: newUpstreams(), buffers: newBufferPool(), live: live{conns: map[*liveConn]struct{}{}},
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if p.access == nil {
		p.access = zap.NewNop()
	}
	if p.now == nil {
		p.now = time.Now
	}
	var b [5]byte
	rand.Read(b[:])
	p.idPrefix = strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-"
	p.sessions = newSessions(p.dir, p.now)
	errorLog := zap.NewStdLog(zap.New(debugCore{p.log.Core()}))
	p.exchanges.New = func() any {
		x := &exchange{p: p}
		x.proxy = httputil.ReverseProxy{
			Rewrite: x.rewrite, ModifyResponse: x.answer, ErrorHandler: x.failed,
			BufferPool: p.buffers, ErrorLog: errorLog,
		}
		return x
	}
	return p
}

// debugCore turns what the standard library logs about broken connections
// into debug lines: they are a client's doing, and each has its access line.
type debugCore struct{ zapcore.Core }

func (c debugCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	e.Level = zapcore.DebugLevel
	return c.Core.Check(e, ce)
}

// Configure swaps the settings. On error the old ones stay.
func (p *Proxy) Configure(set Settings) error {
	swap, err := p.Prepare(set)
	if err == nil {
		swap()
	}
	return err
}

// Prepare makes settings ready and changes nothing. What it answers swaps them
// in and cannot fail, so that they can be one step of a larger change.
func (p *Proxy) Prepare(set Settings) (swap func(), err error) {
	s, err := compileSite(set, p.upstreams)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return func() {
		p.site.Store(s)
		p.sessions.clear() // header lines were rendered by the old settings
	}, nil
}

// Run does the work that is not a request's: it closes sockets whose session
// ended, notes when sessions were used, and sweeps what expired. It returns
// when the context ends, with everything noted.
func (p *Proxy) Run(ctx context.Context) {
	recheck, tidy := time.NewTicker(recheckEvery), time.NewTicker(30*time.Second)
	sweep := time.NewTicker(10 * time.Minute)
	defer recheck.Stop()
	defer tidy.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			p.sessions.tidy(0)
			p.upstreams.closeIdle()
			return
		case <-recheck.C:
			p.recheck(ctx)
		case <-tidy.C:
			p.sessions.tidy(10 * time.Minute)
			p.used.sweep(p.now())
		case <-sweep.C:
			if err := p.dir.Sweep(ctx); err != nil {
				p.log.Warn("expired sessions not swept", zap.Error(err))
			}
		}
	}
}

// Sessions is how many sessions are in memory, Dials how often an upstream
// was dialed, Live how many sockets and streams are open.
func (p *Proxy) Sessions() int64 { return p.sessions.count.Load() }

// Dials counts connections made to upstreams.
func (p *Proxy) Dials() int64 { return p.upstreams.dials.Load() }

// Live counts open sockets and event streams.
func (p *Proxy) Live() int {
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	return len(p.live.conns)
}

// exchange is one request and its answer. It is the ResponseWriter that the
// steps write to, and it is reused.
type exchange struct {
	http.ResponseWriter
	p     *Proxy
	site  *site
	proxy httputil.ReverseProxy

	peer      peer
	host      *host
	decision  decision
	member    *member
	assertion []string

	began, upstreamBegan time.Time
	upstreamTook         time.Duration
	id                   string
	status               int
	bytes                int64
	err                  error
}

// Unwrap lets http.ResponseController reach flushing and hijacking.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		x.status = status
	}
	if status < 200 && x.site != nil {
		x.cleanAnswer(x.Header()) // early hints do not pass by ModifyResponse
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += int64(n)
	return n, err
}

// ServeHTTP serves one request of the public listener.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.exchanges.Get().(*exchange)
	x.ResponseWriter, x.site, x.began = w, p.site.Load(), p.now()
	x.id = p.idPrefix + strconv.FormatUint(p.idNext.Add(1), 36)
	defer func() {
		// ReverseProxy panics to abort an answer it has begun.
		fault := recover()
		p.finish(x, r)
		x.reset()
		p.exchanges.Put(x)
		if fault != nil {
			panic(fault)
		}
	}()
	p.walk(x, r)
}

func (x *exchange) reset() {
	x.ResponseWriter, x.site, x.host, x.decision, x.member, x.assertion = nil, nil, nil, decision{}, nil, nil
	x.peer, x.upstreamTook, x.id, x.status, x.bytes, x.err = peer{}, 0, "", 0, 0, nil
	x.proxy.Transport = nil
}

// walk is the five steps.
func (p *Proxy) walk(x *exchange, r *http.Request) {
	s := x.site
	if s == nil {
		p.fail(x, r, errStarting)
		return
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		p.fail(x, r, errMethod)
		return
	}
	x.peer = s.peer(r)
	path, others, err := readings(r.URL)
	if err != nil {
		p.fail(x, r, err)
		return
	}
	// 1: own page?
	if endpoint, own := s.own(path); own {
		p.serveOwn(x, r, endpoint)
		return
	}
	for _, other := range others {
		if _, own := s.own(other); own {
			p.fail(x, r, errNotFound) // an own page in disguise is nobody's
			return
		}
	}
	// 2: route
	if x.host = s.requestHost(r, x.peer); x.host == nil {
		p.fail(x, r, errHost)
		return
	}
	if x.decision, err = x.host.decide(path, others); err != nil {
		p.fail(x, r, err)
		return
	}
	// 3: who
	if x.member, err = p.find(s, r, x.host.session()); err != nil {
		p.fail(x, r, err)
		return
	}
	// 4: may they
	if err := x.admit(); err != nil {
		p.fail(x, r, err)
		return
	}
	// 5: forward
	p.forward(x, r)
}

// session is the name under which the host's sessions are kept.
func (h *host) session() string {
	if h.portal {
		return h.name
	}
	return ""
}

// requestHost is the host a request was made to, as far as anybody we believe
// says so.
func (s *site) requestHost(r *http.Request, from peer) *host {
	if said := from.forwarded(r, "X-Forwarded-Host"); said != "" {
		return s.host(said)
	}
	return s.host(r.Host)
}

// admit is step 4, and makes sure that what the upstream has to be told can be
// told.
func (x *exchange) admit() error {
	switch {
	case x.member == nil && x.decision.isPublic():
		return nil
	case x.member == nil:
		return errUnauthenticated
	case !x.decision.admits(x.member.view.Groups):
		return errNoGroup
	case x.member.head.err != nil:
		return x.member.head.err
	}
	if x.site.headers.cfg.Assertion == "" {
		return nil
	}
	var err error
	x.assertion, err = x.site.assertion(x.member, x.decision.origin, x.p.now())
	return err
}

// finish writes the request's line and counts it.
func (p *Proxy) finish(x *exchange, r *http.Request) {
	took := p.now().Sub(x.began)
	class := x.status / 100
	if class < 1 || class > 5 {
		class = 5
	}
	p.Stats.Requests[class].Add(1)
	i := 0
	for i < len(TookBounds) && took.Seconds() > TookBounds[i] {
		i++
	}
	p.Stats.Took[i].Add(1)
	p.Stats.TookSum.Add(int64(took))
	ce := p.access.Check(zapcore.InfoLevel, "request")
	if ce == nil {
		return
	}
	fields := make([]zapcore.Field, 0, 12)
	fields = append(fields,
		zap.String("request_id", x.id), zap.String("method", r.Method), zap.String("host", r.Host),
		zap.String("path", r.URL.Path), zap.Int("status", x.status), zap.Float64("ms", millis(took)))
	if x.upstreamTook > 0 {
		fields = append(fields, zap.Float64("upstream_ms", millis(x.upstreamTook)))
	}
	if x.member != nil {
		v := x.member.view
		fields = append(fields, zap.String("user", v.User.Name), zap.String("source", v.Login.Source), zap.Int("groups", len(v.Groups)))
	}
	if x.err != nil {
		fields = append(fields, zap.NamedError("err", x.err))
	}
	ce.Write(fields...)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
