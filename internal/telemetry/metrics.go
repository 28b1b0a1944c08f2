package telemetry

import (
	"net/http"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// Other is counted in place of a label's value that is not in its set.
	Other = "other"
	// maxLabels is how many labels one metric has at most.
	maxLabels = 3
	// maxScrapes is how many scrapes are answered at once: one collector, its
	// double, and somebody with curl.
	maxScrapes = 4
)

// Build says what this binary is.
type Build struct{ Version, Revision string }

// Metrics is a registry of our own; nothing is registered globally. Metrics
// are made once, when a room is built: the same name twice panics.
type Metrics struct{ registry *prometheus.Registry }

// NewMetrics makes a registry with the process's own figures and build_info.
func NewMetrics(build Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.GaugeFunc("countersign_build_info", "What this binary is; always 1.",
		map[string]string{"version": build.Version, "revision": build.Revision, "goversion": runtime.Version()},
		func() float64 { return 1 })
	return m
}

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// Label is a metric's label with all values that it can have.
type Label struct {
	Name   string
	Values []string
}

// Counter counts by labels.
type Counter struct{ series[prometheus.Counter] }

// Counter makes a counter. Its name ends in _total.
func (m *Metrics) Counter(name, help string, labels ...Label) *Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, names(labels))
	m.registry.MustRegister(vec)
	return &Counter{newSeries(labels, vec.WithLabelValues)}
}

// Inc counts one. It takes the labels' values in the order of their declaration.
func (c *Counter) Inc(values ...string) { c.of(values).Inc() }

// Gauge is a figure that goes up and down, by labels.
type Gauge struct{ series[prometheus.Gauge] }

// Gauge makes a gauge.
func (m *Metrics) Gauge(name, help string, labels ...Label) *Gauge {
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, names(labels))
	m.registry.MustRegister(vec)
	return &Gauge{newSeries(labels, vec.WithLabelValues)}
}

// Set sets the figure.
func (g *Gauge) Set(v float64, values ...string) { g.of(values).Set(v) }

// Add adds to the figure; a negative v takes away.
func (g *Gauge) Add(v float64, values ...string) { g.of(values).Add(v) }

// Histogram counts durations or sizes in buckets, by labels.
type Histogram struct{ series[prometheus.Observer] }

// Histogram makes a histogram.
func (m *Metrics) Histogram(name, help string, buckets []float64, labels ...Label) *Histogram {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, names(labels))
	m.registry.MustRegister(vec)
	return &Histogram{newSeries(labels, vec.WithLabelValues)}
}

// Observe counts v in its bucket.
func (h *Histogram) Observe(v float64, values ...string) { h.of(values).Observe(v) }

// GaugeFunc shows what read gives, with labels that never change.
func (m *Metrics) GaugeFunc(name, help string, labels map[string]string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// Figure describes gauges of one name, by labels whose values are not known before.
type Figure struct {
	Name, Help string
	Labels     []string
}

// Collect shows figures that are read together at each scrape. Who reads them bounds
// how many there are.
func (m *Metrics) Collect(figures []Figure, read func(show func(name string, v float64, values ...string))) {
	c := collector{map[string]*prometheus.Desc{}, read}
	for _, f := range figures {
		c.descriptions[f.Name] = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
	}
	m.registry.MustRegister(c)
}

// collector implements prometheus.Collector.
type collector struct {
	descriptions map[string]*prometheus.Desc
	read         func(func(string, float64, ...string))
}

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descriptions {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	c.read(func(name string, v float64, values ...string) {
		to <- prometheus.MustNewConstMetric(c.descriptions[name], prometheus.GaugeValue, v, values...)
	})
}

// CounterFunc shows what read gives, which never goes down.
func (m *Metrics) CounterFunc(name, help string, labels map[string]string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// CacheStats is how a cache fares, since it was made.
type CacheStats struct {
	Hits, Misses, Evictions uint64
	Bytes                   int64
	Entries                 int
}

// Cache shows how the named cache fares.
func (m *Metrics) Cache(name string, read func() CacheStats) {
	cache := map[string]string{"cache": name}
	m.CounterFunc("countersign_cache_hits_total", "Look-ups that found something.", cache,
		func() float64 { return float64(read().Hits) })
	m.CounterFunc("countersign_cache_misses_total", "Look-ups that found nothing.", cache,
		func() float64 { return float64(read().Misses) })
	m.CounterFunc("countersign_cache_evictions_total", "Entries that went to make room.", cache,
		func() float64 { return float64(read().Evictions) })
	m.GaugeFunc("countersign_cache_bytes", "Bytes held, as the cache counts them.", cache,
		func() float64 { return float64(read().Bytes) })
	m.GaugeFunc("countersign_cache_entries", "Entries held.", cache,
		func() float64 { return float64(read().Entries) })
}

func names(labels []Label) []string {
	list := make([]string, len(labels))
	for i, label := range labels {
		list[i] = label.Name
	}
	return list
}

// series finds a metric's series by the values of its labels, without
// allocating once it exists.
type series[M any] struct {
	labels []Label
	create func(...string) M
	mu     *sync.RWMutex // guards made
	made   map[[maxLabels]string]M
}

func newSeries[M any](labels []Label, create func(...string) M) series[M] {
	return series[M]{labels: labels, create: create, mu: &sync.RWMutex{}, made: map[[maxLabels]string]M{}}
}

func (s *series[M]) of(values []string) M {
	var key [maxLabels]string
	copy(key[:len(s.labels)], values)
	if metric, ok := s.known(key); ok { // only series of values in the sets are
		return metric
	}
	for i, label := range s.labels {
		if !slices.Contains(label.Values, key[i]) {
			key[i] = Other
		}
	}
	if metric, ok := s.known(key); ok {
		return metric
	}
	return s.add(key)
}

func (s *series[M]) known(key [maxLabels]string) (M, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	metric, ok := s.made[key]
	return metric, ok
}

func (s *series[M]) add(key [maxLabels]string) M {
	s.mu.Lock()
	defer s.mu.Unlock()
	metric := s.create(key[:len(s.labels)]...)
	s.made[key] = metric
	return metric
}
