// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// fakeControl is a director with one service, that notes what it is asked for.
type fakeControl struct {
	control.Director // what the tool never calls
	calls            []string
	err              error // answers every call
	broken           error // answers Changes
	batches          []int // how many changes came at once
	pages            []control.ConnPage
}

func (f *fakeControl) note(format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeControl) AddService(_ context.Context, s control.ServiceSpec) error {
	return f.note("add %s", inWords(s))
}

func (f *fakeControl) EditService(_ context.Context, s control.ServiceSpec) error {
	return f.note("edit %s", inWords(s))
}

// inWords is a service in one line, without what is not set.
func inWords(s control.ServiceSpec) string {
	text := s.ServiceKey.String() + " " + s.Scheduler
	for _, w := range []struct {
		given bool
		text  string
	}{
		{s.SchedFlags != "", s.SchedFlags}, {s.Persistence != control.Persistence{}, s.Persistence.String()},
		{s.OnePacket, "one-packet"}, {s.NoServer != "", s.NoServer},
	} {
		if w.given {
			text += " " + w.text
		}
	}
	return text
}

func (f *fakeControl) DeleteService(_ context.Context, k control.ServiceKey) error {
	return f.note("delete %s", k)
}

func (f *fakeControl) Flush(context.Context) error { return f.note("flush") }

func (f *fakeControl) AddServer(_ context.Context, k control.ServiceKey, s control.ServerSpec) error {
	return f.note("add server %s %s %s weight %d thresholds %d %d", k, s.Address, methodText(s), s.Weight, s.Upper, s.Lower)
}

func methodText(s control.ServerSpec) string {
	if s.Tunnel == (control.Tunnel{}) {
		return s.Method
	}
	return fmt.Sprintf("%s %s:%d:%s", s.Method, s.Tunnel.Type, s.Tunnel.Port, s.Tunnel.Checksum)
}

func (f *fakeControl) EditServer(_ context.Context, k control.ServiceKey, s control.ServerSpec) error {
	return f.note("edit server %s %s %s weight %d thresholds %d %d", k, s.Address, methodText(s), s.Weight, s.Upper, s.Lower)
}

func (f *fakeControl) DeleteServer(_ context.Context, k control.ServiceKey, a netip.AddrPort) error {
	return f.note("delete server %s %s", k, a)
}

func (f *fakeControl) Changes(ctx context.Context, list []control.Change) (results []*control.Error, err error) {
	f.batches = append(f.batches, len(list))
	for _, c := range list {
		if c.Server.Address == refusedServer {
			results = append(results, control.Refusal(control.Refuse(control.CodeInvalid, "m", "h")))
			continue
		}
		results = append(results, control.Refusal(c.Make(ctx, f)))
	}
	return results, f.broken
}

var refusedServer = netip.MustParseAddrPort("10.9.9.9:80")

func (f *fakeControl) Zero(_ context.Context, k control.ServiceKey) error {
	if k.IsZero() {
		return f.note("zero all")
	}
	return f.note("zero %s", k)
}

func (f *fakeControl) Services(context.Context) ([]control.Service, error) {
	counters := control.Counters{Conns: 1, InPackets: 2, OutPackets: 3, InBytes: 4, OutBytes: 5}
	return []control.Service{{
		ServiceSpec: control.ServiceSpec{
			ServiceKey: control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")},
			Scheduler:  "rr", NoServer: control.NoServerReset,
		},
		Stats: counters,
		Servers: []control.Server{
			{
				ServerSpec: control.ServerSpec{Address: netip.MustParseAddrPort("10.0.0.3:8080"), Weight: 2, Upper: 9, Lower: 7},
				Active:     4, Inactive: 5, Persistent: 6, Stats: counters,
			},
			{ServerSpec: control.ServerSpec{Address: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1}},
		},
	}}, f.err
}

func (f *fakeControl) Conns(_ context.Context, q control.ConnQuery) (control.ConnPage, error) {
	page := 0
	if q.Cursor != "" {
		fmt.Sscan(q.Cursor, &page)
	}
	return f.pages[page], f.err
}

func (f *fakeControl) Timeouts(context.Context) (control.Timeouts, error) {
	return control.Timeouts{
		Established: control.Duration(900 * time.Second), FinWait: control.Duration(2 * time.Minute),
		UDP: control.Duration(5 * time.Minute),
	}, f.err
}

