// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"golang.org/x/sys/unix"
)

// Read reads and parses a configuration file, with the files that it includes and
// the environment of the process. Only regular files are read, and of them at most
// MaxFile bytes: opening never waits (as it would on a FIFO) and a mistaken path
// costs nothing. What is wrong with a file itself is an *Error too, so that every
// refusal has a hint.
func Read(path string) (*Config, error) {
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	l := &loader{problems: &problems{file: path, env: os.LookupEnv}}
	l.load(path, data, info, filepath.Dir(path), Position{})
	return l.finish(path)
}

// ReadFrom is Read for a text that has no file. What it includes is relative to the
// working directory.
func ReadFrom(name string, in io.Reader) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(in, MaxFile+1))
	if err != nil {
		return nil, err
	}
	l := &loader{problems: &problems{file: name, env: os.LookupEnv}}
	l.load(name, data, nil, ".", Position{})
	return l.finish(name)
}

// Parse makes a Config of a text that is a configuration by itself: it can include
// nothing, and refer to no environment. name is what it is called in messages. The
// error is an *Error that tells everything that is wrong.
func Parse(name string, data []byte) (*Config, error) {
	l := &loader{problems: &problems{file: name}}
	l.load(name, data, nil, "", Position{})
	return l.finish(name)
}

// finish gives what was read its meaning. A problem found before that may be of a
// file whose rest is then not known, so that what is missing is no problem.
func (l *loader) finish(name string) (*Config, error) {
	if l.raw.At.Line == 0 && len(l.list) > 0 && reflect.ValueOf(l.raw).IsZero() {
		return nil, l.err()
	}
	l.file = name
	c := reader{problems: l.problems}.config(&l.raw)
	if err := l.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func readFile(path string) ([]byte, fs.FileInfo, error) {
	refuse := func(hint, format string, args ...any) ([]byte, fs.FileInfo, error) {
		p := &problems{file: path}
		p.add(Position{}, hint, format, args...)
		return nil, nil, p.err()
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("vsnat config init > "+path+" writes one to start from", "there is no such file")
	case errors.Is(err, fs.ErrPermission):
		return refuse("run as root, or change the file's mode", "permission denied")
	case err != nil:
		return refuse("check the path", "can't be opened: %v", errors.Unwrap(err))
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return refuse("give the path of a configuration file", "is %s, not a file", fileKind(info.Mode()))
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, info, nil // load refuses one that is too large
}

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
