// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/test/lab"
)

// The helpers in the nodes are this binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "client" || os.Args[1] == "server") {
		main()
		return
	}
	os.Exit(lab.MainBuilt(m, "../cmd/vsnat"))
}

// All loads pass through vsnat and through a kernel that only forwards. What it
// took is no matter here.
func TestCompare(t *testing.T) {
	var out, errs bytes.Buffer
	o := compareOptions{rounds: 1, seconds: 0.1, peers: []string{"vsnat", "forward"}, output: "json"}
	rows := 0
	for _, l := range loads {
		if l.program == "" && l.held < 100_000 { // more take too long
			o.loads = append(o.loads, l.name)
			rows += len(l.figures)
		}
	}
	o.svg = t.TempDir() + "/picture.svg"
	if err := compare(t.Context(), o, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var got result
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != rows {
		t.Errorf("%d rows, want %d", len(got.Rows), rows)
	}
	for _, line := range got.Rows {
		for _, name := range o.peers {
			if name == "forward" && (strings.HasPrefix(line.Load, "flows-1k") || line.Unit == "MiB") {
				continue // it holds nothing, and is no process
			}
			if c := line.Peers[name]; c.Median <= 0 || len(c.Values) != 1 {
				t.Errorf("%s of %s: %+v", line.Load, name, c)
			}
		}
	}
	if _, err := os.Stat(o.svg); err != nil {
		t.Error(err)
	}
	if len(got.Notes) > 0 {
		t.Errorf("notes %q", got.Notes)
	}
}

// What README and its picture show is what was measured last, of all loads that need no
// other program.
func TestPage(t *testing.T) {
	r, err := readResults([]string{"compare.json"})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var part strings.Builder
	r.markdown(&part)
	if !strings.Contains(string(page), partBegin+part.String()+partEnd) {
		t.Error("README.md does not show bench/compare.json\nhint: go run ./bench compare --from bench/compare.json --svg bench/compare.svg --page README.md")
	}
	if picture, err := os.ReadFile("compare.svg"); err != nil || string(picture) != r.picture() {
		t.Errorf("compare.svg does not show compare.json (%v)", err)
	}
	var want, got []string
	for _, l := range loads {
		for _, f := range l.figures {
			if l.program == "" {
				want = append(want, l.name+f.name)
			}
		}
	}
	for _, line := range r.Rows {
		if slices.Contains(want, line.Load) {
			got = append(got, line.Load)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("measured were %q, want %q", got, want)
	}
}

// Results of different loads make one page; those of different machines do not.
func TestReadResults(t *testing.T) {
	write := func(r result) string {
		file := filepath.Join(t.TempDir(), "r.json")
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	r := reported(false, map[string][]float64{"vsnat": {20}, "kernel": {10}}).result()
	one := write(r)
	r.Rows[0].Load, r.Notes = "other", []string{"note"}
	two := write(r)
	all, err := readResults([]string{one, two})
	if err != nil || len(all.Rows) != 2 || len(all.Notes) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	r.Machine = "another"
	if _, err := readResults([]string{one, write(r)}); err == nil || !strings.Contains(err.Error(), "was not measured as") {
		t.Errorf("of two machines: %v", err)
	}
	if _, err := readResults(nil); err == nil {
		t.Error("of nothing")
	}
	page := filepath.Join(t.TempDir(), "page.md")
	for text, ok := range map[string]bool{"a\n" + partBegin + "old\n" + partEnd + "b\n": true, "a\n": false} {
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := all.writePart(page)
		got, _ := os.ReadFile(page)
		if ok != (err == nil) || strings.Contains(string(got), "old") || ok && !(strings.HasPrefix(string(got), "a\n"+partBegin) && strings.HasSuffix(string(got), partEnd+"b\n")) {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
}

// Who can't carry a load says why.
func TestRefusals(t *testing.T) {
	table := func(n int) *peer { return &peer{holds: func() int { return n }} }
	for want, of := range map[string]struct {
		p *peer
		l *load
	}{
		"":                            {table(maxConns), flowsHeld("", "", 1_000_000)},
		"TCP alone":                   {&peer{streams: true}, datagramsOf("", "", 1)},
		"it knows of no connections":  {&peer{}, flowsHeld("", "", 1000)},
		"it holds at most 262144":     {table(262144), flowsHeld("", "", 1_000_000)},
		"how many it may hold is not": {table(0), flowsHeld("", "", 1000)},
	} {
		if got := of.p.refuses(of.l); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Mistakes are told before anything is built.
func TestOptions(t *testing.T) {
	good := compareOptions{rounds: 5, seconds: 2, output: "text"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*compareOptions){
		"--rounds 0":  func(o *compareOptions) { o.rounds = 0 },
		"--seconds 0": func(o *compareOptions) { o.seconds = 0 },
		"--output":    func(o *compareOptions) { o.output = "xml" },
		`peer "ipvs"`: func(o *compareOptions) { o.peers = []string{"ipvs"} },
		`load "http"`: func(o *compareOptions) { o.loads = []string{"http"} },
	} {
		o := good
		spoil(&o)
		if err := o.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestMissingPeer(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	old := peers
	defer func() { peers = old }()
	peers = []*peer{{name: "vsnat"}, {name: "other", program: "no-such-program", install: "apt-get install other"}}
	list, missing := choosePeers(nil)
	if len(list) != 1 || list[0].name != "vsnat" || len(missing) != 1 || !strings.Contains(missing[0], "hint: apt-get install other") {
		t.Errorf("%d peers, missing %q", len(list), missing)
	}
}

// reported is a report of three peers with given numbers.
func reported(less bool, values map[string][]float64) *report {
	l := &load{name: "l", figures: []figure{{key: "x", unit: "u", less: less}}}
	var list []*peer
	for _, name := range []string{"vsnat", "kernel", "haproxy", "nginx"} {
		list = append(list, &peer{name: name})
	}
	r := newReport(list, []*load{l}, compareOptions{rounds: 3, seconds: 1})
	for _, p := range list {
		for _, v := range values[p.name] {
			r.note(p, l, sample{figures: map[string]float64{"x": v}, machine: v})
		}
	}
	return r
}

// Ratios are of medians, and to the better of the proxies.
func TestRatios(t *testing.T) {
	values := map[string][]float64{
		"vsnat": {30, 10, 20}, "kernel": {40, 100, 10}, "haproxy": {5, 5, 5}, "nginx": {4, 10, 11},
	}
	for _, less := range []bool{false, true} {
		line := reported(less, values).result().Rows[0]
		proxy := 20.0 / 10
		if less {
			proxy = 20.0 / 5
		}
		if line.ToKernel["vsnat"] != 0.5 || line.ToProxy["vsnat"] != proxy {
			t.Errorf("less %v: %v %v", less, line.ToKernel, line.ToProxy)
		}
		if s := line.Peers["vsnat"].spread(); s != 1 {
			t.Errorf("spread %v", s)
		}
	}
	line := reported(false, map[string][]float64{"vsnat": {1, 2}}).result().Rows[0]
	if line.Peers["vsnat"].Median != 1.5 || len(line.ToKernel) != 0 || len(line.ToProxy) != 0 {
		t.Errorf("alone: %+v", line)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "–", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 0.01234: "0.0123", 51700: "51700"} {
		if got := number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1)*time.Microsecond)
	}
	for q, want := range map[float64]float64{0.5: 501, 0.99: 991, 0.999: 1000, 1: 1000} {
		if got := quantile(sorted, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}

// The picture is well-formed, and longer is better in it.
func TestPicture(t *testing.T) {
	for _, less := range []bool{false, true} {
		values := map[string][]float64{"vsnat": {20}, "kernel": {10}, "haproxy": {5}, "nginx": {2}}
		r := reported(less, values).result()
		text := r.picture()
		d := xml.NewDecoder(strings.NewReader(text))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		want := ">2.00<"
		if less {
			want = ">0.50<"
		}
		if line := regexp.MustCompile(`<line x1="(\d+)" y1="(\d+)" x2="(\d+)" y2="(\d+)" class="l"`).FindStringSubmatch(text); line == nil || line[1] != line[3] || line[2] == line[4] {
			t.Errorf("less %v: no line at 1: %q", less, line)
		}
		if !strings.Contains(text, want) {
			t.Errorf("less %v: no %s in\n%s", less, want, text)
		}
	}
}
