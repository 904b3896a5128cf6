// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/sched"
)

// What a service, a server or a rule must be, whichever way it comes in: from
// the file (where the problem is then told with its line) or over the control
// socket. Texts are judged elsewhere; here everything is a typed value.

// fault is one thing wrong with a spec.
type fault struct {
	key     string // of the configuration file, to find the place
	message string
	hint    string
}

// refusal is the first fault as an error of the control socket, or nil.
func refusal(faults []fault) error {
	if len(faults) == 0 {
		return nil
	}
	code := control.CodeInvalid
	if faults[0].key == "scheduler" {
		code = control.CodeNoScheduler
	}
	return control.Refuse(code, faults[0].message, faults[0].hint)
}

// CheckService returns a *control.Error if spec can't be a service.
func CheckService(spec control.ServiceSpec) error { return refusal(serviceFaults(spec)) }

// CheckServer returns a *control.Error if server can't be a server of service.
func CheckServer(service control.ServiceKey, server control.ServerSpec) error {
	faults := serverFaults(service, server)
	if a := server.Address.Addr(); faults != nil && (a.IsUnspecified() || a.IsMulticast() || a == broadcast) {
		return control.Refuse(control.CodeNotUnicast, faults[0].message, faults[0].hint)
	}
	return refusal(faults)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// CheckSNAT returns a *control.Error if spec can't be an SNAT rule.
func CheckSNAT(spec control.SNATSpec) error { return refusal(snatFaults(spec)) }

func serviceFaults(spec control.ServiceSpec) []fault {
	list := keyFaults(spec.ServiceKey, spec.Persistence.Timeout != 0)
	if spec.Scheduler != "" && !slices.Contains(sched.Names(), spec.Scheduler) {
		list = append(list, fault{"scheduler", fmt.Sprintf("unknown scheduler %.40q", spec.Scheduler), oneOf(spec.Scheduler, sched.Names())})
	} else if _, err := sched.ParseFlags(cmp.Or(spec.Scheduler, control.DefaultScheduler), spec.SchedFlags); err != nil {
		list = append(list, fault{"sched-flags", err.Error(), "leave the key out, or choose another scheduler"})
	}
	list = append(list, wordFaults("no-server", spec.NoServer, control.NoServerICMP, control.NoServerReset)...)
	if spec.NoServer == control.NoServerReset && spec.Proto == control.UDP {
		list = append(list, fault{"no-server", "UDP has no reset", "use no-server: icmp, or leave the key out"})
	}
	list = append(list, wordFaults("helper", spec.Helper, control.HelperNone, control.HelperFTP)...)
	if spec.Helper == control.HelperFTP && spec.Proto != control.TCP && !spec.ByMark() {
		list = append(list, fault{"helper", "FTP is a protocol over TCP", "leave the key out, or make it a service of tcp"})
	}
	list = append(list, wordFaults("on-server-down", spec.OnServerDown,
		control.ServerDownKeep, control.ServerDownReset, control.ServerDownRepick)...)
	list = append(list, passiveFaults(spec)...)
	list = append(list, timeoutFaults("persistence", spec.Persistence.Timeout)...)
	list = append(list, timeoutFaults("idle", spec.Idle)...)
	if _, err := spec.Persistence.Netmask(spec.IPv4()); err != nil {
		bad := complaintOf(err)
		list = append(list, fault{"mask", bad.message, bad.hint})
	} else if spec.Persistence.Mask != "" && spec.Persistence.Timeout == 0 {
		list = append(list, fault{"mask", "a mask of clients without persistence has no use", "add the timeout of persistence"})
	}
	if spec.OnePacket && spec.Proto != control.UDP && !spec.ByMark() {
		list = append(list, fault{"one-packet", "one-packet scheduling is for UDP only", "a TCP connection stays with its server"})
	}
	return list
}

// keyFaults tells what keeps a key from being that of a service.
func keyFaults(k control.ServiceKey, persistent bool) []fault {
	switch {
	case k.ByMark() && k.Address.IsValid():
		return []fault{{k.Proto, "a service by mark has no address", "leave one of them out"}}
	case k.ByMark() && k.Mark == 0:
		return []fault{{k.Proto, "a service by mark needs one", "a mark is a number of 1 to 4294967295"}}
	case k.ByMark():
		return nil
	case k.Proto != control.TCP && k.Proto != control.UDP && k.Proto != control.SCTP:
		return []fault{{k.Proto, fmt.Sprintf("unknown protocol %.20q", k.Proto), "one of: " + strings.Join(protocols, ", ")}}
	case k.Mark != 0:
		return []fault{{k.Proto, "a mark and an address name two services", "leave one of them out"}}
	}
	list := addressFaults(k.Proto, "a service", k.Address.Addr())
	if k.Address.Port() == 0 && !persistent {
		list = append(list, fault{k.Proto, "port 0, which is every port, is for persistent services",
			"write it as address:port with a port of 1 to 65535, or add persistence"})
	}
	return list
}

// protocols are the words that name a service.
var protocols = []string{control.TCP, control.UDP, control.SCTP, control.Mark, control.Mark6}

// wordFaults tells if a word is none of those that are known; none is given if it
// is empty.
func wordFaults(key, word string, known ...string) []fault {
	if word == "" || slices.Contains(known, word) {
		return nil
	}
	return []fault{{key, fmt.Sprintf("%s can't be %.40q", key, word), oneOf(word, known)}}
}

// timeoutFaults tells if a time that may be 0 is none that IPVS has.
func timeoutFaults(key string, d control.Duration) []fault {
	if d == 0 || d.Std() >= time.Second && d.Std() <= MaxTimeout && d.Std()%time.Second == 0 {
		return nil
	}
	return []fault{{key, fmt.Sprintf("%s is not a timeout", d), timeoutHint}}
}

func serverFaults(service control.ServiceKey, server control.ServerSpec) []fault {
	list := addressFaults("address", "a server", server.Address.Addr())
	if a := server.Address.Addr(); a.IsValid() && a.Is4() != service.IPv4() && server.Method != control.MethodTunnel {
		list = append(list, fault{"address", fmt.Sprintf("server %s is not of the address family of its service %s", a, service),
			"a packet keeps its family: IPv4 to IPv4, IPv6 to IPv6"})
	}
	if server.Address.Addr() == service.Address.Addr() {
		list = append(list, fault{"address", fmt.Sprintf("server %s is the address of the service itself", server.Address.Addr()),
			"give the address of the real server"})
	}
	list = append(list, wordFaults("method", server.Method, control.MethodNAT, control.MethodRoute, control.MethodTunnel)...)
	if past := server.Method == control.MethodRoute || server.Method == control.MethodTunnel; past && !service.ByMark() &&
		server.Address.Port() != service.Address.Port() {
		list = append(list, fault{"address", fmt.Sprintf("server %s has not the port of its service %s", server.Address, service),
			"only method: nat can change it"})
	}
	list = append(list, sourceNATFaults(server)...)
	list = append(list, tunnelFaults(server)...)
	if server.Weight < 0 || server.Weight > control.MaxWeight {
		list = append(list, fault{"weight", fmt.Sprintf("weight %d is out of range", server.Weight),
			"a weight is 0 (no new connections) to 65535"})
	}
	for _, threshold := range []struct {
		key   string
		value int
	}{{"upper", server.Upper}, {"lower", server.Lower}} {
		if threshold.value < 0 || threshold.value > math.MaxInt32 {
			list = append(list, fault{threshold.key, fmt.Sprintf("%s threshold %d is out of range", threshold.key, threshold.value),
				"a threshold is a number of connections, 0 to 2147483647; 0: none"})
		}
	}
	// ip_vs_ctl.c refuses this too (ERANGE), also with no upper threshold.
	if server.Lower > server.Upper {
		list = append(list, fault{"lower", fmt.Sprintf("lower threshold %d is above the upper threshold %d", server.Lower, server.Upper),
			"a server is overloaded from upper on, and free again below lower"})
	}
	return list
}

func tunnelFaults(server control.ServerSpec) []fault {
	t := server.Tunnel
	list := wordFaults("tunnel", t.Type, control.TunnelIPIP, control.TunnelGRE, control.TunnelGUE)
	list = append(list, wordFaults("tunnel-checksum", t.Checksum, control.ChecksumNone, control.ChecksumAll, control.ChecksumRemote)...)
	if len(list) > 0 {
		return list
	}
	switch {
	case server.Method != control.MethodTunnel && t != control.Tunnel{}:
		list = append(list, fault{"tunnel", "there is no tunnel to the server", "add method: tunnel"})
	case t.Type == control.TunnelGUE && t.Port == 0:
		list = append(list, fault{"tunnel", "a tunnel of type gue needs a port", "add tunnel-port: with the UDP port that the server listens at"})
	case t.Type != control.TunnelGUE && t.Port != 0:
		list = append(list, fault{"tunnel-port", "only a tunnel of type gue has a port", "add tunnel: gue, or leave the port out"})
	case (t.Type == "" || t.Type == control.TunnelIPIP) && t.Checksum != "" && t.Checksum != control.ChecksumNone:
		list = append(list, fault{"tunnel-checksum", "a tunnel of type ipip has no checksum", "use tunnel: gre or gue"})
	}
	return list
}

func snatFaults(spec control.SNATSpec) []fault {
	var list []fault
	switch {
	case !spec.From.IsValid():
		list = append(list, fault{"from", "an SNAT rule needs a source network", "for example from: 10.0.0.0/24"})
	case spec.From.Masked() != spec.From:
		list = append(list, fault{"from", fmt.Sprintf("%s has bits set behind its mask", spec.From), maskHint(spec.From)})
	case spec.From.Addr().IsMulticast() || spec.From.Addr().IsLoopback():
		list = append(list, fault{"from", fmt.Sprintf("%s is not a network of unicast hosts", spec.From), "for example from: 10.0.0.0/24"})
	}
	list = append(list, addressFaults("to", "an SNAT rule", spec.To)...)
	if spec.From.IsValid() && spec.To.IsValid() && spec.From.Addr().Is4() != spec.To.Is4() {
		list = append(list, fault{"to", fmt.Sprintf("%s is not of the address family of %s", spec.To, spec.From),
			"NAT keeps the family: IPv4 to IPv4, IPv6 to IPv6"})
	}
	if spec.MinPort > spec.MaxPort || spec.MinPort == 0 && spec.MaxPort != 0 {
		list = append(list, fault{"ports", fmt.Sprintf("ports %d-%d are not a range", spec.MinPort, spec.MaxPort),
			"write lowest-highest, for example 1024-65535"})
	}
	return list
}

// addressFaults tells what keeps an address from being that of what.
func addressFaults(key, what string, a netip.Addr) []fault {
	kind := ""
	switch {
	case !a.IsValid():
		return []fault{{key, what + " needs an address", "write an IPv4 or IPv6 address"}}
	case a.Zone() != "":
		kind = "bound to a zone"
	case a.Is4In6():
		kind = "an IPv4 address in IPv6 form"
	case a.IsUnspecified():
		kind = "the unspecified address"
	case a.IsMulticast():
		kind = "a multicast address"
	case a == broadcast:
		kind = "the broadcast address"
	case a.IsLoopback():
		kind = "a loopback address, which is never seen on a link"
	default:
		return nil
	}
	return []fault{{key, fmt.Sprintf("%s can't have %s: it is %s", what, a, kind), "use a unicast address"}}
}

// maskHint offers the two things a prefix with host bits may have meant.
func maskHint(p netip.Prefix) string {
	host := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	return strings.Join([]string{"did you mean ", p.Masked().String(), " (the network) or ", host.String(), " (one host)?"}, "")
}
