// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	frameSize = 60 // the smallest of Ethernet, without its checksum
	batchSize = 64
	freshRate = 120_000 // flows a second
)

// sendDatagrams sends the smallest frames as fast as they go, past the stack of the
// client. The flows are source ports, and addresses beyond what these can tell apart.
// What arrives is counted at the other end.
func sendDatagrams(o *clientOptions) (outcome, error) {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return outcome{}, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return outcome{}, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return outcome{}, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
		return outcome{}, err
	}
	g, err := newDatagrams(o, link)
	if err != nil {
		return outcome{}, err
	}
	began := time.Now()
	sent := 0
	for o.once && sent < o.flows || !o.once && time.Since(began) < o.length() {
		g.next()
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&g.messages)), batchSize, 0, 0, 0)
		if errno != 0 && errno != unix.ENOBUFS && errno != unix.EINTR {
			return outcome{}, fmt.Errorf("sendmmsg: %w", errno)
		}
		if errno == 0 {
			sent += int(n)
		}
		if o.once { // no faster than connections can be made of them
			time.Sleep(time.Until(began.Add(time.Duration(sent) * time.Second / freshRate)))
		}
	}
	return outcome{Seconds: time.Since(began).Seconds(), Operations: float64(sent)}, nil
}

// datagrams is a batch of frames, of which each is the next flow's.
type datagrams struct {
	messages [batchSize]unix.Mmsghdr
	vectors  [batchSize]unix.Iovec
	frames   [batchSize][frameSize]byte
	flows    int
	stride   int
	at       int
}

func newDatagrams(o *clientOptions, link *net.Interface) (*datagrams, error) {
	g := &datagrams{flows: o.flows, stride: o.stride}
	from, err := ownAddress(link)
	if err != nil {
		return nil, err
	}
	var ends []netip.AddrPort
	var macs []net.HardwareAddr
	for _, text := range o.to {
		to, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, err
		}
		mac, err := nextHop(to.Addr())
		if err != nil {
			return nil, err
		}
		ends, macs = append(ends, to), append(macs, mac)
	}
	for i := range g.frames {
		to, mac := ends[i%len(ends)], macs[i%len(ends)]
		b := g.frames[i][:]
		copy(b, mac)
		copy(b[6:], link.HardwareAddr)
		binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
		b[14] = 0x45
		binary.BigEndian.PutUint16(b[16:], frameSize-14)
		b[22], b[23] = 64, unix.IPPROTO_UDP
		copy(b[26:], from.AsSlice())
		copy(b[30:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[36:], to.Port())
		binary.BigEndian.PutUint16(b[38:], frameSize-34)
		g.vectors[i].Base = &b[0]
		g.vectors[i].SetLen(frameSize)
		g.messages[i].Hdr.Iov = &g.vectors[i]
		g.messages[i].Hdr.SetIovlen(1)
	}
	return g, nil
}

// next gives each frame of the batch its flow. The UDP checksum stays 0: there is none.
// Flows are counted from how many there are, so that those of two loads are different.
func (g *datagrams) next() {
	const portsOfAddress = 60000
	for i := range g.frames {
		b := g.frames[i][14:34]
		flow := g.flows + g.at
		g.at = (g.at + g.stride) % g.flows
		if g.flows > portsOfAddress { // addresses that are nobody's there
			binary.BigEndian.PutUint16(b[14:], uint16(88<<8|140+flow/portsOfAddress))
		}
		binary.BigEndian.PutUint16(g.frames[i][34:], uint16(2000+flow%portsOfAddress))
		b[10], b[11] = 0, 0
		var sum uint32
		for k := 0; k < 20; k += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[k:]))
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	}
}

func ownAddress(link *net.Interface) (netip.Addr, error) {
	list, err := link.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("eth0 has no address")
}
