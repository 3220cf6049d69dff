package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/groupgate/groupgate/proxy"
)

// collector takes spans by OTLP over HTTP, and keeps what it got byte by byte.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	raw   bytes.Buffer
	spans []*tracepb.Span
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			http.Error(w, "not gzip", http.StatusBadRequest)
			return
		}
	}
	raw, err := io.ReadAll(body)
	var batch collectorpb.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(raw, &batch) != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "not spans", http.StatusBadRequest)
		return
	}
	c.raw.Write(raw)
	for _, of := range batch.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
}

// tracing has the rig's spans sent to the collector, each before its request
// is over.
func tracing(c *collector, with ...sdktrace.TracerProviderOption) option {
	return func(r *rig) {
		c.Server = httptest.NewServer(c)
		r.t.Cleanup(c.Close)
		exporter, err := otlptracehttp.New(r.t.Context(), otlptracehttp.WithEndpointURL(c.URL+"/v1/traces"),
			otlptracehttp.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
		if err != nil {
			r.t.Fatal(err)
		}
		r.settings.Tracer = sdktrace.NewTracerProvider(append(with, sdktrace.WithSyncer(exporter))...).Tracer("test")
	}
}

// until waits for the span of a request, which ends a moment after the client
// has its answer, and takes it with all that came before.
func (c *collector) until(t testing.TB, what string) (spans []*tracepb.Span, request *tracepb.Span) {
	t.Helper()
	eventually(t, "a span of "+what, 5*time.Second, func() bool {
		spans = append(spans, c.take()...)
		return slices.ContainsFunc(spans, ofRequest)
	})
	return spans, spans[slices.IndexFunc(spans, ofRequest)]
}

func ofRequest(s *tracepb.Span) bool { return s.Kind == tracepb.Span_SPAN_KIND_SERVER }

// all is every byte that was sent.
func (c *collector) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// take answers the spans since the last time.
func (c *collector) take() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := c.spans
	c.spans = nil
	return spans
}

// say is a span as the tests write it: its attributes, without ids and times.
func say(s *tracepb.Span) string {
	var words []string
	for _, a := range s.Attributes {
		if a.Key != "groupgate.request_id" && a.Key != "server.address" {
			words = append(words, strings.TrimPrefix(a.Key, "http.")+"="+text(a.Value))
		}
	}
	slices.Sort(words)
	out := s.Name + " [" + strings.Join(words, " ") + "]"
	if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		out += " error: " + s.Status.Message
	}
	return out
}

func text(v *commonpb.AnyValue) string {
	if n, number := v.Value.(*commonpb.AnyValue_IntValue); number {
		return fmt.Sprint(n.IntValue)
	}
	return v.GetStringValue()
}

func attribute(s *tracepb.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return text(a.Value)
		}
	}
	return ""
}

// settle waits for the last span of what a test does first, and drops all.
func (c *collector) settle(t testing.TB, last string) {
	t.Helper()
	eventually(t, last, 5*time.Second, func() bool {
		return slices.ContainsFunc(c.take(), func(s *tracepb.Span) bool { return s.Name == last })
	})
}

// one is the only span of a name.
func one(t testing.TB, spans []*tracepb.Span, name string) *tracepb.Span {
	t.Helper()
	var found []*tracepb.Span
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans %q among %q", len(found), name, names)
	}
	return found[0]
}

func parent(t testing.TB, child, of *tracepb.Span) {
	t.Helper()
	if !bytes.Equal(child.ParentSpanId, of.SpanId) || !bytes.Equal(child.TraceId, of.TraceId) {
		t.Errorf("%q is no child of %q", child.Name, of.Name)
	}
}

