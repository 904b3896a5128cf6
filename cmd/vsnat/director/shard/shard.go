// SPDX-License-Identifier: Apache-2.0

package shard

// The loop that moves packets: the one place where nat and iface meet. In the
// order in which a frame meets it:
//
//	run      wait until a queue has something (see linger.go), then for each such port
//	serve      Read a batch, Begin, judge each frame, send, flush
//	judge        link header → ARP and neighbour discovery to the neighbours, IP to the Forwarder
//	depart       verdict → port and link address; see depart.go
//	takeOver   the same with packets that another shard has received; see handover.go
//	idle     ageing, and what other goroutines asked for, between batches
//
// One goroutine on its own thread does all of it. Others reach it by do alone, other
// shards by their rings.

import (
	"encoding/binary"
	"runtime"
	"time"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

const (
	etherHeaderLen = 14
	etherTypeIPv4  = 0x0800
	etherTypeARP   = 0x0806
	etherTypeIPv6  = 0x86dd

	// pause is how long a shard sleeps at most: what is due by time alone is
	// not later than this.
	pause = 100 * time.Millisecond
	// batchesPerTurn bounds what one port is read before the others get a turn.
	batchesPerTurn = 4
	// sweepPerBatch and sweepPerTick bound the entries removed at once, so that
	// a thousand that are due together hold up no packet.
	sweepPerBatch = 32
	sweepPerTick  = 8192
)

// A Port is one end of a shard, which closes its queue.
type Port struct {
	Index uint16
	MAC   conntrack.LinkAddr
	L3    bool // packets have no link header, and MAC is zero
	Queue iface.Queue
	// Shortcuts is what begins at the link, of all shards; nil: nothing.
	Shortcuts *ShortcutLink

	looker iface.Looker  // Queue, if it is one
	out    []iface.Frame // to be written at the end of the batch
}

// A Shard serves all ports: of each it has a queue of its own.
type Shard struct {
	forwarder  *nat.Forwarder
	neighbours *iface.Neighbours
	poller     *iface.Poller
	start      time.Time
	lost       func(p *Port, err error) // a port was closed because it failed; does not wait
	refused    func()                   // a packet was refused that may be for the host; does not wait

	mail    chan func()
	exited  chan struct{}
	failure error // why run ended by itself; to be read after exited

	now    conntrack.Time
	looked conntrack.Time // at the clock, the last time
	linger linger
	short  *shortcuts // nil: there are none
	beside neighbourhood
	ports  [nat.MaxPorts]*Port
	frames [iface.BatchSize]iface.Frame
	macs   macCache
	single [1]iface.Frame
	stop   bool
	behind bool // connections are over that have not ended yet

	signals []nat.ServerSignals // scratch

	packets, sent uint64
	ignored       uint64 // frames that are not for us
	refusals      uint64 // what was told of them
	latency       Latency
	unsent        [nat.NumReasons]uint64
	failed        iface.FailedFunc
	sendNow       iface.SendFunc
}

func newShard(f *nat.Forwarder, n *iface.Neighbours, lost func(*Port, error)) (*Shard, error) {
	poller, err := iface.NewPoller()
	if err != nil {
		return nil, err
	}
	s := &Shard{
		forwarder: f, neighbours: n, poller: poller, start: time.Now(), lost: lost,
		mail: make(chan func(), 64), exited: make(chan struct{}),
	}
	s.sendNow = s.sendFrame
	s.failed = s.silent
	s.refused = func() {}
	return s, nil
}

// Clock is the time since the first shard was made; it never goes backwards, whatever
// happens to the wall clock.
func (s *Shard) Clock() conntrack.Time { return conntrack.Time(time.Since(s.start)) }

// Do has the shard call f between two batches and waits until it has. It
// reports false if the shard has ended.
func (s *Shard) Do(f func()) bool {
	done := make(chan struct{})
	select {
	case s.mail <- func() { defer close(done); f() }:
	case <-s.exited:
		return false
	}
	s.poller.Wake()
	select {
	case <-done:
		return true
	case <-s.exited:
	}
	select {
	case <-done: // it was the last thing that the shard did
		return true
	default:
		return false
	}
}

// Forwarder is what decides about packets. It is for what Do calls, and no longer.
func (s *Shard) Forwarder() *nat.Forwarder { return s.forwarder }

// Now is the time of the last batch; for what Do calls.
func (s *Shard) Now() conntrack.Time { return s.now }

// run serves until something sets stop. A panic is let through: the process
// ends, and with it all that it took from the host.
func (s *Shard) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with run
	defer close(s.exited)
	defer s.closePorts()
	var ids [nat.MaxPorts]int
	tick := s.Clock()
	for !s.stop {
		n, err := s.await(ids[:])
		if err != nil {
			s.failure = err
			return
		}
		s.now = s.Clock()
		s.looked = s.now
		for _, id := range ids[:n] {
			if p := s.ports[id]; p != nil {
				s.serve(p)
			}
		}
		s.takeOver()
		if s.now >= tick {
			s.idle()
			tick = s.now + conntrack.Time(pause)
		} else if s.behind {
			s.forwarder.Begin(s.now)
			s.age()
		}
		s.wakeOthers()
		s.read()
	}
}

// read does what others asked for.
func (s *Shard) read() {
	for {
		select {
		case f := <-s.mail:
			f()
		default:
			return
		}
	}
}

