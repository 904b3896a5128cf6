// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// A sample is what one peer did with one load in one round.
type sample struct {
	figures           map[string]float64
	machine, director float64 // processor time of an operation, in microseconds
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

// A result is the whole of a report as it is printed in JSON.
type result struct {
	Machine string   `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"`
	Peers   []string `json:"peers"`
	Rows    []row    `json:"rows"`
}

// A row is one figure of one load.
type row struct {
	Load  string          `json:"load"` // with the name of the figure
	About string          `json:"about"`
	Unit  string          `json:"unit"`
	Less  bool            `json:"less"` // less is better
	Peers map[string]cell `json:"peers"`
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
	Machine  float64 `json:"machine-us"`
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
	out := result{Machine: machine(), Rounds: r.options.rounds, Seconds: r.options.seconds}
	for _, p := range r.peers {
		out.Peers = append(out.Peers, p.name)
	}
	for _, l := range r.loads {
		for _, f := range l.figures {
			line := row{Load: l.name + f.name, About: l.about, Unit: f.unit, Less: f.less, Peers: make(map[string]cell)}
			for _, p := range r.peers {
				var values, all, own []float64
				for _, s := range r.samples[p][l] {
					values = append(values, s.figures[f.key])
					all, own = append(all, s.machine), append(own, s.director)
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

// print writes the table that people read.
func (r *report) print(w io.Writer) {
	result := r.result()
	fmt.Fprintf(w, "%s\n%d rounds, %g s each; medians\n\n", result.Machine, result.Rounds, result.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "load\tunit\t%s\t", strings.Join(result.Peers, "\t"))
	ours := result.Peers[0]
	fmt.Fprintf(t, "%s/%s\t/proxy\tspread\tµs\t\n", ours, kernelPeer)
	for _, line := range result.Rows {
		fmt.Fprintf(t, "%s\t%s\t", line.Load, line.Unit)
		for _, name := range result.Peers {
			fmt.Fprintf(t, "%s\t", number(line.Peers[name].Median))
		}
		c := line.Peers[ours]
		fmt.Fprintf(t, "%s\t%s\t%.0f%%\t%s\t\n", ratio(line.ToKernel, ours), ratio(line.ToProxy, ours), 100*c.spread(), number(c.Machine))
	}
	t.Flush()
	fmt.Fprintf(w, "\nLess is better where the unit is µs. spread: of the rounds of %s, as a part of its median.\n"+
		"The last column is the machine's processor time for one operation (request, datagram, megabyte) with %[1]s.\n", ours)
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
	return fmt.Sprintf("%s, %d processors, Linux %s, %s", model, runtime.NumCPU(), release, runtime.Version())
}
