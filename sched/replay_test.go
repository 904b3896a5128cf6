// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A replay does to a pool what was done to the kernel: it opens connections one
// after the other, closes some, edits servers, and counts as IPVS counts. Servers
// go by the last octet of 10.0.0.x.
type replay struct {
	pool    *Pool
	servers map[int]*Server // also removed ones: IPVS's trash
	listed  map[int]bool
	conns   []*replayConn
}

type replayConn struct {
	on     int
	active bool
}

func newReplay(t *testing.T, scheduler string) *replay {
	t.Helper()
	p, err := NewPool(scheduler)
	if err != nil {
		t.Fatal(err)
	}
	return &replay{pool: p, servers: map[int]*Server{}, listed: map[int]bool{}}
}

func (r *replay) add(n, weight int) {
	s := r.servers[n]
	if s == nil {
		s = NewServer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80), weight)
		r.servers[n] = s
	}
	s.SetWeight(weight)
	s.SetThresholds(0, 0)
	r.pool.Add(s)
	r.listed[n] = true
}

func (r *replay) remove(n int) {
	r.pool.Remove(r.servers[n])
	r.listed[n] = false
}

// open returns the server of a new connection as the recordings name it.
func (r *replay) open() string {
	s := r.pool.Schedule(&Request{Proto: 6})
	if s == nil {
		return "!ECONNREFUSED"
	}
	s.ConnOpened()
	s.ConnActivated()
	n := int(s.Addr.Addr().As4()[3])
	r.conns = append(r.conns, &replayConn{on: n, active: true})
	return strconv.Itoa(n)
}

func (r *replay) close(c *replayConn) {
	if c.active {
		r.servers[c.on].ConnDeactivated()
		c.active = false
	}
}

// closeOn closes the oldest limit active connections on server n (0: on all).
func (r *replay) closeOn(n, limit int) {
	for _, c := range r.conns {
		if limit > 0 && c.active && (n == 0 || c.on == n) {
			r.close(c)
			limit--
		}
	}
}

// expire forgets the closed connections.
func (r *replay) expire() {
	r.conns = slices.DeleteFunc(r.conns, func(c *replayConn) bool {
		if !c.active {
			r.servers[c.on].ConnClosedInactive()
		}
		return !c.active
	})
}

// counters are written as the recordings end: "server:weight:active:inactive".
func (r *replay) counters() string {
	var words []string
	for n := 2; n <= 4; n++ {
		if s := r.servers[n]; r.listed[n] {
			words = append(words, fmt.Sprintf("%d:%d:%d:%d", n, s.Weight(), s.Active(), s.Inactive()))
		}
	}
	return strings.Join(words, " ")
}

// replayLines calls f for each line of a recording whose scheduler exists, and
// reports how many there are of each that does not.
func replayLines(t *testing.T, file string, f func(t *testing.T, line string)) {
	b, err := os.ReadFile(filepath.Join("testdata", "ipvs", file))
	if err != nil {
		t.Fatal(err)
	}
	skipped, played := map[string]int{}, 0
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "1|") || strings.HasPrefix(line, " ") {
			continue
		}
		if missing := missingScheduler(line); missing != "" {
			skipped[missing]++
			continue
		}
		played++
		t.Run(fmt.Sprintf("line %d", i+1), func(t *testing.T) { f(t, line) })
	}
	t.Logf("%s: %d lines replayed; not replayed, by scheduler: %v", file, played, skipped)
}

var schedulerWord = regexp.MustCompile(`\b(rr|wrr|lc|wlc|sed|nq|fo|ovf|sh|dh|mh|lblc|lblcr|twos) -?[-0-9x]|-s (\w+)`)

func missingScheduler(line string) string {
	words := schedulerWord.FindAllStringSubmatch(line, -1)
	if len(words) == 0 {
		return "unreadable: " + line
	}
	for _, w := range words {
		if name := w[1] + w[2]; !slices.Contains(Names(), name) {
			return name
		}
	}
	return ""
}

// weights adds servers from "1,2,-", in the order of "4,2,3".
func (r *replay) weights(weights, order string) {
	w := strings.Split(weights, ",")
	for _, o := range strings.Split(order, ",") {
		n, _ := strconv.Atoi(o)
		if weight, err := strconv.Atoi(w[n-2]); err == nil {
			r.add(n, weight)
		}
	}
}

func TestRecordedSequences(t *testing.T) {
	for _, file := range []string{"03a-sched.txt", "03b-sched.txt", "03c-sched.txt"} {
		replayLines(t, file, func(t *testing.T, line string) {
			setup, rest, _ := strings.Cut(line, " : ")
			want, wantCounters, _ := strings.Cut(rest, "|")
			words := strings.Fields(setup)
			r := newReplay(t, words[0])
			order := "2,3,4"
			if len(words) > 3 {
				order = strings.TrimPrefix(words[3], "order=")
			}
			r.weights(words[1], order)

			var got []string
			for i := range strings.Fields(want) {
				answer := r.open()
				got = append(got, answer)
				if strings.HasPrefix(answer, "!") {
					continue
				}
				newest := r.conns[len(r.conns)-1]
				switch pattern := words[2]; pattern {
				case "hold":
				case "seq":
					r.close(newest)
				case "win5":
					if i >= 5 {
						r.closeOn(0, 1)
					}
				case "skew":
					if newest.on != 2 {
						r.close(newest)
					}
				case "mod3":
					if i%3 == 0 {
						r.close(newest)
					}
				default:
					t.Fatalf("pattern %q", pattern)
				}
			}
			compare(t, line, strings.Join(got, " "), strings.TrimSpace(want))
			compare(t, line, r.counters(), strings.TrimSpace(wantCounters))
		})
	}
}

