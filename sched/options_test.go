// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"errors"
	"testing"
)

func TestParseFlags(t *testing.T) {
	for _, test := range []struct {
		scheduler, text string
		want            Flags
		listed          string // "": as given; "!": an error
	}{
		{"sh", "", 0, ""},
		{"sh", "sh-fallback", Fallback, ""},
		{"sh", "sh-fallback,sh-port", Fallback | UsePort, ""},
		{"sh", "sh-port,sh-fallback", Fallback | UsePort, "sh-fallback,sh-port"},
		{"mh", "mh-port,mh-fallback", Fallback | UsePort, "mh-fallback,mh-port"},
		{"rr", "flag-1,flag-3", Fallback | Flag3, ""},
		{"sh", "flag-1,flag-3", Fallback | Flag3, "sh-fallback,flag-3"},
		{"mh", "flag-2", UsePort, "mh-port"},
		{"rr", "sh-fallback", 0, "!"},
		{"sh", "mh-port", 0, "!"},
		{"sh", "sh-port,", 0, "!"},
		{"sh", "flag-4", 0, "!"},
	} {
		got, err := ParseFlags(test.scheduler, test.text)
		if test.listed == "!" {
			if !errors.Is(err, ErrFlag) {
				t.Errorf("%s %q: %v, %v; want an error", test.scheduler, test.text, got, err)
			}
			continue
		}
		want := test.listed
		if want == "" {
			want = test.text
		}
		if err != nil || got != test.want || got.Format(test.scheduler) != want {
			t.Errorf("%s %q: %03b %q, %v; want %03b %q", test.scheduler, test.text, got, got.Format(test.scheduler), err, test.want, want)
		}
	}
}

// Options outlive a change of the scheduler, and the tables outlive a change of
// options.
func TestOptionsStay(t *testing.T) {
	p, _ := NewPool("rr")
	p.SetOptions(Options{Flags: Fallback})
	for _, name := range []string{"sh", "mh"} {
		if err := p.SetScheduler(name); err != nil {
			t.Fatal(err)
		}
		for i, w := range []int{0, 0, 1} {
			s := testServer(byte(2+i), w)
			p.Add(s)
			defer p.Remove(s)
		}
		for client := range uint32(50) {
			if p.Schedule(clientRequest(client)) == nil {
				t.Fatalf("%s: refused, though it was to fall back", name)
			}
		}
	}
	if err := p.SetScheduler("lblc"); err != nil {
		t.Fatal(err)
	}
	p.Schedule(destinationRequest(1, 0))
	p.SetOptions(Options{Flags: UsePort})
	if err := p.SetScheduler("lblc"); err != nil {
		t.Fatal(err)
	}
	if n := p.scheduler.(*localLeastConn).table.len; n != 1 {
		t.Errorf("%d destinations after an edit, want 1", n)
	}
}
