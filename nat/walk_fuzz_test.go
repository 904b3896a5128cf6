// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// world is a Forwarder in the middle of its work: services of both protocols,
// a SNAT rule, and a connection of every kind.
func world(t testing.TB) *script {
	tt, ok := t.(*testing.T)
	if !ok {
		tt = &testing.T{}
	}
	s := newScript(tt, "world")
	s.max = 256
	for _, line := range []string{
		"service tcp 192.168.88.23:80 sched rr", "server 10.0.0.2:8080", "server 10.0.0.3:80",
		"service udp 192.168.88.23:53 sched rr", "server 10.0.0.2:5353",
		"service tcp 192.168.88.23:21 helper ftp", "server 10.0.0.2:21", "service tcp [2001:db8:88::23]:21 helper ftp", "server [fd00:10::2]:21",
		"snat 10.0.0.0/24 192.168.88.23", "own 10.0.0.1/24", "mtu 1 1400",
		"service tcp [2001:db8:88::23]:80 sched rr", "server [fd00:10::2]:8080", "server [fd00:10::3]:80",
		"service udp [2001:db8:88::23]:53 sched rr", "server [fd00:10::2]:5353",
		"service sctp 192.168.88.23:90 sched rr", "server 10.0.0.2:9090", "server 10.0.0.3:90",
		"service sctp [2001:db8:88::23]:90 sched rr", "server [fd00:10::2]:9090",
		"snat fd00:10::/64 2001:db8:88::23", "own fd00:10::1/64",
		"service mark 1 sched rr", "server 10.0.0.3:0", "service mark6 1 sched rr", "server [fd00:10::3]:0",
		"mark 1 tcp to 192.168.88.23/32 ports 2000-2001", "mark 1 from 192.168.88.0/24 to 203.0.113.0/24 port 8000",
		"mark 1 to 2001:db8:113::/48 port 8000",
		"service tcp 192.168.88.23:81 sched rr", "server 10.0.0.4:81 method route",
		"service udp 192.168.88.23:81 sched rr", "server 10.0.0.4:81 method tunnel",
		"service tcp 192.168.88.23:82 sched rr", "server 10.0.0.4:82 method tunnel tunnel gre checksum yes",
		"service tcp [2001:db8:88::23]:81 sched rr", "server [fd00:10::4]:81 method tunnel gue 6080 checksum yes",
		"service udp [2001:db8:88::23]:81 sched rr", "server 10.0.0.4:81 method tunnel",
		"service tcp 192.168.88.24:0 sched rr persistent 60s", "server 10.0.0.4:0",
		"service udp 192.168.88.24:53 sched rr one-packet", "server 10.0.0.4:5353",
		"service udp 192.168.88.25:53 sched rr one-packet persistent 60s", "server 10.0.0.5:53",
		"service udp 192.168.88.26:53 sched rr one-packet", "server 10.0.0.5:53",
		"service tcp [2001:db8:88::24]:0 sched rr persistent 60s", "server [fd00:10::4]:0",
		"service udp [2001:db8:88::24]:53 sched rr one-packet", "server [fd00:10::4]:53",
		"service tcp 192.168.88.23:83 sched rr", "server 10.0.0.5:83 nat full", "service udp 192.168.88.23:83 sched rr", "server 10.0.0.5:83 nat full",
		"service udp [2001:db8:88::23]:83 sched rr", "server [fd00:10::5]:83 nat full",
	} {
		word, rest, _ := strings.Cut(line, " ")
		s.step(word, rest)
	}
	populate(s)
	return s
}

