// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
)

// OffloadSize is the length in bytes of the offload header in front of a frame
// (struct virtio_net_hdr of linux/virtio_net.h, without num_buffers).
const OffloadSize = 10

// Flags of an offload header (VIRTIO_NET_HDR_F_*).
const (
	// FlagNeedsChecksum: the transport checksum field holds only the sum of the
	// pseudo-header; whoever sends the frame to a wire completes it.
	FlagNeedsChecksum = 1
	// FlagDataValid: the checksum was verified by the device already.
	FlagDataValid = 2
)

// Segmentation types of an offload header (VIRTIO_NET_HDR_GSO_*).
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // one datagram to be fragmented (UFO)
	GSOTCPv6 = 4
	GSOUDPL4 = 5    // a train of equal datagrams
	GSOECN   = 0x80 // bit: the first segment alone carries CWR
)

// Offload says what is still to be done to a frame before it may go out on a
// wire. Numbers are in host byte order, as packet sockets have them; offsets
// count from the start of the frame.
type Offload struct {
	Flags          uint8
	GSOType        uint8
	HeaderLen      uint16 // bytes of headers of a super-packet; a hint, not above the length of the frame
	GSOSize        uint16 // payload bytes of each segment
	ChecksumStart  uint16 // where the transport header begins
	ChecksumOffset uint16 // where in it the checksum is
}

// NeedsChecksum reports whether the transport checksum is only partial.
func (o Offload) NeedsChecksum() bool { return o.Flags&FlagNeedsChecksum != 0 }

// Segmented reports whether the frame is a super-packet that stands for several.
func (o Offload) Segmented() bool { return o.GSOType != GSONone }

// Encode writes the header into the first OffloadSize bytes of p.
func (o Offload) Encode(p []byte) {
	_ = p[OffloadSize-1]
	p[0], p[1] = o.Flags, o.GSOType
	binary.NativeEndian.PutUint16(p[2:], o.HeaderLen)
	binary.NativeEndian.PutUint16(p[4:], o.GSOSize)
	binary.NativeEndian.PutUint16(p[6:], o.ChecksumStart)
	binary.NativeEndian.PutUint16(p[8:], o.ChecksumOffset)
}

// DecodeOffload reads the header from the first OffloadSize bytes of p.
func DecodeOffload(p []byte) Offload {
	_ = p[OffloadSize-1]
	return Offload{
		Flags:          p[0],
		GSOType:        p[1],
		HeaderLen:      binary.NativeEndian.Uint16(p[2:]),
		GSOSize:        binary.NativeEndian.Uint16(p[4:]),
		ChecksumStart:  binary.NativeEndian.Uint16(p[6:]),
		ChecksumOffset: binary.NativeEndian.Uint16(p[8:]),
	}
}

// sumBytes adds the 16-bit big-endian words of p to sum (RFC 1071); an odd last
// byte counts as the high half of a word. Sums of up to 2^48 bytes fit.
func sumBytes(sum uint64, p []byte) uint64 {
	for len(p) >= 8 {
		w := binary.BigEndian.Uint64(p)
		sum += w>>32 + w&0xffffffff
		p = p[8:]
	}
	for len(p) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(p))
		p = p[2:]
	}
	if len(p) == 1 {
		sum += uint64(p[0]) << 8
	}
	return sum
}

// fold brings a sum of words to 16 bits with end-around carry.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
