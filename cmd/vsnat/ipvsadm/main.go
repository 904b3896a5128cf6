// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"bytes"
	"io"
	"path/filepath"
	"slices"
)

// Names a program may be called by to be this tool.
const (
	toolName    = "ipvsadm"
	saveName    = "ipvsadm-save"
	restoreName = "ipvsadm-restore"
)

// IsName reports whether a program called by this name or path is to be the tool.
func IsName(name string) bool {
	return slices.Contains([]string{toolName, saveName, restoreName}, filepath.Base(name))
}

// Main runs one command line, as ipvsadm, ipvsadm-save or ipvsadm-restore after
// the name in args[0], and returns the exit code. Connect is called when a
// director is needed, at most once. Stdin is read by a restore only.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, connect func() (Director, error)) int {
	return Run(args, stdin, stdout, stderr, newSystemResolver(), connect)
}

// Run is Main with names of the caller's own.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer, names Resolver, connect func() (Director, error)) int {
	program := toolName
	if len(args) > 0 {
		program, args = filepath.Base(args[0]), args[1:]
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()
	s := &session{program: toolName, stdin: stdin, stdout: out, stderr: stderr, names: names, connect: connect}
	switch program {
	case saveName:
		args = append([]string{"-S"}, args...)
	case restoreName:
		return s.restoreAll(args)
	}
	if len(args) == 0 {
		args = []string{"-L"}
	}
	return s.end(s.line(args))
}

// restoreAll is what ipvsadm-restore is: the table is cleared, and the input, which
// may have comments, is restored. Beyond that program, input that does not make
// sense as a whole changes nothing, and a line that is refused is no success.
func (s *session) restoreAll(args []string) int {
	if len(args) > 0 {
		_, err := Parse(restoreName, append([]string{"-R"}, args...), s.names)
		if err == nil {
			err = tryHelp(restoreName)
		}
		return s.report(err)
	}
	input, err := io.ReadAll(s.stdin)
	if err != nil {
		return s.report(err)
	}
	lines := bytes.Split(input, []byte("\n"))
	for i := range lines {
		if bytes.HasPrefix(lines[i], []byte("#")) {
			lines[i] = nil
		}
	}
	input = bytes.Join(lines, []byte("\n"))
	if err := s.understood(input); err != nil {
		s.after = "nothing was changed"
		return s.end(err)
	}
	if err := s.line([]string{"-C"}); err != nil {
		return s.report(err)
	}
	s.stdin = bytes.NewReader(input)
	code := s.end(s.line([]string{"-R"}))
	if s.failed && code == exitOK {
		return exitRefused
	}
	return code
}
