// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// MaxPorts is the number of iface ports that one director serves. Port
// indices are below it.
const MaxPorts = 64

// NoPort is the index of no port.
const NoPort = conntrack.NoPort

// A Packet is one IP packet with what the link layer knew of it.
//
// The Forwarder borrows Data for the length of one call of Forward. It rewrites
// it in place and may shorten it (link padding is cut off), but never grows it.
type Packet struct {
	// Data begins with the first byte of the IP header. It may be a
	// super-packet of up to 64 KiB that the network card or the kernel will
	// cut into segments (Offload.GSOType is not zero then).
	Data []byte
	// Offload is the virtio_net_hdr that came with the frame, carried
	// through to the way out.
	Offload Offload
	// In is the index of the port that the packet came in by.
	In uint16
	// From is the link address of the neighbour that sent the frame, zero on
	// a port without link addresses.
	From conntrack.LinkAddr
	// Hops is how often the packet was handed over from one Forwarder to
	// another: that of the verdict that said so.
	Hops uint8
}

// GSO types of a virtio_net_hdr (virtio 1.2, 5.1.6).
const (
	GSONone  uint8 = 0
	GSOTCPv4 uint8 = 1
	GSOUDP   uint8 = 3
	GSOTCPv6 uint8 = 4
	GSOUDPL4 uint8 = 5
	// GSOECN is a bit on top of the TCP types.
	GSOECN uint8 = 0x80
)

// Offload says what of a packet is left to be done by hardware or by the
// kernel. The zero value is a packet that is complete as it is.
type Offload struct {
	// NeedsChecksum says that the transport checksum field holds only the
	// sum of the pseudo-header; the rest is to be added over
	// Data[ChecksumStart:] and written at ChecksumStart+ChecksumOffset.
	NeedsChecksum  bool
	ChecksumStart  uint16 // bytes from the start of Data
	ChecksumOffset uint16 // bytes from ChecksumStart
	GSOType        uint8
	GSOSize        uint16 // payload bytes of one segment
	HeaderLen      uint16 // bytes of headers in front of the payload, from the start of Data; a hint
}
