package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/groupgate/groupgate/config"
)

// Bounds of sending spans. A request never waits for any of it: what does not
// fit the queue is dropped.
const (
	spanQueue   = 2048
	spanBatch   = 512
	spanWait    = time.Second      // how long a span waits for others
	sendTimeout = 10 * time.Second // of one batch with its retries
	flushWithin = 2 * time.Second  // when the process stops, or the collector changed
	tellEvery   = time.Minute      // about spans that were lost
)

// tracing is the tracer in force, and what it was made of. It is used by one
// goroutine at a time, as apply is.
type tracing struct {
	log      *zap.Logger
	once     sync.Once
	cfg      config.TracingConfig
	provider *sdktrace.TracerProvider // nil: off
	ending   sync.WaitGroup
}

// prepare answers the tracer of a configuration, nil when there is none, and
// changes nothing. settle is to be called once it is known whether the tracer
// is in force; the one that is not is flushed and ended in the background.
// Requests that it still serves lose their spans.
func (t *tracing) prepare(cfg config.TracingConfig) (tracer trace.Tracer, settle func(inForce bool), err error) {
	if same(t.cfg, cfg) {
		return tracerOf(t.provider), func(bool) {}, nil
	}
	var next *sdktrace.TracerProvider
	if cfg.Endpoint != "" {
		t.once.Do(t.quiet)
		if next, err = newProvider(cfg, t.log); err != nil {
			return nil, nil, fmt.Errorf("tracing: %w", err)
		}
	}
	return tracerOf(next), func(inForce bool) {
		over := next
		if inForce {
			over, t.provider, t.cfg = t.provider, next, cfg
		}
		t.ending.Go(func() { flush(over) })
	}, nil
}

func same(a, b config.TracingConfig) bool {
	return a.Endpoint == b.Endpoint && a.Sample == b.Sample && maps.Equal(a.Headers, b.Headers)
}

func tracerOf(p *sdktrace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil // and not an interface that holds a nil
	}
	return p.Tracer("github.com/groupgate/groupgate/proxy", trace.WithInstrumentationVersion(Version))
}

// close sends what is left.
func (t *tracing) close() {
	flush(t.provider)
	t.ending.Wait()
}

func flush(p *sdktrace.TracerProvider) {
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	_ = p.Shutdown(ctx) // what was lost, sender has told
}

// quiet takes the two things that the libraries have one of in a process.
// Unasked they write to standard error, in the form of neither of our log's
// formats, and repeat there what OTEL_ variables hold.
func (t *tracing) quiet() {
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		t.log.Debug("opentelemetry", zap.Error(err)) // nothing of a collector: sender keeps that
	}))
}

// newProvider makes a provider of spans that are sent to the collector. The
// libraries read OTEL_ variables wherever nothing else is said. What is not in
// the file must not decide where spans go, so all of it is said here.
func newProvider(cfg config.TracingConfig, log *zap.Logger) (*sdktrace.TracerProvider, error) {
	at, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(strings.TrimSuffix(at.Path, "/"), "/v1/traces") {
		at = at.JoinPath("v1/traces")
	}
	s := &sender{log: log, ours: resource.NewSchemaless(attribute.String("service.name", "groupgate"), attribute.String("service.version", Version))}
	s.to, err = otlptrace.New(context.Background(), &otlpClient{
		client: s.client(), address: at.String(), headers: maps.Clone(cfg.Headers), // TLS and proxies of the environment do not count either
	})
	if err != nil {
		return nil, err
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(s,
			sdktrace.WithMaxQueueSize(spanQueue), sdktrace.WithMaxExportBatchSize(spanBatch),
			sdktrace.WithBatchTimeout(spanWait), sdktrace.WithExportTimeout(sendTimeout)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Sample))),
		// Our spans have a handful of attributes; events and links, where the
		// library would put the text of a panic, they have none.
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: 1024, AttributeValueDepthLimit: 1, AttributeCountLimit: 16}),
		sdktrace.WithoutPanicRecording(),
	), nil
}

// sender hands spans to the exporter, and tells of those that were lost.
type sender struct {
	to     sdktrace.SpanExporter
	ours   *resource.Resource
	log    *zap.Logger
	status atomic.Int64 // of the collector's last answer; 0: none

	mu   sync.Mutex
	lost int // since it was last told
	told time.Time
}

// ExportSpans always succeeds: what went wrong is told here. The library would
// repeat the collector's answer, which may say our own headers back to us.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ours := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, span := range spans {
		ours[i] = ourSpan{span, s.ours}
	}
	s.note(len(spans), s.to.ExportSpans(ctx, ours))
	return nil
}

// Shutdown ends the exporter.
func (s *sender) Shutdown(ctx context.Context) error { return s.to.Shutdown(ctx) }

func (s *sender) note(spans int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if !s.told.IsZero() {
			s.log.Info("spans are delivered again")
			s.told, s.lost = time.Time{}, 0
		}
		return
	}
	s.lost += spans
	if time.Since(s.told) < tellEvery {
		return
	}
	s.log.Warn("spans not delivered", zap.Int("spans", s.lost), zap.String("reason", s.reason(err)))
	s.told, s.lost = time.Now(), 0
}

// reason says what went wrong in words of ours and of the system's.
func (s *sender) reason(err error) string {
	var network *net.OpError
	switch status := s.status.Load(); {
	case status >= 300:
		return fmt.Sprintf("the collector answered with status %d", status)
	case status > 0:
		return "the collector did not take all of them"
	case errors.As(err, &network):
		return network.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "the collector did not answer in time"
	}
	return "the collector cannot be reached"
}

// client speaks to the collector alone: no redirect takes the headers
// elsewhere, and no proxy of the environment stands between.
func (s *sender) client() *http.Client {
	return &http.Client{
		Transport: &statusKeeper{s, &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   3 * time.Second,
			ResponseHeaderTimeout: sendTimeout / 2,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   1,
			IdleConnTimeout:       90 * time.Second,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       sendTimeout,
	}
}

// statusKeeper remembers the status of the last answer.
type statusKeeper struct {
	s    *sender
	base http.RoundTripper
}

// RoundTrip is the transport's.
func (k *statusKeeper) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := k.base.RoundTrip(r)
	k.s.status.Store(0)
	if err == nil {
		k.s.status.Store(int64(res.StatusCode))
	}
	return res, err
}

// ourSpan is a span of this service: the library puts what OTEL_ variables say
// into the resource whatever it is given.
type ourSpan struct {
	sdktrace.ReadOnlySpan
	ours *resource.Resource
}

// Resource is what the span is of.
func (s ourSpan) Resource() *resource.Resource { return s.ours }
