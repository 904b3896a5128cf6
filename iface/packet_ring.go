// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Small frames are sent through a ring that is shared with the kernel
// (PACKET_TX_RING): one system call for all of them, where sendmmsg prepares each
// anew. The ring is that of a second socket, which receives nothing; a socket with a
// ring sends nothing else.
//
// What is in a slot is taken into the kernel's own memory before the call returns, as
// the offload header says that all of it is headers. Otherwise the kernel would send
// the slot's memory itself, which stays in use for as long as the driver likes.

const (
	ringSlot  = 512 // bytes
	ringSlots = BatchSize
	// ringData is where a slot has its offload header, which the frame follows.
	ringData = unix.SizeofTpacket2Hdr
	// ringFrame is the longest frame for the ring in bytes.
	ringFrame = ringSlot - ringData - OffloadSize
	// ringWorth is the fewest frames for which the ring pays.
	ringWorth = 4
)

// sendRing is a ring of slots. The kernel goes through them in the same order as we do.
type sendRing struct {
	fd     int
	memory []byte
	head   int // the slot that is filled next
}

// openSendRing makes a ring on an Ethernet link. A link with an MTU for which a frame of the
// ring may be too long has none: the kernel does not look at the length of a frame in a
// ring with offload headers.
func openSendRing(link Link, direct bool) (_ *sendRing, err error) {
	if !link.Ethernet || link.MTU+ethernetHeader < ringFrame {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	options := []option{
		{"PACKET_VERSION", unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
	}
	if direct {
		options = append(options, option{"PACKET_QDISC_BYPASS", unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.code, o.value); err != nil {
			return nil, fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	page := unix.Getpagesize()
	request := unix.TpacketReq{
		Block_size: uint32(page), Block_nr: uint32(ringSlots * ringSlot / page),
		Frame_size: ringSlot, Frame_nr: ringSlots,
	}
	if request.Block_nr == 0 { // a page holds more than all
		request.Block_nr, request.Frame_nr = 1, uint32(page/ringSlot)
	}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &request); err != nil {
		return nil, fmt.Errorf("set PACKET_TX_RING: %w", err)
	}
	// Protocol 0: nothing is delivered.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
		return nil, err
	}
	memory, err := unix.Mmap(fd, 0, int(request.Frame_nr)*ringSlot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &sendRing{fd: fd, memory: memory}, nil
}

func (r *sendRing) close() {
	_ = unix.Munmap(r.memory)
	_ = unix.Close(r.fd)
}

// takes reports whether all of b can go through the ring, and is worth it.
func (r *sendRing) takes(b []Frame) bool {
	if len(b) < ringWorth {
		return false
	}
	for i := range b {
		f := &b[i]
		if len(f.Data) > ringFrame || len(f.Data) == 0 || f.Truncated || f.Offload.Segmented() {
			return false
		}
	}
	return true
}

func (r *sendRing) slot(i int) []byte {
	at := (r.head + i) * ringSlot % len(r.memory)
	return r.memory[at : at+ringSlot : at+ringSlot]
}

func status(slot []byte) *uint32 { return (*uint32)(unsafe.Pointer(&slot[0])) }

// send sends the first frames of b and returns how many. It stops at the first that
// fails, for whatever reason.
func (r *sendRing) send(b []Frame) int {
	n := 0
	for n < len(b) && n < len(r.memory)/ringSlot {
		slot, f := r.slot(n), &b[n]
		if atomic.LoadUint32(status(slot)) != unix.TP_STATUS_AVAILABLE {
			break // still with the driver
		}
		o := f.Offload
		o.HeaderLen = uint16(len(f.Data))
		o.Encode(slot[ringData:])
		copy(slot[ringData+OffloadSize:], f.Data)
		binary.NativeEndian.PutUint32(slot[4:], uint32(OffloadSize+len(f.Data)))
		atomic.StoreUint32(status(slot), unix.TP_STATUS_SEND_REQUEST)
		n++
	}
	if n == 0 {
		return 0
	}
	unix.Syscall6(unix.SYS_SENDTO, uintptr(r.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	sent := 0
	for sent < n {
		if s := atomic.LoadUint32(status(r.slot(sent))); s&(unix.TP_STATUS_SEND_REQUEST|unix.TP_STATUS_WRONG_FORMAT) != 0 {
			break
		}
		sent++
	}
	for i := sent; i < n; i++ {
		atomic.StoreUint32(status(r.slot(i)), unix.TP_STATUS_AVAILABLE)
	}
	r.head = (r.head + sent) % (len(r.memory) / ringSlot)
	return sent
}
