// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// small is a table that a flood fills several times over.
const small = 1000

func smallTable(c *lab.Cluster, io string) string {
	return fmt.Sprintf("max-conns: %d\n", smallTables(c)) + site(c, io)
}

// smallTables is how many entries all workers have together, each a small table.
func smallTables(c *lab.Cluster) int { return small * max(1, c.Config.Workers) }

func TestFlood(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, smallTable, func(t *testing.T, c *cluster) {
		c.run("SYN from random sources", synFlood)
		c.run("half datagrams", halfDatagrams)
		c.run("control clients", controlClients)
		c.run("table full", tableFull)
	})
}

// synFlood sends 20,000 SYNs: connections held before go on, and of 20 new ones
// 20 succeed.
func synFlood(t *testing.T, c *cluster) {
	held := c.holdEchoes(50)
	w := c.capture(c.Client, "eth0")
	random := rand.New(rand.NewPCG(1, 2))
	syn := c.template(w, layers.IPProtocolTCP, &layers.TCP{SrcPort: 1, DstPort: 80, Seq: 1, SYN: true, Window: 60_000})
	for range 20_000 {
		// The checksums follow the source, so that the servers see right ones.
		syn.setSource(c.elsewhere(random.Uint64()), uint16(1024+random.IntN(60_000)))
		w.send(syn.frame)
	}

	for i := range 20 {
		if page, err := c.get(c.Client, 80); err != nil || !strings.HasPrefix(page, "this is real server") {
			t.Errorf("new connection %d: %q, %v", i+1, page, err)
		}
	}
	for i, conn := range held {
		if err := tryEcho(conn); err != nil {
			t.Errorf("held connection %d: %v", i+1, err)
		}
	}
	s, err := c.control.Stats(c.ctx)
	c.must(err)
	if s.Conns.Len > smallTables(c.Cluster) {
		t.Errorf("%d entries in a table of %d", s.Conns.Len, smallTables(c.Cluster))
	}
	if s.Total.Conns < small {
		t.Errorf("only %d connections were counted: that was no flood", s.Total.Conns)
	}
}

// halfDatagrams sends 10,000 first fragments that nothing follows, from many
// sources and as many from one: fragmented datagrams of others still get
// through. No half goes on to a server, whose own memory for fragments would
// not hold them all.
func halfDatagrams(t *testing.T, c *cluster) {
	w := c.capture(c.Client, "eth0")
	random := rand.New(rand.NewPCG(3, 4))
	half := c.template(w, layers.IPProtocolUDP, &layers.UDP{SrcPort: 1, DstPort: lab.EchoPort}, gopacket.Payload(make([]byte, 800)))
	half.makeFirstFragment()
	for i := range 10_000 {
		src := c.elsewhere(1 << 20)
		if i%2 == 0 {
			src = c.elsewhere(random.Uint64())
		}
		half.setID(uint16(i))
		half.setSource(src, uint16(1024+random.IntN(60_000)))
		w.send(half.frame)
	}
	// TCP gets through any queue; when it has, the queues are empty, and what is
	// lost now is lost for good reason or none.
	c.mustGet(c.Client, 80)
	c.exchange(c.dialUDP(lab.EchoPort), 5, 8<<10)
}

