// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// quotedFlow is a packet that we have sent on and that an error may quote: from
// whom the error comes, by which port, to whom, about what.
type quotedFlow struct {
	name, from, to, about string
	in                    uint16
}

// quotable opens connections of each kind and says what may be quoted of them.
func quotable(t *testing.T, ipv6 bool) (*script, []quotedFlow) {
	t.Helper()
	s := newScript(t, "quotable")
	client, vip, server, far := "192.168.88.21", "192.168.88.23", "10.0.0.2", "203.0.113.9"
	inside, at := "10.0.0.0/24", func(a string, port int) string { return fmt.Sprintf("%s:%d", a, port) }
	if ipv6 {
		client, vip, server, far = "2001:db8:88::21", "2001:db8:88::23", "fd00:10::2", "2001:db8:113::9"
		inside, at = "fd00:10::/64", func(a string, port int) string { return fmt.Sprintf("[%s]:%d", a, port) }
	}
	s.step("service", "tcp "+at(vip, 80)+" sched rr")
	s.step("server", at(server, 80))
	s.step("service", "udp "+at(vip, 53)+" sched rr")
	s.step("server", at(server, 53))
	s.step("snat", inside+" "+vip)
	for _, text := range []string{
		"tcp " + at(client, 40000) + " > " + at(vip, 80) + " S seq=5000",
		"tcp " + at(server, 80) + " > " + at(client, 40000) + " SA seq=7000 ack=5001",
		"tcp " + at(client, 40000) + " > " + at(vip, 80) + " A seq=5001 ack=7001",
		"udp " + at(client, 40053) + " > " + at(vip, 53) + " data=20",
		"udp " + at(server, 53) + " > " + at(client, 40053) + " data=20",
		"icmp " + server + " > " + far + " echo-request id=7 seq=1 data=20",
	} {
		s.arrive("", text)
		if s.verdict.Action != Forward {
			t.Fatalf("%s: %v %v", text, s.verdict.Action, s.verdict.Reason)
		}
		s.verdict = nil
	}
	return s, []quotedFlow{
		{"TCP, by the client", client, vip, "tcp " + at(vip, 80) + " > " + at(client, 40000) + " A seq=7001 ack=5001 data=40", 0},
		{"TCP, by the server", server, client, "tcp " + at(client, 40000) + " > " + at(server, 80) + " A seq=5001 ack=7001 data=40", 1},
		{"UDP, by the client", client, vip, "udp " + at(vip, 53) + " > " + at(client, 40053) + " data=40", 0},
		{"UDP, by the server", server, client, "udp " + at(client, 40053) + " > " + at(server, 53) + " data=40", 1},
		{"ping, by its peer", far, vip, "icmp " + vip + " > " + far + " echo-request id=7 seq=1 data=40", 0},
	}
}

// message is a whole ICMP packet with what stands behind its first four bytes.
func message(t *testing.T, flow *quotedFlow, kind, code uint8, rest []byte) []byte {
	t.Helper()
	from, to := netip.MustParseAddr(flow.from), netip.MustParseAddr(flow.to)
	if from.Is6() {
		ip := ip6Layer(layers.IPProtocolICMPv6)
		ip.SrcIP, ip.DstIP = from.AsSlice(), to.AsSlice()
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
		icmp.SetNetworkLayerForChecksum(ip)
		return serialize(t, ip, icmp, gopacket.Payload(rest))
	}
	ip := ipLayer(layers.IPProtocolICMPv4)
	ip.SrcIP, ip.DstIP = from.AsSlice(), to.AsSlice()
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code)}
	if len(rest) >= 4 {
		icmp.Id, icmp.Seq = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		return serialize(t, ip, icmp, gopacket.Payload(rest[4:]))
	}
	return serialize(t, ip, icmp)
}

// FAULTS 66, 139: errors of every type, whose quotation is cut at every length or
// has a header of every length, through the whole walk. What is not a sound error
// about a connection goes nowhere and is not touched, and nothing changes an entry.
func TestMangledErrorsGoNowhere(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		translated, whole := []uint8{icmpUnreachable, icmpSourceQuench, icmpTimeExceeded}, ipv4HeaderLen+8
		if ipv6 {
			translated = []uint8{icmpv6Unreachable, icmpv6PacketTooBig, icmpv6TimeExceeded, icmpv6ParameterProblem}
			whole = ipv6HeaderLen + 8
		}
		s, flows := quotable(t, ipv6)
		f := s.forwarder()
		defer f.Close()
		entries := func() []ConnInfo { return f.Conns(ConnQuery{}).Conns }
		before := entries()
		for i := range flows {
			flow := &flows[i]
			inner, _ := encodePacket(flow.about)
			forwarded := 0
			send := func(what string, kind uint8, quotation []byte, mayGo bool) {
				t.Helper()
				b := message(t, flow, kind, 0, append([]byte{0, 0, 5, 0x78}, quotation...))
				kept := slices.Clone(b)
				f.Begin(s.now)
				v := f.Forward(&Packet{Data: b, In: flow.in, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}})
				switch {
				case v.Action != Forward && !slices.Equal(b, kept):
					t.Errorf("%s: %s: %v, and changed", flow.name, what, v.Action)
				case v.Action != Forward:
				case !mayGo:
					t.Errorf("%s: %s: goes on", flow.name, what)
				default:
					sound(t, b)
					forwarded++
				}
			}
			pings := []int{0, 8}
			if ipv6 {
				pings = []int{128, 129}
			}
			for kind := range 256 {
				if slices.Contains(pings, kind) {
					continue // no errors
				}
				is := slices.Contains(translated, uint8(kind))
				send(fmt.Sprintf("type %d", kind), uint8(kind), inner, is)
			}
			for _, kind := range translated {
				for n := range len(inner) {
					send(fmt.Sprintf("type %d, %d bytes quoted", kind, n), kind, inner[:n], n >= whole)
				}
			}
			if forwarded != len(translated)*(len(inner)-whole+1) {
				t.Errorf("%s: %d errors went on, which says little about the others", flow.name, forwarded)
			}
			for length := range 16 {
				for _, n := range []int{len(inner), whole, 60} {
					harmed := slices.Clone(inner[:n])
					if ipv6 {
						harmed[5] = byte(length) // of the payload
					} else {
						harmed[0] = 4<<4 | byte(length)
						if h := length * 4; h >= ipv4HeaderLen && h <= n {
							fixHeader(harmed)
						}
					}
					mayGo := length == 5
					if ipv6 {
						mayGo = length >= 8
					}
					send(fmt.Sprintf("%d bytes with a length of %d", n, length), translated[0], harmed, mayGo)
				}
			}
			for version := range 16 {
				harmed := slices.Clone(inner)
				harmed[0] = byte(version)<<4 | harmed[0]&15
				if !ipv6 {
					fixHeader(harmed)
				}
				send(fmt.Sprintf("version %d", version), translated[0], harmed, harmed[0] == inner[0])
			}
			// Whatever stands where a quotation should.
			for n := range 8 {
				send(fmt.Sprintf("%d bytes of nothing", n), translated[0], make([]byte, n), false)
			}
		}
		if after := entries(); !slices.Equal(after, before) {
			t.Errorf("the entries were\n%+v\nand are\n%+v", before, after)
		}
		if made := f.Outbox(); len(made) != 0 {
			t.Errorf("%d answers to errors", len(made))
		}
	}
}
