// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"
)

// Director is everything that can be asked of a running director. Calls are
// safe from any number of goroutines and may wait for one another; each
// change is in force for new packets when its call returns, and never touches
// the connections of what it does not name.
//
// Errors are *Error (possibly wrapped) wherever the caller is to blame; any
// other error is the director's own trouble. Addresses are unmapped IPv4 or
// IPv6; returned slices belong to the caller.
type Director interface {
	AddService(context.Context, ServiceSpec) error
	EditService(context.Context, ServiceSpec) error // replaces all but the key
	DeleteService(context.Context, ServiceKey) error
	Flush(context.Context) error // removes every service (ipvsadm -C); SNAT rules stay

	AddServer(context.Context, ServiceKey, ServerSpec) error
	EditServer(context.Context, ServiceKey, ServerSpec) error // replaces all but the address
	DeleteServer(context.Context, ServiceKey, netip.AddrPort) error

	// Changes makes changes one after the other, which are in force together when
	// it returns. One that is refused changes nothing, and the next is made; each
	// has its result, nil if it was made. On error some may have been made.
	Changes(context.Context, []Change) ([]*Error, error)

	AddSNAT(context.Context, SNATSpec) error
	DeleteSNAT(ctx context.Context, from netip.Prefix) error

	AddMark(context.Context, MarkSpec) error // behind those that are there
	DeleteMark(context.Context, MarkSpec) error

	// Services lists services in the order they were added, each with its
	// servers newest first (the order of the kernel's list).
	Services(context.Context) ([]Service, error)
	SNAT(context.Context) ([]SNAT, error)
	Marks(context.Context) ([]MarkSpec, error) // in the order in which they count

	// Conns returns one page of connections. Entries that live through the
	// whole listing appear exactly once; younger or older ones at most once.
	Conns(context.Context, ConnQuery) (ConnPage, error)

	Stats(context.Context) (Stats, error)
	Health(context.Context) (Health, error)
	Links(context.Context) ([]Link, error)

	// Checks lists the checks of servers, by server and type.
	Checks(context.Context) ([]Check, error)

	Timeouts(context.Context) (Timeouts, error)
	// SetTimeouts changes the timeouts that are not zero; they hold for a
	// connection from its next packet on.
	SetTimeouts(context.Context, Timeouts) error

	// Settings lists all settings in the order of their names.
	Settings(context.Context) ([]Setting, error)
	// SetSettings changes settings by name: all of them or, on error, none.
	SetSettings(context.Context, map[string]SettingValue) error

	// Config is the running state as a canonical configuration file (YAML):
	// what the file said, with every change made since.
	Config(context.Context) (string, error)

	// Reload reads the configuration file again and applies what differs. On
	// error the old configuration is still in force, all of it.
	Reload(context.Context) (Reloaded, error)

	// Apply makes a configuration the one in force, as Reload does that of the file.
	// While one waits for its confirmation, another, and a reload, are refused.
	Apply(context.Context, ApplySpec) (Applied, error)
	// Confirm keeps what waits for confirmation.
	Confirm(context.Context) (Pending, error)
	// Rollback takes back what waits for confirmation: everything is as it was
	// before, also what was changed since by others.
	Rollback(context.Context) (Reloaded, error)
	// Filed is what Reload would read now, as Config returns it.
	Filed(context.Context) (string, error)

	// Drain takes servers out of service, or goes on with a drain that is under way,
	// Undrain puts them back; both tell of the servers that were meant. Orders
	// outlive a reload, and end with the server. Drains tells of all that there are.
	Drain(context.Context, DrainSpec) ([]Drain, error)
	Undrain(context.Context, DrainSpec) ([]Drain, error)
	Drains(context.Context) ([]Drain, error)

	// Zero sets the counters of one service, or of everything when the key
	// is zero, back to 0 (ipvsadm -Z). Gauges stay.
	Zero(context.Context, ServiceKey) error

	// Metrics writes what there is to measure, in the text format of Prometheus.
	Metrics(context.Context, io.Writer) error

	// Alive returns nil if whatever has to go on goes on, and within seconds an
	// error if not.
	Alive(context.Context) error

	// Ready returns nil if the director would serve, else an error that says what
	// is missing.
	Ready(context.Context) error

	// Events calls each for what happened, the oldest first. Only the last
	// events are kept; one of kind EventMissed stands for those that are gone.
	// It returns the error of each, and with Follow nil at the end.
	Events(ctx context.Context, q EventQuery, each func(Event) error) error
}

