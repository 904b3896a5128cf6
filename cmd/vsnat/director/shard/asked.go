// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"net/netip"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// What shards are asked for besides moving packets. Methods of a Shard are for what Do
// calls; those of a Set call it.

// TakeUp has the shard go by what was published last, and by a filter. It returns what the
// kernel has refused; links that are down or gone get theirs when they are opened.
func (s *Shard) TakeUp(filter iface.Filter) (failed []error) {
	for _, p := range s.ports {
		if p == nil {
			continue
		}
		err := p.Queue.SetFilter(filter)
		if errors.Is(err, iface.ErrSieve) {
			p.Shortcuts.fail(err.Error()) // the filter admits what would take them
		}
		if err != nil && !iface.IsDown(err) && !iface.IsGone(err) {
			failed = append(failed, err)
		}
	}
	s.forwarder.Begin(s.now)
	return failed
}

// Announce tells the links which addresses are ours.
func (s *Shard) Announce() { s.neighbours.Announce(s.sendNow) }

// Serve reports whether all have their queue of a port in service: one may have failed. If
// a shard has ended, it is said that they have.
func (all Set) Serve(g PortGroup) (whole bool) {
	whole = true
	for i, s := range all {
		p := g[i]
		s.Do(func() { whole = whole && s.ports[p.Index%nat.MaxPorts] == p })
	}
	return whole
}

// Probe sends a SYN of ours, whose answer all shards know. It is zero if that can't be
// done. A Probe that was sent is to be forgotten at last.
func (all Set) Probe(from netip.Addr, to netip.AddrPort) (p nat.Probe) {
	first, ok := all.First(), false
	first.Do(func() { p, ok = first.forwarder.NewProbe(from, to) })
	if !ok {
		return nat.Probe{}
	}
	all.Do(func(s *Shard) { s.forwarder.ExpectProbe(p) })
	first.Do(func() { ok = first.sendProbe(p) })
	if !ok {
		all.Forget(p)
		return nat.Probe{}
	}
	return p
}

// sendProbe sends a SYN between two batches.
func (s *Shard) sendProbe(p nat.Probe) bool {
	s.now = s.Clock()
	s.forwarder.Begin(s.now)
	ok := s.forwarder.SendProbe(p)
	s.generated()
	s.flush()
	return ok
}

// Probed is what any shard has heard for a probe; nothing for one that is zero.
func (all Set) Probed(p nat.Probe) (answer nat.ProbeAnswer) {
	if p != (nat.Probe{}) {
		all.Do(func(s *Shard) { answer = max(answer, s.forwarder.Probed(p)) })
	}
	return answer
}

// Forget ends a probe, unless it is zero.
func (all Set) Forget(p nat.Probe) {
	if p != (nat.Probe{}) {
		all.Do(func(s *Shard) { s.forwarder.ForgetProbe(p) })
	}
}
