// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm/recorded"
	"time"
)

// Every connection row that was recorded is written again from its fields.
func TestRecordedConns(t *testing.T) {
	rows := 0
	row := func(b recorded.Step, line string) {
		fields := strings.Fields(line)
		var minutes, seconds int
		if _, err := fmt.Sscanf(fields[1], "%d:%d", &minutes, &seconds); err != nil {
			t.Fatalf("line %d: %q: %v", b.Line, line, err)
		}
		conn := Conn{
			Proto: fields[0], State: fields[2],
			Expires: time.Duration(minutes)*time.Minute + time.Duration(seconds)*time.Second + 999*time.Millisecond,
			Client:  netip.MustParseAddrPort(fields[3]),
			Virtual: netip.MustParseAddrPort(fields[4]),
			Server:  netip.MustParseAddrPort(fields[5]),
		}
		stdout, _, _ := tool(&kernel{conns: []Conn{conn}}, "", "ipvsadm", "-Lnc")
		if got := strings.Split(stdout, "\n")[2]; got != line {
			t.Errorf("line %d\n got %q\nwant %q", b.Line, got, line)
		}
		rows++
	}
	for _, file := range []string{"stages.txt", "persistence.txt"} {
		for _, b := range steps(t, file) {
			if b.Command != "ipvsadm -Lnc" {
				continue
			}
			for line := range strings.Lines(b.Stdout) {
				line = strings.TrimSuffix(line, "\n")
				if proto, _, _ := strings.Cut(line, " "); strings.ToUpper(proto) == proto && proto != "IPVS" {
					row(b, line)
				}
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d rows were found", rows)
	}
}

// Where a listing was recorded both abbreviated and exact, the one follows from
// the other.
func TestRecordedNumbers(t *testing.T) {
	short, pairs := "", 0
	for _, b := range steps(t, "stats.txt") {
		switch b.Command {
		case "ipvsadm -Ln --stats -t 192.168.88.23:80":
			short = b.Stdout
		case "ipvsadm -Ln --stats --exact -t 192.168.88.23:80":
			k := newKernel()
			tool(k, "", "ipvsadm", "-A", "-t", "192.168.88.23:80")
			tool(k, "", "ipvsadm", "-a", "-t", "192.168.88.23:80", "-r", "10.0.0.2:8080", "-m")
			lines := strings.Split(b.Stdout, "\n")
			k.services[0].Stats = readCounters(t, lines[2])
			k.services[0].Servers[0].Stats = readCounters(t, lines[3])
			for _, want := range []string{short, b.Stdout} {
				args := []string{"ipvsadm", "-Ln", "--stats", "-t", "192.168.88.23:80"}
				if want == b.Stdout {
					args = append(args, "--exact")
				}
				if stdout, _, _ := tool(k, "", args...); stdout != want {
					t.Errorf("line %d, %q\n--- got\n%s--- want\n%s", b.Line, args, stdout, want)
				}
			}
			pairs++
		}
	}
	if pairs < 5 {
		t.Errorf("only %d pairs were found", pairs)
	}
}

func readCounters(t *testing.T, line string) (c Counters) {
	fields := strings.Fields(line)
	for i, to := range []*uint64{&c.Conns, &c.InPackets, &c.OutPackets, &c.InBytes, &c.OutBytes} {
		var err error
		if *to, err = strconv.ParseUint(fields[len(fields)-5+i], 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestLargeNumbers(t *testing.T) {
	for n, want := range map[uint64][2]string{
		0:               {"        0", "        0"},
		99999999:        {" 99999999", " 99999999"},
		100000000:       {"  100000K", " 100000000"},
		999999999:       {"  999999K", " 999999999"},
		1000000000:      {"    1000M", " 1000000000"},
		99999999999:     {"   99999M", " 99999999999"},
		100000000000:    {"     100G", " 100000000000"},
		99999999999999:  {"   99999G", " 99999999999999"},
		100000000000000: {"     100T", " 100000000000000"},
		1<<64 - 1:       {"18446744T", " 18446744073709551615"},
	} {
		for i, exact := range []bool{false, true} {
			var b bytes.Buffer
			p := printer{w: bufio.NewWriter(&b), Listing: Listing{Exact: exact}}
			p.large(n)
			p.w.Flush()
			if b.String() != want[i] {
				t.Errorf("%d, exact %v: %q, want %q", n, exact, b.String(), want[i])
			}
		}
	}
}

// Names that are too long are cut so that the columns stay (IPv4 only).
func TestLongNames(t *testing.T) {
	k := newKernel()
	tool(k, "", "ipvsadm", "-A", "-t", "192.168.88.23:80", "-s", "rr")
	tool(k, "", "ipvsadm", "-a", "-t", "192.168.88.23:80", "-r", "10.0.0.2:80", "-m")
	var out bytes.Buffer
	Run([]string{"ipvsadm", "-L"}, nil, &out, &out, longNames{}, func() (Director, error) { return k, nil })
	const name = "a.rather.long.host.name.in.some.domain:http"
	want := "TCP  " + name[:28] + " rr\n  -> " + name[:28] + " Masq    1      0          0         \n"
	if _, rows, _ := strings.Cut(out.String(), "InActConn\n"); rows != want {
		t.Errorf("\n got %q\nwant %q", rows, want)
	}
}

type longNames struct{ testNames }

func (longNames) HostName(netip.Addr) (string, bool) {
	return "a.rather.long.host.name.in.some.domain", true
}
