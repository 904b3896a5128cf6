// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TUN is a Queue on a network-layer device that exists as long as it is open:
// what the host routes into the device is read, what is written arrives on the
// host. Frames begin with the IP header. Super-packets and partial checksums pass
// both ways with their offload header, as on a packet socket; a kind of super-packet
// that the kernel does not take is segmented first.
type TUN struct {
	descriptor
	counters

	name string
	// Made once, so that failing costs no allocation either.
	errDown, errGone, errClosed error

	slots    []byte // BatchSize of them, slotSize apart
	segments segmenter

	// What writev is given: the offload header, and the frame.
	header  [OffloadSize]byte
	vectors [2]unix.Iovec
}

// tunDevice is where the kernel offers TUN.
const tunDevice = "/dev/net/tun"

// OpenTUNs creates a TUN device, gives it the MTU (68 to 65535 bytes) and sets it up. The
// name has at most 15 bytes; "vsnat%d" lets the kernel choose the number, and "" the name.
// It has n queues, which divide what the host routes into the device.
// The kernel takes the one that packets between the same two ends were last written to, or
// else one by a hash: what comes back of a connection comes by the queue that its other
// direction left by. The device vanishes with the last of them.
func OpenTUNs(name string, mtu, n int) (queues []*TUN, err error) {
	if mtu < 68 || mtu > 65535 {
		return nil, fmt.Errorf("tun %q: MTU %d is not between 68 and 65535", name, mtu)
	}
	if len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("tun %q: the name is longer than %d bytes", name, unix.IFNAMSIZ-1)
	}
	if _, err := netlink.LinkByName(name); err == nil && !strings.Contains(name, "%") {
		return nil, fmt.Errorf("tun %q: a link of this name exists\nhint: choose another name", name)
	}
	var flags uint16
	if n > 1 {
		flags = unix.IFF_MULTI_QUEUE
	}
	fd, name, err := createTUN(name, flags)
	if err != nil {
		return nil, err
	}
	queues = append(queues, newTUN(fd, name))
	defer func() {
		if err != nil {
			for _, q := range queues {
				_ = q.Close() // the first error is the one to tell
			}
			queues = nil
		}
	}()
	for range n - 1 {
		fd, err := openTUNDevice(name)
		if err != nil {
			return queues, err
		}
		if err := attachQueue(fd, name, flags); err != nil {
			unix.Close(fd)
			return queues, fmt.Errorf("tun %q: %w", name, err)
		}
		queues = append(queues, newTUN(fd, name))
	}
	return queues, bringUp(name, mtu)
}

func newTUN(fd int, name string) *TUN {
	q := &TUN{
		name:      name,
		errDown:   fmt.Errorf("port %s: %w", name, ErrDown),
		errGone:   fmt.Errorf("port %s: %w", name, ErrGone),
		errClosed: fmt.Errorf("port %s: %w", name, ErrClosed),
		slots:     make([]byte, BatchSize*slotSize),
	}
	q.fd = fd
	return q
}

func openTUNDevice(name string) (int, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, tunError(name, err)
	}
	return fd, nil
}

// createTUN returns a descriptor of our own. The library's knows no offload header,
// which a device has from the queue that is attached to it first; it is registered
// with Go's network poller and inherited by child processes, too. So the library
// makes a device that outlives its descriptor, ours is attached in its place, and
// from then on the device ends with ours.
func createTUN(name string, flags uint16) (int, string, error) {
	fd, err := openTUNDevice(name)
	if err != nil {
		return -1, "", err
	}
	device, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Persist: true, MultiQueue: flags != 0},
	})
	if err != nil {
		unix.Close(fd)
		return -1, "", tunError(name, err)
	}
	name = device.Name()
	device.Close()
	if err := attachQueue(fd, name, flags); err != nil {
		unix.Close(fd)
		if link, gone := netlink.LinkByName(name); gone == nil {
			err = errors.Join(err, netlink.LinkDel(link))
		}
		return -1, "", fmt.Errorf("tun %q: %w", name, err)
	}
	return fd, name, nil
}

// attachQueue makes fd a queue of a device, with the offload header of OffloadSize bytes
// in front of each packet, and the end of the last queue the device's. flags are those
// beside what all have.
func attachQueue(fd int, name string, flags uint16) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("attach a queue: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
		return fmt.Errorf("tie the device to its queue: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, OffloadSize); err != nil {
		return fmt.Errorf("set the size of the offload header: %w", err)
	}
	const streams = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, streams|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return nil
	}
	// Linux before 6.2 has no trains of datagrams here.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, streams); err != nil {
		return fmt.Errorf("set the offloads: %w", err)
	}
	return nil
}

// tunError says which step failed and what to do. Opening the device fails with a
// bare error number, making the interface with an os.SyscallError.
func tunError(name string, err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = fmt.Errorf("tun %q: create the interface: %w", name, err)
		switch {
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("%w\nhint: this needs CAP_NET_ADMIN in the network namespace: root, or a user namespace of your own", err)
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%w\nhint: another process holds a device of this name", err)
		}
		return err
	}
	err = fmt.Errorf("tun %q: open %s: %w", name, tunDevice, err)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w\nhint: load the module (modprobe tun), make the node (mkdir -p /dev/net && mknod -m 666 %s c 10 200), or pass the device into the container (--device %s)", err, tunDevice, tunDevice)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w\nhint: run as root, or let everyone open it (chmod 666 %s); a network namespace is still needed to use it", err, tunDevice)
	}
	return err
}

