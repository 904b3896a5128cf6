// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// Lengths of SCTP in bytes, and the offset of its checksum field.
const (
	sctpHeaderLen      = 12
	sctpChunkHeaderLen = 4
	sctpChecksumOffset = 8
	// sctpMinLen is the least that a packet has: a chunk.
	sctpMinLen = sctpHeaderLen + sctpChunkHeaderLen
)

// Chunk types that the walk tells apart itself (RFC 9260 section 3.2).
const (
	sctpInit             uint8 = 1
	sctpInitAck          uint8 = 2
	sctpAbort            uint8 = 6
	sctpShutdownAck      uint8 = 8
	sctpError            uint8 = 9
	sctpCookieEcho       uint8 = 10
	sctpCookieAck        uint8 = 11
	sctpShutdownComplete uint8 = 14
)

// sctpTBit is a flag of ABORT and SHUTDOWN COMPLETE: the verification tag is the
// one that the receiver sends with (RFC 9260 section 8.5.1).
const sctpTBit uint8 = 1

// sctpHeader is an SCTP packet (RFC 9260 section 3): the common header and the
// chunks.
type sctpHeader []byte

func (h sctpHeader) srcPort() uint16  { return binary.BigEndian.Uint16(h[0:2]) }
func (h sctpHeader) dstPort() uint16  { return binary.BigEndian.Uint16(h[2:4]) }
func (h sctpHeader) tag() uint32      { return binary.BigEndian.Uint32(h[4:8]) }
func (h sctpHeader) checksum() uint32 { return binary.LittleEndian.Uint32(h[8:12]) } // as hash/crc32 has it

func (h sctpHeader) setSrcPort(v uint16)  { binary.BigEndian.PutUint16(h[0:2], v) }
func (h sctpHeader) setDstPort(v uint16)  { binary.BigEndian.PutUint16(h[2:4], v) }
func (h sctpHeader) setTag(v uint32)      { binary.BigEndian.PutUint32(h[4:8], v) }
func (h sctpHeader) setChecksum(v uint32) { binary.LittleEndian.PutUint32(h[8:12], v) }

// chunk returns a view of the chunk at an offset, nil if its header is not there.
func (h sctpHeader) chunk(at int) sctpChunk {
	if at+sctpChunkHeaderLen > len(h) {
		return nil
	}
	return sctpChunk(h[at:])
}

// sctpChunk is a chunk and what follows it.
type sctpChunk []byte

func (c sctpChunk) chunkType() uint8 { return c[0] }
func (c sctpChunk) flags() uint8     { return c[1] }
func (c sctpChunk) length() int      { return int(binary.BigEndian.Uint16(c[2:4])) } // bytes, header included, padding not

// initiateTag is that of INIT and INIT ACK, zero if it was cut off.
func (c sctpChunk) initiateTag() uint32 {
	if len(c) < sctpChunkHeaderLen+4 {
		return 0
	}
	return binary.BigEndian.Uint32(c[4:8])
}

// parseSCTP reads the common header and the first chunk. A checksum that was left
// to the hardware is computed here: an offload header can only speak of the
// Internet checksum, so that what is sent on with it would get that.
func (p *parsed) parseSCTP(pkt *Packet) Reason {
	h := sctpHeader(pkt.Data[p.l4:])
	if len(h) < sctpMinLen || pkt.Offload.GSOType != GSONone {
		return ReasonSCTPHeader
	}
	if p.partial {
		if pkt.Offload.ChecksumOffset != sctpChecksumOffset {
			return ReasonSCTPHeader
		}
		h.setChecksum(checksumSCTP(h))
		p.partial = false
		pkt.Offload.NeedsChecksum, pkt.Offload.ChecksumStart, pkt.Offload.ChecksumOffset = false, 0, 0
	}
	c := h.chunk(sctpHeaderLen)
	p.kind = kindSCTP
	p.chunk, p.tag = c.chunkType(), h.tag()
	switch p.chunk {
	case sctpInit, sctpInitAck:
		p.initiate = c.initiateTag()
	case sctpAbort, sctpShutdownComplete:
		p.reflected = c.flags()&sctpTBit != 0
	case sctpCookieEcho, sctpCookieAck:
		// An ABORT behind them is what counts (ip_vs_proto_sctp.c,
		// set_sctp_state).
		if n := c.length(); n >= sctpChunkHeaderLen {
			if next := h.chunk(sctpHeaderLen + (n+3)&^3); next != nil && next.chunkType() == sctpAbort {
				p.chunk, p.reflected = sctpAbort, next.flags()&sctpTBit != 0
			}
		}
	}
	// The receiver of these throws them away (RFC 9260 sections 3.3.2 and 8.5).
	if init := p.chunk == sctpInit; (p.tag == 0) != init || init && p.initiate == 0 {
		return ReasonSCTPTag
	}
	return p.setPorts(h.srcPort(), h.dstPort())
}

