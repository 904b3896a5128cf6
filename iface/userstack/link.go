// SPDX-License-Identifier: Apache-2.0

package userstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// A packet socket on a link: what comes for a source address, and what leaves.

const (
	etherLen = 14
	etherIP4 = 0x0800
	etherIP6 = 0x86dd
)

// link is an open packet socket.
type link struct {
	wantedLink
	file *os.File
	done chan struct{} // closed when nothing is read any more
}

type wantedLink struct {
	link    iface.Link
	port    int
	sources []netip.Addr
}

// setLinks opens and closes sockets, so that there are those that are wanted.
func (s *Stack) setLinks(wanted map[int]*wantedLink) (failed error) {
	links := make(map[int]*link, len(wanted))
	for index, w := range wanted {
		if l := s.links[index]; l != nil && w.link.MAC == l.link.MAC && w.port == l.port && slices.Equal(w.sources, l.sources) && !l.ended() {
			links[index] = l
			continue
		}
		l, err := s.open(*w)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		links[index] = l
	}
	old := s.links
	s.mu.Lock()
	s.links = links
	s.mu.Unlock()
	for index, l := range old {
		if links[index] != l {
			l.close()
		}
	}
	return failed
}

// open opens a link. The filter is in force before the socket is bound, so that no
// other packet is ever delivered.
func (s *Stack) open(w wantedLink) (*link, error) {
	fail := func(fd int, what string, err error) (*link, error) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("%s: %s: %w", w.link.Name, what, err)
	}
	program, err := bpf.Assemble(s.filter(w.sources))
	if err != nil {
		return fail(-1, "filter", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(-1, "packet socket", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter); err != nil {
		return fail(fd, "filter", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fail(fd, "packet socket", err)
	}
	// All protocols: ahead of the hook where the guard keeps them from the host.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)), Ifindex: w.link.Index}); err != nil {
		return fail(fd, "bind", err)
	}
	l := &link{wantedLink: w, file: os.NewFile(uintptr(fd), w.link.Name), done: make(chan struct{})}
	go s.read(l)
	return l, nil
}

// filter accepts what is for a source address at one of our ports, and ICMP for it.
func (s *Stack) filter(sources []netip.Addr) []bpf.Instruction {
	var program []bpf.Instruction
	for _, a := range sources {
		if a.Is6() {
			program = append(program, s.accept6(a)...)
		} else {
			program = append(program, s.accept4(a)...)
		}
	}
	return append(program, bpf.RetConstant{Val: 0})
}

const whole = 0x40000 // of a packet is kept

// unless is a jump to the end of a part of n instructions, of which rest follow it.
func unless(cond bpf.JumpTest, val uint32, rest int) bpf.Instruction {
	return bpf.JumpIf{Cond: cond, Val: val, SkipTrue: uint8(rest)}
}

func (s *Stack) accept4(a netip.Addr) []bpf.Instruction {
	b := a.As4()
	lo, hi := uint32(s.config.MinPort), uint32(s.config.MaxPort)
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		unless(bpf.JumpNotEqual, etherIP4, 14),
		bpf.LoadAbsolute{Off: etherLen + 16, Size: 4},
		unless(bpf.JumpNotEqual, binary.BigEndian.Uint32(b[:]), 12),
		bpf.LoadAbsolute{Off: etherLen + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 10}, // a fragment
		bpf.LoadAbsolute{Off: etherLen + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMP, SkipTrue: 7},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipTrue: 1},
		unless(bpf.JumpNotEqual, unix.IPPROTO_UDP, 6),
		bpf.LoadMemShift{Off: etherLen},
		bpf.LoadIndirect{Off: etherLen + 2, Size: 2},
		unless(bpf.JumpLessThan, lo, 3),
		unless(bpf.JumpGreaterThan, hi, 2),
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: whole},
	}
}

