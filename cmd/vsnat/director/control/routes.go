// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// openAPI is the description of the paths, as served at /v1/openapi.yaml.
//
//go:embed openapi.yaml
var openAPI string

// route is one thing that can be asked. Every parameter of a path is one
// segment (a slash in it is written %2F).
type route struct {
	method, path string
	answer       answer
}

func (r route) pattern() string { return r.method + " " + r.path }

// maxBody is how large its request may be.
func (r route) maxBody() int64 {
	if r.path == "/v1/apply" {
		return MaxConfigBody
	}
	return MaxBody
}

// answer asks the director. Its value is sent as JSON, a document as it is.
type answer func(d Director, r request) (any, error)

// done is the answer to a change.
type done struct{}

// routes is the whole interface of version 1.
func routes() []route {
	const service = "/v1/services/{proto}/{address}"
	return append(publicRoutes(), []route{
		{"GET", "/v1/services", func(d Director, r request) (any, error) { return listed(d.Services(r.Context())) }},
		{"POST", "/v1/services", addService},
		{"DELETE", "/v1/services", func(d Director, r request) (any, error) { return done{}, d.Flush(r.Context()) }},
		{"GET", service, getService},
		{"PUT", service, editService},
		{"DELETE", service, deleteService},
		{"POST", service + "/servers", addServer},
		{"PUT", service + "/servers/{server}", editServer},
		{"DELETE", service + "/servers/{server}", deleteServer},
		{"POST", "/v1/changes", changes},
		{"GET", "/v1/snat", func(d Director, r request) (any, error) { return listed(d.SNAT(r.Context())) }},
		{"POST", "/v1/snat", addSNAT},
		{"DELETE", "/v1/snat/{from}", deleteSNAT},
		{"GET", "/v1/marks", marks},
		{"POST", "/v1/marks", addMark},
		{"DELETE", "/v1/marks", deleteMark},
		{"GET", "/v1/conns", conns},
		{"GET", "/v1/stats", func(d Director, r request) (any, error) { return d.Stats(r.Context()) }},
		{"POST", "/v1/zero", zero},
		{"GET", "/v1/health", func(d Director, r request) (any, error) { return d.Health(r.Context()) }},
		{"GET", "/v1/health/checks", func(d Director, r request) (any, error) { return listed(d.Checks(r.Context())) }},
		{"GET", "/v1/links", func(d Director, r request) (any, error) { return listed(d.Links(r.Context())) }},
		{"GET", "/v1/timeouts", func(d Director, r request) (any, error) { return d.Timeouts(r.Context()) }},
		{"PUT", "/v1/timeouts", setTimeouts},
		{"GET", "/v1/settings", func(d Director, r request) (any, error) { return listed(d.Settings(r.Context())) }},
		{"PUT", "/v1/settings", setSettings},
		{"GET", "/v1/config", config},
		{"POST", "/v1/reload", func(d Director, r request) (any, error) { return d.Reload(r.Context()) }},
		{"GET", "/v1/events", events},
		{"POST", "/v1/apply", apply},
		{"POST", "/v1/confirm", func(d Director, r request) (any, error) { return d.Confirm(r.Context()) }},
		{"POST", "/v1/rollback", func(d Director, r request) (any, error) { return d.Rollback(r.Context()) }},
		{"GET", "/v1/file", filed},
		{"GET", "/v1/debug/pprof/{name}", profile},
		{"GET", "/v1/drains", func(d Director, r request) (any, error) { return listed(d.Drains(r.Context())) }},
		{"POST", "/v1/drains", drain(Director.Drain)},
		{"DELETE", "/v1/drains", drain(Director.Undrain)},
		{"GET", "/v1/proc/{name}", proc},
		{"GET", "/v1/openapi.yaml", func(Director, request) (any, error) { return document(openAPI), nil }},
	}...)
}

// request is a request whose body has been read.
type request struct {
	*http.Request
	body []byte
}

// into reads the body, which must be exactly one JSON value without unknown
// fields. No body leaves v as it is.
func (r request) into(v any) error {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, rest := dec.Token(); rest != io.EOF {
			err = fmt.Errorf("something follows the value")
		}
	}
	if err != nil {
		return Refuse(CodeInvalid, "the request is not understood: "+strings.TrimPrefix(err.Error(), "json: "), "the requests of this version are in /v1/openapi.yaml")
	}
	return nil
}

// key is the service that the path names.
func (r request) key() (ServiceKey, error) {
	return ParseKey(r.PathValue("proto"), r.PathValue("address"))
}

// server is the server that the path names, with its service.
func (r request) server() (key ServiceKey, server netip.AddrPort, err error) {
	if key, err = r.key(); err == nil {
		server, err = endpoint(r.PathValue("server"))
	}
	return key, server, err
}

// endpoint reads address:port; IPv4 in IPv6 form becomes IPv4.
func endpoint(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, Refuse(CodeInvalid, fmt.Sprintf("%.60q is not address:port", text), "for example 192.0.2.1:80 or [2001:db8::1]:80")
	}
	return plain(a), nil
}

// plain is an endpoint with IPv4 as IPv4, however it came.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// listed makes an empty list of none, so that JSON has [] and never null.
func listed[T any](list []T, err error) (any, error) {
	if list == nil {
		list = []T{}
	}
	return list, err
}

func addService(d Director, r request) (any, error) {
	spec := ServiceSpec{Scheduler: DefaultScheduler, NoServer: NoServerICMP}
	if err := r.into(&spec); err != nil {
		return nil, err
	}
	spec.Address = plain(spec.Address)
	return done{}, d.AddService(r.Context(), spec)
}

