// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules stand in one chain per address family, in this order:
//
//	destination owned                                  drop
//	neighbour discovery                                accept (IPv6)
//	destination and port a service                     drop
//	destination a SNAT address, port ours              drop
//	not sent to our MAC alone (broadcast, multicast)   accept
//	destination multicast, broadcast, link-local       accept
//	marked                                             drop
//	destination an address of the host                 accept
//	source and port a real server                      drop
//	ICMP error from a real server                      drop
//	source in an inside network                        drop
//
// Below the eighth line are only packets in transit. Neighbour discovery never is;
// what asks an owned address alone would leave again where the host forwards.

// Registers: 16 bytes each, or, numbered from 8 on, 4 bytes each. A key of an
// address, a protocol and a port is laid out in 4-byte registers side by side.
const (
	nftRegister   = 1
	nftRegister32 = 8
)

// Types of set keys as the nft program numbers them (libnftnl datatypes);
// several side by side take 6 bits each.
const (
	nftTypeIPv4   = 7
	nftTypeIPv6   = 8
	nftTypeProto  = 12
	nftTypePort   = 13
	nftTypeBits   = 6
	nftTypeICMP   = 14
	nftTypeICMPv6 = 29
)

// Offsets of the ports in the transport header.
const (
	sourcePort = 0
	targetPort = 2
)

// nftFamily is where the fields of one address family are.
type nftFamily struct {
	chain     string
	etherType uint16
	is        func(netip.Addr) bool
	keyType   uint32
	length    uint32 // of an address
	source    uint32 // offset in the header
	target    uint32
	icmp      uint8
	icmpType  uint32
	errors    [][]byte       // ICMP types that are about another packet
	local     []netip.Prefix // destinations that nobody forwards
	discovery bool           // has neighbour discovery
}

func nftFamilies() []nftFamily {
	return []nftFamily{{
		chain: "ipv4", etherType: unix.ETH_P_IP, is: netip.Addr.Is4, keyType: nftTypeIPv4,
		length: 4, source: 12, target: 16,
		icmp: unix.IPPROTO_ICMP, icmpType: nftTypeICMP, errors: [][]byte{{3}, {4}, {11}},
		local: []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("169.254.0.0/16")},
	}, {
		chain: "ipv6", etherType: unix.ETH_P_IPV6, is: netip.Addr.Is6, keyType: nftTypeIPv6,
		length: 16, source: 8, target: 24,
		icmp: unix.IPPROTO_ICMPV6, icmpType: nftTypeICMPv6, errors: [][]byte{{1}, {2}, {3}, {4}},
		local:     []netip.Prefix{netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10")},
		discovery: true,
	}}
}

// dropRule adds a rule that counts and drops what matches.
type dropRule func(counter, comment string, match ...expr.Any)

// writeRules adds the rules of one family, given in normal form, to the batch.
func (f nftFamily) writeRules(b *nftBatch, rules GuardRules) {
	drop := func(counter, comment string, match ...expr.Any) {
		count := &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter}
		b.newRule(f.chain, comment, append(match, count, &expr.Verdict{Kind: expr.VerdictDrop})...)
	}
	accept := func(comment string, match ...expr.Any) {
		b.newRule(f.chain, comment, append(match, &expr.Verdict{Kind: expr.VerdictAccept})...)
	}

	if owned := f.addrs(rules.Owned); len(owned) > 0 {
		drop(countOwned, "owned addresses", f.load(f.target, nftRegister), b.newSet(f.keyType, nftRegister, owned))
	}
	if f.discovery {
		accept("neighbour discovery", &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: nftRegister},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{f.icmp}},
			&expr.Payload{DestRegister: nftRegister, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Cmp{Op: expr.CmpOpGte, Register: nftRegister, Data: []byte{ndFirst}},
			&expr.Cmp{Op: expr.CmpOpLte, Register: nftRegister, Data: []byte{ndLast}})
	}
	f.writeEndpoints(b, drop, countServices, "services", f.target, targetPort, rules.Services)
	for _, p := range rules.SNAT {
		if f.is(p.Addr) {
			f.writePorts(b, drop, p)
		}
	}

	accept("not to our MAC alone", &expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: nftRegister},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: nftRegister, Data: []byte{unix.PACKET_HOST}})
	for _, p := range f.local {
		accept("stays on the link", f.inPrefix(f.target, p)...)
	}
	f.writeMarks(b, drop, rules)
	if host := f.addrs(rules.Host); len(host) > 0 {
		accept("addresses of the host", f.load(f.target, nftRegister), b.newSet(f.keyType, nftRegister, host))
	}

	f.writeEndpoints(b, drop, countServers, "replies of real servers", f.source, sourcePort, rules.Servers)
	f.writeServerPorts(b, drop, rules.ServerPorts)
	if servers := f.addrs(rules.servers()); len(servers) > 0 {
		from := b.newSet(f.keyType, nftRegister, servers)
		kinds := b.newSet(f.icmpType, nftRegister, f.errors)
		drop(countErrors, "ICMP errors of real servers", f.load(f.source, nftRegister), from,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: nftRegister},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{f.icmp}},
			&expr.Payload{DestRegister: nftRegister, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, kinds)
	}
	for _, p := range rules.Inside {
		if f.is(p.Addr()) {
			drop(countInside, "from inside "+p.String(), f.inPrefix(f.source, p)...)
		}
	}
}

