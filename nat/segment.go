// SPDX-License-Identifier: Apache-2.0

package nat

import "encoding/binary"

// A segmenter makes the packets that a super-packet stands for, for a way that
// cannot say what is left to be done: the inside of a tunnel. Their checksums are
// computed from nothing; the kernel merges only what was right.
type segmenter struct {
	data    []byte // the super-packet
	l4      int    // offset of the transport header
	payload int    // offset of the payload
	size    int    // of the payload in each segment, bytes
	done    int    // payload given out
	count   int    // segments given out
	tcp     bool
}

// newSegmenter prepares to segment pkt, which h describes. It reports false if the
// offload does not say how. pkt.Data is borrowed until the last call of next, and
// not changed.
func newSegmenter(pkt *Packet, h *parsed) (segmenter, bool) {
	s := segmenter{data: pkt.Data, l4: h.l4, size: int(pkt.Offload.GSOSize), tcp: h.kind == kindTCP}
	s.payload = s.l4 + udpHeaderLen
	if s.tcp {
		s.payload = s.l4 + h.dataOffset
	}
	good := h.kind == kindUDP && pkt.Offload.GSOType == GSOUDPL4 || s.tcp && pkt.Offload.GSOType != GSOUDPL4
	return s, good && s.size > 0 && s.payload <= len(s.data) && s.payload+s.size <= ipv4MaxLen
}

// length is that of the next segment, 0 after the last. A super-packet without
// payload is one segment.
func (s *segmenter) length() int {
	rest := len(s.data) - s.payload - s.done
	if rest <= 0 && s.count > 0 {
		return 0
	}
	return s.payload + min(rest, s.size)
}

// next writes the next segment into b, which has its length.
func (s *segmenter) next(b []byte) {
	n := len(b) - s.payload
	copy(b, s.data[:s.payload])
	copy(b[s.payload:], s.data[s.payload+s.done:][:n])
	last := s.done+n == len(s.data)-s.payload

	l4 := b[s.l4:]
	proto, field := protoUDP, udpChecksumOffset
	if s.tcp {
		proto, field = protoTCP, tcpChecksumOffset
		t := tcpHeader(l4)
		t.setSeq(t.seq() + uint32(s.done))
		if !last {
			t.setFlags(t.flags() &^ (flagFIN | flagPSH))
		}
		if s.count > 0 {
			t.setFlags(t.flags() &^ flagCWR) // the window was reduced once (RFC 3168 section 6.1.2)
		}
	} else {
		binary.BigEndian.PutUint16(l4[4:6], uint16(len(l4)))
	}
	ip := ipHeader(b)
	src, dst := ip.src(), ip.dst()
	binary.BigEndian.PutUint16(l4[field:], 0)
	check := transportChecksum(&src, &dst, proto, l4)
	binary.BigEndian.PutUint16(l4[field:], check)

	if ip.is6() {
		ipv6Header(b).setPayloadLen(len(b) - ipv6HeaderLen)
	} else {
		h := ipv4Header(b)
		h.setTotalLen(len(b))
		h.setID(h.id() + uint16(s.count))
		h.computeChecksum()
	}
	s.done += n
	s.count++
}
