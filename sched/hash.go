// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"math/bits"
	"net/netip"
)

// The hashes of sh, dh, mh, lblc and lblcr. None of them has a seed: two directors
// with the same servers, and a Linux box beside them, map a client alike.

// goldenRatio32 is 2³²·(1−φ) rounded to odd, φ the golden ratio (Linux hash.h,
// GOLDEN_RATIO_32).
const goldenRatio32 = 0x61C88647

// hash32 spreads v over 2^n places, n from 1 to 32 (Linux hash.h, hash_32).
func hash32(v uint32, n int) uint32 { return v * goldenRatio32 >> (32 - n) }

// fold is the address as one 32-bit number: an IPv4 address itself, of an IPv6
// address its four words, exclusive or.
func fold(a netip.Addr) uint32 {
	if a.Is4() || a.Is4In6() {
		b := a.As4()
		return word(b[:])
	}
	b := a.As16()
	return word(b[0:4]) ^ word(b[4:8]) ^ word(b[8:12]) ^ word(b[12:16])
}

func word(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// clientKey is what sh and mh hash: the client's address, plus its port with
// [UsePort] if the protocol has ports.
func clientKey(r *Request, flags Flags) uint32 {
	key := fold(r.Client.Addr())
	if flags&UsePort != 0 && hasPorts(r.Proto) {
		key += uint32(r.Client.Port())
	}
	return key
}

func hasPorts(proto uint8) bool {
	const tcp, udp, sctp = 6, 17, 132
	return proto == tcp || proto == udp || proto == sctp
}

// hsipHash is SipHash-1-3 of the four bytes of v, least significant first, under
// the key (key, key); of the result the lower half (Linux lib/siphash.c,
// hsiphash as 64-bit kernels have it).
func hsipHash(v uint32, key uint64) uint32 {
	const length = 4
	h := sipState{
		key ^ 0x736f6d6570736575,
		key ^ 0x646f72616e646f6d,
		key ^ 0x6c7967656e657261,
		key ^ 0x7465646279746573,
	}
	block := length<<56 | uint64(v)
	h[3] ^= block
	h.round()
	h[0] ^= block
	h[2] ^= 0xff
	for range 3 {
		h.round()
	}
	return uint32(h[0] ^ h[1] ^ h[2] ^ h[3])
}

// sipState is the state of SipHash (Aumasson and Bernstein, "SipHash: a fast
// short-input PRF", 2012).
type sipState [4]uint64

func (h *sipState) round() {
	h[0] += h[1]
	h[1] = bits.RotateLeft64(h[1], 13) ^ h[0]
	h[0] = bits.RotateLeft64(h[0], 32)
	h[2] += h[3]
	h[3] = bits.RotateLeft64(h[3], 16) ^ h[2]
	h[0] += h[3]
	h[3] = bits.RotateLeft64(h[3], 21) ^ h[0]
	h[2] += h[1]
	h[1] = bits.RotateLeft64(h[1], 17) ^ h[2]
	h[2] = bits.RotateLeft64(h[2], 32)
}
