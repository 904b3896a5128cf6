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

// allowFTPData adds the port below that of each service with the helper to what is
// ours of an address that the host has, so that the host does not answer for it.
func (r *Rules) allowFTPData(own *ownTable, list []portReserve) {
	for k, s := range r.byKey {
		port, ok := ftpDataPort(k.Port)
		if s.Helper != HelperFTP || k.Mark != 0 || !ok {
			continue
		}
		addr := conntrack.AddrFrom(k.Addr)
		i := own.find(&addr)
		if p := &list[i]; own.entries[i].onHost && !p.covers(port) {
			p.allow([2]uint16{port, port}, r.host.EphemeralMin, r.host.EphemeralMax)
		}
	}
}

// helps reports whether connections to a server have the helper, or had it when it
// was deleted.
func (d *server) helps() bool {
	if d.gone {
		return d.last.Helper == HelperFTP
	}
	return d.service.Helper == HelperFTP
}
