// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// longestLine is what a line of a restore may have, in bytes.
const longestLine = 64 << 10

// restore runs the command lines of the input. As with the tool, a line that the
// director refuses is reported and the next one is read, while one that makes no
// sense ends it all; and the result is the last line's. Beyond the tool, what
// failed is told by its line.
func (s *session) restore() error {
	if s.restoring {
		return tryHelp(s.program)
	}
	s.restoring = true
	var last error
	applied, read := 0, 0
	err := eachLine(s.stdin, func(number int, args []string, err error) error {
		read++
		if last != nil {
			s.report(last)
		}
		if last = err; err == nil {
			last = s.line(args)
		}
		if last == nil {
			applied++
			return nil
		}
		last = &lineError{last, number}
		if fatal(last) {
			return last
		}
		s.failed = true
		return nil
	})
	if err == nil {
		err = last
	}
	if s.failed || err != nil {
		s.after = fmt.Sprintf("%d of %d lines that were read are in force", applied, read)
	}
	return err
}

// understood reports whether all lines of the input make sense, before any is
// run.
func (s *session) understood(input []byte) error {
	return eachLine(bytes.NewReader(input), func(number int, args []string, err error) error {
		if err == nil {
			_, err = Parse(s.program, args, s.names)
		}
		if err != nil {
			return &lineError{err, number}
		}
		return nil
	})
}

// A lineError is one of a line of what is restored.
type lineError struct {
	error
	number int
}

func (e *lineError) Unwrap() error { return e.error }

// eachLine calls f for each command line of the input, without the tool's name
// before it, until f returns an error.
func eachLine(input io.Reader, f func(number int, args []string, err error) error) error {
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, longestLine)
	for number := 1; lines.Scan(); number++ {
		args, err := split(lines.Text())
		if len(args) > 0 && args[0] == toolName {
			args = args[1:]
		}
		if len(args) == 0 && err == nil {
			continue
		}
		if err := f(number, args, err); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading what to restore: %w", err)
	}
	return nil
}

// fatal reports whether a restore can't go on.
func fatal(err error) bool {
	var usage *usageError
	var nobody *Unavailable
	return errors.As(err, &usage) && !usage.goesOn || errors.As(err, &nobody)
}

// split cuts a line into words at blanks. Quotes of either kind keep blanks, and
// a backslash keeps any character.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case strings.ContainsRune(" \t\r", r):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, wrong("unfinished quote in %q", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
