// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func TestListenModes(t *testing.T) {
	dir := folder(t)
	for i, tt := range []struct {
		umask        int
		options      control.ListenOptions
		file, folder fs.FileMode
	}{
		{0o022, control.ListenOptions{}, 0o600, 0o700},
		{0, control.ListenOptions{}, 0o600, 0o700},
		{0o077, control.ListenOptions{Mode: 0o660, Group: strconv.Itoa(os.Getegid())}, 0o660, 0o750},
	} {
		below := filepath.Join(dir, strconv.Itoa(i), "vsnat")
		old := unix.Umask(tt.umask)
		l, err := control.Listen(filepath.Join(below, "s"), tt.options)
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		file, err1 := os.Lstat(filepath.Join(below, "s"))
		folder, err2 := os.Lstat(below)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if file.Mode().Perm() != tt.file || folder.Mode().Perm() != tt.folder {
			t.Errorf("umask %03o: socket %v, folder %v", tt.umask, file.Mode(), folder.Mode())
		}
		l.Close()
		left, err := os.ReadDir(below)
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	dir := folder(t)
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(at("open"), 0o700))
	must(os.Mkdir(at("open", "inner"), 0o700))
	must(os.Chmod(at("open"), 0o777))
	must(os.WriteFile(at("file"), []byte("precious"), 0o600))
	must(os.Symlink(at("file"), at("link")))
	must(os.Symlink(at("elsewhere"), at("hanging")))
	must(os.Mkdir(at("folder"), 0o700))
	must(os.Symlink(at("file"), at("locked.lock")))
	for _, tt := range []struct {
		path, group, want string
	}{
		{"relative/s", "", "needs an absolute path"},
		{at(strings.Repeat("x", 120)), "", "at most 107 bytes"},
		{at("open", "s"), "", "everybody can write there"},
		{at("open", "inner", "s"), "", "everybody can write there"},
		{at("file"), "", "is there and is not a socket"},
		{at("folder"), "", "is there and is not a socket"},
		{at("link"), "", "is a symbolic link"},
		{at("hanging"), "", "is a symbolic link"},
		{at("locked"), "", "is a symbolic link"},
		{at("s"), "no-such-group", "there is no group"},
	} {
		l, err := control.Listen(tt.path, control.ListenOptions{Group: tt.group})
		if err == nil {
			l.Close()
		}
		var e *control.Error
		if !errors.As(err, &e) || !strings.Contains(e.Message, tt.want) || e.Hint == "" {
			t.Errorf("%s: %v; want %s", tt.path, err, tt.want)
		}
	}
	if text, err := os.ReadFile(at("file")); string(text) != "precious" {
		t.Errorf("the file in the way: %q, %v", text, err)
	}
	if _, err := os.Lstat(at("elsewhere")); err == nil {
		t.Error("the symbolic link was followed")
	}
	// /tmp is everybody's too, but sticky: nobody can replace our socket there.
	must(os.Chmod(at("open"), 0o777|fs.ModeSticky))
	l, err := control.Listen(at("open", "s"), control.ListenOptions{})
	must(err)
	l.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil { // what a crash leaves
		t.Fatal(err)
	}
	again, err := control.Listen(path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestSecondDirector(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	first, err := control.Listen(path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := control.Listen(path, control.ListenOptions{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("a director (process %d) is running already at %s", os.Getpid(), path)) {
		t.Errorf("got %v, %v", second, err)
	}
	// Also when the lock is gone, and the one that listens is something else.
	os.Remove(path + ".lock")
	if second, err := control.Listen(path, control.ListenOptions{}); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("got %v, %v", second, err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one lost its socket: %v", err)
	} else {
		c.Close()
	}
}

// A second Close does not touch the next director's socket and lock.
func TestCloseTwice(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	first, err := control.Listen(path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	next, err := control.Listen(path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	first.Close()
	for _, file := range []string{path, path + ".lock"} {
		if _, err := os.Lstat(file); err != nil {
			t.Error(err)
		}
	}
}

// Closing leaves alone what has taken the socket's place.
func TestCloseKeepsSuccessor(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := control.Listen(path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("other"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if text, err := os.ReadFile(path); string(text) != "other" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestPermits(t *testing.T) {
	for _, tt := range []struct {
		own  int
		peer uint32
		ok   bool
	}{{0, 0, true}, {1000, 0, true}, {1000, 1000, true}, {0, 1000, false}, {1000, 1001, false}, {1000, 65534, false}, {1000, 1<<32 - 1, false}} {
		if err := control.Permits(tt.own, tt.peer); (err == nil) != tt.ok {
			t.Errorf("user %d to a director of user %d: %v", tt.peer, tt.own, err)
		}
	}
}
