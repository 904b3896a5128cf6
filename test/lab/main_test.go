// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleOfTest is set for processes that tests start out of this binary, to one of
// the roles below.
const roleOfTest = "LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func() (int, error){
		"demo":    func() (int, error) { return labProcess(Enter("")) },
		"hold":    func() (int, error) { return holdProcess(Hold()) },
		"exec":    execProcess,
		"refused": refusedProcess,
		"hidden":  hiddenProcess,
	}
	role := roles[os.Getenv(roleOfTest)]
	if role == nil || isProgramName(os.Args[0]) {
		os.Exit(Main(m, standIn))
	}
	status, err := role()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// labProcess is a lab as `vsnat lab` is: it says "ready" and ends by a signal.
func labProcess(place Place, err error) (int, error) {
	if err != nil || !place.Inside {
		return place.Status, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	c, err := Build(place, Config{Servers: 2})
	if err != nil {
		return 1, err
	}
	defer c.Close()
	if _, err := c.StartDirector(context.Background(), DirectorOptions{}); err != nil {
		return 1, err
	}
	// An orphan in a session of its own: nothing but the kernel can find it.
	err = c.Director.Command(context.Background(), "sh", "-c", "setsid sleep 600 & exit 0").Run()
	if err != nil {
		return 1, err
	}
	fmt.Println("ready")
	switch s := <-signals; {
	case s == unix.SIGTERM && os.Getenv("LAB_TEST_PANIC") != "":
		panic("as the test wants")
	case s == unix.SIGTERM && os.Getenv("LAB_TEST_HANG") != "":
		select {}
	}
	return 0, nil
}

// holdProcess is a lab as `vsnat lab up` is.
func holdProcess(place Place, err error) (int, error) {
	if err != nil || !place.Inside {
		return place.Status, err
	}
	fmt.Println("progress")
	c, err := Build(place, Config{Servers: 2})
	if err != nil {
		return 1, err
	}
	defer c.Close()
	if _, err := c.StartDirector(context.Background(), DirectorOptions{}); err != nil {
		return 1, err
	}
	return 0, c.Serve(context.Background(), place)
}

// execProcess runs NODE COMMAND… of LAB_TEST_ARGS in the held lab.
func execProcess() (int, error) {
	r, err := Open()
	if err != nil {
		return 1, err
	}
	args := strings.Split(os.Getenv("LAB_TEST_ARGS"), "\n")
	return r.Exec(args[0], args[1:])
}

// refusedProcess forbids its user namespace what LAB_TEST_SYSCTL names, gives up
// its capabilities and tries to enter a lab.
func refusedProcess() (int, error) {
	runtime.LockOSThread()
	if err := os.WriteFile(os.Getenv("LAB_TEST_SYSCTL"), []byte("0"), 0); err != nil {
		return 2, err
	}
	if err := loseCapabilities(); err != nil {
		return 2, err
	}
	place, err := Enter("")
	return place.Status, err
}

// loseCapabilities makes the calling thread one that needs a user namespace.
func loseCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	const lost = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	data[0].Effective &^= lost
	data[0].Permitted &^= lost
	data[0].Inheritable = 0
	return unix.Capset(&header, &data[0])
}

// hiddenProcess is a lab in a container that hides parts of /proc and has a
// read-only /proc/sys.
func hiddenProcess() (int, error) {
	if os.Getenv(roleVariable) == "" {
		runtime.LockOSThread()
		bind := uintptr(unix.MS_BIND)
		if err := errors.Join(
			unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("none", "/proc/fs", "tmpfs", 0, ""),
			unix.Mount("/proc/sys", "/proc/sys", "", bind, ""),
			unix.Mount("", "/proc/sys", "", bind|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
			loseCapabilities(),
		); err != nil {
			return 2, err
		}
	}
	return labProcess(Enter(""))
}

// standIn takes the place of vsnat and ipvsadm in the tests of this package. As
// a director it answers on its control socket and forwards nothing.
func standIn() int {
	if len(os.Args) < 2 || os.Args[1] != "run" {
		addrs, err := net.InterfaceAddrs()
		fmt.Println(strings.Join(os.Args, " "), os.Getenv("VSNAT_SOCKET"), addrs, err)
		return 3
	}

	config, err := os.ReadFile(os.Args[3])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("director log:", string(config))
	if string(config) == "bad" {
		return 4
	}
	if string(config) == "deaf" {
		time.Sleep(time.Hour) // nothing else runs here: the runtime calls a select a deadlock
	}
	l, err := net.Listen("unix", os.Getenv("VSNAT_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != healthPath {
			http.NotFound(w, r)
		}
	}))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	<-signals
	return 0
}

// waitFor polls until ok, for as long as a slow machine may need.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

// processesWith returns the processes whose environment has a setting.
func processesWith(t *testing.T, setting string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		environ, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		// A process in another user namespace that is just ending can't be looked at.
		// All that tests see are of their own making, so it is one of these, unless it
		// waits for nothing but its parent, the test.
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		ending := errors.Is(err, os.ErrPermission) && !strings.Contains(string(stat), ") Z ")
		if ending || err == nil && strings.Contains("\x00"+string(environ), "\x00"+setting+"\x00") {
			found = append(found, pid)
		}
	}
	return found
}
