// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"testing"
	"time"
)

// longestChain is the largest number of connections in one bucket.
func longestChain(t *Table) int {
	return longest(t.heads, func(i link) link { return t.conn(i).next })
}

// longest is the length of the longest of some chains.
func longest(heads []link, next func(link) link) (longest int) {
	for _, i := range heads {
		n := 0
		for ; i != 0; i = next(i) {
			n++
		}
		longest = max(longest, n)
	}
	return longest
}

// TestHashFlood: an attacker finds addresses that fall into one bucket of his
// own copy of the table. In ours, whose seed he does not know, they spread.
func TestHashFlood(t *testing.T) {
	const n, chosen = 4096, 512
	his, err := NewTable(Config{MaxConns: n, Seed: [2]uint64{3, 4}})
	if err != nil {
		t.Fatal(err)
	}
	defer his.Close()
	ours, err := NewTable(Config{MaxConns: n}) // random seed
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()

	found := 0
	for i := 0; found < chosen; i++ {
		c := numbered(i)
		if his.bucket(&c.Client, c.Proto) != &his.heads[0] {
			continue
		}
		found++
		his.Insert(&c, 0, time.Hour)
		ours.Insert(&c, 0, time.Hour)
	}
	if got := longestChain(his); got != chosen {
		t.Fatalf("test broken: the chosen addresses make a chain of %d in his table", got)
	}
	if got := longestChain(ours); got > 8 {
		t.Errorf("a chain of %d in ours", got)
	}
}

// TestHashSpread: what real and scripted clients look like spreads as random
// numbers would; 0.67 connections per bucket make no chain of more than about 9.
func TestHashSpread(t *testing.T) {
	const n = 1 << 16
	v6 := func(hi, lo uint64, port uint16) Endpoint {
		var e Endpoint
		binary.BigEndian.PutUint64(e.Addr[:], hi)
		binary.BigEndian.PutUint64(e.Addr[8:], lo)
		e.Port = port
		return e
	}
	v4 := func(a uint32, port uint16) Endpoint {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], a)
		return Endpoint{AddrFrom4(b), port}
	}
	for name, client := range map[string]func(i int) Endpoint{
		"one host, every port":            func(i int) Endpoint { return v4(0xc0a85815, uint16(i)) },
		"one port, every host":            func(i int) Endpoint { return v4(0x0a000000+uint32(i), 40000) },
		"one host in each network":        func(i int) Endpoint { return v4(uint32(i)<<16|1, 40000) },
		"host and port in step":           func(i int) Endpoint { return v4(0x0a000000+uint32(i), uint16(i)) },
		"echo to everywhere":              func(i int) Endpoint { return v4(uint32(i)<<8, 0) },
		"IPv6 hosts of one network":       func(i int) Endpoint { return v6(0x20010db8<<32, uint64(i), 443) },
		"IPv6 networks":                   func(i int) Endpoint { return v6(0x20010db8<<32|uint64(i), 1, 443) },
		"IPv6 both halves in step":        func(i int) Endpoint { return v6(uint64(i)<<48, uint64(i)<<48, 443) },
		"IPv6 halves that add up to zero": func(i int) Endpoint { return v6(uint64(i), -uint64(i), 443) },
	} {
		table := newTable(t, n)
		for i := range n {
			c := Conn{Client: client(i), Proto: protoTCP}
			if _, did := table.Insert(&c, 0, time.Hour); did != Inserted {
				t.Fatalf("%s: %d %s", name, i, did)
			}
		}
		empty := 0
		for _, head := range table.heads {
			if head == 0 {
				empty++
			}
		}
		// e^-(2/3) = 0.513 of the buckets stay empty.
		if got := longestChain(table); got > 12 {
			t.Errorf("%s: a chain of %d", name, got)
		}
		if share := float64(empty) / float64(len(table.heads)); share < 0.47 || share > 0.56 {
			t.Errorf("%s: %.3f of the buckets empty", name, share)
		}
	}
}

// TestSeed: the same seed gives the same hash, another or none another.
func TestSeed(t *testing.T) {
	e := ep(client)
	h := func(seed [2]uint64) uint64 {
		k := newKeys(seed)
		return k.hash(&e, protoTCP)
	}
	if first, again := h([2]uint64{1, 2}), h([2]uint64{1, 2}); first != again {
		t.Error("one seed, two hashes")
	}
	seen := map[uint64]bool{}
	for _, seed := range [][2]uint64{{1, 2}, {2, 1}, {1, 0}, {0, 1}, {}, {}} {
		if seen[h(seed)] {
			t.Errorf("seed %v gives a hash that was seen", seed)
		}
		seen[h(seed)] = true
	}
}

// TestOneRemote: the whole inside talks to one server, and hairpins to another.
// No chain grows with their number.
func TestOneRemote(t *testing.T) {
	table, err := NewTable(Config{MaxConns: 60000, Seed: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	remote := Endpoint{AddrFrom4([4]byte{203, 0, 113, 9}), 53}
	server := Endpoint{AddrFrom4([4]byte{10, 0, 0, 2}), 80}
	ours := AddrFrom4([4]byte{192, 168, 88, 23})
	for i := range 15000 {
		inside := Endpoint{AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 5000}
		snat := Conn{Client: remote, Virtual: Endpoint{ours, uint16(1024 + i)}, Dest: inside, Proto: 17, Flags: SNAT}
		full := Conn{Client: inside, Virtual: Endpoint{ours, 80}, Dest: server, Local: Endpoint{ours, uint16(20000 + i)}, Proto: 6, Flags: FullNAT}
		for _, c := range []*Conn{&snat, &full} {
			if _, what := table.Insert(c, 0, 1); what != Inserted {
				t.Fatal(i, what)
			}
		}
	}
	if n := longestChain(table); n > 12 {
		t.Errorf("a chain of %d", n)
	}
	if n := longest(table.seconds, func(i link) link { return table.conn(i).second }); n > 12 {
		t.Errorf("a second chain of %d", n)
	}
}
