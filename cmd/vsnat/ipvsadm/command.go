// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"net/netip"

	"github.com/vsnat/vsnat/sched"
)

// A Verb is what a command line asks for.
type Verb uint8

// The verbs. Their order is that of the columns of the table of legal options.
const (
	AddService Verb = iota
	EditService
	DeleteService
	Flush
	List
	AddServer
	DeleteServer
	EditServer
	SetTimeouts
	StartDaemon
	StopDaemon
	Restore
	Save
	Zero
	numVerbs

	Help
	Version
)

// String is the name of the verb in messages.
func (v Verb) String() string {
	return [numVerbs]string{
		"add-service", "edit-service", "delete-service", "flush", "list",
		"add-server", "delete-server", "edit-server", "set",
		"start-daemon", "stop-daemon", "restore", "save", "zero",
	}[v]
}

// A Command is one understood command line.
type Command struct {
	Verb     Verb
	Service  Service // its key alone for verbs that only name a service
	Named    bool    // a service was given (List and Zero can do without)
	Server   Server
	Listing  Listing
	Timeouts Timeouts
	Daemon   Daemon
}

// A Listing says what to list, and how.
type Listing struct {
	What    What
	View    View
	Numeric bool // -n: no names
	Exact   bool // --exact: no K, M, G, T
	Unsort  bool // --nosort: the director's order
}

// What a listing is about.
type What uint8

// The things that can be listed.
const (
	Services What = iota
	Connections
	TimeoutValues
	Daemons
)

// A View is the set of columns of a service listing.
type View uint8

// The views. Where several are asked for, the one that stands first here wins.
const (
	StatsView View = iota
	RateView
	ThresholdsView
	PersistentView
	TunnelView
	PlainView
)

// IANA protocol numbers of services.
const (
	tcp  = 6
	udp  = 17
	sctp = 132
)

// A ServiceKey names a virtual service, either by firewall mark or by protocol,
// address and port. It can be compared.
type ServiceKey struct {
	Mark     uint32 // 0: not by mark
	MarkIPv6 bool   // a mark of IPv6 packets
	Proto    uint8  // IANA number, 0 with a mark
	Addr     netip.Addr
	Port     uint16 // 0 with a persistent service: every port
}

// ipv6 reports the address family of the service.
func (k ServiceKey) ipv6() bool { return k.MarkIPv6 || k.Addr.Is6() }

// A Service is what can be set of a virtual service.
type Service struct {
	ServiceKey
	Scheduler  string
	Flags      sched.Flags
	Persistent bool
	Timeout    int        // of persistence, in seconds
	Mask       netip.Addr // of persistence, IPv4: any bits, also with gaps
	MaskBits   int        // of persistence, IPv6
	Engine     string     // of persistence, "" for none
	OnePacket  bool
}

// A Forward is how packets get to a server.
type Forward uint8

// The ways of forwarding.
const (
	Route Forward = iota
	Tunnel
	Masq
	Local
)

func (f Forward) String() string {
	return [...]string{"Route", "Tunnel", "Masq", "Local"}[f]
}

// A Server is what can be set of a real server of a service.
type Server struct {
	Addr    netip.Addr
	Port    uint16
	Forward Forward
	Weight  int
	Upper   int // connections that overload it, 0: none do
	Lower   int // connections below which it is not overloaded any more
	Tunnel  TunnelOptions
}

// TunnelOptions say how a Tunnel server's packets are wrapped.
type TunnelOptions struct {
	Type     TunnelType
	Port     uint16
	Checksum TunnelChecksum
}

// A TunnelType is a kind of wrapping.
type TunnelType uint8

// The kinds of wrapping.
const (
	IPIP TunnelType = iota
	GUE
	GRE
)

func (t TunnelType) String() string { return [...]string{"ipip", "gue", "gre"}[t] }

// A TunnelChecksum is what is done about checksums in a tunnel.
type TunnelChecksum uint8

// The ways to treat checksums.
const (
	NoChecksum TunnelChecksum = iota
	Checksum
	RemoteChecksum
)

func (c TunnelChecksum) String() string { return [...]string{"nocsum", "csum", "remcsum"}[c] }

// Timeouts are the ones that --set knows, in seconds. In a command, 0 keeps.
type Timeouts struct{ TCP, TCPFin, UDP int }

// A Daemon is a connection synchronisation daemon.
type Daemon struct {
	Role      Role
	Interface string
	SyncID    int
	MaxLen    int // 0: the kernel's default
	Group     netip.Addr
	Port      int
	TTL       int
}

// A Role is a daemon's side.
type Role uint8

// The roles.
const (
	Master Role = iota
	Backup
)

func (r Role) String() string { return [...]string{"master", "backup"}[r] }
