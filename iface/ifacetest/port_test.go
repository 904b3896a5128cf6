// SPDX-License-Identifier: Apache-2.0

package ifacetest_test

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

func TestMain(m *testing.M) { os.Exit(ifacetest.Main(m)) }

var (
	_ iface.Queue      = (*ifacetest.Port)(nil)
	_ ifacetest.TB     = (testing.TB)(nil)
	_ ifacetest.Runner = (*testing.M)(nil)
)

func frame(number byte) []byte {
	p := make([]byte, 60)
	p[0], p[12], p[13], p[59] = 2, 0x08, 0x06, number
	return p
}

func TestPairCarriesFrames(t *testing.T) {
	a, b := ifacetest.NewPair()
	o := iface.Offload{Flags: iface.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 6}
	data := frame(1)
	broadcast := frame(2)
	copy(broadcast, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	multicast := frame(3)
	multicast[0] = 1
	n, err := a.Write([]iface.Frame{{Data: data, Offload: o}, {Data: broadcast}, {Data: multicast}, {}, {Data: data, Truncated: true}})
	if n != 3 || err != nil {
		t.Fatalf("%d sent, %v", n, err)
	}
	data[59] = 99 // the caller's again
	into := make([]iface.Frame, 10)
	n, err = b.Read(into)
	if n != 3 || err != nil {
		t.Fatalf("%d read, %v", n, err)
	}
	for i, want := range []iface.Kind{iface.Host, iface.Broadcast, iface.Multicast} {
		if into[i].Data[59] != byte(i+1) || into[i].Kind != want {
			t.Errorf("frame %d is number %d for %v", i, into[i].Data[59], into[i].Kind)
		}
	}
	if into[0].Offload != o {
		t.Errorf("offload header %+v, want %+v", into[0].Offload, o)
	}
	borrowed := into[0].Data
	if n, err := b.Read(into); n != 0 || err != nil || borrowed[59] != 0 {
		t.Errorf("%d read, %v; a borrowed frame must not outlive the next read", n, err)
	}
	sent := a.Sent()
	if len(sent) != 3 || sent[0].Data[59] != 1 || len(b.Sent()) != 0 {
		t.Errorf("recorded %d frames", len(sent))
	}
	a.ForgetSent()
	if len(a.Sent()) != 0 {
		t.Error("the record was not emptied")
	}
	if s := a.Stats(); s.SentFrames != 3 || s.SendRefused != 2 {
		t.Errorf("counted %+v", s)
	}
}

func TestPortFails(t *testing.T) {
	a, b := ifacetest.NewPair()
	into, out := make([]iface.Frame, 4), []iface.Frame{{Data: frame(1)}}
	a.Inject(frame(7))
	a.Down()
	a.Inject(frame(8)) // lost
	if n, err := a.Read(into); n != 1 || !iface.IsDown(err) {
		t.Errorf("%d read, %v", n, err)
	}
	if n, err := a.Read(into); n != 0 || err != nil {
		t.Errorf("%d read, %v: reported twice", n, err)
	}
	if n, err := a.Write(out); n != 0 || !iface.IsDown(err) {
		t.Errorf("%d sent, %v", n, err)
	}
	a.Up()
	a.Full(1)
	for want := range 2 {
		if n, err := a.Write(out); n != want || err != nil {
			t.Errorf("%d sent, %v", n, err)
		}
	}
	a.Gone()
	for range 2 {
		if _, err := a.Read(into); !iface.IsGone(err) {
			t.Errorf("read: %v", err)
		}
		if _, err := a.Write(out); !iface.IsGone(err) {
			t.Errorf("write: %v", err)
		}
	}
	if s := a.Stats(); s.SendDrops != 4 || s.SentFrames != 1 {
		t.Errorf("counted %+v", s)
	}
	if n, _ := b.Read(into); n != 1 {
		t.Errorf("%d frames arrived", n)
	}
	for range ifacetest.Capacity + 5 {
		b.Inject(frame(1))
	}
	if s := b.Stats(); s.KernelDrops != 5 {
		t.Errorf("counted %+v", s)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Read(into); !errors.Is(err, iface.ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

func TestPortFilters(t *testing.T) {
	a, b := ifacetest.NewNetworkPair()
	packet := func(last byte) []byte {
		p := make([]byte, 20)
		p[0] = 0x45
		copy(p[16:], []byte{192, 0, 2, last})
		return p
	}
	if err := b.SetFilter(iface.Filter{Ours: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}); err != nil {
		t.Fatal(err)
	}
	a.Write([]iface.Frame{{Data: packet(2)}, {Data: packet(1)}})
	into := make([]iface.Frame, 4)
	if n, _ := b.Read(into); n != 1 || into[0].Data[19] != 1 {
		t.Errorf("%d frames passed the filter", n)
	}
}

func TestNamespacesAreApart(t *testing.T) {
	other := ifacetest.NewNamespace(t)
	ifacetest.NewCable(t, "here", other, "there")
	other.SetAddress(t, "there", "192.0.2.1/24")
	if _, err := netlink.LinkByName("there"); err == nil {
		t.Error("the far end is in this namespace")
	}
	if err := other.Do(func() error {
		_, err := netlink.LinkByName("there")
		return err
	}); err != nil {
		t.Errorf("inside: %v", err)
	}
	if err := other.Do(func() error {
		_, err := netlink.LinkByName("here")
		return err
	}); err == nil {
		t.Error("the near end is in the other namespace")
	}
}
