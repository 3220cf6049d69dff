package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// scrape answers /metrics, and the values of our own by name and labels.
func scrape(t *testing.T, g *gate) (text string, ours map[string]float64) {
	t.Helper()
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %d, %v", resp.StatusCode, err)
	}
	ours = map[string]float64{}
	for line := range strings.SplitSeq(string(raw), "\n") {
		at := strings.LastIndexByte(line, ' ')
		if !strings.HasPrefix(line, "groupgate_") || at < 0 {
			continue
		}
		if ours[line[:at]], err = strconv.ParseFloat(line[at+1:], 64); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	return string(raw), ours
}

const (
	status    = `(0|[1-5][0-9][0-9])`
	histogram = `_(count|sum|bucket\{le="([0-9.]+|\+Inf)"\})`
)

// documented is every metric of ours, as the README has it, with what its
// labels may be: words, statuses and names of sources.
var documented = []string{
	`build_info\{version="[^"]+"\}`,
	`requests_total\{class="[1-5]xx"\}`,
	`request_duration_seconds` + histogram,
	`upstream_requests_total\{code="` + status + `"\}`,
	`upstream_request_duration_seconds` + histogram,
	`upstream_dials_total`,
	`logins_total\{protocol="oidc",provider="(op|down)",result="(ok|refused|failed|throttled|unavailable)"\}`,
	`login_duration_seconds` + histogram,
	`sync_total\{result="(changed|unchanged|stale|refused|failed)"\}`,
	`sync_changes_total\{op="(added|removed|skipped|held)"\}`,
	`sync_incomplete_claims_total`,
	`sync_removals_waiting`,
	`sync_lag_seconds` + histogram,
	`sessions_active`,
	`sessions_in_memory`,
	`live_connections`,
	`source_ready\{provider="(op|down)"\}`,
	`idp_metadata_age_seconds\{provider="op"\}`,
	`store_healthy`,
	`config_last_reload_successful`,
	`config_last_reload_success_timestamp_seconds`,
}

