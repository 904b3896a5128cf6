// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
	"github.com/vsnat/vsnat/nat"
)

// A packet waits for its next hop and leaves with the answer; those that are
// too many are counted.
func TestNeighbourAnswers(t *testing.T) {
	r := newRig(t)
	const all = 100
	for port := range all {
		r.feed(wan, syn(40000+port))
	}
	r.wants("", "lan>all arp 10.0.0.1 asks for 10.0.0.2")
	refused := int(r.unsent(nat.ReasonQueueFull))
	if refused == 0 || refused == all {
		t.Fatalf("%d packets of %d refused", refused, all)
	}
	r.feed(lan, arp(layers.ARPReply, serverMAC, serverIP, macs[lan], gateway))
	var first []string
	for port := range all - refused {
		first = append(first, fmt.Sprintf("lan>server tcp 192.168.88.21:%d > 10.0.0.2:8080 S", 40000+port))
	}
	r.wants("", strings.Join(first, "\n"))
	r.feed(wan, syn(40003))
	r.wants("", "lan>server tcp 192.168.88.21:40003 > 10.0.0.2:8080 S")
}

// A silent server: three questions, then the client is told, with the packet
// that it sent.
func TestNeighbourSilent(t *testing.T) {
	r := newRig(t)
	must(t, r.rules.EditServer(web, nat.ServerSpec{Addr: serverIP, Port: 8080, Weight: 0}))
	must(t, r.rules.AddServer(web, nat.ServerSpec{Addr: silentIP, Port: 8080, Weight: 1}))
	r.rules.Publish()
	r.feed(wan, syn(40000))
	r.pass(2 * time.Second)
	const question = "lan>all arp 10.0.0.1 asks for 10.0.0.9"
	r.wants("", strings.Join([]string{question, question, question}, "\n"))
	r.introduceClient()
	r.pass(1500 * time.Millisecond)
	const told = "wan>client icmp 192.168.88.23 > 192.168.88.21 DestinationUnreachable(Host) about (192.168.88.21:40000 > 192.168.88.23:80)"
	r.wants(told, "")
	// For a second nobody is asked, and the next client is told at once.
	r.feed(wan, syn(40001))
	r.wants(strings.Replace(told, "40000", "40001", 1), "")
}

func (r *rig) introduceClient() {
	r.neighbours.SetPermanent([]iface.PermanentNeighbour{{Port: wan, Addr: clientIP, MAC: [6]byte(clientMAC)}})
}

