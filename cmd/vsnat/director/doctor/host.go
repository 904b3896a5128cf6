// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/iface"
)

// What the host itself says.

func privileges(e *examination) {
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}} {
		if e.facts.capabilities>>c.bit&1 == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		e.find(Failure, "sudo vsnat doctor", "without "+strings.Join(missing, " and ")+" vsnat can neither serve nor ask the servers")
	}
	if e.running != nil && e.running.Unconfined != "" {
		e.find(Warning, "", e.running.Unconfined)
	}
}

// directorProblems tells what a director at work says of itself.
func directorProblems(e *examination) {
	if e.running == nil {
		return
	}
	for _, p := range e.running.Problems {
		e.find(Failure, "", p)
	}
}

// tun reports whether the host itself sends what is served.
func (e *examination) byTUN() bool { return e.plan.cfg.IO == config.IOTUN }

// onHost reports whether the host has an address that a service is at.
func (e *examination) vipOnHost() (netip.Addr, bool) {
	for _, s := range e.plan.cfg.Services {
		for _, o := range e.plan.ours {
			if o.onHost && !s.ByMark() && o.addr == s.Address.Addr() {
				return o.addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// method is the guard in force, or the one that a start would take.
func (e *examination) method() string {
	switch {
	case e.byTUN():
		return iface.GuardNone
	case e.running != nil:
		return e.running.Guard
	case e.plan.cfg.Guard != config.GuardAuto:
		return string(e.plan.cfg.Guard)
	}
	for _, m := range []string{iface.GuardNFT, iface.GuardSocket} {
		if err, tried := e.facts.guards[m]; tried && err == nil {
			return m
		}
	}
	return iface.GuardNone
}

// forwarding looks for a host that forwards a second time what vsnat forwards.
func forwarding(e *examination) {
	if e.byTUN() || e.method() == iface.GuardNFT {
		return
	}
	for _, f := range []struct {
		path, setting string
		is4           bool
	}{
		{"net/ipv4/ip_forward", "net.ipv4.ip_forward", true},
		{"net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding", false},
	} {
		serves := slices.ContainsFunc(e.plan.servers, func(s *server) bool { return s.addr.Is4() == f.is4 })
		if serves && e.facts.sysctl(f.path) == "1" {
			e.find(Failure, "sysctl -w "+f.setting+"=0",
				fmt.Sprintf("the host forwards as well, and guard %s does not keep it from the servers' packets: they leave twice", e.method()))
		}
	}
}

// sourceFilters looks for reverse path filters that throw away what a TUN device
// hands to the host. A packet socket sees a packet before them.
func sourceFilters(e *examination) {
	if !e.byTUN() || e.running != nil {
		return
	}
	if e.facts.sysctl("net/ipv4/conf/all/rp_filter") == "1" {
		e.find(Warning, "sysctl -w net.ipv4.conf.all.rp_filter=2",
			"rp_filter is strict on all links: with io: tun the answers of the servers come back by a link that their source has no route through")
	}
}

// guards looks whether the host can be kept from answering for what is ours.
func guards(e *examination) {
	if e.byTUN() || e.facts.capabilities&wantedCapabilities != wantedCapabilities {
		return
	}
	vip, shared := e.vipOnHost()
	if e.running == nil {
		want := string(e.plan.cfg.Guard)
		if err := e.facts.guards[want]; err != nil {
			e.find(Failure, "guard: auto", fmt.Sprintf("guard %s cannot be had here: %s", want, firstLine(err)))
			return
		}
		if err := e.facts.guards[iface.GuardNFT]; err != nil && want == iface.GuardAuto {
			e.find(Warning, "modprobe nf_tables", "the guard nft cannot be had, which alone covers everything: "+firstLine(err))
		}
	}
	if shared && e.method() == iface.GuardNone {
		e.find(Failure, "guard: auto", fmt.Sprintf("the host has %s itself, and without a guard it answers the clients with resets", vip))
	}
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// takenPorts looks for programs of the host that a service takes the port from.
func takenPorts(e *examination) {
	if e.running != nil && e.running.Guard == iface.GuardSocket {
		return // the guard's own sockets are among them
	}
	for _, s := range e.plan.cfg.Services {
		if s.ByMark() {
			continue
		}
		here := slices.ContainsFunc(e.plan.ours, func(o address) bool { return o.onHost && o.addr == s.Address.Addr() })
		proto := map[string]uint8{control.TCP: unix.IPPROTO_TCP, control.UDP: unix.IPPROTO_UDP, control.SCTP: unix.IPPROTO_SCTP}[s.Proto]
		for _, b := range e.facts.busy {
			any := b.Addr.IsUnspecified() && b.Addr.Is4() == s.Address.Addr().Is4()
			if here && b.Listening && b.Proto == proto && b.Port == s.Address.Port() && (any || b.Addr == s.Address.Addr()) {
				e.find(Warning, fmt.Sprintf("ss -lnp 'sport = :%d'", b.Port),
					fmt.Sprintf("a program of this host listens on %s, and %s takes its clients from it", netip.AddrPortFrom(b.Addr, b.Port), s.ServiceKey))
				break
			}
		}
	}
}

func tunDevice(e *examination) {
	if e.byTUN() && e.facts.tun != nil {
		e.find(Failure, "mkdir -p /dev/net && mknod /dev/net/tun c 10 200", fmt.Sprintf("io: tun needs /dev/net/tun: %s", e.facts.tun))
	}
}

// userNamespaces looks for what the lab needs.
func userNamespaces(e *examination) {
	if e.facts.namespaces == nil {
		return
	}
	fix := "sysctl -w user.max_user_namespaces=10000"
	if e.facts.sysctl("kernel/unprivileged_userns_clone") == "0" {
		fix = "sysctl -w kernel.unprivileged_userns_clone=1"
	}
	e.find(Warning, fix, fmt.Sprintf("user namespaces cannot be made (%v): vsnat lab needs them", e.facts.namespaces))
}

// bytesPerConn is what one connection takes: its slot and its share of the index.
const bytesPerConn = 166

func memory(e *examination) {
	need := uint64(e.plan.cfg.MaxConns) * bytesPerConn
	if e.running == nil && need > e.facts.available {
		e.find(Warning, fmt.Sprintf("max-conns: %d", e.facts.available/2/bytesPerConn),
			fmt.Sprintf("a table full of %d connections takes %d MiB, and %d MiB are available", e.plan.cfg.MaxConns, need>>20, e.facts.available>>20))
	}
}

// limits looks whether a director has descriptors enough: for its links, the
// control socket's clients and, with the guard socket, for each service.
func limits(e *examination) {
	need := uint64(64 + len(e.plan.served))
	if e.method() == iface.GuardSocket {
		need += uint64(len(e.plan.cfg.Services))
	}
	if e.facts.files < need {
		e.find(Failure, fmt.Sprintf("ulimit -n %d", max(1024, need)), fmt.Sprintf("%d open files are allowed, %d are needed", e.facts.files, need))
	}
}

// slowClocks cost a system call for each reading.
var slowClocks = []string{"hpet", "acpi_pm", "jiffies", "refined-jiffies"}

func clock(e *examination) {
	if !e.facts.built.IsZero() && e.facts.now.Before(e.facts.built) {
		e.find(Warning, "timedatectl set-ntp true",
			fmt.Sprintf("the clock says %s, which is before this program was made: certificates will be refused, and logs mislead", e.facts.now.UTC().Format("2006-01-02 15:04")))
	}
	if slices.Contains(slowClocks, e.facts.clocksource) {
		e.find(Warning, "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
			fmt.Sprintf("the clock source is %s: each look at the clock costs microseconds", e.facts.clocksource))
	}
}
