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
		if m, err := icmp.ParseMessage(1, b[:n]); err == nil && m.Type == ipv4.ICMPTypeEchoReply {
			return nil
		}
	}
}

// hostState is everything that TUNHost touches on the host's side.
func (lab *guardLab) hostState(t *testing.T) string {
	t.Helper()
	var state []string
	add := func(format string, args ...any) { state = append(state, fmt.Sprintf(format, args...)) }
	rules, err := lab.host.Handle.RuleList(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		ports := "any"
		if r.Dport != nil {
			ports = fmt.Sprintf("%d-%d", r.Dport.Start, r.Dport.End)
		}
		add("rule %03d from %v to %v iif %s proto %d ports %s goto %d table %d by %d", r.Priority, r.Src, r.Dst, r.IifName, r.IPProto, ports, r.Goto, r.Table, r.Protocol)
	}
	proxies, err := lab.host.Handle.NeighProxyList(0, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range proxies {
		add("proxy %s on %d", p.IP, p.LinkIndex)
	}
	routes, err := lab.host.Handle.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: 7611}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		add("route %v", r)
	}
	err = lab.host.Do(func() error {
		for _, path := range []string{"ip_forward", "conf/pub/forwarding", "conf/priv/forwarding", "neigh/pub/proxy_delay", "neigh/priv/proxy_delay", "conf/all/rp_filter"} {
			b, err := os.ReadFile("/proc/sys/net/ipv4/" + path)
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

// everyRule asks for something of each kind.
func (lab *guardLab) everyRule() iface.TUNHostRules {
	rules := lab.rules()
	rules.Owned = addresses("192.0.2.23")
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80"), service(tcp, "192.0.2.1:0"), service(tcp, "192.0.2.23:80")}
	rules.Servers = []iface.GuardService{service(tcp, "10.0.0.2:80"), service(tcp, "10.0.0.2:81")}
	rules.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr("192.0.2.1"), Min: 1000, Max: 2000, Except: []uint16{1500}}}
	return rules
}

func TestTUNHostClosePutsTheHostBack(t *testing.T) {
	lab := newGuardLab(t)
	standIn(t, lab)
	before := lab.hostState(t)
	state := filepath.Join(t.TempDir(), "made", "state.json")
	h := openTUNHost(t, lab, iface.TUNHostOptions{State: state})

	every := lab.everyRule()
	lab.routeInto(t, h, every)
	full := lab.hostState(t)
	for _, want := range []string{
		"rule 010 from <nil> to <nil> iif pub proto 0 ports any goto 20 table 0 by 118",
		"rule 020 from <nil> to 192.0.2.1/32 iif  proto 6 ports 80-80 goto -1 table 7611 by 118",
		"rule 020 from <nil> to 192.0.2.1/32 iif  proto 17 ports 1501-2000 goto -1 table 7611 by 118",
		"rule 020 from <nil> to 192.0.2.1/32 iif  proto 1 ports any goto -1 table 7611 by 118",
		"rule 030 from <nil> to <nil> iif  proto 0 ports any goto -1 table 255 by 118",
		"rule 050 from <nil> to 192.0.2.23/32 iif  proto 0 ports any goto -1 table 7611 by 118",
		"rule 050 from 10.0.0.2/32 to <nil> iif  proto 0 ports any goto -1 table 7611 by 118",
		"proxy 192.0.2.23", "route ", "ip_forward=0", "conf/pub/forwarding=1", "neigh/priv/proxy_delay=0",
	} {
		if !strings.Contains(full, want) {
			t.Errorf("with every rule there is no %q in\n%s", want, full)
		}
	}
	if strings.Contains(full, "rule 000 ") {
		t.Errorf("the table local still comes first:\n%s", full)
	}
	lab.routeInto(t, h, every)
	if again := lab.hostState(t); again != full {
		t.Errorf("applied twice:\n%s\nafter\n%s", again, full)
	}

	// A rule that a laxer one of its place hides from removal, the table local
	// back in its place, a link that is not served any more.
	fewer := every
	fewer.Services, fewer.SNAT, fewer.Links = []iface.GuardService{service(tcp, "192.0.2.1:80")}, nil, []string{"pub"}
	lab.routeInto(t, h, fewer)
	some := lab.hostState(t)
	if !strings.Contains(some, "ports 80-80") || strings.Contains(some, "proto 6 ports any") || !strings.Contains(some, "conf/priv/forwarding=0") {
		t.Errorf("fewer rules:\n%s", some)
	}
	fewer.Services = nil
	lab.routeInto(t, h, fewer)
	if none := lab.hostState(t); !strings.Contains(none, "rule 000 ") || strings.Contains(none, "rule 030 ") {
		t.Errorf("no services on the host:\n%s", none)
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
	lab := newGuardLab(t)
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
	lab := newGuardLab(t)
	standIn(t, lab)
	openTUNHost(t, lab, iface.TUNHostOptions{})
	err := lab.host.Do(func() error { _, err := iface.OpenTUNHost(tunName, iface.TUNHostOptions{}); return err })
	if err == nil || !strings.Contains(err.Error(), "another vsnat") {
		t.Errorf("a second one: %v", err)
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
		if err := iface.ReapTUNHost(os.Stdin); err != nil {
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
			lab := newGuardLab(t)
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
	lab := newGuardLab(t)
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
