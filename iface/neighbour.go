// SPDX-License-Identifier: Apache-2.0

package iface

// Neighbours: which MAC has an address on a port, asked with ARP (IPv4) or by
// neighbour discovery (IPv6) by us, because the addresses we forward for need not
// be the host's. Both are one machine that speaks two languages.
//
// A packet on its way meets Lookup (the MAC, if known), then Resolve (a copy
// waits in neighbour_queue.go while we ask). A frame of either protocol that was
// received meets Input (neighbour_input.go, neighbour_nd.go): it is answered if it
// asks for an address of ours, and learned from by strict rules. Tick (neighbour_timer.go) asks again,
// ages, and gives up; what it asks is in neighbour_ask.go.
//
//	            Resolve              answer                 30 s
//	 (nothing) ────────► incomplete ────────► reachable ──────────► stale
//	                      ▲  │ 3 broadcasts     ▲  ▲                  │ used by Lookup
//	                      │  ▼ unanswered       │  │ same MAC answers ▼
//	   1 s, then nothing ─ failed               │  └──────────────── probe ◄─ another MAC
//	                      ▲                     │                     │       claims it
//	                      └─── incomplete ◄─────┴─────────────────────┘
//	                                             3 unicasts unanswered
//
// An entry that is in use changes its MAC in one way only: the old MAC was asked
// three times, by unicast, and was silent; then everybody is asked, and the first
// answer counts. Whoever merely announces another MAC (a takeover, a forgery, a
// virtual machine that moved) starts that question earlier, no more. The price
// is three quarters of a second for an honest takeover.
//
// Owned IPv6 addresses are probed before they are claimed (neighbour_claim.go), and
// their groups are reported to switches (neighbour_groups.go, mld.go).
//
// Bounds: maxNeighbours entries. What nobody has confirmed goes first (a scan of
// empty addresses pushes out its own entries), then the confirmed one that was
// used longest ago. Entries learned from those who asked for us are at most
// maxLearned. The host's permanent entries stand outside of all this.
//
// Concurrency: one mutex. Shards remember answers by Generation and come here only
// when it has moved, so an entry cannot see that it is used; therefore an entry
// whose time is over moves the Generation once, and the next use is seen. The
// callbacks (send, failed, those of the config) are called with the mutex held: they must
// not call back, nor block; frames are borrowed until they return.

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Time is nanoseconds since an arbitrary zero point, monotonic.
type Time int64

// add returns the time d later.
func (t Time) add(d time.Duration) Time { return t + Time(d) }

const (
	maxNeighbours = 4096
	maxLearned    = 512

	// reachableTime (RFC 4861 REACHABLE_TIME): how long an answer is good.
	reachableTime = 30 * time.Second
	// retransTime (RFC 4861 RETRANS_TIMER) between questions.
	retransTime = time.Second
	// verifyTime between questions to the old MAC when another one claims the address.
	verifyTime = 250 * time.Millisecond
	// maxSolicit (RFC 4861 MAX_UNICAST_SOLICIT and MAX_MULTICAST_SOLICIT).
	maxSolicit = 3
	// failedTime: how long nobody is asked for an address that did not answer.
	failedTime = time.Second
	// idleTime: how long an entry that nobody uses is kept (Linux gc_stale_time
	// and then some).
	idleTime = 10 * time.Minute
	// defendTime (RFC 5227 DEFEND_INTERVAL) between defences of one address.
	defendTime = 10 * time.Second
)

// SendFunc sends one Ethernet frame on a port. The frame is borrowed until it
// returns. off is zero for questions and answers.
type SendFunc func(port int, frame []byte, off Offload)

// FailedFunc takes a frame whose next hop did not answer, as it was given to
// Resolve. It is borrowed until the function returns.
type FailedFunc func(port int, frame []byte)

// NeighbourPort is an Ethernet port that neighbours are behind; ports without
// link addresses have none.
type NeighbourPort struct {
	// Port is the director's index.
	Port int
	MAC  [6]byte
	// Addrs are the addresses on the port, with the length of their network;
	// the host's own, and ours if they have a network.
	Addrs []netip.Prefix
}

// PermanentNeighbour is an entry that is not to be asked for, nor overridden.
type PermanentNeighbour struct {
	Port int
	Addr netip.Addr
	MAC  [6]byte
}

// NeighbourConfig is what a Neighbours is made with. The zero value works.
type NeighbourConfig struct {
	// Conflict, if not nil, is called when a station claims an owned address, at
	// most once in 10 s for each address.
	Conflict func(port int, addr netip.Addr, mac [6]byte)

	// Taken, if not nil, is called when an owned IPv6 address is found to be that of
	// another station, and is not claimed; Claimed when it is after all, nobody
	// having it any more.
	Taken   func(port int, addr netip.Addr, mac [6]byte)
	Claimed func(port int, addr netip.Addr)
}

// neighbourState is where an entry stands in the drawing above.
type neighbourState uint8

const (
	incomplete neighbourState = iota
	reachable
	stale
	probe
	failed
)

// known tells whether the MAC of an entry in this state is to be used.
func (s neighbourState) known() bool { return s == reachable || s == stale || s == probe }

type neighbourKey struct {
	port int
	addr netip.Addr
}

