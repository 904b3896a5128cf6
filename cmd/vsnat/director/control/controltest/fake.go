// SPDX-License-Identifier: Apache-2.0

package controltest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Director is a control.Director in memory. The exported fields are what it
// answers where it has nothing of its own; set them before use. Its zero
// value is an empty director.
type Director struct {
	Entries []control.Conn // what Conns selects from
	Counts  control.Stats
	State   control.Health
	Ports   []control.Link
	Checked []control.Check
	Text    string // Config's
	Set     []control.Setting
	Done    control.Reloaded
	Fail    error  // Reload's
	File    string // Filed's
	// Differ tells what Apply does, of two texts; nil: nothing.
	Differ func(from, to string) (control.Reloaded, error)
	// Check, CheckServer, CheckSNAT and CheckMark judge a spec as the runtime does; nil
	// accepts.
	Check       func(control.ServiceSpec) error
	CheckServer func(control.ServiceKey, control.ServerSpec) error
	CheckSNAT   func(control.SNATSpec) error
	CheckMark   func(control.MarkSpec) error
	Happened    control.EventLog // what Events tells
	Measured    string           // what Metrics writes
	Sick        error            // what Alive and Ready return
	// Enter, if set, is called at the start of each call, outside the lock.
	Enter func(ctx context.Context, name string)

	mu       sync.Mutex
	services []control.Service
	rules    []control.SNAT
	marks    []control.MarkSpec
	timeouts control.Timeouts
	before   string // Text before what waits for confirmation
}

var _ control.Director = (*Director)(nil)

// lock begins a call; its result ends it.
func (d *Director) lock(ctx context.Context, name string) func() {
	if d.Enter != nil {
		d.Enter(ctx, name)
	}
	d.mu.Lock()
	return d.mu.Unlock
}

func (d *Director) find(k control.ServiceKey) int {
	return slices.IndexFunc(d.services, func(s control.Service) bool { return s.ServiceKey == k })
}

// service is the service whose servers are meant.
func (d *Director) service(k control.ServiceKey) (*control.Service, error) {
	i := d.find(k)
	if i < 0 {
		return nil, control.Refuse(control.CodeNotDefined, fmt.Sprintf("service %s is not defined", k), "vsnat service add makes it")
	}
	return &d.services[i], nil
}

func server(s *control.Service, a netip.AddrPort) int {
	return slices.IndexFunc(s.Servers, func(r control.Server) bool { return r.Address == a })
}

// AddService implements control.Director.
func (d *Director) AddService(ctx context.Context, spec control.ServiceSpec) error {
	defer d.lock(ctx, "AddService")()
	if d.find(spec.ServiceKey) >= 0 {
		return control.Refuse(control.CodeServiceExists, fmt.Sprintf("service %s exists already", spec.ServiceKey), "vsnat service edit changes it")
	}
	if d.Check != nil {
		if err := d.Check(spec); err != nil {
			return err
		}
	}
	d.services = append(d.services, control.Service{ServiceSpec: spec, Servers: []control.Server{}})
	return nil
}

// EditService implements control.Director.
func (d *Director) EditService(ctx context.Context, spec control.ServiceSpec) error {
	defer d.lock(ctx, "EditService")()
	i := d.find(spec.ServiceKey)
	if i < 0 {
		return noService(spec.ServiceKey)
	}
	if d.Check != nil {
		if err := d.Check(spec); err != nil {
			return err
		}
	}
	d.services[i].ServiceSpec = spec
	return nil
}

func noService(k control.ServiceKey) error {
	return control.Refuse(control.CodeNoService, fmt.Sprintf("there is no service %s", k), "vsnat service list shows what there is")
}

// DeleteService implements control.Director.
func (d *Director) DeleteService(ctx context.Context, k control.ServiceKey) error {
	defer d.lock(ctx, "DeleteService")()
	i := d.find(k)
	if i < 0 {
		return noService(k)
	}
	d.services = slices.Delete(d.services, i, i+1)
	return nil
}

// Flush implements control.Director.
func (d *Director) Flush(ctx context.Context) error {
	defer d.lock(ctx, "Flush")()
	d.services = nil
	return nil
}

// AddServer implements control.Director.
func (d *Director) AddServer(ctx context.Context, k control.ServiceKey, spec control.ServerSpec) error {
	defer d.lock(ctx, "AddServer")()
	s, err := d.service(k)
	if err != nil {
		return err
	}
	if server(s, spec.Address) >= 0 {
		return control.Refuse(control.CodeServerExists, fmt.Sprintf("service %s has the server %s already", k, spec.Address), "vsnat server edit changes it")
	}
	if d.CheckServer != nil {
		if err := d.CheckServer(k, spec); err != nil {
			return err
		}
	}
	s.Servers = slices.Insert(s.Servers, 0, control.Server{ServerSpec: spec})
	return nil
}