// tableFull holds established connections until there is no room: no more come,
// those that there are go on, and when some end there is room again.
func tableFull(t *testing.T, c *cluster) {
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	for refused := c.drops()["table-full"]; len(held) <= small; {
		ctx, cancel := contextWithin(c, time.Second)
		conn, err := c.Client.Dial(ctx, "tcp", c.virtual(lab.EchoPort).String())
		cancel()
		if err == nil {
			held = append(held, conn)
			if c.Config.Workers > 1 {
				// What ends the handshake may come by another queue than the next SYN.
				c.must(tryEcho(conn))
			}
			continue
		}
		if c.ctx.Err() != nil || c.drops()["table-full"] > refused {
			break
		}
	}
	if len(held) > small || len(held) < small-100 {
		t.Fatalf("%d connections fit into a table of %d", len(held), small)
	}
	if c.drops()["table-full"] == 0 {
		t.Errorf("the refused connection is not counted: %v", c.drops())
	}
	for _, i := range []int{0, len(held) / 2, len(held) - 1} {
		if err := tryEcho(held[i]); err != nil {
			t.Errorf("held connection %d: %v", i+1, err)
		}
	}
	c.eventually("the log tells of the full table", func() bool {
		return strings.Contains(c.director.Logs(), "connection table full")
	})

	for _, conn := range held[:50] {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	held = held[50:]
	// A closed entry stays for ten seconds, in which it gives way to nobody but its
	// own tuple; make it short, as an operator would.
	c.must(c.control.SetTimeouts(c.ctx, control.Timeouts{Close: control.Duration(time.Second)}))
	c.eventually("there is room again", func() bool {
		ctx, cancel := contextWithin(c, 500*time.Millisecond)
		defer cancel()
		conn, err := c.Client.Dial(ctx, "tcp", c.virtual(lab.EchoPort).String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// controlClients open more connections to the control socket than the director has
// descriptors, and say nothing: packets go on, and when they leave, or are let go,
// the socket serves again.
func controlClients(t *testing.T, c *cluster) {
	l := c.startLoad(3)
	var before unix.Rlimit
	c.must(unix.Prlimit(c.director.PID(), unix.RLIMIT_NOFILE, nil, &before))
	few := before
	few.Cur = 64
	c.must(unix.Prlimit(c.director.PID(), unix.RLIMIT_NOFILE, &few, nil))
	defer func() { c.must(unix.Prlimit(c.director.PID(), unix.RLIMIT_NOFILE, &before, nil)) }()
	var silent []net.Conn
	defer func() {
		for _, conn := range silent {
			conn.Close()
		}
	}()
	for range 1000 {
		conn, err := net.Dial("unix", c.Socket())
		if errors.Is(err, unix.EAGAIN) {
			break // the director accepts no more for now
		}
		c.must(err)
		silent = append(silent, conn)
	}
	if len(silent) < 64 {
		t.Fatalf("only %d connections could be opened", len(silent))
	}
	l.more(20)
	for _, conn := range silent {
		conn.Close()
	}
	c.eventually("the control socket serves again", func() bool {
		ctx, cancel := contextWithin(c, time.Second)
		defer cancel()
		_, err := c.control.Health(ctx)
		return err == nil
	})
	l.end()
}

// TestForged has strangers speak for others.
func TestForged(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{Clients: 2}, nil, func(t *testing.T, c *cluster) {
		c.run("blind reset", blindReset)
		c.run("exact reset", exactReset)
		c.run("unreachable", forgedUnreachable)
		c.run("source of a server", serverOutside)
	})
}

// blindReset sends resets with the tuple of a connection and sequence numbers
// that miss its window: the entry stays as it is.
func blindReset(t *testing.T, c *cluster) {
	conn := c.dialTCP(lab.EchoPort)
	c.echo(conn)
	w := c.capture(c.Clients[1], "eth0")
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	rst := c.template(w, layers.IPProtocolTCP, &layers.TCP{SrcPort: 1, DstPort: lab.EchoPort, RST: true})
	seq, _ := c.nextSeq(conn)
	for i := range uint32(1000) {
		rst.setSeq(seq + 1<<28 + i*4_000_000)
		rst.setSource(local.Addr(), local.Port())
		w.send(rst.frame)
	}
	c.echo(conn)
	c.wantState(lab.EchoPort, "ESTABLISHED")
}

// exactReset shows that the resets of blindReset would have been able to do it.
func exactReset(t *testing.T, c *cluster) {
	conn := c.dialTCP(lab.EchoPort)
	c.echo(conn)
	w := c.capture(c.Clients[1], "eth0")
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	rst := c.template(w, layers.IPProtocolTCP, &layers.TCP{SrcPort: 1, DstPort: lab.EchoPort, RST: true})
	seq, _ := c.nextSeq(conn)
	rst.setSeq(seq)
	rst.setSource(local.Addr(), local.Port())
	w.send(rst.frame)
	c.eventually("the reset is believed", func() bool {
		for _, e := range c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort)}) {
			if e.Client == local {
				return e.State == "CLOSE"
			}
		}
		return false
	})
}

// nextSeq uses a connection and returns the sequence numbers of what the client
// and the server send next.
func (c *cluster) nextSeq(conn net.Conn) (client, server uint32) {
	c.t.Helper()
	w := c.capture(c.Servers[0], "eth0")
	others := []*wire{w, c.capture(c.Servers[1], "eth0"), c.capture(c.Servers[2], "eth0")}
	c.echo(conn)
	port := layers.TCPPort(conn.LocalAddr().(*net.TCPAddr).Port)
	for end := time.Now().Add(limit / 4); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, w := range others {
			for _, p := range w.seen(func(gopacket.Packet) bool { return true }) {
				if tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && tcp.SrcPort == port && len(tcp.Payload) > 0 {
					sent := uint32(len(tcp.Payload))
					return tcp.Seq + sent, tcp.Ack + sent // the server sends it back
				}
			}
		}
	}
	c.t.Fatal("the client's segment was not seen")
	return 0, 0
}

