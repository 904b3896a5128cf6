// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Counters are those of a service or of a server. Bytes are the lengths of IP
// packets, as IPVS counts them.
type Counters struct {
	Conns                 uint64
	InPackets, OutPackets uint64
	InBytes, OutBytes     uint64
}

// Add adds what another Forwarder counted.
func (c *Counters) Add(o Counters) {
	c.Conns += o.Conns
	c.InPackets += o.InPackets
	c.OutPackets += o.OutPackets
	c.InBytes += o.InBytes
	c.OutBytes += o.OutBytes
}

// counters are a Forwarder's own: plain numbers, written with each packet and
// copied between batches.
type counters struct {
	verdicts               [Elsewhere + 1]uint64
	drops                  [NumReasons]uint64
	suppressed             [NumReasons]uint64 // answers that were not given
	removals               [conntrack.NumRemovals]uint64
	expiredOpen, farewells uint64
	refusedOnHost          uint64
	strange                uint64
	snat                   Counters
	retired                Counters // of services that are deleted
	services               []slotCounters
	servers                []slotCounters
}

type slotCounters struct {
	Counters
	serial  uint64        // of the user of the slot
	signals ServerSignals // of a server
}

// sync makes room for the slots of a snapshot, and begins at zero for those
// that changed hands.
func (k *counters) sync(s *snapshot) {
	for len(k.services) < len(s.service) {
		k.services = append(k.services, slotCounters{})
	}
	for i := range s.service {
		if k.services[i].serial != s.service[i].serial {
			k.retired.Add(k.services[i].Counters)
			k.services[i] = slotCounters{serial: s.service[i].serial}
		}
	}
	for len(k.servers) < len(s.server) {
		k.servers = append(k.servers, slotCounters{})
	}
	for i := range s.server {
		if k.servers[i].serial != s.server[i].serial {
			k.servers[i] = slotCounters{serial: s.server[i].serial}
		}
	}
}

// opened counts a connection of a service; one of SNAT is counted by its caller.
func (k *counters) opened(service, server uint32) {
	k.services[service].Conns++
	k.servers[server].Conns++
}

// count notes a packet of an entry. The service is that of the server now: the
// slot that the entry was made under may have changed hands since.
func (f *Forwarder) count(c *conntrack.Conn, dir conntrack.Direction, bytes int) {
	f.counted = counted{server: c.Server, dir: dir}
	if c.Flags&conntrack.OnePacket != 0 {
		f.counted.server = nobody
	}
	f.add(f.counted.server, dir, 1, bytes)
	f.weigh(c, bytes)
}

// nobody is whom the answers of one-packet scheduling are counted to.
const nobody = conntrack.NoSlot - 1

// counted says to whom a packet was counted, for the rest of its datagram.
type counted struct {
	server uint32 // NoSlot: to SNAT; or nobody
	dir    conntrack.Direction
}

func (f *Forwarder) add(server uint32, dir conntrack.Direction, packets, bytes int) {
	k := &f.counters
	if server == nobody {
		return
	}
	if server == conntrack.NoSlot {
		k.snat.count(dir, packets, bytes)
		return
	}
	k.add(f.snap.server[server].service, server, dir, packets, bytes)
}

func (k *counters) add(service, server uint32, dir conntrack.Direction, packets, bytes int) {
	if service != conntrack.NoSlot {
		k.services[service].count(dir, packets, bytes)
	}
	k.servers[server].count(dir, packets, bytes)
}

func (c *Counters) count(dir conntrack.Direction, packets, bytes int) {
	if dir == conntrack.Inbound {
		c.InPackets += uint64(packets)
		c.InBytes += uint64(bytes)
		return
	}
	c.OutPackets += uint64(packets)
	c.OutBytes += uint64(bytes)
}

