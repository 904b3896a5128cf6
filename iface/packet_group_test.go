// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
)

// solicited lists the solicited-node groups of a link, as the kernel gives them
// to the device.
func solicited(t *testing.T, link string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev_mcast")
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // index, name, users, global users, address
		if len(f) == 5 && f[1] == link && strings.HasPrefix(f[4], "3333ff") {
			groups = append(groups, f[4])
		}
	}
	slices.Sort(groups)
	return groups
}

func TestPacketListensForQuestions(t *testing.T) {
	link := quietCable(t)
	filter := func(ours ...string) iface.Filter { return iface.Filter{Ours: addresses(ours...)} }
	groups := func(want ...string) {
		t.Helper()
		if got := solicited(t, "near"); !slices.Equal(got, want) {
			t.Errorf("groups %q, want %q", got, want)
		}
	}
	groups()
	q := open(t, link, iface.PacketOptions{Filter: filter("192.0.2.1", "2001:db8::12:3456", "2001:db8:1::12:3456", "::ffff:192.0.2.2")})
	groups("3333ff123456")
	for range 2 {
		if err := q.SetFilter(filter("2001:db8::ab:1", "2001:db8:1::12:3456")); err != nil {
			t.Fatal(err)
		}
		groups("3333ff123456", "3333ffab0001")
	}
	if err := q.SetFilter(filter("2001:db8::ab:1")); err != nil {
		t.Fatal(err)
	}
	groups("3333ffab0001")

	// Set down and up the link keeps its groups.
	for _, set := range []func(netlink.Link) error{netlink.LinkSetDown, netlink.LinkSetUp} {
		if err := set(link); err != nil {
			t.Fatal(err)
		}
	}
	groups("3333ffab0001")
	q.Close()
	groups()

	q = open(t, link, iface.PacketOptions{Filter: filter("2001:db8::ab:1")})
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if err := q.SetFilter(filter("2001:db8::1", "2001:db8::2")); !iface.IsGone(err) {
		t.Errorf("on a link that is gone: %v", err)
	}
	if _, err := iface.OpenPacket(portOf(link), iface.PacketOptions{Filter: filter("2001:db8::1")}); !iface.IsGone(err) {
		t.Errorf("opened on a link that is gone: %v", err)
	}
}

// A neighbour's question comes through the filter although no address of ours is
// its destination.
func TestPacketReceivesNeighbourDiscovery(t *testing.T) {
	c := newCable(t)
	question, _ := hex.DecodeString("3333ff123456" + "020000000009" + "86dd" +
		"6000000000203aff" + "fe800000000000000000000000000009" + "ff0200000000000000000001ff123456" +
		"8700000000000000" + "20010db8000000000000000000123456" + "0101020000000009")
	other := slices.Clone(question)
	other[14+6] = 17
	if err := c.near.SetFilter(iface.Filter{Ours: []netip.Addr{ours}}); err != nil {
		t.Fatal(err)
	}
	send(t, c.far, other, question)
	f := receive(t, c.near, 1)[0]
	if !slices.Equal(f.Data, question) || f.Kind != iface.Multicast || !iface.IsND(f.Data) || iface.IsND(other) {
		t.Errorf("received %v %x", f.Kind, f.Data)
	}
}
