// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func TestParseMinimal(t *testing.T) {
	c, err := Parse("minimal.yaml", []byte(Minimal()))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Services = []Service{{
		ServiceSpec: control.ServiceSpec{
			ServiceKey: control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")},
			Scheduler:  "rr", NoServer: control.NoServerICMP, Helper: control.HelperNone, OnServerDown: control.ServerDownReset, Passive: control.PassiveOn,
		},
		Servers: []control.ServerSpec{
			{Address: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1, Method: control.MethodNAT},
			{Address: netip.MustParseAddrPort("10.0.0.3:80"), Weight: 1, Method: control.MethodNAT},
			{Address: netip.MustParseAddrPort("10.0.0.4:80"), Weight: 1, Method: control.MethodNAT},
		},
	}}
	want.SNAT = []control.SNATSpec{{From: netip.MustParsePrefix("10.0.0.0/24"), To: netip.MustParseAddr("192.168.88.23")}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}

// The reference parses, has every key of the grammar, and says the truth
// where it calls its values the defaults.
func TestParseReference(t *testing.T) {
	c, err := Parse("reference.yaml", []byte(Reference()))
	if err != nil {
		t.Fatal(err)
	}
	d := Default()
	if c.Interfaces != nil || c.IO != d.IO || c.Guard != d.Guard || c.MaxConns != d.MaxConns ||
		c.ICMPRate != d.ICMPRate || c.Log != d.Log || c.Timeouts != d.Timeouts || c.Compat != d.Compat || c.Settings != nil {
		t.Errorf("a value is not the default: %+v", c)
	}
	everyKey(t, reflect.TypeFor[rawFile]())
	for _, name := range settingNames() {
		if !strings.Contains(Reference(), "\n  "+name+": ") {
			t.Errorf("reference.yaml does not have the setting %s", name)
		}
	}
}

func everyKey(t *testing.T, raw reflect.Type) {
	for _, key := range names(raw) {
		found := false
		for line := range strings.Lines(Reference()) {
			found = found || strings.HasPrefix(strings.TrimLeft(line, " -"), key+":")
		}
		if !found {
			t.Errorf("reference.yaml does not have the key %s", key)
		}
	}
	for _, f := range reflect.VisibleFields(raw) {
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner != textType && f.Type != pairsType && f.Tag.Get("key") != "" {
			everyKey(t, inner)
		}
	}
}

