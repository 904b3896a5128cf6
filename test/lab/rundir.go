// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// programNames are the names under which commands in the lab find this program.
var programNames = []string{"vsnat", "ipvsadm", "ipvsadm-save", "ipvsadm-restore"}

// basePath returns the directory that holds the run directories of this user's labs.
func basePath() string {
	parent := os.Getenv("XDG_RUNTIME_DIR")
	if s, err := os.Stat(parent); parent == "" || err != nil || !s.IsDir() || !owned(s) {
		parent = "/tmp"
	}
	return filepath.Join(parent, "vsnat-lab-"+strconv.Itoa(os.Geteuid()))
}

// baseDir makes basePath if it is not there: mode 0700. It refuses one that belongs
// to somebody else. Another lab that ends at this moment may just be removing it,
// hence the few attempts.
func baseDir() (string, error) {
	dir, err := basePath(), error(nil)
	for range 5 {
		if err = os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return "", fmt.Errorf("directory of the lab: %w", err)
		}
		if err = checkBase(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return dir, err
}

// checkBase refuses a base directory that others can write to; the error is
// fs.ErrNotExist for none.
func checkBase(dir string) error {
	s, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("directory of the lab: %w", err)
	}
	if !s.IsDir() || !owned(s) || s.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s must be a directory of yours with mode 0700\nhint: remove it", dir)
	}
	return nil
}

func owned(s os.FileInfo) bool {
	sys, ok := s.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid()
}

// newRunDir makes a run directory of its own for one lab. Another lab that ends
// at this moment may just be removing the base directory, hence the few attempts.
func newRunDir() (dir string, err error) {
	for range 5 {
		var base string
		if base, err = baseDir(); err != nil {
			return "", err
		}
		if dir, err = os.MkdirTemp(base, "run-"); err == nil {
			return dir, nil
		}
	}
	return "", err
}

// removeRunDir removes a run directory, and the base directory if it was the last.
func removeRunDir(dir string) error {
	err := os.RemoveAll(dir)
	os.Remove(filepath.Dir(dir)) // fails if other labs run
	return err
}

// linkPrograms makes a directory with links named as programNames to the program of
// MainBuilt, or else to the running one. To that they lead through /proc, since `go
// run` and `go test` delete their binaries, and not to "self", which would be whoever
// follows the link.
func linkPrograms(dir string) (string, error) {
	program := os.Getenv(programVariable)
	if program == "" {
		self, err := os.Readlink("/proc/self")
		if err != nil {
			return "", err
		}
		program = filepath.Join("/proc", self, "exe")
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return "", err
	}
	for _, name := range programNames {
		if err := os.Symlink(program, filepath.Join(bin, name)); err != nil {
			return "", err
		}
	}
	return bin, nil
}

// isProgramName reports whether a process was called as the program under test.
func isProgramName(arg0 string) bool {
	return slices.Contains(programNames, filepath.Base(arg0))
}
