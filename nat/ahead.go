// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// aheadFrom is how many entries make a table that is not in the cache anyway.
const aheadFrom = 1 << 12

// Ahead tells of a packet, from its IP header on, that Forward will be called with in
// this batch, so that its entry is near by then: for a batch of many packets, all of
// them before the first Forward. It is no more than a hint. Of a packet that has no
// plain header nothing is made of it, nor while the table is small.
func (f *Forwarder) Ahead(b []byte) {
	if f.table.Extent() >= aheadFrom {
		f.ahead(b)
	}
}

func (f *Forwarder) ahead(b []byte) {
	if len(b) < ipv4HeaderLen+udpHeaderLen {
		return
	}
	var src, dst conntrack.Endpoint
	var proto uint8
	l4 := ipv4HeaderLen
	if b[0] == 4<<4|ipv4HeaderLen/4 {
		h := (*[ipv4HeaderLen]byte)(b)
		proto = h[9]
		binary.LittleEndian.PutUint64(src.Addr[8:], mappedPrefix|uint64(binary.LittleEndian.Uint32(h[12:]))<<32)
		binary.LittleEndian.PutUint64(dst.Addr[8:], mappedPrefix|uint64(binary.LittleEndian.Uint32(h[16:]))<<32)
	} else {
		l4 = ipv6HeaderLen
		if len(b) < ipv6HeaderLen+udpHeaderLen || b[0]>>4 != 6 {
			return
		}
		h := (*[ipv6HeaderLen]byte)(b)
		proto = h[6]
		src.Addr, dst.Addr = conntrack.Addr(h[8:]), conntrack.Addr(h[24:])
	}
	if proto != protoTCP && proto != protoUDP {
		return
	}
	outside := &dst
	outside.Port = binary.BigEndian.Uint16(b[l4+2:])
	if f.snap.own.find(&dst.Addr) >= 0 {
		outside = &src
		outside.Port = binary.BigEndian.Uint16(b[l4:])
	}
	f.table.Ahead(outside, proto)
	f.expects = true
}
