// SPDX-License-Identifier: Apache-2.0

package shortcut

import (
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The programs. Both begin with the same instructions, written once, here: whether a frame
// goes by a shortcut is asked twice about each, by the filter of the packet socket and by
// the program at the link, and the two must not differ.
//
//	decide     headers of the usual form → the row → the link address, the room on the way
//	           out, and the place in the stream are as they should be; else "no"
//	leave      of the filter: the frame is not copied, as the link's program forwards it
//	forward    of the link: counters, addresses, ports, time to live, checksums; out
//
// What decide does not take is what hit in package nat does not take, and a few more.

// Registers that hold the same all the way; calls destroy R0 to R5.
const (
	rContext = asm.R6
	rWay     = asm.R7 // of the frame, in its row
	rOther   = asm.R8 // the other way of the row; before: the length of all headers behind Ethernet
	rLength  = asm.R9 // of the packet, from the IP header
)

// The stack, from its upper end. The frame's headers are copied so that the IP header is
// aligned to 8 bytes.
const (
	atRow     = -4  // number of the row
	atSize    = -8  // of the largest packet that will leave
	atEnd     = -12 // sequence number behind the segment
	atAck     = -16
	atPayload = -20
	atIP      = -80
	atSource  = atIP - 8  // link address, 6 bytes
	atFrame   = atIP - 14 // Ethernet header
	atKey     = -144
)

const (
	etherLen = 14
	tcpLen   = 20

	sure = "sure" // a shortcut
	no   = "no"   // none

	minReach = 128 << 10 // see conntrack.Window
)

// Offsets in struct __sk_buff of linux/bpf.h.
const (
	skbLen      = 0
	skbKind     = 4
	skbProtocol = 16
	skbTagged   = 20
	skbLink     = 40
	skbGSOSize  = 164 + 12 // behind tstamp, wire_len, gso_segs, sk; see linux/bpf.h
)

// family is what differs between IPv4 and IPv6.
type family struct {
	name           string
	number         int64
	etherType      uint16
	header         int16 // length
	length         int16 // offset of the field
	source, dest   int16 // offsets
	protocol, hops int16
	address        int16 // length
}

var families = []family{
	{name: "4", number: 4, etherType: unix.ETH_P_IP, header: 20, length: 2, source: 12, dest: 16, protocol: 9, hops: 8, address: 4},
	{name: "6", number: 6, etherType: unix.ETH_P_IPV6, header: 40, length: 4, source: 8, dest: 24, protocol: 6, hops: 7, address: 16},
}

func (f family) tcp() int16 { return atIP + f.header }

// programs have what a program needs to know of the maps.
type programs struct{ open, rows, keys, hosts, networks int }

// common is decide for both families; it ends at sure+name, or at no.
func (p programs) common(then func(f family) asm.Instructions) asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Reg(rContext, asm.R1),
		asm.LoadMapValue(asm.R0, p.open, 0),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.Word),
		asm.JEq.Imm(asm.R0, 0, no), // nobody takes one
		asm.LoadMem(asm.R0, rContext, skbKind, asm.Word),
		asm.JNE.Imm(asm.R0, 0, no),
		asm.LoadMem(asm.R0, rContext, skbTagged, asm.Word),
		asm.JNE.Imm(asm.R0, 0, no),
		asm.LoadMem(asm.R0, rContext, skbProtocol, asm.Word),
	}
	for _, f := range families {
		code = append(code, asm.JEq.Imm(asm.R0, int32(swap16(f.etherType)), "is"+f.name))
	}
	code = append(code, asm.Ja.Label(no))
	for _, f := range families {
		part := p.decide(f)
		part[0] = part[0].WithSymbol("is" + f.name)
		code = append(code, part...)
		code = append(code, then(f)...)
	}
	return code
}

