// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
	"github.com/vsnat/vsnat/nat"
)

// A rig is a shard between two ports in memory, with rules of its own: the
// client and the VIP are on port wan, the servers on port lan. Nothing runs by
// itself; the test feeds frames and turns the clock.
type rig struct {
	t          *testing.T
	rules      *nat.Rules
	shard      *Shard
	neighbours *iface.Neighbours
	ports      [2]*ifacetest.Port // the shard's ends
	lost       []error
}

const (
	wan = 0
	lan = 1
)

var (
	macs = [2]net.HardwareAddr{{2, 0, 0, 0, 0, 0x10}, {2, 0, 0, 0, 0, 0x11}} // ours, by port

	clientMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	serverMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	clientIP  = netip.MustParseAddr("192.168.88.21")
	vip       = netip.MustParseAddr("192.168.88.23")
	gateway   = netip.MustParseAddr("10.0.0.1")
	serverIP  = netip.MustParseAddr("10.0.0.2")
	silentIP  = netip.MustParseAddr("10.0.0.9")
	web       = nat.ServiceKey{Proto: nat.ProtoTCP, Addr: vip, Port: 80}
)

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, rules: nat.NewRules()}
	must(t, r.rules.AddService(nat.ServiceSpec{ServiceKey: web, Scheduler: "rr"}))
	must(t, r.rules.AddServer(web, nat.ServerSpec{Addr: serverIP, Port: 8080, Weight: 1}))
	must(t, r.rules.AddSNAT(nat.SNATSpec{From: netip.MustParsePrefix("10.0.0.0/24"), To: vip}))
	r.rules.SetOwned([]netip.Prefix{netip.PrefixFrom(gateway, 24)})
	networks := [2]netip.Prefix{netip.MustParsePrefix("192.168.88.0/24"), netip.MustParsePrefix("10.0.0.0/24")}
	own := [2]netip.Prefix{netip.PrefixFrom(vip, 24), netip.PrefixFrom(gateway, 24)}
	var infos []nat.PortInfo
	var routes []nat.Route
	var neighbours []iface.NeighbourPort
	for i := range r.ports {
		infos = append(infos, nat.PortInfo{Index: uint16(i), Name: fmt.Sprint("port", i), MTU: 1500, Up: true})
		routes = append(routes, nat.Route{Dst: networks[i], Port: uint16(i)})
		neighbours = append(neighbours, iface.NeighbourPort{Port: i, MAC: [6]byte(macs[i]), Addrs: []netip.Prefix{own[i]}})
	}
	r.rules.SetPorts(infos)
	r.rules.SetRoutes(routes)
	r.rules.Publish()
	r.neighbours = iface.NewNeighbours(iface.NeighbourConfig{})
	r.neighbours.SetPorts(neighbours)
	r.neighbours.SetOwned([]netip.Addr{vip, gateway})

	forwarder, err := nat.NewForwarder(nat.ForwarderConfig{Rules: r.rules, MaxConns: 1000, Seed: [2]uint64{1, 2}})
	must(t, err)
	r.shard, err = newShard(forwarder, r.neighbours, func(_ *Port, err error) { r.lost = append(r.lost, err) })
	must(t, err)
	t.Cleanup(func() {
		r.shard.closePorts()
		_ = r.shard.poller.Close()
		must(t, forwarder.Close())
	})
	for i := range r.ports {
		r.plug(i)
	}
	r.shard.now = conntrack.Time(time.Second)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plug puts a new queue in place of that of a port.
func (r *rig) plug(i int) {
	r.t.Helper()
	r.ports[i], _ = ifacetest.NewPair()
	must(r.t, r.shard.setPort(&Port{Index: uint16(i), MAC: conntrack.LinkAddr(macs[i]), Queue: r.ports[i]}))
}

// introduce teaches the shard who has an address, as an answer would.
func (r *rig) introduce(i int, ip netip.Addr, mac net.HardwareAddr) {
	r.t.Helper()
	key := r.neighbours.Resolve(iface.Time(r.shard.now), i, ip, make([]byte, 64), iface.Offload{}, r.shard.sendNow)
	if key != iface.ResolveQueued {
		r.t.Fatalf("resolving %s: %v", ip, key)
	}
	r.feed(i, arp(layers.ARPReply, mac, ip, macs[i], vip))
	r.forget()
}

func (r *rig) forget() {
	for _, p := range r.ports {
		p.ForgetSent()
	}
}

// feed gives frames to a port and has the shard serve it.
func (r *rig) feed(i int, frames ...[]byte) {
	r.ports[i].Inject(frames...)
	r.serve(i)
}

func (r *rig) serve(i int) {
	if p := r.shard.ports[i]; p != nil {
		r.shard.serve(p)
	}
}

// pass lets time pass in steps of the loop.
func (r *rig) pass(d time.Duration) {
	for end := r.shard.now + conntrack.Time(d); r.shard.now < end; {
		r.shard.now += conntrack.Time(pause)
		r.shard.idle()
	}
}

// sent returns what left by a port since the last forget, in words.
func (r *rig) sent(i int) (list []string) {
	for _, f := range r.ports[i].Sent() {
		list = append(list, inWords(f.Data))
	}
	return list
}

// wants compares what left by both ports since the last forget.
func (r *rig) wants(onWAN, onLAN string) {
	r.t.Helper()
	for i, want := range []string{onWAN, onLAN} {
		if got := strings.Join(r.sent(i), "\n"); got != want {
			r.t.Errorf("port %d sent\n%s\nwant\n%s", i, got, want)
		}
	}
	r.forget()
}

func (r *rig) unsent(reason nat.Reason) uint64 { return r.shard.unsent[reason] }

// ---- frames