// forgedUnreachable has a third host tell the VIP that its packets to the client
// do not arrive, quoting one that was never sent.
func forgedUnreachable(t *testing.T, c *cluster) {
	conn := c.dialTCP(lab.EchoPort)
	c.echo(conn)
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	w := c.capture(c.Clients[1], "eth0")
	_, seq := c.nextSeq(conn)
	before := c.drops()["icmp-quote"]
	quoted := frame(t, ipHeader(c.Config.VIP(), local.Addr(), layers.IPProtocolTCP, 0),
		&layers.TCP{SrcPort: lab.EchoPort, DstPort: layers.TCPPort(local.Port()), Seq: seq + 1<<28, ACK: true})
	proto, unreachable := layers.IPProtocolICMPv4, func(code uint8) []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, code)}}
	}
	if c.Config.IPv6 {
		proto, unreachable = layers.IPProtocolICMPv6, func(code uint8) []gopacket.SerializableLayer {
			return []gopacket.SerializableLayer{
				&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, code)},
				gopacket.Payload(make([]byte, 4)),
			}
		}
	}
	for code := range uint8(4) {
		stack := append([]gopacket.SerializableLayer{
			ethernet(w.mac, c.nextHopMAC(), c.Config.VIP()), ipHeader(c.Clients[1].Addr, c.Config.VIP(), proto, 0),
		}, unreachable(code)...)
		w.send(frame(t, append(stack, gopacket.Payload(quoted))...))
	}
	c.eventually("the forgeries are counted", func() bool { return c.drops()["icmp-quote"] == before+4 })
	c.echo(conn)
	for _, e := range c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort)}) {
		if e.Client == local && e.State != "ESTABLISHED" {
			t.Errorf("the connection is in state %s", e.State)
		}
	}
}

// serverOutside sends from the client's side what only a server may send.
func serverOutside(t *testing.T, c *cluster) {
	conn := c.dialTCP(lab.EchoPort)
	c.echo(conn)
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	victim, w := c.capture(c.Client, "eth0"), c.capture(c.Clients[1], "eth0")
	for i := range c.Servers {
		w.send(frame(t, ethernet(w.mac, c.nextHopMAC(), local.Addr()),
			ipHeader(c.Config.ServerAddr(i+1), local.Addr(), layers.IPProtocolTCP, 0),
			&layers.TCP{SrcPort: lab.EchoPort, DstPort: layers.TCPPort(local.Port()), Seq: 1, RST: true}))
	}
	if a := victim.answers(c.Config.VIP()); a.rst != 0 {
		t.Errorf("the client got %d resets of the VIP", a.rst)
	}
	c.echo(conn)
}

// TestNeighbours is about the director's own ARP and neighbour discovery; with io:
// tun they are the host's.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		onPacket(t, lab.Config{Clients: 2, IPv6: ipv6}, nil, func(t *testing.T, c *cluster) {
			c.run("forged claims", forgedClaims)
			c.run("a server that is not there", absentServer)
		})
	})
}

// TestAddressInUse has another station with the VIP when the director starts: it
// says so, and leaves the address to it.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	configure := func(c *lab.Cluster, io string) string {
		other := c.Clients[1]
		if err := other.AddAddr("eth0", netip.PrefixFrom(c.Config.VIP(), 64)); err != nil {
			t.Error(err)
		}
		if err := other.ServeHTTP(80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "another") })); err != nil {
			t.Error(err)
		}
		return site(c, io)
	}
	eachIO(t, lab.Config{Clients: 2, IPv6: true}, configure, addressInUse)
}

