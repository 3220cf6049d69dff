package proxy

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/groups"
)

// Stats counts what the proxy did. Nothing in it ever goes down, and nothing
// in it depends on what a client says: what a request adds to is found by
// number, without a lock. Read it with Load.
type Stats struct {
	Requests [6]atomic.Int64 // by class of status: 1xx at 1 ... 5xx at 5
	Took     *groups.Histogram
	// Upstream is by the status that the upstream answered with. At 0 it gave
	// no answer that HTTP knows; at 499 the client left before it could.
	Upstream     [600]atomic.Int64
	UpstreamTook *groups.Histogram // until the answer's header
	LoginTook    *groups.Histogram // from the source's answer to ours
}

// tookBounds suit everything between a cached page and a slow report.
var tookBounds = []time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

func (s *Stats) setUp() {
	s.Took, s.UpstreamTook, s.LoginTook = groups.NewHistogram(tookBounds), groups.NewHistogram(tookBounds), groups.NewHistogram(tookBounds)
}

// LoginStats counts the logins at one source, by outcome.
type LoginStats struct {
	Source, Protocol                 string
	OK, Refused, Failed, Unavailable atomic.Int64
	Throttled                        atomic.Int64 // passwords that nobody looked at
}

func (c *LoginStats) add(err error) {
	switch a := answerFor(err); {
	case err == nil:
		c.OK.Add(1)
	case a.status == http.StatusForbidden:
		c.Refused.Add(1)
	case a.status == http.StatusServiceUnavailable:
		c.Unavailable.Add(1)
	case a.status == http.StatusTooManyRequests:
		c.Throttled.Add(1)
	default:
		c.Failed.Add(1)
	}
}

// loginStats outlive reloads, and the sources that a reload takes away: a
// counter that went and came back would count anew.
type loginStats struct {
	mu  sync.Mutex
	all []*LoginStats
}

func (l *loginStats) of(e SourceEntry) *LoginStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := e.Source.Name()
	for _, c := range l.all {
		if c.Source == name && c.Protocol == e.Protocol {
			return c
		}
	}
	c := &LoginStats{Source: name, Protocol: e.Protocol}
	l.all = append(l.all, c)
	return c
}

// Logins answers the counts of every source that was ever configured, by name.
func (p *Proxy) Logins() []*LoginStats {
	p.logins.mu.Lock()
	defer p.logins.mu.Unlock()
	return slices.SortedStableFunc(slices.Values(p.logins.all), func(a, b *LoginStats) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Protocol, b.Protocol))
	})
}

// answered counts the upstream's answer when its header is there: an event
// stream is an answer long before it ends.
func (x *exchange) answered(status int) {
	x.upstreamStatus = status
	if status < 100 || status >= len(x.p.Stats.Upstream) {
		status = 0
	}
	x.p.Stats.Upstream[status].Add(1)
	x.p.Stats.UpstreamTook.Observe(x.p.now().Sub(x.upstreamBegan))
}

// finish counts the request and writes its line.
func (p *Proxy) finish(x *exchange, r *http.Request) {
	took := p.now().Sub(x.began)
	if x.status == 0 && x.upstreamStatus == http.StatusSwitchingProtocols {
		x.status = x.upstreamStatus // written past us, on the bare connection
	}
	class := x.status / 100
	if class < 1 || class > 5 {
		class = 5
	}
	p.Stats.Requests[class].Add(1)
	p.Stats.Took.Observe(took)
	if !x.upstreamBegan.IsZero() && x.upstreamStatus == 0 {
		none := 0
		if x.status == statusClientGone {
			none = statusClientGone
		}
		p.Stats.Upstream[none].Add(1)
	}
	if x.span != nil {
		x.endTrace(r)
	}
	ce := p.access.Check(zapcore.InfoLevel, "request")
	if ce == nil {
		return
	}
	fields := make([]zapcore.Field, 0, 12)
	fields = append(fields,
		zap.String("request_id", x.id), zap.String("method", r.Method), zap.String("host", r.Host),
		zap.String("path", r.URL.Path), zap.Int("status", x.status), zap.Float64("ms", millis(took)))
	if x.span != nil {
		fields = append(fields, zap.Stringer("trace_id", x.span.SpanContext().TraceID()))
	}
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