func ether(src, dst net.HardwareAddr, rest ...gopacket.SerializableLayer) []byte {
	kind := layers.EthernetTypeIPv4
	if _, ok := rest[0].(*layers.ARP); ok {
		kind = layers.EthernetTypeARP
	}
	b := gopacket.NewSerializeBuffer()
	list := append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: kind}}, rest...)
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func ip4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), Flags: layers.IPv4DontFragment}
}

func tcp(src, dst net.HardwareAddr, from, to string, flags string, payload ...byte) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	ip := ip4(a.Addr(), b.Addr(), layers.IPProtocolTCP)
	t := &layers.TCP{
		SrcPort: layers.TCPPort(a.Port()), DstPort: layers.TCPPort(b.Port()), Seq: 1000, Ack: 2000, Window: 65535,
		SYN: strings.Contains(flags, "S"), ACK: strings.Contains(flags, "A"), RST: strings.Contains(flags, "R"),
	}
	if !t.SYN {
		t.Seq, t.Ack = 1001, 2001
	}
	if err := t.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	return ether(src, dst, ip, t, gopacket.Payload(payload))
}

func syn(port int) []byte {
	return tcp(clientMAC, macs[wan], fmt.Sprintf("192.168.88.21:%d", port), "192.168.88.23:80", "S")
}

func synAck(port int) []byte {
	return tcp(serverMAC, macs[lan], "10.0.0.2:8080", fmt.Sprintf("192.168.88.21:%d", port), "SA")
}

func echo(src, dst net.HardwareAddr, from, to netip.Addr, id uint16) []byte {
	return ether(src, dst, ip4(from, to, layers.IPProtocolICMPv4),
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: 1}, gopacket.Payload("ping"))
}

func arp(op uint16, from net.HardwareAddr, sender netip.Addr, to net.HardwareAddr, target netip.Addr) []byte {
	dst, hw := to, to
	if op == layers.ARPRequest {
		dst, hw = layers.EthernetBroadcast, make(net.HardwareAddr, 6)
	}
	return ether(from, dst, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
		SourceHwAddress: from, SourceProtAddress: sender.AsSlice(), DstHwAddress: hw, DstProtAddress: target.AsSlice(),
	})
}

var stationNames = map[string]string{
	macs[wan].String(): "wan", macs[lan].String(): "lan", clientMAC.String(): "client", serverMAC.String(): "server",
	layers.EthernetBroadcast.String(): "all",
}

// inWords says what a frame is, as another implementation reads it, checksums
// included.
func inWords(frame []byte) string {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth, ok := p.LinkLayer().(*layers.Ethernet)
	if !ok {
		return fmt.Sprintf("%x", frame)
	}
	s := station(eth.SrcMAC) + ">" + station(eth.DstMAC) + " "
	if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		verb := map[uint16]string{layers.ARPRequest: "asks for", layers.ARPReply: "is at, to"}[a.Operation]
		return s + fmt.Sprintf("arp %s %s %s", net.IP(a.SourceProtAddress), verb, net.IP(a.DstProtAddress))
	}
	if eth.EthernetType != layers.EthernetTypeIPv4 {
		return s + eth.EthernetType.String()
	}
	return s + packetWords(frame[14:])
}

func station(mac net.HardwareAddr) string {
	if n := stationNames[mac.String()]; n != "" {
		return n
	}
	return mac.String()
}

func packetWords(data []byte) string {
	p := gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.Default)
	ip, ok := p.NetworkLayer().(*layers.IPv4)
	if !ok {
		return fmt.Sprintf("%x", data)
	}
	var s string
	switch l := p.Layers()[1].(type) {
	case *layers.TCP:
		flags := ""
		for _, f := range []struct {
			set  bool
			name string
		}{{l.SYN, "S"}, {l.RST, "R"}, {l.ACK, "A"}} {
			if f.set {
				flags += f.name
			}
		}
		s = fmt.Sprintf("tcp %s:%d > %s:%d %s", ip.SrcIP, l.SrcPort, ip.DstIP, l.DstPort, flags)
	case *layers.ICMPv4:
		s = fmt.Sprintf("icmp %s > %s %s", ip.SrcIP, ip.DstIP, l.TypeCode)
		if t := l.TypeCode.Type(); t == layers.ICMPv4TypeDestinationUnreachable || t == layers.ICMPv4TypeTimeExceeded {
			return s + " about (" + quoteWords(l.Payload) + ")"
		}
	default:
		s = fmt.Sprintf("%s > %s protocol %d", ip.SrcIP, ip.DstIP, ip.Protocol)
	}
	if !sound(p, data) {
		return s + " BAD CHECKSUM"
	}
	return s
}

// sound makes the packet again from its layers, with lengths and checksums as
// they must be.
func sound(p gopacket.Packet, data []byte) bool {
	ip := p.NetworkLayer().(*layers.IPv4)
	list := []gopacket.SerializableLayer{ip}
	switch l := p.Layers()[1].(type) {
	case *layers.TCP:
		if l.SetNetworkLayerForChecksum(ip) != nil {
			return false
		}
		list = append(list, l, gopacket.Payload(l.Payload))
	case *layers.ICMPv4:
		list = append(list, l, gopacket.Payload(l.Payload))
	default:
		list = append(list, gopacket.Payload(ip.Payload))
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...)
	return err == nil && bytes.Equal(b.Bytes(), data)
}

// quoteWords reads the packet in an ICMP error: the beginning of one.
func quoteWords(b []byte) string {
	if len(b) < 28 {
		return "too short"
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	return fmt.Sprintf("%s:%d > %s:%d", src, int(b[20])<<8|int(b[21]), dst, int(b[22])<<8|int(b[23]))
}
