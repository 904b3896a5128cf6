// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// full is a snapshot in which each metric has a value.
func full() *Snapshot {
	key := Key{Proto: "tcp", Service: "192.168.88.23:80"}
	server := key
	server.Server = "10.0.0.2:80"
	idle := server
	idle.Server = "10.0.0.3:80"
	one := map[string]float64{"x": 1}
	return &Snapshot{
		Reloaded: time.Unix(1_700_000_000, 0), Version: "v1", IO: "packet", Guard: "nft", Events: one, Packets: one, Drops: one, Suppressed: one, Classes: one, States: one, Removals: one,
		Services: []Service{{Key: key, Counters: Counters{1, 2, 3, 4, 5}, Scheduler: "rr", Servers: []Server{
			{Key: server, Weight: 1, Active: 7, Checked: true, Up: true, Handshake: Histogram{Bounds: []float64{1}, Counts: []uint64{4, 1}, Sum: 3}}, {Key: idle, Weight: 0},
		}}},
		Checks: []Check{{Server: "10.0.0.2:80", Name: "http", Up: true, Good: 3, Latency: 0.5}},
		Rules:  []SNATRule{{"10.0.0.0/24", "192.168.88.23", 64512}}, Pools: []Pool{{"192.168.88.23", 3}},
		Latency: Histogram{Bounds: []float64{1, 2}, Counts: []uint64{5, 3, 2}, Sum: 20},
		Shards:  []Shard{{Name: "0", Received: 1, Sent: 2, Given: 4, Taken: 5, Conns: 3}}, Links: []Link{{Name: "eth0", Up: true, Serving: true, KernelDrops: 9}},
	}
}

func write(t *testing.T, s *Snapshot) string {
	t.Helper()
	var b bytes.Buffer
	if err := New(func(context.Context) (*Snapshot, error) { return s, nil }).Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Values stand where they belong; buckets hold what is below them.
func TestValues(t *testing.T) {
	s := full()
	s.Services[0].Servers = s.Services[0].Servers[:1]
	text := write(t, s)
	for _, want := range []string{
		`vsnat_service_connections_total{proto="tcp",service="192.168.88.23:80"} 1`,
		`vsnat_service_packets_total{direction="in",proto="tcp",service="192.168.88.23:80"} 2`,
		`vsnat_service_packets_total{direction="out",proto="tcp",service="192.168.88.23:80"} 3`,
		`vsnat_service_bytes_total{direction="out",proto="tcp",service="192.168.88.23:80"} 5`,
		`vsnat_service_servers{proto="tcp",service="192.168.88.23:80",state="available"} 1`,
		`vsnat_server_connections{proto="tcp",server="10.0.0.2:80",service="192.168.88.23:80",state="active"} 7`,
		`vsnat_server_up{proto="tcp",server="10.0.0.2:80",service="192.168.88.23:80"} 1`,
		`vsnat_server_handshake_seconds_bucket{proto="tcp",server="10.0.0.2:80",service="192.168.88.23:80",le="+Inf"} 5`,
		`vsnat_check_results_total{check="http",outcome="good",server="10.0.0.2:80"} 3`,
		`vsnat_snat_ports{from="10.0.0.0/24",to="192.168.88.23"} 64512`,
		`vsnat_link_kernel_drops_total{link="eth0"} 9`,
		`vsnat_forwarding_seconds_bucket{le="1"} 5`,
		`vsnat_forwarding_seconds_bucket{le="2"} 8`,
		`vsnat_forwarding_seconds_bucket{le="+Inf"} 10`,
		`vsnat_forwarding_seconds_sum 20`,
		`vsnat_forwarding_seconds_count 10`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, of := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(text, "\n"+of+" ") {
			t.Errorf("no %s", of)
		}
	}
}

// Every family has values in a full snapshot, a name as the house has it, and a
// sentence of help.
func TestFamilies(t *testing.T) {
	s := full()
	seen := make(map[string]bool)
	for _, f := range families() {
		n := 0
		f.collect(s, func(_ float64, labels ...string) {
			n++
			if len(labels) != len(f.labels) {
				t.Errorf("%s: labels %q for %q", f.name, labels, f.labels)
			}
		})
		switch {
		case n == 0:
			t.Errorf("%s has no value in a full snapshot", f.name)
		case seen[f.name]:
			t.Errorf("%s is there twice", f.name)
		case !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(f.name), (f.kind == counter) != strings.HasSuffix(f.name, "_total"):
			t.Errorf("%s is not a name for a metric of kind %v", f.name, f.kind)
		case !regexp.MustCompile(`^[A-Z].*\.$`).MatchString(f.help) && !strings.HasSuffix(f.help, "value is 1."):
			t.Errorf("%s: help %q is no sentence", f.name, f.help)
		}
		seen[f.name] = true
	}
	if len(seen) < 40 {
		t.Errorf("only %d families", len(seen))
	}
}

// Nothing in a snapshot is forgotten: each field that is set changes what is written.
func TestEveryFieldIsShown(t *testing.T) {
	filled := write(t, full())
	empty := reflect.ValueOf(full()).Elem()
	for i := range empty.NumField() {
		s := full()
		field := reflect.ValueOf(s).Elem().Field(i)
		name := empty.Type().Field(i).Name
		if field.IsZero() { // set it instead
			switch field.Kind() {
			case reflect.Bool:
				field.SetBool(true)
			case reflect.Int, reflect.Int64:
				field.SetInt(77)
			case reflect.Float64:
				field.SetFloat(77)
			case reflect.Struct:
				fill(field)
			}
		} else {
			field.SetZero()
			if name == "Latency" {
				s.Latency = Histogram{Counts: []uint64{0}}
			}
		}
		if ours(write(t, s)) == ours(filled) {
			t.Errorf("%s is not shown", name)
		}
	}
}

// fill sets the numbers of a struct.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Uint64:
			f.SetUint(77)
		case reflect.Int:
			f.SetInt(77)
		}
	}
}

