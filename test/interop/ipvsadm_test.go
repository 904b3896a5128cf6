// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
	"github.com/vsnat/vsnat/sched"
)

// Words that are thrown together, by what they go with.
var (
	keys = []string{
		"-t 192.168.88.23:80", "-u 192.168.88.23:53", "-t 192.168.88.23", "-t [fd00::23]:80", "-f 1", "-f 7 -6", "-6 -f 1", "--sctp-service 10.0.0.1:9",
		"-t 0xc0a85817:080", "--tcp-service=10.0.0.1:80", "-t10.0.0.1:8080", "-u=10.0.0.1:53", "-t fd00::23", "-f 0x10", "-f 4294967296",
		"-t 10.0.0.1:0", "-t [fd00::23]:0", "-t 10.0.0.1:+7", "-f +3",
	}
	serviceOptions = []string{
		"-s rr", "-s wlc", "-s sh", "-s mh", "--scheduler lc", "-p", "-p 600", "-p 0", "--persistent=5", "-M 255.255.255.0", "-M 64", "-M 24", "-M 0",
		"-M 255.0.255.0", "-M 64x", "--pe sip", "-o", "--ops", "-b sh-port", "-b sh-fallback,sh-port", "-b mh-port", "-b flag-1,flag-3", "-b none", "--sched-flags flag-2",
	}
	servers       = []string{"-r 10.0.0.2", "-r 10.0.0.2:8080", "-r [fd00::2]:80", "-r 10.0.0.2:x", "-r 10.0.0.2:0", "--real-server 10.0.0.3", "-r fd00::2", "-r 10.2:00080"}
	serverOptions = []string{
		"-m", "-g", "-i", "--masquerading", "--ipip", "--gatewaying", "-w 5", "-w 0", "-w 65536", "-w -1", "--weight=7", "-w 2147483648", "-w 5x",
		"-x 10", "-y 5", "--u-threshold 3", "--l-threshold=9", "-x -1", "-y 99999999999", "-mw 3",
		"--tun-type ipip", "--tun-type gue", "--tun-type gre", "--tun-port 6080", "--tun-port 0", "--tun-csum", "--tun-nocsum", "--tun-remcsum",
	}
	listOptions = []string{
		"-n", "--numeric", "--stats", "--rate", "--thresholds", "--persistent-conn", "--exact", "-X", "--nosort", "--sort", "--timeout", "--daemon", "--tun-info", "-nX",
	}
	daemonOptions = []string{
		"--syncid 5", "--syncid 256", "--mcast-interface eth1", "--sync-maxlen 1400", "--sync-maxlen 70000", "--mcast-group 224.0.0.88", "--mcast-group ff02::88",
		"--mcast-group 10.0.0.1", "--mcast-port 8850", "--mcast-ttl 2", "--mcast-ttl 0",
	}
	strays = []string{
		"-6", "--ipv6", "-z", "--none", "word", "--", "900 120 300", "0 0 x", "-ng", "-w", "-s", "-r", "-b", "--pe", "-A", "-L",
	}
	verbs = []struct {
		words []string
		named bool     // with a service
		goes  []string // options that go with it
	}{
		{[]string{"-A", "-E", "--add-service", "--edit-service", "-At"}, true, serviceOptions},
		{[]string{"-D", "-Z", "--zero", "--delete-service"}, true, nil},
		{[]string{"-a", "-e", "--add-server", "--edit-server", "-at"}, true, slices.Concat(servers, servers, serverOptions)},
		{[]string{"-d"}, true, servers},
		{[]string{"-L", "-l", "--list", "-Ln"}, false, listOptions},
		{[]string{"-C", "-S", "-Z", "--set 1 2 3", "--set 1 2", "--set 0 9999999 0"}, false, nil},
		{[]string{"--start-daemon master", "--stop-daemon backup", "--start-daemon", "--stop-daemon x"}, false, daemonOptions},
	}
)

// line throws words together, mostly such that go with each other.
func line(r *rand.Rand) []string {
	pick := func(list []string) []string { return strings.Fields(list[r.IntN(len(list))]) }
	v := verbs[r.IntN(len(verbs))]
	var parts [][]string
	if v.named != (r.IntN(12) == 0) {
		parts = append(parts, pick(keys))
	}
	everything := slices.Concat(serviceOptions, servers, serverOptions, listOptions, daemonOptions, strays)
	for range r.IntN(6) {
		switch {
		case r.IntN(12) == 0:
			parts = append(parts, pick(everything))
		case v.goes != nil:
			parts = append(parts, pick(v.goes))
		}
	}
	if r.IntN(4) == 0 {
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	}
	return append(pick(v.words), slices.Concat(parts...)...)
}

