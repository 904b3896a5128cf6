// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// tcpdump on both sides of the director counts the same packets, and calls every
// checksum in them correct.
func TestTcpdumpAgrees(t *testing.T) {
	inFamilies(t, func(t *testing.T, ipv6 bool) { tcpdumpAgrees(t, lab.Config{Servers: 1, IPv6: ipv6}) })
}

func tcpdumpAgrees(t *testing.T, config lab.Config) {
	c := lab.Start(t, config)
	server := c.Servers[0]
	// With offloads, a packet between namespaces keeps a checksum that is still
	// to be completed, and may be many packets in one.
	plainPackets(t, c.Client, "eth0")
	plainPackets(t, server, "eth0")
	direct(t, c, site(c, "packet", tcp(lab.PagePort), tcp(lab.SinkPort), udp(lab.EchoPort)))

	captures := map[string]*capture{
		"client": startCapture(t, c, c.Client, fmt.Sprintf("host %v", c.Config.VIP())),
		"server": startCapture(t, c, server, fmt.Sprintf("host %v and host %v", c.Client.Addr, server.Addr)),
	}
	for range 20 {
		run(t, c.Client, "curl", "-sS", "--max-time", "10", url(c, lab.PagePort))
	}
	shell(t, c.Client, fmt.Sprintf("head -c 3000000 /dev/zero | nc -N %v %d", c.Config.VIP(), lab.SinkPort))
	shell(t, c.Client, fmt.Sprintf("for i in 1 2 3; do echo hello | nc -u -w 1 %v %d; done", c.Config.VIP(), lab.EchoPort))
	run(t, server, "curl", "-sS", "--max-time", "10", urlOf(c.Client.Addr, lab.WhoPort))

	word := "proto "
	if config.IPv6 {
		word = "next-header "
	}
	lines := make(map[string]int)
	for name, capture := range captures {
		for _, row := range []struct{ proto, filter string }{{"tcp", "tcp"}, {"udp", "udp"}} {
			text := capture.read(t, row.filter)
			packets := strings.Count(text, word+strings.ToUpper(row.proto))
			lines[name+" "+row.proto] = packets
			if bad := matching(text, "(incorrect", "bad cksum", "bad udp cksum"); bad != "" {
				t.Errorf("%s: tcpdump calls checksums wrong, the first of them:\n%s", name, bad)
			}
			good := map[string]string{"tcp": "(correct)", "udp": "[udp sum ok]"}[row.proto]
			if n := strings.Count(text, good); n != packets {
				t.Errorf("%s: %d %s packets, of which %d are %q", name, packets, row.proto, n, good)
			}
		}
	}
	t.Logf("packets: %v", lines)
	for _, proto := range []string{"tcp", "udp"} {
		if lines["client "+proto] != lines["server "+proto] || lines["client "+proto] == 0 {
			t.Errorf("%s: the client's side saw %d packets, the server's %d", proto, lines["client "+proto], lines["server "+proto])
		}
	}
}

// A capture is a running tcpdump.
type capture struct {
	node   *lab.Node
	cmd    *lab.Cmd
	output *syncBuffer
	file   string
	ended  bool
}

// startCapture starts tcpdump on eth0 and returns once it sees packets.
func startCapture(t *testing.T, c *lab.Cluster, n *lab.Node, filter string) *capture {
	t.Helper()
	file := filepath.Join(c.Dir(), n.Name+".pcap")
	// -Z: its own user does not exist in a user namespace.
	cmd, output := background(t, n, "tcpdump", "-i", "eth0", "-n", "-B", "16384", "-Z", "root", "-w", file, filter)
	eventually(t, "tcpdump listens", func() bool { return strings.Contains(output.String(), "listening on") })
	return &capture{node: n, cmd: cmd, output: output, file: file}
}

// read ends the capture, the first time, and returns what tcpdump says of the
// packets that pass a filter.
func (c *capture) read(t *testing.T, filter string) string {
	t.Helper()
	if !c.ended {
		c.ended = true
		c.cmd.Process.Signal(unix.SIGINT)
		c.cmd.Wait()
		if !strings.Contains(c.output.String(), "\n0 packets dropped by kernel") {
			t.Fatalf("%s: the capture is not complete:\n%s", c.node.Name, c.output)
		}
	}
	return run(t, c.node, "tcpdump", "-r", c.file, "-n", "-vv", filter)
}

// matching returns the first lines that contain one of some words.
func matching(text string, words ...string) string {
	var found []string
	for line := range strings.Lines(text) {
		for _, w := range words {
			if strings.Contains(line, w) && len(found) < 5 {
				found = append(found, line)
			}
		}
	}
	return strings.Join(found, "")
}

// plainPackets switches the checksum offload of a link off, as `ethtool -K LINK
// tx off` does, and with it all that depends on it.
func plainPackets(t *testing.T, n *lab.Node, link string) {
	t.Helper()
	if err := n.SwitchOff(link, unix.ETHTOOL_STXCSUM); err != nil {
		t.Fatal(err)
	}
}
