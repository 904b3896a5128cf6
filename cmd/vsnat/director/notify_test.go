// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// The service manager hears when it serves, reloads, lives and ends.
func TestServiceManager(t *testing.T) {
	cables(t)
	folder := t.TempDir()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(folder, "notify"), Net: "unixgram"})
	must(t, err)
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(folder, "notify"))
	t.Setenv("WATCHDOG_USEC", "10000000")
	p := startProcess(t, folder, small)
	hears := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		for {
			must(t, manager.SetReadDeadline(time.Now().Add(20*time.Second)))
			n, err := manager.Read(b)
			must(t, err)
			if got := string(b[:n]); strings.HasPrefix(got, want) {
				return
			} else if got != "WATCHDOG=1" {
				t.Fatalf("it says %q, want %q", got, want)
			}
		}
	}
	hears("READY=1")
	p.wants("ready")
	_, err = control.NewClient(p.socket).Reload(t.Context())
	must(t, err)
	hears("RELOADING=1\nMONOTONIC_USEC=")
	hears("READY=1")
	hears("WATCHDOG=1")
	must(t, p.stdin.Close())
	hears("STOPPING=1")
	p.wants("over <nil>")
	must(t, p.cmd.Wait())
}

// Without a manager nothing is said, and another process's watchdog is not ours.
func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := openSupervisor()
	must(t, err)
	s.ready()
	s.alive()
	s.close()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "1")
	t.Setenv("WATCHDOG_PID", "1")
	s, err = openSupervisor()
	must(t, err)
	defer s.close()
	if s.watchdog || os.Getenv("NOTIFY_SOCKET") != "" {
		t.Errorf("watchdog %v, environment %q", s.watchdog, os.Getenv("NOTIFY_SOCKET"))
	}
	t.Setenv("NOTIFY_SOCKET", path+"x")
	if _, err := openSupervisor(); err == nil {
		t.Error("nobody is there, and yet no error")
	}
}
