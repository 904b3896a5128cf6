// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
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

// Adapt puts a vsnat director behind the tool's interface. No call outlives ctx.
func Adapt(ctx context.Context, d control.Director) Director { return &adapter{ctx, d} }

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
	if err := checkEngine(s); err != nil {
		return err
	}
	return a.call(func(ctx context.Context) error {
		spec := control.ServiceSpec{ServiceKey: wireKey(s.ServiceKey)}
		setService(&spec, s)
		return a.d.AddService(ctx, spec)
	})
}

// EditService keeps what the grammar has no word for.
func (a *adapter) EditService(s Service) error {
	if err := checkEngine(s); err != nil {
		return err
	}
	return a.call(func(ctx context.Context) error {
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
		setService(&spec, s)
		return a.d.EditService(ctx, spec)
	})
}

// checkEngine says of a persistence engine what a kernel without its module says.
func checkEngine(s Service) error {
	switch s.Engine {
	case "":
		return nil
	case "sip":
		return &Error{Text: ErrNoScheduler.Text, Hint: "vsnat has no persistence engines: leave out --pe"}
	}
	return ErrNoScheduler
}

func (a *adapter) DeleteService(key ServiceKey) error {
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
	return serverError(s, a.call(func(ctx context.Context) error { return do(ctx, wireKey(key), wireServer(s)) }))
}

// serverError finds the kernel's own text for thresholds that contradict each
// other.
func serverError(s Server, err error) error {
	if s.Lower > s.Upper && errors.Is(err, ErrInvalid) {
		return ErrRange
	}
	return err
}

func (a *adapter) DeleteServer(key ServiceKey, addr netip.AddrPort) error {
	return a.call(func(ctx context.Context) error { return a.d.DeleteServer(ctx, wireKey(key), addr) })
}

// Changes implements Batcher. What an edit of a service keeps, it reads first.
func (a *adapter) Changes(list []*Command) ([]error, error) {
	errs := make([]error, len(list))
	var wire []control.Change
	var at []int // of wire's changes in list
	for i, c := range list {
		key := wireKey(c.Service.ServiceKey)
		change := control.Change{Service: control.ServiceSpec{ServiceKey: key}, Server: wireServer(c.Server)}
		switch c.Verb {
		case AddService:
			if errs[i] = checkEngine(c.Service); errs[i] != nil {
				continue
			}
			change.Op, change.Server = control.OpAddService, control.ServerSpec{}
			setService(&change.Service, c.Service)
		case AddServer:
			change.Op = control.OpAddServer
		case EditServer:
			change.Op = control.OpEditServer
		case DeleteServer:
			change.Op, change.Server = control.OpDeleteServer, control.ServerSpec{Address: change.Server.Address}
		case DeleteService:
			change.Op, change.Server = control.OpDeleteService, control.ServerSpec{}
		}
		wire, at = append(wire, change), append(at, i)
	}
	for len(wire) > 0 { // within the time of one call each
		n := min(len(wire), control.MaxChanges)
		var results []*control.Error
		err := a.call(func(ctx context.Context) (err error) {
			results, err = a.d.Changes(ctx, wire[:n])
			return err
		})
		if err != nil {
			return errs, err
		}
		for i, e := range results {
			if e != nil {
				errs[at[i]] = serverError(list[at[i]].Server, translateRefusal(e))
			}
		}
		wire, at = wire[n:], at[n:]
	}
	return errs, nil
}

func (a *adapter) Services() ([]ServiceEntry, error) {
	var services []control.Service
	err := a.call(func(ctx context.Context) (err error) {
		services, err = a.d.Services(ctx)
		return err
	})
	control.KernelOrder(services)
	entries := make([]ServiceEntry, 0, len(services))
	for i := range services {
		entries = append(entries, toolEntry(&services[i]))
	}
	return entries, err
}

// Conns leaves out what IPVS would not list.
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
			if !c.OfIPVS() {
				continue
			}
			if err := f(toolConn(c)); err != nil {
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
	return &Error{
		Text: "vsnat has no connection synchronisation daemon",
		Hint: "this version keeps connections in one director only",
	}
}

func (a *adapter) StopDaemon(Daemon) error { return ErrNoDaemon }

// kernelCodes are the refusals that the kernel has as well, and in these words.
var kernelCodes = []control.Code{
	control.CodeServiceExists, control.CodeNoService, control.CodeNotDefined,
	control.CodeServerExists, control.CodeNoServer, control.CodeNoScheduler, control.CodeNoMemory, control.CodeNotUnicast,
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
		// The kernel would not refuse this, and its text leaves people guessing.
		hint := e.Message
		if e.Hint != "" {
			hint += "; " + e.Hint
		}
		return &Error{Text: e.Code.Kernel(), Hint: hint}
	default:
		return &Error{Text: e.Message, Hint: e.Hint}
	}
}
