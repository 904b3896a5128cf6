// SPDX-License-Identifier: Apache-2.0

package ifacetest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// Capacity is how many frames a port holds that nobody has read yet; further
// ones are dropped and counted as KernelDrops.
const Capacity = 4096

// Port is one end of a pair: an iface.Queue in memory. Unlike a real queue it may
// be used by several goroutines at a time.
type Port struct {
	name  string
	layer iface.Layer
	peer  *Port

	mu      sync.Mutex
	fd      int // eventfd, not zero exactly while Read has something to return; -1 once closed
	filter  *bpf.VM
	waiting []iface.Frame // with Data of our own
	lent    []iface.Frame // what the last Read returned
	sent    []iface.Frame // copies of all that was written with success
	failure error         // of Read and Write, while it lasts
	pending error         // reported by the next Read, once
	full    int           // how many more frames Write drops
	stats   iface.QueueStats
}

// NewPair returns two Ethernet ports joined with each other. Until SetFilter is
// called a port admits every frame.
func NewPair() (a, b *Port) { return newPair(iface.Ethernet) }

// NewNetworkPair returns two joined ports whose frames begin with the IP header.
func NewNetworkPair() (a, b *Port) { return newPair(iface.Network) }

func newPair(layer iface.Layer) (a, b *Port) {
	a, b = newPort("a", layer), newPort("b", layer)
	a.peer, b.peer = b, a
	return a, b
}

func newPort(name string, layer iface.Layer) *Port {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		panic(fmt.Sprintf("ifacetest: eventfd: %v", err)) // out of descriptors: no test can go on
	}
	return &Port{name: name, layer: layer, fd: fd}
}

// Inject makes the next Read of p return a plain frame with these bytes, as if
// the far end had sent it. Data is copied. The filter applies.
func (p *Port) Inject(data ...[]byte) {
	for _, d := range data {
		p.InjectFrame(iface.Frame{Data: d})
	}
}

// InjectFrame is Inject with an offload header, a kind and flags.
func (p *Port) InjectFrame(f iface.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receive(f)
}

// receive queues a copy of f; p.mu is held.
func (p *Port) receive(f iface.Frame) {
	if p.fd < 0 || p.failure != nil || !p.admits(f.Data) {
		return
	}
	if len(p.waiting) >= Capacity {
		p.stats.KernelDrops++
		return
	}
	f.Data = slices.Clone(f.Data)
	p.waiting = append(p.waiting, f)
	p.signal()
}

func (p *Port) admits(data []byte) bool {
	if p.filter == nil {
		return true
	}
	n, err := p.filter.Run(data)
	return err == nil && n > 0
}

// Read implements iface.Queue.
func (p *Port) Read(b []iface.Frame) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.signal()
	if p.fd < 0 {
		return 0, p.error(iface.ErrClosed)
	}
	// A borrowed frame is spoilt, so that a test notices who kept it too long.
	for _, f := range p.lent {
		clear(f.Data[:cap(f.Data)])
	}
	p.lent = p.lent[:0]
	n := min(len(b), len(p.waiting), iface.BatchSize)
	copy(b, p.waiting[:n])
	p.lent = append(p.lent, p.waiting[:n]...)
	p.waiting = slices.Delete(p.waiting, 0, n)
	for _, f := range b[:n] {
		p.stats.ReceivedFrames++
		p.stats.ReceivedBytes += uint64(len(f.Data))
		if f.Truncated {
			p.stats.Truncated++
		}
	}
	err := p.pending
	if !iface.IsGone(err) { // a missing link is missing each time
		p.pending = nil
	}
	return n, err
}

// Write implements iface.Queue.
func (p *Port) Write(b []iface.Frame) (int, error) {
	sent, err := p.record(b)
	p.peer.mu.Lock()
	defer p.peer.mu.Unlock()
	for _, f := range sent {
		p.peer.receive(iface.Frame{Data: f.Data, Offload: f.Offload, Kind: kindOf(p.layer, f.Data)})
	}
	return len(sent), err
}

// record notes what goes out and returns the copies. Only one of the two locks
// is ever held, so the ends may write at the same time.
func (p *Port) record(b []iface.Frame) ([]iface.Frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil, p.error(iface.ErrClosed)
	}
	if p.failure != nil {
		p.stats.SendDrops += uint64(len(b))
		return nil, p.failure
	}
	first := len(p.sent)
	for _, f := range b {
		switch {
		case f.Truncated || len(f.Data) == 0:
			p.stats.SendRefused++
		case p.full > 0:
			p.full--
			p.stats.SendDrops++
		default:
			f.Data = slices.Clone(f.Data)
			p.sent = append(p.sent, f)
			p.stats.SentFrames++
			p.stats.SentBytes += uint64(len(f.Data))
		}
	}
	return p.sent[first:len(p.sent):len(p.sent)], nil
}

// kindOf knows no station's address, so all unicast is for the far end.
func kindOf(layer iface.Layer, data []byte) iface.Kind {
	switch {
	case layer == iface.Network || len(data) < 6 || data[0]&1 == 0:
		return iface.Host
	case [6]byte(data) == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}:
		return iface.Broadcast
	}
	return iface.Multicast
}

// SetFilter implements iface.Queue: the very program that the kernel would run.
func (p *Port) SetFilter(f iface.Filter) error {
	raw, err := f.Assemble(p.layer)
	if err != nil {
		return err
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		return fmt.Errorf("port %s: the filter has an unknown instruction", p.name)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		return fmt.Errorf("port %s: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return p.error(iface.ErrClosed)
	}
	p.filter = vm
	return nil
}

// FD implements iface.Queue.
func (p *Port) FD() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fd
}

// Stats implements iface.Queue.
func (p *Port) Stats() iface.QueueStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Close implements iface.Queue.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return p.error(iface.ErrClosed)
	}
	unix.Close(p.fd)
	p.fd = -1
	return nil
}

// Sent returns copies of all frames written with success since the last
// ForgetSent, oldest first.
func (p *Port) Sent() []iface.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	frames := slices.Clone(p.sent)
	for i := range frames {
		frames[i].Data = slices.Clone(frames[i].Data)
	}
	return frames
}

// ForgetSent empties the record.
func (p *Port) ForgetSent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = nil
}

// Down takes the link down: writes fail with ErrDown, the next Read reports it
// once, arriving frames are lost.
func (p *Port) Down() { p.fail(iface.ErrDown) }

// Gone removes the link: from now on reads and writes fail with ErrGone.
func (p *Port) Gone() { p.fail(iface.ErrGone) }

// Up ends Down or Gone.
func (p *Port) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure, p.pending = nil, nil
	p.signal()
}

// Full makes Write drop the next n frames, as when the transmit queue stays full.
func (p *Port) Full(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = n
}

func (p *Port) fail(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = p.error(reason)
	p.pending = p.failure
	p.signal()
}

func (p *Port) error(reason error) error { return fmt.Errorf("port %s: %w", p.name, reason) }

// signal makes the descriptor readable or not, as the state of p asks.
func (p *Port) signal() {
	if p.fd < 0 {
		return
	}
	var count [8]byte
	if len(p.waiting) == 0 && p.pending == nil {
		unix.Read(p.fd, count[:])
		return
	}
	binary.NativeEndian.PutUint64(count[:], 1)
	unix.Write(p.fd, count[:])
}