func TestARequestIsASpanAndSoIsItsWayToTheUpstream(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, tracing(c))
	cookie := r.signIn("alice")
	c.settle(t, "GET route:/")
	res := r.do("GET", "/admin/secret-path?secret=query", edits(signedIn(cookie), header("X-Odd", "secret-header")))
	if res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	spans, request := c.until(t, "the request")
	up := one(t, spans, "GET upstream")
	if got, want := say(request), "GET route:/admin/ [request.method=GET response.status_code=200 route=/admin/]"; got != want {
		t.Errorf("the request: %s, want %s", got, want)
	}
	if got, want := say(up), "GET upstream [request.method=GET response.status_code=200]"; got != want {
		t.Errorf("the way: %s, want %s", got, want)
	}
	if request.Kind != tracepb.Span_SPAN_KIND_SERVER || up.Kind != tracepb.Span_SPAN_KIND_CLIENT || len(request.ParentSpanId) != 0 {
		t.Errorf("kinds %v and %v, parent %x", request.Kind, up.Kind, request.ParentSpanId)
	}
	parent(t, up, request)
	// The upstream is told of the span, and the log finds both by either id.
	want := fmt.Sprintf("00-%x-%x-01", up.TraceId, up.SpanId)
	if got := r.up.last(t).Header.Values("Traceparent"); len(got) != 1 || got[0] != want {
		t.Errorf("Traceparent %q, want %q", got, want)
	}
	id := attribute(request, "groupgate.request_id")
	eventually(t, "one line of the log has both ids", time.Second, func() bool {
		for line := range strings.SplitSeq(r.logs.String(), "\n") {
			if strings.Contains(line, `"request_id":"`+id+`"`) && strings.Contains(line, fmt.Sprintf(`"trace_id":"%x"`, request.TraceId)) {
				return true
			}
		}
		return false
	})
	if host := attribute(request, "server.address"); "https://"+host != r.server.URL {
		t.Errorf("host %q", host)
	}
	for _, word := range []string{"secret", "alice", "engineering", "example.com"} {
		if strings.Contains(c.all(), word) {
			t.Errorf("spans hold %q", word)
		}
	}
}

// theirs is a trace that a client says it is part of.
const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestAClientsTrace(t *testing.T) {
	t.Parallel()
	said := edits(header("Traceparent", theirs), header("Tracestate", "a=1", "b=2"))
	t.Run("passes untouched without tracing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.do("GET", "/public/x", said)
		h := r.up.last(t).Header
		equal(t, "Traceparent", h.Values("Traceparent"), []string{theirs})
		equal(t, "Tracestate", h.Values("Tracestate"), []string{"a=1", "b=2"})
		if strings.Contains(r.logs.String(), "trace_id") {
			t.Error("the log speaks of a trace")
		}
	})
	for name, tt := range map[string]struct {
		opts   []option
		edit   func(*http.Request)
		joined bool
	}{
		"is not joined when anybody says so":     {nil, said, false},
		"is joined when a trusted proxy does":    {[]option{trustLoopback}, said, true},
		"is not joined when it is said twice":    {[]option{trustLoopback}, header("Traceparent", theirs, theirs), false},
		"is not joined when it is not one":       {[]option{trustLoopback}, header("Traceparent", theirs+"-x"), false},
		"is not joined when it is all zeroes":    {[]option{trustLoopback}, header("Traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01"), false},
		"is joined without a tracestate as well": {[]option{trustLoopback}, header("Traceparent", theirs), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &collector{}
			r := newRig(t, append(tt.opts, tracing(c))...)
			r.do("GET", "/public/x", tt.edit)
			spans, request := c.until(t, "the request")
			up := one(t, spans, "GET upstream")
			if joined := fmt.Sprintf("%x", request.TraceId) == theirs[3:35]; joined != tt.joined {
				t.Errorf("joined: %v", joined)
			}
			if under := fmt.Sprintf("%x", request.ParentSpanId) == theirs[36:52]; under != tt.joined {
				t.Errorf("child of theirs: %v", under)
			}
			h := r.up.last(t).Header
			equal(t, "Traceparent", h.Values("Traceparent"), []string{fmt.Sprintf("00-%x-%x-01", up.TraceId, up.SpanId)})
			state := h.Values("Tracestate")
			if sent := tt.joined && strings.Contains(name, "does"); sent != (len(state) == 1 && state[0] == "a=1,b=2") || !sent && len(state) != 0 {
				t.Errorf("Tracestate %q", state)
			}
		})
	}
}

// What is not sampled is told to the upstream as such, and sent nowhere.
func TestWhatIsNotSampled(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, tracing(c, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))))
	r.do("GET", "/public/x", header("Traceparent", theirs))
	if got := r.up.last(t).Header.Get("Traceparent"); !strings.HasSuffix(got, "-00") || strings.Contains(got, theirs[3:35]) {
		t.Errorf("Traceparent %q", got)
	}
	if spans := c.take(); len(spans) != 0 {
		t.Errorf("%d spans", len(spans))
	}
}

