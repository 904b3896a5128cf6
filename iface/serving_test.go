// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func servingTopology() Topology {
	return Topology{Links: []Link{
		{Index: 1, Name: "lo", AdminUp: true, Up: true, Loopback: true, Kind: "device"},
		{Index: 2, Name: "eth0", AdminUp: true, Up: true, Ethernet: true, Kind: "device"},
		{Index: 3, Name: "eth1", AdminUp: true, Up: false, Ethernet: true, Kind: "device"}, // no carrier
		{Index: 4, Name: "eth2", Ethernet: true, Kind: "device"},                           // down
		{Index: 5, Name: "br0", AdminUp: true, Up: true, Ethernet: true, Kind: "bridge"},
		{Index: 6, Name: "veth0", AdminUp: true, Up: true, Ethernet: true, Kind: "veth", Master: 5, MasterKind: "bridge"},
		{Index: 7, Name: "bond0", AdminUp: true, Up: true, Ethernet: true, Kind: "bond"},
		{Index: 8, Name: "slave0", AdminUp: true, Up: true, Ethernet: true, Kind: "device", Master: 7, MasterKind: "bond"},
		{Index: 9, Name: "team0p", AdminUp: true, Up: true, Ethernet: true, Kind: "device", Master: 99, MasterKind: "team"},
		{Index: 10, Name: "tun0", AdminUp: true, Up: true, Kind: "tun"},
		{Index: 11, Name: "vrf0", AdminUp: true, Up: true, Ethernet: true, Kind: "vrf"},
		{Index: 12, Name: "cust0", AdminUp: true, Up: true, Ethernet: true, Kind: "device", Master: 11, MasterKind: "vrf"},
		{Index: 13, Name: "dummy0", AdminUp: true, Up: true, Ethernet: true, Kind: "dummy"},
		{Index: 14, Name: "eth0.5", AdminUp: true, Up: true, Ethernet: true, Kind: "vlan"},
	}}
}

func TestServing(t *testing.T) {
	for _, c := range []struct {
		patterns, want string
		problems       []string
	}{
		{"", "eth0 eth1 br0 bond0 cust0 eth0.5", nil},
		{"auto", "eth0 eth1 br0 bond0 cust0 eth0.5", nil},
		{"auto eth9", "eth0 eth1 br0 bond0 cust0 eth0.5", []string{`"eth9" does not exist`}},
		{"eth0", "eth0", nil},
		{"br0 eth0", "eth0 br0", nil},
		{"eth*", "eth0 eth1 eth0.5", nil},
		{"eth? bond0", "eth0 eth1 bond0", nil},
		{"veth*", "", nil},
		{"wan*", "", nil},
		{"eth9", "", []string{`"eth9" does not exist`, "there are eth0, eth1, br0, bond0, cust0, eth0.5"}},
		{"eth0 veth0", "eth0", []string{`"veth0" is a port of the bridge br0`, "name br0 instead"}},
		{"slave0", "", []string{`"slave0" is a port of the bond bond0`}},
		{"team0p", "", []string{`"team0p" is a port of a team`}},
		{"lo", "", []string{`"lo" is the loopback`}},
		{"tun0", "", []string{`"tun0" is not Ethernet-like`}},
		{"dummy0", "", []string{`"dummy0" is a dummy`}},
		{"eth2", "", []string{`"eth2" is down`, "ip link set eth2 up"}},
		{"eth[", "", []string{`"eth[" is a malformed pattern`}},
	} {
		links, err := servingTopology().Serving(strings.Fields(c.patterns))
		var names []string
		for _, l := range links {
			names = append(names, l.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%q: got %s, want %s", c.patterns, got, c.want)
		}
		var unserved *UnservedError
		if (err != nil) != (c.problems != nil) || err != nil && !errors.As(err, &unserved) {
			t.Errorf("%q: got error %v", c.patterns, err)
			continue
		}
		for _, p := range c.problems {
			if !strings.Contains(err.Error(), p) {
				t.Errorf("%q: got error %q, want %q in it", c.patterns, err, p)
			}
		}
	}
}

// Whatever differs, Equal sees it: also a field that is added later.
func TestEqualSeesEveryField(t *testing.T) {
	link := reflect.TypeFor[Link]()
	for i := range link.NumField() {
		l := Link{}
		field := reflect.ValueOf(&l).Elem().Field(i)
		switch field.Kind() {
		case reflect.Int:
			field.SetInt(1)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.String:
			field.SetString("x")
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Array:
			field.Index(5).SetUint(1)
		default:
			t.Fatalf("teach this test about the type of %s", link.Field(i).Name)
		}
		if l.Equal(Link{}) || !l.Equal(l) || (Topology{Links: []Link{l}}).Equal(Topology{Links: []Link{{}}}) {
			t.Errorf("Equal does not look at %s", link.Field(i).Name)
		}
	}
	for _, o := range []Topology{{Routes: []Route{{Metric: 1}}}, {Permanent: []NeighbourEntry{{Link: 1}}}} {
		if o.Equal(Topology{}) || !o.Equal(o) {
			t.Errorf("Equal does not see %+v", o)
		}
	}
}

func TestServingNamesNothingOnAnEmptyHost(t *testing.T) {
	_, err := Topology{}.Serving([]string{"eth0"})
	if err == nil || !strings.Contains(err.Error(), "no link of this host can be served") {
		t.Errorf("got %v", err)
	}
}