// populate opens a connection of every kind.
func populate(s *script) {
	for _, p := range []string{
		"tcp 192.168.88.21:40000 > 192.168.88.23:80 S seq=5000", "tcp 10.0.0.3:80 > 192.168.88.21:40000 SA seq=7000 ack=5001",
		"tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=5001 ack=7001", "tcp 192.168.88.22:40000 > 192.168.88.23:80 S seq=5000",
		"udp 192.168.88.21:40000 > 192.168.88.23:53 data=9", "udp 10.0.0.2:5353 > 192.168.88.21:40000 data=9",
		"udp 10.0.0.7:7000 > 203.0.113.9:9000 data=4", "icmp 10.0.0.7 > 203.0.113.9 echo-request id=7 data=8",
		"tcp 10.0.0.7:40001 > 192.168.88.23:80 S seq=1", "tcp 10.0.0.7:7000 > 203.0.113.9:80 S seq=1",
		"udp 192.168.88.21:40000 > 192.168.88.23:53 data=1472 udplen=3000 mf id=9",
		"frag 192.168.88.22 > 192.168.88.23 proto=17 off=1480 data=48 id=9",
		"sctp 192.168.88.21:40000 > 192.168.88.23:90 INIT init=1", "sctp 10.0.0.3:90 > 192.168.88.21:40000 INIT-ACK tag=1 init=2",
		"sctp 192.168.88.21:40000 > 192.168.88.23:90 COOKIE-ECHO tag=2", "sctp 10.0.0.3:90 > 192.168.88.21:40000 COOKIE-ACK tag=1",
		"sctp 10.0.0.7:7000 > 203.0.113.9:90 INIT init=1", "sctp [2001:db8:88::21]:40000 > [2001:db8:88::23]:90 INIT init=1",
		"tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 S seq=5000", "tcp [fd00:10::3]:80 > [2001:db8:88::21]:40000 SA seq=7000 ack=5001",
		"udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:53 data=9", "udp [fd00:10::7]:7000 > [2001:db8:113::9]:9000 data=4",
		"icmp fd00:10::7 > 2001:db8:113::9 echo-request id=7 data=8", "tcp [fd00:10::7]:40001 > [2001:db8:88::23]:80 S seq=1",
		"tcp 192.168.88.21:40000 > 203.0.113.5:8000 S seq=5000", "tcp 10.0.0.3:8000 > 192.168.88.21:40000 SA seq=7000 ack=5001",
		"tcp [2001:db8:88::21]:40000 > [2001:db8:113::5]:8000 S seq=5000",
		"udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:53 data=1440 udplen=3000 mf id=9",
		"frag 2001:db8:88::22 > 2001:db8:88::23 proto=17 off=1448 data=48 id=9",
		"tcp 192.168.88.21:40000 > 192.168.88.23:81 S seq=5000", "udp 192.168.88.21:40000 > 192.168.88.23:81 data=9",
		"tcp 192.168.88.21:40000 > 192.168.88.23:82 S seq=5000", "tcp 192.168.88.21:40000 > 192.168.88.23:82 A seq=5001 ack=7001",
		"tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:81 S seq=5000", "udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:81 data=9",
		"tcp 192.168.88.21:30110 > 192.168.88.23:21 S seq=999", "tcp 10.0.0.2:21 > 192.168.88.21:30110 SA seq=4999 ack=1000",
		"tcp 192.168.88.21:30110 > 192.168.88.23:21 A seq=1000 ack=5000", `tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=5000 ack=1000 "220 ready\r\n"`,
		"tcp [2001:db8:88::21]:30110 > [2001:db8:88::23]:21 S seq=999", "tcp [fd00:10::2]:21 > [2001:db8:88::21]:30110 SA seq=4999 ack=1000",
		"tcp [2001:db8:88::21]:30110 > [2001:db8:88::23]:21 A seq=1000 ack=5000", `tcp [fd00:10::2]:21 > [2001:db8:88::21]:30110 PA seq=5000 ack=1000 "220 ready\r\n"`,
		`tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=1000 ack=5011 "PASV\r\n"`, `tcp [2001:db8:88::21]:30110 > [2001:db8:88::23]:21 PA seq=1000 ack=5011 "EPSV\r\n"`,
		"tcp 192.168.88.21:40000 > 192.168.88.24:80 S seq=5000", "udp 192.168.88.21:40000 > 192.168.88.25:53 data=9",
		"tcp 192.168.88.21:40000 > 192.168.88.23:83 S seq=5000", "tcp 10.0.0.5:83 > 10.0.0.1:40000 SA seq=7000 ack=5001",
		"udp 192.168.88.21:40000 > 192.168.88.23:83 data=9", "udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:83 data=9",
	} {
		s.arrive("", p)
		s.verdict, s.made, s.madeBy = nil, nil, nil
	}
}

