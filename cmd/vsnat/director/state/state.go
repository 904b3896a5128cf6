// SPDX-License-Identifier: Apache-2.0

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Version is that of the form of files which Write writes and Read reads.
const Version = 1

// MaxBody is the longest body of a record, in bytes.
const MaxBody = 1<<16 - 1

const (
	magic     = "vsnat state "
	endKind   = 0
	endBody   = 12
	maxHeader = 4 << 10 // of a line
	buffer    = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Header says of which host a file is, and when it was written.
type Header struct {
	Boot    string        `json:"boot"`    // run of the kernel
	Since   time.Duration `json:"since"`   // from the boot to when it was written, suspensions included
	Written time.Time     `json:"written"` // on the wall clock, for people
	By      string        `json:"by"`      // version of the program, for people
}

// Now is the header of a file that this process writes now.
func Now(by string) (Header, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Header{}, fmt.Errorf("which run of the kernel this is: %w", err)
	}
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return Header{}, fmt.Errorf("time since the boot: %w", err)
	}
	return Header{Boot: strings.TrimSpace(string(boot)), Since: time.Duration(since.Nano()), Written: time.Now(), By: by}, nil
}

// Elapsed is how much later now is. It reports false if it is not of the same run of the
// kernel, or is not later.
func (h *Header) Elapsed(now Header) (time.Duration, bool) {
	return now.Since - h.Since, h.Boot == now.Boot && h.Boot != "" && now.Since >= h.Since
}

func (h *Header) lines() ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%d\n%s\n", magic, Version, text), nil
}

// PutAside renames a file that is not believed, and returns its new name. What is no file
// stays where it is.
func PutAside(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	aside := path + ".bad"
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, nil
}

// temporary is the name of a file that is not whole yet.
func temporary(path string) string { return path + ".new" }

// Check tries whether a file could be written.
func Check(path string) error {
	f, err := create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// create makes the file that becomes path at last. One that is there already was left by a
// process that was ended while it wrote.
func create(path string) (*os.File, error) {
	name := temporary(path)
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
}
