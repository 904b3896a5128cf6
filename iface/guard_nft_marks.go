// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
)

// nftLinkName is the length of a link's name in a register (IFNAMSIZ).
const nftLinkName = 16

// writeMarks drops what mark rules take, one rule each.
func (f nftFamily) writeMarks(b *nftBatch, drop dropRule, rules GuardRules) {
	servers := f.addrs(rules.servers())
	for _, m := range rules.Marked {
		if !f.is(m.To.Addr()) {
			continue
		}
		var match []expr.Any
		if m.Link != "" {
			name := make([]byte, nftLinkName)
			copy(name, m.Link)
			match = append(match, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: nftRegister},
				&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: name})
		}
		match = append(match, f.inPrefix(f.target, m.To)...)
		match = append(match, f.inPrefix(f.source, m.From)...)
		if !m.To.IsSingleIP() && len(servers) > 0 {
			others := b.newSet(f.keyType, nftRegister, servers)
			others.Invert = true
			match = append(match, f.load(f.source, nftRegister), others)
		}
		match = append(match, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: nftRegister})
		if m.Proto != 0 {
			match = append(match, &expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{m.Proto}})
		} else {
			var keys [][]byte
			for _, proto := range m.protocols() {
				keys = append(keys, []byte{proto})
			}
			match = append(match, b.newSet(nftTypeProto, nftRegister, keys))
		}
		if m.Max != 0 {
			match = append(match, portsBetween(targetPort, m.Min, m.Max)...)
		}
		drop(countMarks, "marked "+m.String(), match...)
	}
}

// writeServerPorts drops what servers send from ranges of ports: one rule for all
// servers that have the same.
func (f nftFamily) writeServerPorts(b *nftBatch, drop dropRule, ranges []GuardRange) {
	ranges = slices.DeleteFunc(slices.Clone(ranges), func(p GuardRange) bool { return !f.is(p.Addr) })
	for len(ranges) > 0 {
		p := ranges[0]
		var addrs [][]byte
		for len(ranges) > 0 && ranges[0].Proto == p.Proto && ranges[0].Min == p.Min && ranges[0].Max == p.Max {
			addrs = append(addrs, ranges[0].Addr.AsSlice())
			ranges = ranges[1:]
		}
		match := []expr.Any{
			f.load(f.source, nftRegister), b.newSet(f.keyType, nftRegister, addrs),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: nftRegister},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{p.Proto}},
		}
		match = append(match, portsBetween(sourcePort, p.Min, p.Max)...)
		drop(countServers, fmt.Sprintf("replies of real servers, %s %d-%d", protoName(p.Proto), p.Min, p.Max), match...)
	}
}

// portsBetween matches a port of the transport header, at an offset.
func portsBetween(offset uint32, low, high uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: nftRegister, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGte, Register: nftRegister, Data: binary.BigEndian.AppendUint16(nil, low)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: nftRegister, Data: binary.BigEndian.AppendUint16(nil, high)},
	}
}
