// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// From the text of a keepalived.conf to lines of words, as its parser goes about it:
// comments go, definitions are kept, what follows @NAME holds on one host alone, and
// variables are put in their place when a line is read. A definition may have several
// lines; where it is used, each of them is a line again.

// A line is one with words, and where it stands.
type line struct {
	file   string
	number int
	words  []string
}

var (
	definition = regexp.MustCompile(`^\$([A-Za-z_]\w*)=\s*(.*)$`)
	condition  = regexp.MustCompile(`^@(\^?)(\S*)\s*(.*)$`)
	reference  = regexp.MustCompile(`\$(?:\{[A-Za-z_]\w*\}|[A-Za-z_]\w*(?:\s|$))`)
)

// maxIncludes bounds how deep files include each other, and variables name each other;
// maxExpansion, in bytes, what comes of these.
const (
	maxIncludes  = 10
	maxExpansion = 1 << 22
)

// A scanner reads files into lines.
type scanner struct {
	*Importer
	variables map[string]string // of several lines, if there is a line feed in it
	list      []line
	skipped   int // blocks that are open and do not hold on this host
	depth     int // of includes
	expanded  int
}

// read takes the lines of a file up.
func (s *scanner) read(f File) error {
	raw := strings.Split(string(f.Text), "\n")
	for n := 0; n < len(raw); n++ {
		number := n + 1
		text := bare(raw[n])
		m := definition.FindStringSubmatch(text)
		if m == nil || m[2] != `\` {
			if err := s.line(f.Name, number, text, 0); err != nil {
				return err
			}
			continue
		}
		var value []string
		for open := true; open && n+1 < len(raw); {
			n++
			text := bare(raw[n])
			if text != "" {
				text, open = strings.CutSuffix(text, `\`)
				value = append(value, strings.TrimSpace(text))
			}
		}
		s.variables[m[1]] = strings.Join(value, "\n")
	}
	return nil
}

// bare is a line without blanks around it, and without its comment.
func bare(text string) string {
	quote, escaped := rune(0), false
	for n, r := range text {
		switch {
		case escaped:
			escaped = false
		case quote != 0 && r == '\\':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
		case r == '"' || r == '\'':
			quote = r
		case r == '#' || r == '!':
			return strings.TrimSpace(text[:n])
		}
	}
	return strings.TrimSpace(text)
}

// line takes up a line without its comment, or one of a definition.
func (s *scanner) line(file string, number int, text string, depth int) error {
	if m := definition.FindStringSubmatch(text); m != nil {
		s.variables[m[1]] = m[2]
		return nil
	}
	if reference.MatchString(text) {
		expanded := s.expand(file, text)
		s.expanded += len(expanded)
		if depth == maxIncludes || s.expanded > maxExpansion {
			return fmt.Errorf("%s:%d: variables name each other without an end", file, number)
		}
		if expanded != text {
			for part := range strings.SplitSeq(expanded, "\n") {
				if err := s.line(file, number, part, depth+1); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if s.skipped > 0 {
		s.skipped += strings.Count(text, "{") - strings.Count(text, "}")
		return nil
	}
	if m := condition.FindStringSubmatch(text); m != nil {
		switch {
		case s.ConfigID == "":
			s.note(file, number, text, "what holds on one host alone is left out: --config-id says which one it is")
			s.skipped = max(0, strings.Count(text, "{")-strings.Count(text, "}"))
			return nil
		case (m[2] == s.ConfigID) == (m[1] == "^"):
			s.skipped = max(0, strings.Count(text, "{")-strings.Count(text, "}"))
			return nil
		}
		return s.line(file, number, m[3], depth)
	}
	words, err := keepalivedWords(text)
	if err != nil {
		return fmt.Errorf("%s:%d: %w", file, number, err)
	}
	switch {
	case len(words) == 0:
	case strings.HasPrefix(words[0], "include"):
		return s.include(file, number, words)
	default:
		s.list = append(s.list, line{file, number, words})
	}
	return nil
}

// include reads the files that a pattern names, relative to the file that names it.
func (s *scanner) include(from string, number int, line []string) error {
	if s.depth == maxIncludes {
		return fmt.Errorf("%s:%d: files include each other more than %d deep", from, number, maxIncludes)
	}
	pattern := words(line[1:])
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(from), pattern)
	}
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		s.note(from, number, words(line), "there is no such file")
		return nil
	}
	s.depth++
	defer func() { s.depth-- }()
	for _, name := range names {
		f, err := ReadFile(name, Keepalived)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", from, number, err)
		}
		if err := s.read(f); err != nil {
			return err
		}
	}
	return nil
}

// expand puts variables in their place once; unknown ones stay as they are.
func (s *scanner) expand(file, text string) string {
	return reference.ReplaceAllStringFunc(text, func(r string) string {
		name := strings.Trim(r, "${} \t")
		behind := ""
		if !strings.HasSuffix(r, "}") {
			behind = r[1+len(name):]
		}
		switch name {
		case "_PWD":
			return filepath.Dir(file) + behind
		case "_INSTANCE":
			return s.ConfigID + behind
		case "_HASH":
			return "#" + behind
		case "_BANG":
			return "!" + behind
		}
		if v, ok := s.variables[name]; ok {
			return v + behind
		}
		return r
	})
}

// keepalivedWords cuts a line into words.
func keepalivedWords(text string) (list []string, err error) {
	list, closed := quotedWords(text, `"'`)
	if !closed {
		return nil, errors.New("a quote that does not end")
	}
	return list, nil
}

// program cuts a command into the program and its arguments. It stands in double quotes,
// which are gone by now, so that single ones keep the blanks of an argument.
func program(text string) []string {
	argv, _ := quotedWords(text, "'")
	return argv
}

// quotedWords cuts a text at blanks that are not in quotes, which may be in the middle of
// a word; inside of them a backslash takes the meaning of what follows. closed: the last
// quote ends.
func quotedWords(text, quotes string) (list []string, closed bool) {
	var word strings.Builder
	inWord, escaped, quote := false, false, rune(0)
	for _, r := range text + " " {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quote != 0 && r == '\\':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case strings.ContainsRune(quotes, r):
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\r':
			if inWord {
				list = append(list, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	return list, quote == 0
}
