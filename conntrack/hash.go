// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	rand2 "math/rand/v2"
)

// keys are the secret of the bucket hash.
//
// A sender chooses addresses and ports, so the hash must be one that can't be
// foretold. The first step is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway:
// UMAC, CRYPTO 1999) over 64-bit words: for two endpoints chosen without
// knowing the keys, the chance to collide is 2^-64, proved. It gives 128 bits;
// the second step folds them with one more keyed multiplication, so that the
// sums of the first do not show as regular steps through the buckets, which
// would let one known collision make others. Three multiplications in all: a
// third of the time of a SipHash, and nothing here is ever shown to the sender
// but a few nanoseconds.
type keys [6]uint64

// newKeys stretches the seed; a zero seed is replaced by a random one.
func newKeys(seed [2]uint64) keys {
	var s [32]byte
	if seed == [2]uint64{} {
		rand.Read(s[:]) // never fails: crypto/rand ends the program instead
	} else {
		binary.LittleEndian.PutUint64(s[0:], seed[0])
		binary.LittleEndian.PutUint64(s[8:], seed[1])
	}

	var k keys
	stream := rand2.NewChaCha8(s)
	for i := range k {
		k[i] = stream.Uint64()
	}

	return k
}

// hash mixes an outside endpoint and a protocol into 64 bits.
func (k *keys) hash(e *Endpoint, proto uint8) uint64 {
	a := binary.LittleEndian.Uint64(e.Addr[:8])
	b := binary.LittleEndian.Uint64(e.Addr[8:])
	c := uint64(e.Port)<<8 | uint64(proto)

	hi, lo := bits.Mul64(a+k[0], b+k[1])
	hi2, lo2 := bits.Mul64(c+k[2], k[3])
	lo, carry := bits.Add64(lo, lo2, 0)
	hi, _ = bits.Add64(hi, hi2, carry)

	hi, lo = bits.Mul64(hi^k[4], lo^k[5])

	return hi ^ lo
}
