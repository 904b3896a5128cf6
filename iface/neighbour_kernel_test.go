// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

// station6 is a Neighbours on a packet socket, on a link where the host itself
// has no IPv6, and a host on the other end.
type station6 struct {
	t     *testing.T
	n     *iface.Neighbours
	queue iface.Queue
	there *ifacetest.Namespace
	ready *iface.Poller
	begun time.Time
	said  []string
}

func (s *station6) now() iface.Time { return iface.Time(time.Hour + time.Since(s.begun)) }

func newStation6(t *testing.T, owned string) *station6 {
	t.Helper()
	s := &station6{t: t, there: ifacetest.NewNamespace(t), ready: newPoller(t), begun: time.Now()}
	link := ifacetest.NewCable(t, "near", s.there, "eth0")
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/near/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	port := portOf(link)
	s.queue = open(t, link, iface.PacketOptions{Filter: iface.Filter{Ours: addresses(owned)}})
	if err := s.ready.Add(s.queue.FD(), 1); err != nil {
		t.Fatal(err)
	}
	s.n = iface.NewNeighbours(iface.NeighbourConfig{
		Conflict: func(_ int, addr netip.Addr, _ [6]byte) { s.said = append(s.said, addr.String()) },
		Taken:    func(_ int, addr netip.Addr, _ [6]byte) { s.said = append(s.said, "taken "+addr.String()) },
		Claimed:  func(_ int, addr netip.Addr) { s.said = append(s.said, "claimed "+addr.String()) },
	})
	s.n.SetPorts([]iface.NeighbourPort{{Port: 1, MAC: port.MAC}})
	s.n.SetOwned(addresses(owned))
	return s
}

func (s *station6) send(_ int, frame []byte, off iface.Offload) {
	if n, err := s.queue.Write([]iface.Frame{{Data: frame, Offload: off}}); n != 1 {
		s.t.Errorf("write: %v", err)
	}
}

// until gives what arrives to Neighbours until done says so; it is also asked
// between frames, with none.
func (s *station6) until(what string, done func(frame []byte) bool) {
	s.t.Helper()
	b := make([]iface.Frame, iface.BatchSize)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		wait(s.t, s.ready, 50*time.Millisecond)
		s.n.Tick(s.now(), s.send, func(int, []byte) {}) // the kernel may not have begun to use its address
		n, err := s.queue.Read(b)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range b[:n] {
			if iface.IsND(f.Data) || iface.IsMLD(f.Data) {
				s.n.Input(s.now(), 1, f.Data, s.send)
			}
			if done(f.Data) {
				return
			}
		}
		if done(nil) {
			return
		}
	}
	s.t.Fatalf("%s: never", what)
}

func (s *station6) address(text string, flags int) {
	s.t.Helper()
	link, err := s.there.Handle.LinkByName("eth0")
	if err != nil {
		s.t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		s.t.Fatal(err)
	}
	addr.Flags = flags
	if err := s.there.Handle.AddrAdd(link, addr); err != nil {
		s.t.Fatal(err)
	}
	// It is not heard of before the kernel listens where it is asked for, which it begins
	// to do some time later.
	ip := addr.IP.To16()
	group := fmt.Sprintf("ff0200000000000000000001ff%x", []byte(ip[13:]))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var groups []byte
		err := s.there.Do(func() (err error) { groups, err = os.ReadFile("/proc/thread-self/net/igmp6"); return err })
		if err != nil || time.Now().After(deadline) {
			s.t.Fatalf("%s is not listened for: %v\n%s", text, err, groups)
		}
		if bytes.Contains(groups, []byte(group)) {
			return
		}
	}
}

// The kernel finds an owned address, and is found itself.
func TestNeighboursWithTheKernel(t *testing.T) {
	s := newStation6(t, "2001:db8::100")
	s.address("2001:db8::2/64", unix.IFA_F_NODAD)
	err := s.there.Do(func() error { return sendDatagram("[2001:db8::2]:4000", "[2001:db8::100]:9") })
	if err != nil {
		t.Fatal(err)
	}
	s.until("a datagram to the owned address", func(frame []byte) bool {
		return len(frame) > 54 && frame[20] == udp && frame[38+15] == 0 // to the address that ends with 0, behind our answer
	})

	far, err := s.there.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddr("2001:db8::2")
	if got := s.n.Resolve(s.now(), 1, at, make([]byte, 60), iface.Offload{}, s.send); got != iface.ResolveQueued && got != iface.ResolveKnown {
		t.Fatalf("resolve: %d", got)
	}
	if mac, ok := s.n.Lookup(s.now(), 1, at); !ok {
		s.until("an answer of the kernel", func([]byte) bool {
			_, ok := s.n.Lookup(s.now(), 1, at)
			return ok
		})
	} else if string(mac[:]) != string(far.Attrs().HardwareAddr) {
		t.Errorf("the kernel is at %x", mac)
	}
	// One that it never spoke of is asked for.
	s.address("2001:db8::3/64", unix.IFA_F_NODAD)
	at = netip.MustParseAddr("2001:db8::3")
	if got := s.n.Resolve(s.now(), 1, at, make([]byte, 60), iface.Offload{}, s.send); got != iface.ResolveQueued {
		t.Fatalf("resolve: %d", got)
	}
	s.until("an answer of the kernel", func([]byte) bool {
		mac, ok := s.n.Lookup(s.now(), 1, at)
		return ok && string(mac[:]) == string(far.Attrs().HardwareAddr)
	})
}

// later has it be later for Neighbours: what is due by then is done.
func (s *station6) later(d time.Duration) {
	s.n.Tick(s.now(), s.send, func(int, []byte) {})
	s.begun = s.begun.Add(-d)
	s.n.Tick(s.now(), s.send, func(int, []byte) {})
}

// An address that the kernel on the other end has is not claimed, until it has it
// no more.
func TestNeighboursLeaveWhatTheKernelHas(t *testing.T) {
	s := newStation6(t, "2001:db8::100")
	s.address("2001:db8::100/64", unix.IFA_F_NODAD)
	s.until("the kernel says that it has it", func([]byte) bool { return len(s.said) > 0 })
	if taken := s.n.Taken(); len(taken) != 1 || s.said[0] != "taken 2001:db8::100" {
		t.Fatalf("taken %v, said %q", taken, s.said)
	}
	link, err := s.there.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.there.Handle.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("2001:db8::100"), Mask: net.CIDRMask(64, 128)}}); err != nil {
		t.Fatal(err)
	}
	s.later(20 * time.Second) // asked again
	s.later(2 * time.Second)
	if len(s.n.Taken()) != 0 || len(s.said) != 2 || s.said[1] != "claimed 2001:db8::100" {
		t.Errorf("taken %v, said %q", s.n.Taken(), s.said)
	}
}

// A host that wants to take an owned address learns that it is taken.
func TestNeighboursRefuseADuplicate(t *testing.T) {
	s := newStation6(t, "2001:db8::100")
	s.later(2 * time.Second)
	s.address("2001:db8::100/64", 0)
	failed := func() bool {
		link, err := s.there.Handle.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.there.Handle.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if a.IP.Equal(net.ParseIP("2001:db8::100")) {
				return a.Flags&unix.IFA_F_DADFAILED != 0
			}
		}
		t.Fatal(errors.New("the address is not there"))
		return false
	}
	s.until("duplicate address detection", func([]byte) bool { return failed() })
	if len(s.said) != 1 || s.said[0] != "2001:db8::100" {
		t.Errorf("reported %q", s.said)
	}
}
