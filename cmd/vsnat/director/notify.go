// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// supervisor is the service manager that started the process, which is told by the
// protocol of sd_notify(3) when it serves, reloads and ends, and that it is alive. Nil
// is one that nobody told of. Only decide and Run use it, one after the other.
type supervisor struct {
	conn     *net.UnixConn
	watchdog bool // it waits for signs of life
}

// noticeTime is how long the manager may take for a message. None is tried again:
// the next sign of life is a second away.
const noticeTime = 100 * time.Millisecond

// openSupervisor finds the manager by the environment, and takes it out there: the
// programs that the director starts have nothing to tell it.
func openSupervisor() (*supervisor, error) {
	address := os.Getenv("NOTIFY_SOCKET")
	pid, err := strconv.Atoi(os.Getenv("WATCHDOG_PID"))
	watchdog := os.Getenv("WATCHDOG_USEC") != "" && (err != nil || pid == os.Getpid())
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		os.Unsetenv(name)
	}
	if address == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("socket of the service manager: %w", err)
	}
	return &supervisor{conn, watchdog}, nil
}

func (s *supervisor) send(state string) {
	if s == nil {
		return
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(noticeTime))
	_, _ = s.conn.Write([]byte(state)) // there is nobody else to tell
}

// keptName is what the file is called that the manager keeps over a restart.
const keptName = "guard"

// store has the manager keep a file while the service restarts. If it stops, or the
// manager keeps none (FileDescriptorStoreMax), that is closed.
func (s *supervisor) store(f *os.File) {
	if s == nil {
		return
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	// As for send. Go sends no files by a connected socket for datagrams.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Sendmsg(int(fd), []byte("FDSTORE=1\nFDNAME="+keptName), unix.UnixRights(int(f.Fd())), nil, unix.MSG_DONTWAIT)
	})
}

// forget has it close what store gave it.
func (s *supervisor) forget() { s.send("FDSTOREREMOVE=1\nFDNAME=" + keptName) }

// inherited are the files that the manager has kept, by the protocol of
// sd_listen_fds(3). They are the caller's; programs started later do not get them.
func inherited() (files []*os.File) {
	const first = 3
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if err == nil && pid != os.Getpid() {
		return nil
	}
	for i, name := range names[:max(0, min(count, len(names)))] {
		unix.CloseOnExec(first + i)
		if name == keptName {
			files = append(files, os.NewFile(uintptr(first+i), name))
		}
	}
	return files
}

// ready says that the director serves, or has ended a reload.
func (s *supervisor) ready() { s.send("READY=1") }

// reloading says that the configuration is being taken up.
func (s *supervisor) reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	s.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

func (s *supervisor) stopping() { s.send("STOPPING=1") }

// alive is a sign of life. decide gives one a tick, in which each packet loop has
// answered: if one hangs, there is none.
func (s *supervisor) alive() {
	if s != nil && s.watchdog {
		s.send("WATCHDOG=1")
	}
}

func (s *supervisor) close() {
	if s != nil {
		_ = s.conn.Close()
	}
}
