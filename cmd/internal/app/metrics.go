package app

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/groupgate/groupgate/proxy"
)

// metrics is the /metrics handler. No user, group, path or claim is a label.
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
	buildInfo    = metric("build_info", "1, with the version.", "version")
	requests     = metric("requests_total", "Requests of the public listener by class of status.", "class")
	durations    = metric("request_duration_seconds", "Time from a request's headers to the end of its answer.")
	logins       = metric("logins_total", "Logins by outcome.", "result")
	syncs        = metric("sync_total", "Syncs by outcome.", "result")
	syncChanges  = metric("sync_changes_total", "Memberships by what syncs did to them.", "op")
	syncUnknown  = metric("sync_incomplete_claims_total", "Syncs with a claim that was absent or unknown.")
	inMemory     = metric("sessions_in_memory", "Sessions that were used within the last ten minutes.")
	live         = metric("live_connections", "Open WebSockets and event streams.")
	dials        = metric("upstream_dials_total", "Connections made to upstreams. It does not grow in a steady state.")
	sourceReady  = metric("source_ready", "Whether the source can be signed in at.", "source")
	storeHealthy = metric("store_healthy", "Whether the store answers and is up to date.")
	reloadOK     = metric("config_last_reload_successful", "Whether the last reading of the configuration was free of faults.")
	reloadAt     = metric("config_last_reload_success_timestamp_seconds", "When a configuration was last taken in.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, requests, durations, logins, syncs, syncChanges, syncUnknown, inMemory, live, dials,
		sourceReady, storeHealthy, reloadOK, reloadAt,
	} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(buildInfo, 1, Version)
	p := &s.proxy.Stats
	for class, name := range []string{1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"} {
		if name != "" {
			count(requests, p.Requests[class].Load(), name)
		}
	}
	ch <- duration(p)
	count(logins, p.Logins.OK.Load(), "ok")
	count(logins, p.Logins.Refused.Load(), "refused")
	count(logins, p.Logins.Failed.Load(), "failed")
	count(logins, p.Logins.Unavailable.Load(), "unavailable")
	d := &s.dir.Stats
	count(syncs, d.Syncs.Load()-d.Unchanged.Load(), "changed")
	count(syncs, d.Unchanged.Load(), "unchanged")
	count(syncChanges, d.Added.Load(), "added")
	count(syncChanges, d.Removed.Load(), "removed")
	count(syncChanges, d.Skipped.Load(), "skipped")
	count(syncChanges, d.Held.Load(), "held")
	count(syncUnknown, d.Unknown.Load())
	gauge(inMemory, float64(s.proxy.Sessions()))
	gauge(live, float64(s.proxy.Live()))
	count(dials, s.proxy.Dials())
	for _, src := range s.sources.status() {
		gauge(sourceReady, boolean(src.Ready), src.Name)
	}
	gauge(storeHealthy, boolean(s.dir.Healthy() == nil))
	gauge(reloadOK, boolean(s.reloads.ok.Load()))
	gauge(reloadAt, float64(s.reloads.at.Load()))
}

func duration(p *proxy.Stats) prometheus.Metric {
	buckets := map[float64]uint64{}
	var total uint64
	for i := range p.Took {
		total += uint64(p.Took[i].Load())
		if i < len(proxy.TookBounds) {
			buckets[proxy.TookBounds[i]] = total
		}
	}
	return prometheus.MustNewConstHistogram(durations, total, float64(p.TookSum.Load())/1e9, buckets)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
