// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/shortcut"
	"github.com/vsnat/vsnat/nat"
)

// What the kernel makes of a frame that takes a shortcut must be, to the bit, what the
// Forwarder makes of it.

// loopback is the link that programs are tried on. Its address is all zero.
const loopback = 1

// A bypass is a shard of which nothing runs, with a table that it fills.
type bypass struct {
	t     *testing.T
	rules *nat.Rules
	shard *Shard
	table *shortcut.Table
	link  *closeCounter
}

type closeCounter int

func (c *closeCounter) Close() error { *c++; return nil }

// A stream is a TCP connection that goes through.
type stream struct{ client, virtual, server, seen netip.AddrPort } // seen: what the server sees

var streams = map[string]stream{
	"IPv4":              streamOf("192.168.88.21:40000", "192.168.88.23:80", "10.0.0.2:8080", ""),
	"IPv4, same port":   streamOf("192.168.88.21:40000", "192.168.88.23:8080", "10.0.0.2:8080", ""),
	"IPv4, full NAT":    streamOf("192.168.88.21:40000", "192.168.88.23:81", "10.0.0.2:8081", "10.0.0.1:0"),
	"IPv6":              streamOf("[2001:db8:88::21]:40000", "[2001:db8:88::23]:80", "[fd00:10::2]:8080", ""),
	"IPv6, same port":   streamOf("[2001:db8:88::21]:40000", "[2001:db8:88::23]:8080", "[fd00:10::2]:8080", ""),
	"IPv4, from inside": streamOf("192.168.88.21:80", "192.168.88.23:40000", "10.0.0.9:40000", "inside"),
}

func streamOf(client, virtual, server, seen string) stream {
	s := stream{client: netip.MustParseAddrPort(client), virtual: netip.MustParseAddrPort(virtual), server: netip.MustParseAddrPort(server)}
	s.seen = s.client
	if seen != "" && seen != "inside" {
		s.seen = netip.MustParseAddrPort(seen)
	}
	return s
}

