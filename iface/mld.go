// SPDX-License-Identifier: Apache-2.0

package iface

// The wire format of multicast listener discovery over Ethernet, version 2 (RFC
// 3810, which RFC 9777 replaces without a change to it) and version 1 (RFC 2710).
// Each message stands behind a hop-by-hop header that has routers look at it:
//
//	 0  IPv6: hop limit 1, source link-local or ::
//	40  hop-by-hop: next header 58, length 0, router alert 05 02 00 00, padding 01 00
//	48  type         49  code 0         50  checksum
//	52  query, report and done of version 1: most delay in ms; 56  group
//	    report of version 2: 54  number of records; 56  records of 20 bytes:
//	    kind, 0, number of sources (none here), group
//
// A query (130) asks who listens to a group, or with the group :: to any. Queries of
// version 2 are longer than those of version 1, and say long delays as a
// floating-point number.

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mldQuery    = 130
	mldReportV1 = 131
	mldDoneV1   = 132
	mldReportV2 = 143

	mldAt       = ethernetHeader + ipv6Header + 8 // the message in a frame
	mldV1Size   = 24
	mldV2Size   = 28 // of a query without sources
	mldRecord   = 20
	mldHopLimit = 1
	// mldRecords is how many of them one report has: as many as fit the MTU that
	// every link has.
	mldRecords = (1280 - ipv6Header - 8 - 8) / mldRecord
)

// The kinds of record that have no sources (RFC 3810 section 5.2.12): listening to
// a group is excluding no source of it.
const (
	mldListens = 2 // MODE_IS_EXCLUDE, in an answer
	mldStopped = 3 // CHANGE_TO_INCLUDE_MODE
	mldBegins  = 4 // CHANGE_TO_EXCLUDE_MODE: has begun to
)

// routerAlert is the hop-by-hop header of each message (RFC 2711).
func routerAlert() [8]byte { return [8]byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0} }

// IsMLD tells whether an Ethernet frame is one for [Neighbours.Input]: a query of
// multicast listener discovery, good or bad. Reports of others are not looked at.
func IsMLD(frame []byte) bool {
	return len(frame) > mldAt && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 &&
		frame[ethernetHeader+ipv6NextHeader] == unix.IPPROTO_HOPOPTS &&
		frame[ethernetHeader+ipv6Header] == unix.IPPROTO_ICMPV6 && frame[ethernetHeader+ipv6Header+1] == 0 &&
		frame[mldAt] == mldQuery
}

// listenerQuery is what a query asks.
type listenerQuery struct {
	group netip.Addr    // :: for all
	delay time.Duration // to be answered within
	old   bool          // by a querier of version 1
}

// parseQuery returns the query of a frame, or false if it is not to be believed:
// the checks of RFC 3810 section 6.2 and of the form.
func parseQuery(frame []byte) (q listenerQuery, ok bool) {
	if !IsMLD(frame) {
		return q, false
	}
	ip := frame[ethernetHeader:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || length < 8+mldV1Size || ipv6Header+length > len(ip) {
		return q, false
	}
	ip = ip[:ipv6Header+length]
	message := ip[ipv6Header+8:]
	source := netip.AddrFrom16([16]byte(ip[8:]))
	switch {
	case ip[7] != mldHopLimit, !source.IsLinkLocalUnicast(), !hasRouterAlert(ip[ipv6Header+2 : ipv6Header+8]):
		return q, false
	case message[1] != 0, len(message) > mldV1Size && len(message) < mldV2Size:
		return q, false
	case fold(sumMLD(ip, message)) != 0xffff:
		return q, false
	}
	q.group = netip.AddrFrom16([16]byte(message[8:]))
	q.old = len(message) == mldV1Size
	code := binary.BigEndian.Uint16(message[4:])
	q.delay = time.Duration(code) * time.Millisecond
	if !q.old && code >= 1<<15 { // RFC 3810 section 5.1.3
		mantissa, exponent := time.Duration(code&0xfff|0x1000), code>>12&7
		q.delay = mantissa << (exponent + 3) * time.Millisecond
	}
	return q, q.group.IsUnspecified() || q.group.IsMulticast()
}

func hasRouterAlert(options []byte) bool {
	for len(options) >= 2 {
		switch {
		case options[0] == 0: // Pad1 has no length
			options = options[1:]
			continue
		case options[0] == 5:
			return true
		}
		options = options[min(2+int(options[1]), len(options)):]
	}
	return false
}

// sumMLD adds up a message with its pseudo-header; with a right checksum in it, it
// folds to 0xffff.
func sumMLD(ip, message []byte) uint64 {
	return sumBytes(sumBytes(uint64(len(message))+unix.IPPROTO_ICMPV6, ip[8:ipv6Header]), message)
}

// listenerRecord is a record of a report.
type listenerRecord struct {
	kind  byte
	group netip.Addr
}

// buildReports returns frames of version 2 with all of records.
func buildReports(mac [6]byte, source netip.Addr, records []listenerRecord) (frames [][]byte) {
	everyRouter := netip.MustParseAddr("ff02::16")
	for len(records) > 0 {
		now := records[:min(mldRecords, len(records))]
		records = records[len(now):]
		message := make([]byte, 8+mldRecord*len(now))
		message[0] = mldReportV2
		binary.BigEndian.PutUint16(message[6:], uint16(len(now)))
		for i, r := range now {
			b := message[8+mldRecord*i:]
			b[0] = r.kind
			put(b[4:], r.group)
		}
		frames = append(frames, buildMLD(mac, source, everyRouter, message))
	}
	return frames
}

// buildOldReport returns a frame of version 1 about one group: that it is listened
// to, or not any more.
func buildOldReport(mac [6]byte, source netip.Addr, r listenerRecord) []byte {
	message, to := make([]byte, mldV1Size), r.group
	message[0] = mldReportV1
	if r.kind == mldStopped {
		message[0], to = mldDoneV1, netip.IPv6LinkLocalAllRouters()
	}
	put(message[8:], r.group)
	return buildMLD(mac, source, to, message)
}

func buildMLD(mac [6]byte, source, to netip.Addr, message []byte) []byte {
	group, alert := groupMAC(to), routerAlert()
	b := make([]byte, mldAt+len(message))
	copy(b[0:], group[:])
	copy(b[6:], mac[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IPV6)
	ip := b[ethernetHeader:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(8+len(message)))
	ip[6], ip[7] = unix.IPPROTO_HOPOPTS, mldHopLimit
	put(ip[8:], source)
	put(ip[24:], to)
	copy(ip[ipv6Header:], alert[:])
	copy(b[mldAt:], message)
	binary.BigEndian.PutUint16(b[mldAt+2:], ^fold(sumMLD(ip, b[mldAt:])))
	return b
}
