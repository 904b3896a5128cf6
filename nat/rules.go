// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/vsnat/vsnat/sched"
)

// IP protocol numbers.
const (
	ProtoICMP = protoICMP
	ProtoTCP  = protoTCP
	ProtoUDP  = protoUDP
	ProtoSCTP = protoSCTP
)

//lint:file-ignore ST1005 the texts of errors are those of ipvsadm

// The errors of Rules. Their texts are those of ipvsadm where it has one.
var (
	ErrServiceExists = errors.New("Service already exists")
	ErrNoService     = errors.New("No such service")
	ErrNotDefined    = errors.New("Service not defined")
	ErrServerExists  = errors.New("Destination already exists")
	ErrNoServer      = errors.New("No such destination")
	ErrNoScheduler   = errors.New("Scheduler or persistence engine not found")
	ErrRuleExists    = errors.New("SNAT rule already exists")
	ErrNoRule        = errors.New("No such SNAT rule")
	ErrMarkExists    = errors.New("Mark rule already exists")
	ErrNoMark        = errors.New("No such mark rule")
	ErrInvalid       = errors.New("Invalid operation")
)

// Rules holds what is configured: services, servers, SNAT rules, addresses,
// ports and routes. One goroutine owns it; no method may run beside another,
// except those of Forwarders, which see only what Publish published.
//
// A method that returns an error has changed nothing.
type Rules struct {
	current atomic.Pointer[snapshot]

	services slots[service]
	servers  slots[server]
	byKey    map[ServiceKey]*service
	trash    map[serverKey]*server
	snats    []SNATSpec
	marks    []MarkRule
	owned    []netip.Prefix
	held     []netip.Addr
	local    []netip.Prefix // of full NAT
	host     HostAddresses
	ports    []PortInfo
	routes   []Route
	settings Settings
	serial   uint64
	departed uint64 // servers ever deleted, or told to end what they have
	leaving  []leavingSNAT
	mapped   map[netip.Addr]*atomic.Int64 // ports in use, counted by the Forwarders
	versions uint64                       // snapshots published
}

// slots numbers things. A number is used again after its thing is gone.
type slots[T any] struct {
	all  []*T // nil where free
	free []uint32
}

func (s *slots[T]) put(v *T) uint32 {
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		s.all[slot] = v
		return slot
	}
	s.all = append(s.all, v)
	return uint32(len(s.all) - 1)
}

func (s *slots[T]) remove(slot uint32) {
	s.all[slot] = nil
	s.free = append(s.free, slot)
}

type serverKey struct {
	service ServiceKey
	server  netip.AddrPort
}

type service struct {
	ServiceSpec
	slot    uint32
	serial  uint64
	place   uint64 // in the order of services; see Arrange
	pool    *sched.Pool
	servers []*server // newest first
	deleted bool
}

type server struct {
	ServerSpec
	service  *service   // may be deleted, too
	key      ServiceKey // of the service, for the trash
	slot     uint32
	serial   uint64
	sched    *sched.Server
	gone     bool
	drain    Drain
	switched bool        // to full NAT, with SourceAuto
	replies  bool        // what it sends passes us: it masquerades, or did
	last     ServiceSpec // of the service when the server was deleted
	idle     int         // ticks in the trash without a connection
}

// trashTicks is how many calls of Tick a deleted server without connections
// is remembered for. The kernel keeps it 120 s (IP_VS_DEST_TRASH_PERIOD); the
// first of them also make sure that no Forwarder still schedules to it.
const trashTicks = 120

// NewRules returns Rules without a service, published once, so that a
// Forwarder made from it passes every packet.
func NewRules() *Rules {
	r := &Rules{
		settings: DefaultSettings(),
		byKey:    make(map[ServiceKey]*service),
		trash:    make(map[serverKey]*server),
		mapped:   make(map[netip.Addr]*atomic.Int64),
	}
	r.Publish()
	return r
}

func (r *Rules) nextSerial() uint64 {
	r.serial++
	return r.serial
}

func (s *service) find(addr netip.Addr, port uint16) *server {
	for _, d := range s.servers {
		if d.Addr == addr && d.Port == port {
			return d
		}
	}
	return nil
}

// server returns a server with its service, or which of them is not there.
func (r *Rules) server(k ServiceKey, addr netip.Addr, port uint16) (*service, *server, error) {
	s := r.byKey[k]
	if s == nil {
		return nil, nil, ErrNotDefined
	}
	d := s.find(addr, port)
	if d == nil {
		return nil, nil, ErrNoServer
	}
	return s, d, nil
}

func checkUnicast(what string, a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() {
		return fmt.Errorf("%w: %s %s is not an address", ErrInvalid, what, a)
	}
	if a.Zone() != "" || a.Is6() && a.IsLinkLocalUnicast() {
		return fmt.Errorf("%w: %s %s is good on its link only", ErrInvalid, what, a)
	}
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%w: %s %s is not a unicast address", ErrInvalid, what, a)
	}
	return nil
}

