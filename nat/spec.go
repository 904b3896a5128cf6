// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/sched"
)

// What is configured, as values. Zero values are IPVS's defaults.

// NoServer is what a client gets for a new connection when no server is
// available.
type NoServer uint8

const (
	// NoServerICMP answers with ICMP port unreachable, as IPVS does.
	NoServerICMP NoServer = iota
	// NoServerReset answers TCP with a RST, and SCTP with an ABORT.
	NoServerReset
)

func (n NoServer) String() string {
	if n == NoServerReset {
		return "reset"
	}
	return "icmp"
}

// A ServiceKey names a virtual service: by protocol, address and port, or by the
// mark of its packets.
type ServiceKey struct {
	Proto uint8      // 0 with a mark
	Addr  netip.Addr // with a mark: 0.0.0.0 or ::, for the family
	Port  uint16     // 0: every port that has no service of its own; 0 with a mark
	Mark  uint32     // 0: not by mark
}

func (k ServiceKey) String() string {
	if k.Mark != 0 {
		return fmt.Sprintf("mark %d %s", k.Mark, k.Addr)
	}
	return protoName(k.Proto) + " " + netip.AddrPortFrom(k.Addr, k.Port).String()
}

func protoName(p uint8) string {
	switch p {
	case ProtoICMP:
		return "icmp"
	case ProtoTCP:
		return "tcp"
	case ProtoUDP:
		return "udp"
	case ProtoSCTP:
		return "sctp"
	}
	return fmt.Sprintf("proto %d", p)
}

// A ServiceSpec describes a virtual service.
type ServiceSpec struct {
	ServiceKey
	Scheduler    string // a name that sched knows
	Flags        sched.Flags
	NoServer     NoServer
	Persistence  Persistence
	OnePacket    bool // each datagram is scheduled; UDP, or by mark
	Helper       Helper
	OnServerDown ServerDown
	// Passive: what its clients' packets say of a server counts for whether it is used. It
	// is kept for who judges; Forwarders count always.
	Passive bool
	// Idle is the time-out of an established connection, and of a UDP one; 0:
	// that of Settings.
	Idle time.Duration
}

// Persistence sends a client to the server it had before.
type Persistence struct {
	Timeout time.Duration  // how long the choice is kept after the last connection; 0: it is not
	Mask    conntrack.Addr // clients that are equal under it are one; zero: the whole address counts
}

// A Helper follows a protocol that names endpoints in its payload.
type Helper uint8

const (
	NoHelper Helper = iota
	// HelperFTP follows PORT, PASV, EPRT and EPSV (RFC 959, RFC 2428).
	HelperFTP
)

// ServerDown is what becomes of the connections of a server that is deleted.
type ServerDown uint8

const (
	// ServerDownKeep drops their packets until the server is back, as IPVS does.
	ServerDownKeep ServerDown = iota
	// ServerDownReset ends them: a RST or an ABORT to both ends, or ICMP port
	// unreachable.
	ServerDownReset
	// ServerDownRepick gives the client's next packet to another server; TCP and
	// SCTP, which that server would not understand, end as with ServerDownReset.
	ServerDownRepick
)

// A Method is how packets get to a real server.
type Method uint8

const (
	// Masquerade rewrites addresses, both ways (ipvsadm -m).
	Masquerade Method = iota
	// DirectRoute sends packets to the server as they are; it has the virtual
	// address itself and answers past us (ipvsadm -g).
	DirectRoute
	// Tunnel wraps packets for the server, which answers past us (ipvsadm -i).
	Tunnel
)

func (m Method) String() string {
	switch m {
	case DirectRoute:
		return "route"
	case Tunnel:
		return "tunnel"
	}
	return "nat"
}

// A TunnelSpec says how packets are wrapped for a server whose Method is Tunnel.
// The zero value puts an IP header in front of them and nothing else, as IPVS does
// unless told otherwise.
type TunnelSpec struct {
	Type     TunnelType
	Port     uint16 // with GUE, where the server listens (UDP); 0 otherwise
	Checksum TunnelChecksum
}

// A TunnelType is what stands between the two IP headers.
type TunnelType uint8

const (
	IPIP TunnelType = iota // nothing (RFC 2003, RFC 2473, RFC 4213)
	GUE                    // UDP and four bytes (draft-ietf-intarea-gue)
	GRE                    // four or eight bytes (RFC 2784)
)

func (t TunnelType) String() string {
	switch t {
	case GUE:
		return "gue"
	case GRE:
		return "gre"
	}
	return "ipip"
}

// TunnelChecksum says whether GUE or GRE have a checksum over what they wrap.
type TunnelChecksum uint8

const (
	TunnelNoChecksum TunnelChecksum = iota
	TunnelWithChecksum
	// TunnelRemoteChecksum leaves the inner checksum to the server, in IPVS, where it
	// was open on arrival; else it is TunnelWithChecksum. Here none is left open.
	TunnelRemoteChecksum
)

