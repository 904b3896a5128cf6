// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

// seen is what a bridge noticed about the frames it carried.
type seen struct{ segmented, partial, largest int }

// startBridge carries frames between two ports as they are, in one goroutine, until the
// test ends. The returned function stops it and says what it saw.
func startBridge(t *testing.T, ports [2]iface.Queue) func() seen {
	t.Helper()
	poller := newPoller(t)
	for id, q := range ports {
		if err := poller.Add(q.FD(), id); err != nil {
			t.Fatal(err)
		}
	}
	var (
		result seen
		stop   = make(chan struct{})
		done   = make(chan struct{})
	)
	go func() {
		defer close(done)
		batch := make([]iface.Frame, iface.BatchSize)
		ids := make([]int, 2)
		for {
			select {
			case <-stop:
				return
			default:
			}
			ready, err := poller.Wait(ids, -1)
			if err != nil {
				t.Error(err)
				return
			}
			for _, id := range ids[:ready] {
				n, err := ports[id].Read(batch)
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range batch[:n] {
					result.largest = max(result.largest, len(f.Data))
					if f.Offload.Segmented() {
						result.segmented++
					}
					if f.Offload.NeedsChecksum() {
						result.partial++
					}
				}
				if _, err := ports[1-id].Write(batch[:n]); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	var once sync.Once
	finish := func() seen {
		once.Do(func() {
			close(stop)
			poller.Wake()
			<-done
		})
		return result
	}
	t.Cleanup(func() { finish() })
	return finish
}

// transfer sends size random bytes over TCP from one namespace to an address in
// another and compares what arrives.
func transfer(t *testing.T, client, server *ifacetest.Namespace, address string, size int) {
	t.Helper()
	var listener net.Listener
	if err := server.Do(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	arrived := make(chan error, 1)
	sum := sha256.New()
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			_, err = io.Copy(sum, conn)
		}
		arrived <- err
	}()
	var conn net.Conn
	if err := client.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	want := sha256.New()
	source := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(conn, want), source, int64(size)); err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).CloseWrite()
	if err := <-arrived; err != nil {
		t.Fatal(err)
	}
	if [32]byte(sum.Sum(nil)) != [32]byte(want.Sum(nil)) {
		t.Fatalf("the %d bytes arrived changed", size)
	}
}

func TestBridgeCarriesSuperPackets(t *testing.T) {
	for _, row := range []struct {
		name   string
		egress iface.Egress
		limit  int // largest super-packet that the server's link takes whole; 0: as it is
	}{
		{"direct", iface.EgressDirect, 0},
		{"queued", iface.EgressQueued, 0},
		// The link must have them segmented, which the direct way cannot.
		{"direct, segmented by the kernel", iface.EgressDirect, 8000},
	} {
		t.Run(row.name, func(t *testing.T) {
			client, server := ifacetest.NewNamespace(t), ifacetest.NewNamespace(t)
			links := [2]netlink.Link{
				ifacetest.NewCable(t, "public", client, "eth0"),
				ifacetest.NewCable(t, "private", server, "eth0"),
			}
			client.SetAddress(t, "eth0", "192.0.2.1/24")
			server.SetAddress(t, "eth0", "192.0.2.2/24")
			if row.limit > 0 {
				if err := errors.Join(netlink.LinkSetGSOIPv4MaxSize(links[1], row.limit), netlink.LinkSetGSOMaxSize(links[1], row.limit)); err != nil {
					t.Fatal(err)
				}
			}
			filter := iface.Filter{Ours: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}}
			var ports [2]iface.Queue
			for i, link := range links {
				ports[i] = open(t, link, iface.PacketOptions{Filter: filter, Egress: row.egress})
			}
			finish := startBridge(t, ports)
			transfer(t, client, server, "192.0.2.2:7000", 20<<20)
			saw := finish()
			if saw.segmented == 0 || saw.partial == 0 || saw.largest < 20_000 {
				t.Errorf("no super-packets with partial checksums crossed: %+v", saw)
			}
			if s := ports[1].Stats(); s.SendRefused != 0 || row.limit > 0 && s.SendDrops != 0 {
				t.Errorf("towards the server %+v", s)
			}
		})
	}
}

