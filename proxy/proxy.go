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
	Access    *zap.Logger      // one line a request
	Now       func() time.Time // nil: the directory's
}

// Proxy is the public listener's handler. It is safe for concurrent use.
type Proxy struct {
	dir    *groups.Directory
	log    *zap.Logger
	access *zap.Logger
	now    func() time.Time

	site      atomic.Pointer[site]
	sessions  *sessions
	keeper    keeper
	upstreams *upstreams
	used      usedFlows
	throttle  throttle
	counting  chan struct{} // whoever puts the one element in may count an attempt with the store
	logins    loginStats
	basic     basics
	live      live
	buffers   *bufferPool
	exchanges sync.Pool

	idPrefix string
	idNext   atomic.Uint64

	Stats Stats
}

// New makes a proxy that serves nothing until Configure was called.
func New(o Options) *Proxy {
	p := &Proxy{
		dir: o.Directory, log: o.Log, access: o.Access, now: o.Now,
		upstreams: newUpstreams(), buffers: newBufferPool(), live: live{conns: map[*liveConn]struct{}{}},
		counting: make(chan struct{}, 1),
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if p.access == nil {
		p.access = zap.NewNop()
	}
	if p.now == nil {
		p.now = p.dir.Now
	}
	var b [5]byte
	rand.Read(b[:])
	p.idPrefix = strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-"
	p.Stats.setUp()
	p.basic.setUp()
	p.sessions = newSessions(p.dir, p.now)
	p.keeper = stored{p}
	if !p.dir.Stored() {
		p.keeper = &sealed{Proxy: p, lines: map[string]*lineage{}}
	}
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
		for _, e := range set.Sources {
			s.logins[e.Source.Name()] = p.logins.of(e)
		}
		p.site.Store(s)
		p.keeper.clear() // header lines were rendered by the old settings
	}, nil
}

// Run does the work that is not a request's: it closes sockets whose session
// ended, notes when sessions were used, and sweeps what expired. It returns
// when the context ends, with everything noted.
func (p *Proxy) Run(ctx context.Context) {
	recheck, tidy := time.NewTicker(recheckEvery), time.NewTicker(30*time.Second)
	sweep, looked := time.NewTicker(10*time.Minute), time.Time{}
	defer recheck.Stop()
	defer tidy.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			p.sessions.tidy(0)
			p.upstreams.closeIdle()
			return
		case <-p.sessions.noticed:
			if wait := recheckPause - time.Since(looked); wait > 0 {
				recheck.Reset(wait)
				continue
			}
			p.recheck(ctx)
			looked = time.Now()
		case <-recheck.C:
			recheck.Reset(recheckEvery)
			p.recheck(ctx)
			looked = time.Now()
		case <-tidy.C:
			p.keeper.tidy()
			p.used.sweep(p.now())
			p.throttle.sweep(p.now())
			p.basic.sweep(p.now(), p.site.Load())
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
	live      *liveConn // of a socket

	began, upstreamBegan time.Time
	upstreamTook         time.Duration
	upstreamStatus       int // 0: it has not answered
	id                   string
	status               int
	bytes                int64
	err                  error
	source               string        // of the login under way, for the audit trail
	noted                bool          // the audit trail knows of this request's fault
	posted               bool          // by a form in a browser, ours or another site's
	last                 bool          // of its connection, see lastRequest
	limited              bool          // see limitBody
	console              bool          // it is the console that was asked for
	within               time.Duration // what limits are, when not ownLimit
	basic                bool          // it brought a password, which decides alone
	traced
}

// Unwrap lets http.ResponseController reach flushing and hijacking.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		x.status = status
		if x.proxy.Transport == nil || x.err != nil {
			x.limitAnswer()
		}
		if x.last {
			x.Header().Set("Connection", "close")
		}
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
	x.last = lastRequest(r)
	x.id = p.idPrefix + strconv.FormatUint(p.idNext.Add(1), 36)
	defer func() {
		// ReverseProxy panics to abort an answer it has begun.
		fault := recover()
		x.broke = fault != nil
		if r.ProtoMajor == 1 {
			x.limitBody(r)
		}
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
	x.proxy.Transport, x.live = nil, nil
	x.source, x.noted, x.posted = "", false, false
	x.upstreamBegan, x.upstreamStatus, x.traced = time.Time{}, 0, traced{}
	x.limited, x.basic, x.console, x.within = false, false, false, 0
}

// walk is the five steps.
func (p *Proxy) walk(x *exchange, r *http.Request) {
	s := x.site
	if s == nil {
		p.fail(x, r, errStarting)
		return
	}
	x.peer = s.peer(r)
	r = x.beginTrace(r)
	if s.misdirected(r, x.peer) {
		p.fail(x, r, errConnection)
		return
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		p.fail(x, r, errMethod)
		return
	}
	if r.ProtoMajor == 2 && !clearHTTP2(r) {
		p.fail(x, r, errQuery)
		return
	}
	if s.namesConsole(r.URL) {
		x.own, x.endpoint = true, consoleEndpoint
		p.serveOwn(x, r, consoleEndpoint)
		return
	}
	if s.asksAsEnvoy(r) {
		x.own, x.endpoint = true, envoyEndpoint
		p.serveOwn(x, r, envoyEndpoint)
		return
	}
	path, others, err := readings(r.URL)
	if err != nil {
		p.fail(x, r, err)
		return
	}
	// 1: own page?
	if endpoint, own := s.own(path); own {
		x.own, x.endpoint = true, endpoint
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
	if x.member, err = p.who(x, r, x.host.session()); err != nil {
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