func (f *fakeControl) SetTimeouts(_ context.Context, t control.Timeouts) error {
	return f.note("timeouts %s %s %s", t.Established, t.FinWait, t.UDP)
}

func vsnatTool(f *fakeControl, command string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = Run(strings.Fields(command), strings.NewReader(""), &out, &errs, testNames{}, func() (Director, error) {
		return Adapt(context.Background(), f), nil
	})
	return out.String(), errs.String(), code
}

func TestAdapterCalls(t *testing.T) {
	for command, want := range map[string]string{
		"ipvsadm -A -t 192.168.88.24:80":                            "add tcp 192.168.88.24:80 wlc",
		"ipvsadm -A -u 192.168.88.24:53 -s rr":                      "add udp 192.168.88.24:53 rr",
		"ipvsadm -A -t [fd00::23]:80 -s rr":                         "add tcp [fd00::23]:80 rr",
		"ipvsadm -A --sctp-service 192.168.88.24:9 -s rr":           "add sctp 192.168.88.24:9 rr",
		"ipvsadm -A -u 192.168.88.24:53 -s rr -o":                   "add udp 192.168.88.24:53 rr one-packet",
		"ipvsadm -A -f 1 -s sh -b sh-port,flag-1":                   "add mark 1 sh sh-fallback,sh-port",
		"ipvsadm -A -f 4294967295 -6 -p":                            "add mark6 4294967295 wlc 6m0s",
		"ipvsadm -A -t 192.168.88.24:0 -p 60 -M 24":                 "add tcp 192.168.88.24:0 wlc 1m0s mask 0.0.0.24",
		"ipvsadm -A -t 192.168.88.24:80 -p 60 -M 255.255.255.255":   "add tcp 192.168.88.24:80 wlc 1m0s",
		"ipvsadm -A -t [fd00::23]:80 -p 60 -M 64":                   "add tcp [fd00::23]:80 wlc 1m0s mask 64",
		"ipvsadm -A -t 192.168.88.24:80 -M 255.255.255.0":           "add tcp 192.168.88.24:80 wlc",
		"ipvsadm -E -t 192.168.88.23:80 -s wrr":                     "edit tcp 192.168.88.23:80 wrr reset",
		"ipvsadm -E -t 192.168.88.99:80 -s wrr":                     "edit tcp 192.168.88.99:80 wrr",
		"ipvsadm -D -t 192.168.88.23:80":                            "delete tcp 192.168.88.23:80",
		"ipvsadm -D -f 7 -6":                                        "delete mark6 7",
		"ipvsadm -C":                                                "flush",
		"ipvsadm -at192.168.88.23:80 -r10.0.0.2 -m":                 "add server tcp 192.168.88.23:80 10.0.0.2:80 nat weight 1 thresholds 0 0",
		"ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.2:8080":           "add server tcp 192.168.88.23:80 10.0.0.2:80 route weight 1 thresholds 0 0",
		"ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.2:80 -i":          "add server tcp 192.168.88.23:80 10.0.0.2:80 tunnel weight 1 thresholds 0 0",
		"ipvsadm -a -f 1 -r 10.0.0.2 -g":                            "add server mark 1 10.0.0.2:0 route weight 1 thresholds 0 0",
		"ipvsadm -a -r 10.0.0.2 -mt 192.168.88.23:80 -w0 -x=5 -y 3": "add server tcp 192.168.88.23:80 10.0.0.2:0 nat weight 0 thresholds 5 3",
		"ipvsadm -e -t 192.168.88.23:80 -r 10.0.0.2:8080 -m":        "edit server tcp 192.168.88.23:80 10.0.0.2:8080 nat weight 1 thresholds 0 0",
		"ipvsadm -d -t 192.168.88.23:80 -r 10.0.0.2":                "delete server tcp 192.168.88.23:80 10.0.0.2:80",
		"ipvsadm -Z":                     "zero all",
		"ipvsadm -Z -t 192.168.88.23:80": "zero tcp 192.168.88.23:80",
		"ipvsadm -Z -f 3":                "zero mark 3",
		"ipvsadm --set 60 0 10":          "timeouts 1m0s 0s 10s",
		"ipvsadm --add-service --tcp-service=vip:http --scheduler lc": "add tcp 192.168.88.23:80 lc",
	} {
		f := &fakeControl{}
		stdout, stderr, code := vsnatTool(f, command)
		if stdout+stderr != "" || code != 0 || !slices.Equal(f.calls, []string{want}) {
			t.Errorf("%s\n got %q, exit %d, %s%s\nwant %q", command, f.calls, code, stdout, stderr, want)
		}
	}
}