func TestALoginsSteps(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, tracing(c))
	b := r.browser()
	_, authorize := r.begin(b, "source=test&rd=/x")
	spans, _ := c.until(t, "the start")
	parent(t, one(t, spans, "source challenge"), one(t, spans, "GET own:/start"))
	if res := hop(t, b, r.answer(b, authorize, "alice")); res.StatusCode != 303 {
		t.Fatalf("callback: %d", res.StatusCode)
	}
	spans, request := c.until(t, "the callback")
	if got, want := say(request), "GET own:/callback/SOURCE [request.method=GET response.status_code=303 route=/_auth/callback/SOURCE]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, name := range []string{"source authenticate", "sync"} {
		step := one(t, spans, name)
		parent(t, step, request)
		if got, want := say(step), name+" [groupgate.source=test]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// A renewal belongs to the request that asked for it.
	cookie := r.cookie(b)
	r.clock.advance(6 * time.Minute)
	r.do("GET", "/", signedIn(cookie))
	spans, request = c.until(t, "the renewal")
	parent(t, one(t, spans, "source refresh"), request)
	parent(t, one(t, spans, "sync"), request)
	r.op.RevokeRefresh()
	r.clock.advance(6 * time.Minute)
	r.do("GET", "/", signedIn(cookie))
	spans, _ = c.until(t, "the refusal")
	refresh := one(t, spans, "source refresh")
	if got, want := say(refresh), "source refresh [error.type=grant_ended groupgate.source=test] error: grant_ended"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A password is a step of its own; what was typed is in no span.
func TestAPasswordsSteps(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, withForm(newKeeper("corp")), tracing(c))
	b := r.browser()
	form := r.form(b, "source=corp&rd=/x")
	c.until(t, "the form")
	post := func(password string, status int) *http.Response {
		values := url.Values{"username": {"alice"}, "password": {password}, "token": {form.Forms()[0].Fields["token"]}}
		res := r.script("/_auth/login/corp", values, signedIn(r.cookie(b)))
		if res.StatusCode != status {
			t.Fatalf("%d, want %d", res.StatusCode, status)
		}
		return res
	}
	post("not it", 401)
	spans, request := c.until(t, "a wrong password")
	want := "POST own:/login/SOURCE [error.type=wrong_password request.method=POST response.status_code=401 route=/_auth/login/SOURCE]"
	if got := say(request); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := say(one(t, spans, "source password")), "source password [error.type=wrong_password groupgate.source=corp] error: wrong_password"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	post(passwordOf("alice"), 303)
	spans, request = c.until(t, "the right one")
	for _, name := range []string{"source password", "sync"} {
		parent(t, one(t, spans, name), request)
	}
	for _, secret := range []string{"alice", passwordOf("alice"), "not it"} {
		if strings.Contains(c.all(), secret) {
			t.Errorf("a span holds %q", secret)
		}
	}
}

// Names are those of the configuration and of the contract, whatever a client
// sends; faults are the codes that it is answered with. SC-16
func TestNamesOfSpansAreOurs(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, portals, tracing(c), func(r *rig) { withSigner(r) })
	cookie := r.signIn("carol")
	dead := httptest.NewServer(nil)
	dead.Close()
	r.settings.Routes = append(r.settings.Routes, proxy.RouteConfig{Path: "/dead/", Access: proxy.Public, Upstream: dead.URL})
	r.configure()
	c.settle(t, "GET route:/")
	for _, tt := range []struct {
		method, path string
		edit         func(*http.Request)
		want         string
	}{
		{"GET", "/anything", nil, "GET route:/ [error.type=unauthenticated request.method=GET response.status_code=401 route=/]"},
		{"GET", "/admin/x", signedIn(cookie), "GET route:/admin/ [error.type=forbidden request.method=GET response.status_code=403 route=/admin/]"},
		{"GET", "/anything", page, "GET route:/ [request.method=GET response.status_code=302 route=/]"},
		{"PURGE", "/public/x", nil, "_OTHER route:/public/ [request.method=_OTHER response.status_code=200 route=/public/]"},
		{"GET", "/dead/x", nil, "GET route:/dead/ [error.type=upstream_unreachable request.method=GET response.status_code=502 route=/dead/] error: upstream_unreachable"},
		{"GET", "/x", func(req *http.Request) { req.Host = "evil.example" }, "GET [error.type=misdirected request.method=GET response.status_code=421]"},
		{"TRACE", "/x", nil, "TRACE [error.type=method_not_allowed request.method=TRACE response.status_code=405]"},
		{"GET", "/_auth/sign_in?source=nobody", nil, "GET own:/sign_in [error.type=unknown_source request.method=GET response.status_code=404 route=/_auth/sign_in]"},
		{"GET", "/_auth/callback/evil", nil, "GET own:/callback/SOURCE [error.type=unknown_source request.method=GET response.status_code=404 route=/_auth/callback/SOURCE]"},
		{"POST", "/_auth/backchannel/evil", nil, "POST own:/backchannel/SOURCE [error.type=unknown_source request.method=POST response.status_code=404 route=/_auth/backchannel/SOURCE]"},
		{"GET", "/_auth/frontchannel/evil", nil, "GET own:/frontchannel/SOURCE [error.type=unknown_source request.method=GET response.status_code=404 route=/_auth/frontchannel/SOURCE]"},
		{"GET", "/_auth/made-up", nil, "GET own:/ [error.type=not_found request.method=GET response.status_code=404 route=/_auth/]"},
		{"GET", "/_auth/password", signedIn(cookie), "GET own:/password [error.type=not_found request.method=GET response.status_code=404 route=/_auth/password]"},
		{"GET", "/_auth/userinfo", signedIn(cookie), "GET own:/userinfo [request.method=GET response.status_code=200 route=/_auth/userinfo]"},
		{"GET", "/_auth/auth", signedIn(cookie), "GET own:/auth [error.type=route_unknown request.method=GET response.status_code=403 route=/_auth/auth]"},
		{"GET", "/_auth/auth/redirect", nil, "GET own:/auth/redirect [error.type=unauthenticated request.method=GET response.status_code=401 route=/_auth/auth/redirect]"},
		{"GET", "/_auth/jwks.json", nil, "GET own:/jwks.json [request.method=GET response.status_code=200 route=/_auth/jwks.json]"},
		{"GET", "/_auth/sign_out", nil, "GET own:/sign_out [request.method=GET response.status_code=200 route=/_auth/sign_out]"},
		{"GET", "/_auth/admin/groups/made-up", nil, "GET own:/admin [error.type=not_found request.method=GET response.status_code=404 route=/_auth/admin]"},
		{"GET", "/_auth/administration", nil, "GET own:/ [error.type=not_found request.method=GET response.status_code=404 route=/_auth/]"},
		{"GET", "/_auth/handover", nil, "GET own:/handover [error.type=not_found request.method=GET response.status_code=404 route=/_auth/handover]"},
	} {
		r.do(tt.method, tt.path, tt.edit)
		if _, request := c.until(t, tt.path); say(request) != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.method, tt.path, say(request), tt.want)
		}
	}
	for _, word := range []string{"carol", "evil", "made-up", "anything", "nobody", "PURGE", "refused"} {
		if strings.Contains(c.all(), word) {
			t.Errorf("spans hold %q", word)
		}
	}
}

