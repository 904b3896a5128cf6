// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A block is one command of a transcript with what it wrote: a line "$ command",
// then "1| " and "2| " for lines of standard output and error, then "=> code".
type block struct {
	line           int
	command        string
	stdout, stderr string
	code           int
}

// blocks reads a transcript. Before calls f for each remark, with what follows.
func blocks(t *testing.T, file string, remark func(string), f func(block)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "ipvs", file))
	if err != nil {
		t.Fatal(err)
	}
	var b block
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "# "):
			remark(line[2:])
		case strings.HasPrefix(line, "$ "):
			b = block{line: i + 1, command: line[2:]}
		case strings.HasPrefix(line, "1| "):
			b.stdout += line[3:] + "\n"
		case strings.HasPrefix(line, "2| "):
			b.stderr += line[3:] + "\n"
		case strings.HasPrefix(line, "=> "):
			fmt.Sscanf(line, "=> %d", &b.code)
			f(b)
		}
	}
}

// tool runs a command line against k.
func tool(k *kernel, stdin string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &errs, testNames{}, func() (Director, error) { return k, nil })
	return out.String(), errs.String(), code
}

func check(t *testing.T, b block, stdout, stderr string, code int) {
	t.Helper()
	if strings.Contains(b.command, "--nosort") {
		// The kernel lists services by a hash of its own.
		stdout, b.stdout = sortBlocks(stdout), sortBlocks(b.stdout)
	}
	if stdout != b.stdout || stderr != b.stderr || code != b.code {
		t.Errorf("line %d: %s\n--- got, exit %d\n%s%s--- want, exit %d\n%s%s",
			b.line, b.command, code, stdout, stderr, b.code, b.stdout, b.stderr)
	}
}

// sortBlocks sorts a listing's services, each with its servers as they stand.
func sortBlocks(listing string) string {
	parts := strings.Split(strings.ReplaceAll(listing, "\n  -> ", "\x00"), "\n")
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

func TestTranscripts(t *testing.T) {
	for _, file := range []string{"seed.txt", "order.txt", "forms.txt", "names.txt", "timeout-daemon.txt", "version-help.txt", "errors.txt"} {
		t.Run(file, func(t *testing.T) {
			k := newKernel()
			played, skipped := 0, 0
			remark := func(text string) {
				if strings.HasPrefix(text, "group: ") {
					k = newKernel()
					tool(k, "", "ipvsadm", "-A", "-t", "192.168.88.23:80", "-s", "rr")
					tool(k, "", "ipvsadm", "-a", "-t", "192.168.88.23:80", "-r", "10.0.0.2:80", "-m")
				}
			}
			blocks(t, file, remark, func(b block) {
				stdin, command := "", b.command
				if quoted, ok := strings.CutPrefix(command, "printf -- '"); ok {
					stdin, command, _ = strings.Cut(quoted, "' | ")
					stdin = strings.ReplaceAll(stdin, `\n`, "\n")
				}
				if !strings.HasPrefix(command, "ipvsadm") || strings.ContainsAny(command, ";>") {
					skipped++
					return
				}
				played++
				args, err := split(command)
				if err != nil {
					t.Fatal(err)
				}
				stdout, stderr, code := tool(k, stdin, args...)
				check(t, b, stdout, stderr, code)
			})
			t.Logf("%d commands replayed, %d are not the tool's or need a shell", played, skipped)
			if played == 0 {
				t.Error("nothing was replayed")
			}
		})
	}
}
