// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// filePort is where the servers of TestCurlGigabyte give and take a file.
const filePort = 8081

// One request after another meets the servers in turn, the last added first, as
// the kernel's rr does it.
func TestCurlRoundRobin(t *testing.T) {
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		for _, way := range ways(t) {
			t.Run(way, func(t *testing.T) {
				c := lab.Start(t, lab.Config{IPv6: ipv6})
				direct(t, c, site(c, way, tcp(lab.PagePort)))
				for i := range 9 {
					got := run(t, c.Client, "curl", "-sS", "--max-time", "10", url(c, lab.PagePort))
					if want := c.Config.ServerPage(3-i%3) + "\n"; got != want {
						t.Errorf("request %d: got %q, want %q", i+1, got, want)
					}
				}
			})
		}
	})
}

// A gigabyte each way through the VIP arrives as it was sent; sha256sum says so.
func TestCurlGigabyte(t *testing.T) {
	const size = 1 << 30
	for _, way := range ways(t) {
		t.Run(way, func(t *testing.T) {
			c := lab.Start(t, lab.Config{Servers: 1})
			files := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					io.Copy(w, lab.Stream(size))
					return
				}
				d, err := lab.ReadDigest(r.Body)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				fmt.Fprintf(w, "%x", d.SHA256)
			})
			if err := c.Servers[0].ServeHTTP(filePort, files); err != nil {
				t.Fatal(err)
			}
			direct(t, c, site(c, way, tcp(filePort)))

			want := lab.StreamDigest(size)
			file := filepath.Join(c.Dir(), "gigabyte")
			target := url(c, filePort)
			t.Logf("download: %s bytes/s", run(t, c.Client, "curl", "-sS", "-o", file, "-w", "%{speed_download}", target))
			if got := digest(t, c.Client, file); got != fmt.Sprintf("%x", want.SHA256) {
				t.Errorf("downloaded: got %s, want %x", got, want.SHA256)
			}
			if got := run(t, c.Client, "curl", "-sS", "-T", file, target); got != fmt.Sprintf("%x", want.SHA256) {
				t.Errorf("uploaded: the server has %q, want %x", got, want.SHA256)
			}
			os.Remove(file)
		})
	}
}

// digest is what sha256sum says of a file.
func digest(t *testing.T, n *lab.Node, file string) string {
	t.Helper()
	sum, _, _ := strings.Cut(run(t, n, "sha256sum", file), " ")
	return sum
}

func url(c *lab.Cluster, port int) string { return urlOf(c.Config.VIP(), port) }

func urlOf(addr netip.Addr, port int) string {
	return fmt.Sprintf("http://%v/", netip.AddrPortFrom(addr, uint16(port)))
}

// ways are the ways of input and output that work here. An ordinary user may
// often not open the TUN device.
func ways(t *testing.T) []string {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Logf("without io: tun, since /dev/net/tun may not be opened: %v", err)
		return []string{"packet"}
	}
	f.Close()
	return []string{"packet", "tun"}
}
