// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// filled is the director at the end of forms.txt: every kind of service.
func filled(t *testing.T) *kernel {
	k := newKernel()
	for _, b := range steps(t, "forms.txt") {
		if strings.HasPrefix(b.Command, "ipvsadm -A ") || strings.HasPrefix(b.Command, "ipvsadm -a ") {
			tool(k, "", strings.Fields(b.Command)...)
		}
	}
	if len(k.services) < 30 {
		t.Fatalf("only %d services", len(k.services))
	}
	return k
}

func TestSaveRestore(t *testing.T) {
	k := filled(t)
	saved, _, _ := tool(k, "", "ipvsadm", "-S", "-n")
	named, _, _ := tool(k, "", "ipvsadm", "-S")
	if other, _, _ := tool(k, "", "/sbin/ipvsadm-save", "-n"); other != saved {
		t.Error("ipvsadm-save -n differs from ipvsadm -S -n")
	}
	for _, file := range []string{saved, named} {
		k := newKernel()
		stdout, stderr, code := tool(k, file, "ipvsadm", "-R")
		if stdout+stderr != "" || code != 0 {
			t.Fatalf("exit %d, %s%s", code, stdout, stderr)
		}
		if again, _, _ := tool(k, "", "ipvsadm", "-Sn"); again != saved {
			t.Errorf("--- restored\n%s--- saved\n%s", again, saved)
		}
	}
	// The other program clears first, knows comments, and lines with the tool's name.
	lines := strings.SplitAfter(saved, "\n")
	commented := "# a comment\n\n" + lines[0] + "ipvsadm " + strings.Join(lines[1:], "")
	stdout, stderr, code := tool(k, commented, "ipvsadm-restore")
	again, _, _ := tool(k, "", "ipvsadm", "-Sn")
	if stdout+stderr != "" || code != 0 || again != saved {
		t.Errorf("exit %d, %s%s--- restored\n%s--- saved\n%s", code, stdout, stderr, again, saved)
	}
}

