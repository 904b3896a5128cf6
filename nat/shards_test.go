// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// A crew is several Forwarders beside each other, which are given packets in turn and
// hand over what is another's.
type crew []*Forwarder

func (c crew) begin(now conntrack.Time) {
	for _, f := range c {
		f.Begin(now)
	}
}

// forward gives a packet to whichever is there, by its last bytes, and brings it to where it
// belongs.
func (c crew) forward(t *testing.T, p *Packet) Verdict {
	t.Helper()
	at := 0
	for _, b := range p.Data {
		at += int(b)
	}
	v := c[at%len(c)].Forward(p)
	for v.Action == Elsewhere {
		if v.Hops > maxHops {
			t.Fatalf("handed over %d times", v.Hops)
		}
		p.Hops = v.Hops
		v = c[v.Shard].Forward(p)
	}
	c.exchange(t, &v)
	p.Hops = 0
	return v
}

// exchange brings what was kept until it was whole to where it belongs. What becomes of the
// last of it becomes of the packet at hand.
func (c crew) exchange(t *testing.T, v *Verdict) {
	for _, f := range c {
		for _, g := range f.outbox.list[f.outbox.taken:] {
			if g.Verdict.Action != Elsewhere {
				continue
			}
			p := g.Packet
			p.Data, p.Hops = bytes.Clone(p.Data), g.Verdict.Hops
			*v = c[g.Verdict.Shard].Forward(&p)
			if v.Action == Elsewhere {
				t.Fatal("a datagram was handed over twice")
			}
		}
	}
}

func (c crew) outbox() (list []Generated) {
	for _, f := range c {
		for _, g := range f.Outbox() {
			if g.Verdict.Action != Elsewhere {
				list = append(list, g)
			}
		}
	}
	return list
}

func (c crew) stats() (sum Stats) {
	for _, f := range c {
		s := f.Stats()
		sum.Add(&s)
	}
	return sum
}

func (c crew) signals() (sum []ServerSignals) {
	for _, f := range c {
		for i, s := range f.Signals(nil) {
			if i == len(sum) {
				sum = append(sum, ServerSignals{})
			}
			sum[i].Add(&s)
		}
	}
	return sum
}

func (c crew) expectProbe(p Probe) {
	for _, f := range c {
		f.ExpectProbe(p)
	}
}

func (c crew) forgetProbe(p Probe) {
	for _, f := range c {
		f.ForgetProbe(p)
	}
}

func (c crew) probed(p Probe) (answer ProbeAnswer) {
	for _, f := range c {
		answer = max(answer, f.Probed(p))
	}
	return answer
}

func (c crew) conns() (list []ConnInfo) {
	for _, f := range c {
		list = append(list, f.Conns(ConnQuery{}).Conns...)
	}
	return list
}

// onOne are scripts that say which port full NAT takes, which with several Forwarders is
// one that tells whose it is, or how much goes into one table.
var onOne = map[string]bool{
	"marks": true, "ipv6-marks": true, "ipv6-neighbours": true, "one-packet-ways": true, "sctp-snat": true, "expiry-told": true,
	"hairpin": true, "hairpin-udp": true, "ipv6-hairpin": true, "ftp-hairpin": true,
	"fullnat": true, "fullnat-more": true, "fullnat-ftp": true, "fullnat-auto": true, "fullnat-full": true, "fullnat-ports": true,
	"table-full": true, "one-packet-full": true, "persist-full": true, "route-table-full": true,
	"udp-flood": true, "syn-flood": true, "sctp-flood": true, "persist-flood": true,
}

// All other scripts hold on several Forwarders, whichever a packet comes to first, and no
// packet meets a connection that is another's.
func TestScriptsOnSeveral(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if onOne[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScriptOn(t, file, 3)
		})
	}
}