// What a careful person may write in more than one way.
func TestParseForms(t *testing.T) {
	for _, tt := range []struct{ name, text, canonical string }{
		{"byte order mark", "\uFEFFmax-conns: 5\n", "max-conns: 5\n"},
		{"CRLF", "max-conns: 5\r\nguard: nft\r\n", "guard: nft\nmax-conns: 5\n"},
		{"empty mapping", "{}\n", "services: []\n"},
		{"document marks", "---\nmax-conns: 5\n...\n", "max-conns: 5\n"},
		{"everything commented out", "services:\n# - tcp: 192.0.2.1:80\n", "services: []\n"},
		{"underscores", "max-conns: 2_000_000", "max-conns: 2000000\n"},
		{"interfaces of one", "interfaces: eth0", "interfaces: [eth0]\n"},
		{"interfaces by pattern", "interfaces: [\"eth*\", 'ens[12]', lo0]", "interfaces: [\"eth*\", \"ens[12]\", lo0]\n"},
		{"number as a name", "interfaces: [010, 1e3]", "interfaces: [010, 1e3]\n"},
		{"short control", "control: /tmp/x.sock", "control:\n  socket: /tmp/x.sock\n"},
		{"group alone", "control: {group: adm}", "control:\n  group: adm\n"},
		{"group without right", "control: {group: adm, mode: 0600}", "control:\n  mode: 0600\n  group: adm\n"},
		{"short log", "log: debug", "log:\n  level: debug\n"},
		{"durations", "timeouts: {established: 2h, udp: 30, close: 10s}", "timeouts:\n  established: 7200\n  udp: 30\n"},
		{"defaults of a service", "services: [{udp: 192.0.2.1:53, servers: [10.0.0.2]}]",
			"services:\n  - udp: 192.0.2.1:53\n    scheduler: wlc\n    servers:\n      - 10.0.0.2:53\n"},
		{"IPv6", "services: [{tcp: '[2001:db8::1]:80', servers: ['fd00::2', '[fd00::3]:8080']}]",
			"services:\n  - tcp: \"[2001:db8::1]:80\"\n    scheduler: wlc\n    servers:\n      - \"[fd00::2]:80\"\n      - \"[fd00::3]:8080\"\n"},
		{"mapped IPv4", "services: [{tcp: '[::ffff:192.0.2.1]:80'}]", "services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n"},
		{"same port twice, TCP and UDP", "services: [{tcp: 192.0.2.1:53}, {udp: 192.0.2.1:53}]",
			"services:\n  - tcp: 192.0.2.1:53\n    scheduler: wlc\n  - udp: 192.0.2.1:53\n    scheduler: wlc\n"},
		{"every port", "services: [{tcp: '192.0.2.1:0', persistence: 360, servers: [10.0.0.2]}]",
			"services:\n  - tcp: 192.0.2.1:0\n    scheduler: wlc\n    persistence: 360\n    servers:\n      - 10.0.0.2:0\n"},
		{"marks", "services:\n- mark: 0x10\n  servers: [10.0.0.2, 10.0.0.3:80]\n- mark6: 16",
			"services:\n  - mark: 16\n    scheduler: wlc\n    servers:\n      - 10.0.0.2:0\n      - 10.0.0.3:80\n  - mark6: 16\n    scheduler: wlc\n"},
		{"a server of the client's port", "services:\n- tcp: 192.0.2.1:80\n  servers: [10.0.0.2:0]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n    servers:\n      - 10.0.0.2:0\n"},
		{"flags", "services: [{tcp: 192.0.2.1:80, scheduler: sh, sched-flags: [flag-2, sh-fallback]}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: sh\n    sched-flags: [sh-fallback, sh-port]\n"},
		{"flags as of ipvsadm", "services: [{tcp: 192.0.2.1:80, scheduler: mh, sched-flags: 'mh-port,mh-fallback'}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: mh\n    sched-flags: [mh-fallback, mh-port]\n"},
		{"persistence of a network", "services: [{tcp: 192.0.2.1:80, persistence: {mask: 24}}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n    persistence:\n      timeout: 360\n      mask: 255.255.255.0\n"},
		{"mask with holes", "services: [{tcp: 192.0.2.1:80, persistence: {timeout: 5m, mask: 255.0.255.0}}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n    persistence:\n      timeout: 300\n      mask: 255.0.255.0\n"},
		{"mask of single clients", "services: [{tcp: '[2001:db8::1]:80', persistence: {timeout: 60, mask: 128}}]",
			"services:\n  - tcp: \"[2001:db8::1]:80\"\n    scheduler: wlc\n    persistence: 60\n"},
		{"helper", "services: [{tcp: 192.0.2.1:21, helper: ftp}, {tcp: 192.0.2.1:22, helper: none}]",
			"services:\n  - tcp: 192.0.2.1:21\n    scheduler: wlc\n    helper: ftp\n  - tcp: 192.0.2.1:22\n    scheduler: wlc\n"},
		{"one-packet", "services: [{udp: 192.0.2.1:53, one-packet: true, idle: 1m, on-server-down: keep}]",
			"services:\n  - udp: 192.0.2.1:53\n    scheduler: wlc\n    one-packet: true\n    on-server-down: keep\n    idle: 60\n"},
		{"methods", "services: [{tcp: 192.0.2.1:80, servers: [{address: 10.0.0.2, method: route}, {address: 10.0.0.3, method: tunnel, weight: 1}]}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n    servers:\n      - address: 10.0.0.2:80\n        method: route\n" +
				"      - address: 10.0.0.3:80\n        method: tunnel\n"},
		{"full NAT", "services: [{tcp: 192.0.2.1:80, servers: [{address: 10.0.0.2, nat: masquerade}, {address: 10.0.0.3, nat: full}, {nat: auto, weight: 2, address: 10.0.0.4}]}]\nlocal-addresses: [10.0.0.11/24]",
			"local-addresses: [10.0.0.11/24]\nservices:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n    servers:\n      - 10.0.0.2:80\n" +
				"      - address: 10.0.0.3:80\n        nat: full\n      - address: 10.0.0.4:80\n        nat: auto\n        weight: 2\n"},
		{"tunnels", "services: [{tcp: 192.0.2.1:80, servers: [{address: 10.0.0.2, method: tunnel, tunnel: ipip}, " +
			"{address: 10.0.0.3, method: tunnel, tunnel: gre, tunnel-checksum: nocsum}, {address: 10.0.0.4, tunnel-port: 6080, tunnel: gue, method: tunnel, tunnel-checksum: csum}]}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n    servers:\n      - address: 10.0.0.2:80\n        method: tunnel\n" +
				"      - address: 10.0.0.3:80\n        method: tunnel\n        tunnel: gre\n" +
				"      - address: 10.0.0.4:80\n        method: tunnel\n        tunnel: gue\n        tunnel-port: 6080\n        tunnel-checksum: csum\n"},
		{"what a deleted server's connections do where nothing is said", "services: [{tcp: 192.0.2.1:80, on-server-down: reset}, {udp: 192.0.2.1:80, on-server-down: repick}]",
			"services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n  - udp: 192.0.2.1:80\n    scheduler: wlc\n"},
		{"compat", "compat: ipvs\nservices: [{tcp: 192.0.2.1:80}, {udp: 192.0.2.1:80, on-server-down: repick}]",
			"compat: ipvs\nservices:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n  - udp: 192.0.2.1:80\n    scheduler: wlc\n    on-server-down: repick\n"},
		{"settings", "settings: {sloppy_tcp: 1, conn_reuse_mode: 1, lblc_expiration: 60, reset_on_expiry: 0, sync_threshold: \"3\\t50\"}",
			"settings:\n  lblc_expiration: 60\n  reset_on_expiry: 0\n  sloppy_tcp: 1\n"},
		{"settings of IPVS", "settings: {reset_on_expiry: 1, drop_entry: 0}\ncompat: ipvs", "compat: ipvs\nsettings:\n  reset_on_expiry: 1\n"},
		{"rules of marks", "marks: [{mark: 0x10}]",
			"marks:\n  - mark: 16\n"},
		{"a rule of a mark", "marks: [{mark: 1, proto: udp, from: 10.0.0.0/255.0.0.0, to: 192.0.2.1, ports: 53, interface: eth0}]",
			"marks:\n  - mark: 1\n    proto: udp\n    from: 10.0.0.0/8\n    to: 192.0.2.1/32\n    ports: 53-53\n    interface: eth0\n"},
		{"no settings", "compat: none\nsettings:\n", "services: []\n"},
		{"netmask", "snat: [{from: 10.0.0.0/255.255.255.0, to: 192.0.2.1, ports: 5000}]",
			"snat:\n  - from: 10.0.0.0/24\n    to: 192.0.2.1\n    ports: 5000-5000\n"},
		{"one host", "snat: [{from: 10.0.0.7, to: 192.0.2.1}]", "snat:\n  - from: 10.0.0.7/32\n    to: 192.0.2.1\n"},
		{"default route", "routes: [{dst: '::/0', via: 'fd00::'}]", "routes:\n  - dst: \"::/0\"\n    via: \"fd00::\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("x", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(Marshal(c)); got != tt.canonical {
				t.Errorf("got\n%s\nwant\n%s", got, tt.canonical)
			}
			if err := validate(t, tt.text); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
		})
	}
}

