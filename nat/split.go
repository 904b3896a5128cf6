// SPDX-License-Identifier: Apache-2.0

package nat

// ipv4MinMTU is the MTU that every link has (RFC 791 section 3.2): the longest
// header and 8 bytes of data.
const ipv4MinMTU = 68

// gsoFits tells whether a packet leaves by a link of this MTU as it is: the
// packet itself, or each segment that it will be cut into. The segment length
// is computed from the headers; HeaderLen of the offload is a hint only.
func (p *parsed) gsoFits(pkt *Packet, mtu int) bool {
	if len(pkt.Data) <= mtu {
		return true
	}
	segment := p.l4 + int(pkt.Offload.GSOSize)
	switch pkt.Offload.GSOType &^ GSOECN {
	case GSOTCPv4, GSOTCPv6:
		segment += p.dataOffset
	case GSOUDPL4:
		segment += udpHeaderLen
	case GSOUDP: // cut into IP fragments, of which only the first has a UDP header
		if ipHeader(pkt.Data).is6() {
			segment += ipv6FragmentHeaderLen
		}
	default:
		return false
	}
	return pkt.Offload.GSOSize > 0 && segment <= mtu
}

// splitter cuts a packet that is larger than the MTU of its way out into
// fragments (RFC 791 section 3.2). A fragment can be cut again.
type splitter struct {
	data   []byte // the packet
	rest   int    // offset in data of what is not sent yet
	offset int    // of that in the datagram, bytes
	more   bool   // data is itself a fragment other than the last
	mtu    int
	header [ipv4MaxHeaderLen]byte // for fragments other than the first
	length int                    // of header
}

// newSplitter prepares to cut pkt, IPv4 that was parsed and does not have DF, for
// a link of mtu bytes. A partial checksum is completed first, in place: a
// fragment cannot carry the rest of the sum. It refuses a super-packet that
// stands for segments, and an MTU below the 68 bytes of RFC 791.
//
// pkt.Data is borrowed until the last call of next, and not changed by it.
func newSplitter(pkt *Packet, mtu int) (splitter, Reason) {
	switch pkt.Offload.GSOType &^ GSOECN {
	case GSONone, GSOUDP:
	default:
		return splitter{}, ReasonTooBig
	}
	if ipHeader(pkt.Data).is6() {
		return splitter{}, ReasonTooBig
	}
	h := ipv4Header(pkt.Data)
	n := h.headerLen()
	// A super-packet of unknown length has no place in the offset field.
	if mtu < ipv4MinMTU || len(pkt.Data) > ipv4MaxLen || !completeOffload(pkt) {
		return splitter{}, ReasonTooBig
	}
	f := h.fragment()
	s := splitter{
		data: pkt.Data, rest: n, mtu: mtu,
		offset: int(f&ipv4OffsetMask) * 8, more: f&ipv4MoreFragments != 0,
	}
	copy(s.header[:ipv4HeaderLen], h)
	s.length = ipv4HeaderLen + copiedOptions(s.header[ipv4HeaderLen:], h.options())
	ipv4Header(s.header[:]).setVersionAndLen(s.length)
	return s, ReasonNone
}

// next writes the next fragment into b, which holds at least mtu bytes and
// does not overlap the packet, and returns its length; 0 after the last.
func (s *splitter) next(b []byte) int {
	left := len(s.data) - s.rest
	if left <= 0 {
		return 0
	}
	first := ipv4Header(s.data)
	header := s.header[:s.length]
	if n := first.headerLen(); s.rest == n {
		header = s.data[:n]
	}
	take, more := left, s.more
	if room := s.mtu - len(header); take > room {
		take, more = room&^7, true
	}
	copy(b, header)
	n := len(header) + copy(b[len(header):], s.data[s.rest:s.rest+take])

	h := ipv4Header(b[:n])
	word := uint16(s.offset/8) | first.fragment()&^(ipv4OffsetMask|ipv4MoreFragments)
	if more {
		word |= ipv4MoreFragments
	}
	h.setTotalLen(n)
	h.setFragment(word)
	h.computeChecksum()
	s.rest += take
	s.offset += take
	return n
}

// copiedOptions writes the options that every fragment carries into dst,
// padded to a multiple of four bytes, and returns their length.
func copiedOptions(dst, options []byte) int {
	const (
		end         = 0
		noOperation = 1
		copied      = 0x80
	)
	n := 0
	for len(options) > 0 && options[0] != end {
		length := 1
		if options[0] != noOperation {
			length = int(options[1]) // parse has seen that it is sound
		}
		if options[0]&copied != 0 {
			n += copy(dst[n:], options[:length])
		}
		options = options[length:]
	}
	for ; n%4 != 0; n++ {
		dst[n] = end
	}
	return n
}
