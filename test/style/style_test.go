// SPDX-License-Identifier: Apache-2.0

package style

import (
	"bytes"
	"go/ast"
	"go/format"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ceiling is how many lines a file may have. A file is one concept; 100 to 350 lines
// is what a reader holds.
const ceiling = 500

func TestFormat(t *testing.T) {
	for _, f := range goFiles(t) {
		want, err := format.Source(f.text)
		if err != nil {
			t.Errorf("%s: %v", f.path, err)
			continue
		}
		if !bytes.Equal(f.text, want) {
			t.Errorf("%s is not formatted: gofmt -w %s", f.path, f.path)
		}
	}
}

func TestLicenseHeader(t *testing.T) {
	for _, f := range goFiles(t) {
		if !bytes.HasPrefix(f.text, []byte("// SPDX-License-Identifier: Apache-2.0\n\n")) {
			t.Errorf("%s does not begin with the SPDX line and an empty one", f.path)
		}
	}
}

// A package's theory of operation has one place, where everybody looks for it.
func TestPackageComment(t *testing.T) {
	comments := make(map[string][]string) // of a directory: files that have one
	for _, f := range goFiles(t) {
		names := comments[f.dir()]
		if f.syntax.Doc != nil {
			names = append(names, path.Base(f.path))
		}
		comments[f.dir()] = names
	}
	for _, dir := range slices.Sorted(maps.Keys(comments)) {
		if !slices.Equal(comments[dir], []string{"doc.go"}) {
			t.Errorf("%s: its package comment belongs into doc.go, and there alone; found in %v", dir, comments[dir])
		}
	}
}

func TestLength(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.lines() > ceiling {
			t.Errorf("%s has %d lines, %d is the most: is it one concept?", f.path, f.lines(), ceiling)
		}
	}
}

// Below the batch loop time is a parameter: a clock reading costs a packet, and a
// test has a hand clock.
func TestNoClock(t *testing.T) {
	below := []string{"nat", "sched", "conntrack"}
	for _, f := range goFiles(t) {
		if !slices.Contains(below, f.dir()) || f.test() {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "time" && (s.Sel.Name == "Now" || s.Sel.Name == "Since" || s.Sel.Name == "Until") {
				t.Errorf("%s:%d: time.%s: the time is a parameter here", f.path, f.line(n.Pos()), s.Sel.Name)
			}
			return true
		})
	}
}

// Words that say that something is not finished, and names of places that only
// one machine has.
func TestWords(t *testing.T) {
	// Put together here, so that this file does not hold them.
	words := regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "not " + "implemented", "un" + "implemented"}, "|") + `)\b`)
	places := regexp.MustCompile(`(/wo` + `rk/|/ro` + `ot/|proxy\.gol` + `ang\.org|deb\.deb` + `ian\.org)`)
	texts(t, func(name string, text []byte) {
		for i, l := range bytes.Split(text, []byte("\n")) {
			if w := words.Find(l); w != nil {
				t.Errorf("%s:%d: %q: finish it, or say plainly what is so", name, i+1, w)
			}
			if p := places.Find(l); p != nil {
				t.Errorf("%s:%d: %q is a place of one machine", name, i+1, p)
			}
		}
	})
}

// The top level is a promise: a reader knows where things are.
func TestTopLevel(t *testing.T) {
	card := []string{"cmd", "nat", "sched", "conntrack", "iface", "bench", "test", "go.mod", "go.sum", "README.md", "LICENSE"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, e := range entries {
		found[e.Name()] = true
		if e.Name() == "vsnat" && e.Type().IsRegular() {
			continue // what `go build ./cmd/vsnat` leaves
		}
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(card, e.Name()) {
			t.Errorf("%s does not belong to the top level, which has %v and files with a dot", e.Name(), card)
		}
	}
	for _, name := range card {
		if !found[name] {
			t.Errorf("the top level lacks %s", name)
		}
	}
}

// Each path of the tree that README names is there.
func TestReadmePaths(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?:^|[\s(\x60])(?:\./)?((?:cmd|nat|sched|conntrack|iface|bench|test|\.ci)/[\w./-]*)`)
	paths := named.FindAllSubmatch(text, -1)
	if len(paths) == 0 {
		t.Fatal("README names no path of the tree")
	}
	for _, p := range paths {
		name := strings.TrimSuffix(strings.TrimRight(string(p[1]), "."), "/...")
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("README names %s: %v", name, err)
		}
	}
}
