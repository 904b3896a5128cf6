// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// prefix stands before every name of ours.
const prefix = "vsnat_"

// collector is the families over a snapshot.
type collector struct {
	snapshot   *Snapshot
	families   []described
	histograms []histogram
}

type described struct {
	family
	desc *prometheus.Desc
}

// histogram is a metric that is one.
type histogram struct {
	desc *prometheus.Desc
	of   func(s *Snapshot, emit func(h *Histogram, labels ...string))
}

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

func newCollector(s *Snapshot) *collector {
	c := &collector{snapshot: s}
	for _, f := range families() {
		c.families = append(c.families, described{f, describe(f.name, f.help, f.labels)})
	}
	c.histograms = []histogram{{
		describe("forwarding_seconds", "Time that a frame spends in the director: from the turn of the loop in which it is read until its batch is sent.", nil),
		func(s *Snapshot, emit func(*Histogram, ...string)) { emit(&s.Latency) },
	}, {
		describe("server_handshake_seconds", "Time from a SYN that went to a server to its SYN-ACK.", ofServer),
		func(s *Snapshot, emit func(*Histogram, ...string)) {
			s.handshakes(func(v *Server) { emit(&v.Handshake, v.Proto, v.Service, v.Server) })
		},
	}}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range c.families {
		to <- f.desc
	}
	for _, h := range c.histograms {
		to <- h.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.snapshot
	for i := range c.families {
		f := &c.families[i]
		f.collect(s, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, harmless(labels)...)
		})
	}
	for _, h := range c.histograms {
		h.of(s, func(v *Histogram, labels ...string) { to <- v.metric(h.desc, labels) })
	}
}

// harmless writes what a label can't hold, or what could command a terminal, as an
// escape: names of links are any bytes. Different ones stay different.
func harmless(labels []string) []string {
	for i, text := range labels {
		if strings.IndexFunc(text, func(r rune) bool { return r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) }) >= 0 {
			labels[i] = strings.Trim(strconv.QuoteToASCII(text), `"`)
		}
	}
	return labels
}

// metric is the histogram as Prometheus has it, whose buckets hold all below them.
func (h *Histogram) metric(desc *prometheus.Desc, labels []string) prometheus.Metric {
	below, buckets := uint64(0), make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		below += h.Counts[i]
		buckets[bound] = below
	}
	return prometheus.MustNewConstHistogram(desc, below+h.Counts[len(h.Bounds)], h.Sum, buckets, harmless(labels)...)
}
