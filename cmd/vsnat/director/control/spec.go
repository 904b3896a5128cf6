// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
)

// What can be set. Every type here can be compared, and a value that was read
// may be written back.

// Protocol names on the wire. They are lower case everywhere; listings may
// show them as they like.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
	ICMP = "icmp" // connections only

	// Mark and Mark6 stand where a service is named by the mark of its packets,
	// IPv4 or IPv6, and not by protocol and address.
	Mark  = "mark"
	Mark6 = "mark6"
)

// What a service does with a new connection when no server can take it.
const (
	NoServerICMP  = "icmp"  // ICMP port unreachable, as IPVS; the default
	NoServerReset = "reset" // a TCP RST or an SCTP ABORT, so that the client fails at once
)

// Who follows a protocol that names endpoints in its payload.
const (
	HelperNone = "none" // nobody; the default
	HelperFTP  = "ftp"  // PORT, PASV, EPRT and EPSV of FTP, as ip_vs_ftp
)

// What becomes of the connections of a server that is deleted.
const (
	ServerDownKeep   = "keep"   // their packets are dropped until it is back, as IPVS
	ServerDownReset  = "reset"  // both ends are told that they are over
	ServerDownRepick = "repick" // they go to another server with their next packet; TCP and SCTP are reset
)

// Whether what clients' packets say of a server counts.
const (
	PassiveOn  = "on"  // a server that does not answer them, or refuses, is out for a while
	PassiveOff = "off" // nothing but checks does that
)

// MaxWeight is the largest weight of a server (ipvsadm's own range).
const MaxWeight = 65535

// DefaultScheduler is used where none is named, as ipvsadm does.
const DefaultScheduler = "wlc"

// ServiceKey names a virtual service: by protocol and address, or by mark.
type ServiceKey struct {
	Proto   string         `json:"proto"`            // TCP, UDP or SCTP; Mark or Mark6
	Address netip.AddrPort `json:"address,omitzero"` // port 0: every port without a service of its own
	Mark    uint32         `json:"mark,omitempty"`   // with Mark and Mark6 only
}

// String is the key as tables and messages show it and ParseKey reads it, two
// words: "tcp 192.0.2.1:80", "mark 1".
func (k ServiceKey) String() string { return k.Proto + " " + k.name() }

// name is the second word.
func (k ServiceKey) name() string {
	if k.ByMark() {
		return strconv.FormatUint(uint64(k.Mark), 10)
	}
	return k.Address.String()
}

// ByMark reports whether the key is that of a service by mark.
func (k ServiceKey) ByMark() bool { return k.Proto == Mark || k.Proto == Mark6 }

// IPv4 reports the address family of the service.
func (k ServiceKey) IPv4() bool { return k.Proto == Mark || k.Address.Addr().Is4() }

// IsZero reports whether the key names nothing.
func (k ServiceKey) IsZero() bool { return k == ServiceKey{} }

// ParseKey reads the two words that name a service. The error is an *Error.
func ParseKey(proto, name string) (ServiceKey, error) {
	k := ServiceKey{Proto: proto}
	switch {
	case k.ByMark():
		n, err := strconv.ParseUint(name, 0, 32)
		if err != nil || n == 0 {
			return k, Refuse(CodeInvalid, fmt.Sprintf("%.20q is not a mark", name), "a mark is a number of 1 to 4294967295")
		}
		k.Mark = uint32(n)
		return k, nil
	case proto == TCP || proto == UDP || proto == SCTP:
		a, err := netip.ParseAddrPort(name)
		if err != nil {
			return k, Refuse(CodeInvalid, fmt.Sprintf("%.60q is not address:port", name), "for example 192.0.2.1:80 or \"[2001:db8::1]:80\"")
		}
		k.Address = plain(a)
		return k, nil
	}
	return k, Refuse(CodeInvalid, fmt.Sprintf("unknown protocol %.20q", proto), "one of: "+TCP+", "+UDP+", "+SCTP+", "+Mark+", "+Mark6)
}

// ServiceSpec is what can be set of a virtual service.
type ServiceSpec struct {
	ServiceKey
	Scheduler  string `json:"scheduler"`             // "" means DefaultScheduler
	SchedFlags string `json:"sched-flags,omitempty"` // of the scheduler, as ipvsadm's -b: "sh-port,sh-fallback"
	NoServer   string `json:"no-server,omitempty"`   // "" means NoServerICMP

	Persistence Persistence `json:"persistence,omitzero"`
	OnePacket   bool        `json:"one-packet,omitempty"` // each datagram is scheduled by itself; UDP, or by mark

	Helper string `json:"helper,omitempty"` // one of the Helper words; "" means HelperNone

	// OnServerDown is one of the ServerDown words; "" means what the director
	// does where nothing is said.
	OnServerDown string `json:"on-server-down,omitempty"`
	// Passive is one of the Passive words; "" means PassiveOn, or PassiveOff where there is
	// nothing to go by, and with compat: ipvs.
	Passive string `json:"passive,omitempty"`
	// Idle replaces the idle time of an established connection, and of a UDP one.
	Idle Duration `json:"idle,omitzero"`
}