// serve moves what has arrived at a port.
func (s *Shard) serve(p *Port) {
	for range batchesPerTurn {
		n, err := p.Queue.Read(s.frames[:])
		if n > 0 {
			s.packets += uint64(n)
			s.forwarder.Begin(s.now)
			s.announce(p, n)
			for i := range s.frames[:n] {
				s.judge(p, &s.frames[i])
				if s.forwarder.Crowded() {
					s.generated()
					s.flush()
					s.forwarder.Begin(s.now)
				}
			}
			s.behind = s.forwarder.Sweep(sweepPerBatch)
			s.generated()
			s.flush()
			s.took(n)
		}
		if err != nil {
			s.portFailed(p, err)
			return
		}
		if n < iface.BatchSize || s.ports[p.Index] != p {
			return // empty, or it failed while it was written to
		}
	}
}

// judge decides about one frame. It may rewrite it and keep it until flush.
func (s *Shard) judge(p *Port, f *iface.Frame) {
	if f.Truncated || f.Tagged {
		s.ignored++
		return
	}
	packet := nat.Packet{In: p.Index}
	if p.L3 {
		packet.Data = f.Data
		packet.Offload = fromWire(&f.Offload, 0)
	} else {
		if len(f.Data) < etherHeaderLen {
			s.ignored++
			return
		}
		switch binary.BigEndian.Uint16(f.Data[12:14]) {
		case etherTypeIPv4:
		case etherTypeARP:
			s.neighbour(p, f)
			return
		case etherTypeIPv6:
			if iface.IsND(f.Data) || iface.IsMLD(f.Data) {
				s.neighbour(p, f)
				return
			}
		default:
			s.ignored++
			return
		}
		from := conntrack.LinkAddr(f.Data[6:12])
		if f.Kind != iface.Host || from[0]&1 != 0 || from == p.MAC {
			s.ignored++ // answers would go to a group, or to ourselves
			return
		}
		packet.Data = f.Data[etherHeaderLen:]
		packet.Offload = fromWire(&f.Offload, etherHeaderLen)
		packet.From = from
	}
	s.forward(p, f.Data, len(f.Data)-len(packet.Data), &packet, &f.Offload)
}

// forward has the Forwarder decide about a packet, which lies behind the first header
// bytes of data, and does what it says. off is how the packet came.
func (s *Shard) forward(p *Port, data []byte, header int, packet *nat.Packet, off *iface.Offload) {
	v := s.forwarder.Forward(packet)
	switch v.Action {
	case nat.Forward:
		s.depart(data[:header+len(packet.Data)], header, packet, &v)
	case nat.Pass:
		if p.L3 {
			// The host routed it to us and keeps no copy: what is not ours goes
			// back as it came.
			s.queue(p, data, *off)
		}
	case nat.Elsewhere:
		s.handOver(int(v.Shard), &letter{
			port: p.Index, hops: v.Hops, header: uint8(header), from: packet.From, offload: toWire(&packet.Offload, uint16(header)),
		}, data)
	}
}

// neighbour hands on what neighbours say: ARP, and IPv6 neighbour discovery,
// which is sent to groups.
func (s *Shard) neighbour(p *Port, f *iface.Frame) {
	if f.Kind != iface.OtherHost {
		s.neighbours.Input(iface.Time(s.now), int(p.Index), f.Data, s.sendNow)
	}
}

// announce tells the Forwarder what is in a batch that was read, so that it waits for
// memory once and not for each frame.
func (s *Shard) announce(p *Port, n int) {
	if n < 4 {
		return
	}
	head := etherHeaderLen
	if p.L3 {
		head = 0
	}
	for i := range s.frames[:n] {
		if b := s.frames[i].Data; len(b) > head {
			s.forwarder.Ahead(b[head:])
		}
	}
}

// age ends connections that are over. When there are more of them than a turn may
// end, behind is set, and the next turn, which does not wait then, goes on.
func (s *Shard) age() {
	s.behind = s.forwarder.Sweep(sweepPerTick)
	s.generated()
	s.flush()
}

// idle does what time brings. Ports are read as well: one that gets nothing any more may
// not say so to a poller.
func (s *Shard) idle() {
	for _, p := range s.ports {
		if p != nil {
			s.serve(p)
		}
	}
	s.forwarder.Begin(s.now)
	if s.beside.self == 0 {
		s.neighbours.Tick(iface.Time(s.now), s.sendNow, s.failed)
	}
	s.short.follow()
	s.age()
	if n := s.forwarder.RefusedOnHost(); n != s.refusals {
		s.refusals = n
		s.refused()
	}
}

// setPort puts a port in place of the one with its index, if any.
func (s *Shard) setPort(p *Port) error {
	s.closePort(s.ports[p.Index])
	if err := s.poller.Add(p.Queue.FD(), int(p.Index)); err != nil {
		return err
	}
	p.looker, _ = p.Queue.(iface.Looker)
	p.out = make([]iface.Frame, 0, iface.BatchSize)
	s.ports[p.Index] = p
	s.macs.clear()
	return nil
}

// closePort closes a port that is in place. What still refers to it finds its
// place empty.
func (s *Shard) closePort(p *Port) {
	if p == nil || s.ports[p.Index] != p {
		return
	}
	s.ports[p.Index] = nil
	p.out = p.out[:0]
	_ = s.poller.Remove(p.Queue.FD()) // it leaves by itself with its descriptor
	_ = p.Queue.Close()               // there is nothing to be done about it
	s.macs.clear()
}

func (s *Shard) closePorts() {
	for _, p := range s.ports {
		s.closePort(p)
	}
}

// portFailed takes a port out of service that will not work again. One whose
// link is down only waits. A port can fail several times in one batch.
func (s *Shard) portFailed(p *Port, err error) {
	if iface.IsDown(err) || s.ports[p.Index] != p {
		return
	}
	s.closePort(p)
	s.lost(p, err)
}
