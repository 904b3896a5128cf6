// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"
)

// records are one of each kind, as they are written down.
func records() map[string]Record {
	window := [2]Window{
		{End: 0xfffffff0, Ack: 7, Win: 64240, Scale: 7, Flags: WindowSeen | WindowAcked | WindowSYN | WindowScaled},
		{End: 9, Ack: 0x80000000, Win: 1, Flags: WindowSeen | WindowRaw},
	}
	hop := LinkAddr{2, 0, 0, 0, 0, 9}
	four := func(proto uint8, state State, flags Flags, server uint32) Conn {
		return Conn{
			Client: ep("192.0.2.7:40000"), Virtual: ep("10.0.0.1:80"), Dest: ep("10.0.0.2:8080"), Proto: proto, State: state, Flags: flags,
			Server: server, Hop: hop, HopPort: 1, InsidePort: 2,
		}
	}
	six := Conn{
		Client: ep("[2001:db8::7]:40000"), Virtual: ep("[2001:db8::1]:80"), Dest: ep("[fd00::2]:80"), Proto: protoTCP, State: FinWait,
		Flags: FullNAT | Replied, Local: ep("[fd00::1]:5000"), Rule: 1, HopPort: NoPort, InsidePort: NoPort, Window: window,
	}
	masqueraded := four(protoTCP, Established, Replied|Counted|5*heardOne, 3)
	masqueraded.Window = window
	mixed := four(protoTCP, SynRecv, InputOnly|Tunnel, 0)
	mixed.Dest = ep("[fd00::2]:80")
	template := four(protoTCP, Assured, Template, 1)
	template.Client.Port, template.Window[0].End = 0, 360
	marked := four(ProtoMark, None, Template, 1)
	marked.Client.Port, marked.Virtual, marked.Window[0].End = 0, Endpoint{Addr: MarkAddr(7, false)}, 60
	echo := four(1, ICMP, SNAT|Replied, NoSlot)
	echo.Client.Port, echo.Rule = 0, 1
	expected := four(protoTCP, Listen, 0, 1)
	expected.Client.Port, expected.Rule = 0, 1

	return map[string]Record{
		"masqueraded": {Conn: masqueraded, Class: ClassHeld, Left: 15 * time.Minute, Number: 1, Parent: 1 << 31},
		"full NAT":    {Conn: six, Class: ClassHeld, Left: time.Millisecond},
		"tunnel":      {Conn: mixed, Class: ClassHalfOpen, Left: time.Minute},
		"UDP":         {Conn: four(protoUDP, UDP, 0, 0), Class: ClassOneWay, Left: 31 * 24 * time.Hour},
		"one packet":  {Conn: four(protoUDP, UDP, OnePacket, NoSlot), Class: ClassOneWay, Left: time.Second},
		"SNAT":        {Conn: echo, Class: ClassHeld, Left: 30 * time.Second},
		"SCTP":        {Conn: four(protoSCTP, SCTPCookieEchoed, 0, 2), Class: ClassHalfOpen},
		"template":    {Conn: template, Class: ClassTemplate, Left: time.Hour, Number: 2},
		"of a mark":   {Conn: marked, Class: ClassOneWay, Left: time.Hour},
		"expected":    {Conn: expected, Class: ClassOneWay, Left: time.Minute, Parent: 2},
		"control":     {Conn: four(protoTCP, Established, Helped|Replied, 1), Class: ClassHeld, Number: 3},
	}
}

func TestRecord(t *testing.T) {
	for what, r := range records() {
		b := r.Append(nil)
		var got Record
		if err := got.Parse(b); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", what, err, got, r)
		}
		for n := range b {
			if err := got.Parse(b[:n:n]); err == nil {
				t.Errorf("%s: nothing is wrong with its first %d bytes", what, n)
			}
		}
		if err := got.Parse(append(b, "what a later version adds"...)); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s, and more: %v", what, err)
		}
	}
}

// What a version has written all later ones read.
func TestRecordStays(t *testing.T) {
	for what, stored := range map[string]string{
		"masqueraded": "600601030104050" + "00dbba00000000302000000000900010002c00002079c400a00000100500a0000021f90" +
			"fffffff000000007faf0070f" + "0000000980000000000100" + "11" + "0000000180000000",
		"one packet": "00110b01004000000003e8ffffffff02000000000900010002c00002079c400a00000100500a0000021f90",
		"template":   "6006ff020020000036ee800000000102000000000900010002c0000207" + "00000a00000100500a0000021f90" + "0000016800000000000000" + "00" + "000000000000000000000000" + "0000000200000000",
	} {
		b, err := hex.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		var got Record
		if err := got.Parse(b); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if want := records()[what]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v\n     %x", what, got, want, want.Append(nil))
		}
	}
}

