// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// written is what Save writes.
type written []struct {
	kind RecordKind
	body []byte
}

func writeDown(t *testing.T, forwarders []*Forwarder, now conntrack.Time) (list written) {
	t.Helper()
	err := Save(forwarders, now, func(k RecordKind, body []byte) error {
		if len(body) > MaxRecord {
			t.Fatalf("a record of %d bytes", len(body))
		}
		list = append(list, struct {
			kind RecordKind
			body []byte
		}{k, bytes.Clone(body)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// handOver has the Forwarders of a script forget all connections, as a process does that
// ends, and learn of them again from what was written down.
func (s *script) handOver() {
	s.t.Helper()
	s.all().begin(s.now)
	list := writeDown(s.t, s.crew, s.now)
	before := connsOf(s.crew)
	active := s.servers()
	for _, f := range s.crew {
		removals := f.counters.removals
		for f.table.Len() > 0 {
			for i := range f.table.Extent() {
				if c := f.table.At(i); c != nil {
					f.table.Remove(c, conntrack.Deleted)
				}
			}
		}
		f.counters.removals = removals
	}
	if n := s.crew[0].mapper.used; n != 0 {
		s.fatal("%d mappings are left", n)
	}
	r := NewRestoration(s.crew, 0)
	for _, one := range list {
		r.Take(one.kind, one.body)
	}
	if r.Lost != [NumLosses]int{} {
		s.fatal("not restored: %v", r.Lost)
	}
	if after := connsOf(s.crew); !slices.Equal(before, after) {
		s.fatal("there were\n    %s\nand are\n    %s", strings.Join(before, "\n    "), strings.Join(after, "\n    "))
	}
	if after := s.servers(); !slices.Equal(active, after) {
		s.fatal("servers had\n    %v\nand have\n    %v", active, after)
	}
}

// connsOf are all connections in words, with all that a record has.
func connsOf(c crew) (list []string) {
	for _, f := range c {
		for i := range f.table.Extent() {
			if c := f.table.At(i); c != nil && !c.Retired() {
				r := c.Record(f.now)
				r.Rule = min(r.Rule, 1)
				list = append(list, fmt.Sprintf("%v %v %x", c, r.Left, r.Append(nil)))
			}
		}
	}
	slices.Sort(list)
	return list
}

// servers are the counts that schedulers go by.
func (s *script) servers() (list [][4]int) {
	for _, d := range s.rules.servers.all {
		if d != nil && !d.gone {
			overloaded := 0
			if d.sched.Overloaded() {
				overloaded = 1
			}
			list = append(list, [4]int{d.sched.Active(), d.sched.Inactive(), d.sched.Templates(), overloaded})
		}
	}
	return list
}

// unlike are scripts that a restart before each packet would change, and why.
var unlike = map[string]string{
	"drain": retiredGo,

	"ftp-life": deletedGo, "fullnat": deletedGo, "marks-overlap": deletedGo, "ipv6-marks": deletedGo, "persist-deleted": deletedGo,
	"removal": deletedGo, "sctp-ends": deletedGo, "server-down-keep": deletedGo, "server-down-repick": deletedGo, "server-down-reset": deletedGo,

	"marks-ports": ruleGone, "snat-classes": ruleGone, "snat-deleted": ruleGone, "snat-deleted-on-host": ruleGone, "snat-ports": ruleGone,
	"ftp-ports":   "a service is added at the port of what goes on",
	"route-mixed": otherMethod, "tunnel-kinds": otherMethod,
}

const (
	deletedGo   = "a server is deleted, whose connections go on"
	ruleGone    = "a rule is deleted, whose connections go on"
	otherMethod = "a server gets its packets in another way, and what it has goes on as it began"
	retiredGo   = "a template has retired, and still counts"
)

// The packets of all scripts fare the same when before each of them everything that is
// known of connections is written down, forgotten and restored.
func TestScriptsOverRestarts(t *testing.T) {
	files, _ := filepath.Glob("testdata/scripts/*.txt")
	if len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if unlike[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 3} {
				if n > 1 && onOne[name] {
					continue
				}
				s := newScript(t, file)
				s.size, s.restart = n, true
				s.run()
			}
		})
	}
}

// site is a script with a service of each kind and a connection of each.
func site(t *testing.T, n int) *script {
	s := newScript(t, "a site")
	s.size = n
	for _, line := range []string{
		"own 10.0.0.1/24", "snat 10.0.0.0/24 192.168.88.23", "local 10.0.0.1/24",
		"service tcp 192.168.88.23:80 sched rr", "server 10.0.0.2:8080 upper 2",
		"service tcp 192.168.88.23:443 sched rr persistent 60s", "server 10.0.0.3:443",
		"service udp 192.168.88.23:53 sched rr", "server 10.0.0.2:53 method route",
		"service tcp 192.168.88.23:90 sched rr", "server 10.0.0.2:90 nat full", "server 10.0.0.3:90 nat full",
		"service tcp 192.168.88.23:21 sched rr helper ftp", "server 10.0.0.2:21",
	} {
		word, rest, _ := strings.Cut(line, " ")
		s.step(word, rest)
	}
	return s
}

// talk opens connections on a site, and tells how packets of them look.
func talk(s *script) (packets [][2]string) {
	for i := range 8 {
		client := fmt.Sprintf("192.168.88.%d:%d", 30+i, 40000+i)
		s.run1("in tcp " + client + " > 192.168.88.23:90 S seq=1")
		s.run1(fmt.Sprintf("want tcp $l%d > $d%d S", i, i))
		d, l := s.vars[fmt.Sprintf("d%d", i)], s.vars[fmt.Sprintf("l%d", i)]
		s.run1("in tcp " + d + " > " + l + " SA seq=7 ack=2")
		s.run1("want tcp 192.168.88.23:90 > " + client + " SA")
		packets = append(packets,
			[2]string{"tcp " + client + " > 192.168.88.23:90 A seq=2 ack=8", "tcp " + l + " > " + d + " A"},
			[2]string{"tcp " + d + " > " + l + " A seq=8 ack=2", "tcp 192.168.88.23:90 > " + client + " A"})
	}
	for i, server := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		// A hairpin, and SNAT.
		s.run1("in tcp " + server + ":5000 > 192.168.88.23:80 S seq=1")
		s.run1(fmt.Sprintf("want@1 tcp $h%d > 10.0.0.2:8080 S", i))
		h := s.vars[fmt.Sprintf("h%d", i)]
		packets = append(packets, [2]string{"tcp 10.0.0.2:8080 > " + h + " SA seq=7 ack=2", "tcp 192.168.88.23:80 > " + server + ":5000 SA"})
		if i == 1 {
			break // two are all that the server may have
		}
	}
	s.run1("in udp 10.0.0.9:5001 > 203.0.113.9:53 data=1")
	s.run1("want udp 192.168.88.23:5001 > 203.0.113.9:53")
	packets = append(packets, [2]string{"udp 203.0.113.9:53 > 192.168.88.23:5001 data=1", "udp 203.0.113.9:53 > 10.0.0.9:5001"})
	s.run1("in udp 192.168.88.21:5000 > 192.168.88.23:53 data=1")
	s.run1("want@1 udp 192.168.88.21:5000 > 192.168.88.23:53 next=10.0.0.2")
	s.run1("in tcp 192.168.88.22:5000 > 192.168.88.23:443 S seq=1")
	s.run1("want tcp 192.168.88.22:5000 > 10.0.0.3:443 S")
	return packets
}

func (s *script) run1(line string) {
	word, rest, _ := strings.Cut(line, " ")
	s.step(word, strings.TrimSpace(rest))
}

// take restores what was written down.
func (s *script) take(list written, elapsed time.Duration) Restored {
	s.all().begin(s.now)
	r := NewRestoration(s.crew, elapsed)
	for _, one := range list {
		r.Take(one.kind, one.body)
	}
	return r.Restored
}

// Connections go on under other numbers of Forwarders, those of full NAT too, whose local
// ports tell of Forwarders that have none of it.
func TestRestoreOnOthers(t *testing.T) {
	s := site(t, 1)
	packets := talk(s)
	for _, n := range []int{3, 2, 5, 1} {
		list := writeDown(t, s.all(), s.now)
		next := site(t, n)
		next.now = conntrack.Time(time.Minute) // of another process
		if r := next.take(list, 0); r.Conns != 13 || r.Templates != 1 || r.Lost != [NumLosses]int{} {
			t.Fatalf("%d Forwarders: %+v", n, r)
		}
		for _, p := range packets {
			next.run1("in " + p[0])
			next.run1("want " + p[1])
		}
		// No new connection gets what leads to another's.
		for i := range 50 {
			next.run1(fmt.Sprintf("in tcp 192.168.88.%d:%d > 192.168.88.23:90 S seq=1", 30+i%8, 41000+i))
			next.run1("want tcp $l > $d S")
			next.run1("in tcp " + next.vars["d"] + " > " + next.vars["l"] + " SA seq=7 ack=2")
			next.run1(fmt.Sprintf("want tcp 192.168.88.23:90 > 192.168.88.%d:%d SA", 30+i%8, 41000+i))
			delete(next.vars, "l")
			delete(next.vars, "d")
		}
		for _, f := range next.crew {
			for i := range f.table.Extent() {
				if c := f.table.At(i); c != nil && c.Client.Port >= 41000 && c.Client.Port < 41050 {
					f.table.Remove(c, conntrack.Deleted)
				}
			}
		}
		next.recount()
		s = next
	}
}

func (s *script) recount() { recount(s.t, s.rules, s.crew...) }

// What is not as it was is left, and counted by why.
func TestRestoreLeaves(t *testing.T) {
	s := site(t, 1)
	talk(s)
	s.run1("in tcp 192.168.88.21:30110 > 192.168.88.23:21 S seq=999")
	s.run1("want tcp 192.168.88.21:30110 > 10.0.0.2:21 S")
	list := writeDown(t, s.all(), s.now)
	for _, c := range []struct {
		what    string
		change  []string
		elapsed time.Duration
		loss    Loss
		n       int
	}{
		{"time has passed", nil, 61 * time.Second, LossOver, 12},
		{"a service is gone", []string{"delete-service tcp 192.168.88.23:90"}, 0, LossServer, 8},
		{"a server is gone", []string{"of tcp 192.168.88.23:443", "delete-server 10.0.0.3:443"}, 0, LossServer, 2},
		{"its method is another", []string{"of udp 192.168.88.23:53", "edit-server 10.0.0.2:53 method tunnel"}, 0, LossServer, 1},
		{"SNAT has another address", []string{"delete-snat 10.0.0.0/24", "snat 10.0.0.0/24 192.168.88.24"}, 0, LossAddress, 1},
		{"its port is a service's", []string{"service udp 192.168.88.23:5001 sched rr"}, 0, LossPort, 1},
		{"the table is small", []string{"max-conns 20"}, 0, LossFull, 5},
	} {
		next := site(t, 1)
		for _, line := range c.change {
			next.run1(line)
		}
		r := next.take(list, c.elapsed)
		want := [NumLosses]int{}
		want[c.loss] = c.n
		if r.Lost != want || r.Conns+r.Templates+c.n != 15 {
			t.Errorf("%s: %+v, want %d of %q", c.what, r, c.n, c.loss)
		}
		next.recount()
	}

	// A second time everything is there already.
	next := site(t, 3)
	next.take(list, 0)
	before := connsOf(next.crew)
	if r := next.take(list, 0); r.Conns+r.Templates != 0 || r.Lost[LossClash] != 15 {
		t.Errorf("a second time: %+v", r)
	}
	if after := connsOf(next.crew); len(before) != 15 || strings.Join(before, "") != strings.Join(after, "") {
		t.Errorf("there were %d connections and are\n%s", len(before), strings.Join(after, "\n"))
	}
	next.recount()
}

// FuzzRestore: records may say anything; what comes of them can be used and ended, and
// nothing is left.
func FuzzRestore(f *testing.F) {
	f.Add([]byte{byte(RecordLink), 0, 3, 0, 0, 'o'})
	var t testing.T
	seed := site(&t, 1)
	talk(seed)
	var whole []byte
	for _, one := range writeDown(&t, seed.all(), seed.now) {
		b := append([]byte{byte(one.kind), byte(len(one.body) >> 8), byte(len(one.body))}, one.body...)
		whole = append(whole, b...)
		f.Add(bytes.Clone(whole))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := site(t, 2)
		s.all().begin(s.now)
		r := NewRestoration(s.crew, time.Second)
		for len(b) >= 3 {
			n := min(int(b[1])<<8|int(b[2]), len(b)-3)
			r.Take(RecordKind(b[0]), b[3:3+n])
			b = b[3+n:]
		}
		s.recount()
		for _, p := range []string{
			"tcp 192.168.88.30:40000 > 192.168.88.23:90 A seq=2 ack=8", "udp 203.0.113.9:53 > 192.168.88.23:5001 data=1",
			"tcp 10.0.0.2:21 > 192.168.88.21:30111 PA seq=5011 ack=1006 \"227 (10,0,0,2,19,138)\r\n\"",
		} {
			s.arrive("", p)
			s.verdict, s.made, s.madeBy = nil, nil, nil
		}
		s.step("advance", "800h")
		s.step("advance", "1h")
		s.made, s.madeBy = nil, nil
		s.step("entries", "0")
		s.recount()
		if n := s.crew[0].mapper.used; n != 0 {
			t.Errorf("%d mappings are left", n)
		}
		for _, f := range s.crew {
			_ = f.Close() // only memory
		}
	})
}
