// SPDX-License-Identifier: Apache-2.0

package userstack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
	"github.com/vsnat/vsnat/iface/userstack"
)

func TestMain(m *testing.M) { os.Exit(ifacetest.Main(m)) }

const patience = 20 * time.Second

// TestStack: from a host without an address to another one, in both families: TCP
// and UDP, served and refused. Nothing is left at work afterwards.
func TestStack(t *testing.T) {
	ifacetest.InNamespace(t)
	there := ifacetest.NewNamespace(t)
	cable := ifacetest.NewCable(t, "near", there, "far")
	far, err := there.Handle.LinkByName("far")
	must(t, err)

	neighbours := iface.NewNeighbours(iface.NeighbourConfig{})
	start := time.Now()
	stack, err := userstack.New(userstack.Config{
		Neighbours: neighbours, Now: func() iface.Time { return iface.Time(time.Since(start)) }, MinPort: 62000, MaxPort: 62999,
	})
	must(t, err)
	near := iface.Link{Name: "near", Index: cable.Attrs().Index, Ethernet: true, MAC: [6]byte(cable.Attrs().HardwareAddr)}
	neighbours.SetPorts([]iface.NeighbourPort{{Port: 3, MAC: near.MAC}})
	var routes []userstack.Route
	var permanent []iface.PermanentNeighbour
	for _, pair := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00:10::1", "fd00:10::2"}} {
		us, them := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
		introduce(t, there, far, us, them, cable.Attrs().HardwareAddr)
		permanent = append(permanent, iface.PermanentNeighbour{Port: 3, Addr: them, MAC: [6]byte(far.Attrs().HardwareAddr)})
		routes = append(routes, userstack.Route{To: them, Source: us, Link: near, Port: 3, NextHop: them})
	}
	neighbours.SetPermanent(permanent)
	must(t, stack.SetRoutes(routes))
	serve(t, there)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, r := range routes {
		for _, network := range []string{"tcp", "udp"} {
			name := network + " " + r.To.String()
			conn, err := stack.DialContext(ctx, network, netip.AddrPortFrom(r.To, 7).String())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			from, err := netip.ParseAddrPort(conn.LocalAddr().String())
			if err != nil || from.Addr() != r.Source || from.Port() < 62000 || from.Port() > 62999 {
				t.Errorf("%s: it comes from %v", name, conn.LocalAddr())
			}
			fmt.Fprint(conn, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
				t.Errorf("%s: read %q, %v", name, b, err)
			}
			must(t, conn.Close())
		}
		if _, err := stack.DialContext(ctx, "tcp", netip.AddrPortFrom(r.To, 9).String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("tcp %s, nobody there: %v", r.To, err)
		}
		conn, err := stack.DialContext(ctx, "udp", netip.AddrPortFrom(r.To, 9).String())
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		fmt.Fprint(conn, "hello")
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("udp %s, nobody there: %v", r.To, err)
		}
		must(t, conn.Close())
	}

	// Ports come back, although there are more connections than ports.
	for i := range 1500 {
		conn, err := stack.DialContext(ctx, "tcp", netip.AddrPortFrom(routes[0].To, 7).String())
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		must(t, conn.Close())
	}

	// Without a route nothing is tried, and what hangs ends with its context.
	must(t, stack.SetRoutes(routes[1:]))
	if _, err := stack.DialContext(ctx, "tcp", "10.0.0.2:7"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("without a route: %v", err)
	}
	neighbours.SetPermanent(nil)
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := stack.DialContext(short, "tcp", "[fd00:10::2]:7"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
	stack.Close()
	all := make([]byte, 1<<20)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stacks := all[:runtime.Stack(all, true)]
		if !bytes.Contains(stacks, []byte("gvisor.dev/")) && !bytes.Contains(stacks, []byte("userstack.(*")) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("something is at work still:\n%s", stacks)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// introduce gives the other host an address, and tells it whose ours is.
func introduce(t *testing.T, there *ifacetest.Namespace, far netlink.Link, us, them netip.Addr, mac net.HardwareAddr) {
	t.Helper()
	bits := 24
	if them.Is6() {
		bits = 64
	}
	addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", them, bits))
	must(t, err)
	addr.Flags = unix.IFA_F_NODAD
	must(t, there.Handle.AddrAdd(far, addr))
	must(t, there.Handle.NeighSet(&netlink.Neigh{LinkIndex: far.Attrs().Index, IP: us.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}))
}

// serve echoes on the other host at port 7, TCP and UDP.
func serve(t *testing.T, there *ifacetest.Namespace) {
	t.Helper()
	must(t, there.Do(func() error {
		l, err := net.Listen("tcp", ":7")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		c, err := net.ListenPacket("udp", ":7")
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer conn.Close(); io.Copy(conn, conn) }()
			}
		}()
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo(b[:n], from)
			}
		}()
		return nil
	}))
}
