// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// drawn are the peers of the picture, with the class of their bars.
var drawn = []struct{ name, class string }{
	{"vsnat", "a"}, {"vsnat-tun", "b"}, {"haproxy", "c"}, {"nginx", "d"},
}

// Sizes of the picture, in pixels.
const (
	drawLabel   = 400 // of the names
	drawUnit    = 250 // of a ratio of 1
	drawLongest = 2.2 // ratio, longer bars are cut
	drawBar     = 13
	drawGap     = 10
	drawHead    = 76
	drawWidth   = drawLabel + drawUnit*drawLongest + 60
)

// drawStyle has the colours, for who reads on white and for who reads on black.
const drawStyle = `<style>
.g{fill:#fff}text{fill:#212529}.n{font-size:10px;fill:#495057}.l{stroke:#c92a2a}.k{fill:#c92a2a}
.w{stroke:#212529}.a{fill:#0b7285}.b{fill:#66b5c4}.c{fill:#868e96}.d{fill:#ced4da}
@media (prefers-color-scheme:dark){
.g{fill:#0d1117}text{fill:#e6edf3}.n{fill:#b1bac4}.l{stroke:#ff8787}.k{fill:#ff8787}
.w{stroke:#e6edf3}.a{fill:#22b8cf}.b{fill:#15677a}.c{fill:#868e96}.d{fill:#495057}}
</style>
`

// picture draws how each peer compares with the kernel's NAT, which is the line at 1: a
// longer bar is better, also where less is. A thin line goes from the worst round to the
// best. What a bar says stands in its title as well.
func (r *result) picture() string {
	var bars strings.Builder
	y := drawHead
	for _, line := range r.Rows {
		if len(line.ToKernel) < 2 || strings.HasSuffix(line.Load, "p99.9") || line.Unit == "MiB" {
			continue
		}
		top := y
		for _, d := range drawn {
			if v, ok := line.ToKernel[d.name]; ok && v > 0 {
				line.draw(&bars, d.name, d.class, y)
				y += drawBar
			}
		}
		if y > top {
			fmt.Fprintf(&bars, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", drawLabel-8, (top+y)/2+4, html.EscapeString(line.About))
			y += drawGap
		}
	}

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%[1]g" height="%[2]d" font-family="sans-serif" font-size="12" role="img" aria-labelledby="t d">`+"\n", float64(drawWidth), y+34)
	fmt.Fprintf(&b, "<title id=\"t\">vsnat and proxies, compared with the kernel's NAT</title>\n<desc id=\"d\">%s</desc>\n", html.EscapeString(r.inWords()))
	b.WriteString(drawStyle)
	fmt.Fprintf(&b, `<rect class="g" width="100%%" height="100%%"/>`+"\n")
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="15">How each compares with the kernel's NAT: longer is better</text>`+"\n", 16)
	fmt.Fprintf(&b, `<text x="%d" y="40" class="n">%s</text>`+"\n", 16, html.EscapeString(r.Machine+"; "+r.effort()))
	x := drawLabel
	for _, d := range drawn {
		if slices.Contains(r.Peers, d.name) {
			fmt.Fprintf(&b, `<rect x="%d" y="52" width="12" height="12" class="%s"/><text x="%d" y="62">%s</text>`+"\n", x, d.class, x+17, d.name)
			x += 100
		}
	}
	b.WriteString(bars.String())
	one := drawLabel + drawUnit
	fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" class="l" stroke-dasharray="4 3"/>`+"\n", one, drawHead-6, one, y)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" class="k">as the kernel's NAT</text>`+"\n", one, y+16)
	return b.String() + "</svg>\n"
}

// draw draws one bar.
func (r *row) draw(b *strings.Builder, name, class string, y int) {
	kernel, c := r.Peers[kernelPeer].Median, r.Peers[name]
	better := func(v float64) float64 { // than the kernel's NAT, if more than 1
		if r.Less {
			return kernel / v
		}
		return v / kernel
	}
	length := func(v float64) float64 { return min(v, drawLongest) * drawUnit }
	v := better(c.Median)
	least, most := better(slices.Min(c.Values)), better(slices.Max(c.Values))
	least, most = min(least, most), max(least, most)
	fmt.Fprintf(b, `<g><title>%s, %s: %s %s, %.2f times as good as the kernel's NAT, rounds %.2f to %.2f</title>`,
		name, html.EscapeString(r.About), number(c.Median), r.Unit, v, least, most)
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.0f" height="%d" class="%s"/>`, drawLabel, y, length(v), drawBar-2, class)
	middle := float64(y) + (drawBar-2)/2.0
	fmt.Fprintf(b, `<line x1="%.0f" y1="%.1f" x2="%.0f" y2="%[2]g" class="w"/>`, drawLabel+length(least), middle, drawLabel+length(most))
	fmt.Fprintf(b, `<text x="%.0f" y="%d" class="n">%.2f</text></g>`+"\n", drawLabel+length(max(v, most))+5, y+drawBar-4, v)
}

// inWords says what the picture shows of the first peer, for who can't see it.
func (r *result) inWords() string {
	ours := r.Peers[0]
	var parts []string
	for _, line := range r.Rows {
		if v, ok := line.ToKernel[ours]; ok && ours != kernelPeer && !strings.HasSuffix(line.Load, "p99.9") {
			parts = append(parts, fmt.Sprintf("%s %.2f", line.About, v))
		}
	}
	return fmt.Sprintf("Ratios of %s to the kernel's NAT: %s.", ours, strings.Join(parts, "; "))
}
