// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// A directive is a line of keepalived.conf, with the block that it opens, if any.
type directive struct {
	file  string
	line  int
	words []string
	block []directive
}

func (d *directive) name() string { return d.words[0] }

// arg is the n-th word after the name, or "".
func (d *directive) arg(n int) string {
	if n < len(d.words) {
		return d.words[n]
	}
	return ""
}

// maxIncludes bounds how deep files include each other.
const maxIncludes = 10

// A scanner reads files into directives.
type scanner struct {
	*Importer
	variables map[string]string
	depth     int
}

// readKeepalived reads a file and those that it includes.
func (i *Importer) readKeepalived(f File) error {
	s := &scanner{Importer: i, variables: make(map[string]string)}
	list, err := s.directives(f)
	if err != nil {
		return err
	}
	i.keepalived(list)
	return nil
}

// A line is one with words, and where it stands.
type line struct {
	number int
	words  []string
}

var definition = regexp.MustCompile(`^\$([A-Za-z_]\w*)=(.*)$`)

// directives reads the text of a file.
func (s *scanner) directives(f File) ([]directive, error) {
	lines, err := keepalivedLines(f)
	if err != nil {
		return nil, err
	}
	top := &directive{file: f.Name}
	open := []*directive{top}
	for _, l := range lines {
		in := open[len(open)-1]
		first := l.words[0]
		switch m := definition.FindStringSubmatch(strings.Join(l.words, " ")); {
		case m != nil:
			s.variables[m[1]] = s.expand(m[2])
			continue
		case first[0] == '@':
			s.note(f.Name, l.number, words(l.words), "what holds under a condition is left out")
			if l.words[len(l.words)-1] == "{" {
				open = append(open, &directive{}) // read, and forgotten
			}
			continue
		case first == "include":
			list, err := s.include(f.Name, l)
			if err != nil {
				return nil, err
			}
			in.block = append(in.block, list...)
			continue
		}
		for n, w := range l.words {
			l.words[n] = s.expand(w)
		}
		for len(l.words) > 0 {
			in = open[len(open)-1]
			switch w := l.words[0]; {
			case w == "}":
				if len(open) == 1 {
					return nil, fmt.Errorf("%s:%d: a } without a {", f.Name, l.number)
				}
				open = open[:len(open)-1]
				l.words = l.words[1:]
			case w == "{": // of the line before
				if len(in.block) == 0 {
					return nil, fmt.Errorf("%s:%d: a { with nothing before it", f.Name, l.number)
				}
				open = append(open, &in.block[len(in.block)-1])
				l.words = l.words[1:]
			default:
				end := 0
				for end < len(l.words) && l.words[end] != "{" && l.words[end] != "}" {
					end++
				}
				in.block = append(in.block, directive{file: f.Name, line: l.number, words: l.words[:end:end]})
				l.words = l.words[end:]
			}
		}
	}
	if len(open) > 1 {
		return nil, fmt.Errorf("%s: the block that line %d opens does not end", f.Name, open[len(open)-1].line)
	}
	return top.block, nil
}

// include reads the files that a pattern names, relative to the file that names it.
func (s *scanner) include(from string, l line) ([]directive, error) {
	if s.depth == maxIncludes {
		return nil, fmt.Errorf("%s:%d: files include each other more than %d deep", from, l.number, maxIncludes)
	}
	pattern := s.expand(strings.Join(l.words[1:], " "))
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(from), pattern)
	}
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		s.note(from, l.number, words(l.words), "there is no such file")
		return nil, nil
	}
	s.depth++
	defer func() { s.depth-- }()
	var all []directive
	for _, name := range names {
		f, err := ReadFile(name, Keepalived)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", from, l.number, err)
		}
		list, err := s.directives(f)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

var reference = regexp.MustCompile(`\$\{?([A-Za-z_]\w*)\}?`)

// expand puts variables in their place; unknown ones stay as they are.
func (s *scanner) expand(word string) string {
	return reference.ReplaceAllStringFunc(word, func(r string) string {
		if v, ok := s.variables[reference.FindStringSubmatch(r)[1]]; ok {
			return v
		}
		return r
	})
}

// keepalivedLines cuts a text into lines of words. A comment begins with # or !; quotes
// keep blanks, and may go over lines.
func keepalivedLines(f File) ([]line, error) {
	var list []line
	var now line
	var word strings.Builder
	inWord, number := false, 1
	quote, quoted := rune(0), 0
	comment := false
	endWord := func() {
		if inWord {
			now.words = append(now.words, word.String())
			word.Reset()
			inWord = false
		}
	}
	for _, r := range string(f.Text) + "\n" {
		if r == '\n' {
			number++
		}
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\n':
			endWord()
			if len(now.words) > 0 {
				list = append(list, now)
			}
			now, comment = line{}, false
		case comment:
		case r == '#' || r == '!':
			comment = true
		case r == '"':
			quote, quoted, inWord = r, number, true
		case r == ' ' || r == '\t' || r == '\r':
			endWord()
		default:
			word.WriteRune(r)
			inWord = true
		}
		if now.number == 0 && (inWord || len(now.words) > 0) {
			now.number = number
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%s:%d: a quote that does not end", f.Name, quoted)
	}
	return list, nil
}
