// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// query makes a frame of a querier; code is the delay as it stands in the message.
func query(source, group string, code uint16, old bool) []byte {
	message := make([]byte, mldV2Size)
	if old {
		message = message[:mldV1Size]
	}
	message[0] = mldQuery
	binary.BigEndian.PutUint16(message[4:], code)
	to := netip.MustParseAddr(group)
	put(message[8:], to)
	if to.IsUnspecified() {
		to = allNodes()
	}
	return buildMLD(station(50), netip.MustParseAddr(source), to, message)
}

// resumMLD puts the checksum of a message right after it was harmed.
func resumMLD(b []byte) []byte {
	ip := b[ethernetHeader:]
	b[mldAt+2], b[mldAt+3] = 0, 0
	binary.BigEndian.PutUint16(b[mldAt+2:], ^fold(sumMLD(ip, b[mldAt:])))
	return b
}

func TestParseQuery(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		want  listenerQuery
	}{
		"of all":          {query("fe80::50", "::", 10_000, false), listenerQuery{netip.IPv6Unspecified(), 10 * time.Second, false}},
		"of a group":      {query("fe80::50", "ff02::1:ff00:100", 1000, false), listenerQuery{netip.MustParseAddr("ff02::1:ff00:100"), time.Second, false}},
		"version 1":       {query("fe80::50", "::", 0xffff, true), listenerQuery{netip.IPv6Unspecified(), 65535 * time.Millisecond, true}},
		"a longest delay": {query("fe80::50", "::", 0xffff, false), listenerQuery{netip.IPv6Unspecified(), 0x1fff << 10 * time.Millisecond, false}},
		"a long delay":    {query("fe80::50", "::", 0x8001, false), listenerQuery{netip.IPv6Unspecified(), 0x1001 << 3 * time.Millisecond, false}},
		"padded":          {append(query("fe80::50", "::", 1, false), 0, 0, 0), listenerQuery{netip.IPv6Unspecified(), time.Millisecond, false}},
	} {
		if got, ok := parseQuery(c.frame); !ok || got != c.want {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
	}
	good := query("fe80::50", "::", 1, false)
	for name, harm := range map[string]func(b []byte) []byte{
		"beyond the link":     func(b []byte) []byte { b[ethernetHeader+7] = 2; return b },
		"from a global":       func([]byte) []byte { return query("2001:db8::50", "::", 1, false) },
		"from nobody":         func([]byte) []byte { return query("::", "::", 1, false) },
		"without the alert":   func(b []byte) []byte { b[ethernetHeader+42] = 1; return b },
		"wrong checksum":      func(b []byte) []byte { b[mldAt+2]++; return b },
		"code":                func(b []byte) []byte { b[mldAt+1] = 1; return resumMLD(b) },
		"of a station":        func([]byte) []byte { return query("fe80::50", "2001:db8::1", 1, false) },
		"cut":                 func(b []byte) []byte { return b[:len(b)-1] },
		"shorter than itself": func(b []byte) []byte { b[ethernetHeader+5] = 8 + mldV1Size - 1; return b },
		"of no version":       func(b []byte) []byte { b[ethernetHeader+5]--; return resumMLD(b[:len(b)-1]) },
		"a report":            func(b []byte) []byte { b[mldAt] = mldReportV1; return resumMLD(b) },
	} {
		if q, ok := parseQuery(harm(slices.Clone(good))); ok {
			t.Errorf("%s: taken for %+v", name, q)
		}
	}
}

// An independent decoder reads what we say, and its checksum is right.
func TestReportsAreDecoded(t *testing.T) {
	var records []listenerRecord
	group := netip.MustParseAddr("ff02::1:ff00:0")
	for range mldRecords + 1 {
		records = append(records, listenerRecord{mldBegins, group})
		group = group.Next()
	}
	frames := buildReports(station(1), netip.MustParseAddr("fe80::1"), records)
	if len(frames) != 2 || len(frames[0]) > ethernetHeader+1280 {
		t.Fatalf("%d frames, the first of %d bytes", len(frames), len(frames[0]))
	}
	for i, want := range []int{mldRecords, 1} {
		p := gopacket.NewPacket(frames[i], layers.LayerTypeEthernet, gopacket.Default)
		report, ok := p.Layer(layers.LayerTypeMLDv2MulticastListenerReport).(*layers.MLDv2MulticastListenerReportMessage)
		if !ok || len(report.MulticastAddressRecords) != want {
			t.Fatalf("frame %d: %v", i, p)
		}
		if r := report.MulticastAddressRecords[0]; r.RecordType != layers.MLDv2MulticastAddressRecordTypeChangeToExcludeMode ||
			!r.MulticastAddress.Equal(records[i*mldRecords].group.AsSlice()) {
			t.Errorf("frame %d: record %+v", i, r)
		}
		ip := p.NetworkLayer().(*layers.IPv6)
		if ip.HopLimit != 1 || ip.SrcIP.String() != "fe80::1" || ip.DstIP.String() != "ff02::16" || ip.HopByHop == nil {
			t.Errorf("frame %d: %v", i, p)
		}
		if sum := fold(sumMLD(frames[i][ethernetHeader:], frames[i][mldAt:])); sum != 0xffff {
			t.Errorf("frame %d: checksum off: %#x", i, sum)
		}
	}
	for kind, want := range map[byte]string{
		mldBegins:  "3333ff000100" + "020000000001" + "86dd" + "6000000000200001" + "fe800000000000000000000000000001" + "ff0200000000000000000001ff000100" + "3a00050200000100" + "83",
		mldStopped: "333300000002" + "020000000001" + "86dd" + "6000000000200001" + "fe800000000000000000000000000001" + "ff020000000000000000000000000002" + "3a00050200000100" + "84",
	} {
		b := buildOldReport(station(1), netip.MustParseAddr("fe80::1"), listenerRecord{kind, netip.MustParseAddr("ff02::1:ff00:100")})
		if got := hex.EncodeToString(b[:mldAt+1]); got != want {
			t.Errorf("version 1:\n got %s\nwant %s", got, want)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add(query("fe80::50", "::", 1000, false))
	f.Add(query("fe80::50", "ff02::1:ff00:1", 0xffff, true))
	f.Add(query("fe80::50", "::", 1000, false)[:mldAt+2])
	f.Fuzz(func(t *testing.T, frame []byte) {
		if n := ethernetHeader + ipv6Header; len(frame) > mldAt+4 {
			binary.BigEndian.PutUint16(frame[ethernetHeader+4:], uint16(len(frame)-n))
			resumMLD(frame)
		}
		q, ok := parseQuery(frame)
		if !ok {
			return
		}
		if !IsMLD(frame) || frame[ethernetHeader+7] != 1 || q.delay < 0 || q.delay > 3*time.Hour {
			t.Fatalf("taken for %+v: %x", q, frame)
		}
		w := newWire6(t)
		w.n.SetOwned([]netip.Addr{netip.MustParseAddr("2001:db8::1:100")})
		w.n.Input(w.now, 1, frame, w.send)
		if len(w.sent) != 0 {
			t.Fatal("answered at once")
		}
	})
}
