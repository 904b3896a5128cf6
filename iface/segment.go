// SPDX-License-Identifier: Apache-2.0

package iface

import "encoding/binary"

// segmenter cuts a super-packet into the packets it stands for, for a path that
// cannot carry the offload header. It does in user space what the kernel does in
// tcp_gso_segment and __udp_gso_segment. One per queue, used again for each
// super-packet; the first one makes its buffer.
//
// Each segment has the headers of the super-packet, with
//
//   - IP lengths of its own; IPv4 ids counted up (RFC 6864: they need only differ)
//   - TCP: the sequence number advanced; FIN and PSH on the last only, CWR on the
//     first only when the ECN bit is set (RFC 3168, 6.1.2)
//   - UDP: a length of its own
//   - complete checksums, computed from nothing
type segmenter struct {
	buffer []byte // one segment

	packet    []byte // the super-packet, from the IP header
	transport int    // offset of the TCP or UDP header in packet
	payload   int    // offset of the payload
	size      int    // payload bytes per segment
	done      int    // payload bytes given out
	count     int    // segments given out
	tcp, ecn  bool
}

const (
	flagFIN = 0x01
	flagPSH = 0x08
	flagCWR = 0x80
)

// begin takes an IP packet and reports whether it can be segmented. The offsets
// of o are relative to the packet.
func (s *segmenter) begin(packet []byte, o Offload) bool {
	*s = segmenter{buffer: s.buffer, packet: packet, transport: int(o.ChecksumStart), size: int(o.GSOSize)}
	s.ecn = o.GSOType&GSOECN != 0
	version := byte(4)
	switch o.GSOType &^ GSOECN {
	case GSOTCPv4:
		s.tcp = true
	case GSOTCPv6:
		s.tcp, version = true, 6
	case GSOUDPL4:
		if len(packet) > 0 {
			version = packet[0] >> 4
		}
	default: // UFO has been gone from the kernel since 4.14
		return false
	}
	smallest := 20
	if version == 6 {
		smallest = 40
	}
	if s.size == 0 || !o.NeedsChecksum() || s.transport < smallest || len(packet) < s.transport+8 || packet[0]>>4 != version {
		return false
	}
	s.payload = s.transport + 8
	if s.tcp {
		if len(packet) < s.transport+20 {
			return false
		}
		header := int(packet[s.transport+12]>>4) * 4
		if header < 20 {
			return false
		}
		s.payload = s.transport + header
	}
	if s.payload > len(packet) || s.payload+s.size > 65535 {
		return false
	}
	if cap(s.buffer) < MaxFrame {
		s.buffer = make([]byte, MaxFrame)
	}
	return true
}

// next returns the next segment, nil after the last. It is valid until the
// following call. A super-packet without payload is one segment.
func (s *segmenter) next() []byte {
	rest := len(s.packet) - s.payload - s.done
	if s.count > 0 && rest == 0 {
		return nil
	}
	n := min(rest, s.size)
	segment := s.buffer[:s.payload+n]
	copy(segment, s.packet[:s.payload])
	copy(segment[s.payload:], s.packet[s.payload+s.done:][:n])
	s.transportHeader(segment, rest == n)
	s.networkHeader(segment)
	s.done += n
	s.count++
	return segment
}

func (s *segmenter) networkHeader(p []byte) {
	if p[0]>>4 == 6 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		return
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[4:], binary.BigEndian.Uint16(p[4:])+uint16(s.count))
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^fold(sumBytes(0, p[:s.transport])))
}

func (s *segmenter) transportHeader(p []byte, last bool) {
	header := p[s.transport:]
	protocol, field := uint64(17), header[6:8]
	if s.tcp {
		protocol, field = 6, header[16:18]
		binary.BigEndian.PutUint32(header[4:], binary.BigEndian.Uint32(header[4:])+uint32(s.done))
		if !last {
			header[13] &^= flagFIN | flagPSH
		}
		if s.ecn && s.count > 0 {
			header[13] &^= flagCWR
		}
	}
	if !s.tcp {
		binary.BigEndian.PutUint16(header[4:], uint16(len(header)))
	}
	addresses := p[12:20]
	if p[0]>>4 == 6 {
		addresses = p[8:40]
	}
	field[0], field[1] = 0, 0
	sum := ^fold(sumBytes(sumBytes(protocol+uint64(len(header)), addresses), header))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}