// TestAdapterTunnels: what the tool says of a tunnel reaches the director, and comes
// back as it was said.
func TestAdapterTunnels(t *testing.T) {
	const add = "add server tcp 192.168.88.23:80 10.0.0.2:80 tunnel"
	for options, want := range map[string]string{
		"--tun-type gue --tun-port 6080 --tun-csum": add + " gue:6080:csum weight 1 thresholds 0 0",
		"--tun-type gre --tun-csum":                 add + " gre:0:csum weight 1 thresholds 0 0",
		"--tun-type ipip":                           add + " weight 1 thresholds 0 0",
	} {
		f := &fakeControl{}
		vsnatTool(f, "ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.2 -i "+options)
		if !slices.Equal(f.calls, []string{want}) {
			t.Errorf("%s: %q, want %q", options, f.calls, want)
		}
	}
	for _, o := range []TunnelOptions{{}, {Type: GRE}, {Type: GRE, Checksum: Checksum}, {Type: GUE, Port: 6080, Checksum: RemoteChecksum}, {Type: GUE, Port: 1}} {
		s := Server{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80, Forward: Tunnel, Weight: 1, Tunnel: o}
		if got := toolServer(wireServer(s)); got != s {
			t.Errorf("%+v comes back as %+v", s, got)
		}
	}
}

func TestAdapterListings(t *testing.T) {
	client, virtual := netip.MustParseAddrPort("192.168.88.21:40000"), netip.MustParseAddrPort("192.168.88.23:80")
	conn := func(proto, state, kind string, left time.Duration) control.Conn {
		return control.Conn{
			Proto: proto, State: state, Kind: kind, Expires: control.Duration(left),
			Client: client, Virtual: virtual, Server: netip.MustParseAddrPort("10.0.0.2:8080"),
		}
	}
	f := &fakeControl{pages: []control.ConnPage{
		{Conns: []control.Conn{conn("tcp", "ESTABLISHED", "nat", 899900*time.Millisecond)}, Next: "1"},
		{Conns: []control.Conn{conn("icmp", "ICMP", "snat", time.Second), conn("udp", "UDP", "answers", time.Second)}, Next: "2"},
		{Conns: []control.Conn{conn("udp", "UDP", "fullnat", -time.Second), conn("tcp", "TIME_WAIT", "nat", 2*time.Minute)}},
	}}
	for command, want := range map[string]string{
		"ipvsadm -Ln": "" +
			"IP Virtual Server version 1.2.1 (size=4096)\n" +
			"Prot LocalAddress:Port Scheduler Flags\n" +
			"  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n" +
			"TCP  192.168.88.23:80 rr\n" +
			"  -> 10.0.0.2:80                  Masq    1      0          0         \n" +
			"  -> 10.0.0.3:8080                Masq    2      4          5         \n",
		"ipvsadm -Ln --nosort --thresholds": "" +
			"IP Virtual Server version 1.2.1 (size=4096)\n" +
			"Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n" +
			"  -> RemoteAddress:Port\n" +
			"TCP  192.168.88.23:80 rr\n" +
			"  -> 10.0.0.3:8080                9          7          4          5         \n" +
			"  -> 10.0.0.2:80                  0          0          0          0         \n",
		"ipvsadm -Ln --persistent-conn -t 192.168.88.23:80": "" +
			"Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n" +
			"  -> RemoteAddress:Port\n" +
			"TCP  192.168.88.23:80 rr\n" +
			"  -> 10.0.0.2:80                  1         0           0          0         \n" +
			"  -> 10.0.0.3:8080                2         6           4          5         \n",
		"ipvsadm -Ln --stats -t 192.168.88.23:80": "" +
			"Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n" +
			"  -> RemoteAddress:Port\n" +
			"TCP  192.168.88.23:80                    1        2        3        4        5\n" +
			"  -> 10.0.0.2:80                         0        0        0        0        0\n" +
			"  -> 10.0.0.3:8080                       1        2        3        4        5\n",
		"ipvsadm -Lnc": "" +
			"IPVS connection entries\n" +
			"pro expire state       source             virtual            destination\n" +
			"TCP 14:59  ESTABLISHED 192.168.88.21:40000 192.168.88.23:80   10.0.0.2:8080\n" +
			"UDP 00:00  UDP         192.168.88.21:40000 192.168.88.23:80   10.0.0.2:8080\n" +
			"TCP 01:59  TIME_WAIT   192.168.88.21:40000 192.168.88.23:80   10.0.0.2:8080\n",
		"ipvsadm -Sn": "" +
			"-A -t 192.168.88.23:80 -s rr\n" +
			"-a -t 192.168.88.23:80 -r 10.0.0.2:80 -m -w 1\n" +
			"-a -t 192.168.88.23:80 -r 10.0.0.3:8080 -m -w 2 -x 9 -y 7\n",
		"ipvsadm -L --timeout": "Timeout (tcp tcpfin udp): 900 120 300\n",
		"ipvsadm -L --daemon":  "",
	} {
		stdout, stderr, code := vsnatTool(f, command)
		if stdout != want || stderr != "" || code != 0 {
			t.Errorf("%s: exit %d, %s\n--- got\n%s--- want\n%s", command, code, stderr, stdout, want)
		}
	}
}

