package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"
)

// forwardAuth answers another proxy's question whether a request may pass:
// steps 2 to 4 of the walk, with the identity headers on the answer. yes is
// the status that lets it pass.
func (p *Proxy) forwardAuth(x *exchange, r *http.Request, toLogin bool, yes int) {
	err := p.askedFor(x, r)
	switch {
	case err == nil:
		p.pass(x, yes)
	case err == errUnauthenticated && toLogin && p.asksForPage(x, r):
		redirect(x, http.StatusFound, p.loginAddress(x, r, askedPath(x, r)))
	default:
		// nginx and Envoy take a status for an answer, not a page.
		p.writeAnswer(x, r, p.fault(x, err), toLogin && !x.basic && p.asksForPage(x, r))
	}
}

// envoyEndpoint is where Envoy's HTTP ext_authz asks: below it, at the address
// that it was asked for itself.
const envoyEndpoint = "/auth/envoy"

// asksAsEnvoy tells such a question by its first bytes. What follows them is
// read as the address asked for, never as a path of ours: "..", cleaned, would
// lead to the upstream, whose 200 Envoy would take for ours.
func (s *site) asksAsEnvoy(r *http.Request) bool {
	return strings.HasPrefix(r.RequestURI, s.prefix+envoyEndpoint+"/")
}

// envoyAuth is forwardAuth for Envoy, which takes 200 alone for a yes and hands
// every other answer on. It says all in the request line and in Host; so its
// query is the application's, and narrows nothing.
func (p *Proxy) envoyAuth(x *exchange, r *http.Request) {
	asked, ok := strings.CutPrefix(r.RequestURI, x.site.prefix+envoyEndpoint)
	if !ok || asked == "" || asked[0] != '/' {
		p.fail(x, r, errNotFound)
		return
	}
	r.Header["X-Forwarded-Uri"] = []string{asked}
	delete(r.Header, "X-Forwarded-Method")
	delete(r.Header, "X-Forwarded-Host")
	r.URL.RawQuery = ""
	p.forwardAuth(x, r, true, http.StatusOK)
}

// pass answers with every header we own: an empty one where there is no
// value, so that a client's own copy is overwritten by whoever copies ours.
func (p *Proxy) pass(x *exchange, yes int) {
	h := x.Header()
	h.Set("Cache-Control", "no-store")
	x.carry(h)
	if x.member == nil {
		x.site.headers.setAll(h, nil)
	} else {
		x.site.headers.setAll(h, x.member.head)
		if x.assertion != nil {
			h[x.site.headers.cfg.Assertion] = x.assertion
		}
	}
	x.WriteHeader(yes)
}

// askedFor decides about the request that a front proxy describes. Its own
// words count only from a trusted peer; a route that cannot be known is never
// passed when some route asks for groups.
func (p *Proxy) askedFor(x *exchange, r *http.Request) error {
	s := x.site
	known, err := x.askedRoute(r)
	if err != nil {
		return err
	}
	portal := anyHost
	if known && x.peer.forwarded(r, "X-Forwarded-Host") != "" {
		portal = x.host.session() // a portal's cookie is good for that portal alone
	}
	if x.member, err = p.who(x, r, portal); err != nil {
		return err
	}
	if !known {
		x.decision = decision{route: &route{path: "/", origin: s.public}}
		if x.member != nil && s.byGroups {
			p.log.Warn("forward-auth: the route is unknown; is the proxy in front in trusted_proxies, and does it send X-Forwarded-Uri?",
				zap.String("request_id", x.id), zap.String("peer", x.peer.addr.String()), zap.String("setting", "trusted_proxies"))
			return errRouteUnknown
		}
	}
	if err := x.admit(); err != nil {
		return err
	}
	return x.narrow(r)
}

// askedRoute finds the route that a trusted peer names.
func (x *exchange) askedRoute(r *http.Request) (known bool, err error) {
	s := x.site
	asked := x.peer.forwarded(r, "X-Forwarded-Uri")
	if asked == "" {
		return false, nil
	}
	if x.host = s.requestHost(r, x.peer); x.host == nil {
		return false, errHost
	}
	u, err := url.ParseRequestURI(asked)
	if err != nil || u.Host != "" && u.Scheme == "" {
		return false, errPath
	}
	path, others, err := readings(u)
	if err != nil {
		return false, err
	}
	x.decision, err = x.host.decide(path, others)
	return err == nil, err
}

// narrow applies the query's groups: each parameter asks for one of its
// groups as well. The query can come from the browser itself (some proxies
// hand it on), so it may only ever take away.
func (x *exchange) narrow(r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return errQuery
	}
	for _, list := range q["groups"] {
		if x.member == nil {
			return errUnauthenticated
		}
		var wanted []string
		for name := range strings.SplitSeq(list, ",") {
			if name != "" {
				wanted = append(wanted, decodeName(name))
			}
		}
		if !oneOf(wanted, x.member.view.Groups) {
			return errNoGroup
		}
	}
	return nil
}

func (p *Proxy) asksForPage(x *exchange, r *http.Request) bool {
	method := r.Method
	if said := x.peer.forwarded(r, "X-Forwarded-Method"); said != "" {
		method = said
	}
	return navigatesAs(r, method)
}

// askedPath is where the person wanted to go, as far as a trusted peer says.
func askedPath(x *exchange, r *http.Request) string {
	if asked := x.peer.forwarded(r, "X-Forwarded-Uri"); asked != "" {
		return returnPath(asked)
	}
	return "/"
}
