// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// DefaultBuffer is the size in bytes that is asked for each of a packet socket's
// buffers: about a hundred super-packets. Smaller frames wait in a ring, if there is one.
const DefaultBuffer = 8 << 20

// Egress says how frames leave a packet socket.
type Egress uint8

const (
	// EgressByLink is queued on a link that has a queueing discipline when it is opened:
	// what an administrator has set up there holds for our frames, captures show them, and
	// what the driver has no room for yet waits. It is direct on others: virtual links have
	// nothing to be passed by, and one that has just come up loses without a word what is
	// queued.
	EgressByLink Egress = iota
	// EgressDirect hands frames to the driver past the queueing discipline
	// (PACKET_QDISC_BYPASS). Captures and egress filters on the host do not see
	// them. A link that cannot segment super-packets itself is found out with the
	// first of them and served as EgressQueued from then on.
	EgressDirect
	// EgressQueued sends as the host's own packets are sent.
	EgressQueued
)

// PacketOptions are the choices of OpenPacket. The zero value is usable.
type PacketOptions struct {
	// Filter is in force before the first frame is delivered.
	Filter Filter
	// ReceiveBuffer and SendBuffer are in bytes; 0 means DefaultBuffer. Without
	// CAP_NET_ADMIN in the first user namespace the kernel cuts them to
	// net.core.rmem_max and wmem_max.
	ReceiveBuffer, SendBuffer int
	Egress                    Egress
	// Sieve attaches the filter in place of the queue, if it is not nil.
	Sieve Sieve
}

// A Sieve attaches to packet sockets on links with link addresses what a filter says,
// less what somebody nearer to the link takes for itself. It may be called by several
// goroutines.
type Sieve interface {
	AttachFilter(fd int, f Filter) error
}

// ErrSieve is in the errors of SetFilter when the Sieve has failed: the filter is in
// force then, and admits what the other takes as well.
var ErrSieve = errors.New("a filter could not be combined")

// packetQueue is a Queue on an AF_PACKET socket.
type packetQueue struct {
	descriptor
	counters

	name   string
	index  int
	layer  Layer
	direct bool // frames bypass the queueing discipline
	down   bool // a read was told so and none has seen a frame since
	gone   bool // for good

	sieve  Sieve            // or nil
	groups map[[6]byte]bool // link-layer groups that were joined

	beside *fanout // that it is queue number of, or nil
	number int

	// Made once, so that failing costs no allocation either.
	errDown, errGone, errClosed error

	in       *receiveBatch
	arrivals *receiveRing // nil: there is none
	out      *sendBatch
	ring     *sendRing // nil: there is none
}

// OpenPacket opens a queue that sees the frames of all protocols on the link.
// ETH_P_ALL puts it ahead of the netdev ingress hook, where a guard may drop the
// same frames for the host; a socket bound to ETH_P_IP would sit behind it. The
// link may be down. It needs CAP_NET_RAW in the user namespace that owns the
// network namespace.
func OpenPacket(link Link, opts PacketOptions) (Queue, error) {
	q, err := openPacket(link, opts, nil, 0)
	if err != nil {
		return nil, err
	}
	return q, nil
}

// openPacket opens one of the queues beside each other, if beside is not nil.
func openPacket(link Link, opts PacketOptions, beside *fanout, number int) (*packetQueue, error) {
	q := &packetQueue{
		beside:    beside,
		sieve:     opts.Sieve,
		number:    number,
		name:      link.Name,
		index:     link.Index,
		groups:    map[[6]byte]bool{},
		layer:     Network,
		direct:    opts.Egress == EgressDirect || opts.Egress == EgressByLink && !disciplined(link.Index),
		errDown:   fmt.Errorf("port %s: %w", link.Name, ErrDown),
		errGone:   fmt.Errorf("port %s: %w", link.Name, ErrGone),
		errClosed: fmt.Errorf("port %s: %w", link.Name, ErrClosed),
	}
	if link.Ethernet {
		q.layer = Ethernet
	}
	// Protocol 0: nothing is delivered until bind names a link and a protocol.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, q.openError("open a packet socket", err)
	}
	q.fd = fd
	if err := q.configure(opts); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := q.SetFilter(opts.Filter); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// A ring that cannot be had is done without.
	q.arrivals, _ = openReceiveRing(fd)
	address := unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Index}
	if err := unix.Bind(fd, &address); err != nil {
		q.last(fd)
		unix.Close(fd)
		if err == unix.ENODEV || err == unix.ENXIO {
			return nil, q.errGone
		}
		return nil, q.openError("bind the packet socket", err)
	}
	q.in = newReceiveBatch()
	q.out = newSendBatch(q.layer, link.Index)
	q.ring, _ = openSendRing(link, q.direct)
	return q, nil
}

