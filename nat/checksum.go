// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"

	"github.com/vsnat/vsnat/conntrack"
)

// The Internet checksum (RFC 1071) is the inverted one's complement sum of the
// 16-bit words. Two properties carry this file:
//
//   - the sum does not depend on the byte order in which words are read, as
//     long as the result is read in the same order, so that wide loads in
//     machine order are allowed;
//   - it is a group, so that a changed word needs only the difference of that
//     word (RFC 1624), whatever the rest of the packet is, and a sum that was
//     wrong stays wrong by the same error.
//
// The group has two zeros, 0x0000 and 0xffff. A sum over anything that is not
// all zero bits never comes to 0x0000, and neither does an update made as
// below, so that an incremental update gives the same field as a fresh
// computation.

// sum adds the 16-bit big endian words of b to initial. An odd last byte
// counts as the high byte of a word, so that only the last piece of a longer
// run may have an odd length. initial must leave room for 16 bits; the result
// is not folded.
func sum(b []byte, initial uint32) uint32 {
	var acc, carry uint64
	for len(b) >= 64 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	if len(b) >= 4 {
		acc, carry = bits.Add64(acc, uint64(binary.LittleEndian.Uint32(b)), carry)
		b = b[4:]
	}
	if len(b) >= 2 {
		acc, carry = bits.Add64(acc, uint64(binary.LittleEndian.Uint16(b)), carry)
		b = b[2:]
	}
	if len(b) == 1 {
		acc, carry = bits.Add64(acc, uint64(b[0]), carry)
	}
	acc, carry = bits.Add64(acc, 0, carry)
	acc += carry

	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	return uint32(bits.ReverseBytes16(fold(uint32(acc)))) + initial
}

// fold brings a sum to 16 bits. Only a sum of zero folds to zero.
func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	s += s >> 16
	return uint16(s)
}

// update16 returns the checksum field after one of the words it covers changed
// from old to new (RFC 1624, equation 3).
func update16(check, old, new uint16) uint16 {
	return ^fold(uint32(^check) + uint32(^old) + uint32(new))
}

// A delta gathers what a rewrite changes in the words that a transport
// checksum covers, so that the field is updated once however many addresses
// and ports were replaced. The zero value changes nothing.
//
// Addresses and ports are kept apart because a partial checksum covers only
// the addresses.
type delta struct {
	addrs, ports uint32 // sums of ^old + new, not folded
}

// replaceAddress notes that an address of the pseudo-header was replaced. The
// fixed part of an IPv4-mapped address cancels out, so that both families go
// the same way.
func (d *delta) replaceAddress(old, new *conntrack.Addr) {
	d.addrs += uint32(^sumAddress(old)) + uint32(sumAddress(new))
}

// replaceIPv4 is replaceAddress for the 32 bits of an IPv4 address.
func (d *delta) replaceIPv4(old, new uint32) {
	old = ^old
	d.addrs += old>>16 + old&0xffff + new>>16 + new&0xffff
}

// replacePort notes that a port, or an ICMP echo identifier, was replaced.
func (d *delta) replacePort(old, new uint16) {
	d.ports += uint32(^old) + uint32(new)
}

// replaceWords notes that two words behind the pseudo-header, at an even place,
// were replaced: a sequence number.
func (d *delta) replaceWords(old, new uint32) {
	d.replacePort(uint16(old>>16), uint16(new>>16))
	d.replacePort(uint16(old), uint16(new))
}

// replaceLength notes that the length in the pseudo-header was replaced.
func (d *delta) replaceLength(old, new int) {
	d.addrs += uint32(^fold(uint32(old))) + uint32(fold(uint32(new)))
}

// applyFull returns the new value of a complete checksum field (TCP).
func (d delta) applyFull(check uint16) uint16 {
	return ^fold(uint32(^check) + uint32(fold(d.addrs)) + uint32(fold(d.ports)))
}

// applyUDP returns the new value of a complete UDP checksum field: zero means
// that the sender computed none and stays; a computed zero is sent as 0xffff
// (RFC 768).
func (d delta) applyUDP(check uint16) uint16 {
	if check == 0 {
		return 0
	}
	return nonZero(d.applyFull(check))
}

// applyPartial returns the new value of a partial checksum field, of TCP and
// UDP alike. It holds the sum of the pseudo-header, not inverted: addresses
// count, ports do not, since the rest of the segment is added later as it then
// is (virtio 1.2, 5.1.6.2).
func (d delta) applyPartial(check uint16) uint16 {
	return fold(uint32(check) + uint32(fold(d.addrs)))
}

// applyPorts returns the new value of a checksum without pseudo-header (ICMP).
func (d delta) applyPorts(check uint16) uint16 {
	return ^fold(uint32(^check) + uint32(fold(d.ports)))
}

// nonZero sends a computed zero as the other zero.
func nonZero(check uint16) uint16 {
	if check == 0 {
		return 0xffff
	}
	return check
}

// sumAddress is the folded sum of an address. The 0xffff of an IPv4-mapped
// address is a zero of the group.
func sumAddress(a *conntrack.Addr) uint16 {
	s, carry := bits.Add64(binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]), 0)
	s = s>>32 + s&0xffffffff + carry
	s = s>>32 + s&0xffffffff
	return fold(uint32(s))
}

// pseudoSum is the sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200
// section 8.1); both families give the same for the same transport. length is
// that of the transport header and its payload, in bytes.
func pseudoSum(src, dst *conntrack.Addr, proto uint8, length int) uint32 {
	return uint32(sumAddress(src)) + uint32(sumAddress(dst)) + uint32(proto) +
		uint32(length)>>16 + uint32(length)&0xffff
}

// transportChecksum computes the checksum field of a TCP segment or UDP
// datagram whose field is zero now.
func transportChecksum(src, dst *conntrack.Addr, proto uint8, segment []byte) uint16 {
	check := ^fold(sum(segment, pseudoSum(src, dst, proto, len(segment))))
	if proto == protoUDP {
		return nonZero(check)
	}
	return check
}

// completeChecksum turns a partial checksum into a full one: the field at
// start+offset holds the sum of the pseudo-header, the rest is added over
// data[start:]. It reports whether the field lies inside data; if not, nothing
// was changed. A result of zero is written as 0xffff, which is right for UDP
// and as good for the others.
func completeChecksum(data []byte, start, offset uint16) bool {
	field := int(start) + int(offset)
	if field+2 > len(data) {
		return false
	}
	check := ^fold(sum(data[start:], 0))
	binary.BigEndian.PutUint16(data[field:], nonZero(check))
	return true
}

// completeOffload completes a partial checksum of pkt in place, for a way out
// that carries no offload. It reports false if the offload makes no sense.
func completeOffload(pkt *Packet) bool {
	o := &pkt.Offload
	if !o.NeedsChecksum {
		return true
	}
	if !completeChecksum(pkt.Data, o.ChecksumStart, o.ChecksumOffset) {
		return false
	}
	o.NeedsChecksum, o.ChecksumStart, o.ChecksumOffset = false, 0, 0
	return true
}