// judge forwards any bytes and looks at what becomes of them.
func judge(t testing.TB, f *Forwarder, now conntrack.Time, data []byte, off Offload, in uint16) {
	const canary = 0xa5
	memory := append(bytes.Clone(data), bytes.Repeat([]byte{canary}, 64)...)
	p := Packet{Data: memory[:len(data)], Offload: off, In: in, From: conntrack.LinkAddr{2, 0, 0, 0, byte(in), 9}}
	var in1 parsed
	copied := Packet{Data: bytes.Clone(data), Offload: off}
	sane := in1.parse(&copied) == ReasonNone
	good := sane && !off.NeedsChecksum && !in1.isFragment() && rightSum(copied.Data)

	f.Begin(now)
	v := f.Forward(&p)
	for i, b := range memory[len(data):] {
		if b != canary {
			t.Fatalf("byte %d behind the packet was written", i)
		}
	}
	if len(p.Data) > len(data) || len(p.Data) > 0 && &p.Data[0] != &memory[0] {
		t.Fatalf("the packet grew from %d to %d bytes, or moved", len(data), len(p.Data))
	}
	switch v.Action {
	case Forward:
		leaves(t, &p, &v, good)
		if !sane {
			t.Fatalf("forwarded what cannot be parsed: % x", data)
		}
	case Drop:
		if v.Reason == ReasonNone || v.Reason >= NumReasons {
			t.Fatalf("dropped for the reason %d", v.Reason)
		}
	case Pass, Hold:
		if v.Action == Pass && !bytes.Equal(p.Data, data[:len(p.Data)]) && in1.kind != kindICMPError && !off.NeedsChecksum {
			t.Fatalf("a packet of the host was changed:\n% x\n% x", data, p.Data)
		}
	}
	list := f.Outbox()
	longer := v.Action == Hold && in1.kind == kindTCP && len(list) == 1 // what a helper changed
	for _, g := range list {
		if g.Verdict.Action != Forward || len(g.Memory) != Headroom+len(g.Packet.Data) {
			t.Fatalf("made: %+v", g.Verdict)
		}
		leaves(t, &g.Packet, &g.Verdict, good && longer)
		// A checksum that is left to be done may lie anywhere behind the IP header,
		// and be written into that of TCP.
		if inner := innerPacket(g.Packet.Data); inner != nil && (!off.NeedsChecksum || in1.partial) {
			wraps(t, &g.Packet, inner, good)
		}
	}
}

// wraps judges a packet that holds another one.
func wraps(t testing.TB, p *Packet, inner []byte, good bool) {
	var h parsed
	if p.Offload != (Offload{}) {
		t.Fatalf("something is left to be done inside a tunnel: %+v", p.Offload)
	}
	if r := h.parse(&Packet{Data: bytes.Clone(inner)}); r != ReasonNone {
		t.Fatalf("a tunnel leads to %s: % x", r, inner)
	}
	if good && !rightSum(inner) {
		t.Fatalf("the transport checksum was right: % x", inner)
	}
	if !rightSum(p.Data) && p.Data[0]>>4 == 4 {
		t.Fatalf("outer checksum: % x", p.Data)
	}
}

// leaves judges a packet on its way out.
func leaves(t testing.TB, p *Packet, v *Verdict, good bool) {
	b := p.Data
	if b[0]>>4 == 6 {
		leavesIPv6(t, p, v, good)
		return
	}
	if len(b) < ipv4HeaderLen || slowSum(b[:int(b[0]&15)*4]) != 0xffff {
		t.Fatalf("IP header: % x", b)
	}
	d := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.NoCopy)
	ip, ok := d.NetworkLayer().(*layers.IPv4)
	if !ok || int(ip.Length) != len(b) || ip.TTL == 0 {
		t.Fatalf("gopacket: %v in % x", d.ErrorLayer(), b)
	}
	if v.Port >= MaxPorts || v.To == (conntrack.LinkAddr{}) && v.NextHop == (conntrack.Addr{}) {
		t.Fatalf("leaves for nowhere: %+v", v)
	}
	// The gateway address is ours: who asks for something there, from wherever, is
	// refused by it.
	if v.Port == 0 && ip.SrcIP[0] == 10 && !ip.SrcIP.Equal(net.IPv4(10, 0, 0, 1)) {
		t.Fatalf("a private source leaves: %v", d)
	}
	if good && !rightSum(b) {
		t.Fatalf("the transport checksum was right: %v", d)
	}
}

