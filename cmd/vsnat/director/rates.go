// SPDX-License-Identifier: Apache-2.0

package director

import (
	"strconv"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// rates are running means, made as the kernel's estimator makes them: a sample
// every two seconds, of which a quarter is taken (net/netfilter/ipvs/
// ip_vs_est.c). Fixed point: packets and connections have 10 fraction bits,
// bytes 5.
type rates struct {
	all map[uint64]*rate // by serial
}

// totalSerial stands for the total among serials, which begin at 1.
const totalSerial = 0

type rate struct {
	last                              nat.Counters
	cps, inPPS, outPPS, inBPS, outBPS uint64
	seen                              bool
}

func (r *rates) sample(serial uint64, now nat.Counters) {
	if r.all == nil {
		r.all = make(map[uint64]*rate)
	}
	e := r.all[serial]
	if e == nil {
		e = &rate{}
		r.all[serial] = e
	}
	step := func(avg *uint64, delta uint64, shift uint) {
		*avg = uint64(int64(*avg) + (int64(delta<<shift)-int64(*avg))>>2)
	}
	step(&e.cps, now.Conns-e.last.Conns, 9)
	step(&e.inPPS, now.InPackets-e.last.InPackets, 9)
	step(&e.outPPS, now.OutPackets-e.last.OutPackets, 9)
	step(&e.inBPS, now.InBytes-e.last.InBytes, 4)
	step(&e.outBPS, now.OutBytes-e.last.OutBytes, 4)
	e.last, e.seen = now, true
}

// reset begins at zero, from the next sample on.
func (r *rates) reset(serial uint64) {
	if e := r.all[serial]; e != nil {
		*e = rate{last: e.last, seen: e.seen}
	}
}

// sweep forgets what was not sampled since the last call.
func (r *rates) sweep() {
	for serial, e := range r.all {
		if !e.seen {
			delete(r.all, serial)
		}
		e.seen = false
	}
}

func (r *rates) of(serial uint64) control.Counters {
	e := r.all[serial]
	if e == nil {
		return control.Counters{}
	}
	packets := func(v uint64) uint64 { return (v + 0x1ff) >> 10 }
	bytes := func(v uint64) uint64 { return (v + 0xf) >> 5 }
	return control.Counters{
		Conns: packets(e.cps), InPackets: packets(e.inPPS), OutPackets: packets(e.outPPS),
		InBytes: bytes(e.inBPS), OutBytes: bytes(e.outBPS),
	}
}

// alarms are the drops that an operator wants to read of in the log.
var alarms = map[nat.Reason]string{
	nat.ReasonTableFull: "connection table full: raise max-conns",
	nat.ReasonNoPort:    "no SNAT port left: add an address, or narrow who uses the rule",
	nat.ReasonNoLocal:   "no local port left for full NAT: add to local-addresses",
	nat.ReasonClash:     "replies of two services could not be told apart",
	nat.ReasonQueueFull: "too many packets wait for a next hop that does not answer",
}

// alarm tells of drops.
func (d *director) alarm(text string, packets uint64) {
	if d.warn(text, text, "packets dropped: "+strconv.FormatUint(packets, 10)) {
		d.event(control.Event{Kind: control.EventDropped, Text: text})
	}
}

// sample takes the estimator's step, and tells of drops that an operator ought
// to know of. Deleted servers that may come back with their counters go on being
// sampled.
func (d *director) sample() {
	s, _, ok := d.shards.Stats()
	if !ok {
		return
	}
	for _, service := range d.rules.Services() {
		d.rates.sample(service.Serial, at(s.Services, service.Slot))
		for _, v := range service.Servers {
			d.rates.sample(v.Serial, at(s.Servers, v.Slot))
		}
	}
	for _, v := range d.rules.Leaving() {
		d.rates.sample(v.Serial, at(s.Servers, v.Slot))
	}
	d.rates.sample(totalSerial, totalOf(&s.Stats))
	d.nearlyUsed = d.scarce(&s.Stats)
	d.rates.sweep()
	for serial := range d.zero {
		if d.rates.all[serial] == nil {
			delete(d.zero, serial)
		}
	}
	for reason := range nat.NumReasons {
		n := s.Lost(reason)
		if text := alarms[reason]; text != "" && n > d.drops[reason] {
			d.alarmed[reason] = time.Now()
			d.alarm(text, n-d.drops[reason])
		}
		d.drops[reason] = n
	}
}
