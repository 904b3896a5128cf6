// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// twins are two Forwarders that have seen the same packets: one takes the short way
// where it can, the other never.
type twins struct {
	short, long *script
	taken       int // packets that took the short way
}

// Packets of connections in the middle of their lives.
var common = []string{
	"tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=5001 ack=7001 win=500 data=100",
	"tcp 192.168.88.21:40000 > 192.168.88.23:80 PA seq=5101 ack=7001 data=60",
	"tcp 10.0.0.3:80 > 192.168.88.21:40000 PA seq=7001 ack=5001 data=100",
	"tcp 10.0.0.3:80 > 192.168.88.21:40000 A seq=7101 ack=5161 data=1000",
	"tcp 10.0.0.3:80 > 192.168.88.21:40000 A seq=8101 ack=5161 data=20000 gso=1340 sum=partial df",
	"udp 192.168.88.21:40000 > 192.168.88.23:53 data=9",
	"udp 10.0.0.2:5353 > 192.168.88.21:40000 data=9 sum=none",
	"udp 10.0.0.2:5353 > 192.168.88.21:40000 data=10 sum=partial",
	"udp 10.0.0.7:7000 > 203.0.113.9:9000 data=4",
	"udp 203.0.113.9:9000 > 192.168.88.23:7000 data=4",
	"tcp 10.0.0.7:7000 > 203.0.113.9:80 A seq=2 ack=12 data=50",
	"tcp 203.0.113.9:80 > 192.168.88.23:7000 A seq=12 ack=2 data=50",
	"tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 PA seq=5001 ack=7001 data=100",
	"tcp [fd00:10::3]:80 > [2001:db8:88::21]:40000 PA seq=7001 ack=5001 data=300",
	"tcp [fd00:10::3]:80 > [2001:db8:88::21]:40000 A seq=7301 ack=5001 data=30000 gso=1300 sum=partial",
	"udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:53 data=9",
	"udp [fd00:10::2]:5353 > [2001:db8:88::21]:40000 data=9",
	"udp [fd00:10::7]:7000 > [2001:db8:113::9]:9000 data=4",
	"udp [2001:db8:113::9]:9000 > [2001:db8:88::23]:7000 data=4",
	"tcp 192.168.88.21:40000 > 203.0.113.5:8000 A seq=5001 ack=7001",
	"tcp 10.0.0.3:8000 > 192.168.88.21:40000 A seq=7001 ack=5001",
}

func newTwins(t testing.TB) *twins {
	w := &twins{short: world(t), long: world(t)}
	for _, s := range []*script{w.short, w.long} {
		w.handshakes(s)
	}
	return w
}

// handshakes completes those that the world has begun.
func (w *twins) handshakes(s *script) {
	for _, p := range append([]string{
		"tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 A seq=5001 ack=7001",
		"tcp [fd00:10::3]:80 > [2001:db8:88::21]:40000 A seq=7001 ack=5001",
		"tcp 203.0.113.9:80 > 192.168.88.23:7000 SA seq=11 ack=2",
		"tcp 10.0.0.7:7000 > 203.0.113.9:80 A seq=2 ack=12",
	}, common...) {
		s.arrive("", p)
		s.verdict, s.made, s.madeBy = nil, nil, nil
	}
}

func (w *twins) close() { w.short.f.Close(); w.long.f.Close() }

// advance lets time pass.
func (w *twins) advance(d time.Duration) {
	for _, s := range []*script{w.short, w.long} {
		s.now = s.now.Add(d)
		s.f.Begin(s.now)
		s.f.Sweep(64)
		s.f.Outbox()
	}
}