// What vsnat does not do is refused before the director hears of it.
func TestAdapterRefusals(t *testing.T) {
	const engine = "Scheduler or persistence engine not found\nhint: vsnat has no persistence engines: leave out --pe\n"
	for command, want := range map[string]string{
		"ipvsadm -A -u 192.168.88.23:5060 -p 60 --pe sip":      engine,
		"ipvsadm -E -t 192.168.88.23:80 --pe nosuch":           "Scheduler or persistence engine not found\n",
		"ipvsadm --start-daemon master --mcast-interface eth1": "vsnat has no connection synchronisation daemon\nhint: this version keeps connections in one director only\n",
		"ipvsadm --stop-daemon master":                         "No daemon is running\n",
	} {
		f := &fakeControl{}
		stdout, stderr, code := vsnatTool(f, command)
		if stdout != "" || stderr != want || code != 255 || len(f.calls) > 0 {
			t.Errorf("%s: exit %d, called %q\n--- got\n%s%s--- want\n%s", command, code, f.calls, stdout, stderr, want)
		}
	}
}

// A restore makes its changes many at once, in the order of its lines, and what is
// refused is told by its line.
func TestAdapterRestore(t *testing.T) {
	var lines strings.Builder
	lines.WriteString("-A -t 192.168.88.24:80 -s rr\n-A -u 192.168.88.24:53 --pe none\n-a -t 192.168.88.24:80 -r 10.9.9.9:80 -m\n")
	lines.WriteString("-E -t 192.168.88.23:80 -s lc\n-a -t 192.168.88.24:80 -r 10.9.9.9:80 -m -x 1 -y 2\n\n")
	for range 1500 {
		lines.WriteString("-d -t 192.168.88.24:80 -r 10.0.0.2\n")
	}
	lines.WriteString("-D -t 192.168.88.24:80\n")
	f := &fakeControl{}
	var out, errs bytes.Buffer
	code := Run([]string{"ipvsadm", "-R"}, strings.NewReader(lines.String()), &out, &errs, testNames{}, func() (Director, error) {
		return Adapt(context.Background(), f), nil
	})
	const want = "Scheduler or persistence engine not found\nhint: that is line 2 of the input\n" +
		"Invalid operation.  Possibly wrong module version, address not unicast, ...\nhint: m; h\nhint: that is line 3 of the input\n" +
		"Numerical result out of range\nhint: that is line 5 of the input\nhint: 1503 of 1506 lines that were read are in force\n"
	if errs.String() != want || out.Len() > 0 || code != 0 {
		t.Errorf("exit %d, %s%s", code, out.String(), errs.String())
	}
	if !slices.Equal(f.batches, []int{2, 1000, 502}) {
		t.Errorf("batches of %v", f.batches)
	}
	if n := len(f.calls); n != 1503 || f.calls[0] != "add tcp 192.168.88.24:80 rr" || f.calls[1] != "edit tcp 192.168.88.23:80 lc reset" ||
		f.calls[2] != "delete server tcp 192.168.88.24:80 10.0.0.2:80" || f.calls[n-1] != "delete tcp 192.168.88.24:80" {
		t.Errorf("%d calls, the first %q", n, f.calls[:3])
	}

	f.broken = control.Refuse(control.CodeUnavailable, "gone", "")
	code = Run([]string{"ipvsadm", "-R"}, strings.NewReader(lines.String()), &out, &errs, testNames{}, func() (Director, error) {
		return Adapt(context.Background(), f), nil
	})
	if code != 2 || !strings.Contains(errs.String(), "Can't initialize ipvs: gone\n") {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}

// Thresholds that contradict each other have a text of the kernel's own.
func TestAdapterRange(t *testing.T) {
	f := &fakeControl{err: control.Refuse(control.CodeInvalid, "lower is above upper", "")}
	_, stderr, code := vsnatTool(f, "ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.2:80 -m -x 5 -y 9")
	if stderr != "Numerical result out of range\n" || code != 255 {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestAdapterErrors(t *testing.T) {
	refuse := func(code control.Code) error { return control.Refuse(code, "the message", "the hint") }
	const nobody = "Can't initialize ipvs: %s\nAre you sure that a vsnat director is running?\n"
	for _, test := range []struct {
		err  error
		want string
		code int
	}{
		{refuse(control.CodeServiceExists), "Service already exists\n", 255},
		{fmt.Errorf("wrapped: %w", refuse(control.CodeNoService)), "No such service\n", 255},
		{refuse(control.CodeNoScheduler), "Scheduler or persistence engine not found\n", 255},
		{refuse(control.CodeInvalid), "Invalid operation.  Possibly wrong module version, address not unicast, ...\nhint: the message; the hint\n", 255},
		{refuse(control.CodeNotUnicast), "Invalid operation.  Possibly wrong module version, address not unicast, ...\n", 255},
		{refuse(control.CodeInternal), "the message\nhint: the hint\n", 255},
		{errors.New("trouble"), "trouble\n", 255},
		{refuse(control.CodeUnavailable), fmt.Sprintf(nobody, "the message") + "hint: the hint\n", 2},
		{refuse(control.CodeNotPermitted), fmt.Sprintf(nobody, "Permission denied (you must be root)") + "hint: the hint\n", 2},
		{fmt.Errorf("dial: %w", fs.ErrNotExist), fmt.Sprintf(nobody, "dial: file does not exist"), 2},
	} {
		f := &fakeControl{err: test.err}
		stdout, stderr, code := vsnatTool(f, "ipvsadm -A -t 192.168.88.24:80 -s sh")
		if stdout != "" || stderr != test.want || code != test.code {
			t.Errorf("%v: exit %d, want %d\n--- got\n%s%s--- want\n%s", test.err, code, test.code, stdout, stderr, test.want)
		}
	}
}

// The same over a socket, as the program does it.
func TestOverSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control.sock")
	run := func(command string) (string, string, int) {
		var out, errs bytes.Buffer
		code := Main(strings.Fields(command), strings.NewReader(""), &out, &errs, func() (Director, error) {
			return Adapt(t.Context(), control.NewClient(socket)), nil
		})
		return out.String(), errs.String(), code
	}
	for _, command := range []string{"ipvsadm -Ln", "ipvsadm -Lnc", "ipvsadm -C", "ipvsadm -L --timeout", "ipvsadm -Sn"} {
		stdout, stderr, code := run(command)
		want := "Can't initialize ipvs: no director is running at " + socket + "\n"
		if stdout != "" || !strings.HasPrefix(stderr, want) || code != 2 {
			t.Errorf("%s: exit %d\n%s%s", command, code, stdout, stderr)
		}
	}

	listener, err := control.Listen(socket, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	f := &fakeControl{pages: []control.ConnPage{{}}}
	go func() {
		served <- control.NewServer(f, slog.New(slog.NewTextHandler(io.Discard, nil))).Serve(ctx, listener)
	}()
	t.Cleanup(func() {
		stop()
		<-served
	})
	overSocket, stderr, code := run("ipvsadm -Ln --stats")
	direct, _, _ := vsnatTool(f, "ipvsadm -Ln --stats")
	if overSocket != direct || overSocket == "" || stderr != "" || code != 0 {
		t.Errorf("exit %d, %s--- over the socket\n%s--- direct\n%s", code, stderr, overSocket, direct)
	}
	if _, stderr, code := run("ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.4:80 -m -w 3"); stderr != "" || code != 0 {
		t.Errorf("exit %d, %s", code, stderr)
	}
	f.err = control.Refuse(control.CodeServerExists, "m", "h")
	if _, stderr, code := run("ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.4:80 -m"); stderr != "Destination already exists\n" || code != 255 {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
