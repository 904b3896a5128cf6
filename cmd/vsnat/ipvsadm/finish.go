// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"slices"
	"strings"

	"github.com/vsnat/vsnat/sched"
)

// finish reads what stands after the options, then what depends on others, and
// checks the whole.
func (p *parser) finish() error {
	rest := p.scanner.rest
	if p.Verb == SetTimeouts {
		if len(rest) < 3 {
			return wrong("--set option requires 3 timeout values")
		}
		for i, to := range []*int{&p.Timeouts.TCP, &p.Timeouts.TCPFin, &p.Timeouts.UDP} {
			if err := p.seconds(to, rest[i], 0); err != nil {
				return err
			}
		}
		rest = rest[3:]
	}
	if len(rest) > 0 {
		return wrong("unexpected argument %s", rest[0])
	}
	if err := p.schedulerFlags(); err != nil {
		return err
	}
	if err := p.given.check(p.Verb); err != nil {
		return err
	}
	switch p.Verb {
	case AddService, EditService:
		return p.finishService()
	case AddServer, EditServer:
		return p.finishServer()
	case StartDaemon:
		if p.Daemon.Interface == "" {
			p.Daemon.Interface = defaultInterface
		}
	}
	return nil
}

// schedulerFlags reads the flags, now that the scheduler is known.
func (p *parser) schedulerFlags() error {
	for name := range strings.SplitSeq(p.flags, ",") {
		flag, err := sched.ParseFlags(p.Service.Scheduler, name)
		switch {
		case err == nil:
			p.Service.Flags |= flag
		case slices.ContainsFunc(sched.Names(), func(s string) bool { _, err := sched.ParseFlags(s, name); return err == nil }):
			return wrong("incompatible scheduler flag `%s'", name)
		default:
			return wrong("invalid scheduler flag `%s'", name)
		}
	}
	return nil
}

func (p *parser) finishService() error {
	s := &p.Service
	if s.Mark == 0 && s.Port == 0 && !s.Persistent {
		return wrong("Zero port specified for non-persistent service")
	}
	if s.OnePacket && s.Mark == 0 && s.Proto != udp {
		return wrong("One-Packet Scheduling is only for UDP virtual services")
	}
	if s.Scheduler == "" {
		s.Scheduler = defaultScheduler
	}
	return nil
}

func (p *parser) finishServer() error {
	s := &p.Server
	if p.Service.Mark == 0 && s.Forward != Masq {
		s.Port = p.Service.Port // only masquerading can change it
	}
	if s.Forward != Tunnel && s.Addr.Is6() != p.Service.ipv6() {
		return wrong("Different address family is allowed only for tunneling servers")
	}
	if s.Forward != Tunnel && p.given.has(optTunType, optTunPort, optTunNoChecksum, optTunChecksum, optTunRemoteChecksum) {
		return wrong("Tunnel options conflict with forward method")
	}
	if s.Forward == Tunnel {
		return p.given.checkTunnel(s.Tunnel.Type)
	}
	return nil
}
