// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// longestLine is what a line of a restore may have, in bytes.
const longestLine = 64 << 10

// restore runs the command lines of the input. As with the tool, a line that the
// director refuses is reported and the next one is read, while one that makes no
// sense ends it all; and the result is the last line's.
func (s *session) restore() error {
	if s.restoring {
		return tryHelp(s.program)
	}
	s.restoring = true
	lines := bufio.NewScanner(s.stdin)
	lines.Buffer(nil, longestLine)
	var last error
	for lines.Scan() {
		args, err := split(lines.Text())
		if err != nil {
			return err
		}
		if len(args) > 0 && args[0] == toolName {
			args = args[1:]
		}
		if len(args) == 0 {
			continue
		}
		if last != nil {
			s.report(last)
		}
		last = s.line(args)
		if fatal(last) {
			return last
		}
	}
	if err := lines.Err(); err != nil {
		return errors.Join(last, fmt.Errorf("reading what to restore: %w", err))
	}
	return last
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