// SC-16, SC-07: of a busy proxy with odd people, groups and paths nothing gets
// into a label, and labels are exactly those that are documented.
func TestMetricsOfABusyProxy(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	odd := []string{"eve\"} 1", "o'brien\n# HELP", "žofie"}
	group := `odd"group,with="label`
	people := []claimstest.Person{person("alice", "eng", group)}
	for _, name := range odd {
		people = append(people, person(name, "eng", group))
	}
	stranger := person("stranger", "eng")
	stranger.Claims["email"] = "stranger@elsewhere.example"
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: append(people, stranger)})
	p := newPlace(t)
	sources := oidc("op", op.URL, opSecret) + "\n    require: {email_domains: [example.com]}" + oidc("down", "http://"+freeAddress(t), opSecret)
	p.write(t, up.URL, sources, everyValue+"log: {level: debug}\n")
	g := p.start(t)
	begin := g.url() + "/_auth/start?source="
	alice := newBrowser(t)
	for _, name := range append([]string{"alice"}, odd...) {
		b := newBrowser(t)
		if name == "alice" {
			b = alice
		}
		page, err := b.Login(begin+"op&rd=/page/secret-path", name)
		if err != nil || page.Status != http.StatusOK {
			t.Fatalf("login of %q: %v, %+v", name, err, page)
		}
	}
	_, first := scrape(t, g)

	refused, err := newBrowser(t).Login(begin+"op", "stranger")
	if err != nil || refused.Status != http.StatusForbidden {
		t.Fatalf("the stranger: %v, %+v", err, refused)
	}
	for _, address := range []string{begin + "down", g.url() + "/_auth/callback/op?state=secret-state&code=secret-code", begin + "secret-source", g.url() + "/_auth/secret-page"} {
		if page := get(t, alice, address); page.Status < 400 {
			t.Errorf("%s: %d", address, page.Status)
		}
	}
	get(t, alice, g.url()+"/secret-path?secret=query")
	up.CloseClientConnections()
	up.Close()
	if page := get(t, alice, g.url()+"/"); page.Status != http.StatusBadGateway {
		t.Errorf("without the upstream: %d", page.Status)
	}
	g.eventually("counted", func() bool { _, now := scrape(t, g); return now[`groupgate_upstream_requests_total{code="0"}`] == 1 })
	text, second := scrape(t, g)

	for _, word := range append(odd, group, "secret", "alice", "eng", "stranger", "example.com", "portal", cookie(alice, g)) {
		if strings.Contains(strings.ToLower(text), strings.ToLower(word)) {
			t.Errorf("metrics hold %q", word)
		}
	}
	known := regexp.MustCompile("^groupgate_(" + strings.Join(documented, "|") + ")$")
	for _, name := range slices.Sorted(maps.Keys(second)) {
		if !known.MatchString(name) {
			t.Errorf("%s is not documented", name)
		}
	}
	for _, d := range documented {
		if one := regexp.MustCompile("^groupgate_" + d + "$"); !slices.ContainsFunc(slices.Collect(maps.Keys(second)), one.MatchString) {
			t.Errorf("there is no %s", d)
		}
	}
	for name, was := range first {
		counts := strings.Contains(name, "_total") || strings.Contains(name, "_count") || strings.Contains(name, "_bucket") || strings.Contains(name, "_sum")
		if now, there := second[name]; counts && (!there || now < was) {
			t.Errorf("%s went from %v to %v", name, was, now)
		}
	}
	for name, want := range map[string]float64{
		`logins_total{protocol="oidc",provider="op",result="ok"}`:            4,
		`logins_total{protocol="oidc",provider="op",result="refused"}`:       1,
		`logins_total{protocol="oidc",provider="op",result="failed"}`:        1,
		`logins_total{protocol="oidc",provider="down",result="unavailable"}`: 1,
		`login_duration_seconds_count`:                                       5,
		`sync_total{result="changed"}`:                                       4,
		`sync_total{result="refused"}`:                                       1,
		`sync_changes_total{op="added"}`:                                     8,
		`sync_lag_seconds_count`:                                             4,
		`upstream_requests_total{code="200"}`:                                5,
		`upstream_request_duration_seconds_count`:                            5,
		`source_ready{provider="op"}`:                                        1,
		`source_ready{provider="down"}`:                                      0,
		`config_last_reload_successful`:                                      1,
		`sessions_in_memory`:                                                 4,
	} {
		if got := second["groupgate_"+name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if age := second[`groupgate_idp_metadata_age_seconds{provider="op"}`]; age <= 0 || age > 120 {
		t.Errorf("the keys are %v seconds old", age)
	}
	g.eventually("all sessions counted", func() bool { _, now := scrape(t, g); return now["groupgate_sessions_active"] == 4 })
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "groupgate_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// spanSink is a collector of spans, or a trap where none must come.
type spanSink struct {
	*httptest.Server
	mu       sync.Mutex
	requests int
	auth     string
	names    []string
	resource map[string]string
	raw      strings.Builder
}

func newSpanSink(t *testing.T) *spanSink {
	s := &spanSink{resource: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *spanSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.auth = r.Header.Get("Authorization")
	body, err := gzip.NewReader(r.Body)
	if err != nil {
		http.Error(w, "not gzip", http.StatusBadRequest)
		return
	}
	raw, err := io.ReadAll(body)
	var batch collectorpb.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(raw, &batch) != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "not spans", http.StatusBadRequest)
		return
	}
	s.raw.Write(raw)
	for _, of := range batch.ResourceSpans {
		for _, a := range of.Resource.GetAttributes() {
			s.resource[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				s.names = append(s.names, span.Name)
			}
		}
	}
}

func (s *spanSink) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.names, name)
}