func addressInUse(t *testing.T, c *cluster) {
	c.eventually("the director knows that the VIP is in use", func() bool {
		h, err := c.control.Health(c.ctx)
		c.must(err)
		return h.Status == "degraded" && strings.Contains(strings.Join(h.Problems, "\n"), "it is not claimed")
	})
	c.eventually("the log says so", func() bool {
		return strings.Contains(c.director.Logs(), "an address is in use and is not claimed")
	})
	w := c.capture(c.Client, "eth0")
	asker := net.HardwareAddr{2, 0, 0, 0, 0, 77}
	w.send(c.question(asker, c.Config.ClientAddr(77), c.Config.VIP()))
	if page := c.mustGet(c.Client, 80); page != "another" {
		t.Errorf("the VIP answers %q", page)
	}
	nic, err := c.Clients[1].Interface("eth0")
	c.must(err)
	w.wait(1, "an answer to who has the VIP", func(p gopacket.Packet) bool { _, ok := answerTo(p, asker); return ok })
	time.Sleep(settle)
	answers := 0
	w.seen(func(p gopacket.Packet) bool {
		if mac, ok := answerTo(p, asker); ok {
			if answers++; !bytes.Equal(mac, nic.HardwareAddr) {
				t.Errorf("%v says that it has the VIP", mac)
			}
		}
		return false
	})
	if answers != 1 {
		t.Errorf("%d answers to one question", answers)
	}
	// What does not need the VIP works: the servers' gateway is the host's.
	c.mustPing(c.Servers[0], c.Config.Gateway(), 1, 56)
}

// forgedClaims has another station say that it is a server in use, or the client.
func forgedClaims(t *testing.T, c *cluster) {
	l := c.startLoad(6)
	inside, outside := c.capture(c.Servers[1], "eth0"), c.capture(c.Clients[1], "eth0")
	for range 20 {
		for _, claim := range []struct {
			w    *wire
			addr netip.Addr
		}{{inside, c.Servers[0].Addr}, {outside, c.Client.Addr}, {outside, c.Config.VIP()}, {inside, c.Config.Gateway()}} {
			// To the director alone: the others' tables are their own matter.
			to := c.nextHopMAC()
			if claim.w == inside {
				to = c.gatewayMAC()
			}
			for _, f := range c.claims(claim.w.mac, to, claim.addr) {
				claim.w.send(f)
			}
		}
		l.more(2)
	}
	l.end()
	for _, w := range []*wire{inside, outside} {
		stolen := w.seen(func(p gopacket.Packet) bool {
			dst := destination(p)
			return dst == c.Servers[0].Addr || dst == c.Client.Addr
		})
		if len(stolen) > 0 {
			t.Errorf("%d packets went to the forger, the first:\n%v", len(stolen), stolen[0])
		}
	}
}

// absentServer has a service whose only server does not answer: its clients
// are told within seconds, and other services do not wait meanwhile.
func absentServer(t *testing.T, c *cluster) {
	const port = 2300
	for _, proto := range []string{"tcp", "udp"} {
		c.vsnat("service", "add", proto, c.virtual(port).String())
		c.vsnat("server", "add", proto, c.virtual(port).String(), netip.AddrPortFrom(c.Config.ServerAddr(99), port).String())
	}
	l := c.startLoad(3)
	refused := make(chan error, 1)
	go func() {
		ctx, cancel := contextWithin(c, 8*time.Second)
		defer cancel()
		_, err := c.Client.Dial(ctx, "tcp", c.virtual(port).String())
		refused <- err
	}()
	udp := c.dialUDP(port)
	for range 50 {
		io.WriteString(udp, "nobody there") // an error here is one about a datagram before
	}
	l.more(20)
	if err := <-refused; !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("dial: %v, want host unreachable", err)
	}
	l.end()
}

// holdEchoes opens connections that have been used, until the end of the test.
func (c *cluster) holdEchoes(n int) []net.Conn {
	c.t.Helper()
	var held []net.Conn
	for range n {
		conn := c.dialTCP(lab.EchoPort)
		c.echo(conn)
		held = append(held, conn)
	}
	return held
}
