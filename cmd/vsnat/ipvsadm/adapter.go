// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// callTime bounds one call of the director: a page of connections of a busy one
// takes a while, a stuck one must not hang a script.
const callTime = 10 * time.Second

// vsnat shows itself as the IPVS whose behaviour it has, with the kernel's
// default number of rows, so that output can be compared byte by byte.
const tableRows = 4096

// Adapt puts a vsnat director behind the tool's interface. What the grammar can
// say and vsnat can't do is refused with a hint. No call outlives ctx.
func Adapt(ctx context.Context, d control.Director) Director { return &adapter{ctx, d} }

// Connect returns what [Main] wants: how to get at the director at a socket, ""
// for the usual one. Whether it is there shows at its first answer.
func Connect(ctx context.Context, socket string) func() (Director, error) {
	return func() (Director, error) { return Adapt(ctx, control.NewClient(socket)), nil }
}

type adapter struct {
	ctx context.Context
	d   control.Director
}

// call runs f within its time and puts its error into the tool's words.
func (a *adapter) call(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(a.ctx, callTime)
	defer cancel()
	return translate(f(ctx))
}

func (a *adapter) Info() (Info, error) {
	return Info{Version: [3]int{1, 2, 1}, Size: tableRows}, nil
}

func (a *adapter) AddService(s Service) error {
	if err := unsupported(s); err != nil {
		return err
	}
	return explainScheduler(s, a.call(func(ctx context.Context) error {
		return a.d.AddService(ctx, control.ServiceSpec{ServiceKey: wireKey(s.ServiceKey), Scheduler: s.Scheduler})
	}))
}

// EditService keeps what the grammar has no word for.
func (a *adapter) EditService(s Service) error {
	if err := unsupported(s); err != nil {
		return err
	}
	return explainScheduler(s, a.call(func(ctx context.Context) error {
		services, err := a.d.Services(ctx)
		if err != nil {
			return err
		}
		spec := control.ServiceSpec{ServiceKey: wireKey(s.ServiceKey)}
		for i := range services {
			if services[i].ServiceKey == spec.ServiceKey {
				spec = services[i].ServiceSpec
			}
		}
		spec.Scheduler = s.Scheduler
		return a.d.EditService(ctx, spec)
	}))
}

func (a *adapter) DeleteService(key ServiceKey) error {
	if !expressible(key) {
		return ErrNoService
	}
	return a.call(func(ctx context.Context) error { return a.d.DeleteService(ctx, wireKey(key)) })
}

func (a *adapter) Flush() error { return a.call(a.d.Flush) }

func (a *adapter) AddServer(key ServiceKey, s Server) error {
	return a.server(key, s, a.d.AddServer)
}

func (a *adapter) EditServer(key ServiceKey, s Server) error {
	return a.server(key, s, a.d.EditServer)
}

func (a *adapter) server(key ServiceKey, s Server, do func(context.Context, control.ServiceKey, control.ServerSpec) error) error {
	if !expressible(key) {
		return ErrNotDefined
	}
	if s.Forward != Masq {
		return &Error{
			Text: fmt.Sprintf("vsnat does not forward by %s", s.Forward),
			Hint: "vsnat masquerades; add -m",
		}
	}
	if s.Lower > s.Upper {
		return &Error{Text: ErrRange.Text, Hint: "-y must not be above -x"}
	}
	return a.call(func(ctx context.Context) error {
		return do(ctx, wireKey(key), control.ServerSpec{
			Address: netip.AddrPortFrom(s.Addr, s.Port), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
		})
	})
}

func (a *adapter) DeleteServer(key ServiceKey, addr netip.AddrPort) error {
	if !expressible(key) {
		return ErrNotDefined
	}
	return a.call(func(ctx context.Context) error { return a.d.DeleteServer(ctx, wireKey(key), addr) })
}

func (a *adapter) Services() ([]ServiceEntry, error) {
	var services []control.Service
	err := a.call(func(ctx context.Context) (err error) {
		services, err = a.d.Services(ctx)
		return err
	})
	entries := make([]ServiceEntry, 0, len(services))
	for i := range services {
		entries = append(entries, serviceEntry(&services[i]))
	}
	return entries, err
}

