// SPDX-License-Identifier: Apache-2.0

package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Config is a configuration that was checked: every field has a meaning and
// no two contradict each other. It is never changed after Parse returned it.
// Two configurations that mean the same in the same order are DeepEqual:
// defaults are filled in, empty lists are nil.
type Config struct {
	Interfaces []string // names or globs of links to serve; nil: auto
	IO         IO
	Guard      Guard
	Offload    Offload
	Addresses  []netip.Prefix // addresses of ours beside VIPs and SNAT addresses: address and prefix of its network, not masked
	// LocalAddresses are what clients appear with at servers with full NAT, as Addresses.
	LocalAddresses []netip.Prefix
	Routes         []Route // beside those of the host, and before them
	MaxConns       int     // 1..MaxMaxConns, all shards together
	Workers        int     // 1..MaxWorkers: shards
	Control        Control
	StateFile      string // absolute path; "": beside the control socket; NoStateFile
	Log            Log
	Metrics        Metrics
	Timeouts       control.Timeouts // none is zero
	ICMPRate       int              // ICMP errors made per second; 0: none
	Compat         Compat
	Settings       map[string]int // of IPVS, by the names of its sysctls; only what differs from the default
	CheckDefaults  CheckTiming    // of checks that do not say
	ScriptUser     string         // name or number of who runs scripts; DefaultScriptUser
	Services       []Service
	SNAT           []control.SNATSpec
	Marks          []control.MarkSpec // in the order in which they count
}

// IO is the way packets come in and go out.
type IO string

// Ways of input and output.
const (
	IOPacket IO = "packet" // AF_PACKET sockets on the host's links; the default
	IOTUN    IO = "tun"    // one TUN device that the host routes to
)

// Offload is who forwards what is in the middle of connections that move much.
type Offload string

// Offloads.
const (
	OffloadAuto Offload = "auto" // the kernel, where it can be had
	OffloadTCX  Offload = "tcx"  // the kernel, by BPF programs at the links
	OffloadNone Offload = "none" // vsnat itself; the default
)

// Guard is the way traffic is kept from the host stack.
type Guard string

// Guards.
const (
	GuardAuto   Guard = "auto"   // the first that works; the default
	GuardNFT    Guard = "nft"    // nf_tables netdev ingress
	GuardSocket Guard = "socket" // listening sockets that accept nothing
	GuardNone   Guard = "none"   // nothing: somebody else does it
)

// Compat says whose defaults there are where nothing is said.
type Compat string

// Compats.
const (
	CompatNone Compat = "none" // IPVS's but where people suffer from them; the default
	CompatIPVS Compat = "ipvs" // IPVS's everywhere
)

// ServerDown is what becomes of the connections of a deleted server if the
// service does not say.
func (c Compat) ServerDown(proto string) string {
	switch {
	case c == CompatIPVS:
		return control.ServerDownKeep
	case proto == control.TCP, proto == control.SCTP:
		return control.ServerDownReset
	}
	return control.ServerDownRepick
}

// Route is a route the host does not have.
type Route struct {
	Destination netip.Prefix // masked
	Via         netip.Addr   // invalid: on-link
	Interface   string       // "": the link that Via is on
}

// Control is the control socket.
type Control struct {
	Socket string      // absolute path; "": control.DefaultSocket
	Mode   fs.FileMode // of the socket file: DefaultSocketMode, or more for Group
	Group  string      // name or number; "": the group of the process
}

// Log is what goes to standard error.
type Log struct {
	Level  slog.Level
	Format LogFormat
}

// LogFormat is the form of a log line.
type LogFormat string

// Log formats.
const (
	LogText LogFormat = "text" // key=value; the default
	LogJSON LogFormat = "json"
)

// Service is a virtual service with its real servers, in the order of the
// file. Servers are added in that order, so that the last one is the newest.
type Service struct {
	control.ServiceSpec
	Servers  []control.ServerSpec
	Checking Checking
}

const (
	maxICMPRate  = 1_000_000
	maxThreshold = 1<<31 - 1 // connections of a server
)

// Limits and defaults of the file.
const (
	MaxFile           = 16 << 20 // bytes read of a configuration file at most
	MaxMaxConns       = 100_000_000
	DefaultMaxConns   = 1_000_000
	DefaultICMPRate   = 1000 // as the kernel's icmp_msgs_per_sec
	DefaultSocketMode = fs.FileMode(0o600)
	DefaultScriptUser = "nobody"
	// DefaultPersistence is ipvsadm's, of a service that is persistent without
	// saying for how long.
	DefaultPersistence = control.Duration(360 * time.Second)
	// MaxTimeout is IPVS's own: 31 days.
	MaxTimeout = 2_678_400 * time.Second
)

// Default is the configuration of an empty mapping: no services, and every
// setting at its default.
func Default() *Config {
	return &Config{
		IO:       IOPacket,
		Guard:    GuardAuto,
		Offload:  OffloadNone,
		MaxConns: DefaultMaxConns,
		Workers:  DefaultWorkers,
		Control:  Control{Mode: DefaultSocketMode},
		Log:      Log{Level: slog.LevelInfo, Format: LogText},
		Metrics:  Metrics{Ready: ReadyLinks},
		Timeouts: defaultTimeouts(),
		ICMPRate: DefaultICMPRate,
		Compat:   CompatNone,

		CheckDefaults: DefaultCheckTiming(),
		ScriptUser:    DefaultScriptUser,
	}
}

// defaultTimeouts are those of IPVS (ip_vs_proto_tcp.c, _udp.c and _sctp.c),
// and for ICMP echo, which IPVS does not follow, 30 s as the kernel's
// conntrack has it (nf_conntrack_proto_icmp.c).
func defaultTimeouts() control.Timeouts {
	s := func(n int) control.Duration { return control.Duration(time.Duration(n) * time.Second) }
	return control.Timeouts{
		Established: s(900),
		SynSent:     s(120),
		SynRecv:     s(60),
		FinWait:     s(120),
		TimeWait:    s(120),
		Close:       s(10),
		CloseWait:   s(60),
		LastAck:     s(30),
		Listen:      s(120),
		SynAck:      s(120),
		UDP:         s(300),
		ICMP:        s(30),

		SCTPInit1:            s(4),
		SCTPInit:             s(61),
		SCTPCookieSent:       s(61),
		SCTPCookieReplied:    s(61),
		SCTPCookieWait:       s(61),
		SCTPCookie:           s(61),
		SCTPCookieEchoed:     s(61),
		SCTPEstablished:      s(900),
		SCTPShutdownSent:     s(61),
		SCTPShutdownReceived: s(61),
		SCTPShutdownAckSent:  s(61),
		SCTPRejected:         s(4),
		SCTPClosed:           s(61),
	}
}
