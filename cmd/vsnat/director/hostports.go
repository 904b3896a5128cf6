// SPDX-License-Identifier: Apache-2.0

package director

import (
	"slices"
	"time"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// What the host has for itself: addresses, ports that its sockets are bound to,
// and the range that it takes ports from.

// readHost takes up the host's addresses and busy ports. What can't be read is
// taken to be as it was.
func (d *director) readHost() {
	h := nat.HostAddresses{Busy: d.world.host.Busy, EphemeralMin: d.world.host.EphemeralMin, EphemeralMax: d.world.host.EphemeralMax}
	for _, l := range d.world.topology.Links {
		for _, a := range l.Addrs {
			h.Addrs = append(h.Addrs, a.Addr())
		}
	}
	if lo, hi, err := iface.EphemeralRange(); err == nil {
		h.EphemeralMin, h.EphemeralMax = lo, hi
	} else {
		d.warn("ephemeral ports", "ephemeral ports", err.Error())
	}
	if busy, err := iface.BusyPorts(); err == nil {
		h.Busy = busyEndpoints(busy, h.EphemeralMin, h.EphemeralMax)
	} else {
		d.warn("busy ports", "busy ports", err.Error())
	}
	d.world.host, d.world.hostRead = h, time.Now()
}

// busyEndpoints leaves out what can't meet a port of ours: the host's ephemeral
// ports are never handed out, and loopback addresses are never ours.
func busyEndpoints(busy []iface.BusyPort, lo, hi uint16) []nat.BusyEndpoint {
	var list []nat.BusyEndpoint
	for _, b := range busy {
		if b.Port >= lo && b.Port <= hi || b.Addr.IsLoopback() {
			continue
		}
		list = append(list, nat.BusyEndpoint{Proto: b.Proto, Addr: b.Addr, Port: b.Port})
	}
	return list
}

func sharesAddress(own []nat.OwnAddress) bool {
	return slices.ContainsFunc(own, func(a nat.OwnAddress) bool { return a.OnHost })
}

// hostAsked is called by the shard when it refused what may be for a socket of the
// host that was opened a moment ago. The host is asked once a second at most.
func (d *director) hostAsked() {
	d.tell(func() {
		if time.Since(d.world.hostRead) >= tickEvery {
			d.refreshHost()
		} else {
			d.world.hostAsked = true // by the next tick
		}
	})
}

// refreshHost follows the host's sockets, where it shares an address with us.
func (d *director) refreshHost() {
	d.world.hostAsked = false
	if !sharesAddress(d.rules.Ours()) {
		return
	}
	old := d.world.host
	d.readHost()
	if h := d.world.host; slices.Equal(old.Busy, h.Busy) && old.EphemeralMin == h.EphemeralMin && old.EphemeralMax == h.EphemeralMax {
		return
	}
	d.rules.SetHost(d.world.host)
	d.publish()
}
