// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
)

// serve offers d on a socket of the test's own and returns its path. It fails
// the test if the server does not end cleanly.
func serve(t *testing.T, d control.Director) string {
	t.Helper()
	path := filepath.Join(folder(t), "control.sock")
	l, err := control.Listen(path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.NewServer(d, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is still there")
		}
	})
	return path
}

// folder is a folder whose path is short enough for a socket.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vsnat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func address(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func service(s string) control.ServiceKey {
	return control.ServiceKey{Proto: control.TCP, Address: address(s)}
}

// Whatever is said to a client arrives at the director, and comes back.
func TestClientIsDirector(t *testing.T) {
	d := &controltest.Director{
		Counts: control.Stats{Total: control.Counters{Conns: 1 << 63}, Drops: map[string]uint64{"ttl": 3}, Events: map[string]uint64{}, Shards: []control.ShardStats{{Shard: 0}}},
		State:  control.Health{Status: "ok", PID: 7, Started: time.Unix(1_700_000_000, 0).UTC()},
		Ports:  []control.Link{{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}},
		Text:   "services: []\n",
		Set:    []control.Setting{{Name: "sloppy_tcp", Value: "0", Default: "0", Meaning: "m"}, {Name: "sync_version", Value: "1", Default: "1", Meaning: "m", Fixed: true}},
		Done:   control.Reloaded{Changes: []string{"add"}, Restart: []string{"io"}},
	}
	c, ctx := control.NewClient(serve(t, d)), t.Context()
	web := control.ServiceSpec{ServiceKey: service("192.0.2.1:80"), Scheduler: "rr", NoServer: control.NoServerReset}
	six := control.ServiceSpec{ServiceKey: control.ServiceKey{Proto: control.UDP, Address: address("[2001:db8::1]:53")}, Scheduler: "wlc", NoServer: control.NoServerICMP}
	server := control.ServerSpec{Address: address("[fd00::2]:53"), Weight: 0, Upper: 9, Lower: 3, Method: control.MethodNAT}
	mark := control.ServiceSpec{
		ServiceKey: control.ServiceKey{Proto: control.Mark6, Mark: 1 << 31}, Scheduler: "sh", SchedFlags: "sh-port", NoServer: control.NoServerICMP,
		Persistence: control.Persistence{Timeout: control.Duration(time.Minute), Mask: "64"}, OnePacket: true,
		Helper: control.HelperFTP, OnServerDown: control.ServerDownRepick, Idle: control.Duration(time.Hour),
	}
	ruled := control.MarkSpec{Mark: 1 << 31, Proto: control.SCTP, From: netip.MustParsePrefix("fd00::/8"), To: netip.MustParsePrefix("2001:db8::1/128"), MinPort: 1, MaxPort: 2, Interface: "eth0"}
	routed := control.ServerSpec{Address: address("[fd00::4]:0"), Weight: 1, Method: control.MethodRoute}
	rule := control.SNATSpec{From: netip.MustParsePrefix("10.0.0.0/24"), To: netip.MustParseAddr("192.0.2.1"), MinPort: 5000, MaxPort: 6000}

	edited, heavier := web, server
	edited.Scheduler, heavier.Weight = "lc", 65535
	for i, err := range []error{
		c.AddService(ctx, web), c.AddService(ctx, six), c.EditService(ctx, edited),
		c.AddServer(ctx, six.ServiceKey, server), c.EditServer(ctx, six.ServiceKey, heavier),
		c.AddServer(ctx, six.ServiceKey, control.ServerSpec{Address: address("[fd00::3]:53")}),
		c.DeleteServer(ctx, six.ServiceKey, address("[fd00::3]:53")),
		c.AddService(ctx, mark), c.AddServer(ctx, mark.ServiceKey, routed),
		c.AddSNAT(ctx, rule), c.SetTimeouts(ctx, control.Timeouts{UDP: control.Duration(1500 * time.Millisecond)}),
		c.AddMark(ctx, ruled), c.AddMark(ctx, control.MarkSpec{Mark: 7}), c.DeleteMark(ctx, control.MarkSpec{Mark: 7}),
		c.SetSettings(ctx, map[string]control.SettingValue{"sloppy_tcp": "1"}),
		c.Zero(ctx, control.ServiceKey{}), c.Zero(ctx, web.ServiceKey),
	} {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	same := func(what string, got any, err error, want any) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", what, got, err, want)
		}
	}
	services, err := c.Services(ctx)
	same("services", services, err, []control.Service{
		{ServiceSpec: edited, Servers: []control.Server{}},
		{ServiceSpec: six, Servers: []control.Server{{ServerSpec: heavier}}},
		{ServiceSpec: mark, Servers: []control.Server{{ServerSpec: routed}}},
	})
	one, err := c.Service(ctx, six.ServiceKey)
	same("service", one, err, services[1])
	one, err = c.Service(ctx, mark.ServiceKey)
	same("service by mark", one, err, services[2])
	rules, err := c.SNAT(ctx)
	same("snat", rules, err, []control.SNAT{{SNATSpec: rule, Capacity: 64512}})
	marks, err := c.Marks(ctx)
	same("marks", marks, err, []control.MarkSpec{ruled})
	stats, err := c.Stats(ctx)
	want := d.Counts
	same("stats", stats, err, want)
	health, err := c.Health(ctx)
	same("health", health, err, d.State)
	links, err := c.Links(ctx)
	same("links", links, err, d.Ports)
	timeouts, err := c.Timeouts(ctx)
	same("timeouts", timeouts, err, control.Timeouts{UDP: control.Duration(1500 * time.Millisecond)})
	settings, err := c.Settings(ctx)
	same("settings", settings, err, d.Set)
	same("setting", settings[0].Value, nil, control.SettingValue("1"))
	text, err := c.Config(ctx)
	same("config", text, err, d.Text)
	done, err := c.Reload(ctx)
	same("reload", done, err, d.Done)

	same("delete", nil, errors.Join(c.DeleteSNAT(ctx, rule.From), c.DeleteService(ctx, web.ServiceKey), c.Flush(ctx)), nil)
	services, err = c.Services(ctx)
	same("nothing", services, err, []control.Service{})
}

