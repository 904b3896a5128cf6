// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

const iperfPort = 5201

// kernelNAT is the same cluster made by the kernel: DNAT of the service, SNAT of
// the servers' network.
const kernelNAT = `
table ip reference {
	chain in {
		type nat hook prerouting priority dstnat
		ip daddr 192.168.88.23 tcp dport 5201 dnat to 10.0.0.2:5201
	}
	chain out {
		type nat hook postrouting priority srcnat
		ip saddr 10.0.0.0/24 oifname "eth0" snat to 192.168.88.23
	}
}
`

// vsnat and the kernel's NAT take turns in the same cluster, so that a busy
// machine slows both. The ratio is logged; below gross it is a fault, such as
// packets that are cut instead of passed on whole.
func TestIperf3BesideKernelNAT(t *testing.T) {
	const (
		rounds = 3
		gross  = 0.3
	)
	c := lab.Start(t, lab.Config{Servers: 1, Host: lab.HostVIPOnNIC})
	iperfServer(t, c)

	ratios := make(map[string][]float64)
	for range rounds {
		stop := startKernelNAT(t, c)
		kernel := iperfBoth(t, c)
		stop()

		d := direct(t, c, site(c, "packet", tcp(iperfPort)))
		ours := iperfBoth(t, c)
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
		for way, speed := range ours {
			ratios[way] = append(ratios[way], speed/kernel[way])
			t.Logf("%-8s  vsnat %5.2f Gbit/s  kernel %5.2f Gbit/s  ratio %.2f", way, speed/1e9, kernel[way]/1e9, speed/kernel[way])
		}
	}
	for way, r := range ratios {
		slices.Sort(r)
		middle := r[len(r)/2]
		t.Logf("%s: median ratio %.2f", way, middle)
		if middle < gross {
			t.Errorf("%s: %.2f of the kernel's speed can only be a fault", way, middle)
		}
	}
}

// iperfServer starts the far end.
func iperfServer(t *testing.T, c *lab.Cluster) {
	t.Helper()
	_, out := background(t, c.Servers[0], "iperf3", "-s", "--forceflush")
	eventually(t, "iperf3 listens", func() bool { return strings.Contains(out.String(), "Server listening") })
}

// startKernelNAT makes the director's kernel do the work until stop.
func startKernelNAT(t *testing.T, c *lab.Cluster) (stop func()) {
	t.Helper()
	shell(t, c.Director, "nft -f - <<'END'"+kernelNAT+"END")
	run(t, c.Director, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return func() {
		run(t, c.Director, "sysctl", "-qw", "net.ipv4.ip_forward=0")
		run(t, c.Director, "nft", "delete", "table", "ip", "reference")
	}
}

// iperfBoth measures both directions through the VIP, in bits per second as the
// receiver saw them.
func iperfBoth(t *testing.T, c *lab.Cluster) map[string]float64 {
	t.Helper()
	speeds := make(map[string]float64)
	for way, args := range map[string][]string{"upload": nil, "download": {"-R"}} {
		var report struct {
			End struct {
				Received struct {
					Speed float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			} `json:"end"`
		}
		out := iperf(t, c, &report, append(args, "-t", "2", "-O", "0.5")...)
		if report.End.Received.Speed == 0 {
			t.Fatalf("iperf3 says\n%s", out)
		}
		speeds[way] = report.End.Received.Speed
	}
	return speeds
}

// iperf runs a client towards the VIP and reads its report, which it returns as text too.
// A server is busy for a moment after the test before; iperf3 tells so in its report, and
// by its exit status not in every version.
func iperf(t *testing.T, c *lab.Cluster, report any, args ...string) string {
	t.Helper()
	args = append([]string{"-J", "-c", c.Config.VIP().String(), "-p", fmt.Sprint(iperfPort)}, args...)
	var out string
	eventually(t, "iperf3 reports", func() bool {
		var busy struct{ Error string }
		var err error
		out, err = try(t, c.Client, "iperf3", args...)
		if parsed := json.Unmarshal([]byte(out), &busy); parsed != nil || err != nil && busy.Error == "" {
			t.Fatalf("iperf3: %v\n%s", err, out)
		}
		return busy.Error == ""
	})
	if err := json.Unmarshal([]byte(out), report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Datagrams at a modest rate all arrive, but for what a busy machine loses.
func TestIperf3UDP(t *testing.T) {
	c := lab.Start(t, lab.Config{Servers: 1})
	direct(t, c, site(c, "packet", tcp(iperfPort), udp(iperfPort)))
	iperfServer(t, c)
	var report struct {
		End struct {
			Sum struct {
				Packets int `json:"packets"`
				Lost    int `json:"lost_packets"`
			} `json:"sum"`
		} `json:"end"`
	}
	iperf(t, c, &report, "-u", "-b", "50M", "-t", "2", "-l", "1400")
	if s := report.End.Sum; s.Packets < 1000 || s.Lost > s.Packets/20 {
		t.Errorf("%d of %d datagrams lost", s.Lost, s.Packets)
	}
}