// A super-packet and its header arrive as they were sent, and a partial checksum
// is neither completed nor lost on the way.
func TestPacketCarriesTheOffloadHeader(t *testing.T) {
	c := newCable(t)
	p := datagram(c.link, far, ours, 1, 9000)
	want := iface.Offload{
		Flags: iface.FlagNeedsChecksum, GSOType: iface.GSOUDPL4,
		HeaderLen: 42, GSOSize: 1200, ChecksumStart: 34, ChecksumOffset: 6,
	}
	binary.BigEndian.PutUint16(p[40:], 0x1234)
	plain := want
	plain.GSOType, plain.GSOSize, plain.HeaderLen = iface.GSONone, 0, 0
	small := datagram(c.link, far, ours, 2, 60)
	if n, err := c.far.Write([]iface.Frame{{Data: p, Offload: want}, {Data: small, Offload: plain}}); n != 2 || err != nil {
		t.Fatalf("%d sent, %v (%+v)", n, err, c.far.Stats())
	}
	got := receive(t, c.near, 2)
	if string(got[0].Data) != string(p) {
		t.Error("the super-packet changed on its way")
	}
	// The kernel answers with its own idea of where the linear part ends.
	got[0].Offload.HeaderLen = want.HeaderLen
	if got[0].Offload != want {
		t.Errorf("the header came as %+v, want %+v", got[0].Offload, want)
	}
	if got[1].Offload != plain {
		t.Errorf("the header came as %+v, want %+v", got[1].Offload, plain)
	}
}

// A link without an Ethernet header carries packets from the IP header on, both
// ways: a TUN device seen from the host's side.
func TestPacketOnANetworkLayerLink(t *testing.T) {
	tun, link, ok := openTUN(t, 1500)
	if !ok {
		return
	}
	host, err := iface.OpenPacket(iface.Link{Index: link.Attrs().Index, Name: tun.Name()}, iface.PacketOptions{
		Filter: iface.Filter{Ours: []netip.Addr{ours}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	packet := datagram(nil, far, ours, 5, 60)[14:]
	send(t, tun, packet, datagram(nil, far, someone, 6, 60)[14:])
	got := receive(t, host, 1)
	if string(got[0].Data) != string(packet) || got[0].Kind != iface.Host {
		t.Errorf("came as %v %x, want %x", got[0].Kind, got[0].Data, packet)
	}
	nothingMore(t, host)
	send(t, host, packet)
	for _, f := range receive(t, tun, 1) {
		if string(f.Data) != string(packet) {
			t.Errorf("left as %x, want %x", f.Data, packet)
		}
	}
}

// openTUN opens a device of the test's own. Where the system does not let this
// user do so, what there is to test is that OpenTUN says which file it needs;
// the result is false then, and the test is over.
func openTUN(t *testing.T, mtu int) (*iface.TUN, netlink.Link, bool) {
	t.Helper()
	ifacetest.InNamespace(t)
	if unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK) != nil {
		q, err := iface.OpenTUN("test%d", mtu)
		if err == nil {
			q.Close()
			t.Fatal("a device was opened through /dev/net/tun, which this user may not open")
		}
		if !strings.Contains(err.Error(), "/dev/net/tun") {
			t.Errorf("the error does not say what may not be opened: %v", err)
		}
		return nil, nil, false
	}
	q, err := iface.OpenTUN("test%d", mtu)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	// The host's own messages (IPv6 router solicitations) would disturb.
	disable := fmt.Sprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", q.Name())
	writeFile(t, disable, "1")
	b := make([]iface.Frame, iface.BatchSize)
	for n := 1; n > 0; n, _ = q.Read(b) {
	}
	link, err := netlink.LinkByName(q.Name())
	if err != nil {
		t.Fatal(err)
	}
	return q, link, true
}