func TestRecordRefused(t *testing.T) {
	for _, c := range []struct {
		of, because string
		change      func(r *Record)
	}{
		{"masqueraded", "state", func(r *Record) { r.State = UDP }},
		{"masqueraded", "state", func(r *Record) { r.Proto = 0 }},
		{"masqueraded", "state", func(r *Record) { r.Proto = ProtoMark }},
		{"masqueraded", "class", func(r *Record) { r.Class = 9 }},
		{"masqueraded", "no template", func(r *Record) { r.Class = ClassTemplate }},
		{"masqueraded", "past us", func(r *Record) { r.Flags |= Tunnel }},
		{"masqueraded", "server", func(r *Record) { r.Server = NoSlot }},
		{"masqueraded", "protocol", func(r *Record) { r.Flags |= OnePacket }},
		{"masqueraded", "family", func(r *Record) { r.Virtual = ep("[2001:db8::1]:80") }},
		{"masqueraded", "expected", func(r *Record) { r.Client.Port = 0 }},
		{"full NAT", "past us", func(r *Record) { r.Flags |= InputOnly }},
		{"full NAT", "family", func(r *Record) { r.Local = ep("10.0.0.1:5000") }},
		{"full NAT", "both ways", func(r *Record) { r.Dest, r.Local = r.Client, r.Virtual }},
		{"UDP", "protocol", func(r *Record) { r.Flags |= Helped }},
		{"SNAT", "of no service", func(r *Record) { r.Flags |= InputOnly }},
		{"SNAT", "server", func(r *Record) { r.Server = 1 }},
		{"SCTP", "state", func(r *Record) { r.State = SynRecv }},
		{"template", "template", func(r *Record) { r.Class = ClassHeld }},
		{"template", "template", func(r *Record) { r.Flags |= SNAT }},
		{"template", "state", func(r *Record) { r.State = Established }},
		{"expected", "expected", func(r *Record) { r.State = Established }},
	} {
		r := records()[c.of]
		c.change(&r)
		var got Record
		if err := got.Parse(r.Append(nil)); err == nil || !strings.Contains(err.Error(), c.because) {
			t.Errorf("%s: %+v: %v, want: %s", c.of, r, err, c.because)
		}
	}
}

func TestRestore(t *testing.T) {
	table, err := NewTable(Config{MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	now := Time(time.Hour)
	all := records()
	restore := func(what string, parent *Conn) (*Conn, Insertion) {
		r := all[what]
		return table.Restore(&r, parent, now)
	}
	parent, outcome := restore("template", nil)
	if outcome != Inserted || parent.Class() != ClassTemplate || parent.Deadline != now.Add(time.Hour) || parent.life() != 6*time.Minute {
		t.Fatalf("%v %v: class %v, until %v, life %v", outcome, parent, parent.Class(), parent.Deadline, parent.life())
	}
	c, outcome := restore("masqueraded", parent)
	if outcome != Inserted || c.Class() != ClassHeld || c.Heard() != 5 || table.Parent(c) != parent || parent.Children() != 1 {
		t.Fatalf("%v %v: class %v, heard %d", outcome, c, c.Class(), c.Heard())
	}
	if got, dir := table.Lookup(tuple("10.0.0.2:8080", "192.0.2.7:40000"), DstForeign); got != c || dir != Outbound {
		t.Errorf("its answer finds %v", got)
	}
	if _, outcome := restore("control", nil); outcome != Exists {
		t.Errorf("a second one of the same client: %v", outcome)
	}
	if _, outcome := restore("UDP", nil); outcome != Inserted {
		t.Errorf("UDP: %v", outcome)
	}
	// One slot is left, and a connection that could make room.
	if _, outcome := restore("full NAT", nil); outcome != Full || table.Len() != 3 {
		t.Errorf("two slots where there is one: %v, %d connections", outcome, table.Len())
	}
	for table.Len() > 0 {
		now = now.Add(time.Minute)
		table.Sweep(now, 1000)
	}
	if table.Free() != 4 || table.Counts() != [NumClasses]int{} || table.States() != [NumStates]int{} {
		t.Errorf("of 4 slots %d are free; classes %v, states %v", table.Free(), table.Counts(), table.States())
	}
}

// FuzzRecord: whatever is read as a record is a connection that a table can have, and is
// written down as it was read.
func FuzzRecord(f *testing.F) {
	for _, r := range records() {
		f.Add(r.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Record
		if r.Parse(b) != nil {
			return
		}
		if err := again.Parse(r.Append(nil)); err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%v\n%+v\n%+v", err, r, again)
		}
		table, err := NewTable(Config{MaxConns: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		c, outcome := table.Restore(&r, nil, 1)
		if outcome != Inserted {
			return
		}
		if r := c.Record(1); r.Class != again.Class {
			t.Errorf("of class %v, and was %v", r.Class, again.Class)
		}
		table.Remove(c, Deleted)
		if table.Free() != 2 || table.States() != [NumStates]int{} {
			t.Errorf("%d free slots, %v", table.Free(), table.States())
		}
	})
}
