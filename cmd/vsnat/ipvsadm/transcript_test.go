// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm/recorded"
)

// steps are those of a recorded session.
func steps(t *testing.T, file string) []recorded.Step {
	t.Helper()
	list, err := recorded.Session(file)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// tool runs a command line against k.
func tool(k *kernel, stdin string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = Run(args, strings.NewReader(stdin), &out, &errs, testNames{}, func() (Director, error) { return k, nil })
	return out.String(), errs.String(), code
}

// What only ours writes: thresholds in a save, and the places of what went wrong in
// a restore.
var (
	thresholds = regexp.MustCompile(` -[xy] \d+`)
	places     = regexp.MustCompile(`hint: (that is line \d+ of the input|\d+ of \d+ lines that were read are in force)\n`)
)

func check(t *testing.T, b recorded.Step, stdout, stderr string, code int) {
	t.Helper()
	stdout, stderr = thresholds.ReplaceAllString(stdout, ""), places.ReplaceAllString(stderr, "")
	if strings.Contains(b.Command, "--nosort") {
		// The kernel lists services by a hash of its own.
		stdout, b.Stdout = sortBlocks(stdout), sortBlocks(b.Stdout)
	}
	if stdout != b.Stdout || stderr != b.Stderr || code != b.Code {
		t.Errorf("line %d: %s\n--- got, exit %d\n%s%s--- want, exit %d\n%s%s",
			b.Line, b.Command, code, stdout, stderr, b.Code, b.Stdout, b.Stderr)
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
			for _, b := range steps(t, file) {
				if strings.HasPrefix(b.Remark, "group: ") {
					k = newKernel()
					tool(k, "", "ipvsadm", "-A", "-t", "192.168.88.23:80", "-s", "rr")
					tool(k, "", "ipvsadm", "-a", "-t", "192.168.88.23:80", "-r", "10.0.0.2:80", "-m")
				}
				args, stdin := b.Args()
				if args == nil {
					skipped++
					continue
				}
				played++
				stdout, stderr, code := tool(k, stdin, args...)
				check(t, b, stdout, stderr, code)
			}
			t.Logf("%d commands replayed, %d are not the tool's or need a shell", played, skipped)
			if played == 0 {
				t.Error("nothing was replayed")
			}
		})
	}
}