// EditServer implements control.Director.
func (d *Director) EditServer(ctx context.Context, k control.ServiceKey, spec control.ServerSpec) error {
	defer d.lock(ctx, "EditServer")()
	s, err := d.service(k)
	if err != nil {
		return err
	}
	i := server(s, spec.Address)
	if i < 0 {
		return noServer(k, spec.Address)
	}
	if d.CheckServer != nil {
		if err := d.CheckServer(k, spec); err != nil {
			return err
		}
	}
	s.Servers[i].ServerSpec = spec
	return nil
}

func noServer(k control.ServiceKey, a netip.AddrPort) error {
	return control.Refuse(control.CodeNoServer, fmt.Sprintf("service %s has no server %s", k, a), "vsnat server list shows what there is")
}

// DeleteServer implements control.Director.
func (d *Director) DeleteServer(ctx context.Context, k control.ServiceKey, a netip.AddrPort) error {
	defer d.lock(ctx, "DeleteServer")()
	s, err := d.service(k)
	if err != nil {
		return err
	}
	i := server(s, a)
	if i < 0 {
		return noServer(k, a)
	}
	s.Servers = slices.Delete(s.Servers, i, i+1)
	return nil
}

// Changes implements control.Director.
func (d *Director) Changes(ctx context.Context, list []control.Change) ([]*control.Error, error) {
	var results []*control.Error
	for _, c := range list {
		results = append(results, control.Refusal(c.Make(ctx, d)))
	}
	return results, nil
}

// AddSNAT implements control.Director.
func (d *Director) AddSNAT(ctx context.Context, spec control.SNATSpec) error {
	defer d.lock(ctx, "AddSNAT")()
	if d.CheckSNAT != nil {
		if err := d.CheckSNAT(spec); err != nil {
			return err
		}
	}
	for _, r := range d.rules {
		if r.From.Overlaps(spec.From) {
			return control.Refuse(control.CodeRuleExists, fmt.Sprintf("the SNAT rule for %s overlaps %s", r.From, spec.From), "delete that rule first")
		}
	}
	d.rules = append(d.rules, control.SNAT{SNATSpec: spec, Capacity: 64512})
	return nil
}

// DeleteSNAT implements control.Director.
func (d *Director) DeleteSNAT(ctx context.Context, from netip.Prefix) error {
	defer d.lock(ctx, "DeleteSNAT")()
	i := slices.IndexFunc(d.rules, func(r control.SNAT) bool { return r.From == from })
	if i < 0 {
		return control.Refuse(control.CodeNoRule, fmt.Sprintf("there is no SNAT rule for %s", from), "vsnat snat list shows what there is")
	}
	d.rules = slices.Delete(d.rules, i, i+1)
	return nil
}

// AddMark implements control.Director.
func (d *Director) AddMark(ctx context.Context, m control.MarkSpec) error {
	defer d.lock(ctx, "AddMark")()
	if d.CheckMark != nil {
		if err := d.CheckMark(m); err != nil {
			return err
		}
	}
	if slices.Contains(d.marks, m) {
		return control.Refuse(control.CodeRuleExists, fmt.Sprintf("the rule %s exists already", m), "")
	}
	d.marks = append(d.marks, m)
	return nil
}

// DeleteMark implements control.Director.
func (d *Director) DeleteMark(ctx context.Context, m control.MarkSpec) error {
	defer d.lock(ctx, "DeleteMark")()
	i := slices.Index(d.marks, m)
	if i < 0 {
		return control.Refuse(control.CodeNoRule, fmt.Sprintf("there is no rule %s", m), "vsnat mark list shows what there is")
	}
	d.marks = slices.Delete(d.marks, i, i+1)
	return nil
}

// Marks implements control.Director.
func (d *Director) Marks(ctx context.Context) ([]control.MarkSpec, error) {
	defer d.lock(ctx, "Marks")()
	return slices.Clone(d.marks), nil
}

// Services implements control.Director.
func (d *Director) Services(ctx context.Context) ([]control.Service, error) {
	defer d.lock(ctx, "Services")()
	list := slices.Clone(d.services)
	for i := range list {
		list[i].Servers = slices.Clone(list[i].Servers)
	}
	return list, nil
}

// SNAT implements control.Director.
func (d *Director) SNAT(ctx context.Context) ([]control.SNAT, error) {
	defer d.lock(ctx, "SNAT")()
	return slices.Clone(d.rules), nil
}

// Conns implements control.Director. The cursor is an index of Entries.
func (d *Director) Conns(ctx context.Context, q control.ConnQuery) (control.ConnPage, error) {
	defer d.lock(ctx, "Conns")()
	from := 0
	if q.Cursor != "" {
		n, err := strconv.Atoi(q.Cursor)
		if err != nil || n < 0 || n > len(d.Entries) {
			return control.ConnPage{}, control.Refuse(control.CodeInvalid, fmt.Sprintf("%.20q is not a cursor", q.Cursor), "begin again without one")
		}
		from = n
	}
	limit := cmp.Or(q.Limit, control.DefaultPage)
	var page control.ConnPage
	for i, c := range d.Entries[from:] {
		if !selects(q, c) {
			continue
		}
		if len(page.Conns) == limit {
			page.Next = strconv.Itoa(from + i)
			break
		}
		page.Conns = append(page.Conns, c)
	}
	return page, nil
}