// ours is the part of the text that is about the director.
func ours(text string) string {
	var list []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			list = append(list, line)
		}
	}
	return strings.Join(list, "")
}

// FAULTS 127: names that command terminals, end lines or are no text at all are
// harmless, and are read back by another reader of the format.
func TestHostileLabels(t *testing.T) {
	s := full()
	s.Links = []Link{{Name: "\x1b]0;owned\a\"\\\nvsnat_problems 7\n"}, {Name: "\xff\xfe"}, {Name: "\u202eeth"}, {Name: `\xff\xfe`}}
	text := write(t, s)
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r == 0x7f || r == '\u202e' || r == '\ufffd') }); i >= 0 {
		t.Errorf("at %d: %q", i, text[max(0, i-40):i+20])
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range parsed["vsnat_link_up"].Metric {
		names = append(names, m.Label[0].GetValue())
	}
	slices.Sort(names)
	if want := `["\\\\xff\\\\xfe" "\\u202eeth" "\\x1b]0;owned\\a\\\"\\\\\\nvsnat_problems 7\\n" "\\xff\\xfe"]`; fmt.Sprintf("%q", names) != want {
		t.Errorf("links %q, want %s", names, want)
	}
	if v := parsed["vsnat_problems"].Metric; len(v) != 1 || v[0].Gauge.GetValue() != 0 {
		t.Errorf("problems %v", v)
	}
}

// However much is configured, the answer is bounded, and says what it leaves out.
func TestBounds(t *testing.T) {
	s := full()
	s.Services = nil
	for i := range MaxServices + 7 {
		v := Service{Key: Key{"tcp", fmt.Sprint(i), ""}}
		for k := range 10 {
			v.Servers = append(v.Servers, Server{Key: Key{"tcp", fmt.Sprint(i), fmt.Sprint(k)}})
		}
		s.Services = append(s.Services, v)
	}
	text := write(t, s)
	for _, row := range []struct {
		line string
		n    int
	}{
		{"\nvsnat_service_connections_total{", MaxServices}, {"\nvsnat_server_weight{", MaxServers},
		{"\nvsnat_metrics_left_out{what=\"services\"} 7\n", 1},
		{fmt.Sprintf("\nvsnat_metrics_left_out{what=\"servers\"} %d\n", 10*(MaxServices+7)-MaxServers), 1},
	} {
		if n := strings.Count(text, row.line); n != row.n {
			t.Errorf("%q is there %d times, want %d", row.line, n, row.n)
		}
	}
}

// If there is no snapshot, nothing is written; and no more than a few are made at a
// time.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	e := New(func(context.Context) (*Snapshot, error) { return nil, broken })
	var b bytes.Buffer
	if err := e.Write(t.Context(), &b); err != broken || b.Len() != 0 {
		t.Errorf("%v, %d bytes", err, b.Len())
	}
	for range maxScrapes {
		e.places <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Write(ctx, &b); err != context.Canceled {
		t.Errorf("with all places taken: %v", err)
	}
}