// forward sends a packet both ways and compares what comes of it.
func (w *twins) forward(t testing.TB, p Packet) {
	t.Helper()
	a, b := p, p
	a.Data, b.Data = bytes.Clone(p.Data), bytes.Clone(p.Data)
	for _, s := range []*script{w.short, w.long} {
		s.f.Begin(s.now)
	}
	w.short.f.ahead(a.Data) // a hint, that changes nothing
	w.short.f.table.Fetch()
	var va Verdict
	if w.short.f.hit(&a, &va) {
		w.taken++
	} else {
		if a.Offload != p.Offload || !bytes.Equal(a.Data, p.Data) {
			t.Fatalf("changed and given up: % x", p.Data)
		}
		va = w.short.f.walk(&a)
	}
	vb := w.long.f.walk(&b)
	if va != vb {
		t.Fatalf("short: %+v\nlong:  %+v\n% x", va, vb, p.Data)
	}
	if !bytes.Equal(a.Data, b.Data) || a.Offload != b.Offload || len(p.Data) > 0 && cap(a.Data)-len(a.Data) != cap(b.Data)-len(b.Data) {
		t.Fatalf("short: % x\nlong:  % x\nof     % x", a.Data, b.Data, p.Data)
	}
	ga, gb := w.short.f.Outbox(), w.long.f.Outbox()
	if len(ga) != len(gb) {
		t.Fatalf("%d and %d packets made", len(ga), len(gb))
	}
}

// same compares all that the two remember.
func (w *twins) same(t testing.TB) {
	t.Helper()
	a, b := w.short.f, w.long.f
	if a.table.Extent() != b.table.Extent() {
		t.Fatal("tables of different extent")
	}
	for i := range a.table.Extent() {
		ca, cb := a.table.At(i), b.table.At(i)
		if (ca == nil) != (cb == nil) || ca != nil && *ca != *cb {
			t.Fatalf("entry %d:\nshort: %+v\nlong:  %+v", i, ca, cb)
		}
	}
	if sa, sb := a.Stats(), b.Stats(); !reflect.DeepEqual(sa, sb) {
		t.Fatalf("short: %+v\nlong:  %+v", sa, sb)
	}
}

// seeds are the common packets, each from the neighbour that it comes from.
func (w *twins) seeds() (list []Packet) {
	for _, text := range common {
		w.short.arrive("", text)
		p := w.short.packet
		p.Data, p.Offload = encodePacket(text)
		w.long.arrive("", text)
		for _, s := range []*script{w.short, w.long} {
			s.verdict, s.made, s.madeBy = nil, nil, nil
		}
		list = append(list, p)
	}
	return list
}

// TestHitIsTaken: packets in the middle of a connection take the short way.
func TestHitIsTaken(t *testing.T) {
	w := newTwins(t)
	defer w.close()
	for i, p := range w.seeds() {
		before := w.taken
		w.forward(t, p)
		if w.taken == before {
			t.Errorf("the long way: %s", common[i])
		}
	}
	w.same(t)
}

// TestHitIsTheWalk: damaged and doctored packets come to the same end either way.
func TestHitIsTheWalk(t *testing.T) {
	w := newTwins(t)
	defer w.close()
	seeds := append(w.seeds(), scriptPackets(t)...)
	usual := len(common)
	r := rand.New(rand.NewPCG(4, 4))
	for i := range 40000 {
		p := seeds[r.IntN(usual)]
		if r.IntN(8) == 0 {
			p = seeds[r.IntN(len(seeds))]
		}
		if len(p.Data) > 2000 && r.IntN(8) > 0 {
			continue
		}
		p.Data = bytes.Clone(p.Data)
		doctor(r, &p)
		if i%50 == 0 {
			w.advance(time.Duration(r.IntN(2000)) * time.Millisecond)
		}
		if i%4000 == 0 { // what has ended begins again
			for _, s := range []*script{w.short, w.long} {
				s.now = s.now.Add(time.Hour)
				populate(s)
				w.handshakes(s)
			}
		}
		w.forward(t, p)
		if i%100 == 0 {
			w.same(t)
		}
	}
	w.same(t)
	if w.taken < 5000 {
		t.Errorf("only %d took the short way", w.taken)
	}
}