// newBypass is nil where no programs can be had.
func newBypass(t *testing.T) *bypass {
	t.Helper()
	table, err := shortcut.Open(8)
	if err != nil {
		if !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("refused without a hint: %v", err)
		}
		return nil
	}
	t.Cleanup(table.Close)
	b := &bypass{t: t, rules: nat.NewRules(), table: table, link: new(closeCounter)}
	var infos []nat.PortInfo
	var neighbours []iface.NeighbourPort
	own := [2][]netip.Prefix{wan: {netip.MustParsePrefix("192.168.88.23/24")}, lan: {netip.MustParsePrefix("10.0.0.1/24")}}
	for i := range own {
		infos = append(infos, nat.PortInfo{Index: uint16(i), Name: fmt.Sprint("port", i), MTU: 1500, Up: true})
		neighbours = append(neighbours, iface.NeighbourPort{Port: i, MAC: [6]byte(macs[i]), Addrs: own[i]})
	}
	b.rules.SetPorts(infos)
	b.rules.SetRoutes([]nat.Route{
		{Dst: netip.MustParsePrefix("192.168.88.0/24"), Port: wan}, {Dst: netip.MustParsePrefix("10.0.0.0/24"), Port: lan},
		{Dst: netip.MustParsePrefix("2001:db8:88::/64"), Port: wan}, {Dst: netip.MustParsePrefix("fd00:10::/64"), Port: lan},
	})
	b.rules.SetOwned([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00:10::1/64")})
	must(t, b.rules.AddSNAT(nat.SNATSpec{From: netip.MustParsePrefix("10.0.0.9/32"), To: vip}))
	for name, s := range streams {
		if name == "IPv4, from inside" {
			continue
		}
		key := nat.ServiceKey{Proto: nat.ProtoTCP, Addr: s.virtual.Addr(), Port: s.virtual.Port()}
		must(t, b.rules.AddService(nat.ServiceSpec{ServiceKey: key, Scheduler: "rr"}))
		server := nat.ServerSpec{Addr: s.server.Addr(), Port: s.server.Port(), Weight: 1}
		if s.seen != s.client {
			server.Source = nat.SourceFull
		}
		must(t, b.rules.AddServer(key, server))
	}
	b.rules.Publish()
	forwarder, err := nat.NewForwarder(nat.ForwarderConfig{Rules: b.rules, MaxConns: 1000, Seed: [2]uint64{1, 2}})
	must(t, err)
	n := iface.NewNeighbours(iface.NeighbourConfig{})
	n.SetPorts(neighbours)
	b.shard, err = newShard(forwarder, n, nil)
	must(t, err)
	t.Cleanup(func() { _ = b.shard.poller.Close(); must(t, forwarder.Close()) })
	b.know(serverMAC)
	for i := range macs {
		b.shard.ports[i] = &Port{Index: uint16(i), MAC: conntrack.LinkAddr(macs[i]), Shortcuts: NewShortcutLink(loopback, b.link)}
	}
	Set{b.shard}.TakeShortcuts(table, 8)
	b.shard.now = conntrack.Time(time.Hour)
	return b
}

// know has all inside hosts at one link address.
func (b *bypass) know(mac []byte) {
	var list []iface.PermanentNeighbour
	for _, a := range []string{"10.0.0.2", "10.0.0.9", "fd00:10::2"} {
		list = append(list, iface.PermanentNeighbour{Port: lan, Addr: netip.MustParseAddr(a), MAC: [6]byte(mac)})
	}
	list = append(list, iface.PermanentNeighbour{Port: wan, Addr: clientIP, MAC: [6]byte(clientMAC)})
	b.shard.neighbours.SetPermanent(list)
}

// A segment is a frame of a stream, as it arrives.
type segment struct {
	stream
	outbound bool
	seq, ack uint32
	size     int
	change   func(ip *layers.IPv4, ip6 *layers.IPv6, tcp *layers.TCP)
}

func (s segment) frame() []byte {
	from, to, mac := s.client, s.virtual, clientMAC
	if s.outbound {
		from, to, mac = s.server, s.seen, serverMAC
	}
	t := &layers.TCP{SrcPort: layers.TCPPort(from.Port()), DstPort: layers.TCPPort(to.Port()), Seq: s.seq, Ack: s.ack, Window: 60000, ACK: true}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice()}
	ip6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice()}
	if s.change != nil {
		s.change(ip, ip6, t)
	}
	list := []gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: mac, DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}, ip, t}
	var network gopacket.NetworkLayer = ip
	if from.Addr().Is6() {
		list[0].(*layers.Ethernet).EthernetType, list[1] = layers.EthernetTypeIPv6, ip6
		network = ip6
	}
	if err := t.SetNetworkLayerForChecksum(network); err != nil {
		panic(err)
	}
	payload := make([]byte, s.size)
	for i := range payload {
		payload[i] = byte(i * i)
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(list, gopacket.Payload(payload))...); err != nil {
		panic(err)
	}
	return buffer.Bytes()
}

// forward has the Forwarder do it, and the shard's link addresses put in front.
func (b *bypass) forward(s segment, o nat.Offload) []byte {
	b.t.Helper()
	frame := s.frame()
	p := nat.Packet{Data: frame[14:], In: wan, From: conntrack.LinkAddr(clientMAC), Offload: o}
	if s.outbound {
		p.In, p.From = lan, conntrack.LinkAddr(serverMAC)
	}
	v := b.shard.forwarder.Forward(&p)
	if v.Action != nat.Forward {
		b.t.Fatalf("%v: %+v", s, v)
	}
	to := v.To
	if to == (conntrack.LinkAddr{}) {
		mac, _ := b.shard.neighbours.Lookup(iface.Time(b.shard.now), int(v.Port), v.NextHop.Netip())
		to = mac
	}
	copy(frame, to[:])
	copy(frame[6:], macs[v.Port])
	return frame
}