// What the Forwarder makes itself goes to the neighbour that asked.
func TestGenerated(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.feed(wan, echo(clientMAC, macs[wan], clientIP, vip, 7))
	r.wants("wan>client icmp 192.168.88.23 > 192.168.88.21 EchoReply", "")
	r.feed(lan, echo(serverMAC, macs[lan], serverIP, gateway, 7))
	r.wants("", "lan>server icmp 10.0.0.1 > 10.0.0.2 EchoReply")

	expiring := syn(40000)
	expiring[14+8] = 1 // TTL
	expiring[14+10], expiring[14+11] = 0, 0
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(expiring[i])<<8 | uint32(expiring[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	expiring[14+10], expiring[14+11] = byte(sum>>8), byte(sum)
	r.feed(wan, expiring)
	r.wants("wan>client icmp 192.168.88.23 > 192.168.88.21 TimeExceeded(TTLExceeded) about (192.168.88.21:40000 > 192.168.88.23:80)", "")

	must(t, r.rules.EditService(nat.ServiceSpec{ServiceKey: web, Scheduler: "rr", NoServer: nat.NoServerReset}))
	must(t, r.rules.DelServer(web, serverIP, 8080))
	r.rules.Publish()
	r.feed(wan, syn(40001))
	r.wants("wan>client tcp 192.168.88.23:80 > 192.168.88.21:40001 RA", "")
}

// FAULTS 102: a port that is down only waits.
func TestPortDown(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.ports[lan].Down()
	r.serve(lan)
	r.feed(wan, syn(40000))
	r.ports[lan].Up()
	r.feed(wan, syn(40001))
	r.wants("", "lan>server tcp 192.168.88.21:40001 > 10.0.0.2:8080 S")
	if len(r.lost) != 0 {
		t.Errorf("lost: %v", r.lost)
	}
}

// FAULTS 103: a port that is gone in the middle of a batch is told of once,
// and its packets are counted; one put in its place carries on.
func TestPortGoneUnderTraffic(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.ports[lan].Gone()
	for port := range iface.BatchSize + 10 {
		r.ports[wan].Inject(syn(40000 + port))
	}
	r.serve(wan)
	r.serve(lan)
	if len(r.lost) != 1 || !iface.IsGone(r.lost[0]) || r.shard.ports[lan] != nil {
		t.Fatalf("lost: %v; port %v", r.lost, r.shard.ports[lan])
	}
	if n := r.unsent(nat.ReasonSend); n != 10 {
		t.Errorf("%d packets had no port, want 10", n)
	}
	if n := r.ports[lan].Stats().SendDrops; n != iface.BatchSize {
		t.Errorf("%d packets met the port that failed, want %d", n, iface.BatchSize)
	}
	if _, err := r.ports[lan].Write(nil); err == nil {
		t.Error("the queue is open")
	}

	r.plug(lan)
	r.feed(wan, syn(40000))
	r.wants("", "lan>server tcp 192.168.88.21:40000 > 10.0.0.2:8080 S")
	r.feed(lan, synAck(40000))
	r.wants("wan>client tcp 192.168.88.23:80 > 192.168.88.21:40000 SA", "")
}

// The port that is being read fails, when the answers are written to it and
// once more when the batch is over: it is told of once.
func TestPortFailsInItsOwnBatch(t *testing.T) {
	r := newRig(t)
	r.ports[wan].Inject(echo(clientMAC, macs[wan], clientIP, vip, 7))
	r.ports[wan].Gone()
	r.serve(wan)
	if len(r.lost) != 1 || r.shard.ports[wan] != nil {
		t.Errorf("lost: %v", r.lost)
	}
	r.plug(wan)
	r.feed(wan, echo(clientMAC, macs[wan], clientIP, vip, 7))
	r.wants("wan>client icmp 192.168.88.23 > 192.168.88.21 EchoReply", "")
}

// What is known of the stations behind a port does not outlive its carrier.
func TestNeighboursFlushed(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.feed(wan, syn(40000))
	r.forget()
	r.neighbours.Flush(lan)
	r.feed(wan, syn(40000))
	r.wants("", "lan>all arp 10.0.0.1 asks for 10.0.0.2")
}

// A replaced port: the old queue is closed, what was learned about its
// neighbours is kept or asked again, and traffic goes on.
func TestPortReplacedUnderTraffic(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.feed(wan, syn(40000))
	old := r.ports[lan]
	r.plug(lan)
	if _, err := old.Write(nil); err == nil {
		t.Error("the old queue is open")
	}
	r.forget()
	r.feed(wan, syn(40000))
	r.wants("", "lan>server tcp 192.168.88.21:40000 > 10.0.0.2:8080 S")
	if len(r.lost) != 0 {
		t.Errorf("lost: %v", r.lost)
	}
}

func TestWritesRefused(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	sent := r.shard.sent
	r.ports[lan].Full(3)
	for port := range 5 {
		r.ports[wan].Inject(syn(40000 + port))
	}
	r.serve(wan)
	if n := r.shard.sent - sent; n != 2 {
		t.Errorf("%d frames counted as sent, want 2", n)
	}
	if n := r.ports[lan].Stats().SendDrops; n != 3 {
		t.Errorf("%d frames dropped, want 3", n)
	}
	if len(r.lost) != 0 {
		t.Errorf("lost: %v", r.lost)
	}
}

// In by a port without link addresses, out by one with them: there is no room
// for a link header in front of the packet.
func TestNoRoomForHeader(t *testing.T) {
	r := newRig(t)
	near, _ := ifacetest.NewNetworkPair()
	must(t, r.shard.setPort(&Port{Index: 5, L3: true, Queue: near}))
	near.Inject(syn(40000)[14:])
	r.shard.serve(r.shard.ports[5])
	r.wants("", "")
	if n := r.unsent(nat.ReasonSend); n != 1 {
		t.Errorf("%d counted, want 1", n)
	}
}

// An index that another link gets: replies go by the routes until the client is
// heard there.
func TestIndexReused(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	r.feed(wan, syn(40000))
	r.forget()
	if next := r.shard.forwarder.ForgetPort(wan, 0); next != -1 {
		t.Fatalf("next part at %d", next)
	}
	r.feed(lan, synAck(40000))
	r.wants("wan>all arp 192.168.88.23 asks for 192.168.88.21", "")
	r.feed(wan, tcp(clientMAC, macs[wan], "192.168.88.21:40000", "192.168.88.23:80", "A"))
	r.forget()
	r.feed(lan, synAck(40000))
	r.wants("wan>client tcp 192.168.88.23:80 > 192.168.88.21:40000 SA", "")
}

// A route of the host that says no, and none: the sender is told.
func TestRouteSaysNo(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	far := netip.MustParsePrefix("198.51.100.0/24")
	everywhere := nat.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: clientIP, Port: wan}
	onLink := []nat.Route{
		{Dst: netip.MustParsePrefix("192.168.88.0/24"), Port: wan}, {Dst: netip.MustParsePrefix("10.0.0.0/24"), Port: lan}, everywhere,
	}
	r.rules.SetRoutes(append(onLink, nat.Route{Dst: far, Port: nat.NoPort}))
	r.rules.Publish()
	r.feed(lan, tcp(serverMAC, macs[lan], "10.0.0.2:5000", "198.51.100.7:22", "S"))
	r.wants("", "lan>server icmp 10.0.0.1 > 10.0.0.2 DestinationUnreachable(Host) about (10.0.0.2:5000 > 198.51.100.7:22)")
	r.rules.SetRoutes(onLink)
	r.rules.Publish()
	r.feed(lan, tcp(serverMAC, macs[lan], "10.0.0.2:5000", "198.51.100.7:22", "S"))
	r.wants("wan>all arp 192.168.88.23 asks for 192.168.88.21", "")
}
