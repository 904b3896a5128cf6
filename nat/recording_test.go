// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The notation of packets in the recordings of a kernel, turned into that of
// scripts; and what may differ from a recording.

// A recorded line, with its number in the file.
type recordedLine struct {
	n    int
	text string
}

// recording reads the lines of a recording, but for empty ones.
func recording(t *testing.T, file string) []recordedLine {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []recordedLine
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		n++
		if strings.TrimSpace(s.Text()) != "" {
			list = append(list, recordedLine{n, s.Text()})
		}
	}
	return list
}

// differences are the lines of one recording that are not to be matched, each with
// the row of the table in doc.go that says why.
type differences struct {
	t      *testing.T
	file   string
	reason map[int]string
	seen   map[int]bool
}

func newDifferences(t *testing.T, file string, reason map[int]string) *differences {
	t.Helper()
	rows := documentedDifferences(t)
	for n, row := range reason {
		if !slices.Contains(rows, row) {
			t.Errorf("%s:%d: the table in doc.go has no row %q", file, n, row)
		}
	}
	return &differences{t: t, file: file, reason: reason, seen: map[int]bool{}}
}

// compare complains if line n differs and is not listed.
func (d *differences) compare(n int, what, want, got string) {
	d.t.Helper()
	if want == got {
		return
	}
	if d.reason[n] == "" {
		d.t.Errorf("%s:%d: %s\n    the kernel %s\n    here       %s", d.file, n, what, want, got)
		return
	}
	d.seen[n] = true
}

// done complains of listed lines that do not differ any more.
func (d *differences) done() {
	d.t.Helper()
	for n, row := range d.reason {
		if !d.seen[n] {
			d.t.Errorf("%s:%d: no difference, though %q is listed", d.file, n, row)
		}
	}
}

// documentedDifferences returns the first column of the table in doc.go.
func documentedDifferences(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "\n# Where it differs from IPVS\n")
	if !ok {
		t.Fatal("doc.go has no table of differences")
	}
	var rows []string
	for line := range strings.Lines(table) {
		if len(line) < 2 || line[0] != '\t' || line[1] == ' ' || line[1] == '\t' {
			continue
		}
		row, _, _ := strings.Cut(line[1:], "  ")
		rows = append(rows, strings.TrimSpace(row))
	}
	return rows
}

var recordedWords = regexp.MustCompile(`^(\S+) > (\S+) (TCP|UDP|ICMP|proto (\d+))(.*)$`)

// fromRecorded turns a recorded packet, and the one that it quotes, into the
// notation of scripts. sent: it is to be made, not to be compared.
func fromRecorded(t *testing.T, text, inner string, sent bool) string {
	t.Helper()
	m := recordedWords.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no packet: %q", text)
	}
	f, rest := fields{}, []string{}
	for _, w := range strings.Fields(m[5]) {
		switch k, v, ok := strings.Cut(w, "="); {
		case ok:
			f[k] = v
		case strings.HasPrefix(w, "frag@"):
			f["off"] = w[5:]
		case w == "DF" || w == "MF":
			f[strings.ToLower(w)] = ""
		case w == "first" || w == "8" || w == "bytes":
			f["cut"] = ""
		default:
			rest = append(rest, w)
		}
	}
	_, more := f["mf"]
	_, cut := f["cut"]
	length := f.num("len", 0)
	var b strings.Builder
	word := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	switch {
	case f["off"] != "":
		fmt.Fprintf(&b, "frag %s > %s proto=%s off=%s data=%d", m[1], m[2], m[4], f["off"], length-20)
	case m[3] == "ICMP":
		b.WriteString(recordedICMP(t, m[1], m[2], inner, f, length, sent))
	case m[3] == "TCP":
		fmt.Fprintf(&b, "tcp %s > %s", m[1], m[2])
		switch {
		case cut && sent:
			word("A data=%d", length-40)
		case !cut:
			word("%s", strings.Join(rest, ""))
			if sent && f["l4ck"] == "cut" {
				f["data"] = strconv.Itoa(length - 40)
			}
			for _, k := range []string{"seq", "ack", "win", "data"} {
				word("%s=%s", k, f[k])
			}
		}
		if sent && f["mss"] != "" {
			word("mss=%s", f["mss"])
		}
	case m[3] == "UDP" && more: // the number recorded is that of the whole datagram
		fmt.Fprintf(&b, "udp %s > %s data=%d", m[1], m[2], length-28)
		if sent {
			word("udplen=%d", f.num("data", 0)+8)
		}
	default:
		fmt.Fprintf(&b, "udp %s > %s data=%s", m[1], m[2], f["data"])
	}
	if id := f.num("id", 0); m[3] != "ICMP" {
		word("id=%d", id)
	} else if sent {
		word("ipid=%d", id)
	}
	word("ttl=%s tos=%d", f["ttl"], f.num("tos", 0))
	if sum := strings.ToLower(f["l4ck"]); !more && sum != "" && sum != "cut" && f["off"] == "" {
		word("sum=%s", sum)
	}
	if f["ipck"] == "BAD" {
		word("ipsum=bad")
	}
	for _, k := range []string{"df", "mf"} {
		if _, ok := f[k]; ok {
			word("%s", k)
		}
	}
	return b.String()
}

func recordedICMP(t *testing.T, src, dst, inner string, f fields, length int, sent bool) string {
	t.Helper()
	kind, code := f.num("type", 0), f.num("code", 0)
	rest, err := strconv.ParseUint(f["rest"], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	name := icmpNames.nameOf(uint8(kind), uint8(code))
	text := fmt.Sprintf("icmp %s > %s %s", src, dst, name)
	switch {
	case kind == 0 || kind == 8:
		return text + fmt.Sprintf(" id=%d seq=%d data=%d", rest>>16, rest&0xffff, length-28)
	case name == "frag-needed":
		text += fmt.Sprintf(" mtu=%d", rest)
	}
	if inner != "" {
		text += " (" + fromRecorded(t, inner, "", sent) + ")"
	}
	if sent {
		text += fmt.Sprintf(" cut=%d", length-28)
	}
	return text
}
