// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The owner flag binds a table to the netlink socket that made it, and only
// that socket may change it. google/nftables opens a socket per flush and
// cannot set table flags, so the messages are put together here; its encoders
// of expressions are used as they are.

// nftConn is one nfnetlink socket of our own. Every reply to a message is queued
// before the send returns, so nothing here ever waits. One goroutine.
type nftConn struct {
	fd  int
	seq uint32
}

func dialNFT() (*nftConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket NETLINK_NETFILTER", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind NETLINK_NETFILTER", err)
	}
	// Both only make errors better: the kernel's sentence about them, and no
	// copy of our message in them.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &nftConn{fd: fd}, nil
}

func (c *nftConn) close() error { return os.NewSyscallError("close", unix.Close(c.fd)) }

// hasLink asks in the namespace of the socket, whatever that of the caller is.
func (c *nftConn) hasLink(name string) bool {
	ifreq, err := unix.NewIfreq(name)
	if err != nil {
		return false
	}
	return unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, ifreq) == nil
}

// commit sends the batch: all of it happens, at one moment for every packet, or
// nothing does. Errors name the message that the kernel refused.
func (c *nftConn) commit(b *nftBatch) error {
	if b.err != nil {
		return b.err
	}
	if len(b.messages) == 0 {
		return nil
	}
	out, first, err := c.encodeBatch(b)
	if err != nil {
		return err
	}
	if err := c.send(out); err != nil {
		return err
	}
	last := c.seq - 1 // the one before the end of the batch asked for an acknowledgement

	var errs []error
	acknowledged := false
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			errs = append(errs, os.NewSyscallError("recvfrom netlink", err))
			break
		}
		for _, reply := range parseNetlink(buf[:n]) {
			if reply.typ != unix.NLMSG_ERROR {
				continue
			}
			errno, sentence := parseNetlinkError(reply)
			if errno == 0 {
				acknowledged = acknowledged || reply.seq == last
				continue
			}
			what := "batch"
			if i := int(reply.seq - first); reply.seq >= first && i < len(b.messages) {
				what = b.messages[i].what
			}
			if sentence != "" {
				errs = append(errs, fmt.Errorf("%s: %w (%s)", what, errno, sentence))
				continue
			}
			errs = append(errs, fmt.Errorf("%s: %w", what, errno))
		}
	}
	if len(errs) == 0 && !acknowledged {
		return errors.New("the kernel did not acknowledge the batch")
	}
	return errors.Join(errs...)
}

// encodeBatch also returns the sequence number of the batch's first own message.
func (c *nftConn) encodeBatch(b *nftBatch) (out []byte, first uint32, err error) {
	add := func(m netlink.Message) {
		c.seq++
		m.Header.Sequence = c.seq
		m.Header.Length = uint32(unix.NLMSG_HDRLEN + (len(m.Data)+3)&^3)
		raw, e := m.MarshalBinary()
		out, err = append(out, raw...), errors.Join(err, e)
	}
	bracket := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	add(bracket(unix.NFNL_MSG_BATCH_BEGIN))
	first = c.seq + 1
	for i, m := range b.messages {
		if i == len(b.messages)-1 {
			m.Header.Flags |= netlink.Acknowledge
		}
		add(m.Message)
	}
	add(bracket(unix.NFNL_MSG_BATCH_END))
	return out, first, err
}

func (c *nftConn) send(out []byte) error {
	// A batch is one datagram. Privileged, the buffer grows as far as needed;
	// otherwise up to net.core.wmem_max.
	if have, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil && have < len(out)+1024 {
		if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(out)+1024) != nil {
			_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, len(out)+1024)
		}
	}
	err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%d bytes of rules do not fit into one transaction: %w\nhint: raise net.core.wmem_max", len(out), err)
	}
	return os.NewSyscallError("sendto netlink", err)
}

// dump asks for all objects of a kind in our family and gives the attributes of
// each to yield. It starts again when the kernel says that the list changed
// while it was read.
func (c *nftConn) dump(kind int, begin func(), yield func(*netlink.AttributeDecoder) error) error {
	const attempts = 5
	for range attempts {
		begin()
		whole, err := c.dumpOnce(kind, yield)
		if err != nil || whole {
			return err
		}
	}
	return errors.New("the list of nftables objects changes faster than it can be read")
}

func (c *nftConn) dumpOnce(kind int, yield func(*netlink.AttributeDecoder) error) (whole bool, err error) {
	c.seq++
	request := nftMessage(kind, netlink.Request|netlink.Dump, nil)
	request.Header.Sequence = c.seq
	request.Header.Length = uint32(unix.NLMSG_HDRLEN + len(request.Data))
	out, err := request.MarshalBinary()
	if err != nil {
		return false, err
	}
	if err := c.send(out); err != nil {
		return false, err
	}
	whole = true
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, os.NewSyscallError("recvfrom netlink", err)
		}
		for _, reply := range parseNetlink(buf[:n]) {
			switch {
			case reply.seq != c.seq:
				continue
			case reply.typ == unix.NLMSG_ERROR:
				errno, sentence := parseNetlinkError(reply)
				return false, fmt.Errorf("list: %w %s", errno, sentence)
			}
			whole = whole && reply.flags&unix.NLM_F_DUMP_INTR == 0
			if reply.typ == unix.NLMSG_DONE {
				return whole, nil
			}
			if len(reply.data) < 4 {
				continue
			}
			ad, err := netlink.NewAttributeDecoder(reply.data[4:])
			if err != nil {
				return false, err
			}
			ad.ByteOrder = binary.BigEndian
			if err := yield(ad); err != nil {
				return false, err
			}
		}
	}
}

// netlinkReply is one message of a datagram; data is borrowed from the buffer.
type netlinkReply struct {
	typ, flags uint16
	seq        uint32
	data       []byte
}

func parseNetlink(b []byte) []netlinkReply {
	var replies []netlinkReply
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			break
		}
		replies = append(replies, netlinkReply{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			data:  b[unix.NLMSG_HDRLEN:length],
		})
		b = b[min((length+3)&^3, len(b)):]
	}
	return replies
}

// parseNetlinkError reads struct nlmsgerr and, where the kernel added it, its
// sentence (NLMSGERR_ATTR_MSG).
func parseNetlinkError(r netlinkReply) (unix.Errno, string) {
	const request = unix.NLMSG_HDRLEN // the header of our message, and, not capped, its data
	if len(r.data) < 4 {
		return unix.EBADMSG, ""
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(r.data)))
	if r.flags&unix.NLM_F_ACK_TLVS == 0 || r.flags&unix.NLM_F_CAPPED == 0 || len(r.data) < 4+request {
		return errno, ""
	}
	ad, err := netlink.NewAttributeDecoder(r.data[4+request:])
	if err != nil {
		return errno, ""
	}
	for ad.Next() {
		if ad.Type() == unix.NLMSGERR_ATTR_MSG {
			return errno, strings.TrimRight(ad.String(), "\x00")
		}
	}
	return errno, ""
}