func TestThousandServices(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  - tcp: 192.168.%d.%d:80\n    servers:\n", i/250, 1+i%250)
		for j := range 100 {
			fmt.Fprintf(&b, "      - {address: 10.20.%d.%d:8080, weight: %d}\n", i/250, 1+j, j)
		}
	}
	c, err := Parse("big", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.Services[999].Servers); len(c.Services) != 1000 || n != 100 {
		t.Errorf("%d services, the last with %d servers", len(c.Services), n)
	}
	again, err := Parse("again", Marshal(c))
	if err != nil || !reflect.DeepEqual(c, again) {
		t.Errorf("Marshal and Parse made something else of it (%v)", err)
	}
	if changes := Diff(c, again); len(changes) != 0 {
		t.Errorf("%d changes between equal configurations, the first: %s", len(changes), changes[0])
	}
}

// Whatever is read back from a path that is not a configuration, it is told
// at once and with a hint.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	fifo, big, good := filepath.Join(dir, "fifo"), filepath.Join(dir, "big"), filepath.Join(dir, "good")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(good, []byte(Minimal()), 0o600); err != nil {
		t.Fatal(err)
	}
	// A hundred megabytes that need no disk.
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 100<<20); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "none"), "there is no such file"},
		{dir, "is a directory, not a file"},
		{fifo, "is a FIFO, not a file"},
		{"/dev/zero", "is a device, not a file"},
		{big, "the file is larger than 16 MiB"},
		{filepath.Join(good, "below"), "can't be opened: not a directory"},
	} {
		_, err := Read(tt.path)
		var refused *Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		p := refused.Problems[0]
		if p.String() != tt.path+": "+tt.want || p.Hint == "" {
			t.Errorf("got %q, hint %q; want %q and a hint", p, p.Hint, tt.want)
		}
	}
	if _, err := Read(good); err != nil {
		t.Error(err)
	}
}

func TestTimeoutNames(t *testing.T) {
	raw, wire := reflect.TypeFor[rawTimeouts](), reflect.TypeFor[control.Timeouts]()
	for _, f := range reflect.VisibleFields(wire) {
		other, ok := raw.FieldByName(f.Name)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !ok || other.Tag.Get("key") != name {
			t.Errorf("%s is %q on the wire and %q in the file", f.Name, name, other.Tag.Get("key"))
		}
	}
	if d := defaultTimeouts(); d.Established.Std() != 15*time.Minute {
		t.Errorf("established: %s", d.Established)
	}
}
