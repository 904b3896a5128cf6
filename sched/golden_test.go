// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// Sequences worked out from the kernel's source for servers .2, .3 and .4, added
// in that order; the connections stay open. An exclamation mark is a refusal.
func TestSequences(t *testing.T) {
	for _, test := range []struct{ scheduler, weights, want string }{
		{"rr", "1,1,1", "432432432"},
		{"rr", "1,0,1", "424242"},
		{"wrr", "1,1,1", "432432"},
		{"wrr", "3,2,1", "432232432232"},
		{"wrr", "1,2,3", "432443432443"},
		{"wrr", "4,2,2", "43224322"},
		{"wrr", "5,0,1", "422222422222"},
		{"lc", "3,2,1", "432432"},
		{"wlc", "1,1,1", "432432"},
		{"wlc", "3,2,1", "432232432232"},
		{"sed", "3,2,1", "232432232432"},
		{"nq", "3,2,1", "432232232432"},
		{"fo", "1,3,3", "444444"},
		{"fo", "3,2,0", "222222"},
		{"ovf", "1,0,2", "44422!!"},
		{"ovf", "1,1,1", "443322!"},
		{"sed", "0,0,0", "!!"},
		{"nq", "0,0,0", "!!"},
		{"fo", "0,0,0", "!!"},
		{"twos", "0,0,0", "!!"},
		{"twos", "0,7,0", "333333"},
		{"mh", "0,0,0", "!!"},
	} {
		t.Run(test.scheduler+" "+test.weights, func(t *testing.T) {
			r := newReplay(t, test.scheduler)
			r.weights(test.weights, "2,3,4")
			got := ""
			for range test.want {
				got += strings.TrimSuffix(r.open(), "ECONNREFUSED")
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// ring returns servers .2, .3 and .4, newest first, and the octets of a table of
// them.
func ring(weights ...int) ([]*Server, func(table []*Server) string) {
	p := NewPoolWith(newRoundRobin())
	for i, w := range weights {
		p.Add(testServer(byte(2+i), w))
	}
	return p.Servers(), func(table []*Server) string {
		var b strings.Builder
		for _, s := range table {
			b.WriteString(strconv.Itoa(int(s.Addr.Addr().As4()[3])))
		}
		return b.String()
	}
}

// shares is how many places of a table are .2's, .3's and .4's.
func shares(table string) string {
	return fmt.Sprint(strings.Count(table, "2"), strings.Count(table, "3"), strings.Count(table, "4"))
}

func TestSourceHashTable(t *testing.T) {
	servers, octets := ring(3, 0, 1)
	sh := &sourceHash{}
	sh.Changed(servers, Change{Kind: Reset})
	table := octets(sh.bucket[:])
	if want := "4322243222"; table[:10] != want {
		t.Errorf("buckets begin %s, want %s", table[:10], want)
	}
	if got, want := shares(table), "153 51 52"; got != want {
		t.Errorf("shares %s, want %s", got, want)
	}
	sh.Changed(nil, Change{Kind: Removed})
	if s := sh.Pick(nil, &Request{}); s != nil {
		t.Errorf("chose %v of none", s.Addr)
	}
}

func TestSourceHashLookup(t *testing.T) {
	servers, octets := ring(1, 1, 1)
	for _, test := range []struct {
		flags   Flags
		port    string
		buckets string
		want    string
	}{
		{0, "40000", "82 179 174 52", "3243"},
		{UsePort, "40000", "246 87 82 216", "4434"},
	} {
		sh := &sourceHash{flags: test.flags}
		sh.Changed(servers, Change{Kind: Reset})
		var buckets []string
		var chosen []*Server
		for _, client := range []string{"192.168.88.21", "192.168.88.22", "192.168.88.1", "1.2.3.4"} {
			r := &Request{Proto: 6, Client: netip.MustParseAddrPort(client + ":" + test.port)}
			s, home, _ := sh.look(r)
			buckets, chosen = append(buckets, fmt.Sprint(home)), append(chosen, s)
		}
		if got := strings.Join(buckets, " "); got != test.buckets || octets(chosen) != test.want {
			t.Errorf("flags %b: buckets %s of %s, want %s of %s", test.flags, got, octets(chosen), test.buckets, test.want)
		}
	}
}

func TestDestinationHashLookup(t *testing.T) {
	servers, octets := ring(1, 5, 1) // weights mean nothing
	dh := &destinationHash{}
	dh.Changed(servers, Change{Kind: Reset})
	var chosen []*Server
	for _, virtual := range []string{"192.168.88.23:80", "192.168.88.24:80"} {
		chosen = append(chosen, dh.Pick(servers, &Request{Virtual: netip.MustParseAddrPort(virtual)}))
	}
	if got := octets(chosen); got != "42" {
		t.Errorf("chose %s, want 42", got)
	}
}

func TestMaglevClaimants(t *testing.T) {
	servers, _ := ring(1, 1, 1)
	var got []string
	for _, c := range maglevClaimants(servers) {
		got = append(got, fmt.Sprintf("%d+%d", c.next, c.skip))
	}
	if want := "2801+1796 1631+3453 1231+3544"; strings.Join(got, " ") != want {
		t.Errorf("offsets and skips %v, want %s", got, want)
	}
}

func TestMaglevLookup(t *testing.T) {
	clients := []string{"192.168.88.21:40000", "192.168.88.22:40000", "1.2.3.4:40000"}
	for _, test := range []struct {
		weights []int
		shares  string
		plain   string
		port    string
	}{
		{[]int{1, 1, 1}, "1364 1364 1365", "422", "234"},
		{[]int{3, 2, 1}, "2046 1364 683", "422", "234"},
		{[]int{6, 4, 2}, "2046 1364 683", "422", "234"}, // a common divisor
	} {
		servers, octets := ring(test.weights...)
		mh := &maglev{}
		mh.Changed(servers, Change{Kind: Reset})
		if got := shares(octets(mh.slot[:])); got != test.shares {
			t.Errorf("weights %v: shares %s, want %s", test.weights, got, test.shares)
		}
		for flags, want := range map[Flags]string{0: test.plain, UsePort: test.port} {
			mh.SetOptions(Options{Flags: flags})
			var chosen []*Server
			for _, c := range clients {
				chosen = append(chosen, mh.Pick(servers, &Request{Proto: 6, Client: netip.MustParseAddrPort(c)}))
			}
			if got := octets(chosen); got != want {
				t.Errorf("weights %v, flags %b: chose %s, want %s", test.weights, flags, got, want)
			}
		}
	}
	mh := &maglev{}
	for i, want := range []uint32{3689, 1215, 2197} {
		if _, home, _ := mh.look(nil, &Request{Client: netip.MustParseAddrPort(clients[i])}); home != want {
			t.Errorf("%s has slot %d, want %d", clients[i], home, want)
		}
	}
}

// The paper's own example, SipHash-2-4 of the bytes 0 to 14 under the key of 0 to
// 15: the round is right. Rounds and length of ours are checked by the tables.
func TestSipRound(t *testing.T) {
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	h := sipState{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	for _, block := range []uint64{k0, 15<<56 | 0x0e0d0c0b0a0908} {
		h[3] ^= block
		h.round()
		h.round()
		h[0] ^= block
	}
	h[2] ^= 0xff
	for range 4 {
		h.round()
	}
	if got, want := h[0]^h[1]^h[2]^h[3], uint64(0xa129ca6149be45e5); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

// An address has one hash, in whatever form it comes.
func TestFold(t *testing.T) {
	for addr, want := range map[string]uint32{
		"192.168.88.23":        0xc0a85817,
		"::ffff:192.168.88.23": 0xc0a85817,
		"fd00::23":             0xfd000000 ^ 0x23,
		"2001:db8:1:2:3:4:5:6": 0x20010db8 ^ 0x00010002 ^ 0x00030004 ^ 0x00050006,
	} {
		if got := fold(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %x, want %x", addr, got, want)
		}
	}
	if fold(netip.Addr{}) != 0 {
		t.Error("no address is not 0")
	}
}
