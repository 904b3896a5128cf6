// SPDX-License-Identifier: Apache-2.0

package recorded

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed testdata/*.txt
var files embed.FS

// A Step is a remark, or a command with what came of it.
type Step struct {
	Line   int // in the file
	Remark string

	Command        string
	Stdout, Stderr string
	Code           int
}

// Session returns the steps of a file, such as "seed.txt".
func Session(name string) ([]Step, error) {
	text, err := files.ReadFile("testdata/" + name)
	if err != nil {
		return nil, err
	}
	var steps []Step
	var s Step
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "# "):
			steps = append(steps, Step{Line: i + 1, Remark: line[2:]})
		case strings.HasPrefix(line, "$ "):
			s = Step{Line: i + 1, Command: line[2:]}
		case strings.HasPrefix(line, "1| "):
			s.Stdout += line[3:] + "\n"
		case strings.HasPrefix(line, "2| "):
			s.Stderr += line[3:] + "\n"
		case strings.HasPrefix(line, "=> "):
			if _, err := fmt.Sscanf(line, "=> %d", &s.Code); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
			}
			steps = append(steps, s)
		}
	}
	return steps, nil
}

// Args are the words of a command of the tool, and what was piped into it. They
// are nil for a remark, another program, and what needs a shell.
func (s Step) Args() (args []string, stdin string) {
	command := s.Command
	if quoted, ok := strings.CutPrefix(command, "printf -- '"); ok {
		stdin, command, _ = strings.Cut(quoted, "' | ")
		stdin = strings.ReplaceAll(stdin, `\n`, "\n")
	}
	if !strings.HasPrefix(command, "ipvsadm") || strings.ContainsAny(command, ";>") {
		return nil, ""
	}
	for word := range strings.FieldsSeq(command) {
		args = append(args, strings.ReplaceAll(word, "''", ""))
	}
	return args, stdin
}

// View is the file under /proc/net that the command showed, "" if it did not.
func (s Step) View() string {
	name, ok := strings.CutPrefix(s.Command, "cat /proc/net/")
	if !ok {
		return ""
	}
	return name
}