// A command line that the real tool refuses is refused with the same words and
// exit code; one that it takes asks for the same.
func TestIpvsadmWords(t *testing.T) {
	real := newRealTool(t)
	const lines = 4000
	r := rand.New(rand.NewPCG(3, 1))
	accepted := 0
	for range lines {
		args := line(r)
		want, got := real.run(t, nil, "", args...), runOurs(nil, "", args...)
		if want.code == 0 {
			accepted++
		}
		if got.stderr == "No such service\n" && want.code == 0 {
			continue // to be listed: the library has none and no error for it
		}
		if got.String() != want.String() {
			t.Errorf("ipvsadm %s\n--- vsnat, %s\n--- ipvsadm, %s", strings.Join(args, " "), got, want)
		}
	}
	t.Logf("%d of %d command lines made sense", accepted, lines)
	if accepted < lines/10 {
		t.Error("most of them ought to be about something")
	}
}

// What there is, is listed and saved as the real tool does.
func TestIpvsadmListings(t *testing.T) {
	real := newRealTool(t)
	r := rand.New(rand.NewPCG(3, 2))
	for range 100 {
		services := randomServices(r)
		for _, what := range []string{"-L", "-Ln", "-Ln --stats", "-Ln --rate", "-Ln --stats --exact", "-Ln --rate --exact", "-Ln --thresholds",
			"-Ln --persistent-conn", "-Ln --tun-info", "-Ln --nosort", "-L --timeout", "-Ln --rate --thresholds", "-Ln --tun-info --persistent-conn"} {
			args := strings.Fields(what)
			if want, got := real.run(t, services, "", args...), runOurs(services, "", args...); got.String() != want.String() {
				t.Fatalf("ipvsadm %s\n--- vsnat, %s\n--- ipvsadm, %s", what, got, want)
			}
		}
		// The real tool does not save thresholds.
		for i := range services {
			for j := range services[i].Servers {
				services[i].Servers[j].Upper, services[i].Servers[j].Lower = 0, 0
			}
		}
		if want, got := real.run(t, services, "", "-Sn"), runOurs(services, "", "-Sn"); got.String() != want.String() {
			t.Fatalf("--- vsnat, %s\n--- ipvsadm, %s", got, want)
		}
	}
}

// The text view of connections is one that the real tool reads, and lists as ours.
func TestIpvsadmConns(t *testing.T) {
	real := newRealTool(t)
	r := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		d := &controltest.Director{}
		for range r.IntN(20) {
			ipv6 := r.IntN(3) == 0
			end := func() netip.AddrPort { return netip.AddrPortFrom(randomAddr(r, ipv6), uint16(r.IntN(1<<16))) }
			d.Entries = append(d.Entries, control.Conn{
				Proto: []string{control.TCP, control.UDP, control.SCTP}[r.IntN(3)], State: []string{"ESTABLISHED", "TIME_WAIT", "UDP", "NONE"}[r.IntN(4)],
				Client: end(), Virtual: end(), Server: end(), Kind: "nat", Expires: control.Duration(time.Duration(r.IntN(200_000)) * time.Second),
			})
		}
		var view bytes.Buffer
		if err := control.Proc(t.Context(), d, "ip_vs_conn", &view); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(real.conns, view.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"-Lnc"}, {"-Lc"}, {"-Lnc", "--persistent-conn"}} {
			var stdout bytes.Buffer
			ipvsadm.Run(append([]string{"ipvsadm"}, args...), strings.NewReader(""), &stdout, &stdout, nameless{},
				func() (ipvsadm.Director, error) { return ipvsadm.Adapt(t.Context(), d), nil })
			if want := real.run(t, nil, "", args...); stdout.String() != want.stdout || want.code != 0 {
				t.Fatalf("%s\n--- vsnat\n%s--- ipvsadm, %s", args, stdout.String(), want)
			}
		}
	}
}