func bringUp(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("tun %q: find the new link: %w", name, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("tun %q: set the MTU to %d: %w", name, mtu, err)
	}
	// No link-local address, which would ask for routers and report its groups.
	// Without IPv6 in the kernel there is nothing to set.
	_ = netlink.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("tun %q: set the link up: %w", name, err)
	}
	return nil
}

// Name is the name the device was created with.
func (q *TUN) Name() string { return q.name }

// Read implements Queue.
func (q *TUN) Read(b []Frame) (int, error) {
	fd, ok := q.hold()
	if !ok {
		return 0, q.errClosed
	}
	defer q.release()

	var (
		n      int
		total  uint64
		failed error
	)
	for n < len(b) && n < BatchSize && total < cached {
		slot := q.slots[n*slotSize:][: OffloadSize+MaxFrame : OffloadSize+MaxFrame]
		length, err := unix.Read(fd, slot)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			failed = q.classify(err)
			break
		}
		if length < OffloadSize {
			q.receiveErrors.Add(1)
			continue
		}
		b[n] = Frame{Data: slot[OffloadSize:length], Offload: DecodeOffload(slot), Kind: Host}
		total += uint64(length - OffloadSize)
		n++
	}
	q.receivedFrames.Add(uint64(n))
	q.receivedBytes.Add(total)
	return n, failed
}

// classify is nil for an error that is none of the port's.
func (q *TUN) classify(err error) error {
	switch err {
	case unix.EIO: // tun_get_user: the interface is not up
		return q.errDown
	case unix.EBADFD, unix.EFAULT, unix.ENODEV, unix.ENXIO: // the device was deleted
		return q.errGone
	}
	return nil
}

// Write implements Queue.
func (q *TUN) Write(b []Frame) (int, error) {
	fd, ok := q.hold()
	if !ok {
		return 0, q.errClosed
	}
	defer q.release()

	sent, attempts := 0, sendAttempts
	for i := range b {
		errno := q.writeFrame(fd, &b[i], &attempts)
		switch {
		case errno == nil:
			sent++
			q.sentFrames.Add(1)
			q.sentBytes.Add(uint64(len(b[i].Data)))
		case errno == unix.EINVAL, errno == unix.EMSGSIZE:
			q.sendRefused.Add(1)
		case q.classify(errno) != nil:
			q.sendDrops.Add(uint64(len(b) - i))
			return sent, q.classify(errno)
		default:
			q.sendDrops.Add(1)
		}
	}
	return sent, nil
}

// writeFrame writes one frame, or the segments it stands for. A plain error
// number is returned, EINVAL for a frame that can never be sent.
func (q *TUN) writeFrame(fd int, f *Frame, attempts *int) error {
	if f.Truncated || len(f.Data) == 0 {
		return unix.EINVAL
	}
	err := q.writePacket(fd, f.Data, f.Offload, attempts)
	if err != unix.EINVAL || !f.Offload.Segmented() || !q.segments.begin(f.Data, f.Offload) {
		return err
	}
	for segment := q.segments.next(); segment != nil; segment = q.segments.next() {
		if err := q.writePacket(fd, segment, Offload{}, attempts); err != nil {
			return err
		}
	}
	return nil
}

func (q *TUN) writePacket(fd int, p []byte, o Offload, attempts *int) error {
	if !o.Segmented() {
		o.HeaderLen = 0 // only a hint, but one the kernel checks against the length
	}
	o.Flags &^= FlagDataValid // of a packet that arrived
	o.Encode(q.header[:])
	q.vectors[0].Base = &q.header[0]
	q.vectors[0].SetLen(OffloadSize)
	q.vectors[1].Base = unsafe.SliceData(p)
	q.vectors[1].SetLen(len(p))
	defer q.forget()
	for {
		// The raw call: unix.Writev would box the error number.
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&q.vectors)), uintptr(len(q.vectors)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS:
			if again(attempts) {
				continue
			}
			return unix.EAGAIN
		}
		return errno
	}
}

// forget drops the reference to the caller's memory.
func (q *TUN) forget() { q.vectors[1].Base = nil }

// SetFilter implements Queue. It admits everything: only what the host routes
// into the device comes here, and nobody else would receive it.
func (q *TUN) SetFilter(Filter) error { return nil }

// FD implements Queue.
func (q *TUN) FD() int {
	fd, ok := q.hold()
	if !ok {
		return -1
	}
	defer q.release()
	return fd
}

// Stats implements Queue.
func (q *TUN) Stats() QueueStats { return q.load() }

// Close implements Queue; the device vanishes.
func (q *TUN) Close() error {
	if err := q.close(nil); err != nil {
		return fmt.Errorf("port %s: close: %w", q.name, err)
	}
	return nil
}
