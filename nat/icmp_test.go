// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// The lengths and fields wanted below are those of the kernel's own answers.
func TestErrorsLookLikeTheKernels(t *testing.T) {
	datagram := udpPacket(t, 1, nil)
	segment := tcpPacket(t, 0, func(_ *layers.IPv4, tcp *layers.TCP) { tcp.SYN, tcp.ACK = true, false })
	big := tcpPacket(t, 1460, func(ip *layers.IPv4, tcp *layers.TCP) { ip.Flags, tcp.PSH = layers.IPv4DontFragment, true })
	for _, row := range []struct {
		name       string
		e          icmpError
		about      []byte
		kind, code uint8
		rest       uint32
		length     int
	}{
		{"no server, UDP", unreachable(icmpPortUnreachable), datagram, 3, 3, 0, 57},
		{"no server, SYN", unreachable(icmpPortUnreachable), segment, 3, 3, 0, 68},
		{"next hop silent", unreachable(icmpHostUnreachable), datagram, 3, 1, 0, 57},
		{"TTL ran out", timeExceeded(), tcpPacket(t, 4, nil), 11, 0, 0, 72},
		{"DF and too big", fragNeeded(1300), big, 3, 4, 0x514, 576},
	} {
		b := make([]byte, maxErrorLen)
		n := buildICMPError(b, row.e, ptr(addr(hostVirtual)), 0xcf63, &Packet{Data: row.about})
		p := sound(t, b[:n])
		ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		icmp := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if n != row.length || !ip.SrcIP.Equal(hostVirtual) || !ip.DstIP.Equal(hostClient) ||
			ip.TTL != 64 || ip.TOS != 0xc0 || ip.Id != 0xcf63 || ip.Flags != 0 {
			t.Errorf("%s: %d bytes, %+v", row.name, n, ip)
		}
		if icmp.TypeCode != layers.CreateICMPv4TypeCode(row.kind, row.code) || binary.BigEndian.Uint32(b[24:]) != row.rest {
			t.Errorf("%s: %v %#x", row.name, icmp.TypeCode, b[24:28])
		}
		if !bytes.Equal(b[28:n], row.about[:n-28]) {
			t.Errorf("%s: not quoted as it came", row.name)
		}
	}
}

func TestErrorKeepsTheClassOfService(t *testing.T) {
	b := make([]byte, maxErrorLen)
	about := udpPacket(t, 1, func(ip *layers.IPv4, _ *layers.UDP) { ip.TOS = 0xff })
	buildICMPError(b, timeExceeded(), ptr(addr(hostVirtual)), 1, &Packet{Data: about})
	if b[1] != 0xdc {
		t.Errorf("type of service %#02x, want 0xdc", b[1])
	}
}

func TestQuotedPartialChecksumIsComplete(t *testing.T) {
	for _, payload := range []int{0, 101, 1400} {
		for _, whole := range [][]byte{tcpPacket(t, payload, nil), udpPacket(t, payload, nil)} {
			data := append([]byte(nil), whole...)
			o := makePartial(data)
			partial := string(data)
			b := make([]byte, maxErrorLen)
			n := buildICMPError(b, timeExceeded(), ptr(addr(hostVirtual)), 1, &Packet{Data: data, Offload: o})
			if !bytes.Equal(b[28:n], whole[:n-28]) {
				t.Errorf("%d bytes: % x\nwant % x", payload, b[28:70], whole[:42])
			}
			if string(data) != partial {
				t.Error("the packet itself was changed")
			}
			sound(t, b[:n])
		}
	}
}

// An error that we build is one that we accept.
func TestBuiltErrorIsRead(t *testing.T) {
	b := make([]byte, maxErrorLen)
	n := buildICMPError(b, fragNeeded(1300), ptr(addr(hostServer)), 1, &Packet{Data: tcpPacket(t, 1460, nil)})
	if r, q := quoteReason(t, b[:n]); r != ReasonNone || q.tuple.Src.Port != 40000 || q.checksumAt == 0 {
		t.Errorf("%v %+v", r, q)
	}
}

