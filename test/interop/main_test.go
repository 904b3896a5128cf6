// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.MainBuilt(m, "../../cmd/vsnat")) }

// limit ends what hangs; nothing takes half as long.
const limit = 90 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// A service is one of the VIP's, which all servers serve at the same port.
type service struct {
	proto string
	port  int
}

func tcp(port int) service { return service{"tcp", port} }
func udp(port int) service { return service{"udp", port} }

// site is a configuration with services, and SNAT of the servers' network; with as many
// workers as VSNAT_TEST_WORKERS says.
func site(c *lab.Cluster, io string, services ...service) string {
	var b strings.Builder
	if n := os.Getenv("VSNAT_TEST_WORKERS"); n != "" {
		fmt.Fprintf(&b, "workers: %s\n", n)
	}
	fmt.Fprintf(&b, "io: %s\nsnat:\n  - from: %v\n    to: %v\nservices:\n", io, c.Config.Inside(), c.Config.VIP())
	for _, s := range services {
		fmt.Fprintf(&b, "  - %s: %q\n    scheduler: rr\n    servers:\n", s.proto, netip.AddrPortFrom(c.Config.VIP(), uint16(s.port)))
		for _, n := range c.Servers {
			fmt.Fprintf(&b, "      - %q\n", netip.AddrPortFrom(n.Addr, uint16(s.port)))
		}
	}
	return b.String()
}

// inFamilies runs a test once for each.
func inFamilies(t *testing.T, f func(t *testing.T, ipv6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

// direct starts the director; its log is shown if the test fails.
func direct(t *testing.T, c *lab.Cluster, config string) *lab.DirectorProcess {
	t.Helper()
	d, err := c.StartDirector(testContext(t), lab.DirectorOptions{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("director:\n%s", d.Logs())
		}
	})
	return d
}

// run runs a program in a node, which must succeed, and returns what it wrote to
// its standard output.
func run(t *testing.T, n *lab.Node, name string, args ...string) string {
	t.Helper()
	out, err := try(t, n, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is run for a program that may fail.
func try(t *testing.T, n *lab.Node, name string, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := n.Command(testContext(t), name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %s %s: %w\n%s%s", n.Name, name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// shell is run for a line of shell.
func shell(t *testing.T, n *lab.Node, line string) string {
	t.Helper()
	return run(t, n, "bash", "-o", "pipefail", "-c", line)
}

// eventually polls until ok, for as long as a slow machine may need.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

// background starts a program in a node, and ends it after the test by SIGKILL if
// it still runs. What it writes can be read meanwhile.
func background(t *testing.T, n *lab.Node, name string, args ...string) (cmd *lab.Cmd, output *syncBuffer) {
	t.Helper()
	output = new(syncBuffer)
	cmd = n.Command(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %s: %v", n.Name, name, err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, output
}
