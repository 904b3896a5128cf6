// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
	"github.com/vsnat/vsnat/nat"
)

func TestBothWays(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.feed(wan, syn(40000))
	r.wants("", "lan>server tcp 192.168.88.21:40000 > 10.0.0.2:8080 S")
	// The client is not resolved: its answers go where it was heard.
	r.feed(lan, synAck(40000))
	r.wants("wan>client tcp 192.168.88.23:80 > 192.168.88.21:40000 SA", "")

	// From inside, to the client, which has to be asked for.
	r.feed(lan, tcp(serverMAC, macs[lan], "10.0.0.2:5000", "192.168.88.21:22", "S"))
	r.wants("wan>all arp 192.168.88.23 asks for 192.168.88.21", "")
	r.feed(wan, arp(layers.ARPReply, clientMAC, clientIP, macs[wan], vip))
	r.wants("wan>client tcp 192.168.88.23:5000 > 192.168.88.21:22 S", "")
}

// FAULTS 10, 19 and DESIGN 5.12: what is not addressed to us, or came from
// another virtual LAN, is not ours.
func TestIgnored(t *testing.T) {
	plain := syn(40000)
	ipv6 := slices.Clone(plain)
	binary.BigEndian.PutUint16(ipv6[12:], 0x88cc)
	group := slices.Clone(plain)
	group[6] |= 1
	ourselves := slices.Clone(plain)
	copy(ourselves[6:12], macs[wan])
	for name, f := range map[string]iface.Frame{
		"truncated":             {Data: plain, Truncated: true},
		"tagged":                {Data: plain, Tagged: true},
		"other host":            {Data: plain, Kind: iface.OtherHost},
		"broadcast":             {Data: plain, Kind: iface.Broadcast},
		"multicast":             {Data: plain, Kind: iface.Multicast},
		"short":                 {Data: plain[:13]},
		"empty":                 {Data: []byte{}},
		"another protocol":      {Data: ipv6},
		"from a group":          {Data: group},
		"from our own address":  {Data: ourselves},
		"ARP of somebody else":  {Data: arp(layers.ARPRequest, clientMAC, clientIP, nil, vip), Kind: iface.OtherHost},
		"truncated ARP request": {Data: arp(layers.ARPRequest, clientMAC, clientIP, nil, vip), Truncated: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.introduce(lan, serverIP, serverMAC)
			r.ports[wan].InjectFrame(f)
			r.serve(wan)
			r.wants("", "")
			if n := r.shard.forwarder.Stats().Conns; n != 0 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestARPAnswered(t *testing.T) {
	r := newRig(t)
	r.feed(wan, arp(layers.ARPRequest, clientMAC, clientIP, nil, vip))
	r.feed(lan, arp(layers.ARPRequest, serverMAC, serverIP, nil, gateway))
	r.feed(lan, arp(layers.ARPRequest, serverMAC, serverIP, nil, silentIP))
	r.wants("wan>client arp 192.168.88.23 is at, to 192.168.88.21", "lan>server arp 10.0.0.1 is at, to 10.0.0.2")
}

// The offsets of the offload header count from the frame outside, from the
// packet inside; DESIGN 5.1 and 5.3.
func TestOffloadKept(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.feed(wan, syn(40000))
	r.feed(lan, synAck(40000))
	r.forget()

	super := tcp(clientMAC, macs[wan], "192.168.88.21:40000", "192.168.88.23:80", "A", make([]byte, 65535-40)...)
	// Partial: the field holds the sum of the pseudo-header.
	pseudo := func(src, dst netip.Addr, length int) uint16 {
		sum := uint32(6 + length)
		for _, a := range [][4]byte{src.As4(), dst.As4()} {
			sum += uint32(binary.BigEndian.Uint16(a[:])) + uint32(binary.BigEndian.Uint16(a[2:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		return uint16(sum)
	}
	binary.BigEndian.PutUint16(super[14+20+16:], pseudo(clientIP, vip, 65535-20))
	off := iface.Offload{Flags: iface.FlagNeedsChecksum, GSOType: iface.GSOTCPv4, HeaderLen: 54, GSOSize: 1460, ChecksumStart: 34, ChecksumOffset: 16}
	r.ports[wan].InjectFrame(iface.Frame{Data: super, Offload: off})
	r.serve(wan)
	sent := r.ports[lan].Sent()
	if len(sent) != 1 || len(sent[0].Data) != len(super) || sent[0].Offload != off {
		t.Fatalf("%d frames sent; want one of %d bytes with %+v: %+v", len(sent), len(super), off, sent)
	}
	if got, want := binary.BigEndian.Uint16(sent[0].Data[14+20+16:]), pseudo(clientIP, serverIP, 65535-20); got != want {
		t.Errorf("partial checksum %#x, want %#x", got, want)
	}
}

// Conversions of the offload header are inverse but for what means nothing.
func TestOffloadOffsets(t *testing.T) {
	for _, o := range []iface.Offload{
		{},
		{Flags: iface.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16},
		{Flags: iface.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16, GSOType: iface.GSOTCPv4 | 0x80, GSOSize: 1448, HeaderLen: 66},
		{GSOType: iface.GSOTCPv4, GSOSize: 9, HeaderLen: 14 + 40},
	} {
		for _, header := range []uint16{0, etherHeaderLen} {
			n := fromWire(&o, header)
			if got := toWire(&n, header); got != o {
				t.Errorf("header %d: %+v became %+v", header, o, got)
			}
			if o.NeedsChecksum() && n.ChecksumStart != o.ChecksumStart-header {
				t.Errorf("header %d: checksum starts at %d", header, n.ChecksumStart)
			}
		}
	}
	// A start inside of the link header is a lie of the sender.
	lie := iface.Offload{Flags: iface.FlagNeedsChecksum, ChecksumStart: 13}
	if n := fromWire(&lie, etherHeaderLen); n.NeedsChecksum {
		t.Errorf("checksum from %d", n.ChecksumStart)
	}
}

// Ageing is spread: no more than a few entries between two batches.
func TestSweepBetweenBatches(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	for port := range 200 {
		r.feed(wan, syn(30000+port))
	}
	r.shard.now += conntrack.Time(time.Hour)
	last := r.shard.forwarder.Stats().Conns
	if last != 200 {
		t.Fatalf("%d connections", last)
	}
	for batch := 0; last > 1; batch++ {
		r.feed(wan, syn(50000)) // one stays
		n := r.shard.forwarder.Stats().Conns
		if last-n > sweepPerBatch || batch > 20 {
			t.Fatalf("batch %d: from %d to %d connections", batch, last, n)
		}
		last = n
	}
}

// A port without link addresses: the host routed a packet to us, and gets back
// what is none of ours, byte for byte; where it routes nothing itself, only what is
// for the host.
func TestPassGoesBack(t *testing.T) {
	r := newRig(t)
	near, _ := ifacetest.NewNetworkPair()
	tun := nat.PortInfo{Index: 5, Name: "tun", MTU: 1500, L3: true, Up: true, Forwards4: true, Forwards6: true}
	r.rules.SetPorts([]nat.PortInfo{tun})
	r.rules.SetRoutes([]nat.Route{
		{Dst: netip.MustParsePrefix("192.168.88.0/24"), Port: 5}, {Dst: netip.MustParsePrefix("10.0.0.0/24"), Port: 5},
	})
	r.rules.SetHost(nat.HostAddresses{Addrs: []netip.Addr{netip.MustParseAddr("192.168.88.1")}})
	r.rules.Publish()
	must(t, r.shard.setPort(&Port{Index: 5, L3: true, Queue: near}))

	other := tcp(clientMAC, clientMAC, "192.168.88.21:1", "198.51.100.1:2", "S", 1, 2, 3)[14:]
	padded := append(slices.Clone(other), 0, 0)
	ipv6 := []byte{0: 0x60, 6: 59, 7: 64, 8: 0x20, 9: 1, 23: 1, 24: 0x20, 25: 1, 39: 2}
	off := iface.Offload{Flags: iface.FlagNeedsChecksum, ChecksumStart: 20, ChecksumOffset: 16, HeaderLen: 40}
	for name, f := range map[string]iface.Frame{
		"foreign": {Data: other}, "padded": {Data: padded}, "offload": {Data: other, Offload: off}, "IPv6": {Data: ipv6},
	} {
		near.ForgetSent()
		near.InjectFrame(f)
		r.shard.serve(r.shard.ports[5])
		sent := near.Sent()
		if len(sent) != 1 || !bytes.Equal(sent[0].Data, f.Data) || sent[0].Offload != f.Offload {
			t.Errorf("%s: %+v came back of %+v", name, sent, f)
		}
	}
	tun.Forwards4 = false
	r.rules.SetPorts([]nat.PortInfo{tun})
	r.rules.Publish()
	toHost := tcp(clientMAC, clientMAC, "192.168.88.21:1", "192.168.88.1:2", "S", 1, 2, 3)[14:]
	for _, row := range []struct {
		name string
		data []byte
		back int
	}{{"foreign", other, 0}, {"for the host", toHost, 1}, {"IPv6", ipv6, 1}} {
		near.ForgetSent()
		near.Inject(row.data)
		r.shard.serve(r.shard.ports[5])
		if sent := near.Sent(); len(sent) != row.back {
			t.Errorf("%s: a host that forwards no IPv4 gets %d back, want %d", row.name, len(sent), row.back)
		}
	}
	near.ForgetSent()
	near.Inject(syn(40000)[14:])
	r.shard.serve(r.shard.ports[5])
	if sent := near.Sent(); len(sent) != 1 || packetWords(sent[0].Data) != "tcp 192.168.88.21:40000 > 10.0.0.2:8080 S" {
		t.Errorf("%d frames came back of a SYN for a service: %v", len(sent), packetWords(sent[0].Data))
	}
}

// still is a queue that gives the same frames again and again, and takes all.
type still struct {
	iface.Queue
	frames []iface.Frame
	copies [][]byte
}

func (q *still) Read(b []iface.Frame) (int, error) {
	for i := range q.frames {
		copy(q.copies[i], q.frames[i].Data)
		b[i] = iface.Frame{Data: q.copies[i]}
	}
	return len(q.frames), nil
}

func (q *still) Write(b []iface.Frame) (int, error) { return len(b), nil }

func TestNoAllocations(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	var in, out []iface.Frame
	for port := range 30 {
		r.feed(wan, syn(40000+port))
		r.feed(lan, synAck(40000+port))
		in = append(in, iface.Frame{Data: tcp(clientMAC, macs[wan], fmt.Sprintf("192.168.88.21:%d", 40000+port), "192.168.88.23:80", "A", 1, 2)})
		out = append(out, iface.Frame{Data: synAck(40000 + port)})
	}
	for i, frames := range [][]iface.Frame{in, out} {
		q := &still{Queue: r.ports[i], frames: frames}
		for range frames {
			q.copies = append(q.copies, make([]byte, 2000))
		}
		r.shard.ports[i].Queue = q
	}
	before := r.shard.sent
	n := testing.AllocsPerRun(100, func() {
		r.shard.now += conntrack.Time(time.Millisecond)
		r.serve(wan)
		r.serve(lan)
		r.shard.idle() // which reads once more
	})
	if n != 0 {
		t.Errorf("%v allocations in a batch", n)
	}
	if sent := r.shard.sent - before; sent != 101*2*60 {
		t.Errorf("%d frames sent", sent)
	}
}

func TestMACCache(t *testing.T) {
	var c macCache
	a, b := conntrack.AddrFrom4([4]byte{10, 0, 0, 2}), conntrack.AddrFrom4([4]byte{10, 0, 0, 3})
	row := c.row(&a, 1)
	if row.holds(&a, 1, 0) {
		t.Error("an empty row holds something")
	}
	*row = macRow{addr: a, port: 1, generation: 7, mac: conntrack.LinkAddr(net.HardwareAddr(serverMAC)), set: true}
	for _, x := range []struct {
		addr       conntrack.Addr
		port       uint16
		generation uint32
		want       bool
	}{{a, 1, 7, true}, {a, 1, 8, false}, {a, 2, 7, false}, {b, 1, 7, false}} {
		if row.holds(&x.addr, x.port, x.generation) != x.want {
			t.Errorf("%v port %d generation %d", x.addr, x.port, x.generation)
		}
	}
	c.clear()
	if row.holds(&a, 1, 7) {
		t.Error("clear left a row")
	}
}