// doctor changes a few things about a packet, most of the time in a way that leaves it
// a packet.
func doctor(r *rand.Rand, p *Packet) {
	b := p.Data
	l4 := 20
	if b[0]>>4 == 6 {
		l4 = 40
	}
	if len(b) <= l4 {
		return
	}
	for range r.IntN(3) {
		switch r.IntN(12) {
		case 0:
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		case 1:
			b[r.IntN(l4)] = byte(r.Uint32())
		case 2:
			p.Data = b[:1+r.IntN(len(b))]
			return
		case 3:
			p.Data = append(b, make([]byte, r.IntN(20))...)
		case 4:
			p.In = uint16(r.IntN(3))
		case 5:
			p.From[5] = byte(r.Uint32())
		case 6:
			p.Offload = offloadOf(r.Uint32())
		case 7:
			p.Offload = Offload{NeedsChecksum: true, ChecksumStart: uint16(l4), ChecksumOffset: uint16(6 + 10*r.IntN(2))}
		case 8:
			b[l4+r.IntN(min(len(b)-l4, 20))] = byte(r.Uint32())
		case 9:
			if len(b) >= l4+20 { // sequence numbers near those before
				at := l4 + 4 + 4*r.IntN(2)
				binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])+uint32(r.IntN(1<<18)))
			}
		case 10:
			b[7+r.IntN(2)] = byte(r.IntN(3)) // few hops left, or a fragment
		case 11:
			if len(b) > l4+14 {
				b[l4+13] = byte(r.Uint32()) & 0x1f
			}
		}
	}
	if r.IntN(8) > 0 {
		repair(p.Data)
	}
}

// TestHitAfterChanges: what is said of addresses, servers, ports and routes counts
// for connections that are there already.
func TestHitAfterChanges(t *testing.T) {
	for name, change := range map[string]func(s *script){
		"the client's address becomes ours": func(s *script) { s.step("own", "192.168.88.21/24"); s.step("own", "2001:db8:88::21/64") },
		"the server's address becomes ours": func(s *script) { s.step("own", "10.0.0.3/24"); s.step("own", "fd00:10::2/64") },
		"the remote's becomes ours":         func(s *script) { s.step("own", "203.0.113.9/24") },
		"servers are deleted": func(s *script) {
			for _, v := range s.rules.Services() {
				for _, d := range v.Servers {
					s.must(s.rules.DelServer(v.ServiceKey, d.Addr, d.Port))
				}
			}
		},
		"the outside is down":     func(s *script) { s.step("link", "0 down") },
		"the inside is down":      func(s *script) { s.step("link", "1 down") },
		"the outside has no MACs": func(s *script) { s.ports[0].L3, s.dirty = true, true },
		"the inside has no MACs":  func(s *script) { s.ports[1].L3, s.dirty = true, true },
		"small links":             func(s *script) { s.ports[0].MTU, s.ports[1].MTU, s.dirty = 140, 150, true },
		"links that fit segments": func(s *script) { s.ports[0].MTU, s.ports[1].MTU, s.dirty = 1380, 1380, true },
		"links that do not":       func(s *script) { s.ports[0].MTU, s.ports[1].MTU, s.dirty = 1379, 1379, true },
		"no routes":               func(s *script) { s.routes, s.dirty = nil, true },
		"routes through the other port": func(s *script) {
			for i := range s.routes {
				s.routes[i].Port ^= 1
			}
			s.dirty = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			defer w.close()
			seeds := w.seeds()
			for _, s := range []*script{w.short, w.long} {
				change(s)
				s.forwarder()
			}
			for _, p := range seeds {
				w.forward(t, p)
				p.Data = bytes.Clone(p.Data)
				p.Offload = Offload{GSOType: GSOTCPv4, GSOSize: 1340}
				w.forward(t, p) // UDP too, which is no such packet
				p.Offload.GSOType, p.Offload.GSOSize = GSOTCPv6|GSOECN, 0
				w.forward(t, p)
			}
			w.same(t)
		})
	}
}