// leavesIPv6 is leaves for IPv6.
func leavesIPv6(t testing.TB, p *Packet, v *Verdict, good bool) {
	b := p.Data
	length := 40 + int(be16(b, 4))
	if length == 40 && p.Offload.GSOType != GSONone {
		length = len(b)
	}
	if length != len(b) || b[7] == 0 {
		t.Fatalf("IP header: % x", b)
	}
	if v.Port >= MaxPorts || v.To == (conntrack.LinkAddr{}) && v.NextHop == (conntrack.Addr{}) {
		t.Fatalf("leaves for nowhere: %+v", v)
	}
	if v.Port == 0 && b[8] == 0xfd {
		t.Fatalf("a private source leaves: % x", b)
	}
	if good && !rightSum(b) {
		t.Fatalf("the transport checksum was right: % x", b)
	}
}

// rightSum reports whether the transport checksum of a whole packet is right,
// or it has none.
func rightSum(b []byte) bool {
	proto, n := slowChain(b)
	switch {
	case proto == protoSCTP:
		return sctpSumOK(b[n:])
	case proto != protoTCP && proto != protoUDP && proto != protoICMP && proto != protoICMPv6:
		return true
	case proto == protoUDP && len(b) >= n+8 && binary.BigEndian.Uint16(b[n+6:]) == 0:
		return true
	case proto == protoUDP && len(b) >= n+8: // its own length counts
		length := int(binary.BigEndian.Uint16(b[n+4:]))
		if length != len(b)-n {
			return false
		}
	}
	return slowTransport(b) == 0xffff
}

// scriptPackets are all packets that arrive in the packet scripts.
func scriptPackets(t testing.TB) (list []Packet) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n") {
			word, rest, _ := strings.Cut(line, " ")
			if word, _, _ = strings.Cut(word, "@"); word != "in" || strings.ContainsAny(rest, "${") {
				continue
			}
			rest, _, _ = strings.Cut(strings.TrimSpace(rest), " via=")
			b, off := encodePacket(rest)
			in := uint16(0)
			if b[0]>>4 == 4 && b[12] == 10 || b[0]>>4 == 6 && b[8] == 0xfd {
				in = 1
			}
			list = append(list, Packet{Data: b, Offload: off, In: in})
		}
	}
	return list
}

// offloadOf makes an offload header of fuzzed bits.
func offloadOf(bits uint32) (o Offload) {
	if bits&1 != 0 {
		o.NeedsChecksum = true
		o.ChecksumStart, o.ChecksumOffset = uint16(bits>>8&0x7f), uint16(bits>>16&0x1f)
	}
	if bits&2 != 0 {
		o.GSOType, o.GSOSize = uint8(bits>>2&7), uint16(bits>>21)
	}
	return o
}

// repair makes the length and the checksum of an IP header right, so that what
// lies behind is looked at.
func repair(b []byte) {
	if len(b) >= ipv6HeaderLen && b[0]>>4 == 6 {
		binary.BigEndian.PutUint16(b[4:], uint16(min(len(b)-ipv6HeaderLen, 65535)))
		return
	}
	if len(b) >= ipv4HeaderLen && int(b[0]&15)*4 <= len(b) && b[0]&15 >= 5 {
		binary.BigEndian.PutUint16(b[2:], uint16(min(len(b), 65535)))
		fixHeader(b)
	}
}

func FuzzForward(f *testing.F) {
	for i, p := range scriptPackets(f) {
		if len(p.Data) < 2000 {
			f.Add(p.Data, p.In, uint32(0), i%2 == 0)
		}
	}
	s := world(f)
	f.Fuzz(func(t *testing.T, data []byte, in uint16, offload uint32, fix bool) {
		s.t = t
		s.now = s.now.Add(2 * time.Hour)
		populate(s)
		if fix {
			repair(data)
		}
		for i := range 3 { // the second and third meet what the first left
			judge(t, s.f, s.now.Add(time.Duration(i)*time.Second), data, offloadOf(offload), in%3)
		}
		end(s)
		recount(t, s.rules, s.f)
		if s.f.mapper.used != 0 || s.f.table.Len() != 0 {
			t.Fatalf("%d mappings, %d entries are left", s.f.mapper.used, s.f.table.Len())
		}
	})
}

