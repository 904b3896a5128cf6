// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"os"
	"testing"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

func TestPortRangeOfTheNamespace(t *testing.T) {
	err := ifacetest.NewNamespace(t).Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 21001"), 0); err != nil {
			return err
		}
		low, high, err := iface.EphemeralRange()
		if err != nil || low != 20000 || high != 21001 {
			t.Errorf("got %d-%d, %v", low, high, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