// An answer of full NAT comes by the server that sends it, and finds the Forwarder that its
// client is with; so do its fragments, and what is said of it by ICMP. No two Forwarders
// give one port.
func TestFullNATOnSeveral(t *testing.T) {
	for n := 2; n <= 5; n++ {
		s := newScript(t, "full NAT")
		s.size = n
		s.step("service", "udp 192.168.88.23:53 sched rr")
		s.step("server", "10.0.0.2:53")
		ports := make(map[uint16]bool)
		for host := 3; host < 23; host++ {
			client := fmt.Sprintf("10.0.0.%d:5000", host)
			s.step("in@1", "udp "+client+" > 192.168.88.23:53 data=4")
			s.step("want@1", "udp 192.168.88.23:$PORT > 10.0.0.2:53")
			local := s.vars["PORT"]
			delete(s.vars, "PORT")
			port, err := strconv.Atoi(local)
			if err != nil || ports[uint16(port)] {
				t.Fatalf("%d Forwarders: %s is given twice, %v", n, local, err)
			}
			ports[uint16(port)] = true
			s.step("in@1", "udp 10.0.0.2:53 > 192.168.88.23:"+local+" data=4")
			s.step("want@1", "udp 192.168.88.23:53 > "+client)
		}
		if stats := s.crew.stats(); stats.Strange != 0 || stats.Elsewhere == 0 {
			t.Errorf("%d Forwarders: %d packets met a strange one, %d were handed over", n, stats.Strange, stats.Elsewhere)
		}
		for _, f := range s.crew {
			s.must(f.Close())
		}
	}
}

// One mapper serves all: an inside endpoint keeps its port whoever it talks to, and no port
// stands for two.
func TestOneMapperForAll(t *testing.T) {
	s := newScript(t, "SNAT")
	s.size = 4
	s.step("snat", "10.0.0.0/24 192.168.88.23")
	for host := 3; host < 10; host++ {
		for remote := 1; remote < 30; remote++ {
			s.step("in@1", fmt.Sprintf("udp 10.0.0.%d:5000 > 203.0.113.%d:53 data=4", host, remote))
			s.step("want@0", fmt.Sprintf("udp 192.168.88.23:$P%d > 203.0.113.%d:53", host, remote))
		}
	}
	seen := make(map[string]bool)
	for _, port := range s.vars {
		if seen[port] {
			t.Errorf("%s stands for two", port)
		}
		seen[port] = true
	}
	if busy := len(s.crew.conns()); busy != 7*29 {
		t.Errorf("%d connections", busy)
	}
	for _, f := range s.crew {
		if f.Stats().Conns == 0 {
			t.Error("a Forwarder has nothing to do")
		}
		s.must(f.Close())
	}
	if n := s.f.mapper.stats()[0].Mappings; n != 7 {
		t.Errorf("%d mappings for 7 endpoints", n)
	}
}

// Clients that are one to a persistent service are one to the key, and others are spread.
func TestShardKey(t *testing.T) {
	mask := func(text string) conntrack.Addr { return conntrack.AddrFrom(netip.MustParseAddr(text)) }
	k := NewShardKey(mask("255.255.255.0"), conntrack.Addr{})
	where := func(text string) int { return k.Of(new(mask(text)), 7) }
	if where("192.0.2.1") != where("192.0.2.254") || where("2001:db8::1") != where("2001:db8::ffff:0:1") {
		t.Error("one network is in two places")
	}
	var spread [7]int
	for i := range 7000 {
		spread[k.Of(new(conntrack.AddrFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}))), 7)]++
	}
	if slices.Min(spread[:]) < 800 || slices.Max(spread[:]) > 1200 {
		t.Errorf("networks are spread %v", spread)
	}
	for text, keeps := range map[string]bool{"255.255.255.0": true, "255.255.255.255": true, "255.255.0.0": false, "0.255.255.255": false, "ffff:ffff:ffff::": false} {
		if k.Keeps(mask(text)) != keeps {
			t.Errorf("keeps %s: %v", text, !keeps)
		}
	}
	if !k.Keeps(conntrack.Addr{}) {
		t.Error("does not keep single clients")
	}
}