func (s *Stack) accept6(a netip.Addr) []bpf.Instruction {
	b := a.As16()
	lo, hi := uint32(s.config.MinPort), uint32(s.config.MaxPort)
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		unless(bpf.JumpNotEqual, etherIP6, 17),
	}
	for i := range uint32(4) {
		program = append(program,
			bpf.LoadAbsolute{Off: etherLen + 24 + 4*i, Size: 4},
			unless(bpf.JumpNotEqual, binary.BigEndian.Uint32(b[4*i:]), int(15-2*i)))
	}
	return append(program,
		bpf.LoadAbsolute{Off: etherLen + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipTrue: 1},
		unless(bpf.JumpNotEqual, unix.IPPROTO_UDP, 5),
		bpf.LoadAbsolute{Off: etherLen + 40 + 2, Size: 2},
		unless(bpf.JumpLessThan, lo, 3),
		unless(bpf.JumpGreaterThan, hi, 2),
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: whole})
}

// read hands over what comes until the socket is closed or its link is gone.
func (s *Stack) read(l *link) {
	defer close(l.done)
	frame := make([]byte, iface.MaxFrame)
	for {
		n, err := l.file.Read(frame)
		if errors.Is(err, unix.ENETDOWN) {
			continue // told once; it works again when the link does
		}
		if err != nil {
			return
		}
		if n <= etherLen || [6]byte(frame[:6]) != l.link.MAC {
			continue
		}
		packet := frame[etherLen:n]
		if to, ok := destination(packet); ok && slices.Contains(l.sources, to) && ours(packet) {
			s.receive(to, trimmed(packet))
		}
	}
}

// destination is that of a packet, which may be anything.
func destination(packet []byte) (netip.Addr, bool) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, false
}

// ours reports whether a packet for one of our addresses is the stack's: of ICMP
// answers to its pings and errors, and not what the packet loop answers.
func ours(packet []byte) bool {
	if packet[0]>>4 == 6 {
		const echoReply, lastError = 129, 127
		return packet[6] != unix.IPPROTO_ICMPV6 || len(packet) > 40 && (packet[40] == echoReply || packet[40] <= lastError)
	}
	at := int(packet[0]&0xf) * 4
	const echoReply, unreachable, timeExceeded, badParameter = 0, 3, 11, 12
	return packet[9] != unix.IPPROTO_ICMP || len(packet) > at && slices.Contains([]byte{echoReply, unreachable, timeExceeded, badParameter}, packet[at])
}

// trimmed is a packet without what pads a short frame. A length that is not possible
// is the stack's to refuse.
func trimmed(packet []byte) []byte {
	n := int(binary.BigEndian.Uint16(packet[2:4]))
	if packet[0]>>4 == 6 {
		n = 40 + int(binary.BigEndian.Uint16(packet[4:6]))
	}
	if n > 0 && n < len(packet) {
		return packet[:n]
	}
	return packet
}

// transmit sends a frame, of which the link header is still to be written.
func (s *Stack) transmit(r *Route, frame []byte) {
	binary.BigEndian.PutUint16(frame[12:14], etherIP4)
	if r.To.Is6() {
		binary.BigEndian.PutUint16(frame[12:14], etherIP6)
	}
	now := s.config.Now()
	if mac, ok := s.config.Neighbours.Lookup(now, r.Port, r.NextHop); ok {
		copy(frame[0:6], mac[:])
		copy(frame[6:12], r.Link.MAC[:])
		s.write(r.Port, frame, iface.Offload{})
		return
	}
	// A frame that waits is sent by who hears the answer, the packet loop.
	if s.config.Neighbours.Resolve(now, r.Port, r.NextHop, frame, iface.Offload{}, s.write) == iface.ResolveKnown {
		s.write(r.Port, frame, iface.Offload{})
	}
}

// write sends a frame on a port; what does not fit into the queue at once is lost, as
// on any link. Neighbours call it with their lock held: it takes none that is held
// while they are called.
func (s *Stack) write(port int, frame []byte, _ iface.Offload) {
	s.mu.Lock()
	var l *link
	for _, other := range s.links {
		if other.port == port {
			l = other
		}
	}
	s.mu.Unlock()
	if l == nil {
		return
	}
	raw, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		_ = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT, nil)
		return true
	})
}

func (l *link) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *link) close() {
	_ = l.file.Close()
	<-l.done
}
