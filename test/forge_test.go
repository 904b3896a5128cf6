// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A forgery is a frame to the VIP that is sent many times, with a field or two
// changed in between. Its checksums stay right.
type forgery struct {
	frame    []byte
	sum      int // where the transport checksum is
	sumBegin int // where what it covers begins
}

const (
	etherLen = 14
	ipLen    = 20
)

// template makes the frame of a forgery.
func (c *cluster) template(w *wire, proto layers.IPProtocol, stack ...gopacket.SerializableLayer) *forgery {
	c.t.Helper()
	f := &forgery{sumBegin: etherLen + ipLen, sum: etherLen + ipLen + 16}
	if proto == layers.IPProtocolUDP {
		f.sum = etherLen + ipLen + 6
	}
	f.frame = frame(c.t, append([]gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: w.mac, DstMAC: c.nextHopMAC(), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{SrcIP: c.Client.Addr.AsSlice(), DstIP: c.Config.VIP().AsSlice(), Protocol: proto},
	}, stack...)...)
	return f
}

func (f *forgery) ip() []byte { return f.frame[etherLen:] }

// setSeq changes the sequence number; the checksum follows with setSource.
func (f *forgery) setSeq(seq uint32) { binary.BigEndian.PutUint32(f.frame[f.sumBegin+4:], seq) }

// setSource changes the source and puts both checksums right.
func (f *forgery) setSource(a netip.Addr, port uint16) {
	ip := f.ip()
	copy(ip[12:16], a.AsSlice())
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:ipLen]))

	segment := f.frame[f.sumBegin:]
	binary.BigEndian.PutUint16(segment, port)
	f.frame[f.sum], f.frame[f.sum+1] = 0, 0
	pseudo := append([]byte(nil), ip[12:20]...)
	pseudo = append(pseudo, 0, ip[9])
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment)))
	binary.BigEndian.PutUint16(f.frame[f.sum:], ^sum(append(pseudo, segment...)))
}

// contextWithin is the context of the test with a shorter limit.
func contextWithin(c *cluster, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, d)
}