func selects(q control.ConnQuery, c control.Conn) bool {
	endpoint := func(want, have netip.AddrPort) bool {
		return !want.IsValid() || want.Addr() == have.Addr() && (want.Port() == 0 || want.Port() == have.Port())
	}
	return (q.Proto == "" || q.Proto == c.Proto) &&
		(q.State == "" || strings.EqualFold(q.State, c.State)) &&
		(!q.Client.IsValid() || q.Client.Contains(c.Client.Addr())) &&
		endpoint(q.Service, c.Virtual) && endpoint(q.Server, c.Server)
}

// Stats implements control.Director.
func (d *Director) Stats(ctx context.Context) (control.Stats, error) {
	defer d.lock(ctx, "Stats")()
	return d.Counts, nil
}

// Health implements control.Director.
func (d *Director) Health(ctx context.Context) (control.Health, error) {
	defer d.lock(ctx, "Health")()
	return d.State, nil
}

// Links implements control.Director.
func (d *Director) Links(ctx context.Context) ([]control.Link, error) {
	defer d.lock(ctx, "Links")()
	return slices.Clone(d.Ports), nil
}

// Timeouts implements control.Director.
func (d *Director) Timeouts(ctx context.Context) (control.Timeouts, error) {
	defer d.lock(ctx, "Timeouts")()
	return d.timeouts, nil
}

// SetTimeouts implements control.Director.
func (d *Director) SetTimeouts(ctx context.Context, t control.Timeouts) error {
	defer d.lock(ctx, "SetTimeouts")()
	keep := func(into *control.Duration, d control.Duration) { *into = cmp.Or(d, *into) }
	keep(&d.timeouts.Established, t.Established)
	keep(&d.timeouts.FinWait, t.FinWait)
	keep(&d.timeouts.UDP, t.UDP)
	return nil
}

// Settings implements control.Director.
func (d *Director) Settings(ctx context.Context) ([]control.Setting, error) {
	defer d.lock(ctx, "Settings")()
	return slices.Clone(d.Set), nil
}

// SetSettings implements control.Director.
func (d *Director) SetSettings(ctx context.Context, values map[string]control.SettingValue) error {
	defer d.lock(ctx, "SetSettings")()
	next := slices.Clone(d.Set)
	for name, value := range values {
		i := slices.IndexFunc(next, func(s control.Setting) bool { return s.Name == name })
		if i < 0 {
			return control.Refuse(control.CodeInvalid, fmt.Sprintf("unknown setting %q", name), "vsnat set lists those there are")
		}
		next[i].Value = value
	}
	d.Set = next
	return nil
}

// Config implements control.Director.
func (d *Director) Config(ctx context.Context) (string, error) {
	defer d.lock(ctx, "Config")()
	return d.Text, nil
}

// Reload implements control.Director.
func (d *Director) Reload(ctx context.Context) (control.Reloaded, error) {
	defer d.lock(ctx, "Reload")()
	return d.Done, d.Fail
}

// Events implements control.Director.
func (d *Director) Events(ctx context.Context, q control.EventQuery, each func(control.Event) error) error {
	if d.Enter != nil {
		d.Enter(ctx, "Events")
	}
	return d.Happened.Read(ctx, q, nil, each)
}

// Metrics implements control.Director.
func (d *Director) Metrics(ctx context.Context, w io.Writer) error {
	defer d.lock(ctx, "Metrics")()
	_, err := io.WriteString(w, d.Measured)
	return err
}

// Alive implements control.Director.
func (d *Director) Alive(ctx context.Context) error {
	defer d.lock(ctx, "Alive")()
	return d.Sick
}

// Ready implements control.Director.
func (d *Director) Ready(ctx context.Context) error {
	defer d.lock(ctx, "Ready")()
	return d.Sick
}

// Zero implements control.Director.
func (d *Director) Zero(ctx context.Context, k control.ServiceKey) error {
	defer d.lock(ctx, "Zero")()
	if k.IsZero() {
		d.Counts.Total = control.Counters{}
		return nil
	}
	i := d.find(k)
	if i < 0 {
		return noService(k)
	}
	d.services[i].Stats = control.Counters{}
	return nil
}

// SetCounters gives a service or, if server is valid, one of its servers
// numbers to show. It panics if there is none: a test is wrong then.
func (d *Director) SetCounters(k control.ServiceKey, a netip.AddrPort, active, inactive int, c control.Counters) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.services[d.find(k)]
	if !a.IsValid() {
		s.Stats = c
		return
	}
	r := &s.Servers[server(s, a)]
	r.Active, r.Inactive, r.Stats = active, inactive, c
}

// Checks implements control.Director.
func (d *Director) Checks(ctx context.Context) ([]control.Check, error) {
	defer d.lock(ctx, "Checks")()
	return slices.Clone(d.Checked), nil
}
