// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func clientRequest(client uint32) *Request {
	a := netip.AddrFrom4([4]byte{byte(client >> 24), byte(client >> 16), byte(client >> 8), byte(client)})
	return &Request{Proto: 6, Client: netip.AddrPortFrom(a, 1024+uint16(client))}
}

// Of ten equal servers one goes: its tenth of the slots must move. Maglev promises
// few of the others, not none: a slot that is set free changes who claims what
// after it. With 4093 slots it is below one in twenty, against nine in ten if
// clients were dealt out anew.
func TestMaglevDisruption(t *testing.T) {
	var servers []*Server
	p := NewPoolWith(newMaglev())
	for i := range byte(10) {
		s := testServer(2+i, 1)
		servers = append(servers, s)
		p.Add(s)
	}
	table := func() [maglevSlots]*Server { return p.scheduler.(*maglev).slot }
	for _, gone := range servers {
		before := table()
		p.Remove(gone)
		after := table()
		owned, moved := 0, 0
		for i := range before {
			switch {
			case after[i] == gone:
				t.Fatalf("slot %d is still %v's", i, gone.Addr)
			case before[i] == gone:
				owned++
			case before[i] != after[i]:
				moved++
			}
		}
		if owned < maglevSlots/10 || owned > maglevSlots/10+1 {
			t.Errorf("%v had %d slots of %d", gone.Addr, owned, maglevSlots)
		}
		if limit := (maglevSlots - owned) / 20; moved == 0 || moved > limit {
			t.Errorf("without %v, %d of the others' slots moved, more than %d", gone.Addr, moved, limit)
		}
		p.Add(gone)
	}
}

// Quiescing a server maps nobody anew: its clients are refused, or with Fallback
// go elsewhere, and the others stay. When it is back so are they.
func TestMaglevQuiesced(t *testing.T) {
	for _, flags := range []Flags{0, Fallback} {
		p := NewPoolWith(newMaglev())
		p.SetOptions(Options{Flags: flags})
		servers := []*Server{testServer(2, 3), testServer(3, 2), testServer(4, 1)}
		for _, s := range servers {
			p.Add(s)
		}
		homes := func() (list []*Server) {
			for client := range uint32(2000) {
				list = append(list, p.Schedule(clientRequest(client)))
			}
			return list
		}
		before := homes()
		p.SetWeight(servers[0], 0)
		for i, s := range homes() {
			switch {
			case before[i] != servers[0] && s != before[i]:
				t.Fatalf("flags %b: client %d moved from %v", flags, i, before[i].Addr)
			case before[i] == servers[0] && (s != nil) != (flags == Fallback):
				t.Fatalf("flags %b: client %d of the quiesced server got %v", flags, i, s)
			}
		}
		p.SetWeight(servers[0], 3)
		if !slices.Equal(homes(), before) {
			t.Errorf("flags %b: not all are back", flags)
		}
		p.Remove(servers[0])
		servers[0].SetWeight(0)
		p.Add(servers[0]) // as new: the weight it had before does not count
		if servers[0].LastWeight() != 0 || slices.Contains(p.scheduler.(*maglev).slot[:], servers[0]) {
			t.Errorf("a server added without weight has slots")
		}
	}
}

// Huge weights are scaled down, to below 2⁶ slots in a row, and a small server is
// not lost in that: 42 rounds of 32, 1 and 63, then 61 slots of one more.
func TestMaglevHugeWeights(t *testing.T) {
	servers, octets := ring(65535, 1, 32768)
	mh := &maglev{}
	for _, s := range servers {
		s.lastWeight.Store(int32(s.Weight()))
	}
	mh.Changed(servers, Change{Kind: Reset})
	turns := []int{}
	for _, c := range maglevClaimants(servers) {
		turns = append(turns, c.turns)
	}
	if want := []int{32, 1, 63}; !slices.Equal(turns, want) {
		t.Errorf("turns %v, want %v", turns, want)
	}
	if got, want := shares(octets(mh.slot[:])), "2674 43 1376"; got != want {
		t.Errorf("shares %s, want %s", got, want)
	}
}

// With Fallback a client is refused only if there is nobody at all.
func TestFallbackFindsTheLast(t *testing.T) {
	for _, name := range []string{"sh", "mh"} {
		p, _ := NewPool(name)
		p.SetOptions(Options{Flags: Fallback})
		var servers []*Server
		for i := range byte(20) {
			s := testServer(2+i, 1)
			servers = append(servers, s)
			p.Add(s)
		}
		for _, s := range servers[1:] {
			p.SetWeight(s, 0)
		}
		for client := range uint32(500) {
			if s := p.Schedule(clientRequest(client * 977)); s != servers[0] {
				t.Fatalf("%s: client %d got %v, not the only one", name, client, s)
			}
		}
		p.SetWeight(servers[0], 0)
		if s := p.Schedule(clientRequest(1)); s != nil {
			t.Errorf("%s: chose %v, which has no weight", name, s.Addr)
		}
		p.SetWeight(servers[0], 1)
		p.SetOptions(Options{}) // an edit of the service acts at once
		refused := 0
		for client := range uint32(500) {
			if p.Schedule(clientRequest(client*977)) == nil {
				refused++
			}
		}
		if refused == 0 {
			t.Errorf("%s: falls back without the flag", name)
		}
	}
}