func (c TunnelChecksum) String() string {
	switch c {
	case TunnelWithChecksum:
		return "csum"
	case TunnelRemoteChecksum:
		return "remcsum"
	}
	return "nocsum"
}

// A ServerSpec describes a real server of a service.
type ServerSpec struct {
	Addr         netip.Addr
	Port         uint16
	Weight       int // 0…65535; 0: quiesced, keeps its connections and gets no new ones
	Upper, Lower int // connection thresholds, 0: none
	Method       Method
	Source       SourceNAT  // other than SourceKept: with Method Masquerade only
	Tunnel       TunnelSpec // with Method Tunnel; zero otherwise
}

// An SNATSpec says which address the traffic of a network leaves with.
type SNATSpec struct {
	From netip.Prefix
	To   netip.Addr
	// MinPort and MaxPort narrow the ports to choose from. Both 0: the class
	// of the source port, as netfilter has it (1–511, 600–1023, 1024–65535).
	MinPort, MaxPort uint16
}

// HostAddresses is what the host has for itself.
type HostAddresses struct {
	Addrs []netip.Addr
	// Busy are the endpoints that sockets of the host are bound to. An
	// unspecified address stands for all of them.
	Busy []BusyEndpoint
	// EphemeralMin and EphemeralMax bound the ports that the host takes for
	// its own connections (net.ipv4.ip_local_port_range); both 0: none.
	EphemeralMin, EphemeralMax uint16
}

// A BusyEndpoint is one that a socket of the host holds.
type BusyEndpoint struct {
	Proto uint8
	Addr  netip.Addr
	Port  uint16
}

// Settings are what an operator may change for all services. Those with a name in
// parentheses are sysctls of IPVS (Linux, Documentation/networking/ipvs-sysctl.rst),
// and mean what they mean there.
type Settings struct {
	Timeouts conntrack.Timeouts
	// ICMPRate bounds the ICMP errors, echo replies and RSTs that the
	// director makes itself, per second and Forwarder.
	ICMPRate int
	// ResetOnExpiry ends an established TCP connection whose time is over with a
	// RST to both ends, and an association with an ABORT. IPVS says nothing.
	ResetOnExpiry bool
	// ClientLimit is how many connections to services a client may have, in each
	// Forwarder; 0: any number. A client is an address, in IPv6 a /64.
	ClientLimit int
	// HoldGoneSYN has a SYN that comes again go to its server although that has weight
	// 0 by now and has not answered, and drops a SYN to a deleted server with the rest of its
	// connection's packets, as IPVS does, while its service keeps those.
	HoldGoneSYN bool

	ConnReuseMode           int  // (conn_reuse_mode) not 0: a SYN on what is over is scheduled anew
	ExpireNodestConn        bool // (expire_nodest_conn) connections end with their server; a SYN to one of weight 0 is scheduled anew
	ExpireQuiescentTemplate bool // (expire_quiescent_template) a template of a server of weight 0 is not used
	NATICMPSend             bool // (nat_icmp_send) a server's packet without an entry is answered with port unreachable
	SloppyTCP               bool // (sloppy_tcp) any segment but a RST opens a connection
	SloppySCTP              bool // (sloppy_sctp) any packet but an ABORT opens an association
	ScheduleICMP            bool // (schedule_icmp) an ICMP error about no connection opens one
	PMTUDisc                bool // (pmtu_disc) tunnels: what must not be cut and is too big is answered with frag-needed, not cut; others always do
	DropEntry               int  // (drop_entry) 0 off, 1 and 2 when the table is nearly full, 3 always: entries hardly used are removed
	DropPacket              int  // (drop_packet) the same: some first packets are dropped
	SecureTCP               int  // (secure_tcp) the same: TCP is established when the server says so
	DropRate                int  // (am_droprate) with DropPacket 3, one of so many new connections is dropped

	LBLCExpiration, LBLCRExpiration time.Duration // (lblc_expiration, lblcr_expiration) 0: a day
}

// DefaultSettings returns the settings of IPVS and 1000 answers a second.
func DefaultSettings() Settings {
	return Settings{
		Timeouts: conntrack.DefaultTimeouts(), ICMPRate: 1000,
		ConnReuseMode: 1, PMTUDisc: true, DropRate: 10,
	}
}

// A MarkRule gives packets a mark, by which a service may be named. What it does
// not say matches everything; of several rules that match, the first counts.
type MarkRule struct {
	Mark             uint32 // not 0
	Proto            uint8  // 0: TCP, UDP and SCTP
	From, To         netip.Prefix
	MinPort, MaxPort uint16 // of the destination; both 0: any
	Link             string // name of the link it came in by
}

// An OwnAddress is an address that vsnat takes packets for.
type OwnAddress struct {
	Addr    netip.Addr
	OnHost  bool // the host has it too: what is not ours on it stays the host's
	Service bool
	SNAT    bool
	Local   bool // clients appear with it at servers with full NAT
}
