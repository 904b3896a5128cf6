// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A sample is what one peer did with one load in one round.
type sample struct {
	figures           map[string]float64
	machine, director float64 // processor time of an operation, in microseconds
	failed            int     // connections that did not come about
}

// A report collects samples.
type report struct {
	peers   []*peer
	loads   []*load
	options compareOptions
	samples map[*peer]map[*load][]sample
}

func newReport(peers []*peer, loads []*load, o compareOptions) *report {
	r := &report{peers: peers, loads: loads, options: o, samples: make(map[*peer]map[*load][]sample)}
	for _, p := range peers {
		r.samples[p] = make(map[*load][]sample)
	}
	return r
}

func (r *report) note(p *peer, l *load, s sample) { r.samples[p][l] = append(r.samples[p][l], s) }

// A result is the whole of a report, as it is written in JSON.
type result struct {
	Machine string   `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"`
	Peers   []string `json:"peers"`
	Rows    []row    `json:"rows"`
	Notes   []string `json:"notes,omitempty"` // who did not carry what, and why
}

// A row is one figure of one load.
type row struct {
	Load      string          `json:"load"`                // with the name of the figure
	About     string          `json:"about"`               // the same in words
	Unit      string          `json:"unit"`                //
	Less      bool            `json:"less,omitempty"`      // less is better
	Operation string          `json:"operation,omitempty"` // what processor time is for; of a load's first row
	Peers     map[string]cell `json:"peers"`
	// Ratios of medians, for each peer: to the kernel's NAT, and to the better of the
	// proxies. Absent where one of both is.
	ToKernel map[string]float64 `json:"to-kernel,omitempty"`
	ToProxy  map[string]float64 `json:"to-proxy,omitempty"`
}

// A cell is what one peer did in all rounds.
type cell struct {
	Median float64   `json:"median"`
	Values []float64 `json:"values"` // in the order of the rounds
	// Processor time of one operation, in microseconds, medians: of the whole machine, and
	// of the process that is the peer.
	Machine  float64 `json:"machine-us,omitempty"`
	Director float64 `json:"director-us,omitempty"`
}

// spread is how far apart the rounds were, as a part of the median.
func (c cell) spread() float64 {
	if c.Median == 0 {
		return 0
	}
	return (slices.Max(c.Values) - slices.Min(c.Values)) / c.Median
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

func (r *report) result() result {
	out := result{Machine: machine(), Rounds: r.options.rounds, Seconds: r.options.seconds, Notes: r.notes()}
	for _, p := range r.peers {
		out.Peers = append(out.Peers, p.name)
	}
	for _, l := range r.loads {
		for i, f := range l.figures {
			line := row{Load: l.name + f.name, About: l.about, Unit: f.unit, Less: f.less, Peers: make(map[string]cell)}
			if f.about != "" {
				line.About += ", " + f.about
			}
			if i == 0 {
				line.Operation = l.operation
			}
			for _, p := range r.peers {
				var values, all, own []float64
				for _, s := range r.samples[p][l] {
					if v, ok := s.figures[f.key]; ok {
						values = append(values, v)
						all, own = append(all, s.machine), append(own, s.director)
					}
				}
				if len(values) > 0 {
					line.Peers[p.name] = cell{Median: median(values), Values: values, Machine: median(all), Director: median(own)}
				}
			}
			line.compare()
			out.Rows = append(out.Rows, line)
		}
	}
	return out
}

// notes tell who would carry a load and can't here, and what is not as it should be.
func (r *report) notes() (list []string) {
	for _, l := range r.loads {
		for _, p := range r.peers {
			if why := p.refuses(l); why != "" && p.holds != nil {
				list = append(list, fmt.Sprintf("%s, %s: %s", p.name, l.name, why))
			}
			failed := 0
			for _, s := range r.samples[p][l] {
				failed += s.failed
			}
			if failed > 0 {
				list = append(list, fmt.Sprintf("%s, %s: %d connections did not come about", p.name, l.name, failed))
			}
		}
	}
	return list
}

// compare fills in the ratios.
func (r *row) compare() {
	best := 0.0
	for _, name := range proxies {
		if c, ok := r.Peers[name]; ok && (best == 0 || c.Median > best != r.Less) {
			best = c.Median
		}
	}
	r.ToKernel, r.ToProxy = make(map[string]float64), make(map[string]float64)
	for name, c := range r.Peers {
		if k := r.Peers[kernelPeer].Median; k > 0 {
			r.ToKernel[name] = c.Median / k
		}
		if best > 0 {
			r.ToProxy[name] = c.Median / best
		}
	}
}

func ratio(m map[string]float64, name string) string {
	if v, ok := m[name]; ok {
		return fmt.Sprintf("%.2f", v)
	}
	return "–"
}

// number has three digits that count.
func number(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(v)))), v)
}

// machine is one line about where this was measured.
func machine() string {
	model := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release := "?"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	// What paces the bulk loads: new namespaces have it from this one.
	control := "?"
	if text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		control = strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%s, %d processors, Linux %s, TCP %s, %s", model, runtime.NumCPU(), release, control, runtime.Version())
}