// A socket and a stream are one span each, that ends when they do; a broken
// answer says so.
func TestSpansOfWhatLasts(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, tracing(c))
	cookie := r.signIn("alice")
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/socket":
			conn, err := websocket.Accept(w, req, nil)
			if err == nil {
				<-conn.CloseRead(req.Context()).Done()
			}
		case "/broken":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "begun")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
		}
	})
	c.settle(t, "GET route:/")
	ended := func(what, want string) {
		t.Helper()
		_, request := c.until(t, what)
		got := say(request)
		if ok, err := regexp.MatchString("^"+want+"$", got); !ok || err != nil {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	conn, _, err := websocket.Dial(t.Context(), strings.Replace(r.server.URL, "https", "wss", 1)+"/socket", &websocket.DialOptions{
		HTTPClient: r.client(), HTTPHeader: http.Header{"Cookie": {cookie}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if spans := c.take(); len(spans) != 0 {
		t.Errorf("%d spans while the socket is open", len(spans))
	}
	conn.CloseNow()
	ended("the socket", `GET route:/ \[request.method=GET response.status_code=101 route=/\]`)
	res := r.do("GET", "/stream", signedIn(cookie))
	if spans := c.take(); len(spans) != 0 {
		t.Errorf("%d spans while the stream is open", len(spans))
	}
	res.Body.Close()
	ended("the stream", `GET route:/ \[.*response.status_code=200 route=/\].*`)
	req, err := http.NewRequest("GET", r.server.URL+"/broken", nil)
	if err != nil {
		t.Fatal(err)
	}
	signedIn(cookie)(req)
	if res, err = r.client().Do(req); err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("the broken answer ended well")
	}
	ended("the broken answer", `GET route:/ \[error.type=aborted request.method=GET response.status_code=200 route=/\] error: aborted`)
}

// Switched on and off, requests are served all the while.
func TestTracingSwaps(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, tracing(c))
	tracer := r.settings.Tracer
	for _, on := range []bool{true, false, true} {
		r.settings.Tracer = nil
		if on {
			r.settings.Tracer = tracer
		}
		r.configure()
		r.do("GET", "/public/x", header("Traceparent", theirs))
		if passed := r.up.last(t).Header.Get("Traceparent") == theirs; passed == on {
			t.Errorf("on %v: the client's trace passed %v", on, passed)
		}
		if on {
			c.until(t, "the request")
		}
	}
	if spans := c.take(); len(spans) != 0 {
		t.Errorf("%d spans too many", len(spans))
	}
}
