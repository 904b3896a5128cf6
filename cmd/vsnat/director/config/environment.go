// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"strings"
)

// References to the environment. In a value, and nowhere else, ${NAME} stands for
// a variable and ${NAME:-default} for one that may be missing or empty; $$ is a
// dollar sign, and so is a $ before anything else. What a variable holds is a
// value, never YAML.

// Lookup finds a variable, as os.LookupEnv does.
type Lookup func(name string) (value string, found bool)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const dollarHint = "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign"

// expand replaces the references in a value. It reports false if it noted a problem.
func (p *problems) expand(value string, at Position) (string, bool) {
	if !strings.Contains(value, "$") {
		return value, true
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(value, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), true
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			value = rest[1:]
		case !strings.HasPrefix(rest, "{"):
			b.WriteByte('$')
			value = rest
		default:
			reference, behind, closed := strings.Cut(rest[1:], "}")
			if !closed {
				p.add(at, dollarHint, "a reference to the environment is never closed")
				return "", false
			}
			text, ok := p.variable(reference, at)
			if !ok {
				return "", false
			}
			b.WriteString(text)
			value = behind
		}
	}
}

// variable is what stands for a reference, of which the braces are taken off.
func (p *problems) variable(reference string, at Position) (string, bool) {
	name, standard, hasStandard := strings.Cut(reference, ":-")
	if !variableName.MatchString(name) {
		p.add(at, dollarHint, "${%.60s} does not name a variable", reference)
		return "", false
	}
	if p.env == nil {
		p.add(at, "write the value", "there is no environment here: ${%.60s} means nothing", name)
		return "", false
	}
	value, found := p.env(name)
	switch {
	case value == "" && hasStandard:
		return standard, true
	case !found:
		p.add(at, "set it for the program that reads the file, or write ${"+name+":-default}", "%.60s is not set in the environment", name)
		return "", false
	}
	if where, what := badByte([]byte(value)); what != "" || strings.ContainsAny(value, "\n\t") {
		if what == "" || where.Line > 1 {
			what = "a line break or a tab"
		}
		p.add(at, "a value is one line of text", "the value of %.60s in the environment has %s", name, what)
		return "", false
	}
	return value, true
}

// undollared writes a text so that expand reads it back.
func undollared(s string) string { return strings.ReplaceAll(s, "$", "$$") }