// Stats is a copy of everything that a Forwarder counts.
type Stats struct {
	Passed, Forwarded, Dropped, Held uint64
	Elsewhere                        uint64             // packets that belonged to another Forwarder
	Strange                          uint64             // packets that met a connection, or were to begin one, where it does not belong
	Drops                            [NumReasons]uint64 // by Reason
	Suppressed                       [NumReasons]uint64 // answers not given, by Reason
	Removals                         [conntrack.NumRemovals]uint64
	ExpiredOpen                      uint64 // TCP connections that timed out before they had ended
	Farewells                        uint64 // RSTs and ICMP errors to the ends of connections that ended here
	Defence                          Defence
	Shortcuts                        ShortcutStats
	SNAT                             Counters
	Retired                          Counters   // of services that are deleted
	Services                         []Counters // by slot
	Servers                          []Counters // by slot

	Conns, MaxConns int
	Classes         [conntrack.NumClasses]int
	States          [conntrack.NumStates]int
	Mappings        []PoolStats
	Bytes           int64 // memory claimed
}

// PoolStats says how many ports of an address are mapped.
type PoolStats struct {
	Addr     conntrack.Addr
	Mappings int
}

// Stats copies the counters. It is to be called between batches.
func (f *Forwarder) Stats() Stats {
	f.countShortcuts()
	k := &f.counters
	s := Stats{
		Passed: k.verdicts[Pass], Forwarded: k.verdicts[Forward], Dropped: k.verdicts[Drop], Held: k.verdicts[Hold],
		Elsewhere: k.verdicts[Elsewhere], Strange: k.strange,
		Drops: k.drops, Suppressed: k.suppressed, Removals: k.removals, SNAT: k.snat, Retired: k.retired,
		ExpiredOpen: k.expiredOpen, Farewells: k.farewells, Defence: f.Defence(), Shortcuts: f.shortcuts.stats,
		Conns: f.table.Len(), MaxConns: f.table.Cap(), Classes: f.table.Counts(), States: f.table.States(), Bytes: f.bytes(),
	}
	for i := range k.services {
		s.Services = append(s.Services, k.services[i].Counters)
	}
	for i := range k.servers {
		s.Servers = append(s.Servers, k.servers[i].Counters)
	}
	s.Mappings = f.mapper.stats()
	return s
}

// Add adds what another Forwarder of the same Rules counted. Port mappings are of all
// of them, whoever says so.
func (s *Stats) Add(o *Stats) {
	s.Passed += o.Passed
	s.Forwarded += o.Forwarded
	s.Dropped += o.Dropped
	s.Held += o.Held
	s.Elsewhere += o.Elsewhere
	s.Strange += o.Strange
	for i := range s.Drops {
		s.Drops[i] += o.Drops[i]
		s.Suppressed[i] += o.Suppressed[i]
	}
	for i := range s.Removals {
		s.Removals[i] += o.Removals[i]
	}
	s.ExpiredOpen += o.ExpiredOpen
	s.Farewells += o.Farewells
	s.Defence.Add(o.Defence)
	s.Shortcuts.add(&o.Shortcuts)
	s.SNAT.Add(o.SNAT)
	s.Retired.Add(o.Retired)
	s.Services = addCounters(s.Services, o.Services)
	s.Servers = addCounters(s.Servers, o.Servers)
	s.Conns += o.Conns
	s.MaxConns += o.MaxConns
	for i := range s.Classes {
		s.Classes[i] += o.Classes[i]
	}
	for i := range s.States {
		s.States[i] += o.States[i]
	}
	s.Mappings = o.Mappings
	s.Bytes += o.Bytes
}

func addCounters(to, from []Counters) []Counters {
	for len(to) < len(from) {
		to = append(to, Counters{})
	}
	for i := range from {
		to[i].Add(from[i])
	}
	return to
}

// RefusedOnHost is how many packets were refused on an address that the host has
// too, because a port of SNAT is there and nothing of the host was known of: a socket
// may have been opened since. It costs nothing, unlike Stats.
func (f *Forwarder) RefusedOnHost() uint64 { return f.counters.refusedOnHost }
