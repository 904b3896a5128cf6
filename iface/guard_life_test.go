// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

func TestGuardChangeLeavesNoGap(t *testing.T) {
	const changes = 16
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, g, rules)

	changed := make(chan error, 1)
	connections := uint64(0)
	got := lab.atClient().run(t, func() error {
		go func() {
			changed <- lab.host.Do(func() error {
				for i := range changes {
					next := rules
					next.Owned = addresses(fmt.Sprintf("203.0.113.%d", i))
					next.Links = rules.Links[:1+i%2] // priv comes and goes
					if err := g.Apply(next); err != nil {
						return err
					}
				}
				return nil
			})
		}()
		for {
			select {
			case err := <-changed:
				return err
			default:
			}
			connections++
			if err := sendSYN("192.0.2.1:80"); err != nil {
				return err
			}
		}
	})
	expect(t, "connections during changes", got)

	if n := servicesDropped(t, g); n < connections { // a SYN may be sent again
		t.Errorf("%d of %d connections are counted as dropped", n, connections)
	}
}

func TestGuardEqualRulesChangeNothing(t *testing.T) {
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80"), service(udp, "192.0.2.1:53")}
	lab.apply(t, g, rules)
	before := ruleHandles(t, lab.host)
	if len(before) == 0 {
		t.Fatal("no rules are listed")
	}
	rules.Services[0], rules.Services[1] = rules.Services[1], rules.Services[0]
	rules.Services = append(rules.Services, rules.Services[0])
	lab.apply(t, g, rules)
	if after := ruleHandles(t, lab.host); after != before {
		t.Errorf("rules were %s, are %s", before, after)
	}
	rules.Services = rules.Services[:1]
	lab.apply(t, g, rules)
	if after := ruleHandles(t, lab.host); after == before {
		t.Error("other rules left the rules as they were")
	}
}

// ruleHandles lists the kernel's numbers of all rules: a rule written again gets
// another.
func ruleHandles(t *testing.T, in *ifacetest.Namespace) string {
	t.Helper()
	var handles []string
	err := in.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer conn.CloseLasting()
		chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
		for _, c := range chains {
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				return err
			}
			for _, r := range rules {
				handles = append(handles, fmt.Sprintf("%s/%d", c.Name, r.Handle))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(handles, " ")
}

func TestGuardFollowsALinkThatReturns(t *testing.T) {
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Links = append(rules.Links, "absent")
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, g, rules)
	send := func() error { return sendSYN("192.0.2.1:80") }
	expect(t, "at first", lab.atClient().run(t, send))

	pub, err := lab.host.Handle.LinkByName("pub")
	if err == nil {
		err = lab.host.Handle.LinkDel(pub)
	}
	if err != nil {
		t.Fatal(err)
	}
	lab.apply(t, g, rules)
	lab.cable(t, "pub", lab.client)
	lab.address(t, lab.host, "pub", "192.0.2.1/24")
	lab.address(t, lab.client, "eth0", "192.0.2.21/24")
	lab.apply(t, g, rules)
	expect(t, "after it returned", lab.atClient().run(t, send))

	rules.Links = []string{"priv"}
	lab.apply(t, g, rules)
	expect(t, "not served any more", lab.atClient().run(t, send), "tcp 192.0.2.1:80 ACK RST")
}

func TestTwoGuardsLiveSideBySide(t *testing.T) {
	lab := newGuardLab(t)
	a, b := lab.open(t, iface.GuardNFT), lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, a, rules)
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:81")}
	lab.apply(t, b, rules)
	for _, at := range []string{"192.0.2.1:80", "192.0.2.1:81"} {
		expect(t, at, lab.atClient().run(t, func() error { return sendSYN(at) }))
	}
}

// guardChild tells a run of the test binary that it is the child of
// TestGuardLeavesNothingBehind, and how to end.
const guardChild = "VSNAT_TEST_GUARD_CHILD"

func TestGuardLeavesNothingBehind(t *testing.T) {
	if end := os.Getenv(guardChild); end != "" {
		holdGuard(t, end)
		return
	}
	for _, end := range []string{"kill", "terminate", "panic"} {
		t.Run(end, func(t *testing.T) {
			lab := newGuardLab(t)
			child := exec.Command("/proc/self/exe", "-test.run=^TestGuardLeavesNothingBehind$")
			child.Env = append(os.Environ(), guardChild+"="+end)
			in, errIn := child.StdinPipe()
			out, errOut := child.StdoutPipe()
			if err := firstError(errIn, errOut, lab.host.Do(child.Start)); err != nil {
				t.Fatal(err)
			}
			defer child.Process.Kill()
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "guarded\n" {
				t.Fatalf("the child says %q, %v", line, err)
			}
			if tables := tableNames(t, lab.host); len(tables) != 1 || !strings.HasPrefix(tables[0], "vsnat-") {
				t.Fatalf("tables of the running child: %q", tables)
			}
			send := func() error { return sendSYN("192.0.2.1:80") }
			expect(t, "guarded by the child", lab.atClient().run(t, send))

			switch end {
			case "kill":
				child.Process.Kill()
			case "terminate":
				child.Process.Signal(unix.SIGTERM)
			case "panic":
				in.Close()
			}
			child.Wait()
			if tables := tableNames(t, lab.host); len(tables) != 0 {
				t.Errorf("left behind: %q", tables)
			}
			expect(t, "after the child", lab.atClient().run(t, send), "tcp 192.0.2.1:80 ACK RST")
		})
	}
}

func holdGuard(t *testing.T, end string) {
	g, err := iface.OpenGuard(iface.GuardNFT)
	if err != nil {
		t.Fatal(err)
	}
	rules := iface.GuardRules{Links: []string{"pub"}, Services: []iface.GuardService{service(tcp, "192.0.2.1:80")}}
	if err := g.Apply(rules); err != nil {
		t.Fatal(err)
	}
	fmt.Println("guarded")
	os.Stdin.Read(make([]byte, 1)) // until the parent ends us or closes the pipe
	panic(end)
}

func tableNames(t *testing.T, in *ifacetest.Namespace) (names []string) {
	t.Helper()
	err := in.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer conn.CloseLasting()
		tables, err := conn.ListTables()
		for _, table := range tables {
			names = append(names, table.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
