// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

const (
	client  = "192.168.88.21:40000"
	virtual = "192.168.88.23:80"
	server  = "10.0.0.2:80"
	local   = "10.0.0.1:20000"
)

func ep(s string) Endpoint { return EndpointFrom(netip.MustParseAddrPort(s)) }

// dnat is a TCP connection; a fourth endpoint makes it a FullNAT one.
func dnat(ends ...string) Conn {
	c := Conn{Client: ep(ends[0]), Virtual: ep(ends[1]), Dest: ep(ends[2]), Proto: protoTCP}
	if len(ends) == 4 {
		c.Local, c.Flags = ep(ends[3]), FullNAT
	}

	return c
}

func insert(t *testing.T, table *Table, c Conn) *Conn {
	t.Helper()
	n, did := table.Insert(&c, 0, time.Minute)
	if did != Inserted {
		t.Fatalf("%s: %s", &c, did)
	}

	return n
}

func tuple(src, dst string) *Tuple { return &Tuple{ep(src), ep(dst), protoTCP} }

func TestLookupBothWays(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		family := func(s string) string {
			if !v6 {
				return s
			}
			host, port, _ := strings.Cut(s, ":")
			return "[2001:db8:" + strings.ReplaceAll(host, ".", ":") + "::]:" + port
		}
		c, v, d, l := family(client), family(virtual), family(server), family(local)

		table := newTable(t, 16)
		plain := insert(t, table, dnat(c, v, d))
		hairpin := insert(t, table, dnat(family("10.0.0.3:50000"), v, d, l))

		for _, row := range []struct {
			what     string
			src, dst string
			ours     Ours
			want     *Conn
			way      Direction
		}{
			{"request", c, v, DstOurs, plain, Inbound},
			{"reply", d, c, DstForeign, plain, Outbound},
			{"other client port", family("192.168.88.21:40001"), v, DstOurs, nil, 0},
			{"other service", c, family("192.168.88.23:443"), DstOurs, nil, 0},
			{"reply of another server", family("10.0.0.3:80"), c, DstForeign, nil, 0},
			{"request where the destination is foreign", c, v, DstForeign, nil, 0},
			{"reply where the destination is ours", d, c, DstOurs, nil, 0},
			{"hairpin request", family("10.0.0.3:50000"), v, DstOurs, hairpin, Inbound},
			{"hairpin reply", d, l, DstOurs, hairpin, Outbound},
			{"hairpin reply that went past us", d, family("10.0.0.3:50000"), DstForeign, nil, 0},
			{"hairpin reply as if leaving", d, l, DstForeign, nil, 0},
		} {
			got, way := table.Lookup(tuple(row.src, row.dst), row.ours)
			if got != row.want || got != nil && way != row.way {
				t.Errorf("%s %s > %s: %v %s", row.what, row.src, row.dst, got, way)
			}
		}
		p := tuple(c, v)
		p.Proto = protoUDP
		if got, _ := table.Lookup(p, DstOurs); got != nil {
			t.Errorf("%s found as UDP", got)
		}
	}
}

// TestLookupEcho: in an echo the identifier is the port of one side only.
func TestLookupEcho(t *testing.T) {
	table := newTable(t, 4)
	c := insert(t, table, Conn{
		Client:  ep("203.0.113.9:0"),
		Virtual: ep("192.168.88.23:1007"),
		Dest:    ep("10.0.0.2:7"),
		Proto:   1, State: ICMP, Flags: SNAT,
	})
	request := Tuple{Src: ep("10.0.0.2:7"), Dst: ep("203.0.113.9:0"), Proto: 1}
	if got, way := table.Lookup(&request, DstForeign); got != c || way != Outbound {
		t.Error("request not found")
	}
	reply := Tuple{Src: ep("203.0.113.9:0"), Dst: ep("192.168.88.23:1007"), Proto: 1}
	if got, way := table.Lookup(&reply, DstOurs); got != c || way != Inbound {
		t.Error("reply not found")
	}
}