// Counters since the start or the last Zero. Bytes are IP total lengths,
// without link headers, as IPVS counts.
type Counters struct {
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"in-packets"`  // client to server
	OutPackets uint64 `json:"out-packets"` // server to client
	InBytes    uint64 `json:"in-bytes"`
	OutBytes   uint64 `json:"out-bytes"`
}

// Service is a virtual service with its state.
type Service struct {
	ServiceSpec
	Stats   Counters `json:"stats"`
	Rate    Counters `json:"rate"` // per second, averaged over the last seconds
	Servers []Server `json:"servers"`
}

// Server is a real server with its state.
type Server struct {
	ServerSpec
	Standing
	Active     int      `json:"active"`     // ActiveConn: established
	Inactive   int      `json:"inactive"`   // InActConn: every other one
	Persistent int      `json:"persistent"` // PersistConn: clients that stay with it
	Overloaded bool     `json:"overloaded"` // Upper was reached
	FullNAT    bool     `json:"fullnat"`    // new clients appear with a local address
	Stats      Counters `json:"stats"`
	Rate       Counters `json:"rate"`
}

// SNAT is an SNAT rule with its state.
type SNAT struct {
	SNATSpec
	Mappings int `json:"mappings"` // ports in use
	Capacity int `json:"capacity"` // ports the rule may hand out, per protocol
}

// ConnQuery selects connections. Zero fields select everything.
type ConnQuery struct {
	Proto   string         // TCP, UDP, SCTP or ICMP
	Client  netip.Prefix   // outside endpoint's address
	Service netip.AddrPort // virtual address; port 0: any
	Server  netip.AddrPort // inside endpoint; port 0: any
	State   string         // ESTABLISHED, SYN_RECV, … UDP: case is ignored
	Limit   int            // entries on a page: 1..MaxPage; 0: DefaultPage
	Cursor  string         // Next of the page before, "" for the first
}

// Page sizes of a connection listing.
const (
	DefaultPage = 1000
	MaxPage     = 10000
)

// ConnPage is a part of a connection listing.
type ConnPage struct {
	Conns []Conn `json:"conns"`
	Next  string `json:"next,omitempty"` // Cursor of the next page; "" at the end
}

// Conn is one connection. Client is always the outside endpoint and Server the
// inside one, whichever of them opened it.
type Conn struct {
	Proto   string         `json:"proto"`
	State   string         `json:"state"` // as ipvsadm shows it
	Expires Duration       `json:"expires"`
	Client  netip.AddrPort `json:"client"`
	Virtual netip.AddrPort `json:"virtual"`
	Local   netip.AddrPort `json:"local,omitzero"` // full NAT only: what the server sees as its client
	Server  netip.AddrPort `json:"server"`
	Kind    string         `json:"kind"`  // nat, fullnat, route, tunnel, snat, template or answers
	Flags   []string       `json:"flags"` // e.g. replied
}

// Stats are the counters of the whole director.
type Stats struct {
	Total Counters          `json:"total"`
	Rate  Counters          `json:"rate"`
	Conns ConnStats         `json:"conns"`
	Drops map[string]uint64 `json:"drops"` // packets by reason; reasons that never happened may be missing
	// Events are other counters by name: things that are not drops, such as
	// evictions, ICMP errors made or packets handed to another shard.
	Events map[string]uint64 `json:"events"`
	Shards []ShardStats      `json:"shards"`
}

// ConnStats describe the connection table of all shards.
type ConnStats struct {
	Len       int   `json:"len"`
	Cap       int   `json:"cap"`
	HalfOpen  int   `json:"half-open"` // may be evicted first
	OneWay    int   `json:"one-way"`   // UDP and ICMP never answered; evicted next
	Held      int   `json:"held"`      // never evicted
	Offloaded int   `json:"offloaded"` // forwarded by the kernel
	Bytes     int64 `json:"bytes"`     // memory reserved for the table
}

// ShardStats are one shard's own counters.
type ShardStats struct {
	Shard   int    `json:"shard"`
	Packets uint64 `json:"packets"` // read
	Sent    uint64 `json:"sent"`
	Conns   int    `json:"conns"`
	// What came to a shard that was another's, on both sides, and how many packets
	// met a connection where it does not belong, which is 0.
	HandedOver uint64 `json:"handed-over"`
	TakenOver  uint64 `json:"taken-over"`
	Strange    uint64 `json:"strange"`
}

// What Health.Offload can be.
const (
	OffloadTCX  = "tcx"
	OffloadNone = "none"
)

// Health tells whether the director does its work.
type Health struct {
	Status   string    `json:"status"` // ok, or degraded with Problems
	Problems []string  `json:"problems,omitempty"`
	Findings []Finding `json:"findings,omitempty"` // what is known about Problems
	PID      int       `json:"pid"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	IO       string    `json:"io"`      // packet or tun
	Guard    string    `json:"guard"`   // method in force: nft, socket or none
	Offload  string    `json:"offload"` // in force: tcx or none
	Config   string    `json:"config,omitempty"`
	// Drift is how many changes lead from what Config said, when it was read, to
	// what runs now.
	Drift   int      `json:"drift,omitempty"`
	Drains  []Drain  `json:"drains,omitempty"`  // servers out of service
	Pending *Pending `json:"pending,omitempty"` // a configuration that waits for its confirmation
	// Unconfined says which rights the process could not give up, and why.
	Unconfined string `json:"unconfined,omitempty"`
}