// A restore can't start another.
func TestRestoreInRestore(t *testing.T) {
	_, stderr, code := tool(newKernel(), "-R\n", "ipvsadm", "-R")
	if !strings.HasPrefix(stderr, "Try `ipvsadm -h'") || code != 255 {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// A missing value ends its line, not the restore.
func TestRestoreGoesOn(t *testing.T) {
	k := newKernel()
	_, stderr, code := tool(k, "-A -t\n-A -t 192.168.88.23:80\n", "ipvsadm", "-R")
	const want = "-t: missing argument\nhint: that is line 1 of the input\nhint: 1 of 2 lines that were read are in force\n"
	if stderr != want || code != 0 || len(k.services) != 1 {
		t.Errorf("exit %d, %d services, %s", code, len(k.services), stderr)
	}
}

// FAULTS 129: what fails in a long file is named, and is no success.
func TestRestoreFaults(t *testing.T) {
	var b strings.Builder
	b.WriteString("# saved long ago\n-A -t 192.168.88.23:80 -s rr\n")
	for i := range 600 {
		fmt.Fprintf(&b, "-a -t 192.168.88.23:80 -r 10.0.%d.%d:80 -m -w 1\n", 1+i/200, 1+i%200)
	}
	good := b.String()
	at := func(line int, text string) string {
		lines := strings.SplitAfter(good, "\n")
		lines[line-1] = text + "\n"
		return strings.Join(lines, "")
	}
	for _, row := range []struct {
		program, input, stderr  string
		code, services, servers int
	}{
		{"ipvsadm-restore", good, "", 0, 1, 600},
		// Nothing is cleared for a file that does not make sense.
		{"ipvsadm-restore", at(500, "-a -t 192.168.88.23:80 -r 10.0.0.2:80 -m -w heavy"),
			"illegal weight specified\nhint: that is line 500 of the input\nhint: nothing was changed\n", 2, 1, 0},
		{"ipvsadm-restore", at(500, "-a -t 192.168.88.23:80 -z"), "-z: unknown option\nhint: that is line 500 of the input\nhint: nothing was changed\n", 255, 1, 0},
		{"ipvsadm-restore", at(500, "-a -t '192.168.88.23:80"), "unfinished quote in \"-a -t '192.168.88.23:80\"\nhint: that is line 500 of the input\nhint: nothing was changed\n", 2, 1, 0},
		// What the director refuses stands alone.
		{"ipvsadm-restore", at(500, "-a -t 192.168.88.24:80 -r 10.0.0.2:80 -m"),
			"Service not defined\nhint: that is line 500 of the input\nhint: 600 of 601 lines that were read are in force\n", 255, 1, 599},
		// The tool itself stops, or goes on and forgets.
		{"ipvsadm", at(500, "-a -t 192.168.88.23:80 -r 10.0.0.2:80 -m -w heavy"),
			"illegal weight specified\nhint: that is line 500 of the input\nhint: 498 of 499 lines that were read are in force\n", 2, 2, 497},
		{"ipvsadm", at(500, "-a -t 192.168.88.24:80 -r 10.0.0.2:80 -m"),
			"Service not defined\nhint: that is line 500 of the input\nhint: 600 of 601 lines that were read are in force\n", 0, 2, 599},
	} {
		k := newKernel()
		tool(k, "", "ipvsadm", "-A", "-t", "192.168.88.99:80")
		args := []string{row.program}
		input := row.input
		if row.program == "ipvsadm" {
			args = append(args, "-R")
			input = strings.Replace(input, "# saved long ago", "", 1) // the tool knows no comments
		}
		stdout, stderr, code := tool(k, input, args...)
		if stdout != "" || stderr != row.stderr || code != row.code || len(k.services) != row.services ||
			len(k.services[len(k.services)-1].Servers) != row.servers {
			t.Errorf("%s: exit %d, %d services, the last with %d servers\n%s%s", row.program, code, len(k.services),
				len(k.services[len(k.services)-1].Servers), stdout, stderr)
		}
	}
}

func TestRestoreLongLine(t *testing.T) {
	_, stderr, code := tool(newKernel(), strings.Repeat("x", longestLine+1), "ipvsadm", "-R")
	if !strings.Contains(stderr, "token too long") || code != 255 {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"":                          nil,
		"  -A\t-t  x\r":             {"-A", "-t", "x"},
		`-s "" -b 'a b' c\ d "e'f"`: {"-s", "", "-b", "a b", "c d", "e'f"},
	} {
		if got, err := split(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
	if _, err := split("'open"); err == nil {
		t.Error("an open quote is no error")
	}
}

// FAULTS 130: without a director there is a message, and help works all the same.
func TestNoDirector(t *testing.T) {
	try := func(err error, args ...string) (string, string, int) {
		var out, errs bytes.Buffer
		code := Run(args, strings.NewReader(""), &out, &errs, testNames{}, func() (Director, error) { return nil, err })
		return out.String(), errs.String(), code
	}
	down := &Unavailable{Err: errors.New("nobody listens"), Hint: "start one"}
	for _, args := range [][]string{{"ipvsadm"}, {"ipvsadm", "-Ln"}, {"ipvsadm", "-C"}, {"ipvsadm-restore"}} {
		stdout, stderr, code := try(down, args...)
		const want = "Can't initialize ipvs: nobody listens\nAre you sure that a vsnat director is running?\nhint: start one\n"
		if stdout != "" || stderr != want || code != 2 {
			t.Errorf("%q: exit %d, %s%s", args, code, stdout, stderr)
		}
	}
	for _, flag := range []string{"-h", "-v"} {
		if stdout, stderr, code := try(down, "ipvsadm", flag); !strings.HasPrefix(stdout, versionLine) || stderr != "" || code != 0 {
			t.Errorf("%s: exit %d, %s%s", flag, code, stdout, stderr)
		}
	}
	// As recorded for an ordinary user, but for the line about the kernel.
	for _, b := range steps(t, "errors.txt") {
		if !strings.HasPrefix(b.Command, "python3") {
			continue
		}
		_, stderr, code := try(ErrPermission, "ipvsadm", "-Ln")
		first, _, _ := strings.Cut(stderr, "\n")
		want, _, _ := strings.Cut(b.Stderr, "\n")
		if first != want || code != b.Code {
			t.Errorf("exit %d, want %d\n got %s\nwant %s", code, b.Code, first, want)
		}
	}
	if _, stderr, code := try(fs.ErrNotExist, "ipvsadm", "-Ln"); code != 2 || !strings.Contains(stderr, "file does not exist") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// A listing that can't be written is an error, not a success.
func TestBrokenOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	var errs bytes.Buffer
	code := Run([]string{"ipvsadm", "-Ln"}, nil, w, &errs, testNames{}, func() (Director, error) { return newKernel(), nil })
	if code == 0 || !strings.Contains(errs.String(), "writing the listing") {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}
