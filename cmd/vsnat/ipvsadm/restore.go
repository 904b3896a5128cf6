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

// A restoring is a restore under way. Changes wait until there are many, or
// something else comes: each by itself would have the director do all its work
// anew.
type restoring struct {
	*session
	waiting       []*Command
	numbers       []int // of the lines that wait
	last          error // of the line before this one
	applied, read int
}

// mostWaiting is how many changes wait at the most.
const mostWaiting = 1000

// restore runs the command lines of the input. As with the tool, a line that the
// director refuses is reported and the next one is read, while one that makes no
// sense ends it all; and the result is the last line's. Beyond the tool, what
// failed is told by its line.
func (s *session) restore() error {
	if s.restoring {
		return tryHelp(s.program)
	}
	s.restoring = true
	r := &restoring{session: s}
	err := eachLine(s.stdin, r.line)
	if flushed := r.flush(); flushed != nil {
		err = flushed
	}
	if err == nil {
		err = r.last
	}
	if s.failed || err != nil {
		s.after = fmt.Sprintf("%d of %d lines that were read are in force", r.applied, r.read)
	}
	return err
}

// line takes one line up; its error ends the restore.
func (r *restoring) line(number int, args []string, err error) error {
	var c *Command
	if err == nil {
		c, err = Parse(r.program, args, r.names)
	}
	if err == nil && c.changes() {
		r.waiting, r.numbers = append(r.waiting, c), append(r.numbers, number)
		if len(r.waiting) < mostWaiting {
			return nil
		}
		return r.flush()
	}
	if flushed := r.flush(); flushed != nil {
		return flushed
	}
	if err == nil {
		err = r.run(c)
	}
	return r.result(number, err)
}

// changes reports whether a command may wait with others.
func (c *Command) changes() bool {
	switch c.Verb {
	case AddService, DeleteService, AddServer, EditServer, DeleteServer:
		return true
	}
	return false
}

// flush makes the changes that wait.
func (r *restoring) flush() error {
	list, numbers := r.waiting, r.numbers
	r.waiting, r.numbers = nil, nil
	if len(list) == 0 {
		return nil
	}
	d, err := r.director()
	if err != nil {
		return r.result(numbers[0], err)
	}
	b, ok := d.(Batcher)
	if !ok {
		for i, c := range list {
			if err := r.result(numbers[i], r.do(c, d)); err != nil {
				return err
			}
		}
		return nil
	}
	errs, err := b.Changes(list)
	if err != nil {
		r.read += len(list)
		return &lineError{err, numbers[0]}
	}
	for i := range list {
		if err := r.result(numbers[i], errs[i]); err != nil {
			return err
		}
	}
	return nil
}

// result takes note of what came of a line; its error ends the restore.
func (r *restoring) result(number int, err error) error {
	r.read++
	if r.last != nil {
		r.report(r.last)
	}
	if r.last = nil; err == nil {
		r.applied++
		return nil
	}
	r.last = &lineError{err, number}
	if fatal(err) {
		return r.last
	}
	r.failed = true
	return nil
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

// EachCommand reads a file as ipvsadm-restore does and calls f for each of its
// lines, with the words of it and what they mean, or why they mean nothing. Hosts
// and ports may have names that this system knows.
func EachCommand(input io.Reader, f func(line int, args []string, c *Command, err error)) error {
	names := newSystemResolver()
	return eachLine(input, func(number int, args []string, err error) error {
		var c *Command
		if err == nil {
			c, err = Parse(toolName, args, names)
		}
		f(number, args, c, err)
		return nil
	})
}
