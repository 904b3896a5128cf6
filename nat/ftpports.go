// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// What the rules have to know of data connections of FTP: the ports that are ours
// because of a service with the helper. Those of passive ones are handed out as
// those of SNAT are, and reserved there.

// ftpDataPort is the port of active data connections at an end whose control
// connection has port; false if there is none below. Port 0 stands for all.
func ftpDataPort(port uint16) (uint16, bool) {
	if port == 0 {
		port = portFTP
	}
	return port - 1, port > 1
}

// takesFTPData reports whether a service takes data connections of its clients that
// no control connection has announced, by their port alone: behind TLS nothing can be
// read, and with direct routing replies pass nobody. The template says which server
// is the client's, so that it has to be persistent.
func (s *ServiceSpec) takesFTPData() bool {
	return s.Proto == ProtoTCP && s.Port == portFTP && s.Persistence.Timeout > 0
}

// mayBeFTPData tells whether a port of a service's address is one of such data.
func mayBeFTPData(port uint16) bool { return port == portFTP-1 || port >= firstFTPPort }

// ftpDataService returns the slot of the service that takes t for FTP data, or -1. Of
// an address that the host has it gets no port that the host has for itself.
func (s *snapshot) ftpDataService(t *conntrack.Tuple) int32 {
	if t.Proto != ProtoTCP || !mayBeFTPData(t.Dst.Port) {
		return -1
	}
	slot := s.services.find(&serviceKey{conntrack.Endpoint{Addr: t.Dst.Addr, Port: portFTP}, t.Proto})
	if slot < 0 || s.service[slot].persist.life == 0 {
		return -1
	}
	own := s.own.find(&t.Dst.Addr)
	if own >= 0 && s.own.entries[own].onHost && !s.reserved[own].leaves(t.Proto, t.Dst.Port) {
		return -1
	}
	return slot
}

// allowFTPData adds ports of data to what is ours of an address that the host has, so
// that the host does not answer for them: that below the port of each service with
// the helper, and all that may be for a service that takes them unannounced.
func (r *Rules) allowFTPData(own *ownTable, list []portReserve) {
	for k, s := range r.byKey {
		addr := conntrack.AddrFrom(k.Addr)
		i := own.find(&addr)
		if k.Mark != 0 || !own.entries[i].onHost {
			continue
		}
		if port, ok := ftpDataPort(k.Port); ok && (s.Helper == HelperFTP || s.takesFTPData()) && !list[i].covers(port) {
			list[i].allow([2]uint16{port, port}, r.host.EphemeralMin, r.host.EphemeralMax)
		}
		if s.takesFTPData() {
			list[i].allow([2]uint16{firstFTPPort, lastHostPort}, r.host.EphemeralMin, r.host.EphemeralMax)
		}
	}
}

// addFTPData adds the ports that a server sends data of FTP from.
func (d *server) addFTPData(list []ServerPorts) []ServerPorts {
	s := &d.last
	if !d.gone {
		s = &d.service.ServiceSpec
	}
	if port, ok := ftpDataPort(d.Port); ok && s.Helper == HelperFTP {
		list = append(list, ServerPorts{Proto: ProtoTCP, Addr: d.Addr, Min: port, Max: port})
	}
	if s.takesFTPData() {
		list = append(list, ServerPorts{Proto: ProtoTCP, Addr: d.Addr, Min: portFTP - 1, Max: portFTP - 1},
			ServerPorts{Proto: ProtoTCP, Addr: d.Addr, Min: firstFTPPort, Max: 65535})
	}
	return list
}