func (p programs) decide(f family) (code asm.Instructions) {
	add := func(list ...asm.Instruction) { code = append(code, list...) }
	ip := func(dst asm.Register, offset int16, size asm.Size) asm.Instruction {
		return asm.LoadMem(dst, asm.RFP, atIP+offset, size)
	}
	tcp := func(dst asm.Register, offset int16, size asm.Size) asm.Instruction {
		return asm.LoadMem(dst, asm.RFP, f.tcp()+offset, size)
	}
	add(
		asm.Mov.Reg(asm.R1, rContext),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, atFrame),
		asm.Mov.Imm(asm.R4, int32(etherLen+f.header+tcpLen)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, no),

		ip(asm.R0, f.protocol, asm.Byte), asm.JNE.Imm(asm.R0, unix.IPPROTO_TCP, no),
		ip(asm.R0, f.hops, asm.Byte), asm.JLE.Imm(asm.R0, 1, no),
		tcp(asm.R0, 13, asm.Byte), asm.And.Imm(asm.R0, 0x17), asm.JNE.Imm(asm.R0, 0x10, no), // FIN, SYN, RST; ACK
		ip(asm.R0, 0, asm.Byte),
	)
	if f.header == 20 {
		add(asm.JNE.Imm(asm.R0, 0x45, no),
			ip(asm.R0, 6, asm.Half), asm.JSet.Imm(asm.R0, int32(swap16(0x3fff)), no), // a fragment
			ip(asm.R1, 0, asm.Word))
		for i := range int16(4) {
			add(ip(asm.R0, 4+4*i, asm.Word), asm.Add.Reg(asm.R1, asm.R0))
		}
		add(fold(asm.R1, asm.R0)...)
		add(asm.JNE.Imm(asm.R1, 0xffff, no))
	} else {
		add(asm.And.Imm(asm.R0, 0xf0), asm.JNE.Imm(asm.R0, 6<<4, no))
	}
	add(ip(rLength, f.length, asm.Half), asm.HostTo(asm.BE, rLength, asm.Half))
	if f.header != 20 {
		add(asm.Add.Imm(rLength, int32(f.header)))
	}
	// Headers in the packet, the packet in the frame, and the largest part of it that
	// will leave.
	add(
		tcp(rOther, 12, asm.Byte), asm.RSh.Imm(rOther, 4), asm.LSh.Imm(rOther, 2),
		asm.JLT.Imm(rOther, tcpLen, no),
		asm.Add.Imm(rOther, int32(f.header)),
		asm.JGT.Reg(rOther, rLength, no),
		asm.Mov.Reg(asm.R0, rLength), asm.Sub.Reg(asm.R0, rOther),
		asm.StoreMem(asm.RFP, atPayload, asm.R0, asm.Word),
		asm.LoadMem(asm.R1, rContext, skbLen, asm.Word), asm.Sub.Imm(asm.R1, etherLen),
		asm.JGT.Reg(rLength, asm.R1, no),
		asm.Mov.Reg(asm.R2, rLength),
		asm.LoadMem(asm.R0, rContext, skbGSOSize, asm.Word),
		asm.JEq.Imm(asm.R0, 0, "whole"+f.name),
		asm.JNE.Reg(rLength, asm.R1, no),
		asm.Mov.Reg(asm.R2, rOther), asm.Add.Reg(asm.R2, asm.R0),
		asm.StoreMem(asm.RFP, atSize, asm.R2, asm.Word).WithSymbol("whole"+f.name),
	)
	add(f.address16(f.source, atKey)...)
	add(f.address16(f.dest, atKey+16)...)
	add(
		tcp(asm.R0, 0, asm.Word), asm.StoreMem(asm.RFP, atKey+32, asm.R0, asm.Word),
		asm.LoadMem(asm.R0, rContext, skbLink, asm.Word),
	)
	if f.header != 20 {
		add(asm.LoadImm(asm.R1, keyIPv6, asm.DWord), asm.Or.Reg(asm.R0, asm.R1))
	}
	add(
		asm.StoreMem(asm.RFP, atKey+36, asm.R0, asm.Word),

		asm.LoadMapPtr(asm.R1, p.keys),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, atKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, no),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.Mov.Reg(rWay, asm.R1), asm.And.Imm(rWay, 1),
		asm.RSh.Imm(asm.R1, 1), asm.StoreMem(asm.RFP, atRow, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, p.rows),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, atRow),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, no),
		asm.Mov.Reg(asm.R1, rWay), asm.Mul.Imm(asm.R1, wayLen),
		asm.Mov.Reg(rWay, asm.R0), asm.Add.Reg(rWay, asm.R1),
		asm.Mov.Imm(asm.R2, wayLen), asm.Sub.Reg(asm.R2, asm.R1),
		asm.Mov.Reg(rOther, asm.R0), asm.Add.Reg(rOther, asm.R2),

		way(asm.R0, wayState, asm.Word),
		asm.JEq.Imm(asm.R0, 0, no),
		asm.JSet.Imm(asm.R0, stateAnybody, "from"+f.name),
		way(asm.R0, wayFrom, asm.Word), asm.LoadMem(asm.R1, asm.RFP, atSource, asm.Word), asm.JNE.Reg(asm.R0, asm.R1, no),
		way(asm.R0, wayFrom+4, asm.Half), asm.LoadMem(asm.R1, asm.RFP, atSource+4, asm.Half), asm.JNE.Reg(asm.R0, asm.R1, no),
		way(asm.R0, wayMTU, asm.Word).WithSymbol("from"+f.name),
		asm.LoadMem(asm.R1, asm.RFP, atSize, asm.Word),
		asm.JGT.Reg(asm.R1, asm.R0, no),

		tcp(asm.R1, 4, asm.Word), asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.LoadMem(asm.R0, asm.RFP, atPayload, asm.Word), asm.Add.Reg32(asm.R1, asm.R0),
		asm.StoreMem(asm.RFP, atEnd, asm.R1, asm.Word),
	)
	add(near(rOther, wayAck, rOther, "end"+f.name)...)
	add(tcp(asm.R1, 8, asm.Word), asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, atAck, asm.R1, asm.Word))
	add(near(rOther, wayEnd, rWay, "ack"+f.name)...)
	return code
}

