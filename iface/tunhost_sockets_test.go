// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/iface"
)

// What a program of the host has served before is ours from then on: the host remembers
// the end of each connection, and must not think that the next one from the same port is
// about it.
func TestTUNHostTakesPortsThatTheHostRemembers(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		from, to := at(plan.client, 4000), at(plan.host, 80)
		hostEnds(t, lab, from, to)

		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		rules.Services = []iface.GuardService{service(tcp, to)}
		lab.routeInto(t, h, rules)
		expect(t, "from a port that the host remembers", lab.deviceProbe(t, q, plan.host, func() error { return sendSYNFrom(from, to) }),
			"tcp "+from+" SYN")
	})
}

// hostEnds makes a connection that the host is the first to end, and so remembers.
func hostEnds(t *testing.T, lab *guardLab, from, to string) {
	t.Helper()
	l := listen(t, lab.host, to)
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		ended <- err
	}()
	err := lab.client.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
		c, err := d.Dial("tcp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			return errors.Join(err, errors.New("the host did not end the connection"))
		}
		return nil
	})
	if err := errors.Join(err, <-ended, l.Close()); err != nil {
		t.Fatal(err)
	}
}
