// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import "strings"

// A scanner reads words the way the tool's option library does: short ones may
// be bundled (-Ln) and joined with their value (-t192.0.2.1:80, -w=5), long ones
// take it after "=" or as the next argument, "--" ends the options, and what is
// no option may stand anywhere.
type scanner struct {
	args   []string
	next   int    // of args
	bundle string // what is left of a bundle of short words
	rest   []string
}

// option returns the next word and its value; given tells an empty value from
// none. At the end, w is nil. Errors name the argument and let a restore go on.
func (s *scanner) option() (w *word, value string, given bool, err error) {
	for s.bundle == "" {
		if s.next == len(s.args) {
			return nil, "", false, nil
		}
		arg := s.args[s.next]
		s.next++
		switch {
		case arg == "--":
			s.rest = append(s.rest, s.args[s.next:]...)
			s.next = len(s.args)
		case strings.HasPrefix(arg, "--"):
			return s.long(arg)
		case len(arg) > 1 && arg[0] == '-':
			s.bundle = arg[1:]
		default:
			s.rest = append(s.rest, arg)
		}
	}
	return s.short()
}

func (s *scanner) long(arg string) (*word, string, bool, error) {
	name, value, joined := strings.Cut(arg[2:], "=")
	for i := range words {
		w := &words[i]
		if w.long != name {
			continue
		}
		switch {
		case w.value == none && joined:
			return nil, "", false, s.complain("option does not take an argument")
		case w.value == none || joined:
			return w, value, joined, nil
		default:
			return s.separate(w)
		}
	}
	return nil, "", false, s.complain("unknown option")
}

func (s *scanner) short() (*word, string, bool, error) {
	letter := s.bundle[0]
	s.bundle = s.bundle[1:]
	for i := range words {
		w := &words[i]
		if w.short != letter {
			continue
		}
		if w.value == none {
			return w, "", false, nil
		}
		if s.bundle == "" {
			return s.separate(w)
		}
		value := strings.TrimPrefix(s.bundle, "=")
		s.bundle = ""
		return w, value, true, nil
	}
	return nil, "", false, s.complain("unknown option")
}

// separate takes the value from the next argument. One that must be there may
// begin with "-".
func (s *scanner) separate(w *word) (*word, string, bool, error) {
	if s.next == len(s.args) {
		if w.value == optional {
			return w, "", false, nil
		}
		return nil, "", false, s.complain("missing argument")
	}
	value := s.args[s.next]
	if w.value == optional && strings.HasPrefix(value, "-") {
		return w, "", false, nil
	}
	s.next++
	return w, value, true, nil
}

func (s *scanner) complain(what string) error {
	return &usageError{text: s.args[s.next-1] + ": " + what, code: exitRefused, goesOn: true}
}
