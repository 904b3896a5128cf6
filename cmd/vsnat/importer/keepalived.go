// SPDX-License-Identifier: Apache-2.0

package importer

import "fmt"

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

// readKeepalived reads a file and those that it includes.
func (i *Importer) readKeepalived(f File) error {
	s := &scanner{Importer: i, variables: make(map[string]string)}
	if err := s.read(f); err != nil {
		return err
	}
	list, err := directives(f.Name, s.list)
	if err != nil {
		return err
	}
	i.keepalived(list)
	return nil
}

// directives finds the blocks in lines.
func directives(name string, lines []line) ([]directive, error) {
	top := &directive{file: name}
	open := []*directive{top}
	for _, l := range lines {
		for len(l.words) > 0 {
			in := open[len(open)-1]
			switch w := l.words[0]; {
			case w == "}":
				if len(open) == 1 {
					return nil, fmt.Errorf("%s:%d: a } without a {", l.file, l.number)
				}
				open = open[:len(open)-1]
				l.words = l.words[1:]
			case w == "{": // of the line before
				if len(in.block) == 0 {
					return nil, fmt.Errorf("%s:%d: a { with nothing before it", l.file, l.number)
				}
				open = append(open, &in.block[len(in.block)-1])
				l.words = l.words[1:]
			default:
				end := 0
				for end < len(l.words) && l.words[end] != "{" && l.words[end] != "}" {
					end++
				}
				in.block = append(in.block, directive{file: l.file, line: l.number, words: l.words[:end:end]})
				l.words = l.words[end:]
			}
		}
	}
	if last := open[len(open)-1]; len(open) > 1 {
		return nil, fmt.Errorf("%s: the block that line %d opens does not end", last.file, last.line)
	}
	return top.block, nil
}