func TestInsertInTheWay(t *testing.T) {
	const other = "192.168.88.24:80"
	base := dnat(client, virtual, server)
	hairpin := dnat("10.0.0.3:50000", virtual, server, local)
	udp := base
	udp.Proto = protoUDP

	for _, row := range []struct {
		what      string
		have, add Conn
		want      Insertion
	}{
		{"the same again", base, base, Exists},
		{"the same to another server", base, dnat(client, virtual, "10.0.0.3:80"), Exists},
		{"two services, one server", base, dnat(client, other, server), Clash},
		{"two services, two servers", base, dnat(client, other, "10.0.0.3:80"), Inserted},
		{"two services, two ports", base, dnat(client, other, "10.0.0.2:81"), Inserted},
		{"two services, two protocols", udp, dnat(client, other, server), Inserted},
		{"two services, two client ports", base, dnat("192.168.88.21:40001", other, server), Inserted},
		{"hairpin, the same again", hairpin, hairpin, Exists},
		{"hairpin, one local for two", hairpin, dnat("10.0.0.4:50000", virtual, server, local), Clash},
		{"hairpin, one local, two servers", hairpin, dnat("10.0.0.4:50000", virtual, "10.0.0.4:80", local), Inserted},
		{"hairpin beside the plain reply path", hairpin, dnat("10.0.0.3:50000", other, server), Inserted},
		{"a first packet that looks like a hairpin reply", hairpin, dnat(server, local, "10.0.0.9:9"), Clash},
		{"a hairpin reply that looks like a first packet", dnat(server, local, "10.0.0.9:9"), hairpin, Clash},
	} {
		table := newTable(t, 8)
		first := insert(t, table, row.have)
		before := table.Len()
		got, did := table.Insert(&row.add, 0, time.Minute)
		if did != row.want {
			t.Errorf("%s: %s, want %s", row.what, did, row.want)
			continue
		}
		if did != Inserted && (got != first || table.Len() != before) {
			t.Errorf("%s: returned %v, length %d", row.what, got, table.Len())
		}
	}

	self := dnat(client, virtual, client, virtual)
	if got, did := newTable(t, 8).Insert(&self, 0, 0); did != Clash || got != nil {
		t.Errorf("a connection that clashes with itself: %v %s", got, did)
	}
}

