// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The notation of SCTP in scripts. Chunks are joined by a plus; a stroke and a T
// sets the T bit:
//
//	sctp 192.0.2.7:40000 > 10.0.0.1:80 COOKIE-ACK+DATA tag=7 data=100
//	sctp 192.0.2.7:40000 > 10.0.0.1:80 ABORT/T tag=7
//	sctp 192.0.2.7:40000 > 10.0.0.1:80 INIT init=7
//
// tag= is the verification tag, init= the initiate tag, data= the bytes of user
// data in each DATA chunk, and sctplen=N is what the checksum of a first fragment
// covers: its datagram with N bytes of SCTP, of which the rest is zeros.

var sctpChunks = []struct {
	name   string
	number uint8
	length int // of the chunk, with what it must have (RFC 9260 section 3.3)
}{
	{"DATA", 0, 16}, {"INIT", 1, 20}, {"INIT-ACK", 2, 20 + 8}, {"SACK", 3, 16}, {"HEARTBEAT", 4, 8}, {"HEARTBEAT-ACK", 5, 8},
	{"ABORT", 6, 4}, {"SHUTDOWN", 7, 8}, {"SHUTDOWN-ACK", 8, 4}, {"ERROR", 9, 8}, {"COOKIE-ECHO", 10, 12}, {"COOKIE-ACK", 11, 4},
	{"ECNE", 12, 8}, {"CWR", 13, 8}, {"SHUTDOWN-COMPLETE", 14, 4}, {"AUTH", 15, 8}, {"I-DATA", 64, 20},
}

// sctpLayers are the common header and the chunks of a packet.
func sctpLayers(head []string, f fields, sp, dp uint16) []gopacket.SerializableLayer {
	h := &layers.SCTP{SrcPort: layers.SCTPPort(sp), DstPort: layers.SCTPPort(dp), VerificationTag: uint32(f.num("tag", 0))}
	var chunks []byte
	if len(head) > 4 {
		for name := range strings.SplitSeq(head[4], "+") {
			chunks = append(chunks, sctpChunkBytes(name, f)...)
		}
	}
	return []gopacket.SerializableLayer{h, gopacket.Payload(chunks)}
}

func sctpChunkBytes(name string, f fields) []byte {
	name, t := strings.CutSuffix(name, "/T")
	i := slices.IndexFunc(sctpChunks, func(c struct {
		name   string
		number uint8
		length int
	}) bool {
		return c.name == name
	})
	if i < 0 {
		panic("no chunk is called " + name)
	}
	length := sctpChunks[i].length
	if name == "DATA" {
		length += f.num("data", 0)
	}
	b := make([]byte, (length+3)&^3)
	for i := range b[min(16, len(b)):] {
		b[16+i] = byte(i*7 + 1)
	}
	clear(b[length:])
	b[0] = sctpChunks[i].number
	if t {
		b[1] = 1
	}
	if name == "DATA" {
		b[1] = 3 // begins and ends a message
	}
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	if name == "INIT" || name == "INIT-ACK" {
		binary.BigEndian.PutUint32(b[4:], uint32(f.num("init", 0x1217)))
	}
	return b
}

// setSCTPSum puts the checksum in place that a script asks for.
func setSCTPSum(b []byte, l4 int, f fields) (off Offload) {
	sum := b[l4+8 : l4+12]
	clear(sum)
	whole := b[l4:]
	if n := f.num("sctplen", 0); n > 0 {
		whole = append(slices.Clone(whole), make([]byte, n-len(whole))...)
	}
	switch f["sum"] {
	case "zero":
	case "partial":
		off = Offload{NeedsChecksum: true, ChecksumStart: uint16(l4), ChecksumOffset: 8}
	default:
		binary.LittleEndian.PutUint32(sum, slowCRC32c(whole))
		if f["sum"] == "bad" {
			sum[1] ^= 0x55
		}
	}
	return off
}

// slowCRC32c is the checksum of RFC 9260 appendix A, bit by bit: a division by the
// polynomial 0x1EDC6F41, with what that appendix says about the order of bits.
func slowCRC32c(b []byte) uint32 {
	rest := ^uint32(0)
	for _, v := range b {
		for i := range 8 {
			in := uint32(v) >> i & 1 // the lowest bit of a byte comes first
			top := rest >> 31
			if rest <<= 1; in != top {
				rest ^= 0x1EDC6F41
			}
		}
	}
	var mirrored uint32
	for i := range 32 {
		mirrored |= rest >> i & 1 << (31 - i)
	}
	return ^mirrored
}

// sctpSumOK reports whether a whole SCTP packet has the right checksum.
func sctpSumOK(l4 []byte) bool {
	if len(l4) < 12 {
		return false
	}
	zeroed := slices.Clone(l4)
	clear(zeroed[8:12])
	return binary.LittleEndian.Uint32(l4[8:]) == slowCRC32c(zeroed)
}

// sctpWords are the chunks and the tags of a packet.
func sctpWords(l4 []byte) string {
	var h layers.SCTP
	if h.DecodeFromBytes(l4, gopacket.NilDecodeFeedback) != nil {
		return ""
	}
	out, rest := "", ""
	for b := h.Payload; len(b) >= 4; {
		name := fmt.Sprint("chunk", b[0])
		for _, c := range sctpChunks {
			if c.number == b[0] {
				name = c.name
			}
		}
		length := int(be16(b, 2))
		switch {
		case b[0] == 0:
			rest += fmt.Sprintf(" data=%d", length-16)
		case b[1]&1 != 0:
			name += "/T"
		}
		if (b[0] == 1 || b[0] == 2) && len(b) >= 8 {
			rest += fmt.Sprintf(" init=%d", binary.BigEndian.Uint32(b[4:]))
		}
		out += "+" + name
		b = b[min(len(b), max(4, (length+3)&^3)):]
	}
	return fmt.Sprintf(" %s tag=%d%s", strings.TrimPrefix(out, "+"), h.VerificationTag, rest)
}

// judgeSCTP says what a packet's checksum is worth.
func judgeSCTP(l4 []byte, off Offload) string {
	switch {
	case len(l4) < 12:
		return ""
	case off.NeedsChecksum:
		return " sum=partial"
	case sctpSumOK(l4):
		return " sum=ok"
	}
	return " sum=bad"
}
