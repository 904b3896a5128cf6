// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// sendINIT sends an INIT to a port of an address, through a raw socket: the kernel
// need not know the protocol. Its checksum is not right, which an answer of ICMP
// does not depend on.
func sendINIT(to string) error {
	at := netip.MustParseAddrPort(to)
	network := "ip4:132"
	if at.Addr().Is6() {
		network = "ip6:132"
	}
	c, err := net.Dial(network, at.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	packet := make([]byte, 32)
	copy(packet, []byte{0x9c, 0x40, byte(at.Port() >> 8), byte(at.Port())})
	copy(packet[12:], []byte{1, 0, 0, 20, 0, 0, 0, 7})
	_, err = c.Write(packet)
	return err
}

// kernelHasSCTP tells whether the host would not say protocol unreachable.
func kernelHasSCTP(t *testing.T) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/protocols")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(table), "\nSCTP ")
}

func TestGuardSilencesSCTP(t *testing.T) {
	if kernelHasSCTP(t) {
		t.Skip("this kernel has SCTP, which the test is not about")
	}
	for _, method := range []string{iface.GuardNFT, iface.GuardSocket} {
		for _, family := range []struct{ addr, refused string }{
			{"192.0.2.1", "icmp 192.0.2.1 DestinationUnreachable(Protocol)"},
			{"2001:db8::1", "icmp 2001:db8::1 ParameterProblem(UnrecognizedNextHeader)"},
		} {
			t.Run(method+" "+family.addr, func(t *testing.T) {
				lab := newGuardLab(t)
				p := lab.atClient()
				p.marker = family.addr
				at := netip.AddrPortFrom(netip.MustParseAddr(family.addr), 2905)
				send := func() error { return sendINIT(at.String()) }
				expect(t, "before", p.run(t, send), family.refused)
				g := lab.open(t, method)
				rules := lab.rules()
				rules.Services = []iface.GuardService{{Proto: unix.IPPROTO_SCTP, Addr: at.Addr(), Port: at.Port()}}
				lab.apply(t, g, rules)
				expect(t, "guarded", p.run(t, send))
				if limits := lab.limits(g); len(limits) != 0 {
					t.Errorf("limits %q", limits)
				}
				rules.Services = nil
				lab.apply(t, g, rules)
				expect(t, "a service that went", p.run(t, send), family.refused)
			})
		}
	}
}

func TestGuardSNATPortsOfSCTP(t *testing.T) {
	if kernelHasSCTP(t) {
		t.Skip("this kernel has SCTP, which the test is not about")
	}
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr("192.0.2.1"), Min: 1000, Max: 2000}}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	expect(t, "in the range", lab.atClient().run(t, func() error { return sendINIT("192.0.2.1:1000") }))
	expect(t, "outside the range", lab.atClient().run(t, func() error { return sendINIT("192.0.2.1:999") }),
		"icmp 192.0.2.1 DestinationUnreachable(Protocol)")
}