func getService(d Director, r request) (any, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	list, err := d.Services(r.Context())
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.ServiceKey == key {
			return s, nil
		}
	}
	return nil, Refuse(CodeNoService, fmt.Sprintf("there is no service %s", key), "vsnat service list shows what there is")
}

func editService(d Director, r request) (any, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	spec := ServiceSpec{ServiceKey: key, Scheduler: DefaultScheduler, NoServer: NoServerICMP}
	if err := r.into(&spec); err != nil {
		return nil, err
	}
	if spec.Address = plain(spec.Address); spec.ServiceKey != key {
		return nil, Refuse(CodeInvalid, "a service can't change its address or mark", "delete it and add another")
	}
	return done{}, d.EditService(r.Context(), spec)
}

func deleteService(d Director, r request) (any, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	return done{}, d.DeleteService(r.Context(), key)
}

func addServer(d Director, r request) (any, error) {
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	spec := ServerSpec{Weight: 1, Method: MethodNAT}
	if err := r.into(&spec); err != nil {
		return nil, err
	}
	spec.Address = plain(spec.Address)
	return done{}, d.AddServer(r.Context(), key, spec)
}

func editServer(d Director, r request) (any, error) {
	key, server, err := r.server()
	if err != nil {
		return nil, err
	}
	spec := ServerSpec{Address: server, Weight: 1, Method: MethodNAT}
	if err := r.into(&spec); err != nil {
		return nil, err
	}
	if spec.Address = plain(spec.Address); spec.Address != server {
		return nil, Refuse(CodeInvalid, "a server can't change its address", "delete it and add another")
	}
	return done{}, d.EditServer(r.Context(), key, spec)
}

func deleteServer(d Director, r request) (any, error) {
	key, server, err := r.server()
	if err != nil {
		return nil, err
	}
	return done{}, d.DeleteServer(r.Context(), key, server)
}

func addSNAT(d Director, r request) (any, error) {
	var spec SNATSpec
	if err := r.into(&spec); err != nil {
		return nil, err
	}
	spec.To = spec.To.Unmap()
	return done{}, d.AddSNAT(r.Context(), spec)
}

func deleteSNAT(d Director, r request) (any, error) {
	from, err := netip.ParsePrefix(r.PathValue("from"))
	if err != nil {
		return nil, Refuse(CodeInvalid, fmt.Sprintf("%.60q is not a network", r.PathValue("from")), "for example 10.0.0.0/24, with the slash as %2F in the path")
	}
	return done{}, d.DeleteSNAT(r.Context(), from)
}

func zero(d Director, r request) (any, error) {
	var key ServiceKey
	if err := r.into(&key); err != nil {
		return nil, err
	}
	if !key.IsZero() {
		key.Address = plain(key.Address)
	}
	return done{}, d.Zero(r.Context(), key)
}

func setTimeouts(d Director, r request) (any, error) {
	var t Timeouts
	if err := r.into(&t); err != nil {
		return nil, err
	}
	return done{}, d.SetTimeouts(r.Context(), t)
}

func setSettings(d Director, r request) (any, error) {
	values := make(map[string]SettingValue)
	if err := r.into(&values); err != nil {
		return nil, err
	}
	return done{}, d.SetSettings(r.Context(), values)
}

func config(d Director, r request) (any, error) {
	text, err := d.Config(r.Context())
	return document(text), err
}

func proc(d Director, r request) (any, error) {
	return stream{"text/plain; charset=utf-8", func(w io.Writer) error { return Proc(r.Context(), d, r.PathValue("name"), w) }}, nil
}

func conns(d Director, r request) (any, error) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		return nil, err
	}
	page, err := d.Conns(r.Context(), q)
	if page.Conns == nil {
		page.Conns = []Conn{}
	}
	return page, err
}

// parseQuery reads what Client.Conns writes. Unknown parameters are refused:
// a filter with a typing error must not show everything.
func parseQuery(values map[string][]string) (ConnQuery, error) {
	q := ConnQuery{Limit: DefaultPage}
	for name, list := range values {
		if err := q.set(name, list[len(list)-1]); err != nil {
			return q, Refuse(CodeInvalid, fmt.Sprintf("parameter %.20q: %v", name, err), "parameters: proto, client, service, server, state, limit, cursor")
		}
	}
	return q, nil
}

func (q *ConnQuery) set(name, value string) (err error) {
	switch name {
	case "proto":
		q.Proto = strings.ToLower(value)
		if q.Proto != TCP && q.Proto != UDP && q.Proto != SCTP && q.Proto != ICMP {
			return fmt.Errorf("%.20q is not tcp, udp, sctp or icmp", value)
		}
	case "client":
		q.Client, err = ParseNetwork(value)
	case "service":
		q.Service, err = ParseEndpoint(value)
	case "server":
		q.Server, err = ParseEndpoint(value)
	case "state":
		q.State = strings.ToUpper(value)
	case "limit":
		q.Limit, err = strconv.Atoi(value)
		if err != nil || q.Limit < 1 || q.Limit > MaxPage {
			return fmt.Errorf("%.20q is not a number of 1 to %d", value, MaxPage)
		}
	case "cursor":
		q.Cursor = value
	default:
		return fmt.Errorf("unknown")
	}
	return err
}

// ParseEndpoint reads address:port, or an address, whose port is then 0.
func ParseEndpoint(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 0), nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, fmt.Errorf("%.60q is neither an address nor address:port", text)
	}
	return plain(a), nil
}

// ParseNetwork reads address/length, or an address, which is a network of one.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%.60q is neither an address nor a network", text)
	}
	return p.Masked(), nil
}
