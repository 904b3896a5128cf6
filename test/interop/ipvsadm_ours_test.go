// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
)

// ears is a director with services, that notes what it is told, in the same
// words.
type ears struct {
	list     []string
	services []ipvsadm.ServiceEntry
}

func (e *ears) note(format string, args ...any) error {
	e.list = append(e.list, fmt.Sprintf(format, args...))
	return nil
}

func keyWords(k ipvsadm.ServiceKey) string {
	if k.Mark != 0 {
		return fmt.Sprintf("mark %d ipv6 %v", k.Mark, k.MarkIPv6)
	}
	return fmt.Sprintf("%d %s %d", k.Proto, k.Addr, k.Port)
}

func setWords(s ipvsadm.Service) string {
	flags := uint(s.Flags) << 3
	if s.Persistent {
		flags |= 1
	}
	if s.OnePacket {
		flags |= 4
	}
	text := fmt.Sprintf(" sched %s flags %#x", s.Scheduler, flags)
	if s.Persistent {
		mask := s.Mask.String()
		if s.MarkIPv6 || s.Addr.Is6() {
			mask = fmt.Sprint(s.MaskBits)
		}
		text += fmt.Sprintf(" timeout %d mask %s", s.Timeout, mask)
	}
	if s.Engine != "" {
		text += " pe " + s.Engine
	}
	return text
}

// methodNumbers are IP_VS_CONN_F_MASQ and its like.
var methodNumbers = map[ipvsadm.Forward]int{ipvsadm.Masq: 0, ipvsadm.Local: 1, ipvsadm.Tunnel: 2, ipvsadm.Route: 3}

func serverWords(s ipvsadm.Server) string {
	text := fmt.Sprintf(" %s %d method %d weight %d thresholds %d %d", s.Addr, s.Port, methodNumbers[s.Forward], s.Weight, s.Upper, s.Lower)
	if s.Forward == ipvsadm.Tunnel {
		text += fmt.Sprintf(" tunnel %d %d %d", s.Tunnel.Type, s.Tunnel.Port, s.Tunnel.Checksum)
	}
	return text
}

func (e *ears) Info() (ipvsadm.Info, error) {
	return ipvsadm.Info{Version: [3]int{1, 2, 1}, Size: 4096}, nil
}

func (e *ears) AddService(s ipvsadm.Service) error {
	return e.note("add %s%s", keyWords(s.ServiceKey), setWords(s))
}

func (e *ears) EditService(s ipvsadm.Service) error {
	return e.note("edit %s%s", keyWords(s.ServiceKey), setWords(s))
}

func (e *ears) DeleteService(k ipvsadm.ServiceKey) error { return e.note("delete %s", keyWords(k)) }

func (e *ears) Flush() error { return e.note("flush") }

func (e *ears) AddServer(k ipvsadm.ServiceKey, s ipvsadm.Server) error {
	return e.note("add server %s%s", keyWords(k), serverWords(s))
}

func (e *ears) EditServer(k ipvsadm.ServiceKey, s ipvsadm.Server) error {
	return e.note("edit server %s%s", keyWords(k), serverWords(s))
}

func (e *ears) DeleteServer(k ipvsadm.ServiceKey, a netip.AddrPort) error {
	return e.note("delete server %s %s %d", keyWords(k), a.Addr(), a.Port())
}

func (e *ears) Services() ([]ipvsadm.ServiceEntry, error) {
	list := slices.Clone(e.services)
	for i := range list {
		list[i].Servers = slices.Clone(list[i].Servers)
	}
	return list, nil
}

func (e *ears) Conns(func(ipvsadm.Conn) error) error { return nil }

func (e *ears) Zero(k *ipvsadm.ServiceKey) error {
	if k == nil {
		return e.note("zero ")
	}
	return e.note("zero %s", keyWords(*k))
}

func (e *ears) Timeouts() (ipvsadm.Timeouts, error) {
	return ipvsadm.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}, nil
}

func (e *ears) SetTimeouts(t ipvsadm.Timeouts) error {
	return e.note("set %d %d %d", t.TCP, t.TCPFin, t.UDP)
}

func (e *ears) Daemons() ([]ipvsadm.Daemon, error) { return nil, nil }

func (e *ears) StartDaemon(d ipvsadm.Daemon) error { return e.daemon(9, d) }

func (e *ears) StopDaemon(d ipvsadm.Daemon) error { return e.daemon(10, d) }

func (e *ears) daemon(command int, d ipvsadm.Daemon) error {
	group := ""
	if d.Group.IsValid() {
		group = d.Group.String()
	}
	return e.note("daemon %d: %d %s id %d maxlen %d group %s port %d ttl %d", command, d.Role+1, d.Interface, d.SyncID, d.MaxLen, group, d.Port, d.TTL)
}

// nameless knows no names.
type nameless struct{}

func (nameless) Host(string) (netip.Addr, bool) { return netip.Addr{}, false }

func (nameless) HostName(netip.Addr) (string, bool) { return "", false }

func (nameless) Port(string, uint8) (uint16, bool) { return 0, false }

func (nameless) PortName(uint16, uint8) (string, bool) { return "", false }

func runOurs(services []ipvsadm.ServiceEntry, stdin string, args ...string) heard {
	e := &ears{services: services}
	var stdout, stderr bytes.Buffer
	code := ipvsadm.Run(append([]string{"ipvsadm"}, args...), strings.NewReader(stdin), &stdout, &stderr, nameless{},
		func() (ipvsadm.Director, error) { return e, nil })
	return heard{e.list, stdout.String(), stderr.String(), code}
}