// writeEndpoints drops what has one of the endpoints at the given offsets of
// address and port: one set for single ports and one for whole addresses.
func (f nftFamily) writeEndpoints(b *nftBatch, drop dropRule, counter, comment string, addr, port uint32, list []GuardService) {
	var single, whole [][]byte
	for _, s := range list {
		switch {
		case !f.is(s.Addr):
		case s.Port == 0:
			whole = append(whole, append(s.Addr.AsSlice(), s.Proto, 0, 0, 0))
		default:
			key := append(s.Addr.AsSlice(), s.Proto, 0, 0, 0)
			single = append(single, append(binary.BigEndian.AppendUint16(key, s.Port), 0, 0))
		}
	}
	proto := nftRegister32 + f.length/4
	load := []expr.Any{f.load(addr, nftRegister32), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto}}
	if len(whole) > 0 {
		drop(counter, comment+", every port", append(load[:2:2],
			b.newSet(f.keyType<<nftTypeBits|nftTypeProto, nftRegister32, whole))...)
	}
	if len(single) > 0 {
		drop(counter, comment, append(load[:2:2],
			&expr.Payload{DestRegister: proto + 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
			b.newSet((f.keyType<<nftTypeBits|nftTypeProto)<<nftTypeBits|nftTypePort, nftRegister32, single))...)
	}
}

// writePorts drops TCP, UDP and SCTP to a range of ports.
func (f nftFamily) writePorts(b *nftBatch, drop dropRule, p GuardPorts) {
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		match := []expr.Any{
			f.load(f.target, nftRegister),
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: p.Addr.AsSlice()},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: nftRegister},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{proto}},
		}
		match = append(match, portsBetween(targetPort, p.Min, p.Max)...)
		if len(p.Except) > 0 {
			var ports [][]byte
			for _, port := range p.Except {
				ports = append(ports, binary.BigEndian.AppendUint16(nil, port))
			}
			except := b.newSet(nftTypePort, nftRegister, ports)
			except.Invert = true
			match = append(match, except)
		}
		drop(countSNAT, fmt.Sprintf("SNAT %s %s:%d-%d", protoName(proto), p.Addr, p.Min, p.Max), match...)
	}
}

// load reads an address of the network header.
func (f nftFamily) load(offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.length}
}

// inPrefix matches an address of the network header; a prefix of no bits matches
// all.
func (f nftFamily) inPrefix(offset uint32, p netip.Prefix) []expr.Any {
	if p.Bits() == 0 {
		return nil
	}
	ones := make([]byte, f.length)
	for i := range p.Bits() {
		ones[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		f.load(offset, nftRegister),
		&expr.Bitwise{SourceRegister: nftRegister, DestRegister: nftRegister, Len: f.length, Mask: ones, Xor: make([]byte, f.length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: p.Addr().AsSlice()},
	}
}

func (f nftFamily) addrs(list []netip.Addr) [][]byte {
	var keys [][]byte
	for _, a := range list {
		if f.is(a) {
			keys = append(keys, a.AsSlice())
		}
	}
	return keys
}
