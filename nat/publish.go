// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// Publish makes everything that was said since the last Publish visible to the
// Forwarders, at once and as a whole. They take it up with their next batch.
func (r *Rules) Publish() {
	s := &snapshot{settings: r.settings, idle: len(r.byKey) == 0, serial: r.versions}
	r.versions++
	for _, p := range r.ports {
		if p.Index < MaxPorts {
			p.addrs = nil
			for _, a := range p.Addrs {
				p.addrs = append(p.addrs, connected{conntrack.AddrFrom(a.Addr()), newPrefix(a)})
			}
			s.ports[p.Index] = p
		}
	}
	s.routes = newRouteTable(r.routes, &s.ports)

	s.server = make([]serverEntry, len(r.servers.all))
	for i, d := range r.servers.all {
		if d == nil {
			continue
		}
		e := serverEntry{
			dest:   conntrack.Endpoint{Addr: conntrack.AddrFrom(d.Addr), Port: d.Port},
			server: d.sched, service: conntrack.NoSlot, gone: d.gone, drain: d.drain, serial: d.serial, method: d.Method,
		}
		if !d.service.deleted {
			e.service = d.service.slot
		}
		e.hop = s.routes.lookup(&e.dest.Addr)
		r.publishEnds(s, d, &e)
		s.server[i] = e
	}
	var inner []ownEntry
	known := make(map[netip.Addr]bool)
	for _, d := range r.servers.all {
		if d != nil && d.replies && !known[d.Addr] {
			known[d.Addr] = true
			inner = append(inner, ownEntry{addr: conntrack.AddrFrom(d.Addr)})
		}
	}
	s.inner = newOwnTable(inner)
	s.service = make([]serviceEntry, len(r.services.all))
	for i, v := range r.services.all {
		if v == nil {
			continue
		}
		e := serviceEntry{
			key:  serviceKey{conntrack.Endpoint{Addr: conntrack.AddrFrom(v.Addr), Port: v.Port}, v.Proto},
			mark: v.Mark, pool: v.pool, noServer: v.NoServer, serial: v.serial,
			persist: newPersistence(v.Persistence, v.Addr.Is4()), onePacket: v.OnePacket, helper: v.Helper,
		}
		s.helpers = s.helpers || v.Helper != NoHelper
		s.ftpData = s.ftpData || v.takesFTPData()
		s.anyPort = s.anyPort || v.Port == 0 && v.Mark == 0
		for _, d := range v.servers {
			e.servers = append(e.servers, d.slot)
		}
		s.service[i] = e
	}
	s.services = newServiceTable(s.service)
	s.endpoint = newEndpointTable(r.ServerPorts())
	r.publishOnce(s)

	r.publishOwn(s)
	s.marks = r.newMarkTable(s)
	r.publishTunnels(s)
	r.publishLocals(s)
	r.current.Store(s)
}

// publishOwn fills in the addresses of ours, the SNAT rules that lead to them,
// and the ports that may not be handed out.
func (r *Rules) publishOwn(s *snapshot) {
	s.own = r.ownTable()
	for _, a := range r.host.Addrs {
		s.host = append(s.host, conntrack.AddrFrom(a))
	}
	for _, p := range r.owned {
		s.owned = append(s.owned, connected{conntrack.AddrFrom(p.Addr()), newPrefix(p)})
	}
	for _, rule := range r.snats {
		to := conntrack.AddrFrom(rule.To)
		s.snat = append(s.snat, snatRule{
			from: newPrefix(rule.From), to: to, own: s.own.find(&to), min: rule.MinPort, max: rule.MaxPort,
		})
		s.inside = append(s.inside, newPrefix(rule.From))
	}
	slices.SortStableFunc(s.snat, func(a, b snatRule) int { return int(b.from.bits) - int(a.from.bits) })

	s.reserved = r.reserves(&s.own)
}