// establish opens a stream and moves so much that it gets a shortcut.
func (b *bypass) establish(s *stream) {
	b.t.Helper()
	b.shard.forwarder.Begin(b.shard.now)
	flags := func(syn, ack bool) func(*layers.IPv4, *layers.IPv6, *layers.TCP) {
		return func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.SYN, t.ACK = syn, ack }
	}
	first := segment{stream: *s, seq: 1000, change: flags(true, false)}
	inside := s.server.Addr() == netip.MustParseAddr("10.0.0.9")
	first.outbound = inside
	left := b.forward(first, nat.Offload{})
	if s.seen != s.client { // the port is what the Forwarder chose
		s.seen = netip.AddrPortFrom(s.seen.Addr(), binary.BigEndian.Uint16(left[34:]))
	}
	b.forward(segment{stream: *s, outbound: !inside, seq: 2000, ack: 1001, change: flags(true, true)}, nat.Offload{})
	client, server := uint32(1001), uint32(2001)
	if inside {
		client, server = server, client
	}
	gso := nat.Offload{GSOType: nat.GSOTCPv4, GSOSize: 1200}
	if s.client.Addr().Is6() {
		gso.GSOType = nat.GSOTCPv6
	}
	b.forward(segment{stream: *s, seq: client, ack: server}, nat.Offload{})
	for range 5 {
		b.forward(segment{stream: *s, outbound: true, seq: server, ack: client, size: 30000}, gso)
	}
	b.shard.forwarder.Sweep(8)
	if n := b.shard.forwarder.Stats().Shortcuts.Open; n != 1 {
		b.t.Fatalf("%d shortcuts", n)
	}
}

// TestShortcutsAreTheForwarder compares what the program makes of segments with what the
// Forwarder does.
func TestShortcutsAreTheForwarder(t *testing.T) {
	for name, s := range streams {
		t.Run(name, func(t *testing.T) {
			b := newBypass(t)
			if b == nil {
				return
			}
			b.establish(&s)
			r := rand.New(rand.NewPCG(7, 8))
			var sum [2]shortcut.Passed
			for i := range 200 {
				g := segment{stream: s, outbound: i%2 == 1, seq: 1001 + r.Uint32N(30000), ack: 2001 + r.Uint32N(30000), size: r.IntN(1400)}
				if g.outbound != (s.server.Addr() == netip.MustParseAddr("10.0.0.9")) {
					g.seq, g.ack = g.ack, g.seq
				}
				push, hops, odd := r.IntN(2) == 0, uint8(2+r.IntN(200)), r.IntN(3)
				g.change = func(ip *layers.IPv4, ip6 *layers.IPv6, t *layers.TCP) {
					t.PSH, t.ECE = push, odd == 1
					ip.TTL, ip6.HopLimit = hops, hops
					ip.TOS, ip6.TrafficClass, ip.Id = uint8(odd), uint8(odd), uint16(i*777)
					if odd == 2 {
						ip.Flags = layers.IPv4DontFragment
						t.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: bytes.Repeat([]byte{byte(i)}, 8)}}
					}
				}
				out, taken, err := b.table.Try(g.frame())
				must(t, err)
				if !taken {
					t.Fatalf("segment %d took no shortcut", i)
				}
				if want := b.forward(g, nat.Offload{}); !bytes.Equal(out, want) {
					t.Fatalf("segment %d:\nprogram   %x\nForwarder %x", i, out, want)
				}
				p := &sum[i%2]
				p.Packets++
				if length := binary.BigEndian.Uint16(out[16:]); out[14]>>4 == 4 {
					p.Bytes += uint64(length) // the frame may be padded
				} else {
					p.Bytes += uint64(len(out) - 14)
				}
			}
			b.passed(sum)
			b.odd(s)
		})
	}
}

// passed compares what the table has counted.
func (b *bypass) passed(want [2]shortcut.Passed) {
	b.t.Helper()
	var got [2]shortcut.Passed
	row := slices.IndexFunc(b.shard.short.rows, func(r shortcutRow) bool { return r.in[0] != nil })
	b.table.Passed(row, &got)
	for dir := range want {
		if got[dir].Packets != want[dir].Packets || got[dir].Bytes != want[dir].Bytes {
			b.t.Errorf("direction %d: %d packets, %d bytes; want %d, %d", dir, got[dir].Packets, got[dir].Bytes, want[dir].Packets, want[dir].Bytes)
		}
	}
}

