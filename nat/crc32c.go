// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"hash/crc32"
)

// The checksum of SCTP is the CRC32c of the whole packet, from its common header
// on, with zeros in place of the checksum (RFC 9260 section 6.8 and appendix A).
// It covers ports, and no addresses.
//
// A CRC is linear: what a change of some bytes does to it depends on the change
// and on how many bytes follow, not on what the packet holds. So a new port needs
// no look at the payload, and a checksum that was wrong stays wrong by the same
// error. In the arithmetic of a CRC the bytes of a packet are the coefficients of a
// polynomial, and its checksum the remainder; a change of the first four bytes of
// n is those bytes times x^8n.
//
// Polynomials of degree 31 are written as hash/crc32 has them, reflected: the
// coefficient of x^0 is the highest bit.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var noChecksum [4]byte // a variable of checksumSCTP would be allocated with each call

// checksumSCTP computes the checksum field of a packet, as binary.LittleEndian
// writes it.
func checksumSCTP(packet []byte) uint32 {
	c := crc32.Update(0, castagnoli, packet[:sctpChecksumOffset])
	c = crc32.Update(c, castagnoli, noChecksum[:])
	return crc32.Update(c, castagnoli, packet[sctpHeaderLen:])
}

// updateSCTP returns the checksum field after the first four bytes of a packet of
// length bytes changed by change: old exclusive-or new, read as LittleEndian.
func updateSCTP(check, change uint32, length int) uint32 {
	return check ^ multiply(change, multiply(xToHigh[uint8(length>>8)], xToLow[uint8(length)]))
}

// xToLow[n] is x^8n, xToHigh[n] is x^8·256n, each modulo the polynomial.
var xToLow, xToHigh = powers(1), powers(256)

// powers lists x^8kn for n below 256.
func powers(k int) (list [256]uint32) {
	step := uint32(1 << 31) // 1
	for range k {
		step = multiply(step, 1<<(31-8))
	}
	list[0] = 1 << 31
	for n := range list[1:] {
		list[n+1] = multiply(list[n], step)
	}
	return list
}

// multiply is the product of two polynomials modulo that of the CRC.
func multiply(a, b uint32) uint32 {
	var product uint32
	for range 32 {
		product ^= b & -(a >> 31)
		a <<= 1
		b = b>>1 ^ crc32.Castagnoli&-(b&1) // times x
	}
	return product
}

// replacePorts writes the ports of a packet that is length bytes long from this
// header on, and keeps its checksum. Length 0: the checksum is not there, or
// nobody knows what it covers.
func (h sctpHeader) replacePorts(src, dst uint16, length int) {
	old := binary.LittleEndian.Uint32(h[0:4])
	binary.BigEndian.PutUint16(h[0:2], src)
	binary.BigEndian.PutUint16(h[2:4], dst)
	if change := old ^ binary.LittleEndian.Uint32(h[0:4]); change != 0 && length != 0 {
		h.setChecksum(updateSCTP(h.checksum(), change, length))
	}
}
