// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"net/netip"
	"os"
	"slices"

	"github.com/google/gopacket"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/iface"
)

// answers are what came back.
type answers struct {
	stations map[place][][6]byte // who answers for an address on a link
	servers  map[netip.Addr]*serverAnswers
}

// place is an address on the link with this index.
type place struct {
	link int
	addr netip.Addr
}

// portAnswer is what a SYN brought.
type portAnswer uint8

const (
	silent portAnswer = iota
	refused
	accepted
)

// heard is what was heard when one address of ours asked.
type heard struct {
	echo  bool
	large bool // an echo as large as the link takes
	ports map[uint16]portAnswer
}

func (h *heard) anything() bool {
	for _, a := range h.ports {
		if a != silent {
			return true
		}
	}
	return h.echo
}

// serverAnswers is what a server said.
type serverAnswers struct {
	inside, outside heard               // to an address of ours in its network, and outside
	virtual         map[netip.Addr]bool // in the name of a virtual address
}

func (a *serverAnswers) heardInside() bool  { return a.inside.anything() }
func (a *serverAnswers) heardOutside() bool { return a.outside.anything() }

// maxAsked bounds how many servers are asked: each takes a few ports of probes.
const maxAsked = 400

// asker makes probes.
type asker struct {
	wires   map[int]*wire // by index of the link
	probes  []*probe
	answers answers
	id      uint16 // of echoes
	number  uint16 // of the last probe
}

// ask sends all probes of a plan, first those for stations.
func ask(ctx context.Context, p *plan) (answers, error) {
	a := &asker{
		wires:   make(map[int]*wire),
		answers: answers{stations: make(map[place][][6]byte), servers: make(map[netip.Addr]*serverAnswers)},
		id:      uint16(os.Getpid()),
	}
	defer func() {
		for _, w := range a.wires {
			w.close()
		}
	}()
	servers := p.servers[:min(len(p.servers), maxAsked)]
	if err := a.askStations(ctx, p, servers); err != nil {
		return a.answers, err
	}
	a.probes = nil
	for _, s := range servers {
		a.askServer(s)
	}
	if err := a.exchange(ctx, false); err != nil {
		return a.answers, err
	}
	return a.answers, nil
}

// askStations asks who has the servers' addresses, or those of the routers before
// them, and who has ours.
func (a *asker) askStations(ctx context.Context, p *plan, servers []*server) error {
	asked := make(map[place]bool)
	who := func(l iface.Link, from, target netip.Addr, must bool) error {
		at := place{l.Index, target}
		if l.Index == 0 || !l.Ethernet || !l.Up || asked[at] {
			return nil
		}
		asked[at] = true
		w, err := a.wire(l)
		if err != nil {
			return err
		}
		a.probes = append(a.probes, &probe{wire: w, frame: question(l, from, target), answered: !must, match: func(p gopacket.Packet) bool {
			mac, ok := stationOf(p, target)
			if ok && !slices.Contains(a.answers.stations[at], mac) {
				a.answers.stations[at] = append(a.answers.stations[at], mac)
			}
			return ok
		}})
		if !must {
			return a.probes[len(a.probes)-1].send() // silence is what is hoped for
		}
		return nil
	}
	for _, s := range servers {
		if err := who(s.link, s.inside, s.hop, true); err != nil {
			return err
		}
	}
	for _, o := range p.ours {
		if err := who(o.link, netip.Addr{}, o.addr, false); err != nil {
			return err
		}
	}
	for _, s := range servers {
		for _, vip := range s.virtual {
			if err := who(s.link, netip.Addr{}, vip, false); err != nil {
				return err
			}
		}
	}
	return a.exchange(ctx, true)
}

func (a *asker) wire(l iface.Link) (*wire, error) {
	if w := a.wires[l.Index]; w != nil {
		return w, nil
	}
	w, err := openWire(l)
	if err == nil {
		a.wires[l.Index] = w
	}
	return w, err
}

func (a *asker) exchange(ctx context.Context, stations bool) error {
	var wires []*wire
	for _, w := range a.wires {
		wires = append(wires, w)
	}
	if stations {
		return exchange(ctx, wires, a.probes, secondSay)
	}
	return exchange(ctx, wires, a.probes, 0)
}

// askServer makes the probes for one server whose station is known.
func (a *asker) askServer(s *server) {
	w, macs := a.wires[s.link.Index], a.answers.stations[s.station()]
	if w == nil {
		return
	}
	said := &serverAnswers{virtual: make(map[netip.Addr]bool)}
	a.answers.servers[s.addr] = said
	if len(macs) == 0 {
		return
	}
	for _, side := range []struct {
		from netip.Addr
		to   *heard
	}{{s.inside, &said.inside}, {s.outside, &said.outside}} {
		if !side.from.IsValid() {
			continue
		}
		side.to.ports = make(map[uint16]portAnswer)
		way := path{link: s.link, mac: macs[0], from: side.from, to: s.addr}
		a.echo(w, way, 64, &side.to.echo)
		if side.to == &said.inside {
			a.echo(w, way, s.link.MTU, &side.to.large)
		}
		for _, p := range s.ports {
			if p.Proto == control.TCP {
				a.syn(w, way, p.Address.Port(), func(got portAnswer) { side.to.ports[p.Address.Port()] = got })
			}
		}
	}
	for _, vip := range s.virtual {
		if s.inside.IsValid() {
			const anyPort = 9 // refused is as good as accepted
			a.syn(w, path{link: s.link, mac: macs[0], from: s.inside, to: vip}, anyPort, func(portAnswer) { said.virtual[vip] = true })
		}
	}
}

func (a *asker) echo(w *wire, way path, size int, got *bool) {
	a.number++
	id, number := a.id, a.number
	a.probes = append(a.probes, &probe{wire: w, frame: way.echo(id, number, size), match: func(p gopacket.Packet) bool {
		i, n, ok := echoOf(p)
		if ok = ok && i == id && n == number; ok {
			*got = true
		}
		return ok
	}})
}

// syn asks a port for a connection, and ends what it began.
func (a *asker) syn(w *wire, way path, port uint16, got func(portAnswer)) {
	a.number++
	from := netip.AddrPortFrom(way.from, probePorts|a.number%maxProbePorts)
	to := netip.AddrPortFrom(way.to, port)
	const seq = 0x7fffffff
	a.probes = append(a.probes, &probe{wire: w, frame: way.segment(from.Port(), port, seq, false), match: func(p gopacket.Packet) bool {
		src, dst, tcp := segmentOf(p)
		if tcp == nil || src != to || dst != from {
			return false
		}
		if tcp.SYN {
			got(accepted)
			end := probe{wire: w, frame: way.segment(from.Port(), port, seq+1, true)}
			_ = end.send() // it ends by itself a little later
		} else {
			got(refused)
		}
		return true
	}})
}
