// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a configuration file, counted from 1; columns count
// characters. Line 0 means the file as a whole.
type Position struct {
	Line, Column int
	File         string // as messages call it; "": the one that is being read
}

// from is a position for somebody who reads at another one: "line 3", or with the
// name of the file if that is another.
func (at Position) from(other Position) string {
	if at.File == other.File {
		return fmt.Sprintf("line %d", at.Line)
	}
	return fmt.Sprintf("%s:%d", at.File, at.Line)
}

// Problem is one thing that is wrong with a configuration file.
type Problem struct {
	Position
	Message string // what is wrong; no capital, no full stop
	Hint    string // the next step; may be ""
}

// String is the problem as compilers write it: "file:line:column: message".
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// MaxProblems is how many problems of one file are told.
const MaxProblems = 20

// Error is a configuration file that was refused.
type Error struct {
	Problems []Problem // in the order of the file, at least 1, at most MaxProblems
	More     int       // problems beyond these
}

// Error has a line for each problem and, indented, one for its hint.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if p.Hint != "" {
			b.WriteString("\n    hint: " + p.Hint)
		}
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// problems collects what is wrong with a configuration, which may be in several
// files.
type problems struct {
	file string   // that is being read
	env  Lookup   // what references to the environment mean; nil: there may be none
	read []string // the files in the order in which they are told
	list []Problem
}

// add notes a problem. The hint comes before the format's arguments so that
// no call can forget it.
func (p *problems) add(at Position, hint, format string, args ...any) {
	at.File = cmp.Or(at.File, p.file)
	p.list = append(p.list, Problem{Position: at, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// err is nil, or all problems as an *Error.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(slices.Index(p.read, a.File), slices.Index(p.read, b.File)),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	shown := p.list[:min(len(p.list), MaxProblems)]
	return &Error{Problems: shown, More: len(p.list) - len(shown)}
}

// oneOf is the hint for a word that is not one of a list: the nearest one if
// there is a near one, and the list.
func oneOf(word string, known []string) string {
	list := "one of: " + strings.Join(known, ", ")
	if near := Nearest(word, known); near != "" {
		return "did you mean " + near + "? " + list
	}
	return list
}

// Nearest is the known word with the smallest edit distance to word, or "" if
// none is near: a third of the letters may differ, and at least one.
func Nearest(word string, known []string) string {
	// A key of a megabyte is not a typing error, and the distance costs its
	// length times the longest key's.
	if len(word) > 64 {
		return ""
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "-")) }
	best, limit := "", max(1, len(word)/3)+1
	for _, k := range known {
		if d := distance(plain(word), plain(k)); d < limit {
			best, limit = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or exchange
// with a neighbour to make a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