// Where a client goes whose server may not be chosen, in the kernel's order: the
// offset that is tried begins at the place itself.
func TestFallbackOrder(t *testing.T) {
	servers, _ := ring(1, 0, 1)
	sh := &sourceHash{flags: Fallback}
	sh.Changed(servers, Change{Kind: Reset})
	for client, want := range map[string][2]uint32{
		"192.168.88.21": {82, 164},  // 82+82
		"192.168.88.25": {217, 179}, // 217+217 is .3's again, one further is not
		"192.168.88.22": {179, 179},
	} {
		_, home, at := sh.look(&Request{Client: netip.AddrPortFrom(netip.MustParseAddr(client), 0)})
		if got := [2]uint32{home, at}; got != want {
			t.Errorf("sh: %s goes from bucket %d to %d, want %d to %d", client, home, at, want[0], want[1])
		}
	}

	servers, _ = ring(1, 1, 1)
	mh := &maglev{flags: Fallback}
	mh.Changed(servers, Change{Kind: Reset})
	servers[0].SetWeight(0)
	for client := range uint32(300) {
		r := clientRequest(client)
		s, home, at := mh.look(servers, r)
		for tries := uint32(0); !mh.slot[home].Eligible(); tries++ {
			r.Client = netip.AddrPortFrom(clientRequest(client+(home+tries)%maglevSlots).Client.Addr(), 0)
			_, next, _ := (&maglev{}).look(nil, r)
			if mh.slot[next].Eligible() {
				if next != at || s != mh.slot[next] {
					t.Fatalf("mh: client %d goes from slot %d to %d, want %d", client, home, at, next)
				}
				break
			}
		}
	}
}

// The port counts only for protocols that have one.
func TestUsePort(t *testing.T) {
	for _, name := range []string{"sh", "mh"} {
		p, _ := NewPool(name)
		for i := range byte(20) {
			p.Add(testServer(2+i, 1))
		}
		chosen := func(proto uint8, flags Flags) int {
			p.SetOptions(Options{Flags: flags})
			seen := map[*Server]bool{}
			for port := range uint16(100) {
				seen[p.Schedule(&Request{Proto: proto, Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)})] = true
			}
			return len(seen)
		}
		for _, proto := range []uint8{6, 17, 132} {
			if n := chosen(proto, UsePort); n < 15 {
				t.Errorf("%s, protocol %d: 100 ports went to %d servers of 20", name, proto, n)
			}
		}
		if chosen(6, 0) != 1 || chosen(1, UsePort) != 1 {
			t.Errorf("%s: the port counts without the flag, or for ICMP", name)
		}
	}
}

// Two draws by weight, and the lighter of both: with loads that stay equal per
// weight the shares follow the weights, and one server that is loaded more gets
// only what is drawn twice.
func TestTwosShares(t *testing.T) {
	p := NewPoolWith(NewPowerOfTwo(rand.NewPCG(1, 2)))
	servers := []*Server{testServer(2, 3000), testServer(3, 2000), testServer(4, 1000)}
	for _, s := range servers {
		p.Add(s)
	}
	const rounds = 60000
	count := func() map[*Server]int {
		chosen := map[*Server]int{}
		for range rounds {
			chosen[p.Schedule(&Request{})]++
		}
		return chosen
	}
	chosen := count()
	for _, s := range servers {
		want := rounds * s.Weight() / 6000
		if got := chosen[s]; got < want*95/100 || got > want*105/100 {
			t.Errorf("%v with weight %d got %d of %d, not about %d", s.Addr, s.Weight(), got, rounds, want)
		}
	}
	servers[0].ConnOpened()
	want := rounds / 4 // drawn twice, each with a chance of 1/2
	if got := count()[servers[0]]; got < want*95/100 || got > want*105/100 {
		t.Errorf("the heaviest got %d of %d, not about %d", got, rounds, want)
	}
}

// Of two that are equally loaded the one drawn first is taken.
func TestTwosTie(t *testing.T) {
	a, b := testServer(2, 1), testServer(3, 2)
	if lighter(a, b) != a || lighter(b, a) != b {
		t.Error("the second of two equals was taken")
	}
	a.ConnOpened()
	b.ConnOpened()
	if lighter(a, b) != b || lighter(b, a) != b {
		t.Error("1/1 was taken before 1/2")
	}
}

// The kernel draws from 0 to the sum of the weights, both included, so the head of
// the list has one chance more.
func TestTwosBounds(t *testing.T) {
	head, tail := testServer(4, 2), testServer(2, 1)
	for at, want := range []*Server{head, head, head, tail} {
		if got := standing([]*Server{head, tail}, uint64(at)); got != want {
			t.Errorf("at %d stands %v, want %v", at, got.Addr, want.Addr)
		}
	}
	p := &powerOfTwo{random: constant(1<<64 - 1)}
	if n := p.upTo(3); n != 3 {
		t.Errorf("the largest number is %d, not 3", n)
	}
	p.random = constant(0)
	if n := p.upTo(3); n != 0 {
		t.Errorf("the smallest number is %d, not 0", n)
	}
}

type constant uint64

func (c constant) Uint64() uint64 { return uint64(c) }
