// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// maxScrapes is how many are answered at a time.
const maxScrapes = 4

// Source makes a snapshot.
type Source func(context.Context) (*Snapshot, error)

// Exposition writes what a source says, what the Go runtime does and what the
// process uses. It is safe for concurrent use.
type Exposition struct {
	source  Source
	process *prometheus.Registry
	places  chan struct{}
}

// New makes an exposition of a source.
func New(source Source) *Exposition {
	e := &Exposition{source: source, process: prometheus.NewRegistry(), places: make(chan struct{}, maxScrapes)}
	e.process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return e
}

// Write writes all metrics in the text format of Prometheus. Nothing is written if
// the source fails; who finds all places taken waits for one as long as ctx.
func (e *Exposition) Write(ctx context.Context, w io.Writer) error {
	select {
	case e.places <- struct{}{}:
		defer func() { <-e.places }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s, err := e.source(ctx)
	if err != nil {
		return err
	}
	ours := prometheus.NewRegistry()
	if err := ours.Register(newCollector(s)); err != nil {
		return err
	}
	families, err := prometheus.Gatherers{ours, e.process}.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return err
		}
	}
	return nil
}