func checkService(s ServiceSpec) error {
	if err := checkPersistence(s); err != nil {
		return err
	}
	if s.Mark != 0 {
		if s.ServiceKey != markKey(s.Mark, s.Addr.Is4()) {
			return fmt.Errorf("%w: a service by mark has no protocol, address or port", ErrInvalid)
		}
		return nil
	}
	if s.Proto != ProtoTCP && s.Proto != ProtoUDP && s.Proto != ProtoSCTP {
		return fmt.Errorf("%w: protocol %d has no services", ErrInvalid, s.Proto)
	}
	if s.OnePacket && s.Proto != ProtoUDP {
		return fmt.Errorf("%w: one-packet scheduling is for UDP", ErrInvalid)
	}
	if s.Helper == HelperFTP && s.Proto != ProtoTCP {
		return fmt.Errorf("%w: FTP is a protocol over TCP", ErrInvalid)
	}
	return checkUnicast("virtual address", s.Addr)
}

// AddService adds a service without servers.
func (r *Rules) AddService(spec ServiceSpec) error {
	if err := checkService(spec); err != nil {
		return err
	}
	if r.byKey[spec.ServiceKey] != nil {
		return ErrServiceExists
	}
	pool, err := sched.NewPool(spec.Scheduler)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoScheduler, err)
	}
	pool.SetOptions(r.options(spec))
	s := &service{ServiceSpec: spec, pool: pool, serial: r.nextSerial()}
	s.slot, s.place = r.services.put(s), s.serial
	r.byKey[spec.ServiceKey] = s
	return nil
}

// EditService replaces the settings of a service. The same scheduler keeps its
// place in the list of servers, another one begins anew.
func (r *Rules) EditService(spec ServiceSpec) error {
	if err := checkService(spec); err != nil {
		return err
	}
	s := r.byKey[spec.ServiceKey]
	if s == nil {
		return ErrNoService
	}
	if err := s.pool.SetScheduler(spec.Scheduler); err != nil {
		return fmt.Errorf("%w: %w", ErrNoScheduler, err)
	}
	s.pool.SetOptions(r.options(spec))
	s.ServiceSpec = spec
	return nil
}

// options are what a service asks of its scheduler.
func (r *Rules) options(spec ServiceSpec) sched.Options {
	o := sched.Options{Flags: spec.Flags}
	switch spec.Scheduler {
	case "lblc":
		o.Expiration = r.settings.LBLCExpiration
	case "lblcr":
		o.Expiration = r.settings.LBLCRExpiration
	}
	return o
}

// DelService deletes a service with its servers. Its connections fare as those of
// each server that is deleted; see DelServer.
func (r *Rules) DelService(k ServiceKey) error {
	s := r.byKey[k]
	if s == nil {
		return ErrNoService
	}
	for _, d := range s.servers {
		r.discard(d)
	}
	s.deleted = true
	r.services.remove(s.slot)
	delete(r.byKey, k)
	return nil
}

// Clear deletes all services. SNAT and mark rules stay, as iptables' do on ipvsadm -C.
func (r *Rules) Clear() {
	for k := range r.byKey {
		_ = r.DelService(k) // it is there
	}
}

func checkServer(k ServiceKey, s ServerSpec) error {
	switch {
	case s.Weight < 0 || s.Weight > 65535:
		return fmt.Errorf("%w: weight %d is not in 0…65535", ErrInvalid, s.Weight)
	case s.Upper < 0 || s.Lower < 0:
		return fmt.Errorf("%w: negative threshold", ErrInvalid)
	case s.Upper != 0 && s.Lower > s.Upper:
		return fmt.Errorf("%w: lower threshold %d is above the upper one, %d", ErrInvalid, s.Lower, s.Upper)
	}
	if err := checkMethod(k, s); err != nil {
		return err
	}
	if err := checkSourceNAT(s); err != nil {
		return err
	}
	return checkUnicast("server", s.Addr)
}

// AddServer adds a real server at the head of the service's list. One that was
// deleted a short while ago comes back with its connections.
func (r *Rules) AddServer(k ServiceKey, spec ServerSpec) error {
	if err := checkServer(k, spec); err != nil {
		return err
	}
	s := r.byKey[k]
	if s == nil {
		return ErrNotDefined
	}
	if s.find(spec.Addr, spec.Port) != nil {
		return ErrServerExists
	}
	if spec.Addr == s.Addr && spec.Port == s.Port {
		return fmt.Errorf("%w: server %s is the virtual service itself", ErrInvalid, netip.AddrPortFrom(spec.Addr, spec.Port))
	}
	if err := r.notMarked(spec.Addr); err != nil {
		return err
	}
	addr := netip.AddrPortFrom(spec.Addr, spec.Port)
	d := r.trash[serverKey{k, addr}]
	if d != nil {
		delete(r.trash, serverKey{k, addr})
		if d.service != s {
			d.serial = r.nextSerial() // its counters begin anew with another service
		}
	} else {
		d = &server{key: k, serial: r.nextSerial(), sched: sched.NewServer(addr, spec.Weight)}
		d.slot = r.servers.put(d)
		d.sched.Slot = d.slot
	}
	d.ServerSpec, d.service, d.gone, d.drain = spec, s, false, NoDrain
	d.replies = d.replies || spec.Method == Masquerade
	d.sched.SetWeight(spec.Weight)
	d.sched.SetThresholds(spec.Upper, spec.Lower)
	s.servers = slices.Insert(s.servers, 0, d)
	s.pool.Add(d.sched)
	return nil
}

