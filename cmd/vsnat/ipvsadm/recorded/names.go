// SPDX-License-Identifier: Apache-2.0

package recorded

import "net/netip"

// Names knows what the recorded cluster called its hosts and ports. Of SCTP's it
// had none.
type Names struct{}

var (
	hosts = map[string]string{
		"vip": "192.168.88.23", "rs1": "10.0.0.2", "rs2": "10.0.0.3", "rs3": "10.0.0.4",
		"client": "192.168.88.21", "localhost": "127.0.0.1",
	}
	ports = map[string]uint16{
		"smtp": 25, "domain": 53, "http": 80, "https": 443, "snpp": 444,
		"microsoft-ds": 445, "sip": 5060, "http-alt": 8080,
	}
)

const sctp = 132

// Host is the address of a name.
func (Names) Host(name string) (netip.Addr, bool) {
	addr, ok := hosts[name]
	if !ok {
		return netip.Addr{}, false
	}
	return netip.MustParseAddr(addr), true
}

// HostName is the name of an address.
func (Names) HostName(addr netip.Addr) (string, bool) {
	for name, a := range hosts {
		if a == addr.String() {
			return name, true
		}
	}
	return "", false
}

// Port is the number of a service.
func (Names) Port(name string, proto uint8) (uint16, bool) {
	port, ok := ports[name]
	return port, ok && proto != sctp
}

// PortName is the name of a port.
func (Names) PortName(port uint16, proto uint8) (string, bool) {
	for name, p := range ports {
		if p == port && proto != sctp {
			return name, true
		}
	}
	return "", false
}
