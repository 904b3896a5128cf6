// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm/recorded"
)

// kernel is a Director that behaves as IPVS in the Linux kernel did where the
// transcripts were recorded: everything the grammar can say is possible.
type kernel struct {
	services []ServiceEntry
	conns    []Conn
	timeouts Timeouts
	daemons  []Daemon
}

func newKernel() *kernel { return &kernel{timeouts: Timeouts{900, 120, 300}} }

func (k *kernel) Info() (Info, error) { return Info{Version: [3]int{1, 2, 1}, Size: 4096}, nil }

func (k *kernel) find(key ServiceKey) int {
	return slices.IndexFunc(k.services, func(s ServiceEntry) bool { return s.ServiceKey == key })
}

func (k *kernel) check(s Service) error {
	schedulers := []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"}
	if !slices.Contains(schedulers, s.Scheduler) || s.Engine != "" && s.Engine != "sip" {
		return ErrNoScheduler
	}
	return nil
}

func (k *kernel) AddService(s Service) error {
	if k.find(s.ServiceKey) >= 0 {
		return ErrServiceExists
	}
	if err := k.check(s); err != nil {
		return err
	}
	k.services = append(k.services, ServiceEntry{Service: s})
	return nil
}

func (k *kernel) EditService(s Service) error {
	i := k.find(s.ServiceKey)
	if i < 0 {
		return ErrNoService
	}
	if err := k.check(s); err != nil {
		return err
	}
	k.services[i].Service = s
	return nil
}

func (k *kernel) DeleteService(key ServiceKey) error {
	i := k.find(key)
	if i < 0 {
		return ErrNoService
	}
	k.services = slices.Delete(k.services, i, i+1)
	return nil
}

func (k *kernel) Flush() error {
	k.services = nil
	return nil
}

func (k *kernel) server(key ServiceKey, addr netip.AddrPort) (*ServiceEntry, int, error) {
	i := k.find(key)
	if i < 0 {
		return nil, 0, ErrNotDefined
	}
	s := &k.services[i]
	return s, slices.IndexFunc(s.Servers, func(e ServerEntry) bool {
		return e.Addr == addr.Addr() && e.Port == addr.Port()
	}), nil
}

// refused is what the kernel has against an address as such.
func refused(s Server) error {
	broadcast := netip.MustParseAddr("10.0.0.255")
	switch {
	case s.Upper < s.Lower:
		return ErrRange
	case s.Addr.IsUnspecified(), s.Addr.IsMulticast(), s.Addr == broadcast:
		return ErrInvalid
	default:
		return nil
	}
}

func (k *kernel) AddServer(key ServiceKey, server Server) error {
	s, i, err := k.server(key, netip.AddrPortFrom(server.Addr, server.Port))
	if err != nil {
		return err
	}
	if err := refused(server); err != nil {
		return err
	}
	if i >= 0 {
		return ErrServerExists
	}
	s.Servers = slices.Insert(s.Servers, 0, ServerEntry{Server: server})
	return nil
}

func (k *kernel) EditServer(key ServiceKey, server Server) error {
	s, i, err := k.server(key, netip.AddrPortFrom(server.Addr, server.Port))
	if err != nil {
		return err
	}
	if err := refused(server); err != nil {
		return err
	}
	if i < 0 {
		return ErrNoServer
	}
	s.Servers[i].Server = server
	return nil
}

func (k *kernel) DeleteServer(key ServiceKey, addr netip.AddrPort) error {
	s, i, err := k.server(key, addr)
	if err != nil {
		return err
	}
	if i < 0 {
		return ErrNoServer
	}
	s.Servers = slices.Delete(s.Servers, i, i+1)
	return nil
}

func (k *kernel) Services() ([]ServiceEntry, error) {
	services := slices.Clone(k.services)
	for i := range services {
		services[i].Servers = slices.Clone(services[i].Servers)
	}
	return services, nil
}

func (k *kernel) Conns(f func(Conn) error) error {
	for _, c := range k.conns {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

func (k *kernel) Zero(key *ServiceKey) error {
	if key != nil && k.find(*key) < 0 {
		return ErrNoService
	}
	for i := range k.services {
		s := &k.services[i]
		if key != nil && s.ServiceKey != *key {
			continue
		}
		s.Stats = Counters{}
		for j := range s.Servers {
			s.Servers[j].Stats = Counters{}
		}
	}
	return nil
}

func (k *kernel) Timeouts() (Timeouts, error) { return k.timeouts, nil }

func (k *kernel) SetTimeouts(t Timeouts) error {
	if t.TCP > 0 {
		k.timeouts.TCP = t.TCP
	}
	if t.TCPFin > 0 {
		k.timeouts.TCPFin = t.TCPFin
	}
	if t.UDP > 0 {
		k.timeouts.UDP = t.UDP
	}
	return nil
}

func (k *kernel) Daemons() ([]Daemon, error) { return k.daemons, nil }

func (k *kernel) daemon(r Role) int {
	return slices.IndexFunc(k.daemons, func(d Daemon) bool { return d.Role == r })
}

func (k *kernel) StartDaemon(d Daemon) error {
	if d.Interface == "nosuch0" {
		return errors.New("No such device")
	}
	if k.daemon(d.Role) >= 0 {
		return ErrDaemonRuns
	}
	if d.MaxLen == 0 {
		d.MaxLen = 1472
	}
	if !d.Group.IsValid() {
		d.Group = netip.AddrFrom4([4]byte{224, 0, 0, 81})
	}
	if d.Port == 0 {
		d.Port = 8848
	}
	if d.TTL == 0 {
		d.TTL = 1
	}
	k.daemons = append(k.daemons, d)
	slices.SortFunc(k.daemons, func(a, b Daemon) int { return int(a.Role) - int(b.Role) })
	return nil
}

func (k *kernel) StopDaemon(d Daemon) error {
	i := k.daemon(d.Role)
	if i < 0 {
		return ErrNoDaemon
	}
	k.daemons = slices.Delete(k.daemons, i, i+1)
	return nil
}

// testNames are the names of the recorded cluster.
type testNames = recorded.Names