type neighbour struct {
	key   neighbourKey
	mac   [6]byte
	state neighbourState
	// answered: a cache somewhere may hold mac.
	answered bool
	// asked counts the questions of this round, unanswered so far.
	asked int
	// next is when the state has something to do: ask again, or end.
	next Time
	// interval between the questions of a probe.
	interval time.Duration
	// used is when Lookup or Resolve last wanted it.
	used Time
	// verified is when somebody else's claim last made us ask.
	verified Time
	// queued counts the frames that wait for it.
	queued int

	list       *neighbourList
	prev, more *neighbour
}

type ownedAddress struct {
	defended Time
	once     bool // defended is set
}

// Neighbours resolves next hops and answers for owned addresses. All methods may
// be called by any goroutine. There is nothing to close.
type Neighbours struct {
	generation atomic.Uint32
	conflict   func(port int, addr netip.Addr, mac [6]byte)
	taken      func(port int, addr netip.Addr, mac [6]byte)
	claimed    func(port int, addr netip.Addr)

	mu        sync.Mutex
	ports     map[int]NeighbourPort
	portList  []int
	owned     map[netip.Addr]*ownedAddress
	ownedList []netip.Addr
	shared    []netip.Addr
	// Of owned IPv6 addresses.
	possessions map[neighbourKey]*possession
	claiming    bool               // some of them are not held
	listening   map[int]*listening // by port
	permanent   map[neighbourKey][6]byte
	entries     map[neighbourKey]*neighbour
	// The entries by how readily they are given up, each list oldest use first.
	asking, learned, confirmed neighbourList
	queue                      frameQueue
	stats                      NeighbourStats
}

// NewNeighbours returns a Neighbours without ports and addresses.
func NewNeighbours(config NeighbourConfig) *Neighbours {
	return &Neighbours{
		conflict:  config.Conflict,
		taken:     config.Taken,
		claimed:   config.Claimed,
		listening: make(map[int]*listening),
		ports:     make(map[int]NeighbourPort),
		owned:     make(map[netip.Addr]*ownedAddress),
		permanent: make(map[neighbourKey][6]byte),
		entries:   make(map[neighbourKey]*neighbour),
	}
}

// Generation changes when an answer of Lookup may no longer be true, or ought to
// be asked for again. Who keeps answers loads it before it calls Lookup, keeps
// it with the answer, and forgets all answers of another generation.
func (n *Neighbours) Generation() uint32 { return n.generation.Load() }

// Lookup returns the MAC of an address on a port, if it is known.
func (n *Neighbours) Lookup(now Time, port int, addr netip.Addr) (mac [6]byte, ok bool) {
	key := neighbourKey{port, addr.Unmap()}
	n.mu.Lock()
	defer n.mu.Unlock()
	if mac, ok := n.permanent[key]; ok {
		return mac, true
	}
	e := n.entries[key]
	if e == nil || !e.state.known() {
		return mac, false
	}
	n.use(now, e)
	e.answered = true
	return e.mac, true
}

// Resolved says what became of a frame.
type Resolved uint8

const (
	// ResolveKnown: the MAC is known; it and the port's were written into the
	// frame, which the caller sends.
	ResolveKnown Resolved = iota
	// ResolveQueued: a copy waits, to be sent or given to failed by a later
	// Input or Tick.
	ResolveQueued
	// ResolveFull: enough frames wait for this neighbour, or the frame is too
	// long. The caller drops it.
	ResolveFull
	// ResolveUnreachable: the neighbour did not answer a moment ago. The caller
	// answers with host unreachable.
	ResolveUnreachable
	// ResolveNoPort: not a port with neighbours, or not an address that can be
	// asked for. The caller drops it.
	ResolveNoPort
)

// Resolve takes an Ethernet frame for a neighbour that Lookup did not know; its
// first 12 bytes (the two MACs) are filled in here or later. It asks at once if
// nobody did. frame stays the caller's.
func (n *Neighbours) Resolve(now Time, port int, addr netip.Addr, frame []byte, off Offload, send SendFunc) Resolved {
	key := neighbourKey{port, addr.Unmap()}
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.ports[port]
	if !ok || len(frame) < ethernetHeader {
		return ResolveNoPort
	}
	if mac, ok := n.permanent[key]; ok {
		address(frame, mac, p.MAC)
		return ResolveKnown
	}
	if !isStation(key.addr) && !isStation6(key.addr) {
		return ResolveNoPort
	}

	e := n.entries[key]
	if e == nil {
		e = n.insert(key, &n.asking)
	}
	n.use(now, e)
	switch {
	case e.state.known():
		address(frame, e.mac, p.MAC)
		return ResolveKnown
	case e.state == failed && now < e.next:
		return ResolveUnreachable
	case e.state == failed || e.asked == 0:
		n.askAll(now, e, send)
	}
	if !n.push(e, frame, off) {
		n.stats.QueueRefused++
		return ResolveFull
	}
	return ResolveQueued
}

// address writes the two MACs of an Ethernet frame.
func address(frame []byte, to, from [6]byte) {
	copy(frame[0:6], to[:])
	copy(frame[6:12], from[:])
}

// use notes that an entry is wanted, which is what makes a stale one ask.
func (n *Neighbours) use(now Time, e *neighbour) {
	e.used = now
	e.moveTo(e.list)
	if e.state == stale {
		// The next Tick asks: Lookup has nothing to send with.
		e.state, e.asked, e.interval, e.next = probe, 0, retransTime, now
	}
}