func (r *Rules) ownTable() ownTable {
	var entries []ownEntry
	for _, a := range r.Ours() {
		entries = append(entries, ownEntry{
			addr: conntrack.AddrFrom(a.Addr), onHost: a.OnHost, service: a.Service, snat: a.SNAT, local: a.Local,
			leaving: a.SNAT && !a.Service && !a.Local && !slices.ContainsFunc(r.snats, func(s SNATSpec) bool { return s.To == a.Addr }),
			mapped:  r.mappedPorts(a.Addr),
			held:    !a.OnHost && slices.Contains(r.held, a.Addr),
		})
	}
	return newOwnTable(entries)
}

// hairpinPorts are handed out of an address that the host has and that no SNAT
// rule leads to. The kernel's default for its own connections ends below.
var hairpinPorts = [2]uint16{61000, lastHostPort}

// lastHostPort is the highest port that is handed out of an address that the
// host has: a routing rule of the kernel cannot name 65535 (fib_rules.h,
// fib_rule_port_range_valid), and io: tun needs such rules.
const lastHostPort = 65534

// reserves says for each address of ours which ports may be handed out: never
// those of services, and of an address that the host has too, never those that
// its sockets hold or that it takes for its own connections.
func (r *Rules) reserves(own *ownTable) []portReserve {
	list := make([]portReserve, len(own.entries))
	for k := range r.byKey {
		addr := conntrack.AddrFrom(k.Addr)
		if k.Mark == 0 {
			list[own.find(&addr)].add(k.Proto, k.Port)
		}
	}
	r.reserveMarked(own, list)
	for i := range own.entries {
		e, p := &own.entries[i], &list[i]
		if !e.onHost {
			p.spans = e.freeSpans()
			continue
		}
		addr := e.addr.Netip()
		for _, b := range r.host.Busy {
			if b.Addr == addr || b.Addr.IsUnspecified() && b.Addr.Is4() == addr.Is4() {
				p.add(b.Proto, b.Port)
			}
		}
		if (e.service || e.local) && !e.snat {
			p.allow(hairpinPorts, r.host.EphemeralMin, r.host.EphemeralMax)
		}
	}
	for _, rule := range r.heldSNATs() {
		to := conntrack.AddrFrom(rule.To)
		i := own.find(&to)
		if !own.entries[i].onHost {
			continue
		}
		span := [2]uint16{1, lastHostPort}
		if rule.MaxPort != 0 {
			span = [2]uint16{rule.MinPort, min(rule.MaxPort, lastHostPort)}
		}
		list[i].allow(span, r.host.EphemeralMin, r.host.EphemeralMax)
	}
	r.allowFTPData(own, list)
	return list
}

func (p *portReserve) add(proto uint8, port uint16) {
	if i := protoIndex(proto); i < len(p.ports) {
		p.ports[i] = append(p.ports[i], port)
	}
}

// allow adds what of span lies outside lo to hi.
func (p *portReserve) allow(span [2]uint16, lo, hi uint16) {
	if hi == 0 || span[1] < lo || span[0] > hi {
		p.spans = append(p.spans, span)
		return
	}
	if span[0] < lo {
		p.spans = append(p.spans, [2]uint16{span[0], lo - 1})
	}
	if span[1] > hi {
		p.spans = append(p.spans, [2]uint16{hi + 1, span[1]})
	}
}

// HostPorts are ports of an address that the host has, which connections from
// inside may be given. The host must not answer on them.
type HostPorts struct {
	Addr     netip.Addr
	Min, Max uint16
	Except   []uint16 // held by services and by sockets of the host
}

// HostPorts lists them, as the next Publish will have them.
func (r *Rules) HostPorts() []HostPorts {
	own := r.ownTable()
	reserves := r.reserves(&own)
	var list []HostPorts
	for i := range own.entries {
		if !own.entries[i].onHost {
			continue
		}
		p := &reserves[i]
		except := slices.Concat(p.ports[:]...)
		slices.Sort(except)
		except = slices.Compact(except)
		for _, span := range p.spans {
			list = append(list, HostPorts{Addr: own.entries[i].addr.Netip(), Min: span[0], Max: span[1], Except: except})
		}
	}
	return list
}

