package config

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// tracing checks where spans are sent.
func (c *checker) tracing() {
	const key = "tracing.endpoint"
	t := c.cfg.Tracing
	if !c.written("tracing") {
		return
	}
	if c.missing(key, t.Endpoint, ": the collector, such as http://127.0.0.1:4318; take tracing away to trace nothing") {
		return
	}
	u, err := address(t.Endpoint)
	if err == nil {
		err = collector(u, len(t.Headers) > 0)
	}
	c.problem(key, err)
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		at := join("tracing.headers", name)
		switch {
		case !fieldName.MatchString(name):
			c.fault(at, "is not the name of a header (RFC 9110 section 5.1)")
		case slices.Contains([]string{"Host", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Connection"}, http.CanonicalHeaderKey(name)):
			c.fault(at, "is the exporter's own to set")
		case strings.ContainsFunc(t.Headers[name], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			c.fault(at, "a line break or control character cannot stand in a header")
		}
	}
}

// collector accepts http anywhere, unlike addresses of sources and targets:
// spans hold no secret and decide nothing, and the usual collector stands in
// the same pod or cluster and speaks no TLS. Headers are another matter: they
// are there to carry a token.
func collector(u *url.URL, headers bool) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be http://host:port or https://host: spans are sent by OTLP over HTTP")
	case headers && secure(u) != nil:
		return errors.New("must be https where headers are sent: they hold secrets (plain http is accepted on loopback)")
	}
	return nil
}