// Persistence sends a client to the server it had before.
type Persistence struct {
	Timeout Duration `json:"timeout"` // for this long after its last connection; 0: not at all
	// Mask says which clients are one: for IPv4 a netmask, which may have holes
	// (255.255.255.0), for IPv6 the length of a prefix (64). "": each is its own.
	Mask string `json:"mask,omitempty"`
}

// String is the persistence in words: "off", "5m0s", "5m0s mask 255.255.255.0".
func (p Persistence) String() string {
	switch {
	case p.Timeout == 0:
		return "off"
	case p.Mask == "":
		return p.Timeout.String()
	}
	return p.Timeout.String() + " mask " + p.Mask
}

// Netmask is Mask as bits of an address; all of them if there is none. For IPv4
// a length of 0 to 32 may stand for the netmask.
func (p Persistence) Netmask(ipv4 bool) (netip.Addr, error) {
	ones, lowest := netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16))), 1
	if ipv4 {
		ones, lowest = netip.AddrFrom4([4]byte{255, 255, 255, 255}), 0
	}
	if p.Mask == "" {
		return ones, nil
	}
	if n, err := strconv.Atoi(p.Mask); err == nil && n >= lowest && n <= ones.BitLen() {
		return netip.PrefixFrom(ones, n).Masked().Addr(), nil
	}
	if a, err := netip.ParseAddr(p.Mask); err == nil && ipv4 && a.Is4() {
		return a, nil
	}
	hint := "for IPv6 the length of a prefix, 1 to 128"
	if ipv4 {
		hint = "for IPv4 a netmask such as 255.255.255.0, or the length of a prefix"
	}
	return netip.Addr{}, Refuse(CodeInvalid, fmt.Sprintf("%.60q is not a mask of clients", p.Mask), hint)
}

// MaskText is the Mask that stands for the bits of an address.
func MaskText(mask netip.Addr) string {
	b := mask.AsSlice()
	ones := 0
	for ones < mask.BitLen() && b[ones/8]&(0x80>>(ones%8)) != 0 {
		ones++
	}
	switch {
	case ones == mask.BitLen():
		return ""
	case mask.Is4():
		return mask.String()
	}
	return strconv.Itoa(ones)
}

// ServerSpec is what can be set of a real server of a service.
type ServerSpec struct {
	Address netip.AddrPort `json:"address"`          // real address and port; port 0: the one the client asked for
	Weight  int            `json:"weight"`           // 0..MaxWeight; 0 takes no new connections
	Upper   int            `json:"upper"`            // overloaded from this many connections on; 0: never
	Lower   int            `json:"lower"`            // free again below this many; 0: three quarters of Upper
	Method  string         `json:"method,omitempty"` // one of the Method words; "" means MethodNAT
	Tunnel  Tunnel         `json:"tunnel,omitzero"`  // with MethodTunnel
	// NAT is one of the NAT words, with MethodNAT. "" means NATMasquerade where a server
	// is added, and what it has been where one is edited.
	NAT string `json:"nat,omitempty"`
}

// RewritesSource reports whether the server may see another address than the client's.
func (s ServerSpec) RewritesSource() bool { return s.NAT == NATFull || s.NAT == NATAuto }

// Whose address a server sees as its client's.
const (
	NATMasquerade = "masquerade" // the client's own; the default
	NATFull       = "full"       // a local address of the director
	NATAuto       = "auto"       // the client's own, until its answers are found to go elsewhere
)

// How packets get to a server.
const (
	MethodNAT    = "nat"    // addresses are rewritten both ways (ipvsadm -m); the default
	MethodRoute  = "route"  // packets are sent on as they are, answers go past the director (ipvsadm -g)
	MethodTunnel = "tunnel" // packets are wrapped in IP, answers go past the director (ipvsadm -i)
)

// Tunnel is what stands around the packets for a server with MethodTunnel.
type Tunnel struct {
	Type     string `json:"type,omitempty"`     // one of the Tunnel words; "" means TunnelIPIP
	Port     uint16 `json:"port,omitempty"`     // UDP port of the server, with TunnelGUE
	Checksum string `json:"checksum,omitempty"` // one of the Checksum words, with TunnelGUE and TunnelGRE; "" means ChecksumNone
}

// Kinds of tunnels (ipvsadm --tun-type).
const (
	TunnelIPIP = "ipip" // an IP header and nothing else; the default
	TunnelGRE  = "gre"
	TunnelGUE  = "gue"
)

// What a tunnel covers with a checksum (ipvsadm --tun-nocsum and so on).
const (
	ChecksumNone   = "nocsum" // nothing; the default
	ChecksumAll    = "csum"   // itself and the packet inside
	ChecksumRemote = "remcsum"
)

// SNATSpec is one rule for connections that inside hosts open: source
// addresses in From leave as To.
type SNATSpec struct {
	From netip.Prefix `json:"from"` // masked
	To   netip.Addr   `json:"to"`
	// MinPort..MaxPort are the ports to hand out; both 0: any free port of
	// the same class (below 512, below 1024, above) as the inside port.
	MinPort uint16 `json:"min-port,omitempty"`
	MaxPort uint16 `json:"max-port,omitempty"`
}