// FAULTS 71.
func TestNoErrorIsSentAbout(t *testing.T) {
	with := func(at int, v byte) []byte {
		b := udpPacket(t, 1, nil)
		b[at] = v
		return fixHeader(b)
	}
	for name, row := range map[string]struct {
		b    []byte
		want bool
	}{
		"a datagram":              {udpPacket(t, 1, nil), true},
		"a segment":               {tcpPacket(t, 1, nil), true},
		"an echo":                 {icmpPacket(t, 8, 0, 1, nil), true},
		"a first fragment":        {fragmentOf(t, 17, 1, 0, true, udpPacket(t, 3000, nil)[20:100]), true},
		"a later fragment":        {fragmentOf(t, 17, 1, 1480, true, pattern(80)), false},
		"a later fragment of GRE": {fragmentOf(t, 47, 1, 1480, true, pattern(80)), false},
		"an unreachable":          {icmpPacket(t, 3, 1, 0, quotedReply(t, 1)), false},
		"a source quench":         {icmpPacket(t, 4, 0, 0, quotedReply(t, 1)), false},
		"a redirect":              {icmpPacket(t, 5, 1, 0, quotedReply(t, 1)), false},
		"a time exceeded":         {icmpPacket(t, 11, 0, 0, quotedReply(t, 1)), false},
		"a parameter problem":     {icmpPacket(t, 12, 0, 0, quotedReply(t, 1)), false},
		"multicast":               {with(16, 224), false},
		"broadcast":               {with(16, 255), false},
		"to this network":         {with(16, 0), false},
		"to loopback":             {with(16, 127), false},
	} {
		if got := mustParse(t, &Packet{Data: row.b}).mayAnswer(); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

func TestEchoIsAnswered(t *testing.T) {
	for _, payload := range []int{0, 1, 8, 1472} {
		b := icmpPacket(t, 8, 0, 0x004d0001, pattern(payload))
		b[6], b[8] = 0x40, 1
		fixHeader(b)
		p := mustParse(t, &Packet{Data: b})
		if !makeEchoReply(b, p, 0xcd86) {
			t.Fatal("not answered")
		}
		d := sound(t, b)
		ip := d.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		icmp := d.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if !ip.SrcIP.Equal(hostVirtual) || !ip.DstIP.Equal(hostClient) || ip.TTL != 64 || ip.Id != 0xcd86 || ip.Flags != 0 {
			t.Errorf("%+v", ip)
		}
		if icmp.TypeCode != 0 || icmp.Id != 0x4d || icmp.Seq != 1 || !bytes.Equal(icmp.Payload, pattern(payload)) {
			t.Errorf("%+v", icmp)
		}
	}
}

func TestEchoInFragmentsIsAnsweredPieceByPiece(t *testing.T) {
	whole := icmpPacket(t, 8, 0, 0x004d0001, pattern(2000))
	first := fragmentOf(t, 1, 0x77, 0, true, whole[20:20+1480])
	later := fragmentOf(t, 1, 0x77, 1480, false, whole[20+1480:])
	if !makeEchoReply(first, mustParse(t, &Packet{Data: first}), 0xcd86) {
		t.Fatal("not answered")
	}
	var none delta
	ipv4Header(later).replaceSource(ptr(addr(hostVirtual)), &none)
	ipv4Header(later).replaceDestination(ptr(addr(hostClient)), &none)
	reply := reassemble(t, [][]byte{first, later})
	if s := slowSum(reply); s != 0xffff || reply[0] != 0 || !bytes.Equal(reply[8:], pattern(2000)) {
		t.Errorf("sum %#04x, type %d", s, reply[0])
	}
}

func TestDamagedEchoIsNotRepaired(t *testing.T) {
	b := icmpPacket(t, 8, 0, 0x004d0001, pattern(8))
	b[30] ^= 4
	if p := mustParse(t, &Packet{Data: b}); !makeEchoReply(b, p, 1) || slowTransport(b) == 0xffff {
		t.Error("the reply has a good checksum")
	}
}

func TestOnlyEchoRequestsAreAnswered(t *testing.T) {
	for _, b := range [][]byte{
		icmpPacket(t, 0, 0, 1, nil), icmpPacket(t, 3, 0, 0, quotedReply(t, 1)), icmpPacket(t, 13, 0, 0, nil),
		tcpPacket(t, 1, nil), fragmentOf(t, 1, 1, 1480, false, pattern(8)),
	} {
		before := string(b)
		if p := mustParse(t, &Packet{Data: b}); makeEchoReply(b, p, 1) || string(b) != before {
			t.Errorf("% x was answered", before)
		}
	}
}

// The numbers of RFC 9293 section 3.10.7.1, and of the kernel.
func TestResetAnswersASegment(t *testing.T) {
	for _, row := range []struct {
		name     string
		flags    uint8
		payload  int
		seq, ack uint32
		want     uint8
	}{
		{"data", flagPSH | flagACK, 4, 7001, 0, flagRST},
		{"FIN", flagFIN | flagACK, 0, 7001, 0, flagRST},
		{"SYN+ACK", flagSYN | flagACK, 0, 7001, 0, flagRST},
		{"SYN", flagSYN, 0, 0, 5002, flagRST | flagACK},
		{"SYN with data", flagSYN, 10, 0, 5012, flagRST | flagACK},
		{"FIN alone", flagFIN, 3, 0, 5005, flagRST | flagACK},
		{"null", 0, 0, 0, 5001, flagRST | flagACK},
	} {
		b := tcpPacket(t, row.payload, nil)
		b[33] = row.flags
		r := make([]byte, resetLen)
		for i := range r {
			r[i] = 0xee // the memory was used before
		}
		n := buildReset(r, mustParse(t, &Packet{Data: b}))
		if n != 40 {
			t.Fatalf("%s: %d bytes", row.name, n)
		}
		d := sound(t, r[:n])
		ip := d.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		tcp := d.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ip.SrcIP.Equal(hostVirtual) || !ip.DstIP.Equal(hostClient) || ip.Id != 0 || ip.TTL != 64 ||
			ip.TOS != 0 || ip.Flags != layers.IPv4DontFragment {
			t.Errorf("%s: %+v", row.name, ip)
		}
		if tcp.SrcPort != 80 || tcp.DstPort != 40000 || tcp.Seq != row.seq || tcp.Ack != row.ack ||
			tcp.Window != 0 || r[33] != row.want || tcp.DataOffset != 5 || tcp.Urgent != 0 {
			t.Errorf("%s: %+v", row.name, tcp)
		}
	}
	for name, b := range map[string][]byte{
		"RST":        tcpPacket(t, 0, func(_ *layers.IPv4, tcp *layers.TCP) { tcp.RST = true }),
		"a datagram": udpPacket(t, 0, nil),
	} {
		if n := buildReset(make([]byte, resetLen), mustParse(t, &Packet{Data: b})); n != 0 {
			t.Errorf("%s was answered", name)
		}
	}
}

// FAULTS 74.
func TestLimiterBoundsAFlood(t *testing.T) {
	l := newLimiter(1000)
	const second = conntrack.Time(1e9)
	count := func(from, to, step conntrack.Time) (n int) {
		for now := from; now < to; now += step {
			if l.allow(now) {
				n++
			}
		}
		return n
	}
	if n := count(5*second, 5*second+1, 1); n != 1 {
		t.Errorf("the first event: %d", n)
	}
	at := 10 * second
	burst := 0
	for range 10000 {
		if l.allow(at) {
			burst++
		}
	}
	if burst != 100 {
		t.Errorf("burst of %d, want 100", burst)
	}
	if n := count(20*second, 30*second, second/10000); n < 10000 || n > 10100 {
		t.Errorf("%d in 10 s of a flood, want about 10000", n)
	}
	if n := count(40*second, 42*second, second/500); n != 1000 {
		t.Errorf("%d of 1000 events below the rate", n)
	}
	l.setRate(0)
	if l.allow(60 * second) {
		t.Error("a rate of zero allowed an event")
	}
}

func TestAnswersAllocateNothing(t *testing.T) {
	b := make([]byte, maxErrorLen)
	pkt := Packet{Data: tcpPacket(t, 1000, nil)}
	p := mustParse(t, &pkt)
	echo := icmpPacket(t, 8, 0, 1, nil)
	e := mustParse(t, &Packet{Data: echo})
	src := addr(hostVirtual)
	l := newLimiter(1000)
	if n := testing.AllocsPerRun(100, func() {
		buildICMPError(b, timeExceeded(), &src, 1, &pkt)
		buildReset(b, p)
		makeEchoReply(echo, e, 1)
		l.allow(1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