// end lets the time of all connections pass, and that of those which outlive them.
func end(s *script) {
	for range 3 {
		s.now = s.now.Add(time.Hour)
		s.f.Begin(s.now)
		for s.f.Sweep(1 << 20) {
		}
	}
}

// FuzzScriptPacket fuzzes the notation, so that a slip in a script is told and
// does not crash the tests.
func FuzzScriptPacket(f *testing.F) {
	f.Add("tcp 192.0.2.7:40000 > 10.0.0.1:80 SA seq=1 ack=2 win=100 data=5 mss=1460 wscale=7")
	f.Add("icmp 192.0.2.7 > 10.0.0.1 port-unreachable (udp 10.0.0.1:80 > 192.0.2.7:40000) cut=28")
	f.Add("frag 192.0.2.7 > 10.0.0.1 proto=17 off=1480 data=20 mf")
	f.Fuzz(func(t *testing.T, text string) {
		head, fields, inner := splitFields(text)
		for _, w := range append(head, inner) {
			if len(w) > len(text) {
				t.Fatal(w)
			}
		}
		if _, ok := fields[""]; ok && !strings.Contains(text, "=") {
			t.Fatal(text)
		}
	})
}

// TestMutatedFrames sends 20,000 damaged packets of all kinds through one
// Forwarder (row 20 of what must be survived).
func TestMutatedFrames(t *testing.T) {
	t.Run("usual", func(t *testing.T) { mutatedFrames(t, world(t)) })
	t.Run("all settings", func(t *testing.T) {
		s := world(t)
		for _, name := range []string{
			"sloppy_tcp", "sloppy_sctp", "schedule_icmp", "nat_icmp_send", "reset_on_expiry", "expire_nodest_conn", "expire_quiescent_template",
		} {
			s.set(name, 1)
		}
		s.set("secure_tcp", 3)
		s.set("drop_entry", 3)
		s.set("drop_packet", 3)
		s.set("client_limit", 100)
		s.step("timeout", "ESTABLISHED 5s")
		s.forwarder()
		mutatedFrames(t, s)
		if s.f.Stats().Farewells == 0 {
			t.Error("nobody was told of an end")
		}
	})
}

func mutatedFrames(t *testing.T, s *script) {
	defer s.f.Close()
	seeds := scriptPackets(t)
	r := rand.New(rand.NewPCG(20, 20))
	for i := range 20000 {
		p := seeds[r.IntN(len(seeds))]
		if len(p.Data) > 2000 {
			continue
		}
		b := bytes.Clone(p.Data)
		for range r.IntN(6) {
			switch r.IntN(4) {
			case 0:
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			case 1:
				b[r.IntN(len(b))] = byte(r.Uint32())
			case 2:
				b = b[:1+r.IntN(len(b))]
			case 3:
				if r.IntN(8) == 0 {
					b = append(b, b...)
				}
			}
		}
		off := p.Offload
		if r.IntN(10) == 0 {
			off = offloadOf(r.Uint32())
		}
		if r.IntN(4) > 0 {
			repair(b)
		}
		in := p.In
		if r.IntN(10) == 0 {
			in = uint16(r.IntN(3))
		}
		s.now = s.now.Add(time.Duration(r.IntN(50)) * time.Millisecond)
		judge(t, s.f, s.now, b, off, in)
		if i%16 == 0 {
			s.f.Sweep(64)
			for _, g := range s.f.Outbox() { // who was told that its connection is over
				leaves(t, &g.Packet, &g.Verdict, true)
			}
		}
	}
	recount(t, s.rules, s.f)
	if stats := s.f.Stats(); stats.Forwarded < 1000 || stats.Dropped < 1000 {
		t.Fatalf("%d forwarded, %d dropped: the frames reach nothing", stats.Forwarded, stats.Dropped)
	}
	end(s)
	if s.f.mapper.used != 0 || s.f.table.Len() != 0 {
		t.Fatalf("%d mappings, %d entries are left", s.f.mapper.used, s.f.table.Len())
	}
}
