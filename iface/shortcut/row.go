// SPDX-License-Identifier: Apache-2.0

package shortcut

import (
	"encoding/binary"
	"unsafe"
)

// row is a connection in the memory that is shared with the kernel.
type row [2]shared

// shared is one way of a connection, as the programs see it: what they read, and on a
// cache line of its own what they write. The constants below are the offsets.
type shared struct {
	state       uint32 // 0: not in use
	out         uint32 // link
	to          [12]byte
	mtu         uint32
	from        [6]byte
	_           [2]byte
	source      [16]byte // of the packet that leaves
	dest        [16]byte
	ports       [4]byte
	addrDelta   uint32 // of checksums that cover addresses
	portDelta   uint32 // of those that cover ports; 0: none
	headerDelta uint32 // of the IPv4 header's checksum; of IPv6, of a sum of the packet
	hop         uint32 // what the time to live becomes less
	shift       uint32 // of window
	_           [40]byte

	packets, bytes uint64
	left           uint64 // by the filters
	end, ack       uint32
	window         uint32
	_              [28]byte
}

const (
	stateLive    = 1 << 0
	stateAnybody = 1 << 1 // whatever link address it comes from

	keyIPv6 = 1 << 31 // in a key, beside the link

	wayState       = int16(unsafe.Offsetof(shared{}.state))
	wayOut         = int16(unsafe.Offsetof(shared{}.out))
	wayTo          = int16(unsafe.Offsetof(shared{}.to))
	wayMTU         = int16(unsafe.Offsetof(shared{}.mtu))
	wayFrom        = int16(unsafe.Offsetof(shared{}.from))
	waySource      = int16(unsafe.Offsetof(shared{}.source))
	wayPorts       = int16(unsafe.Offsetof(shared{}.ports))
	wayAddrDelta   = int16(unsafe.Offsetof(shared{}.addrDelta))
	wayPortDelta   = int16(unsafe.Offsetof(shared{}.portDelta))
	wayHeaderDelta = int16(unsafe.Offsetof(shared{}.headerDelta))
	wayHop         = int16(unsafe.Offsetof(shared{}.hop))
	wayShift       = int16(unsafe.Offsetof(shared{}.shift))
	wayPackets     = int16(unsafe.Offsetof(shared{}.packets))
	wayBytes       = int16(unsafe.Offsetof(shared{}.bytes))
	wayLeft        = int16(unsafe.Offsetof(shared{}.left))
	wayEnd         = int16(unsafe.Offsetof(shared{}.end))
	wayAck         = int16(unsafe.Offsetof(shared{}.ack))
	wayWindow      = int16(unsafe.Offsetof(shared{}.window))
	wayLen         = int32(unsafe.Sizeof(shared{}))
	rowLen         = int(unsafe.Sizeof(row{}))
)

// fill writes a way that nobody uses yet.
func (s *shared) fill(w *Way) {
	*s = shared{
		out: uint32(w.Out), mtu: uint32(w.MTU), from: w.From, source: w.NewSrc.Addr, dest: w.NewDst.Addr,
		ports: ports(w.NewSrc.Port, w.NewDst.Port), hop: 1, shift: uint32(w.Reached.Shift),
		end: w.Reached.End, ack: w.Reached.Ack, window: uint32(w.Reached.Window),
	}
	copy(s.to[:], w.ToMAC[:])
	copy(s.to[6:], w.FromMAC[:])

	skip := 0 // of an IPv4 address, what is not in the packet
	if w.is4() {
		skip = 12
	}
	var addrs, ports sum
	addrs.replace(w.Src.Addr[skip:], w.NewSrc.Addr[skip:])
	addrs.replace(w.Dst.Addr[skip:], w.NewDst.Addr[skip:])
	ports.replace(port(w.Src.Port), port(w.NewSrc.Port))
	ports.replace(port(w.Dst.Port), port(w.NewDst.Port))
	s.addrDelta = addrs.delta()
	s.headerDelta = s.addrDelta
	if w.is4() {
		s.headerDelta += 0xfffe // ^old + new of a word whose first byte became less by one
	} else {
		s.headerDelta += 0xfeff // whose second byte did
	}
	if w.Src.Port != w.NewSrc.Port || w.Dst.Port != w.NewDst.Port {
		s.portDelta = ports.delta()
	}
}

func ports(src, dst uint16) (b [4]byte) {
	binary.BigEndian.PutUint16(b[:], src)
	binary.BigEndian.PutUint16(b[2:], dst)
	return b
}

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// A sum is what checksums change by: of ^old + new of each word, as the machine reads it.
type sum uint64

func (s *sum) replace(old, by []byte) {
	for i := 0; i < len(old); i += 2 {
		*s += sum(^binary.NativeEndian.Uint16(old[i:])) + sum(binary.NativeEndian.Uint16(by[i:]))
	}
}

// delta is the sum in 16 bits, not zero.
func (s sum) delta() uint32 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint32(s)
}