func (s *spanSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// SC-07: spans go where the file says, and nothing of the environment has a
// say in it; no secret of a login is in them.
func TestSpansGoWhereTheFileSays(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", "eng")}})
	trap, one, two := newSpanSink(t), newSpanSink(t), newSpanSink(t)
	p := newPlace(t)
	for _, v := range []string{
		"EXPORTER_OTLP_ENDPOINT=" + trap.URL, "EXPORTER_OTLP_TRACES_ENDPOINT=" + trap.URL + "/v1/traces", "EXPORTER_OTLP_PROTOCOL=http/json",
		"EXPORTER_OTLP_HEADERS=authorization=of-the-environment,broken", "EXPORTER_OTLP_COMPRESSION=none", "EXPORTER_OTLP_CERTIFICATE=/nowhere/ca-of-the-environment.pem",
		"SERVICE_NAME=of-the-environment", "RESOURCE_ATTRIBUTES=from=of-the-environment", "TRACES_SAMPLER=always_off", "TRACES_EXPORTER=otlp",
		"BSP_SCHEDULE_DELAY=3600000", "BSP_MAX_QUEUE_SIZE=of-the-environment", "SPAN_ATTRIBUTE_COUNT_LIMIT=0", "ATTRIBUTE_VALUE_LENGTH_LIMIT=1", "SDK_DISABLED=true", "LOG_LEVEL=debug",
	} {
		p.env = append(p.env, "OTEL_"+v)
	}
	p.env = append(p.env, "HTTP_PROXY="+trap.URL, "COLLECTOR_TOKEN=a-token-of-the-collector")
	write := func(rest string) {
		p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue+"log: {level: debug}\n"+rest)
	}
	write("")
	g := p.start(t)
	b := newBrowser(t)
	if h := signIn(t, g, b, "alice"); h.Get("Traceparent") != "" {
		t.Errorf("traced without a word in the file: %v", h)
	}
	reload := func(rest string) {
		t.Helper()
		before := strings.Count(g.log.all(), "configuration reloaded")
		write(rest)
		g.eventually("reloaded", func() bool { return strings.Count(g.log.all(), "configuration reloaded") > before })
	}
	reload(fmt.Sprintf("tracing: {endpoint: %q, headers: {Authorization: \"Bearer ${env:COLLECTOR_TOKEN}\"}}\n", one.URL))
	if h := signIn(t, g, newBrowser(t), "alice"); h.Get("Traceparent") == "" {
		t.Error("the upstream is told of no trace")
	}
	for _, name := range []string{"GET own:/start", "source challenge", "GET own:/callback/SOURCE", "source authenticate", "sync", "GET route:/", "GET upstream"} {
		g.eventually("a span "+name, func() bool { return one.has(name) })
	}
	one.mu.Lock()
	raw, auth, resource := one.raw.String(), one.auth, maps.Clone(one.resource)
	one.mu.Unlock()
	if auth != "Bearer a-token-of-the-collector" {
		t.Errorf("Authorization %q", auth)
	}
	if want := map[string]string{"service.name": "groupgate", "service.version": "dev"}; !maps.Equal(resource, want) {
		t.Errorf("resource %v, want %v", resource, want)
	}
	_, session, _ := strings.Cut(cookie(b, g), "=")
	for _, word := range []string{"of-the-environment", opSecret, adminToken, session, "alice", "code=", "eng\"", "a-token-of-the-collector"} {
		if strings.Contains(raw, word) {
			t.Errorf("spans hold %q", word)
		}
		if word != "alice" && word != "eng\"" && strings.Contains(g.log.all(), word) {
			t.Errorf("the log holds %q", word)
		}
	}

	// To another collector, and what is under way at the end is sent too.
	reload(fmt.Sprintf("tracing: {endpoint: %q}\n", two.URL))
	before := one.count()
	get(t, b, g.url()+"/")
	g.eventually("at the other collector", func() bool { return two.has("GET route:/") })
	get(t, b, g.url()+"/_auth/userinfo")
	g.signal(syscall.SIGTERM)
	<-g.exited
	if g.err != nil {
		t.Errorf("exit: %v", g.err)
	}
	if !two.has("GET own:/userinfo") {
		t.Error("the last span was not sent before the end")
	}
	if one.count() != before {
		t.Error("the first collector got more")
	}
	if n := trap.count(); n != 0 {
		t.Errorf("the environment's collector got %d requests", n)
	}
	if strings.Contains(g.log.all(), "of-the-environment") {
		t.Error("the log repeats the environment")
	}
}

// A collector that is not there, or hangs, costs no request anything but its
// span; it is told once, and the end is not held up.
func TestCollectorDown(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(over) })
	scold := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "what is "+r.Header.Get("Authorization"), http.StatusUnauthorized)
	}))
	t.Cleanup(scold.Close)
	for name, tt := range map[string]struct{ endpoint, reason string }{
		"nobody listens": {"http://" + freeAddress(t), "connection refused"},
		"it hangs":       {hangs.URL, "in time"},
		"it refuses":     {scold.URL, "status 401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
			p := newPlace(t)
			p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue+"routes: [{path: /, access: public}]\n"+
				fmt.Sprintf("tracing: {endpoint: %q, headers: {Authorization: a-token-of-the-collector}}\n", tt.endpoint))
			g := p.start(t)
			slowest, b := time.Duration(0), newBrowser(t)
			for range 3000 { // more than the queue holds
				began := time.Now()
				if page := get(t, b, g.url()+"/"); page.Status != http.StatusOK {
					t.Fatalf("status %d", page.Status)
				}
				slowest = max(slowest, time.Since(began))
			}
			if slowest > 3*time.Second {
				t.Errorf("a request took %s", slowest)
			}
			g.eventually("told", func() bool { return g.logged("spans not delivered", tt.reason) })
			began := time.Now()
			g.signal(syscall.SIGTERM)
			<-g.exited
			if took := time.Since(began); g.err != nil || took > 10*time.Second {
				t.Errorf("it took %s to end: %v", took, g.err)
			}
			if n := strings.Count(g.log.all(), "spans not delivered"); n != 1 {
				t.Errorf("told %d times", n)
			}
			if strings.Contains(g.log.all(), "a-token-of-the-collector") {
				t.Error("the log holds the collector's token")
			}
		})
	}
}
