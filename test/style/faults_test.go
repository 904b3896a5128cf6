// SPDX-License-Identifier: Apache-2.0

package style

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each fault of test/FAULTS.md names tests, and those that it names are there.
func TestFaultsAreTested(t *testing.T) {
	const list = "test/FAULTS.md"
	text, err := os.ReadFile(path.Join(root, list))
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool) // "nat:TestForward"
	for _, f := range goFiles(t) {
		if !f.test() {
			continue
		}
		for _, name := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(f.text, -1) {
			tests[path.Base(f.dir())+":"+string(name[1])] = true
		}
	}
	name := regexp.MustCompile(`^(\w+):([\w-]+)$`)
	rows := 0
	for i, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !regexp.MustCompile(`^\d+$`).MatchString(cells[0]) {
			continue
		}
		rows++
		if len(cells) != 4 {
			t.Errorf("%s:%d: row %s has %d cells, want 4", list, i+1, cells[0], len(cells))
			continue
		}
		named, _, _ := strings.Cut(cells[3], "; not yet: ")
		words := strings.Split(named, ", ")
		if slices.Contains(words, "") {
			t.Errorf("%s:%d: row %s names no test", list, i+1, cells[0])
		}
		for _, w := range words {
			m := name.FindStringSubmatch(w)
			there := m != nil && tests[w]
			if m != nil && m[1] == "script" {
				_, err := os.Stat(path.Join(root, "nat/testdata/scripts", m[2]+".txt"))
				there = err == nil
			}
			if !there {
				t.Errorf("%s:%d: row %s names %q, which is no test", list, i+1, cells[0], w)
			}
		}
	}
	if rows < 100 {
		t.Errorf("%s: only %d rows were found", list, rows)
	}
}