// Many changes cross in few requests, each with its result.
func TestChanges(t *testing.T) {
	d := &controltest.Director{}
	path := serve(t, d)
	c, ctx := control.NewClient(path), t.Context()
	web := control.ServiceSpec{ServiceKey: service("192.0.2.1:80"), Scheduler: "rr"}
	list := []control.Change{{Op: control.OpAddService, Service: web}, {Op: control.OpAddService, Service: web}, {Op: "none", Service: web}}
	for i := range 2 * control.MaxChanges {
		list = append(list, control.Change{Op: control.OpAddServer, Service: control.ServiceSpec{ServiceKey: web.ServiceKey},
			Server: control.ServerSpec{Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(i+1)), Weight: i}})
	}
	first := list[3]
	first.Server.Weight = 7
	list = append(list, control.Change{Op: control.OpEditServer, Service: first.Service, Server: first.Server},
		control.Change{Op: control.OpDeleteServer, Service: first.Service, Server: control.ServerSpec{Address: list[4].Server.Address}})
	results, err := c.Changes(ctx, list)
	if err != nil || len(results) != len(list) {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, e := range results {
		want := map[int]control.Code{1: control.CodeServiceExists, 2: control.CodeInvalid}[i]
		if e != nil && e.Code != want || e == nil && want != "" {
			t.Errorf("change %d: %+v", i, e)
		}
	}
	services, err := c.Services(ctx)
	if err != nil || len(services) != 1 || len(services[0].Servers) != 2*control.MaxChanges-1 {
		t.Fatalf("%v", err)
	}
	if last := services[0].Servers[2*control.MaxChanges-2]; last.Weight != 7 {
		t.Errorf("%+v", last)
	}
	if status, _ := raw(t, path, "POST", "/v1/changes", "["+strings.Repeat(`{"op":"flush"},`, control.MaxChanges)+`{"op":"flush"}]`); status != 413 {
		t.Errorf("status %d", status)
	}
}

// A number may stand for the text of a setting.
func TestSettingNumbers(t *testing.T) {
	d := &controltest.Director{Set: []control.Setting{{Name: "a"}, {Name: "b"}}}
	path := serve(t, d)
	if status, body := raw(t, path, "PUT", "/v1/settings", `{"a": 3, "b": "3 50"}`); status != 200 {
		t.Fatalf("status %d, %s", status, body)
	}
	if d.Set[0].Value != "3" || d.Set[1].Value != "3 50" {
		t.Errorf("%+v", d.Set)
	}
	for _, body := range []string{`{"a": [1]}`, `{"a": true}`, `{"a": null, "c": 1}`, `[]`} {
		if status, _ := raw(t, path, "PUT", "/v1/settings", body); status != 422 {
			t.Errorf("%s: status %d", body, status)
		}
	}
}

