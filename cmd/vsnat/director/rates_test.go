// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// What the kernel's estimator showed each second, of counters that it shows
// beside. testdata/rate.txt was recorded from ipvsadm on Linux.
func TestRatesAsRecorded(t *testing.T) {
	f, err := os.Open("testdata/rate.txt")
	must(t, err)
	defer f.Close()
	var r rates
	rows := 0
	var before nat.Counters
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") && rows > 0 {
			break // another recording
		}
		var at float64
		var want, server control.Counters
		var now nat.Counters
		n, _ := fmt.Sscanf(line, "t=%f rate: %d %d %d %d %d | server rate: %d %d %d %d %d | stats: %d %d %d %d %d", &at,
			&want.Conns, &want.InPackets, &want.OutPackets, &want.InBytes, &want.OutBytes,
			&server.Conns, &server.InPackets, &server.OutPackets, &server.InBytes, &server.OutBytes,
			&now.Conns, &now.InPackets, &now.OutPackets, &now.InBytes, &now.OutBytes)
		if n != 16 {
			continue
		}
		rows++
		if int(at)%sampleEvery == 0 {
			r.sample(7, now)
		} else if now != before {
			t.Fatalf("t=%v: the counters change between two samples", at)
		}
		before = now
		if got := r.of(7); got != want {
			t.Errorf("t=%v: rate %v, recorded %v", at, got, want)
		}
	}
	if rows != 45 {
		t.Errorf("%d rows read", rows)
	}
}

func TestRatesReset(t *testing.T) {
	var r rates
	r.sample(1, nat.Counters{Conns: 1000})
	r.sample(2, nat.Counters{Conns: 1000})
	r.reset(1)
	if r.of(1) != (control.Counters{}) || r.of(2) == (control.Counters{}) {
		t.Errorf("%v and %v", r.of(1), r.of(2))
	}
	r.sample(1, nat.Counters{Conns: 1000})
	if r.of(1) != (control.Counters{}) {
		t.Errorf("what was counted before is counted again: %v", r.of(1))
	}
	r.sweep()
	r.sample(2, nat.Counters{Conns: 1000})
	r.sweep()
	if r.all[1] != nil || r.all[2] == nil {
		t.Error("sweep kept what was not sampled, or the reverse")
	}
	if r.of(99) != (control.Counters{}) {
		t.Error("a rate of nothing")
	}
}
