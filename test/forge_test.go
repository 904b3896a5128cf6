// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A forgery is a frame to the VIP that is sent many times, with a field or two
// changed in between. Its checksums stay right.
type forgery struct {
	frame    []byte
	ipLen    int // with extension headers
	segment  int // where what the transport checksum covers begins
	checksum int
	proto    uint8
}

const etherLen = 14

// template makes the frame of a forgery.
func (c *cluster) template(w *wire, proto layers.IPProtocol, stack ...gopacket.SerializableLayer) *forgery {
	c.t.Helper()
	f := &forgery{ipLen: 20, proto: uint8(proto)}
	if c.Config.IPv6 {
		f.ipLen = 40
	}
	f.frame = frame(c.t, append([]gopacket.SerializableLayer{
		ethernet(w.mac, c.nextHopMAC(), c.Config.VIP()), ipHeader(c.Client.Addr, c.Config.VIP(), proto, 0),
	}, stack...)...)
	f.place()
	return f
}

func (f *forgery) place() {
	f.segment = etherLen + f.ipLen
	f.checksum = f.segment + 16
	if f.proto == uint8(layers.IPProtocolUDP) {
		f.checksum = f.segment + 6
	}
}

func (f *forgery) ip() []byte { return f.frame[etherLen:] }

func (f *forgery) is6() bool { return f.ip()[0]>>4 == 6 }

// makeFirstFragment says that more fragments follow.
func (f *forgery) makeFirstFragment() {
	if !f.is6() {
		f.ip()[6] |= 0x20
		return
	}
	const headerLen, nextHeader, fragment = 8, 6, 44
	header := []byte{f.proto, 0, 0, 1, 0, 0, 0, 0} // offset 0, more
	f.ip()[nextHeader] = fragment
	binary.BigEndian.PutUint16(f.ip()[4:], binary.BigEndian.Uint16(f.ip()[4:])+headerLen)
	f.frame = slices.Insert(f.frame, etherLen+f.ipLen, header...)
	f.ipLen += headerLen
	f.place()
}

// setID changes the identification of a fragment.
func (f *forgery) setID(id uint16) {
	at := etherLen + 4
	if f.is6() {
		at = f.segment - 2
	}
	binary.BigEndian.PutUint16(f.frame[at:], id)
}

// setSeq changes the sequence number; the checksum follows with setSource.
func (f *forgery) setSeq(seq uint32) { binary.BigEndian.PutUint32(f.frame[f.segment+4:], seq) }

// setSource changes the source and puts the checksums right.
func (f *forgery) setSource(a netip.Addr, port uint16) {
	ip := f.ip()
	addresses := ip[8:40]
	if !f.is6() {
		addresses = ip[12:20]
	}
	copy(addresses, a.AsSlice())
	if !f.is6() {
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:f.ipLen]))
	}

	segment := f.frame[f.segment:]
	binary.BigEndian.PutUint16(segment, port)
	f.frame[f.checksum], f.frame[f.checksum+1] = 0, 0
	pseudo := append([]byte(nil), addresses...)
	pseudo = append(pseudo, 0, f.proto)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment)))
	binary.BigEndian.PutUint16(f.frame[f.checksum:], ^sum(append(pseudo, segment...)))
}

// contextWithin is the context of the test with a shorter limit.
func contextWithin(c *cluster, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, d)
}
