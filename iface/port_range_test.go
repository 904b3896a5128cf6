// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

func TestPortRangesOfTheNamespace(t *testing.T) {
	err := ifacetest.NewNamespace(t).Do(func() error {
		err := errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 21001"), 0),
			os.WriteFile("/proc/sys/net/ipv4/ip_local_reserved_ports", []byte("20005,20100-20110"), 0))
		if err != nil {
			return err
		}
		low, high, err := iface.EphemeralRange()
		if err != nil || low != 20000 || high != 21001 {
			t.Errorf("got %d-%d, %v", low, high, err)
		}
		reserved, err := iface.ReservedPorts()
		if err != nil || !slices.Equal(reserved, []iface.PortRange{{Min: 20005, Max: 20005}, {Min: 20100, Max: 20110}}) {
			t.Errorf("got %v, %v", reserved, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