// Ours lists the addresses that packets are taken for: those of services, also
// by mark rules to a single address, those of SNAT rules, local ones, and the owned
// ones, each once, in the order of addresses.
func (r *Rules) Ours() []OwnAddress {
	var list []OwnAddress
	at := make(map[netip.Addr]int)
	entry := func(a netip.Addr) *OwnAddress {
		i, ok := at[a]
		if !ok {
			i = len(list)
			at[a] = i
			list = append(list, OwnAddress{Addr: a, OnHost: slices.Contains(r.host.Addrs, a)})
		}
		return &list[i]
	}
	for k := range r.byKey {
		if k.Mark == 0 {
			entry(k.Addr).Service = true
		}
	}
	for _, m := range r.MarkedTraffic() {
		if m.To.IsSingleIP() {
			entry(m.To.Addr()).Service = true
		}
	}
	for _, s := range r.heldSNATs() {
		entry(s.To).SNAT = true
	}
	for _, p := range r.owned {
		entry(p.Addr())
	}
	for _, a := range r.localsInUse() {
		entry(a).Local = true
	}
	slices.SortFunc(list, func(a, b OwnAddress) int { return a.Addr.Compare(b.Addr) })
	return list
}

// A ServiceInfo is a copy of a service for listings. Its counters are kept by
// the Forwarders: see Forwarder.Counters, by the slots given here.
type ServiceInfo struct {
	ServiceSpec
	Slot    uint32
	Serial  uint64       // of this service alone, while Rules lives
	Servers []ServerInfo // newest first, as the kernel keeps them
}

// A ServerInfo is a copy of a real server for listings.
type ServerInfo struct {
	ServerSpec
	Slot       uint32
	Serial     uint64
	Active     int
	Inactive   int
	Persistent int // templates, retired ones too
	Overloaded bool
	Replies    bool // what it sends passes us: it masquerades, or did
	FullNAT    bool // its new connections get full NAT
}

// HasService reports whether there is a service of that name.
func (r *Rules) HasService(k ServiceKey) bool { return r.byKey[k] != nil }

// Services returns copies, newest service last.
func (r *Rules) Services() []ServiceInfo {
	var list []ServiceInfo
	live := slices.DeleteFunc(slices.Clone(r.services.all), func(s *service) bool { return s == nil })
	slices.SortFunc(live, func(a, b *service) int { return int(int64(a.place) - int64(b.place)) })
	for _, v := range live {
		info := ServiceInfo{ServiceSpec: v.ServiceSpec, Slot: v.slot, Serial: v.serial}
		for _, d := range v.servers {
			info.Servers = append(info.Servers, ServerInfo{
				ServerSpec: d.ServerSpec, Slot: d.slot, Serial: d.serial,
				Active: d.sched.Active(), Inactive: d.sched.Inactive(), Persistent: d.sched.Templates(), Overloaded: d.sched.Overloaded(),
				Replies: d.replies, FullNAT: d.hides(),
			})
		}
		list = append(list, info)
	}
	return list
}

// SNATs returns the rules in the order in which they were added.
func (r *Rules) SNATs() []SNATSpec { return slices.Clone(r.snats) }

// Capacity returns how many ports of a protocol a rule can hand out, before
// those that services and the host hold are taken off.
func (r *Rules) Capacity(s SNATSpec) int {
	own := r.ownTable()
	to := conntrack.AddrFrom(s.To)
	n := 0
	if i := own.find(&to); i >= 0 {
		for _, span := range r.reserves(&own)[i].spans {
			lo, hi := span[0], span[1]
			if s.MaxPort != 0 {
				lo, hi = max(lo, s.MinPort), min(hi, s.MaxPort)
			}
			if lo <= hi {
				n += int(hi) - int(lo) + 1
			}
		}
	}
	return n
}