// address16 copies an address of the packet to the stack, in 16 bytes.
func (f family) address16(from, to int16) asm.Instructions {
	if f.address == 4 {
		return asm.Instructions{
			asm.Mov.Imm(asm.R0, 0), asm.StoreMem(asm.RFP, to, asm.R0, asm.DWord),
			asm.StoreImm(asm.RFP, to+8, -0x10000, asm.Word), // ::ffff
			asm.LoadMem(asm.R0, asm.RFP, atIP+from, asm.Word), asm.StoreMem(asm.RFP, to+12, asm.R0, asm.Word),
		}
	}
	return asm.Instructions{
		asm.LoadMem(asm.R0, asm.RFP, atIP+from, asm.DWord), asm.StoreMem(asm.RFP, to, asm.R0, asm.DWord),
		asm.LoadMem(asm.R0, asm.RFP, atIP+from+8, asm.DWord), asm.StoreMem(asm.RFP, to+8, asm.R0, asm.DWord),
	}
}

// way loads a field of the frame's way.
func way(dst asm.Register, field int16, size asm.Size) asm.Instruction {
	return asm.LoadMem(dst, rWay, field, size)
}

// near leads to no if R1 is farther from a number of a way than twice the window that
// receiver has offered, and than minReach.
func near(other asm.Register, field int16, receiver asm.Register, label string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, other, field, asm.Word),
		asm.Mov.Reg32(asm.R2, asm.R1), asm.Sub.Reg32(asm.R2, asm.R0), // forth
		asm.Sub.Reg32(asm.R0, asm.R1), // back
		asm.JLE.Reg(asm.R2, asm.R0, label),
		asm.Mov.Reg32(asm.R2, asm.R0),
		asm.JLE.Imm(asm.R2, minReach, label+"near").WithSymbol(label),
		asm.LoadMem(asm.R0, receiver, wayWindow, asm.Word), asm.LoadMem(asm.R3, receiver, wayShift, asm.Word),
		asm.And.Imm(asm.R3, 15), asm.Add.Imm(asm.R3, 1), asm.LSh.Reg(asm.R0, asm.R3),
		asm.JGT.Reg(asm.R2, asm.R0, no),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(label + "near"),
	}
}

// fold brings a sum of 64 bits, at most of some 32-bit words, to 16 bits.
func fold(sum, scratch asm.Register) (code asm.Instructions) {
	for _, bits := range []int32{32, 16, 16} {
		code = append(code, asm.Mov.Reg(scratch, sum), asm.RSh.Imm(scratch, bits))
		if bits == 32 {
			code = append(code, asm.Mov.Reg32(sum, sum))
		} else {
			code = append(code, asm.And.Imm(sum, 0xffff))
		}
		code = append(code, asm.Add.Reg(sum, scratch))
	}
	return append(code, asm.Mov.Reg(scratch, sum), asm.RSh.Imm(scratch, 16), asm.And.Imm(sum, 0xffff), asm.Add.Reg(sum, scratch))
}

// leave is what the filter does with a frame that goes by a shortcut.
func leave(family) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(rWay, asm.R1, asm.DWord, wayLeft),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}
}

const (
	tcNext     = -1 // TCX_NEXT: the next program, and then the host
	tcDrop     = 2  // TCX_DROP
	tcRedirect = 7  // TCX_REDIRECT

	pseudoHeader = 1 << 4 // BPF_F_PSEUDO_HDR
)