// sctpLen is the length of the SCTP packet that the packet begins or is, in
// bytes: that of the whole datagram, if it is in fragments.
func (p *parsed) sctpLen() int { return p.totalLen - p.l4 + p.behind }

// advanceSCTP moves an association by one packet. A chunk with a tag that its
// receiver does not take is not believed.
func (f *Forwarder) advanceSCTP(h *parsed, c *conntrack.Conn, dir conntrack.Direction) {
	event := conntrack.ChunkOf(h.chunk)
	c.FollowChunk(dir, event, h.tag, h.initiate)
	switch event {
	case conntrack.ChunkInit, conntrack.ChunkInitAck: // bring their own
	default:
		if !c.HasTag(dir, h.tag, h.reflected) {
			event = conntrack.ChunkData
		}
	}
	side := sideOf(c, dir)
	if side == conntrack.Outbound && c.Flags&conntrack.Replied == 0 {
		c.Flags |= conntrack.Replied
		f.serverHeard(h, c)
	}
	f.setState(c, c.State.NextChunk(side, event))
}

// abort drops an SCTP packet for the reason r and answers it as a host does that
// has no association for it.
func (f *Forwarder) abort(p *Packet, h *parsed, r Reason) Verdict {
	if h.answerChunk() == 0 {
		return drop(r)
	}
	if b := f.answer(h, abortLen); b != nil {
		f.reply(p, buildAnswer(b, h), Offload{}, &h.tuple.Src.Addr)
	}
	return drop(r)
}

// answerChunk is the type of the chunk that answers a packet out of the blue, or
// zero (RFC 9260 section 8.4).
func (p *parsed) answerChunk() uint8 {
	switch p.chunk {
	case sctpAbort, sctpShutdownComplete, sctpError, sctpCookieAck:
		return 0
	case sctpShutdownAck:
		return sctpShutdownComplete
	}
	return sctpAbort
}

// abortLen is the room that an answer of either family takes, IP header included.
const abortLen = ipv6HeaderLen + sctpMinLen

// buildAnswer writes that answer to the packet p: with the tag that the sender of
// an INIT asks for, else with its own, given back. b holds at least abortLen bytes.
func buildAnswer(b []byte, p *parsed) int {
	if p.chunk == sctpInit {
		return buildChunk(b, &p.tuple.Dst, &p.tuple.Src, sctpAbort, 0, p.initiate)
	}
	return buildChunk(b, &p.tuple.Dst, &p.tuple.Src, p.answerChunk(), sctpTBit, p.tag)
}

// buildChunk writes a packet from src to dst of one chunk that is nothing but its
// header. b holds at least abortLen bytes.
func buildChunk(b []byte, src, dst *conntrack.Endpoint, chunkType, flags uint8, tag uint32) int {
	l4 := ipv6HeaderLen
	if src.Addr.Is4() {
		l4 = ipv4HeaderLen
	}
	b = b[:l4+sctpMinLen]
	clear(b)
	h := sctpHeader(b[l4:])
	h.setSrcPort(src.Port)
	h.setDstPort(dst.Port)
	h.setTag(tag)
	c := h.chunk(sctpHeaderLen)
	c[0], c[1], c[3] = chunkType, flags, sctpChunkHeaderLen
	h.setChecksum(checksumSCTP(h))
	if src.Addr.Is4() {
		writeIPv4(b, protoSCTP, &src.Addr, &dst.Addr, 0, ipv4DontFragment, 0)
	} else {
		writeIPv6(b, protoSCTP, &src.Addr, &dst.Addr)
	}
	return len(b)
}