// odd sends what must come to the Forwarder, and is left as it was.
func (b *bypass) odd(s stream) {
	b.t.Helper()
	ok := segment{stream: s, seq: 5001, ack: 5001, size: 10}
	with := func(change func(ip *layers.IPv4, ip6 *layers.IPv6, t *layers.TCP)) func() []byte {
		return func() []byte { g := ok; g.change = change; return g.frame() }
	}
	edited := func(at int, xor byte) func() []byte {
		return func() []byte { f := ok.frame(); f[at] ^= xor; return f }
	}
	rows := map[string]func() []byte{
		"FIN":             with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.FIN = true }),
		"RST":             with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.RST = true }),
		"SYN":             with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.SYN = true }),
		"no ACK":          with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.ACK = false }),
		"last hop":        with(func(ip *layers.IPv4, ip6 *layers.IPv6, _ *layers.TCP) { ip.TTL, ip6.HopLimit = 1, 1 }),
		"another client":  with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.SrcPort++ }),
		"far in sequence": with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.Seq += 1 << 30 }),
		"far in ack":      with(func(_ *layers.IPv4, _ *layers.IPv6, t *layers.TCP) { t.Ack += 1 << 30 }),
		"too big":         func() []byte { g := ok; g.size = 1480; return g.frame() },
		"other Ethernet":  edited(12, 1),
		"other protocol":  edited(14+9, 1),
		"cut":             func() []byte { f := ok.frame(); return f[:len(f)-5] },
		"for another":     edited(0, 2),
	}
	if s.client.Addr().Is4() {
		rows["bad header checksum"] = edited(14+10, 1)
		rows["more fragments"] = with(func(ip *layers.IPv4, _ *layers.IPv6, _ *layers.TCP) { ip.Flags = layers.IPv4MoreFragments })
		rows["fragment"] = with(func(ip *layers.IPv4, _ *layers.IPv6, _ *layers.TCP) { ip.FragOffset = 5 })
		rows["options"] = with(func(ip *layers.IPv4, _ *layers.IPv6, _ *layers.TCP) {
			ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
		})
		rows["header too short"] = edited(14+20+12, 0x70)
	} else {
		delete(rows, "other protocol")
		rows["other next header"] = edited(14+6, 1)
	}
	if s.server.Addr() != netip.MustParseAddr("10.0.0.9") { // where its neighbour is of no interest
		rows["another neighbour"] = edited(6, 4)
	}
	for name, frame := range rows {
		out, taken, err := b.table.Try(frame())
		must(b.t, err)
		if taken || !bytes.Equal(out, frame()) {
			b.t.Errorf("%s: taken %v", name, taken)
		}
	}
	if _, taken, _ := b.table.Try(ok.frame()); !taken {
		b.t.Error("an ordinary segment takes no shortcut")
	}
}

// TestShortcutsFollow: a shortcut goes when it would lead elsewhere, and when nothing
// comes out of it.
func TestShortcutsFollow(t *testing.T) {
	for name, change := range map[string]func(b *bypass){
		"a neighbour's link address": func(b *bypass) { b.know(clientMAC) },
		"a port that failed":         func(b *bypass) { b.shard.ports[lan] = nil },
		"a link without program":     func(b *bypass) { b.shard.ports[wan].Shortcuts.Close() },
		"somebody who takes frames": func(b *bypass) {
			b.shard.short.rows[0].passed[0].Left -= suspicious + 1 // so many have been left since
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBypass(t)
			if b == nil {
				return
			}
			s := streams["IPv4"]
			b.establish(&s)
			b.shard.short.follow()
			if b.shard.forwarder.Stats().Shortcuts.Open != 1 {
				t.Fatal("closed without a reason")
			}
			change(b)
			b.shard.short.generation--
			b.shard.short.follow()
			if n := b.shard.forwarder.Stats().Shortcuts.Open; n != 0 {
				t.Errorf("%d shortcuts are left", n)
			}
			if _, taken, _ := b.table.Try(segment{stream: s, seq: 1001, ack: 2001}.frame()); taken {
				t.Error("a segment still takes it")
			}
		})
	}
}
