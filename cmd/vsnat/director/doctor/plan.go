// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/iface"
)

// plan is what a configuration means on this host.
type plan struct {
	cfg     *config.Config
	served  []iface.Link
	refused error // names of the configuration that select no link
	ours    []address
	servers []*server
}

// An address is one of ours.
type address struct {
	addr   netip.Addr
	onHost bool
	link   iface.Link // where its network is; Index 0: on none of ours
}

// A server is a real server with all that it serves.
type server struct {
	addr    netip.Addr
	ports   []control.ServiceKey // protocol, and address:port at the server, of what can be asked
	virtual []netip.Addr         // of what is sent to it as it came (direct routing)
	masked  bool                 // some of what it serves is masqueraded: it has to answer by us
	link    iface.Link           // Index 0: there is no way to it
	hop     netip.Addr           // whom its frames go to: itself, or a router
	inside  netip.Addr           // address of ours in its network, or invalid
	outside netip.Addr           // address of ours outside it, or invalid
}

// station is where the frames for a server go.
func (s *server) station() place { return place{s.link.Index, s.hop} }

// newPlan makes it. Owned addresses can be asked from if a director answers for
// them.
func newPlan(cfg *config.Config, f *facts, running bool) plan {
	p := plan{cfg: cfg}
	p.served, p.refused = f.topology.Serving(cfg.Interfaces)
	p.addOurs(f)
	for _, s := range cfg.Services {
		for _, v := range s.Servers {
			p.addServer(&s, &v)
		}
	}
	for _, s := range p.servers {
		p.locate(s, f, running)
	}
	return p
}

func (p *plan) addOurs(f *facts) {
	add := func(a netip.Addr) {
		if !a.IsValid() || a.IsUnspecified() || slices.ContainsFunc(p.ours, func(o address) bool { return o.addr == a }) {
			return
		}
		o := address{addr: a}
		for _, l := range f.topology.Links {
			for _, n := range l.Addrs {
				o.onHost = o.onHost || n.Addr() == a
				if n.Contains(a) && n.Bits() < a.BitLen() && p.serves(l) {
					o.link = l
				}
			}
		}
		if o.link.Index == 0 {
			if l, hop := p.way(f, a); hop == a {
				o.link = l
			}
		}
		p.ours = append(p.ours, o)
	}
	for _, s := range p.cfg.Services {
		if !s.ByMark() {
			add(s.Address.Addr())
		}
	}
	for _, s := range p.cfg.SNAT {
		add(s.To)
	}
	for _, a := range p.cfg.Addresses {
		add(a.Addr())
	}
	for _, l := range p.served {
		for _, n := range l.Addrs {
			if !n.Addr().IsLinkLocalUnicast() {
				add(n.Addr())
			}
		}
	}
}

func (p *plan) serves(l iface.Link) bool {
	return slices.ContainsFunc(p.served, func(s iface.Link) bool { return s.Index == l.Index })
}

func (p *plan) addServer(s *config.Service, v *control.ServerSpec) {
	addr := v.Address.Addr()
	i := slices.IndexFunc(p.servers, func(o *server) bool { return o.addr == addr })
	if i < 0 {
		i = len(p.servers)
		p.servers = append(p.servers, &server{addr: addr})
	}
	t := p.servers[i]
	key := control.ServiceKey{Proto: s.Proto, Address: v.Address}
	switch v.Method {
	case control.MethodRoute:
		if s.ByMark() {
			return
		}
		t.virtual = append(t.virtual, s.Address.Addr())
	case control.MethodTunnel:
	default:
		t.masked = true
		if !s.ByMark() && key.Address.Port() != 0 && !slices.Contains(t.ports, key) {
			t.ports = append(t.ports, key)
		}
	}
}

// locate finds the way to a server, and the addresses to ask it from.
func (p *plan) locate(s *server, f *facts, running bool) {
	s.link, s.hop = p.way(f, s.addr)
	if s.link.Index == 0 {
		return
	}
	near := func(a netip.Addr) bool {
		return slices.ContainsFunc(s.link.Addrs, func(n netip.Prefix) bool { return n.Contains(a) }) ||
			slices.ContainsFunc(p.cfg.Addresses, func(n netip.Prefix) bool { return n.Contains(s.addr) && n.Contains(a) })
	}
	for _, n := range s.link.Addrs {
		if n.Addr().Is4() == s.addr.Is4() && !n.Addr().IsLinkLocalUnicast() && (n.Contains(s.addr) || s.hop != s.addr) {
			s.inside = n.Addr()
			break
		}
	}
	for _, n := range p.cfg.Addresses {
		if running && !s.inside.IsValid() && n.Contains(s.addr) {
			s.inside = n.Addr()
		}
	}
	for _, o := range p.ours {
		if o.addr.Is4() == s.addr.Is4() && !near(o.addr) && o.addr != s.addr && !slices.Contains(s.virtual, o.addr) {
			s.outside = o.addr
			break
		}
	}
}

// way is the link by which an address is reached, and the next hop: by the routes
// of the configuration, then by those of the host.
func (p *plan) way(f *facts, to netip.Addr) (iface.Link, netip.Addr) {
	for _, r := range p.cfg.Routes {
		if !r.Destination.Contains(to) {
			continue
		}
		hop := to
		if r.Via.IsValid() {
			hop = r.Via
		}
		if l, ok := f.topology.LinkByName(r.Interface); ok {
			return l, hop
		}
		if r.Via.IsValid() {
			l, _ := p.wayOfHost(f, r.Via)
			return l, hop
		}
	}
	return p.wayOfHost(f, to)
}

func (p *plan) wayOfHost(f *facts, to netip.Addr) (iface.Link, netip.Addr) {
	for _, r := range f.topology.Routes {
		if !r.Dst.Contains(to) {
			continue
		}
		l, _ := f.topology.LinkByIndex(r.Link)
		if r.Gateway.IsValid() {
			return l, r.Gateway
		}
		return l, to
	}
	return iface.Link{}, netip.Addr{}
}
