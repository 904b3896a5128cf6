// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// reports returns what was said about groups since the last call, "1 begins
// ff02::1:ff00:100", and forgets everything that was sent.
func (w *wire) reports() string {
	w.t.Helper()
	words := map[layers.MLDv2MulticastAddressRecordType]string{2: "listens", 3: "stopped", 4: "begins"}
	var lines []string
	for _, s := range w.sent {
		p := gopacket.NewPacket(s.frame, layers.LayerTypeEthernet, gopacket.Default)
		if l, ok := p.Layer(layers.LayerTypeMLDv2MulticastListenerReport).(*layers.MLDv2MulticastListenerReportMessage); ok {
			for _, r := range l.MulticastAddressRecords {
				lines = append(lines, fmt.Sprintf("%d %s %v", s.port, words[r.RecordType], r.MulticastAddress))
			}
		}
		if l, ok := p.Layer(layers.LayerTypeMLDv1MulticastListenerReport).(*layers.MLDv1MulticastListenerReportMessage); ok {
			lines = append(lines, fmt.Sprintf("%d old %v", s.port, l.MulticastAddress))
		}
		if l, ok := p.Layer(layers.LayerTypeMLDv1MulticastListenerDone).(*layers.MLDv1MulticastListenerDoneMessage); ok {
			lines = append(lines, fmt.Sprintf("%d done %v", s.port, l.MulticastAddress))
		}
	}
	w.sent = nil
	slices.Sort(lines) // the ports say it when they like
	return strings.Join(lines, "; ")
}

// onePort is a wire with port 1 alone.
func onePort(t testing.TB) *wire {
	w := newWire6(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}}})
	return w
}

func (w *wire) own(addrs ...string) {
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	w.n.SetOwned(list)
}

func TestGroupsAreReported(t *testing.T) {
	w := newWire6(t)
	// Two addresses, one group; IPv4 has none.
	w.own("2001:db8::1:100", "2001:db8:1::1:100", "10.0.0.100")
	w.n.Tick(w.now, w.send, w.failed)
	w.want("before the probe", fmt.Sprint(IsND(w.sent[0].frame)), "false") // RFC 4862, 5.4.2
	w.want("at once, on every port", w.reports(), "1 begins ff02::1:ff01:100; 2 begins ff02::1:ff01:100")
	w.pass(listenInterval)
	w.want("once more", w.reports(), "1 begins ff02::1:ff01:100; 2 begins ff02::1:ff01:100")
	w.pass(time.Minute)
	w.want("no more", w.reports(), "")

	w.own("2001:db8:1::1:100", "2001:db8::200")
	w.pass(2 * time.Second)
	w.want("one came", w.reports(), "1 begins ff02::1:ff00:200; 1 begins ff02::1:ff00:200; 2 begins ff02::1:ff00:200; 2 begins ff02::1:ff00:200")
	w.own("2001:db8::200")
	w.pass(2 * time.Second)
	w.want("one went", w.reports(), "1 stopped ff02::1:ff01:100; 1 stopped ff02::1:ff01:100; 2 stopped ff02::1:ff01:100; 2 stopped ff02::1:ff01:100")
	w.n.Flush(2)
	w.pass(2 * time.Second)
	w.want("a link came back", w.reports(), "2 begins ff02::1:ff00:200; 2 begins ff02::1:ff00:200")

	// Gone and back before that was said.
	w.own()
	w.own("2001:db8::200")
	w.pass(2 * time.Second)
	if got := w.reports(); strings.Contains(got, "stopped") || !strings.Contains(got, "1 begins ff02::1:ff00:200") {
		t.Errorf("gone and back: %s", got)
	}
	if s := w.n.Stats(); s.Reports == 0 {
		t.Errorf("counted %d", s.Reports)
	}
}

func TestQueriesAreAnswered(t *testing.T) {
	w := onePort(t)
	w.owns("2001:db8::100", "2001:db8::200")
	all := "1 listens ff02::1:ff00:100; 1 listens ff02::1:ff00:200"
	ask := func(group string, code uint16) {
		w.n.Input(w.now, 1, query("fe80::50", group, code, false), w.send)
		w.want("not at once", w.reports(), "")
	}
	ask("::", 10_000)
	w.pass(10 * time.Second)
	w.want("of all", w.reports(), all)
	ask("ff02::1:ff00:100", 1000)
	w.pass(time.Second)
	w.want("of one", w.reports(), "1 listens ff02::1:ff00:100")
	ask("ff02::1:ff00:100", 1000)
	ask("ff02::1:ff00:200", 1000)
	w.pass(time.Second)
	w.want("of both", w.reports(), all)
	ask("ff02::1:ff00:999", 1000)
	w.pass(time.Second)
	w.want("of no group of ours", w.reports(), "")

	// However many ask, Tick answers once.
	for range 1000 {
		ask("::", 0)
	}
	w.n.Tick(w.now, w.send, w.failed)
	w.want("a flood of questions", w.reports(), all)
	w.pass(time.Minute)
	w.want("and no more", w.reports(), "")

	harmed := query("fe80::50", "::", 0, false)
	harmed[mldAt+3]++
	w.n.Input(w.now, 1, harmed, w.send)
	w.pass(time.Second)
	w.want("harmed", w.reports(), "")
	if s := w.n.Stats(); s.MalformedMLD != 1 {
		t.Errorf("counted %d", s.MalformedMLD)
	}
}

func TestOldQueriersAreAnsweredInTheirVersion(t *testing.T) {
	w := onePort(t)
	w.owns("2001:db8::100")
	w.n.Input(w.now, 1, query("fe80::50", "::", 100, true), w.send)
	w.pass(time.Second)
	w.want("an answer", w.reports(), "1 old ff02::1:ff00:100")
	w.own("2001:db8::200")
	w.pass(time.Minute)
	got := w.reports()
	for _, want := range []string{"1 done ff02::1:ff00:100", "1 old ff02::1:ff00:200"} {
		if strings.Count(got, want) != listenRepeats {
			t.Errorf("a change: %s, want %q twice", got, want)
		}
	}
	w.pass(oldQuerierTime)
	w.n.Input(w.now, 1, query("fe80::50", "::", 100, false), w.send)
	w.pass(time.Second)
	w.want("when it has gone", w.reports(), "1 listens ff02::1:ff00:200")
}

// Without a link-local address of the host a report is nobody's.
func TestReportsWithoutALinkLocalAddress(t *testing.T) {
	w := newWire6(t)
	w.own("2001:db8::100")
	w.n.Tick(w.now, w.send, w.failed)
	for _, s := range w.sent {
		if source := netip.AddrFrom16([16]byte(s.frame[ethernetHeader+8:])); IsND(s.frame) {
			continue
		} else if want := map[int]string{1: "fe80::1", 2: "::"}[s.port]; source.String() != want {
			t.Errorf("port %d: from %v, want %s", s.port, source, want)
		}
	}
}