// Conns leaves out what IPVS would not list: connections that inside hosts
// opened through an SNAT rule.
func (a *adapter) Conns(f func(Conn) error) error {
	query := control.ConnQuery{Limit: control.MaxPage}
	for {
		var page control.ConnPage
		err := a.call(func(ctx context.Context) (err error) {
			page, err = a.d.Conns(ctx, query)
			return err
		})
		if err != nil {
			return err
		}
		for i := range page.Conns {
			c := &page.Conns[i]
			if c.Kind == "snat" {
				continue
			}
			err := f(Conn{
				Proto: strings.ToUpper(c.Proto), State: c.State, Expires: c.Expires.Std(),
				Client: c.Client, Virtual: c.Virtual, Server: c.Server,
			})
			if err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		query.Cursor = page.Next
	}
}

func (a *adapter) Zero(key *ServiceKey) error {
	var wire control.ServiceKey
	if key != nil {
		if !expressible(*key) {
			return ErrNoService
		}
		wire = wireKey(*key)
	}
	return a.call(func(ctx context.Context) error { return a.d.Zero(ctx, wire) })
}

func (a *adapter) Timeouts() (Timeouts, error) {
	var t control.Timeouts
	err := a.call(func(ctx context.Context) (err error) {
		t, err = a.d.Timeouts(ctx)
		return err
	})
	seconds := func(d control.Duration) int { return int(d.Std() / time.Second) }
	return Timeouts{TCP: seconds(t.Established), TCPFin: seconds(t.FinWait), UDP: seconds(t.UDP)}, err
}

func (a *adapter) SetTimeouts(t Timeouts) error {
	duration := func(seconds int) control.Duration {
		return control.Duration(time.Duration(seconds) * time.Second)
	}
	return a.call(func(ctx context.Context) error {
		return a.d.SetTimeouts(ctx, control.Timeouts{
			Established: duration(t.TCP), FinWait: duration(t.TCPFin), UDP: duration(t.UDP),
		})
	})
}

func (a *adapter) Daemons() ([]Daemon, error) { return nil, nil }

func (a *adapter) StartDaemon(Daemon) error {
	return &Error{Text: "vsnat has no connection synchronisation daemon"}
}

func (a *adapter) StopDaemon(Daemon) error { return ErrNoDaemon }

// unsupported refuses what vsnat can't do of a service.
func unsupported(s Service) error {
	var what, hint string
	switch {
	case s.Mark != 0:
		what, hint = "services by firewall mark", "name the service by -t or -u"
	case s.Proto == sctp:
		what = "SCTP services"
	case s.Persistent || s.Engine != "":
		what, hint = "persistent services", "leave out -p, -M and --pe"
	case s.OnePacket:
		what, hint = "one-packet scheduling", "leave out -o"
	case s.Flags != 0:
		what, hint = "scheduler flags", "leave out -b"
	default:
		return nil
	}
	return &Error{Text: "vsnat does not do " + what, Hint: hint}
}

// expressible reports whether vsnat could have such a service at all.
func expressible(key ServiceKey) bool { return key.Mark == 0 && key.Proto != sctp }

func wireKey(key ServiceKey) control.ServiceKey {
	return control.ServiceKey{Proto: protoName(key.Proto), Address: netip.AddrPortFrom(key.Addr, key.Port)}
}

func serviceEntry(s *control.Service) ServiceEntry {
	e := ServiceEntry{
		Service: Service{
			ServiceKey: ServiceKey{
				Proto: map[string]uint8{control.TCP: tcp, control.UDP: udp}[s.Proto],
				Addr:  s.Address.Addr(), Port: s.Address.Port(),
			},
			Scheduler: s.Scheduler,
		},
		Stats: Counters(s.Stats),
		Rate:  Counters(s.Rate),
	}
	for i := range s.Servers {
		server := &s.Servers[i]
		e.Servers = append(e.Servers, ServerEntry{
			Server: Server{
				Addr: server.Address.Addr(), Port: server.Address.Port(), Forward: Masq,
				Weight: server.Weight, Upper: server.Upper, Lower: server.Lower,
			},
			Active: server.Active, Inactive: server.Inactive,
			Stats: Counters(server.Stats), Rate: Counters(server.Rate),
		})
	}
	return e
}

// kernelCodes are the refusals for which the kernel's text says it all.
var kernelCodes = []control.Code{
	control.CodeServiceExists, control.CodeNoService, control.CodeNotDefined,
	control.CodeServerExists, control.CodeNoServer, control.CodeNoScheduler, control.CodeNoMemory,
}

// translate puts a director's error into the tool's words.
func translate(err error) error {
	var e *control.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return translateRefusal(e)
	case errors.Is(err, fs.ErrPermission):
		return &Unavailable{Err: ErrPermission, Hint: err.Error()}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded):
		return &Unavailable{Err: err}
	default:
		return err
	}
}

func translateRefusal(e *control.Error) error {
	switch {
	case e.Code == control.CodeUnavailable:
		return &Unavailable{Err: e, Hint: e.Hint}
	case e.Code == control.CodeNotPermitted:
		return &Unavailable{Err: ErrPermission, Hint: e.Hint}
	case slices.Contains(kernelCodes, e.Code):
		return &Error{Text: e.Code.Kernel()}
	case e.Code == control.CodeInvalid:
		// The kernel's text for everything else leaves people guessing.
		hint := e.Message
		if e.Hint != "" {
			hint += "; " + e.Hint
		}
		return &Error{Text: e.Code.Kernel(), Hint: hint}
	default:
		return &Error{Text: e.Message, Hint: e.Hint}
	}
}

// kernelSchedulers are the ones IPVS has.
var kernelSchedulers = []string{
	"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
}

// explainScheduler adds why a scheduler is not found that people know IPVS has.
func explainScheduler(s Service, err error) error {
	if errors.Is(err, ErrNoScheduler) && slices.Contains(kernelSchedulers, s.Scheduler) {
		return &Error{Text: ErrNoScheduler.Text, Hint: fmt.Sprintf("vsnat does not have %s", s.Scheduler)}
	}
	return err
}
