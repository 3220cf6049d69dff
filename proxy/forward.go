package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// forward is step 5 and the only way to an upstream. What is stripped and set
// happens in rewrite, after ReverseProxy has taken the headers away that the
// client named in Connection: ours cannot be among them.
func (p *Proxy) forward(x *exchange, r *http.Request) {
	up := x.decision.upstream
	if upgrade := r.Header["Upgrade"]; upgrade != nil {
		if !isWebSocket(r) {
			// A tunnel of another protocol would be a second way to the
			// upstream. A server may ignore an offer to upgrade (RFC 9110 7.8).
			delete(r.Header, "Upgrade")
			delete(r.Header, "Http2-Settings")
		} else {
			if !x.sameOrigin(r) {
				p.fail(x, r, errOrigin)
				return
			}
			var done func()
			r, done = p.handshake(x, r)
			defer done()
		}
	}
	if len(r.Trailer) > 0 {
		r.Body = &trailerBody{ReadCloser: r.Body}
	}
	x.upstreamBegan = p.now()
	x.proxy.Transport = up.transport
	x.proxy.ServeHTTP(x, r)
	x.upstreamTook = p.now().Sub(x.upstreamBegan)
}

// rewrite makes the outgoing request. In is only read.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	s, in, out := x.site, pr.In, pr.Out
	out.URL.Scheme, out.URL.Host = x.decision.upstream.scheme, x.decision.upstream.host
	// The query goes as it came: ReverseProxy would drop parts that Go cannot
	// parse and the application can.
	out.URL.RawQuery, out.URL.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery
	h := out.Header
	s.headers.stripRequest(h, x.peer.trusted)
	if x.decision.keepsAuthorization() {
		delete(h, "Authorization")
	}
	if lines := h["Cookie"]; lines != nil {
		if keep := s.stripCookies(lines); len(keep) > 0 {
			h["Cookie"] = keep
		} else {
			delete(h, "Cookie")
		}
	}
	x.setForwarded(in, h)
	if x.member != nil {
		x.member.head.set(h)
		if x.assertion != nil {
			h[s.headers.cfg.Assertion] = x.assertion[:1:1]
		}
	}
	x.trailers(in, out)
	x.traceUpstream(in, h)
}

var schemeLines = map[string][]string{"http": {"http"}, "https": {"https"}}

// setForwarded says how the request came to us. From a peer that is not
// trusted its own words about that do not count.
func (x *exchange) setForwarded(in *http.Request, h http.Header) {
	lines := make([]string, 2)
	if x.peer.addr.IsValid() {
		lines[0] = x.peer.addr.String()
		if before := in.Header["X-Forwarded-For"]; x.peer.trusted && len(before) > 0 {
			lines[0] = strings.Join(before, ", ") + ", " + lines[0]
		}
		h["X-Forwarded-For"] = lines[0:1:1]
	}
	lines[1] = in.Host
	if said := x.peer.forwarded(in, "X-Forwarded-Host"); said != "" {
		lines[1] = said
	}
	h["X-Forwarded-Host"] = lines[1:2:2]
	proto := x.site.scheme
	if in.TLS != nil {
		proto = "https"
	} else if said := x.peer.forwarded(in, "X-Forwarded-Proto"); said == "http" || said == "https" {
		proto = said
	}
	h["X-Forwarded-Proto"] = schemeLines[proto]
}

// trailers lets a request's trailers through, but for names that are ours and
// what would be stripped from the header.
func (x *exchange) trailers(in, out *http.Request) {
	if len(out.Trailer) == 0 {
		return
	}
	for name := range out.Trailer {
		folded := foldName(name)
		if _, from := forwarding[folded]; from || folded == "cookie" || x.site.headers.owns(name) ||
			folded == "authorization" && x.decision.keepsAuthorization() {
			delete(out.Trailer, name)
		}
	}
	if body, ok := in.Body.(*trailerBody); ok {
		body.from, body.to = in, out.Trailer
	}
}

// trailerBody copies trailers once the body has ended: only then does the
// server know them, and the transport writes them after that.
type trailerBody struct {
	io.ReadCloser
	from *http.Request
	to   http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && b.from != nil {
		for name := range b.to {
			b.to[name] = b.from.Trailer[name]
		}
	}
	return n, err
}

// answer sees the upstream's answer before the client does.
func (x *exchange) answer(res *http.Response) error {
	x.answered(res.StatusCode)
	x.cleanAnswer(res.Header)
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.tunnel(res)
	}
	if res.StatusCode != http.StatusNotModified { // which changes what a cache holds already
		x.carry(res.Header)
	}
	x.follow(res)
	return nil
}

// cleanAnswer takes out of an upstream's header what is ours alone to say.
func (x *exchange) cleanAnswer(h http.Header) {
	if h["Set-Cookie"] != nil {
		stripSetCookie(h)
	}
	if name := x.site.headers.cfg.Assertion; name != "" {
		delete(h, name)
	}
}

// failed turns a fault on the way to the upstream into an answer.
func (x *exchange) failed(_ http.ResponseWriter, r *http.Request, err error) {
	var timeout net.Error
	ended := whyEnded(r.Context())
	switch {
	case ended != nil:
		x.p.fail(x, r, ended)
	case r.Context().Err() != nil:
		x.err = err
		x.WriteHeader(statusClientGone) // without it net/http would say 200
	case errors.As(err, &timeout) && timeout.Timeout():
		x.p.fail(x, r, errors.Join(errUpstreamSlow, err))
	default:
		x.p.fail(x, r, errors.Join(errUpstreamDown, err))
	}
}

// statusClientGone is what the log says when the client went away first.
const statusClientGone = 499

// bufferPool serves the copies of all bodies: without it each request would
// allocate 32 KiB.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}}
}

func (b *bufferPool) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }
