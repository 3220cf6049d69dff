package app

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// metrics is the /metrics handler. No user, group, path or claim is a label:
// values are words of ours, statuses, and names that the configuration gives.
func (s *server) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{s})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// collector reads the counters that the parts keep anyway.
type collector struct{ s *server }

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("groupgate_"+name, help, labels, nil)
}

var (
	buildInfo        = metric("build_info", "1, with the version.", "version")
	requests         = metric("requests_total", "Requests of the public listener by class of status.", "class")
	durations        = metric("request_duration_seconds", "Time from a request's header to the end of its answer.")
	upstreamRequests = metric("upstream_requests_total", "Requests handed on, by the status the upstream answered with; 0: it gave no answer, 499: the client left before it could.", "code")
	upstreamTook     = metric("upstream_request_duration_seconds", "Time from handing a request on to the header of the upstream's answer.")
	logins           = metric("logins_total", "Logins by source, its protocol and outcome.", "provider", "protocol", "result")
	loginTook        = metric("login_duration_seconds", "Time from a source's answer (the callback) to ours, of logins of every outcome. The time a person takes there is not in it.")
	syncs            = metric("sync_total", "Syncs by outcome.", "result")
	syncChanges      = metric("sync_changes_total", "Memberships by what syncs did to them.", "op")
	syncUnknown      = metric("sync_incomplete_claims_total", "Syncs with a claim that was absent or unknown.")
	removalsWait     = metric("sync_removals_waiting", "Whether the guard has stopped removals, and they wait for an administrator.")
	syncLag          = metric("sync_lag_seconds", "Time from a source's statement, by its own clock, to the commit of its sync.")
	sessions         = metric("sessions_active", "Sessions in the store that are neither expired nor idle for too long. At most ten seconds old.")
	inMemory         = metric("sessions_in_memory", "Sessions that were used within the last ten minutes.")
	live             = metric("live_connections", "Open WebSockets and event streams.")
	dials            = metric("upstream_dials_total", "Connections made to upstreams. It does not grow in a steady state.")
	sourceReady      = metric("source_ready", "Whether the source can be signed in at.", "provider")
	metadataAge      = metric("idp_metadata_age_seconds", "Time since the source's signing keys (OIDC) or its metadata (SAML) were last read. Keys older than an hour are read again by the next login, metadata in the background.", "provider")
	certificateEnds  = metric("saml_certificate_expiry_timestamp_seconds", "When the first of the SAML source's signing certificates runs out that still holds.", "provider")
	metadataEnds     = metric("saml_metadata_expiry_timestamp_seconds", "When the SAML source's metadata expires (validUntil), and logins with it. Absent where it does not say.", "provider")
	tlsCertificate   = metric("tls_certificate_expiry_timestamp_seconds", "When the certificate for that host of ours runs out; 0: ACME has not brought one yet.", "host")
	libraryPanics    = metric("saml_library_panics_total", "SAML messages that were refused because a library failed on them.", "provider")
	targetWaiting    = metric("target_work_waiting", "People whom the target still has to be told of.", "target")
	targetParked     = metric("target_work_parked", "Of these, the ones the target refused again and again. Somebody has to look.", "target")
	targetOldest     = metric("target_work_oldest_seconds", "How long the oldest work has been waiting; 0: none is.", "target")
	targetPushes     = metric("target_pushes_total", "Attempts to tell the target of a person, by what came of them.", "target", "result")
	storeHealthy     = metric("store_healthy", "Whether the store answers and is up to date.")
	reloadOK         = metric("config_last_reload_successful", "Whether the last reading of the configuration was free of faults.")
	reloadAt         = metric("config_last_reload_success_timestamp_seconds", "When a configuration was last taken in.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, requests, durations, upstreamRequests, upstreamTook, logins, loginTook, syncs, syncChanges, syncUnknown, removalsWait, syncLag,
		sessions, inMemory, live, dials, sourceReady, metadataAge, certificateEnds, metadataEnds, tlsCertificate, libraryPanics, targetWaiting, targetParked, targetOldest, targetPushes, storeHealthy, reloadOK, reloadAt,
	} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	out := samples{ch}
	out.gauge(buildInfo, 1, Version)
	c.requests(out)
	c.people(out)
	out.gauge(inMemory, float64(s.proxy.Sessions()))
	out.gauge(live, float64(s.proxy.Live()))
	out.count(dials, s.proxy.Dials())
	for _, src := range s.sources.status() {
		out.gauge(sourceReady, boolean(src.Ready), src.Name)
	}
	s.sources.each(func(name string, src claims.Source) { sourceMetrics(out, s.dir.Now(), name, src) })
	for host, end := range s.certs.expiries(s.publicURL()) {
		out.gauge(tlsCertificate, float64(max(end.Unix(), 0)), host)
	}
	s.targetMetrics(out)
	out.gauge(storeHealthy, boolean(s.dir.Healthy() == nil))
	out.gauge(reloadOK, boolean(s.reloads.ok.Load()))
	out.gauge(reloadAt, float64(s.reloads.at.Load()))
}

// sourceMetrics is what one source knows of itself.
func sourceMetrics(out samples, now time.Time, name string, src claims.Source) {
	if a, ok := src.(claims.Ager); ok {
		if age, known := a.MetadataAge(now); known {
			out.gauge(metadataAge, age.Seconds(), name)
		}
	}
	if e, ok := src.(claims.Expirer); ok {
		certificate, metadata := e.Expires()
		if !certificate.IsZero() {
			out.gauge(certificateEnds, float64(certificate.Unix()), name)
		}
		if !metadata.IsZero() {
			out.gauge(metadataEnds, float64(metadata.Unix()), name)
		}
	}
	if p, ok := src.(interface{ Panics() int64 }); ok {
		out.count(libraryPanics, p.Panics(), name)
	}
}

func (c collector) requests(out samples) {
	p := &c.s.proxy.Stats
	for class := 1; class < len(p.Requests); class++ {
		out.count(requests, p.Requests[class].Load(), strconv.Itoa(class)+"xx")
	}
	out.histogram(durations, p.Took)
	for code := range p.Upstream {
		// Those that never came are left out, but for the one to alert on.
		if n := p.Upstream[code].Load(); n > 0 || code == 0 {
			out.count(upstreamRequests, n, strconv.Itoa(code))
		}
	}
	out.histogram(upstreamTook, p.UpstreamTook)
}

// people is what sources said of them and what came of it.
func (c collector) people(out samples) {
	for _, l := range c.s.proxy.Logins() {
		out.count(logins, l.OK.Load(), l.Source, l.Protocol, "ok")
		out.count(logins, l.Refused.Load(), l.Source, l.Protocol, "refused")
		out.count(logins, l.Failed.Load(), l.Source, l.Protocol, "failed")
		out.count(logins, l.Throttled.Load(), l.Source, l.Protocol, "throttled")
		out.count(logins, l.Unavailable.Load(), l.Source, l.Protocol, "unavailable")
	}
	out.histogram(loginTook, c.s.proxy.Stats.LoginTook)
	d := &c.s.dir.Stats
	out.count(syncs, d.Changed.Load(), "changed")
	out.count(syncs, d.Unchanged.Load(), "unchanged")
	out.count(syncs, d.Stale.Load(), "stale")
	out.count(syncs, d.Refused.Load(), "refused")
	out.count(syncs, d.Failed.Load(), "failed")
	out.count(syncChanges, d.Added.Load(), "added")
	out.count(syncChanges, d.Removed.Load(), "removed")
	out.count(syncChanges, d.Skipped.Load(), "skipped")
	out.count(syncChanges, d.Held.Load(), "held")
	out.count(syncUnknown, d.Unknown.Load())
	out.histogram(syncLag, d.Lag)
	// A store that cannot count has store_healthy to say so; a stale number
	// would look like a fresh one.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if n, err := c.s.dir.ActiveSessions(ctx, c.s.cfg.Load().Session.Idle); err == nil {
		out.gauge(sessions, float64(n))
	}
	if waits, err := c.s.dir.RemovalsWait(ctx); err == nil {
		out.gauge(removalsWait, boolean(waits))
	}
}

// samples is where a scrape's values go.
type samples struct{ ch chan<- prometheus.Metric }

func (o samples) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (o samples) count(d *prometheus.Desc, v int64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (o samples) histogram(d *prometheus.Desc, h *groups.Histogram) {
	within, count, sum := h.Read()
	buckets := make(map[float64]uint64, len(within))
	for bound, n := range within {
		buckets[bound.Seconds()] = n
	}
	o.ch <- prometheus.MustNewConstHistogram(d, count, sum.Seconds(), buckets)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