// discard takes a server out of its service's scheduler, and keeps it for the
// connections that refer to it.
func (r *Rules) discard(d *server) {
	d.service.pool.Remove(d.sched)
	d.gone, d.idle, d.last = true, 0, d.service.ServiceSpec
	r.departed++
	r.trash[serverKey{d.key, d.sched.Addr}] = d
}

// EditServer replaces weight, thresholds and method of a server.
func (r *Rules) EditServer(k ServiceKey, spec ServerSpec) error {
	if err := checkServer(k, spec); err != nil {
		return err
	}
	s, d, err := r.server(k, spec.Addr, spec.Port)
	if err != nil {
		return err
	}
	d.ServerSpec = spec
	d.replies = d.replies || spec.Method == Masquerade
	d.sched.SetThresholds(spec.Upper, spec.Lower)
	s.pool.SetWeight(d.sched, spec.Weight)
	return nil
}

// DelServer deletes a server. What becomes of its connections its service says with
// OnServerDown. Where they are kept their packets are dropped silently from then on;
// if the server is added again, they go on (ip_vs_ctl.c, __ip_vs_del_dest and the
// trash list).
func (r *Rules) DelServer(k ServiceKey, addr netip.Addr, port uint16) error {
	s, d, err := r.server(k, addr, port)
	if err != nil {
		return err
	}
	s.servers = slices.DeleteFunc(s.servers, func(o *server) bool { return o == d })
	r.discard(d)
	return nil
}

// Tick is to be called about once a second: deleted servers that no connection
// refers to any more are forgotten after a while, and so are the addresses of
// deleted SNAT rules. It reports whether there is something to publish.
func (r *Rules) Tick() (changed bool) {
	for k, d := range r.trash {
		if d.idle++; d.sched.Active()+d.sched.Inactive()+d.sched.Templates() > 0 {
			d.idle = 0
		}
		if d.idle >= trashTicks {
			r.servers.remove(d.slot)
			delete(r.trash, k)
			changed = true
		}
	}
	return r.tickSNAT() || changed
}

// AddSNAT adds a rule. A network may have one; of several that hold an address
// the longest prefix counts.
func (r *Rules) AddSNAT(spec SNATSpec) error {
	switch {
	case !spec.From.IsValid() || spec.From.Addr().Is4In6():
		return fmt.Errorf("%w: SNAT network %s is not a network", ErrInvalid, spec.From)
	case spec.From != spec.From.Masked():
		return fmt.Errorf("%w: %s has host bits set; the network is %s", ErrInvalid, spec.From, spec.From.Masked())
	case spec.MinPort > spec.MaxPort || spec.MaxPort != 0 && spec.MinPort == 0:
		return fmt.Errorf("%w: port range %d-%d", ErrInvalid, spec.MinPort, spec.MaxPort)
	}
	if err := checkUnicast("SNAT address", spec.To); err != nil {
		return err
	}
	if spec.From.Addr().Is4() != spec.To.Is4() {
		return fmt.Errorf("%w: SNAT address %s is not of the family of %s", ErrInvalid, spec.To, spec.From)
	}
	for _, s := range r.snats {
		if s.From == spec.From {
			return ErrRuleExists
		}
	}
	r.snats = append(r.snats, spec)
	r.leaving = slices.DeleteFunc(r.leaving, func(l leavingSNAT) bool { return l.SNATSpec == spec })
	return nil
}

// DelSNAT deletes the rule of a network. Its connections go on until they end; so
// long its address stays ours.
func (r *Rules) DelSNAT(from netip.Prefix) error {
	for i, s := range r.snats {
		if s.From == from.Masked() {
			r.snats = slices.Delete(r.snats, i, i+1)
			r.leave(s)
			return nil
		}
	}
	return ErrNoRule
}

// SetHost tells which addresses and ports are the host's.
func (r *Rules) SetHost(h HostAddresses) { r.host = h }

// SetOwned tells which further addresses are ours, beside those of services
// and SNAT rules: a gateway address that the host does not have.
func (r *Rules) SetOwned(p []netip.Prefix) { r.owned = slices.Clone(p) }

// SetPorts tells which iface ports there are.
func (r *Rules) SetPorts(p []PortInfo) { r.ports = slices.Clone(p) }

// SetRoutes tells the ways onward.
func (r *Rules) SetRoutes(routes []Route) { r.routes = slices.Clone(routes) }

// SetSettings replaces the settings.
func (r *Rules) SetSettings(s Settings) {
	r.settings = s
	for _, v := range r.byKey {
		v.pool.SetOptions(r.options(v.ServiceSpec))
	}
}

// Settings returns the settings in force.
func (r *Rules) Settings() Settings { return r.settings }