// disciplined reports whether a link has a queueing discipline.
func disciplined(index int) bool {
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	list, err := netlink.QdiscList(link)
	return err == nil && slices.ContainsFunc(list, func(q netlink.Qdisc) bool {
		return q.Attrs().Parent == netlink.HANDLE_ROOT && q.Type() != "noqueue"
	})
}

func (q *packetQueue) openError(what string, err error) error {
	err = fmt.Errorf("port %s: %s: %w", q.name, what, err)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w\nhint: packet sockets need root or CAP_NET_RAW; as an ordinary user, run in a user and network namespace", err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w\nhint: this kernel has no packet sockets (CONFIG_PACKET)", err)
	}
	return err
}

// option is one integer socket option that has to be set before bind.
type option struct {
	name        string
	level, code int
	value       int
}

func (q *packetQueue) configure(opts PacketOptions) error {
	for _, o := range []option{
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{"PACKET_AUXDATA", unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
	} {
		if err := unix.SetsockoptInt(q.fd, o.level, o.code, o.value); err != nil {
			return fmt.Errorf("port %s: set %s: %w\nhint: Linux 4.20 or later is needed", q.name, o.name, err)
		}
	}
	if q.direct && unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1) != nil {
		q.direct = false
	}
	q.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, opts.ReceiveBuffer)
	q.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, opts.SendBuffer)
	return nil
}

// setBuffer asks beyond the system's limit first. The plain option never fails: it
// silently takes the limit.
func (q *packetQueue) setBuffer(force, plain, size int) {
	if size <= 0 {
		size = DefaultBuffer
	}
	size = min(size, math.MaxInt32/2) // the kernel doubles it
	if unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, force, size) != nil {
		unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, plain, size)
	}
}

// SetFilter implements Queue, and joins the groups in which questions for IPv6
// addresses in Ours are asked. A host may limit the memory of filters
// (net.core.optmem_max); then all of IP is admitted.
func (q *packetQueue) SetFilter(f Filter) error {
	if err := q.admit(f); err != nil {
		return err
	}
	if err := q.withFD(func(fd int) error { return q.follow(fd, f.Ours) }); err != nil {
		return err
	}
	if q.beside != nil {
		return q.beside.follow(q.number, f)
	}
	return nil
}

// admit attaches the filter.
func (q *packetQueue) admit(f Filter) error {
	raw, err := f.Assemble(q.layer)
	if err != nil {
		return fmt.Errorf("port %s: %w", q.name, err)
	}
	if q.silent() {
		raw = silence
	}
	return q.withFD(func(fd int) error {
		var failed error
		if q.sieve != nil && !q.silent() {
			if failed = q.sieve.AttachFilter(fd, f); failed == nil {
				return nil
			}
			failed = fmt.Errorf("port %s: %w: %w", q.name, ErrSieve, failed)
		}
		err := attach(fd, raw)
		if err == unix.ENOMEM {
			if raw, err = assembleWide(q.layer); err == nil {
				err = attach(fd, raw)
			}
		}
		if err != nil {
			return fmt.Errorf("port %s: attach the filter: %w", q.name, err)
		}
		return failed
	})
}

// withFD calls f with the descriptor, which stays open meanwhile.
func (q *packetQueue) withFD(f func(fd int) error) error {
	fd, ok := q.hold()
	if !ok {
		return q.errClosed
	}
	defer q.release()
	return f(fd)
}

// attach replaces the filter in one step: there is no moment without one.
func attach(fd int, raw []bpf.RawInstruction) error {
	program := rawProgram(raw)
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

func rawProgram(raw []bpf.RawInstruction) []unix.SockFilter {
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return program
}

// FD implements Queue.
func (q *packetQueue) FD() int {
	fd, ok := q.hold()
	if !ok {
		return -1
	}
	defer q.release()
	return fd
}

// Stats implements Queue.
func (q *packetQueue) Stats() QueueStats {
	if fd, ok := q.hold(); ok {
		q.collectDrops(fd)
		q.release()
	}
	return q.load()
}

// collectDrops adds what the kernel dropped since it was last asked: reading the
// number resets it.
func (q *packetQueue) collectDrops(fd int) {
	if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		q.kernelDrops.Add(uint64(stats.Drops))
	}
}

// last is what is done before the descriptor is closed.
func (q *packetQueue) last(fd int) {
	q.collectDrops(fd)
	if q.arrivals != nil {
		q.arrivals.close()
	}
	if q.ring != nil {
		q.ring.close()
	}
}

// Close implements Queue.
func (q *packetQueue) Close() error {
	if err := q.close(q.last); err != nil {
		return fmt.Errorf("port %s: close: %w", q.name, err)
	}
	return nil
}

// networkOrder is htons.
func networkOrder(v uint16) uint16 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return bits.ReverseBytes16(v)
	}
	return v
}
