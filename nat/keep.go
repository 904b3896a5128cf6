// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"net/netip"

	"github.com/vsnat/vsnat/conntrack"
)

// What Forwarders know of connections, as records for those that come after them
// (restore.go): in another process, of perhaps another version, another number of them,
// and under rules that have changed meanwhile. So a record says what things are and not
// where they are kept:
//
//	RecordServer   a number for a server, by its service and its endpoint
//	RecordLink     a number for a port, by its link
//	RecordFTP      what is known of the control connection that follows
//	RecordConn     a connection, with the numbers above (conntrack.Record)
//
// Each comes after those that it refers to, and a connection after its parent. Kinds and
// forms can be added to: a reader passes over kinds it does not know, and over the rest
// of a record that is longer than it knows.
//
// Not written down are templates that have retired, connections of a service that is
// deleted, fragments, what is counted, and where schedulers stand.

// A RecordKind says what a record is about. From RecordKinds on they are somebody else's.
type RecordKind uint8

// The kinds of records.
const (
	RecordServer RecordKind = 1 + iota
	RecordLink
	RecordFTP
	RecordConn

	RecordKinds RecordKind = 64
)

// MaxRecord is more than any record of these kinds has, in bytes.
const MaxRecord = 1 << 10

// Save writes down all connections of Forwarders that no one uses any more, or none does
// for as long. now is the time on their clock. emit may keep nothing of a record; its first
// error ends it and is returned.
func Save(forwarders []*Forwarder, now conntrack.Time, emit func(RecordKind, []byte) error) error {
	s := saver{emit: emit, now: now}
	s.places(forwarders[0].snap)
	for _, f := range forwarders {
		s.conns(f)
	}
	return s.err
}

// A saver is a Save at work.
type saver struct {
	emit func(RecordKind, []byte) error
	err  error
	now  conntrack.Time
	body []byte
	last uint32 // number of a parent
}

func (s *saver) write(k RecordKind, body []byte) {
	s.body = body[:0]
	if s.err == nil {
		s.err = s.emit(k, body)
	}
}

// places numbers servers and ports as the snapshot does.
func (s *saver) places(snap *snapshot) {
	for i := range snap.server {
		if e := &snap.server[i]; e.saved() {
			v := &snap.service[e.service]
			k := ServiceKey{Proto: v.key.proto, Addr: v.key.Addr.Netip(), Port: v.key.Port}
			if v.mark != 0 {
				k = markKey(v.mark, v.key.Addr.Is4())
			}
			s.write(RecordServer, appendServer(s.body, uint32(i), k, e.server.Addr))
		}
	}
	for i := range snap.ports {
		if name := snap.ports[i].Name; name != "" {
			s.write(RecordLink, append(binary.BigEndian.AppendUint16(s.body, uint16(i)), name...))
		}
	}
}

// saved says whether connections of a server are written down.
func (e *serverEntry) saved() bool { return e.server != nil && e.service != conntrack.NoSlot }

// conns writes down the connections of one Forwarder, generation by generation.
func (s *saver) conns(f *Forwarder) {
	f.countShortcuts()
	numbers := make(map[uint32]uint32) // of parents, by slot
	for generation, more := 0, true; more; generation++ {
		more = false
		for i := range f.table.Extent() {
			c := f.table.At(i)
			if c == nil || c.Retired() || c.Server != conntrack.NoSlot && !f.snap.server[c.Server].saved() {
				continue
			}
			switch n := f.generation(c); {
			case n == generation:
				s.conn(f, c, numbers)
			case n > generation:
				more = true
			}
		}
	}
}

// generation is how many ancestors an entry has that are written down.
func (f *Forwarder) generation(c *conntrack.Conn) (n int) {
	for p := f.table.Parent(c); p != nil && !p.Retired(); p = f.table.Parent(p) {
		n++
	}
	return n
}

func (s *saver) conn(f *Forwarder, c *conntrack.Conn, numbers map[uint32]uint32) {
	r := c.Record(s.now)
	if p := f.table.Parent(c); p != nil {
		r.Parent = numbers[f.table.Slot(p)]
	}
	if c.Children() > 0 {
		s.last++
		r.Number = s.last
		numbers[f.table.Slot(c)] = r.Number
	}
	if k := f.ftp.find(f.table.Slot(c)); k != nil && c.Flags&conntrack.Helped != 0 {
		s.write(RecordFTP, k.append(s.body))
	}
	s.write(RecordConn, r.Append(s.body))
}

// appendServer is a record of a server: its number, the service's protocol, mark and
// port, its own port, and both addresses.
func appendServer(b []byte, number uint32, k ServiceKey, server netip.AddrPort) []byte {
	b = binary.BigEndian.AppendUint32(b, number)
	b = append(b, k.Proto)
	b = binary.BigEndian.AppendUint32(b, k.Mark)
	b = binary.BigEndian.AppendUint16(b, k.Port)
	b = binary.BigEndian.AppendUint16(b, server.Port())
	service, at := k.Addr.As16(), server.Addr().As16()
	b = append(b, service[:]...)
	return append(b, at[:]...)
}

const serverRecord = 4 + 1 + 4 + 2 + 2 + 16 + 16

// readServer reads one. It reports false if it is cut.
func readServer(b []byte) (number uint32, k ServiceKey, server netip.AddrPort, ok bool) {
	if len(b) < serverRecord {
		return 0, ServiceKey{}, netip.AddrPort{}, false
	}
	number = binary.BigEndian.Uint32(b)
	k = ServiceKey{
		Proto: b[4], Mark: binary.BigEndian.Uint32(b[5:]), Port: binary.BigEndian.Uint16(b[9:]),
		Addr: netip.AddrFrom16([16]byte(b[13:])).Unmap(),
	}
	server = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[29:])).Unmap(), binary.BigEndian.Uint16(b[11:]))
	return number, k, server, true
}
