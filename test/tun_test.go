// SPDX-License-Identifier: Apache-2.0

package test

import (
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// TestTUNRefused is about hosts that can't have io: tun: the director says why,
// and leaves the host as it was. Everything else about io: tun is the other half
// of the tests of eachIO.
func TestTUNRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		host lab.HostAddresses
		want []string
	}{
		{"no address to route by", lab.HostBare, []string{"io: tun", "address", "io: packet"}},
		{"no device", lab.HostBesideVIP, []string{"/dev/net/tun"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inFamilies(t, func(t *testing.T, ipv6 bool) {
				tunRefused(t, lab.Config{Host: test.host, IPv6: ipv6}, test.want)
			})
		})
	}
}

// tunRefused is about one of them.
func tunRefused(t *testing.T, config lab.Config, says []string) {
	c := &cluster{Cluster: lab.Start(t, config), t: t, ctx: testContext(t), io: "tun"}
	if config.Host == lab.HostBesideVIP && tunForbidden() == nil {
		// The device may be opened here: the director runs instead, and says that
		// it is one.
		c.start(site(c.Cluster, "tun"))
		h, err := c.control.Health(c.ctx)
		c.must(err)
		if h.IO != "tun" || h.Status != "ok" {
			t.Errorf("health: %+v", h)
		}
		return
	}
	c.settle()
	before := c.hostState()
	_, err := c.StartDirector(c.ctx, lab.DirectorOptions{Config: site(c.Cluster, "tun")})
	if err == nil {
		t.Fatal("the director started")
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q:\n%v", want, err)
		}
	}
	if different := differences(before, c.hostState()); different != "" {
		t.Errorf("the refused director left:\n%s", different)
	}
}
