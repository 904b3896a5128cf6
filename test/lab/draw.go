// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// A cell is one node of a picture: its name and what stands below it.
type cell struct{ name, addr string }

// cellWidth is the distance of two nodes of a row; drawn is how many of a row are
// shown before the middle is left out.
const (
	cellWidth = 18
	drawn     = 4
)

// Draw returns the topology of a configuration as a picture, with a newline at
// its end. Of many servers or clients the first two and the last are shown.
func Draw(config Config) (string, error) {
	c, err := config.complete()
	if err != nil {
		return "", err
	}

	a := c.plan()
	clients := row(c.Clients, func(i int) cell {
		return cell{numbered("client", i), c.ClientAddr(i).String()}
	})
	servers := row(c.Servers, func(i int) cell {
		return cell{fmt.Sprintf("rs%d", i), c.ServerAddr(i).String()}
	})
	box := directorBox(c)
	p := picture{axis: max(len(clients)*cellWidth, len(servers)*cellWidth, 4+textWidth(box...)) / 2}

	if c.Far {
		p.nodes([]cell{{"far", a.farHost.String()}})
		p.wire(a.farNet)
	}
	p.nodes(clients)
	p.comb(len(clients), "└┴┘", "┬")
	if c.Router {
		p.wire(a.behindRouter)
		p.nodes([]cell{{"router", fmt.Sprintf("%v / %v", a.routerOutside, a.routerInside)}})
	}
	p.wire(a.outside)
	p.box("director", box)
	p.wire(a.inside)
	p.comb(len(servers), "┌┬┐", "┴")
	p.nodes(servers)
	return p.String(), nil
}

// directorBox is what the director's box says: a line for each address.
func directorBox(c Config) []string {
	type place struct{ link, note string }
	inner := "eth1"
	if c.OneArm {
		inner = "eth0"
	}
	places := map[HostAddresses]struct{ own, vip, gateway place }{
		HostBesideVIP:     {place{"eth0", ""}, place{"vsnat", "VIP"}, place{inner, "gateway"}},
		HostVIPOnNIC:      {place{}, place{"eth0", "VIP"}, place{inner, "gateway"}},
		HostVIPOnLoopback: {place{"eth0", ""}, place{"lo", "VIP"}, place{inner, "gateway"}},
		HostBare:          {place{}, place{"vsnat", "VIP"}, place{"vsnat", "gateway"}},
	}[c.Host]

	a := c.plan()
	width := len(a.vip.String()) + 1 // no address is longer
	var lines []string
	for _, l := range []struct {
		place
		addr netip.Addr
	}{{places.own, a.directorOwn}, {places.vip, a.vip}, {places.gateway, a.gateway}} {
		if l.link != "" {
			lines = append(lines, fmt.Sprintf("%-6s %-*v %-7s", l.link, width, l.addr, l.note))
		}
	}
	return lines
}

// row makes the cells of n nodes, counted from 1.
func row(n int, at func(i int) cell) []cell {
	var cells []cell
	for i := 1; i <= n; i++ {
		if n > drawn && i > 2 && i < n {
			continue
		}
		if n > drawn && i == n {
			cells = append(cells, cell{"…", "…"})
		}
		cells = append(cells, at(i))
	}
	return cells
}

// A picture is drawn line by line from top to bottom; everything is centred on
// the column axis.
type picture struct {
	strings.Builder
	axis int
}

// place is the column of node i of n in a row.
func (p *picture) place(i, n int) int { return p.axis + (2*i-n+1)*cellWidth/2 }

func (p *picture) nodes(cells []cell) {
	name, addr := newLine(), newLine()
	for i, c := range cells {
		name.centre(p.place(i, len(cells)), c.name)
		addr.centre(p.place(i, len(cells)), c.addr)
	}
	p.add(name)
	p.add(addr)
}

// wire draws the line between two rows, with the network's name beside it.
func (p *picture) wire(network netip.Prefix) {
	l := newLine()
	l.put(p.axis, "│ "+network.String())
	p.add(l)
}

// comb draws the wires from n nodes of a row to the axis: teeth are those of the
// first, the middle and the last node, back is where the axis leaves between two
// nodes.
func (p *picture) comb(n int, teeth, back string) {
	if n == 1 {
		return
	}
	t := []rune(teeth)
	l := newLine()
	first, last := p.place(0, n), p.place(n-1, n)
	l.put(first, strings.Repeat("─", last-first))
	l.put(p.axis, back)
	for i := range n {
		tooth := t[1]
		if i == 0 {
			tooth = t[0]
		}
		if i == n-1 {
			tooth = t[2]
		}
		if p.place(i, n) == p.axis {
			l.put(p.axis, "┼")
			continue
		}
		l.put(p.place(i, n), string(tooth))
	}
	p.add(l)
}

// box draws lines of text in a frame with a title, through which the axis goes.
func (p *picture) box(title string, text []string) {
	width := textWidth(text...)
	left := p.axis - width/2 - 2

	frame := func(corners, crossing, title string) {
		c := []rune(corners)
		l := newLine()
		l.put(left, string(c[0])+strings.Repeat("─", width+2)+string(c[1]))
		l.put(left+2, title)
		l.put(p.axis, crossing)
		p.add(l)
	}
	frame("┌┐", "┴", " "+title+" ")
	for _, t := range text {
		l := newLine()
		l.put(left, "│ "+t)
		l.put(left+width+3, "│")
		p.add(l)
	}
	frame("└┘", "┬", "")
}

func (p *picture) add(l *line) {
	p.WriteString(strings.TrimRight(string(l.cells), " "))
	p.WriteByte('\n')
}

// A line is one row of characters that can be overwritten.
type line struct{ cells []rune }

func newLine() *line { return &line{} }

// put writes s from a column on; what would be left of column 0 is cut.
func (l *line) put(column int, s string) {
	for i, r := range []rune(s) {
		at := column + i
		if at < 0 {
			continue
		}
		for len(l.cells) <= at {
			l.cells = append(l.cells, ' ')
		}
		l.cells[at] = r
	}
}

func (l *line) centre(column int, s string) { l.put(column-len([]rune(s))/2, s) }

// textWidth is the width of the longest of some lines, in characters.
func textWidth(lines ...string) int {
	width := 0
	for _, l := range lines {
		width = max(width, len([]rune(l)))
	}
	return width
}
