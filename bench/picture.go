// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// drawn are the peers of the picture, with their colours.
var drawn = []struct{ name, colour string }{
	{"vsnat", "#0b7285"}, {"haproxy", "#adb5bd"}, {"nginx", "#ced4da"},
}

// picture draws how each peer compares with the kernel's NAT, which is the line at 1:
// a longer bar is better, also where less is.
func (r *report) picture() string {
	const (
		label, unit = 190, 260.0 // pixels: the names, and a ratio of 1
		bar, gap    = 12, 14
		longest     = 2.0
	)
	result := r.result()
	var b strings.Builder
	y := 50
	for _, line := range result.Rows {
		if strings.HasSuffix(line.Load, "p99.9") || len(line.ToKernel) == 0 {
			continue
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", label-8, y+bar, html.EscapeString(line.Load))
		for _, d := range drawn {
			v, ok := line.ToKernel[d.name]
			if !ok || v == 0 || !slices.Contains(result.Peers, d.name) {
				continue
			}
			if line.Less {
				v = 1 / v
			}
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/>`+"\n", label, y, min(v, longest)*unit, bar-1, d.colour)
			fmt.Fprintf(&b, `<text x="%.0f" y="%d" class="n">%.2f</text>`+"\n", label+min(v, longest)*unit+4, y+bar-2, v)
			y += bar
		}
		y += gap
	}
	width := label + int(longest*unit) + 50
	var head strings.Builder
	fmt.Fprintf(&head, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", width, y+30)
	head.WriteString("<style>.n{font-size:10px;fill:#495057}</style>\n")
	fmt.Fprintf(&head, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, y+30)
	x := label
	for _, d := range drawn {
		fmt.Fprintf(&head, `<rect x="%d" y="16" width="12" height="12" fill="%s"/><text x="%d" y="27">%s</text>`+"\n", x, d.colour, x+17, d.name)
		x += 90
	}
	at := label + int(unit)
	fmt.Fprintf(&b, `<line x1="%d" y1="38" x2="%d" y2="%d" stroke="#c92a2a" stroke-dasharray="4 3"/>`+"\n", at, at, y)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#c92a2a">the kernel's NAT</text>`+"\n", at, y+16)
	return head.String() + b.String() + "</svg>\n"
}
