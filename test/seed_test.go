// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// recordedSeed is a transcript of the real ipvsadm.
const recordedSeed = "../cmd/vsnat/ipvsadm/recorded/testdata/seed.txt"

// TestSeed gives the four commands of the reference cluster to an empty director,
// compares all they print with what the real tool printed, and has the cluster
// work.
func TestSeed(t *testing.T) {
	t.Parallel()
	empty := func(c *lab.Cluster, io string) string { return c.Config.EmptyDirectorConfig(io) }
	eachIO(t, lab.Config{}, empty, func(t *testing.T, c *cluster) {
		recorded, err := os.ReadFile(recordedSeed)
		c.must(err)
		steps := strings.Split(string(recorded), "\n$ ")[1:]
		played := 0
		for _, step := range steps {
			command, want, _ := strings.Cut(step, "\n")
			words := strings.Fields(command)
			if words[0] != "ipvsadm" || named(words[1:]) {
				continue // of the kernel's files, and of names that only that host resolved
			}
			if got := c.transcript(words[0], words[1:]...); got != strings.TrimSuffix(want, "\n") {
				t.Errorf("$ %s\ngot\n%s\nwant\n%s", command, got, want)
			}
			played++
		}
		if played < 15 {
			t.Errorf("only %d commands of the transcript were played", played)
		}
		roundRobin(t, c)
	})
}

// named reports whether a listing shows names instead of numbers.
func named(args []string) bool {
	if len(args) == 0 {
		return true
	}
	list := strings.HasPrefix(args[0], "-L") || strings.HasPrefix(args[0], "-l") || strings.HasPrefix(args[0], "-S")
	return list && !strings.Contains(strings.Join(args, " "), "n") || strings.Join(args, " ") == "-L --timeout"
}

// transcript runs a command in the director's namespace and writes down what it
// printed and its status as the recordings do.
func (c *cluster) transcript(name string, args ...string) string {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := c.Director.Command(c.ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	var lines []string
	for prefix, text := range map[string]string{"1| ": stdout.String(), "2| ": stderr.String()} {
		for line := range strings.Lines(text) {
			lines = append(lines, prefix+strings.TrimSuffix(line, "\n"))
		}
	}
	status := "=> 0"
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		status = "=> " + string(rune('0'+code))
	}
	return strings.Join(append(lines, status), "\n")
}
