// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Read reads and parses a configuration file. Only a regular file is
// read, and of that at most MaxFile bytes: opening never waits (as it would
// on a FIFO) and a mistaken path costs nothing. What is wrong with the file
// itself is an *Error too, so that every refusal has a hint.
func Read(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

func readFile(path string) ([]byte, error) {
	refuse := func(hint, format string, args ...any) error {
		p := &problems{file: path}
		p.add(Position{}, hint, format, args...)
		return p.err()
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse("vsnat config init > "+path+" writes one to start from", "there is no such file")
	case errors.Is(err, fs.ErrPermission):
		return nil, refuse("run as root, or change the file's mode", "permission denied")
	case err != nil:
		return nil, refuse("check the path", "can't be opened: %v", errors.Unwrap(err))
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, refuse("give the path of a configuration file", "is %s, not a file", fileKind(info.Mode()))
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil // Parse refuses one that is too large
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
