// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm/recorded"
)

// views calls f for each recorded showing of a file.
func views(t *testing.T, name string, f func(recorded.Step)) {
	t.Helper()
	seen := 0
	for _, file := range []string{"seed.txt", "stages.txt", "persistence.txt", "stats.txt"} {
		steps, err := recorded.Session(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			if s.View() == name {
				seen++
				f(s)
			}
		}
	}
	if seen == 0 {
		t.Errorf("%s was never recorded", name)
	}
}

func view(t *testing.T, d control.Director, name string) string {
	t.Helper()
	var b bytes.Buffer
	if err := control.Proc(t.Context(), d, name, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// hexEndpoint reads what the kernel wrote.
func hexEndpoint(t *testing.T, addr, port string) netip.AddrPort {
	t.Helper()
	b, err := hex.DecodeString(addr)
	n, err2 := strconv.ParseUint(port, 16, 16)
	a, ok := netip.AddrFromSlice(b)
	if err != nil || err2 != nil || !ok {
		t.Fatalf("%s:%s", addr, port)
	}
	return netip.AddrPortFrom(a, uint16(n))
}

// Every row is written again from its fields.
func TestProcConnsAsRecorded(t *testing.T) {
	views(t, "ip_vs_conn", func(s recorded.Step) {
		d := &controltest.Director{}
		for i, line := range strings.Split(strings.TrimSuffix(s.Stdout, "\n"), "\n") {
			if i == 0 {
				continue
			}
			f := strings.Fields(line)
			seconds, err := strconv.Atoi(f[8])
			if err != nil {
				t.Fatalf("line %d: %q", s.Line, line)
			}
			d.Entries = append(d.Entries, control.Conn{
				Proto: strings.ToLower(f[0]), Client: hexEndpoint(t, f[1], f[2]), Virtual: hexEndpoint(t, f[3], f[4]),
				Server: hexEndpoint(t, f[5], f[6]), State: f[7], Kind: "nat",
				Expires: control.Duration(time.Duration(seconds)*time.Second + 900*time.Millisecond),
			})
		}
		d.Entries = append(d.Entries, control.Conn{Proto: control.TCP, Kind: "snat"}, control.Conn{Proto: control.UDP, Kind: "answers"})
		if got := view(t, d, "ip_vs_conn"); got != s.Stdout {
			t.Errorf("line %d\n--- got\n%s--- want\n%s", s.Line, got, s.Stdout)
		}
	})
}

func TestProcStatsAsRecorded(t *testing.T) {
	counters := func(line string) (c control.Counters) {
		if _, err := fmt.Sscanf(line, "%x %x %x %x %x", &c.Conns, &c.InPackets, &c.OutPackets, &c.InBytes, &c.OutBytes); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return c
	}
	views(t, "ip_vs_stats", func(s recorded.Step) {
		lines := strings.Split(s.Stdout, "\n")
		d := &controltest.Director{Counts: control.Stats{Total: counters(lines[2]), Rate: counters(lines[5])}}
		if got := view(t, d, "ip_vs_stats"); got != s.Stdout {
			t.Errorf("line %d\n--- got\n%s--- want\n%s", s.Line, got, s.Stdout)
		}
	})
	views(t, "ip_vs_stats_percpu", func(s recorded.Step) {
		lines := strings.Split(s.Stdout, "\n")
		d := &controltest.Director{Counts: control.Stats{Total: counters(lines[2][4:]), Rate: counters(lines[6])}}
		if got := view(t, d, "ip_vs_stats_percpu"); got != s.Stdout {
			t.Errorf("line %d\n--- got\n%s--- want\n%s", s.Line, got, s.Stdout)
		}
	})
}

// Services are as in forms.txt, whose every listing a director plays again; here
// is what it does not have.
func TestProcServices(t *testing.T) {
	d := &controltest.Director{}
	for _, s := range []control.ServiceSpec{
		{ServiceKey: control.ServiceKey{Proto: control.Mark6, Mark: 0xdeadbeef}, Scheduler: "sh", OnePacket: true,
			Persistence: control.Persistence{Timeout: control.Duration(time.Second), Mask: "1"}},
		{ServiceKey: control.ServiceKey{Proto: control.UDP, Address: address("[fd00::23]:53")}, Scheduler: "rr", OnePacket: true},
	} {
		if err := d.AddService(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	want := "UDP  [fd00:0000:0000:0000:0000:0000:0000:0023]:0035 rr \n" +
		"FWM  DEADBEEF sh ops persistent 250 01000000\n"
	if _, got, _ := strings.Cut(view(t, d, "ip_vs"), "InActConn\n"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A long view crosses the socket as it is written, and one that breaks off is an
// error.
func TestProcOverSocket(t *testing.T) {
	d := &controltest.Director{}
	for i := range 25_000 {
		d.Entries = append(d.Entries, control.Conn{Proto: control.TCP, State: "NONE", Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i)),
			Virtual: address("192.0.2.9:80"), Server: address("10.0.0.2:80")})
	}
	c := control.NewClient(serve(t, d))
	var b bytes.Buffer
	if err := c.Proc(t.Context(), "ip_vs_conn", &b); err != nil || b.String() != view(t, d, "ip_vs_conn") {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
	err := c.Proc(t.Context(), "ip_vs_app", io.Discard)
	if !errors.Is(err, &control.Error{Code: control.CodeNotFound}) {
		t.Errorf("got %v", err)
	}
	broken := control.NewClient(serve(t, &breaking{Director: d}))
	if err := broken.Proc(t.Context(), "ip_vs_conn", io.Discard); !errors.Is(err, &control.Error{Code: control.CodeUnavailable}) {
		t.Errorf("got %v", err)
	}
	if err := c.Proc(t.Context(), "ip_vs_conn", full{}); err == nil || err.Error() != "full" {
		t.Errorf("got %v", err)
	}
}

// breaking fails at the second page.
type breaking struct{ *controltest.Director }

func (b *breaking) Conns(ctx context.Context, q control.ConnQuery) (control.ConnPage, error) {
	if q.Cursor != "" {
		return control.ConnPage{}, errors.New("broken")
	}
	return b.Director.Conns(ctx, q)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("full") }

// Both ways into a service's row lead to the same order, whatever was added when.
func TestKernelOrder(t *testing.T) {
	key := func(proto, name string) control.Service {
		k, err := control.ParseKey(proto, name)
		if err != nil {
			t.Fatal(err)
		}
		return control.Service{ServiceSpec: control.ServiceSpec{ServiceKey: k}}
	}
	// As recorded (order.txt), and two that share a row.
	list := []control.Service{
		key("mark", "7"), key("tcp", "192.168.88.23:8080"), key("tcp", "192.168.88.23:80"), key("udp", "192.168.88.23:53"),
		key("tcp", "10.0.0.1:80"), key("mark", "3"), key("tcp", "192.168.88.23:443"), key("udp", "10.0.0.1:9"), key("tcp", "192.168.99.23:80"),
	}
	control.KernelOrder(list)
	var got []string
	for _, s := range list {
		got = append(got, s.ServiceKey.String())
	}
	want := []string{"tcp 192.168.99.23:80", "tcp 192.168.88.23:80", "tcp 10.0.0.1:80", "udp 192.168.88.23:53", "udp 10.0.0.1:9",
		"tcp 192.168.88.23:443", "tcp 192.168.88.23:8080", "mark 3", "mark 7"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
