// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

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
	return refusal(serverFaults(service, server))
}

// CheckSNAT returns a *control.Error if spec can't be an SNAT rule.
func CheckSNAT(spec control.SNATSpec) error { return refusal(snatFaults(spec)) }

func serviceFaults(spec control.ServiceSpec) []fault {
	var list []fault
	if spec.Proto != control.TCP && spec.Proto != control.UDP {
		list = append(list, fault{"tcp", fmt.Sprintf("unknown protocol %q", spec.Proto), "one of: tcp, udp"})
	}
	key := spec.Proto
	list = append(list, addressFaults(key, "a service", spec.Address.Addr())...)
	if spec.Address.Port() == 0 {
		list = append(list, fault{key, "a service needs a port", "write it as address:port with a port of 1 to 65535"})
	}
	if spec.Scheduler != "" && !slices.Contains(sched.Names(), spec.Scheduler) {
		list = append(list, fault{"scheduler", fmt.Sprintf("unknown scheduler %.40q", spec.Scheduler), oneOf(spec.Scheduler, sched.Names())})
	}
	switch spec.NoServer {
	case "", control.NoServerICMP:
	case control.NoServerReset:
		if spec.Proto == control.UDP {
			list = append(list, fault{"no-server", "UDP has no reset", "use no-server: icmp, or leave the key out"})
		}
	default:
		known := []string{control.NoServerICMP, control.NoServerReset}
		list = append(list, fault{"no-server", fmt.Sprintf("unknown answer %.40q", spec.NoServer), oneOf(spec.NoServer, known)})
	}
	return list
}

func serverFaults(service control.ServiceKey, server control.ServerSpec) []fault {
	list := addressFaults("address", "a server", server.Address.Addr())
	if server.Address.Port() == 0 {
		list = append(list, fault{"address", "a server needs a port", "write it as address:port with a port of 1 to 65535"})
	}
	if a := server.Address.Addr(); a.IsValid() && a.Is4() != service.Address.Addr().Is4() {
		list = append(list, fault{"address", fmt.Sprintf("server %s is not of the address family of its service %s", a, service.Address.Addr()),
			"NAT keeps the family: IPv4 to IPv4, IPv6 to IPv6"})
	}
	if server.Address.Addr() == service.Address.Addr() {
		list = append(list, fault{"address", fmt.Sprintf("server %s is the address of the service itself", server.Address.Addr()),
			"give the address of the real server"})
	}
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
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
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
