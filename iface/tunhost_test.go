// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
)

func TestTUNHostTakesServicesOfTheHost(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		listen(t, lab.host, at(plan.host, 22))
		setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", "1")
		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		rules.Services = []iface.GuardService{service(udp, at(plan.host, 53))}
		rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr(plan.host), Min: 1000, Max: 1999, Except: []uint16{1500}}}
		lab.routeInto(t, h, rules)

		from := at(plan.client, 4000)
		for port, taken := range map[uint16]bool{53: true, 54: false, 1000: true, 1500: false, 1999: true, 2000: false} {
			to, want := at(plan.host, port), []string{}
			if taken {
				want = append(want, "udp "+from)
			}
			expect(t, "to "+to, lab.deviceProbe(t, q, plan.host, func() error { return sendDatagram(from, to) }), want...)
		}
		lab.hostServes(t, plan)

		// What is not ours goes back as it came, and the host answers.
		done := make(chan error, 1)
		go func() {
			done <- lab.client.Do(func() error { return pingAndWait(plan.host) })
		}()
		readDevice(t, q, func(p []byte) bool {
			_, isPing := describe(inEthernet(p), waitedPing)
			if _, err := q.Write([]iface.Frame{{Data: p}}); err != nil {
				t.Error(err)
			}
			return isPing
		})
		if err := <-done; err != nil {
			t.Errorf("a ping that went through the device: %v", err)
		}
		if len(h.Limits()) != 1 {
			t.Errorf("limits %q", h.Limits())
		}
	})
}

// To IPv4's check of sources a fragment of ours comes from the host itself: it has
// no port by which the check would find our rules.
func TestTUNHostPassesFragmentsOfTheHost(t *testing.T) {
	lab := newTUNLab(t)
	q := openDevice(t, lab)
	if q == nil {
		return
	}
	setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", "1")
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(udp, "192.0.2.1:53")}
	lab.routeInto(t, h, rules)
	p := probe{from: lab.host, watch: lab.client, link: "eth0", marker: "192.0.2.21"}
	expect(t, "written with an address of the host", p.run(t, func() error {
		_, err := q.Write([]iface.Frame{{Data: lastFragment("192.0.2.1", "192.0.2.21")}})
		return err
	}), "fragment 192.0.2.1")
}

func TestTUNHostTranslatedTrafficFlows(t *testing.T) {
	for name, owned := range map[string]bool{"an address of the host": false, "an owned address": true} {
		t.Run(name, func(t *testing.T) {
			inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
				for _, strictness := range []string{"0", "1"} { // "all" of rp_filter
					setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", strictness)
					flow(t, lab, q, plan, owned)
				}
			})
		})
	}
}

func TestTUNHostTakesTransitOnly(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		rules.Owned = addresses(plan.owned)
		rules.Inside = []netip.Prefix{netip.MustParsePrefix(plan.inside)}
		lab.routeInto(t, h, rules)
		listen(t, lab.host, at(plan.hostInside, 22))
		err := lab.inside.Do(func() error {
			c, err := net.Dial("tcp", at(plan.hostInside, 22))
			if err == nil {
				c.Close()
			}
			return firstError(err, sendDatagram(at(plan.server, 80), at(plan.host, 9)), sendDatagram(at(plan.server, 80), at(plan.client, 4000)),
				sendDatagram(at(plan.neighbour, 80), at(plan.client, 4000)))
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "from inside", lab.deviceProbe(t, q, plan.owned, func() error { return nil }), "udp "+at(plan.server, 80))
	})
}

// A question that is sent to an address alone, as a neighbour sends it that has
// known it for a while, is answered by the host, however much else is taken.
func TestTUNHostLeavesNeighbourDiscovery(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules, plan := lab.rules(), hostPlans["IPv6"]
	rules.Owned = addresses(plan.owned)
	rules.Services = []iface.GuardService{service(udp, at(plan.host, 53))}
	lab.routeInto(t, h, rules)
	pub, err := lab.host.Handle.LinkByName("pub")
	if err != nil {
		t.Fatal(err)
	}
	eth0, err := lab.client.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{plan.host, plan.owned} {
		entry := &netlink.Neigh{LinkIndex: eth0.Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: pub.Attrs().HardwareAddr}
		for _, entry.State = range []int{netlink.NUD_REACHABLE, netlink.NUD_PROBE} {
			if err := lab.client.Handle.NeighSet(entry); err != nil {
				t.Fatal(err)
			}
		}
		state := entry.State
		for end := time.Now().Add(30 * time.Second); state == netlink.NUD_PROBE && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			list, err := lab.client.Handle.NeighList(entry.LinkIndex, netlink.FAMILY_V6)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				if n.IP.Equal(entry.IP) {
					state = n.State
				}
			}
		}
		if state != netlink.NUD_REACHABLE {
			t.Errorf("%s was asked, and is in state %#x", addr, state)
		}
	}
}