// What ours saves, thresholds too, the real tool reads as ours does.
func TestIpvsadmReadsOurSave(t *testing.T) {
	real := newRealTool(t)
	r := rand.New(rand.NewPCG(3, 3))
	thresholds := 0
	for range 100 {
		saved := runOurs(randomServices(r), "", "-Sn").stdout
		want, got := real.run(t, nil, saved, "-R"), runOurs(nil, saved, "-R")
		if got.String() != want.String() || want.code != 0 || len(want.requests) != strings.Count(saved, "\n") {
			t.Fatalf("%s\n--- vsnat, %s\n--- ipvsadm, %s", saved, got, want)
		}
		thresholds += strings.Count(saved, " -x ")
	}
	if thresholds == 0 {
		t.Error("no thresholds were saved")
	}
}

func randomServices(r *rand.Rand) (list []ipvsadm.ServiceEntry) {
	number := func() uint64 { return r.Uint64() >> r.IntN(64) }
	counters := func(top uint64) ipvsadm.Counters {
		return ipvsadm.Counters{Conns: number() % top, InPackets: number() % top, OutPackets: number() % top, InBytes: number() % top, OutBytes: number() % top}
	}
	const narrow = 1 << 32 // the real tool does not see more of a server
	for i := range r.IntN(12) {
		s := ipvsadm.ServiceEntry{Stats: counters(1 << 60), Rate: counters(1 << 60)}
		ipv6 := r.IntN(4) == 0
		if r.IntN(4) == 0 {
			s.Mark, s.MarkIPv6 = uint32(i+1)<<r.IntN(28), ipv6
		} else {
			s.Proto = []uint8{6, 17, 132}[r.IntN(3)]
			s.Addr, s.Port = randomAddr(r, ipv6), uint16(r.IntN(1<<16))
		}
		s.Scheduler = []string{"rr", "wrr", "sh", "mh", "lblcr", "fifteen-letters"}[r.IntN(6)]
		s.Flags = sched.Flags(r.IntN(8) & r.IntN(8))
		if s.Scheduler == "sh" || s.Scheduler == "mh" {
			s.Flags &^= sched.Flag3 // which the real tool then shows as nothing
		}
		s.OnePacket = r.IntN(8) == 0 && (s.Proto == 17 || s.Mark != 0)
		s.Mask, s.MaskBits = netip.AddrFrom4([4]byte{255, 255, 255, 255}), 128
		if r.IntN(3) == 0 || s.Mark == 0 && s.Port == 0 {
			s.Persistent, s.Timeout = true, 1+r.IntN(2_678_400)
			if r.IntN(2) == 0 {
				s.MaskBits = 1 + r.IntN(128)
				s.Mask = netip.AddrFrom4([4]byte{255, byte(r.IntN(256)), byte(r.IntN(256)), 0})
			}
		}
		for range r.IntN(5) {
			d := ipvsadm.ServerEntry{
				Active: r.IntN(1 << r.IntN(31)), Inactive: r.IntN(1 << r.IntN(31)), Persistent: r.IntN(1 << r.IntN(31)),
				Stats: counters(narrow), Rate: counters(narrow),
			}
			d.Forward = []ipvsadm.Forward{ipvsadm.Masq, ipvsadm.Route, ipvsadm.Tunnel}[r.IntN(3)]
			d.Addr, d.Port = randomAddr(r, ipv6), uint16(r.IntN(1<<16))
			if d.Forward != ipvsadm.Masq && s.Mark == 0 {
				d.Port = s.Port
			}
			d.Weight = r.IntN(1 << r.IntN(17))
			if r.IntN(3) == 0 {
				d.Upper = r.IntN(1 << r.IntN(31))
				d.Lower = r.IntN(d.Upper + 1)
			}
			if d.Forward == ipvsadm.Tunnel {
				d.Tunnel.Type = ipvsadm.TunnelType(r.IntN(3))
				switch d.Tunnel.Type {
				case ipvsadm.GUE:
					d.Tunnel.Port, d.Tunnel.Checksum = uint16(1+r.IntN(65535)), ipvsadm.TunnelChecksum(r.IntN(3))
				case ipvsadm.GRE:
					d.Tunnel.Checksum = ipvsadm.TunnelChecksum(r.IntN(2))
				}
			}
			s.Servers = append(s.Servers, d)
		}
		list = append(list, s)
	}
	return list
}

func randomAddr(r *rand.Rand, ipv6 bool) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.IntN(256) & r.IntN(256) & -r.IntN(2))
	}
	if ipv6 {
		b[0] = 0xfd
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{byte(1 + r.IntN(223)), b[1], b[2], b[3]})
}
