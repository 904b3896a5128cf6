// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// waitEchoReply reads until an answer to a ping comes.
func waitEchoReply(c net.PacketConn) error {
	b := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		for proto, reply := range map[int]icmp.Type{1: ipv4.ICMPTypeEchoReply, 58: ipv6.ICMPTypeEchoReply} {
			if m, err := icmp.ParseMessage(proto, b[:n]); err == nil && m.Type == reply {
				return nil
			}
		}
	}
}

// hostState is everything that TUNHost touches on the host's side.
func (lab *guardLab) hostState(t *testing.T) string {
	t.Helper()
	var state []string
	add := func(format string, args ...any) { state = append(state, fmt.Sprintf(format, args...)) }
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		version := map[int]int{unix.AF_INET: 4, unix.AF_INET6: 6}[family]
		rules, errRules := lab.host.Handle.RuleList(family)
		for _, r := range rules {
			ports := "any"
			if r.Dport != nil {
				ports = fmt.Sprintf("%d-%d", r.Dport.Start, r.Dport.End)
			}
			add("rule%d %03d from %v to %v iif %s proto %d ports %s goto %d table %d by %d", version, r.Priority, r.Src, r.Dst, r.IifName, r.IPProto, ports, r.Goto, r.Table, r.Protocol)
		}
		proxies, errProxies := lab.host.Handle.NeighProxyList(0, family)
		for _, p := range proxies {
			add("proxy %s on %d", p.IP, p.LinkIndex)
		}
		routes, errRoutes := lab.host.Handle.RouteListFiltered(family, &netlink.Route{Table: 7611}, netlink.RT_FILTER_TABLE)
		for _, r := range routes {
			add("route%d %v", version, r)
		}
		if err := firstError(errRules, errProxies, errRoutes); err != nil {
			t.Fatal(err)
		}
	}
	err := lab.host.Do(func() error {
		for _, path := range []string{
			"ipv4/ip_forward", "ipv4/ip_early_demux", "ipv4/conf/pub/forwarding", "ipv4/conf/priv/forwarding",
			"ipv4/neigh/pub/proxy_delay", "ipv4/neigh/priv/proxy_delay", "ipv4/conf/all/rp_filter",
			"ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding", "ipv6/conf/pub/forwarding", "ipv6/conf/priv/forwarding",
			"ipv6/conf/pub/accept_ra", "ipv6/conf/priv/accept_ra", "ipv6/conf/all/proxy_ndp",
			"ipv6/neigh/pub/proxy_delay", "ipv6/neigh/priv/proxy_delay",
		} {
			b, err := os.ReadFile("/proc/sys/net/" + path)
			if err != nil {
				return err
			}
			add("%s=%s", path, strings.TrimSpace(string(b)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(state) // within one place the order of rules means nothing
	return strings.Join(state, "\n")
}

// everyRule asks for something of each kind, in both families.
func (lab *guardLab) everyRule() iface.TUNHostRules {
	rules := lab.rules()
	for _, plan := range hostPlans {
		rules.Owned = append(rules.Owned, netip.MustParseAddr(plan.owned))
		rules.Services = append(rules.Services, service(tcp, at(plan.host, 80)), service(tcp, at(plan.host, 0)), service(tcp, at(plan.owned, 80)))
		rules.Servers = append(rules.Servers, service(tcp, at(plan.server, 80)), service(tcp, at(plan.server, 81)))
		rules.Inside = append(rules.Inside, netip.MustParsePrefix(plan.inside))
		rules.SNAT = append(rules.SNAT, iface.GuardPorts{Addr: netip.MustParseAddr(plan.host), Min: 1000, Max: 2000, Except: []uint16{1500}})
		rules.Marked = append(rules.Marked, mark(0, plan.inside, 80), mark(tcp, plan.inside, 81, 90))
		rules.ServerPorts = append(rules.ServerPorts, iface.GuardRange{Proto: tcp, Addr: netip.MustParseAddr(plan.neighbour), Min: 1, Max: 9})
	}
	return rules
}

func TestTUNHostClosePutsTheHostBack(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	setSysctl(t, lab.host, "net/ipv6/conf/priv/forwarding", "1") // in name only
	setSysctl(t, lab.host, "net/ipv6/conf/pub/accept_ra", "1")
	setSysctl(t, lab.host, "net/ipv6/conf/priv/accept_ra", "0")
	before := lab.hostState(t)
	state := filepath.Join(t.TempDir(), "made", "state.json")
	h := openTUNHost(t, lab, iface.TUNHostOptions{State: state})

	every := lab.everyRule()
	lab.routeInto(t, h, every)
	full := lab.hostState(t)
	for _, want := range []string{
		"rule4 010 from <nil> to <nil> iif pub proto 0 ports any goto 20 table 0 by 118",
		"rule4 020 from <nil> to 192.0.2.1/32 iif  proto 6 ports 80-80 goto -1 table 7611 by 118",
		"rule4 020 from <nil> to 192.0.2.1/32 iif  proto 17 ports 1501-2000 goto -1 table 7611 by 118",
		"rule4 020 from <nil> to 10.0.0.0/25 iif  proto 132 ports 80-80 goto -1 table 7611 by 118",
		"rule4 050 from <nil> to 10.0.0.0/25 iif  proto 1 ports any goto -1 table 7611 by 118",
		"rule6 020 from <nil> to 2001:db8:a::/121 iif  proto 6 ports 81-90 goto -1 table 7611 by 118",
		"rule4 020 from <nil> to 192.0.2.1/32 iif  proto 1 ports any goto -1 table 7611 by 118",
		"rule4 030 from <nil> to <nil> iif  proto 0 ports any goto -1 table 255 by 118",
		"rule4 050 from <nil> to 192.0.2.23/32 iif  proto 0 ports any goto -1 table 7611 by 118",
		"rule4 050 from 10.0.0.2/32 to <nil> iif  proto 0 ports any goto -1 table 7611 by 118",
		"rule4 070 from <nil> to <nil> iif priv proto 0 ports any goto -1 table 0 by 118",
		"proxy 192.0.2.23", "route4 ", "ipv4/ip_forward=0", "ipv4/conf/pub/forwarding=1", "ipv4/neigh/priv/proxy_delay=0",
		"rule6 010 from <nil> to <nil> iif pub proto 0 ports any goto 20 table 0 by 118",
		"rule6 020 from <nil> to 2001:db8::1/128 iif  proto 6 ports 80-80 goto -1 table 7611 by 118",
		"rule6 020 from <nil> to 2001:db8::1/128 iif  proto 58 ports any goto -1 table 7611 by 118",
		"rule6 030 from <nil> to <nil> iif  proto 0 ports any goto -1 table 255 by 118",
		"rule6 050 from <nil> to 2001:db8::23/128 iif  proto 0 ports any goto -1 table 7611 by 118",
		"rule6 070 from <nil> to <nil> iif priv proto 0 ports any goto -1 table 0 by 118",
		"proxy 2001:db8::23", "proxy 2001:db8::1 ", "route6 ", "ipv6/conf/all/forwarding=1", "ipv6/conf/pub/forwarding=1",
		"ipv6/conf/pub/accept_ra=2", "ipv6/conf/priv/accept_ra=0", "ipv6/conf/all/proxy_ndp=1", "ipv6/neigh/priv/proxy_delay=0",
	} {
		if !strings.Contains(full, want) {
			t.Errorf("with every rule there is no %q in\n%s", want, full)
		}
	}
	if strings.Contains(full, "rule4 000 ") || strings.Contains(full, "rule6 000 ") {
		t.Errorf("the table local still comes first:\n%s", full)
	}
	lab.routeInto(t, h, every)
	if again := lab.hostState(t); again != full {
		t.Errorf("applied twice:\n%s\nafter\n%s", again, full)
	}

	// A rule that a laxer one of its place hides from removal, the table local
	// back in its place, a link that is not served any more.
	fewer := every
	fewer.Services, fewer.SNAT, fewer.Links = []iface.GuardService{service(tcp, "192.0.2.1:80"), service(tcp, "[2001:db8::1]:80")}, nil, []string{"pub"}
	lab.routeInto(t, h, fewer)
	some := lab.hostState(t)
	if !strings.Contains(some, "ports 80-80") || strings.Contains(some, "proto 6 ports any") || !strings.Contains(some, "ipv4/conf/priv/forwarding=0") {
		t.Errorf("fewer rules:\n%s", some)
	}
	fewer.Services, fewer.Marked = nil, nil
	lab.routeInto(t, h, fewer)
	none := lab.hostState(t)
	for _, version := range []string{"rule4", "rule6"} {
		if !strings.Contains(none, version+" 000 ") || strings.Contains(none, version+" 030 ") {
			t.Errorf("no services on the host:\n%s", none)
		}
	}
	// One family alone asks for nothing in the other.
	four := every
	is6 := func(s iface.GuardService) bool { return s.Addr.Is6() }
	four.Owned, four.Inside, four.SNAT, four.Marked, four.ServerPorts = addresses("192.0.2.23"), nil, nil, nil, nil
	four.Services, four.Servers = slices.DeleteFunc(slices.Clone(every.Services), is6), slices.DeleteFunc(slices.Clone(every.Servers), is6)
	lab.routeInto(t, h, four)
	if got := lab.hostState(t); strings.Contains(got, "by 118\nrule6") || strings.Contains(got, "proxy 2001") || !strings.Contains(got, "ipv6/conf/all/forwarding=0") {
		t.Errorf("with rules of IPv4 alone:\n%s", got)
	}
	lab.routeInto(t, h, every)
	if again := lab.hostState(t); again != full {
		t.Errorf("every rule again:\n%s\nfirst\n%s", again, full)
	}

	if err := lab.host.Do(h.Close); err != nil {
		t.Error(err)
	}
	if after := lab.hostState(t); after != before {
		t.Errorf("after Close:\n%s\nbefore\n%s", after, before)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state file: %v", err)
	}
	if err := lab.host.Do(h.Close); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestTUNHostKeepsWhatOthersChangedMeanwhile(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	lab.routeInto(t, h, lab.everyRule())
	setSysctl(t, lab.host, "net/ipv4/neigh/pub/proxy_delay", "40")
	priv, err := lab.host.Handle.LinkByName("priv")
	if err == nil {
		err = lab.host.Handle.LinkDel(priv)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.host.Do(h.Close); err != nil {
		t.Errorf("a link is gone: %v", err)
	}
	err = lab.host.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/neigh/pub/proxy_delay")
		if strings.TrimSpace(string(b)) != "40" {
			t.Errorf("what another program set was put back to %s", b)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTUNHostIsAloneInItsNamespace(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	openTUNHost(t, lab, iface.TUNHostOptions{})
	err := lab.host.Do(func() error { _, err := iface.OpenTUNHost(tunName, iface.TUNHostOptions{}); return err })
	if err == nil || !strings.Contains(err.Error(), "another vsnat") {
		t.Errorf("a second one: %v", err)
	}
}

// A state file that was cut is put aside and told of; rules are found without it.
func TestTUNHostStateThatWasCut(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	before := lab.hostState(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "state.json")
	h := openTUNHost(t, lab, iface.TUNHostOptions{State: state})
	rules := lab.rules()
	rules.Servers = []iface.GuardService{service(tcp, "10.0.0.2:80")}
	lab.routeInto(t, h, rules)
	whole, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.host.Do(h.Close); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"cut": whole[:len(whole)/2], "empty": {}, "no JSON": []byte("\x00\xff"), "of another form": []byte(`{"Settings":7}`)} {
		if err := os.WriteFile(state, text, 0o600); err != nil {
			t.Fatal(err)
		}
		h := openTUNHost(t, lab, iface.TUNHostOptions{State: state})
		if l := h.Limits(); len(l) != 1 || !strings.Contains(l[0], state+".bad") {
			t.Errorf("%s: the operator is told %q", name, l)
		}
		if kept, err := os.ReadFile(state + ".bad"); err != nil || string(kept) != string(text) {
			t.Errorf("%s: put aside: %q, %v", name, kept, err)
		}
		if err := lab.host.Do(h.Close); err != nil {
			t.Error(err)
		}
	}
	if after := lab.hostState(t); after != before {
		t.Errorf("after all:\n%s\nbefore\n%s", after, before)
	}
}

// tunHostChild and tunHostReaper tell runs of the test binary what they are.
const (
	tunHostChild  = "VSNAT_TEST_TUNHOST_CHILD" // its value is the state file
	tunHostReaper = "VSNAT_TEST_TUNHOST_REAPER"
)

func TestTUNHostReaperPutsTheHostBack(t *testing.T) {
	if os.Getenv(tunHostReaper) != "" {
		fmt.Fprintf(os.Stderr, "reaper %d\n", os.Getpid()) // for the test, and harmless elsewhere
		if err := iface.ReapTUNHost(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	if state := os.Getenv(tunHostChild); state != "" {
		holdTUNHost(t, state)
		return
	}

	for _, c := range []struct {
		name   string
		reaped bool
	}{{"the process is killed", true}, {"the reaper too", false}} {
		t.Run(c.name, func(t *testing.T) {
			lab := newTUNLab(t)
			standIn(t, lab)
			before := lab.hostState(t)
			state := filepath.Join(t.TempDir(), "state.json")
			child := exec.Command("/proc/self/exe", "-test.run=^TestTUNHostReaperPutsTheHostBack$")
			child.Env = append(os.Environ(), tunHostChild+"="+state)
			in, errIn := child.StdinPipe()
			out, errOut := child.StdoutPipe()
			// The end of this pipe is the end of child and reaper.
			errors, stderr, errPipe := os.Pipe()
			if err := firstError(errIn, errOut, errPipe); err != nil {
				t.Fatal(err)
			}
			child.Stderr = stderr
			err := lab.host.Do(child.Start)
			stderr.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			defer child.Process.Kill()
			said := bufio.NewReader(errors)
			first, err := said.ReadString('\n')
			reaper, errNumber := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(first, "reaper ")))
			if err := firstError(err, errNumber); err != nil {
				t.Fatalf("the reaper says %q: %v", first, err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "routed\n" {
				t.Fatalf("the child says %q, %v", line, err)
			}
			if lab.hostState(t) == before {
				t.Fatal("the child changed nothing")
			}

			unix.Kill(reaper, unix.SIGTERM) // must not end it
			if !c.reaped {
				unix.Kill(reaper, unix.SIGKILL)
			}
			child.Process.Kill()
			child.Wait()
			if rest, err := io.ReadAll(said); err != nil || len(rest) > 0 {
				t.Errorf("the reaper says %s, %v", rest, err)
			}
			if after := lab.hostState(t); (after == before) != c.reaped {
				t.Errorf("after the end of the child:\n%s\nbefore\n%s", after, before)
			}
			h := openTUNHost(t, lab, iface.TUNHostOptions{State: state})
			if after := lab.hostState(t); after != before {
				t.Errorf("after the next start:\n%s\nbefore\n%s", after, before)
			}
			if err := lab.host.Do(h.Close); err != nil {
				t.Error(err)
			}
		})
	}
}

func holdTUNHost(t *testing.T, state string) {
	os.Setenv(tunHostReaper, "yes")
	h, err := iface.OpenTUNHost(tunName, iface.TUNHostOptions{
		State: state, Reaper: []string{"/proc/self/exe", "-test.run=^TestTUNHostReaperPutsTheHostBack$"},
	})
	if err != nil {
		t.Fatal(err)
	}
	lab := &guardLab{}
	rules := lab.everyRule()
	if err := h.Apply(rules); err != nil {
		t.Fatal(err)
	}
	rules.Owned = slices.Concat(rules.Owned, addresses("192.0.2.24"))
	if err := h.Apply(rules); err != nil {
		t.Fatal(err)
	}
	fmt.Println("routed")
	os.Stdin.Read(make([]byte, 1)) // until the parent ends us
}

func TestTUNHostDismissesItsReaper(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	os.Setenv(tunHostReaper, "yes")
	defer os.Unsetenv(tunHostReaper)
	before := lab.hostState(t)
	h := openTUNHost(t, lab, iface.TUNHostOptions{Reaper: []string{"/proc/self/exe", "-test.run=^TestTUNHostReaperPutsTheHostBack$"}})
	lab.routeInto(t, h, lab.everyRule())
	if err := lab.host.Do(h.Close); err != nil {
		t.Error(err)
	}
	if after := lab.hostState(t); after != before {
		t.Errorf("after Close:\n%s\nbefore\n%s", after, before)
	}
	again := openTUNHost(t, lab, iface.TUNHostOptions{}) // the lock is free: the reaper is gone
	if err := lab.host.Do(again.Close); err != nil {
		t.Error(err)
	}
}