// forward is what the program at the link does with it.
func forward(f family) (code asm.Instructions) {
	add := func(list ...asm.Instruction) { code = append(code, list...) }
	store := func(offset int16, src asm.Register, size asm.Size) asm.Instruction {
		return asm.StoreMem(asm.RFP, offset, src, size)
	}
	add(
		asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(rWay, asm.R1, asm.DWord, wayPackets),
		asm.AddAtomic.Mem(rWay, rLength, asm.DWord, wayBytes),

		asm.LoadMem(asm.R1, asm.RFP, atEnd, asm.Word), way(asm.R0, wayEnd, asm.Word),
		asm.Mov.Reg32(asm.R2, asm.R1), asm.Sub.Reg32(asm.R2, asm.R0),
		asm.JSLE.Imm32(asm.R2, 0, "older"+f.name),
		asm.StoreMem(rWay, wayEnd, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, atAck, asm.Word).WithSymbol("older"+f.name), way(asm.R0, wayAck, asm.Word),
		asm.Mov.Reg32(asm.R2, asm.R1), asm.Sub.Reg32(asm.R2, asm.R0),
		asm.JSLT.Imm32(asm.R2, 0, "acked"+f.name),
		asm.StoreMem(rWay, wayAck, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, f.tcp()+14, asm.Half), asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.StoreMem(rWay, wayWindow, asm.R1, asm.Word),

		way(asm.R0, wayTo, asm.Half).WithSymbol("acked"+f.name), store(atFrame, asm.R0, asm.Half),
		way(asm.R0, wayTo+2, asm.Half), store(atFrame+2, asm.R0, asm.Half),
		way(asm.R0, wayTo+4, asm.Half), store(atFrame+4, asm.R0, asm.Half),
		way(asm.R0, wayTo+6, asm.Half), store(atFrame+6, asm.R0, asm.Half),
		way(asm.R0, wayTo+8, asm.Word), store(atFrame+8, asm.R0, asm.Half),
		asm.RSh.Imm(asm.R0, 16), store(atFrame+10, asm.R0, asm.Half),

		asm.LoadMem(asm.R0, asm.RFP, atIP+f.hops, asm.Byte), way(asm.R1, wayHop, asm.Word),
		asm.Sub.Reg(asm.R0, asm.R1), store(atIP+f.hops, asm.R0, asm.Byte),
	)
	for i, to := range []int16{f.source, f.dest} {
		from := waySource + 16*int16(i)
		if f.address == 4 {
			add(way(asm.R0, from+12, asm.Word), store(atIP+to, asm.R0, asm.Word))
			continue
		}
		add(way(asm.R0, from, asm.DWord), store(atIP+to, asm.R0, asm.DWord),
			way(asm.R0, from+8, asm.DWord), store(atIP+to+8, asm.R0, asm.DWord))
	}
	add(way(asm.R0, wayPorts, asm.Word), store(f.tcp(), asm.R0, asm.Word))
	if f.header == 20 {
		add(asm.LoadMem(asm.R1, asm.RFP, atIP+10, asm.Half), asm.Xor.Imm(asm.R1, 0xffff),
			way(asm.R0, wayHeaderDelta, asm.Word), asm.Add.Reg(asm.R1, asm.R0))
		add(fold(asm.R1, asm.R0)...)
		add(asm.Xor.Imm(asm.R1, 0xffff), store(atIP+10, asm.R1, asm.Half))
	}
	add(
		asm.Mov.Reg(asm.R1, rContext), asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, atFrame),
		asm.Mov.Imm(asm.R4, int32(etherLen+f.header+4)), asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "failed"+f.name),
	)
	field := int32(etherLen + f.header + 16)
	add(
		asm.Mov.Reg(asm.R1, rContext), asm.Mov.Imm(asm.R2, field), asm.Mov.Imm(asm.R3, 0),
		way(asm.R4, wayAddrDelta, asm.Word), asm.Mov.Imm(asm.R5, pseudoHeader),
		asm.FnL4CsumReplace.Call(),
		asm.JNE.Imm(asm.R0, 0, "failed"+f.name),
		way(asm.R4, wayPortDelta, asm.Word),
		asm.JEq.Imm(asm.R4, 0, "summed"+f.name),
		asm.Mov.Reg(asm.R1, rContext), asm.Mov.Imm(asm.R2, field), asm.Mov.Imm(asm.R3, 0), asm.Mov.Imm(asm.R5, 0),
		asm.FnL4CsumReplace.Call(),
		asm.JNE.Imm(asm.R0, 0, "failed"+f.name),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("summed"+f.name),
	)
	if f.header != 20 {
		// A sum that the card has made of the whole packet: the last call has taken the
		// addresses out of it, although their change and that of the checksum are one.
		add(asm.Mov.Reg(asm.R1, rContext), way(asm.R2, wayHeaderDelta, asm.Word), asm.FnCsumUpdate.Call())
	}
	add(
		way(asm.R1, wayOut, asm.Word), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
		asm.Mov.Imm(asm.R0, tcDrop).WithSymbol("failed"+f.name), asm.Return(),
	)
	return code
}

// atLink is the program of a link.
func (p programs) atLink() asm.Instructions {
	return append(p.common(forward), asm.Mov.Imm(asm.R0, tcNext).WithSymbol(no), asm.Return())
}

// filter is the program of packet sockets.
func (p programs) filter() asm.Instructions { return append(p.common(leave), p.admits()...) }

func swap16(v uint16) uint16 { return v<<8 | v>>8 }
