// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions are who may use a control socket.
type ListenOptions struct {
	Mode  fs.FileMode // of the socket's file; 0: 0600
	Group string      // name or number of the group the file belongs to; "": that of the process
}

// Listener is a control socket. Close removes its file.
type Listener struct {
	*net.UnixListener
	path  string
	lock  *os.File
	file  os.FileInfo // of the socket, to remove no other
	group bool        // the file's mode decides who may speak, not only the uid
	once  sync.Once   // for Close
}

// Listen makes the control socket. Its folder is made too, with mode 0700, or
// 0750 for a group. Refusals are *Error:
//
//   - a folder that strangers can write to or own: they could replace the socket
//   - a symbolic link, a file or somebody else's socket in its place
//   - another director on the same path, named by its process id
//
// A socket that nobody listens on any more is replaced.
func Listen(path string, o ListenOptions) (*Listener, error) {
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if !filepath.IsAbs(path) || len(path) > MaxSocketPath {
		return nil, Refuse(CodeInvalid, fmt.Sprintf("the control socket needs an absolute path of at most %d bytes, not %q", MaxSocketPath, path), "for example /run/vsnat/control.sock")
	}
	gid := -1
	if o.Group != "" {
		var err error
		if gid, err = groupID(o.Group); err != nil {
			return nil, err
		}
	}
	if err := makeFolder(filepath.Dir(path), gid); err != nil {
		return nil, err
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	l, err := listen(path, o.Mode, gid)
	if err != nil {
		releaseLock(lock)
		return nil, err
	}
	l.lock = lock
	return l, nil
}

// listen is Listen's last part, under the lock.
func listen(path string, mode fs.FileMode, gid int) (*Listener, error) {
	if err := clearPlace(path); err != nil {
		return nil, err
	}
	// The mode of the new file is the one of the socket at bind time, less the
	// umask (unix_bind): it is never wider than asked for, not for a moment.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(0o600)) }), err)
	}}
	ln, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u := ln.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	l := &Listener{UnixListener: u, path: path, group: gid >= 0}
	if gid >= 0 {
		err = os.Lchown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err == nil {
		l.file, err = os.Lstat(path)
	}
	if err != nil {
		u.Close()
		os.Remove(path)
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// Close stops listening and removes the socket's file, unless another file
// has taken its place. Only the first call does anything: by the second, the
// path may be another director's.
func (l *Listener) Close() (err error) {
	l.once.Do(func() {
		err = l.UnixListener.Close()
		if now, e := os.Lstat(l.path); e == nil && os.SameFile(now, l.file) {
			os.Remove(l.path)
		}
		releaseLock(l.lock)
	})
	return err
}

// permitted reports whether the peer of an accepted connection may speak.
func (l *Listener) permitted(c net.Conn) error {
	if l.group {
		return nil // connect(2) asked the file's mode already
	}
	cred, err := peer(c)
	if err != nil {
		return fmt.Errorf("credentials of the peer: %w", err)
	}
	return permits(os.Geteuid(), cred.Uid)
}

// permits is the rule without a group: root, and the director's own user.
func permits(own int, peer uint32) error {
	if peer == 0 || int64(peer) == int64(own) {
		return nil
	}
	return Refuse(CodeNotPermitted, fmt.Sprintf("user %d may not speak to this director", peer), permissionHint)
}

// peer is who is at the other end: for an accepted connection, the process
// that connected; for a client's, the one that listens.
func peer(c net.Conn) (*unix.Ucred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%T is not a unix socket", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, inner)
}

// groupID is the number of a group given by name or number.
func groupID(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, Refuse(CodeInvalid, fmt.Sprintf("there is no group %q", name), "groups are listed in /etc/group")
	}
	return strconv.Atoi(g.Gid)
}

// makeFolder makes the socket's folder, where there is none.
func makeFolder(folder string, gid int) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("folder of the control socket: %w", err)
	}
	if gid < 0 {
		return nil
	}
	if err := errors.Join(os.Chown(folder, -1, gid), os.Chmod(folder, 0o750)); err != nil {
		return fmt.Errorf("folder of the control socket: %w", err)
	}
	return nil
}

// checkFolder walks down to a folder and refuses any part in which somebody
// else could put another socket in the place of ours.
func checkFolder(folder string) error {
	folder, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return fmt.Errorf("folder of the control socket: %w", err)
	}
	mapped := userNamespace()
	for part := folder; ; part = filepath.Dir(part) {
		info, err := os.Lstat(part)
		if err != nil {
			return fmt.Errorf("folder of the control socket: %w", err)
		}
		owner := info.Sys().(*syscall.Stat_t).Uid
		switch {
		case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
			return Refuse(CodeNotPermitted, fmt.Sprintf("the control socket can't be below %s: everybody can write there", part), "choose another path, or chmod o-w "+part)
		case owner != 0 && int(owner) != os.Geteuid() && !mapped:
			return Refuse(CodeNotPermitted, fmt.Sprintf("the control socket can't be below %s: it belongs to user %d", part, owner), "choose a path in a folder of root or of your own")
		}
		if part == filepath.Dir(part) {
			return nil
		}
	}
}

// userNamespace reports whether not all users have a number here. Folders of
// the host's root then seem to belong to nobody, and owners tell nothing.
func userNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, count uint64
	if _, e := fmt.Sscan(string(text), &inside, &outside, &count); err != nil || e != nil {
		return false
	}
	return count != 1<<32-1
}

// takeLock makes this process the only one that may have a socket at path.
func takeLock(path string) (*os.File, error) {
	name := path + ".lock"
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if errors.Is(err, unix.ELOOP) {
			return nil, Refuse(CodeNotPermitted, name+" is a symbolic link", "remove it")
		}
		if err != nil {
			return nil, fmt.Errorf("lock of the control socket: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, running(path)
			}
			return nil, fmt.Errorf("lock of the control socket: %w", err)
		}
		// The one before us may have removed the file between our open and
		// our lock; then another can lock its successor.
		mine, err1 := f.Stat()
		there, err2 := os.Lstat(name)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
	}
}

func releaseLock(f *os.File) {
	os.Remove(f.Name())
	f.Close()
}

// clearPlace removes a socket that nobody listens on, and refuses anything else.
func clearPlace(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return Refuse(CodeNotPermitted, path+" is a symbolic link", "remove it, or choose another path for the control socket")
	case info.Mode()&fs.ModeSocket == 0:
		return Refuse(CodeInvalid, path+" is there and is not a socket", "move it away, or choose another path for the control socket")
	case !userNamespace() && info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) && os.Geteuid() != 0:
		return Refuse(CodeNotPermitted, path+" belongs to another user", "choose another path for the control socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return running(path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		// A full backlog (EAGAIN) means that somebody lives there.
		return running(path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("stale control socket: %w", err)
	}
	return nil
}

// running is the refusal of a second director.
func running(path string) error {
	who := "another director"
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		defer c.Close()
		if cred, err := peer(c); err == nil && cred.Pid > 0 {
			who = fmt.Sprintf("a director (process %d)", cred.Pid)
		}
	}
	return Refuse(CodeUnavailable, who+" is running already at "+path, "stop it, or give this one another socket with --socket")
}