// What another station has is not claimed, until it has it no more.
func TestTUNHostLeavesWhatAnotherHas(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	plan := hostPlans["IPv6"]
	lab.address(t, lab.client, "eth0", plan.owned+"/64")
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules := lab.rules()
	rules.Owned = addresses(plan.owned, hostPlans["IPv4"].owned)
	lab.routeInto(t, h, rules)
	now := time.Now()
	claim := func(later time.Duration) {
		t.Helper()
		now = now.Add(later)
		if err := lab.host.Do(func() error { return h.Claim(now) }); err != nil {
			t.Fatal(err)
		}
	}
	proxied := func() (links int) {
		list, err := lab.host.Handle.NeighProxyList(0, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			if n.IP.Equal(net.ParseIP(plan.owned)) {
				links++
			}
		}
		return links
	}
	if n := proxied(); n != 2 {
		t.Fatalf("answered for on %d links at first", n)
	}
	claim(0)
	for end := time.Now().Add(30 * time.Second); len(h.Taken()) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		claim(time.Nanosecond)
	}
	client, err := lab.client.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	taken := h.Taken()
	if len(taken) != 1 || taken[0].Link != "pub" || taken[0].Addr.String() != plan.owned || !slices.Equal(taken[0].MAC[:], client.Attrs().HardwareAddr) {
		t.Fatalf("taken %v", taken)
	}
	claim(2 * time.Second)
	lab.routeInto(t, h, rules) // changes nothing about it
	if n := proxied(); n != 1 {
		t.Errorf("answered for on %d links, want the other alone", n)
	}

	addr, _ := netlink.ParseAddr(plan.owned + "/64")
	if err := lab.client.Handle.AddrDel(client, addr); err != nil {
		t.Fatal(err)
	}
	claim(20 * time.Second)
	claim(2 * time.Second)
	if n, taken := proxied(), h.Taken(); n != 2 || len(taken) != 0 {
		t.Errorf("answered for on %d links, taken %v", n, taken)
	}
}

// A host that forwards nothing goes on doing so for all that is not ours.
func TestTUNHostForwardsForNobodyElse(t *testing.T) {
	for name, plan := range hostPlans {
		t.Run(name, func(t *testing.T) {
			lab := newTUNLab(t)
			standIn(t, lab)
			lab.route(t, lab.client, netip.MustParsePrefix(plan.inside).String(), plan.host)
			p := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: plan.server, pinger: lab.host}
			send := func() error { return sendDatagram(at(plan.client, 4000), at(plan.server, 80)) }
			h := openTUNHost(t, lab, iface.TUNHostOptions{})
			rules := lab.rules()
			rules.Owned = addresses(plan.owned)
			lab.routeInto(t, h, rules)
			expect(t, "by a host that forwards for us", p.run(t, send))
			if err := lab.host.Do(h.Close); err != nil {
				t.Fatal(err)
			}

			lab.forwarding(t, "1")
			setSysctl(t, lab.host, "net/ipv6/conf/all/forwarding", "1")
			h = openTUNHost(t, lab, iface.TUNHostOptions{})
			lab.routeInto(t, h, rules)
			expect(t, "by a host that forwards for everybody", p.run(t, send), "udp "+at(plan.client, 4000))
		})
	}
}

// Marked networks are taken whether the host has the address or would route to it,
// and the ICMP about them with them; nothing else to them is.
func TestTUNHostTakesWhatIsMarked(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		listen(t, lab.host, at(plan.host, 22))
		near, far, beyond := "192.0.2.0/24", "203.0.113.0/24", "203.0.113.99"
		if plan.host == hostPlans["IPv6"].host {
			near, far, beyond = "2001:db8::/64", "2001:db8:f::/48", "2001:db8:f::99"
		}
		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		other, by := mark(udp, far, 82), mark(udp, plan.host+"/32", 90)
		if near == "2001:db8::/64" {
			by = mark(udp, plan.host+"/128", 90)
		}
		other.From = netip.MustParsePrefix(plan.inside) // not the client's
		by.Link = "priv"
		rules.Marked = []iface.GuardMark{mark(udp, near, 53, 54), mark(0, far, 80), mark(udp, far, 60000, 65535), other, by}
		lab.routeInto(t, h, rules)
		source := uint16(4000)
		for _, c := range []struct {
			to    string
			port  uint16
			taken bool
		}{
			{plan.host, 53, true}, {plan.host, 54, true}, {plan.host, 55, false}, {plan.host, 90, false},
			{beyond, 80, true}, {beyond, 81, false}, {beyond, 82, false}, {beyond, 60000, true}, {beyond, 65534, true}, {beyond, 65535, false},
		} {
			source++
			from, to, want := at(plan.client, source), at(c.to, c.port), []string{}
			if c.taken {
				want = append(want, "udp "+from)
			}
			expect(t, "to "+to, lab.deviceProbe(t, q, plan.host, func() error { return sendDatagram(from, to) }), want...)
		}
		lab.deviceProbe(t, q, beyond, func() error { return nil }) // its ping comes
		lab.hostServes(t, plan)
		if len(h.Limits()) != 2 || !strings.Contains(h.Limits()[1], "65535") {
			t.Errorf("limits %q", h.Limits())
		}
	})
}