// TestEvictionOrder fills a table and sees who makes room.
func TestEvictionOrder(t *testing.T) {
	var gone []string
	table, err := NewTable(Config{MaxConns: 6, Removed: func(c *Conn, why Removal) {
		gone = append(gone, fmt.Sprintf("%d %s", c.Client.Port, why))
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()

	open := func(port uint16, proto uint8) (*Conn, Insertion) {
		c := dnat(client, virtual, server)
		c.Client.Port, c.Proto = port, proto
		return table.Insert(&c, 0, time.Minute)
	}
	open(1, protoUDP)
	open(2, protoTCP)
	held, _ := open(3, protoTCP)
	open(4, protoTCP)
	back, _ := open(5, protoTCP)
	open(6, protoUDP)
	table.SetClass(held, ClassHeld)
	table.SetClass(back, ClassHeld)
	table.SetClass(back, ClassHalfOpen) // younger than 4 now, as before
	first, _ := table.Lookup(&Tuple{ep("192.168.88.21:2"), ep(virtual), protoTCP}, DstOurs)
	table.SetClass(first, ClassHalfOpen) // in it already: no younger

	if got, want := table.Counts(), [NumClasses]int{ClassHalfOpen: 3, ClassOneWay: 2, ClassHeld: 1}; got != want {
		t.Errorf("counts %v, want %v", got, want)
	}
	for port := uint16(10); port < 15; port++ {
		c, did := open(port, protoTCP)
		if did != Inserted {
			t.Fatalf("port %d: %s", port, did)
		}
		table.SetClass(c, ClassHeld)
	}
	if c, did := open(20, protoTCP); did != Full || c != nil {
		t.Errorf("a table of held connections: %s", did)
	}
	want := []string{"2 evicted-half-open", "4 evicted-half-open", "5 evicted-half-open", "1 evicted-one-way", "6 evicted-one-way"}
	if !slices.Equal(gone, want) {
		t.Errorf("gone %q\nwant %q", gone, want)
	}
	if got, want := table.Counts(), [NumClasses]int{ClassHeld: 6}; got != want {
		t.Errorf("counts %v, want %v", got, want)
	}
	if c, _ := table.Lookup(&Tuple{ep("192.168.88.21:3"), ep(virtual), protoTCP}, DstOurs); c != held {
		t.Error("the held connection is gone")
	}
}

// TestFlood: half-open connections from everywhere, with one held and new
// ones that finish at once. All of these succeed.
func TestFlood(t *testing.T) {
	table := newTable(t, 1000)
	held := insert(t, table, dnat(client, virtual, server))
	table.SetClass(held, ClassHeld)
	for i := range 50_000 {
		c := numbered(i)
		if _, did := table.Insert(&c, Time(i), time.Minute); did != Inserted {
			t.Fatalf("flood %d: %s", i, did)
		}
		if i%100 != 0 {
			continue
		}
		c.Client.Addr = AddrFrom4([4]byte{198, 51, 100, 1})
		good, did := table.Insert(&c, Time(i), time.Minute)
		if did != Inserted {
			t.Fatalf("good %d: %s", i, did)
		}
		table.SetClass(good, ClassHeld)
	}
	if got := table.Counts(); got[ClassHeld] != 501 || table.Len() != table.Cap() {
		t.Errorf("counts %v of %d", got, table.Len())
	}
	if got, _ := table.Lookup(tuple(client, virtual), DstOurs); got != held {
		t.Error("the held connection is gone")
	}
}

// TestFullNATSlots: two slots, one connection.
func TestFullNATSlots(t *testing.T) {
	calls := 0
	table, err := NewTable(Config{MaxConns: 4, Removed: func(*Conn, Removal) { calls++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()

	for round := range 3 {
		one := insert(t, table, dnat("10.0.0.3:50000", virtual, server, local))
		insert(t, table, dnat("10.0.0.3:50001", virtual, server, "10.0.0.1:20001"))
		if table.Len() != 2 || listed(table) != 2 {
			t.Fatalf("length %d, %d listed", table.Len(), listed(table))
		}
		// Full: the oldest, one, goes, and both of its slots are free.
		insert(t, table, dnat("10.0.0.3:50002", virtual, server, "10.0.0.1:20002"))
		if got, _ := table.Lookup(tuple(server, local), DstOurs); got != nil {
			t.Fatalf("the reply of an evicted connection finds %s", got)
		}
		table.Remove(one, Deleted) // stale: its slot is the second of the new one
		for i := range table.Cap() {
			if c := table.At(i); c != nil {
				table.Remove(c, Deleted)
				table.Remove(c, Deleted)
			}
		}
		if table.Len() != 0 || calls != 3*(round+1) {
			t.Fatalf("length %d after %d removals", table.Len(), calls)
		}
	}
	if got, did := newTable(t, 1).Insert(&[]Conn{dnat("10.0.0.3:50000", virtual, server, local)}[0], 0, 0); did != Full || got != nil {
		t.Errorf("one slot for a FullNAT connection: %s", did)
	}
}

func listed(t *Table) int {
	n := 0
	for i := -1; i <= t.Cap(); i++ {
		if t.At(i) != nil {
			n++
		}
	}

	return n
}

// TestRemoved: the owner sees the connection's last values, once, when it is
// no longer found.
func TestRemoved(t *testing.T) {
	var table *Table
	calls := 0
	table, err := NewTable(Config{MaxConns: 4, Removed: func(c *Conn, why Removal) {
		calls++
		if why != Deleted || c.Server != 7 || c.State != Established || c.Client != ep(client) {
			t.Errorf("removed %+v, %s", c, why)
		}
		if found, _ := table.Lookup(tuple(client, virtual), DstOurs); found != nil {
			t.Error("still found")
		}
		if table.Len() != 0 {
			t.Errorf("still counted: %d", table.Len())
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()

	c := dnat(client, virtual, server)
	c.Server, c.State = 7, Established
	table.Remove(insert(t, table, c), Deleted)
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

// TestHeard: packets are counted to the end of the number, and no other flag
// changes.
func TestHeard(t *testing.T) {
	c := Conn{Flags: alias | Replied | SNAT}
	for n := range 40 {
		if got := c.Heard(); got != min(n, MaxHeard) {
			t.Fatalf("%d after %d packets", got, n)
		}
		c.Hear()
	}
	if c.Flags&^heard != alias|Replied|SNAT {
		t.Errorf("flags %x", c.Flags)
	}
}

func TestNewTable(t *testing.T) {
	for _, n := range []int{0, -1, maxConns + 1} {
		if _, err := NewTable(Config{MaxConns: n}); err == nil || !strings.Contains(err.Error(), "hint:") {
			t.Errorf("%d connections: %v", n, err)
		}
	}
	table, err := NewTable(Config{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	insert(t, table, dnat(client, virtual, server))
	if table.Cap() != 1 || table.Len() != 1 || listed(table) != 1 {
		t.Errorf("capacity %d, length %d", table.Cap(), table.Len())
	}
	for range 2 {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	}
	if table.Len() != 0 || table.At(0) != nil {
		t.Error("connections after Close")
	}
}

// TestSize: the promise is 168 bytes for a connection, all in.
func TestSize(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); size > 152 {
		t.Errorf("a Conn has %d bytes", size)
	}
	if end := unsafe.Offsetof(Conn{}.next) + unsafe.Sizeof(Conn{}.next); end > 64 {
		t.Errorf("what a lookup compares ends at byte %d", end)
	}
	if end := unsafe.Offsetof(Conn{}.InsidePort) + 2; end > 128 {
		t.Errorf("what a packet writes ends at byte %d", end)
	}
	// Reserved, not touched: this costs no memory.
	for _, n := range []int{100_000, 10_000_000} {
		if per := float64(newTable(t, n).Bytes()) / float64(n); per > 168 {
			t.Errorf("%d connections: %.1f bytes each", n, per)
		}
	}
}

// TestNoAllocs: nothing that a packet or a sweep does allocates.
func TestNoAllocs(t *testing.T) {
	removed := 0
	table, err := NewTable(Config{MaxConns: 64, Removed: func(*Conn, Removal) { removed++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	held := insert(t, table, dnat(client, virtual, server))
	table.SetClass(held, ClassHeld)

	now, port := Time(0), uint16(0)
	in, out, miss := tuple(client, virtual), tuple(server, client), tuple(client, server)
	for name, f := range map[string]func(){
		"hit":  func() { table.Lookup(in, DstOurs); table.Lookup(out, DstForeign) },
		"miss": func() { table.Lookup(miss, DstOurs) },
		"advance": func() {
			held.State = held.State.Next(Inbound, EventOf(flagACK))
			held.Follow(Inbound, 1, 1, 1, flagACK, 1)
			held.FollowSYN(Outbound, 1, 1, 1, flagACK|flagSYN, 0, 7)
			held.InWindow(Inbound, 2)
			table.SetDeadline(held, now.Add(time.Hour))
			table.SetDeadline(held, now.Add(time.Second))
			table.SetDeadline(held, now.Add(time.Hour))
		},
		"insert, refuse, evict, remove": func() {
			port++
			c := dnatAt(port)
			table.Insert(&c, now, time.Minute)
			table.Insert(&c, now, time.Minute)
			c.Virtual.Port++
			table.Insert(&c, now, time.Minute)
			if port%8 == 0 {
				n, _ := table.Lookup(&Tuple{Src: c.Client, Dst: Endpoint{c.Virtual.Addr, 80}, Proto: protoTCP}, DstOurs)
				table.Remove(n, Deleted)
			}
		},
		"template, child, the life of both": func() {
			port++
			c := dnatAt(port)
			key := c
			key.Client.Port, key.Flags = 0, Template
			tpl := table.FindTemplate(&key.Client, &key.Virtual, key.Proto)
			if tpl == nil {
				tpl, _ = table.Insert(&key, now, time.Second)
			}
			table.Restart(tpl, now)
			n, did := table.InsertChild(&c, tpl, now, 3*time.Second)
			now = now.Add(2 * time.Second)
			table.SetDeadline(held, now.Add(time.Hour))
			table.Sweep(now, 10)
			if did == Inserted && table.Parent(n) == tpl && port%3 == 0 {
				table.Retire(tpl)
			}
		},
		"expire": func() {
			port++
			c := dnatAt(port)
			table.Insert(&c, now, time.Second)
			now = now.Add(2 * time.Second)
			table.SetDeadline(held, now.Add(time.Hour))
			table.Sweep(now, 10)
			table.Counts()
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if removed < 200 {
		t.Errorf("only %d connections were removed", removed)
	}
}

// dnatAt is a connection of one client's port, made without parsing.
func dnatAt(port uint16) Conn {
	c := numbered(0)
	c.Client.Port = port

	return c
}