// Finding is what is known about a problem.
type Finding struct {
	Problem string    `json:"problem"` // as in Health.Problems
	Since   time.Time `json:"since,omitzero"`
	Next    string    `json:"next,omitempty"` // the next step
}

// Link is a network interface the director knows.
type Link struct {
	Name    string         `json:"name"`
	Index   int            `json:"index"`
	MAC     string         `json:"mac"`
	MTU     int            `json:"mtu"`
	Up      bool           `json:"up"`
	Serving bool           `json:"serving"` // packets are captured here
	Addrs   []netip.Prefix `json:"addrs"`
	// Packets read and sent here, and the ones the kernel dropped because
	// its queue was full.
	InPackets  uint64 `json:"in-packets"`
	OutPackets uint64 `json:"out-packets"`
	KernelDrop uint64 `json:"kernel-drops"`
	SendErrors uint64 `json:"send-errors"`
}

// Timeouts are the idle times after which a connection in that state is
// removed: TCP by state, then UDP, ICMP and SCTP by state. Names are those of IPVS. Zero
// means "keep" in SetTimeouts and never occurs in what Timeouts returns.
type Timeouts struct {
	Established Duration `json:"established,omitzero"`
	SynSent     Duration `json:"syn-sent,omitzero"`
	SynRecv     Duration `json:"syn-recv,omitzero"`
	FinWait     Duration `json:"fin-wait,omitzero"`
	TimeWait    Duration `json:"time-wait,omitzero"`
	Close       Duration `json:"close,omitzero"`
	CloseWait   Duration `json:"close-wait,omitzero"`
	LastAck     Duration `json:"last-ack,omitzero"`
	Listen      Duration `json:"listen,omitzero"`
	SynAck      Duration `json:"synack,omitzero"`
	UDP         Duration `json:"udp,omitzero"`
	ICMP        Duration `json:"icmp,omitzero"`

	SCTPInit1            Duration `json:"sctp-init1,omitzero"`
	SCTPInit             Duration `json:"sctp-init,omitzero"`
	SCTPCookieSent       Duration `json:"sctp-cookie-sent,omitzero"`
	SCTPCookieReplied    Duration `json:"sctp-cookie-replied,omitzero"`
	SCTPCookieWait       Duration `json:"sctp-cookie-wait,omitzero"`
	SCTPCookie           Duration `json:"sctp-cookie,omitzero"`
	SCTPCookieEchoed     Duration `json:"sctp-cookie-echoed,omitzero"`
	SCTPEstablished      Duration `json:"sctp-established,omitzero"`
	SCTPShutdownSent     Duration `json:"sctp-shutdown-sent,omitzero"`
	SCTPShutdownReceived Duration `json:"sctp-shutdown-received,omitzero"`
	SCTPShutdownAckSent  Duration `json:"sctp-shutdown-ack-sent,omitzero"`
	SCTPRejected         Duration `json:"sctp-rejected,omitzero"`
	SCTPClosed           Duration `json:"sctp-closed,omitzero"`
}

// Setting is one setting of the director, under the name of IPVS's sysctl where
// there is one.
type Setting struct {
	Name    string       `json:"name"`
	Value   SettingValue `json:"value"`
	Default SettingValue `json:"default"`
	Meaning string       `json:"meaning"`
	Fixed   bool         `json:"fixed,omitempty"` // known, but with one possible value
}

// SettingValue is the text of a value. A number may stand for it in a request.
type SettingValue string

// UnmarshalJSON reads a string or a number.
func (v *SettingValue) UnmarshalJSON(b []byte) error {
	var number json.Number
	if json.Unmarshal(b, &number) == nil {
		*v = SettingValue(number)
		return nil
	}
	return json.Unmarshal(b, (*string)(v))
}

// Reloaded is what a reload did.
type Reloaded struct {
	Changes []string `json:"changes"`           // one line each, in the order applied
	Restart []string `json:"restart,omitempty"` // keys that differ but need a restart
}

// Duration is a time.Duration that crosses the socket as seconds.
type Duration time.Duration

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is the duration in Go's notation.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes seconds, with a fraction down to microseconds.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(d).Microseconds()) / 1e6)
}

// UnmarshalJSON reads seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var seconds float64
	if err := json.Unmarshal(b, &seconds); err != nil {
		return fmt.Errorf("a duration is a number of seconds, not %.20s", b)
	}
	if math.Abs(seconds) > 1e9 {
		return fmt.Errorf("a duration of %g seconds is out of range", seconds)
	}
	*d = Duration(math.Round(seconds*1e6)) * Duration(time.Microsecond)
	return nil
}