// TestHitEarly: the first packets of a connection move it on, whichever comes first.
func TestHitEarly(t *testing.T) {
	for _, more := range [][]string{
		{"tcp 192.168.88.21:40000 > 192.168.88.23:80 FA seq=5161 ack=28101"}, {"tcp 10.0.0.3:80 > 192.168.88.21:40000 FA seq=28101 ack=5161"},
		{"tcp 192.168.88.21:41000 > 192.168.88.23:80 S seq=5000", "tcp 192.168.88.21:41000 > 192.168.88.23:80 A seq=5001 ack=7001"},
		{"udp 192.168.88.21:41000 > 192.168.88.23:53 data=9"}, {"tcp 192.168.88.21:40000 > 192.168.88.23:82 A seq=5001 ack=7001"},
		{"udp 192.168.88.21:40000 > 192.168.88.23:81 data=9"}, {"udp 192.168.88.21:41000 > 192.168.88.25:53 data=9"}, {"udp 10.0.0.7:7000 > 203.0.113.10:9000 data=4"},
	} {
		w := newTwins(t)
		seeds := w.seeds()
		for _, text := range append(more, "udp 10.0.0.2:5353 > 192.168.88.21:41000 data=9", "udp 10.0.0.5:53 > 192.168.88.21:41000 data=9",
			"tcp 10.0.0.2:8080 > 192.168.88.21:41000 A seq=7001 ack=5001", "tcp 10.0.0.3:80 > 192.168.88.21:41000 A seq=7001 ack=5001",
			"udp 203.0.113.10:9000 > 192.168.88.23:7000 data=4", "udp 10.0.0.7:7000 > 203.0.113.10:9000 data=4", more[len(more)-1]) {
			p := seeds[0]
			p.Data, p.Offload = encodePacket(text)
			if p.In = 0; p.Data[12] == 10 {
				p.In = 1
			}
			p.From[4] = byte(p.In)
			w.forward(t, p)
			w.same(t)
		}
		for _, p := range seeds {
			w.forward(t, p)
		}
		w.same(t)
		w.close()
	}
}

// TestHitSums: whatever the sum of a packet comes to.
func TestHitSums(t *testing.T) {
	w := newTwins(t)
	defer w.close()
	for i, p := range w.seeds() {
		if p.Offload != (Offload{}) || len(p.Data) > 200 || len(p.Data) < 30 {
			continue
		}
		l4 := ipHeader(p.Data).headerLen()
		field := udpChecksumOffset
		if common[i][0] == 't' {
			field = tcpChecksumOffset
		}
		for n := range 1 << 10 { // of the 65,536, some of every kind
			binary.BigEndian.PutUint16(p.Data[l4+field:], uint16(n<<8|n>>2))
			w.forward(t, p)
		}
	}
	var g glimpse
	g.l4, g.tuple.Proto = ipv4HeaderLen, protoUDP
	e := conntrack.Endpoint{Addr: conntrack.AddrFrom4([4]byte{10, 0, 0, 2}), Port: 8080}
	for a := range 1 << 16 { // sums that come to zero, which UDP says as the other zero
		b := make([]byte, ipv4HeaderLen+udpHeaderLen)
		b[0], b[9] = 4<<4|5, protoUDP
		binary.BigEndian.PutUint16(b[26:], uint16(a))
		c := bytes.Clone(b)
		g.rewrite(b, conntrack.Inbound, &e, false)
		var d delta
		ipv4Header(c).replaceDestination(&e.Addr, &d)
		u := udpHeader(c[20:])
		u.replaceSrcPort(u.srcPort(), &d)
		u.replaceDstPort(e.Port, &d)
		u.apply(d)
		if !bytes.Equal(b, c) {
			t.Fatalf("% x\n% x", b, c)
		}
	}
}

// FuzzHit compares the two ways for any packet.
func FuzzHit(f *testing.F) {
	w := newTwins(f)
	for _, p := range w.seeds() {
		if len(p.Data) < 2000 {
			f.Add(p.Data, p.In, p.From[5], uint32(0), true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, in uint16, from byte, offload uint32, fix bool) {
		w.short.t, w.long.t = t, t
		if fix {
			repair(data)
		}
		p := Packet{Data: data, Offload: offloadOf(offload), In: in % 3, From: conntrack.LinkAddr{2, 0, 0, 0, byte(in % 3), from}}
		w.advance(time.Millisecond)
		w.forward(t, p)
		w.same(t)
	})
}