// IPv4 in IPv6 form is IPv4, or one service could be added twice.
func TestMappedAddress(t *testing.T) {
	d := &controltest.Director{}
	c := control.NewClient(serve(t, d))
	if err := c.AddService(t.Context(), control.ServiceSpec{ServiceKey: service("[::ffff:192.0.2.1]:80")}); err != nil {
		t.Fatal(err)
	}
	err := c.AddService(t.Context(), control.ServiceSpec{ServiceKey: service("192.0.2.1:80")})
	if !errors.Is(err, &control.Error{Code: control.CodeServiceExists}) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsCross(t *testing.T) {
	d := &controltest.Director{Fail: fmt.Errorf("reload: %w", control.Refuse(control.CodeConfig, "line 3 is wrong", "mend it"))}
	c, ctx := control.NewClient(serve(t, d)), t.Context()
	web := service("192.0.2.1:80")
	if err := c.AddService(ctx, control.ServiceSpec{ServiceKey: web}); err != nil {
		t.Fatal(err)
	}
	reload := func() error { _, err := c.Reload(ctx); return err }
	for _, tt := range []struct {
		err     error
		code    control.Code
		message string
		kernel  string
	}{
		{c.AddService(ctx, control.ServiceSpec{ServiceKey: web}), control.CodeServiceExists, "service tcp 192.0.2.1:80 exists already", "Service already exists"},
		{c.DeleteService(ctx, service("192.0.2.9:80")), control.CodeNoService, "there is no service tcp 192.0.2.9:80", "No such service"},
		{c.AddServer(ctx, service("192.0.2.9:80"), control.ServerSpec{}), control.CodeNotDefined, "service tcp 192.0.2.9:80 is not defined", "Service not defined"},
		{c.DeleteServer(ctx, web, address("10.0.0.1:80")), control.CodeNoServer, "service tcp 192.0.2.1:80 has no server 10.0.0.1:80", "No such destination"},
		{c.DeleteService(ctx, control.ServiceKey{Proto: "dccp", Address: web.Address}), control.CodeInvalid, `unknown protocol "dccp"`,
			"Invalid operation.  Possibly wrong module version, address not unicast, ..."},
		{reload(), control.CodeConfig, "reload: line 3 is wrong", "Invalid operation.  Possibly wrong module version, address not unicast, ..."},
	} {
		var e *control.Error
		if !errors.As(tt.err, &e) || e.Code != tt.code || e.Message != tt.message || e.Hint == "" || e.Code.Kernel() != tt.kernel {
			t.Errorf("got %+v\nwant %s %q %q", tt.err, tt.code, tt.message, tt.kernel)
		}
	}
}

func TestConnsFilterAndPage(t *testing.T) {
	d := &controltest.Director{}
	for i := range 2500 {
		d.Entries = append(d.Entries, control.Conn{
			Proto: control.TCP, State: []string{"ESTABLISHED", "SYN_RECV"}[i%2],
			Client: address(fmt.Sprintf("198.51.100.%d:%d", i%5, 1000+i)), Virtual: address("192.0.2.1:80"), Server: address("10.0.0.2:80"), Flags: []string{},
		})
	}
	c := control.NewClient(serve(t, d))
	seen := map[netip.AddrPort]bool{}
	q := control.ConnQuery{Proto: control.TCP, Client: netip.MustParsePrefix("198.51.100.1/32"), Service: netip.AddrPortFrom(address("192.0.2.1:80").Addr(), 0),
		Server: address("10.0.0.2:80"), State: "established", Limit: 100}
	pages := 0
	for {
		page, err := c.Conns(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, e := range page.Conns {
			seen[e.Client] = true
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if len(seen) != 250 || pages != 3 {
		t.Errorf("%d connections on %d pages, want 250 on 3", len(seen), pages)
	}
	if _, err := c.Conns(t.Context(), control.ConnQuery{Cursor: "x"}); !errors.Is(err, &control.Error{Code: control.CodeInvalid}) {
		t.Errorf("a bad cursor: %v", err)
	}
}

// raw sends a request as it is and returns status and body.
func raw(t *testing.T, path, method, target, body string) (int, string) {
	t.Helper()
	by := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://vsnat"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return asked(t, by, req)
}

// asked sends a request over a connection of its own and returns status and body.
func asked(t *testing.T, by *http.Transport, req *http.Request) (int, string) {
	t.Helper()
	by.DisableKeepAlives = true
	res, err := by.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestRefusedRequests(t *testing.T) {
	d := &controltest.Director{}
	path := serve(t, d)
	for _, tt := range []struct {
		method, target, body string
		status               int
		code                 control.Code
	}{
		{"GET", "/", "", 404, control.CodeNotFound},
		{"GET", "/v2/services", "", 404, control.CodeNotFound},
		{"PATCH", "/v1/services", "", 404, control.CodeNotFound},
		{"POST", "/v1/services", `{"proto":"tcp"`, 422, control.CodeInvalid},
		{"POST", "/v1/services", `{"proto":"tcp","port":80}`, 422, control.CodeInvalid},
		{"POST", "/v1/services", `{"address":"192.0.2.1"}`, 422, control.CodeInvalid},
		{"POST", "/v1/services", `{} {}`, 422, control.CodeInvalid},
		{"POST", "/v1/services", `[]`, 422, control.CodeInvalid},
		{"POST", "/v1/services", strings.Repeat(" ", control.MaxBody+1), 413, control.CodeTooLarge},
		{"PUT", "/v1/services/tcp/192.0.2.1:80", `{"address":"192.0.2.1:81"}`, 422, control.CodeInvalid},
		{"DELETE", "/v1/services/tcp/192.0.2.1", "", 422, control.CodeInvalid},
		{"DELETE", "/v1/services/icmp/192.0.2.1:80", "", 422, control.CodeInvalid},
		{"DELETE", "/v1/services/tcp/192.0.2.1:80/servers/x", "", 422, control.CodeInvalid},
		{"DELETE", "/v1/snat/10.0.0.0", "", 422, control.CodeInvalid},
		{"GET", "/v1/conns?limit=0", "", 422, control.CodeInvalid},
		{"GET", "/v1/conns?limit=10001", "", 422, control.CodeInvalid},
		{"GET", "/v1/conns?proto=dccp", "", 422, control.CodeInvalid},
		{"GET", "/v1/conns?clinet=10.0.0.1", "", 422, control.CodeInvalid},
		{"GET", "/v1/conns?client=x", "", 422, control.CodeInvalid},
		{"PUT", "/v1/timeouts", `{"udp":"5m"}`, 422, control.CodeInvalid},
		{"PUT", "/v1/timeouts", `{"udp":1e300}`, 422, control.CodeInvalid},
	} {
		status, body := raw(t, path, tt.method, tt.target, tt.body)
		var e control.Error
		if err := json.Unmarshal([]byte(body), &e); err != nil || status != tt.status || e.Code != tt.code || e.Message == "" || e.Hint == "" {
			t.Errorf("%s %s %.40s: %d %s (%v)", tt.method, tt.target, tt.body, status, body, err)
		}
	}
	if list, _ := d.Services(t.Context()); len(list) != 0 {
		t.Errorf("a refused request was carried out: %v", list)
	}
}

// Defaults of a request are those of the command line: weight 1, wlc.
func TestRequestDefaults(t *testing.T) {
	path := serve(t, &controltest.Director{})
	raw(t, path, "POST", "/v1/services", `{"proto":"tcp","address":"192.0.2.1:80"}`)
	raw(t, path, "POST", "/v1/services/tcp/192.0.2.1:80/servers", `{"address":"10.0.0.2:80"}`)
	_, body := raw(t, path, "GET", "/v1/services/tcp/192.0.2.1:80", "")
	for _, want := range []string{`"scheduler":"wlc"`, `"no-server":"icmp"`, `"weight":1`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
}

// The description names exactly the routes there are.
// What can be sent is described, field by field.
func TestSchemas(t *testing.T) {
	type schema struct {
		Properties map[string]schema `yaml:"properties"`
	}
	var doc struct {
		Components struct {
			Schemas map[string]schema `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal([]byte(control.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	fields := func(t reflect.Type) (list []string) {
		for _, f := range reflect.VisibleFields(t) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	}
	for name, v := range map[string]any{
		"Error": control.Error{}, "ServiceKey": control.ServiceKey{}, "ServiceSpec": control.ServiceSpec{},
		"ServerSpec": control.ServerSpec{}, "SNATSpec": control.SNATSpec{}, "MarkSpec": control.MarkSpec{}, "Change": control.Change{}, "Timeouts": control.Timeouts{},
		"Event":     control.Event{},
		"DrainSpec": control.DrainSpec{}, "Drain": control.Drain{}, "ApplySpec": control.ApplySpec{}, "Applied": control.Applied{}, "Pending": control.Pending{},
	} {
		if got := slices.Sorted(maps.Keys(doc.Components.Schemas[name].Properties)); !slices.Equal(got, fields(reflect.TypeOf(v))) {
			t.Errorf("%s is described with %q, and has %q", name, got, fields(reflect.TypeOf(v)))
		}
	}
	got := slices.Sorted(maps.Keys(doc.Components.Schemas["ServiceSpec"].Properties["persistence"].Properties))
	if !slices.Equal(got, fields(reflect.TypeFor[control.Persistence]())) {
		t.Errorf("persistence is described with %q", got)
	}
}

func TestOpenAPI(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.UnmarshalWithOptions([]byte(control.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "parameters" {
				described[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	served := map[string]bool{}
	for _, r := range control.Routes() {
		served[r] = true
	}
	if !reflect.DeepEqual(described, served) {
		t.Errorf("described: %v\nserved: %v", described, served)
	}
	path := serve(t, &controltest.Director{})
	if status, body := raw(t, path, "GET", "/v1/openapi.yaml", ""); status != 200 || !bytes.Equal([]byte(body), []byte(control.OpenAPI())) {
		t.Errorf("status %d", status)
	}
}
