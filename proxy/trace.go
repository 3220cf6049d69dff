package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/groupgate/groupgate/claims"
)

// Spans say how long the steps of a request took and how they ended. They go
// to another system with other readers, so nothing in them comes from a client,
// a person or a source: names and attributes are words of ours, of the
// configuration, numbers, and the request's id, by which the log tells the
// rest. Attribute names are those of OpenTelemetry's HTTP conventions where it
// has one.

// traced is what of an exchange exists only while Settings.Tracer is set.
type traced struct {
	span     trace.Span // of the request; nil: not traced
	upstream trace.Span // of its way to the upstream and back
	endpoint string     // of ours, when it is one
	own      bool
	broke    bool // the answer ended in a panic: it was begun and could not be completed
}

// beginTrace begins the request's span. The trace that a client says it is
// part of counts from a trusted proxy only: anybody else could join requests of
// others into one trace, or have all of their own sampled.
func (x *exchange) beginTrace(r *http.Request) *http.Request {
	tracer := x.site.set.Tracer
	if tracer == nil {
		return r
	}
	ctx := r.Context()
	if lines := r.Header["Traceparent"]; x.peer.trusted && len(lines) == 1 {
		// Trace Context sections 2.2 and 3.3: one traceparent; tracestate may be
		// in several lines.
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
			"traceparent": lines[0], "tracestate": strings.Join(r.Header["Tracestate"], ","),
		})
	}
	method := knownMethod(r.Method)
	ctx, x.span = tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("groupgate.request_id", x.id)))
	return r.WithContext(ctx)
}

// traceUpstream begins the span of the way to the upstream, and tells the
// upstream of it in place of whatever the client said.
func (x *exchange) traceUpstream(in *http.Request, h http.Header) {
	if x.span == nil {
		return
	}
	method := knownMethod(in.Method)
	ctx := trace.ContextWithSpan(context.Background(), x.span)
	ctx, x.traced.upstream = x.site.set.Tracer.Start(ctx, method+" upstream", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("server.address", x.decision.upstream.host)))
	delete(h, "Traceparent")
	delete(h, "Tracestate")
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// endTrace ends the exchange's spans. Only now is everything known that their
// names are made of.
func (x *exchange) endTrace(r *http.Request) {
	if up := x.traced.upstream; up != nil {
		outcome(up, x.upstreamStatus, x.err, x.broke || x.upstreamStatus == 0)
		up.End()
	}
	method := knownMethod(r.Method)
	switch {
	case x.own:
		name := ownName(x.endpoint)
		x.span.SetName(method + " own:" + name)
		x.span.SetAttributes(attribute.String("http.route", x.site.prefix+name))
	case x.decision.route != nil:
		x.span.SetName(method + " route:" + x.decision.route.path)
		x.span.SetAttributes(attribute.String("http.route", x.decision.route.path))
	}
	if x.host != nil {
		x.span.SetAttributes(attribute.String("server.address", x.host.name))
	}
	outcome(x.span, x.status, x.err, x.broke)
	x.span.End()
}

// outcome notes a status, and what went wrong in one of our words.
func outcome(span trace.Span, status int, err error, failed bool) {
	if status > 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	word := ""
	switch {
	case err != nil && (status >= 400 || status == 0):
		word = errorWord(err)
	case failed:
		word = "aborted"
	case status >= 500:
		word = strconv.Itoa(status)
	default:
		return
	}
	span.SetAttributes(attribute.String("error.type", word))
	if failed || status >= 500 {
		span.SetStatus(codes.Error, word)
	}
}

// step begins the span of one step under way in ctx. end is to be called with
// what came of it. Without tracing neither does anything.
func (s *site) step(ctx context.Context, name, source string) (_ context.Context, end func(error)) {
	if s.set.Tracer == nil {
		return ctx, func(error) {}
	}
	ctx, span := s.set.Tracer.Start(ctx, name, trace.WithAttributes(attribute.String("groupgate.source", source)))
	return ctx, func(err error) {
		if err != nil {
			word := errorWord(err)
			span.SetAttributes(attribute.String("error.type", word))
			span.SetStatus(codes.Error, word)
		}
		span.End()
	}
}

// errorWord is the code that a client is answered with, and a word for what no
// client is told of.
func errorWord(err error) string {
	if a := answerFor(err); a.code != unknown.code {
		return a.code
	}
	switch {
	case errors.Is(err, claims.ErrGrantEnded):
		return "grant_ended"
	case errors.Is(err, claims.ErrNoCredentials):
		return "no_credentials"
	case errors.Is(err, context.Canceled):
		return "client_gone"
	}
	return unknown.code
}

// knownMethod keeps what a client makes up out of names.
func knownMethod(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return m
	}
	return "_OTHER"
}

// ownName is an endpoint of ours by its name in contract section 4: the
// source's is left out, and what is not there has none.
func ownName(endpoint string) string {
	switch endpoint {
	case "/sign_in", "/start", "/handover", "/sign_out", "/auth", "/auth/redirect", envoyEndpoint, "/userinfo", "/password", "/jwks.json":
		return endpoint
	}
	if endpoint == consoleEndpoint || strings.HasPrefix(endpoint, consoleEndpoint+"/") {
		return consoleEndpoint
	}
	for _, of := range []string{"/callback/", "/backchannel/", "/frontchannel/", "/login/", "/saml/"} {
		if strings.HasPrefix(endpoint, of) {
			return of + "SOURCE"
		}
	}
	return "/"
}