func TestRecordedEdits(t *testing.T) {
	replayLines(t, "edits.txt", func(t *testing.T, line string) {
		_, rest, _ := strings.Cut(line, " | ")
		setup, rest, _ := strings.Cut(rest, " : ")
		want, wantCounters, _ := strings.Cut(rest, " | ")
		words := strings.Fields(setup)
		r := newReplay(t, words[0])
		r.weights(words[1], "2,3,4")
		compare(t, line, r.script(t, want), want)
		compare(t, line, r.counters(), strings.TrimSpace(wantCounters))
	})
}

func TestRecordedThresholds(t *testing.T) {
	listed := recordedThresholdCounters(t)
	replayLines(t, "thresholds.txt", func(t *testing.T, line string) {
		name, rest, _ := strings.Cut(line, " | ")
		setup, want, _ := strings.Cut(rest, " : ")
		var scheduler string
		var upper, lower int
		if _, err := fmt.Sscanf(setup, "%s -x %d -y %d on .2", &scheduler, &upper, &lower); err != nil {
			t.Fatal(err)
		}
		r := newReplay(t, scheduler)
		r.weights("1,1,1", "2,3,4")
		r.servers[2].SetThresholds(upper, lower)
		compare(t, line, r.script(t, want), want)

		var got []string
		for n := 2; n <= 4; n++ {
			u, l := r.servers[n].Thresholds()
			got = append(got, fmt.Sprint(u, l, r.servers[n].Active(), r.servers[n].Inactive()))
		}
		compare(t, line, strings.Join(got, ","), strings.Join(listed[name], ","))
	})
}

// recordedThresholdCounters reads the listing below each line: its columns are
// upper, lower, active, inactive.
func recordedThresholdCounters(t *testing.T) map[string][]string {
	b, err := os.ReadFile("testdata/ipvs/thresholds.txt")
	if err != nil {
		t.Fatal(err)
	}
	listed, name := map[string][]string{}, ""
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 7 && f[0] == "1|" {
			listed[name] = append(listed[name], strings.Join(f[3:], " "))
			continue
		}
		name, _, _ = strings.Cut(line, " | ")
	}
	return listed
}

var (
	scriptWord = regexp.MustCompile(`\[[^]]*\]|\S+`)
	option     = regexp.MustCompile(`-([rws]) (\w+)`)
)

// script does what the words say: a number or a refusal is a connection, [ ] a
// command. It returns the words with the answers found.
func (r *replay) script(t *testing.T, script string) string {
	t.Helper()
	var got []string
	for _, word := range scriptWord.FindAllString(script, -1) {
		if !strings.HasPrefix(word, "[") {
			got = append(got, r.open())
			continue
		}
		got = append(got, word)
		r.command(t, strings.Trim(word, "[]"))
	}
	return strings.Join(got, " ")
}

func (r *replay) command(t *testing.T, command string) {
	t.Helper()
	server, weight, scheduler := 0, 1, ""
	for _, o := range option.FindAllStringSubmatch(command, -1) {
		switch o[1] {
		case "r":
			server, _ = strconv.Atoi(o[2])
		case "w":
			weight, _ = strconv.Atoi(o[2])
		case "s":
			scheduler = o[2]
		}
	}
	number := 0
	switch {
	case strings.HasPrefix(command, "-a "):
		r.add(server, weight)
	case strings.HasPrefix(command, "-d "):
		r.remove(server)
	case strings.HasPrefix(command, "-e "):
		r.pool.SetWeight(r.servers[server], weight)
	case strings.HasPrefix(command, "-E "):
		if err := r.pool.SetScheduler(scheduler); err != nil {
			t.Fatal(err)
		}
	case command == "close all":
		r.closeOn(0, len(r.conns))
	case strings.HasPrefix(command, "wait "):
		r.expire()
	default:
		command = strings.Replace(command, "close the ", "close ", 1)
		if n, err := fmt.Sscanf(command, "close %d on .%d", &number, &server); n != 2 {
			t.Fatalf("command %q: %v", command, err)
		}
		r.closeOn(server, number)
	}
}

func compare(t *testing.T, line, got, want string) {
	t.Helper()
	if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("%s\n got %s\nwant %s", line, got, want)
	}
}

// The reference cluster's six requests (12-seed of the recordings).
func TestSeedOrder(t *testing.T) {
	r := newReplay(t, "rr")
	r.weights("1,1,1", "2,3,4")
	compare(t, "seed", r.script(t, "- - - - - -"), "4 3 2 4 3 2")
}
