// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is given up is given up for good: the tests' process has others do it.

// roleVariable tells the test binary what to be.
const roleVariable = "VSNAT_TEST_CONFINE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "director":
		os.Exit(beDirector())
	case "programs":
		os.Exit(bePrograms())
	}
	os.Exit(m.Run())
}

// confined runs the test binary in a role and returns what it says.
func confined(t *testing.T, role string) string {
	t.Helper()
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e == syscall.ENOTSUP {
		t.Log("built with cgo: nothing can be given up")
		return ""
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// An attempt is a call with arguments that do no harm if it is made, and its error.
type attempt struct {
	name      string
	number    uintptr
	arguments [6]uintptr
	want      syscall.Errno
}

// attempts are refused for who they are, and not for what they ask: without a filter
// each of them has another error, or none.
func attempts(path *byte) []attempt {
	name := uintptr(unsafe.Pointer(path))
	const nowhere = ^uintptr(0) // no descriptor, no process, no address
	return []attempt{
		{"execve", unix.SYS_EXECVE, [6]uintptr{name}, unix.EPERM},
		{"execveat", unix.SYS_EXECVEAT, [6]uintptr{nowhere, name}, unix.EPERM},
		{"clone", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWNS | unix.CLONE_FS}, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{name, 1}, unix.ENOSYS},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{nowhere}, unix.EPERM},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{0, 0, 0, 0, 0, 1}, unix.EPERM},
		{"kill", unix.SYS_KILL, [6]uintptr{uintptr(os.Getppid()), 0}, unix.EPERM},
		{"unshare", unix.SYS_UNSHARE, [6]uintptr{0}, unix.EPERM},
		{"setns", unix.SYS_SETNS, [6]uintptr{nowhere}, unix.EPERM},
		{"mount", unix.SYS_MOUNT, [6]uintptr{name, name}, unix.EPERM},
		{"bpf", unix.SYS_BPF, [6]uintptr{nowhere}, unix.EPERM},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{nowhere}, unix.EPERM},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{0, 0}, unix.EPERM},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{nowhere}, unix.EPERM},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{0}, unix.EPERM},
		{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{nowhere}, unix.EPERM},
		{"mmap", unix.SYS_MMAP, [6]uintptr{0, 4096, unix.PROT_EXEC | unix.PROT_READ, unix.MAP_ANON | unix.MAP_PRIVATE, nowhere}, unix.EPERM},
		{"socket", unix.SYS_SOCKET, [6]uintptr{unix.AF_ALG, unix.SOCK_STREAM}, unix.EPERM},
		{"newer than all", newest + 1, [6]uintptr{}, unix.ENOSYS},
	}
}

// beDirector gives up what a director does, and prints what is not as it should be:
// from another thread than the one that did it, and one that was there before.
func beDirector() int {
	began, confinedNow, ended := make(chan bool), make(chan bool), make(chan bool)
	path := []byte("/nowhere\x00")
	try := func() {
		for _, a := range attempts(&path[0]) {
			_, _, e := unix.Syscall6(a.number, a.arguments[0], a.arguments[1], a.arguments[2], a.arguments[3], a.arguments[4], a.arguments[5])
			if e != a.want {
				fmt.Printf("%s: %v, want %v\n", a.name, e, a.want)
			}
		}
	}
	go func() {
		runtime.LockOSThread()
		began <- true
		<-confinedNow
		try()
		close(ended)
	}()
	<-began
	if err := errors.Join(Capabilities(1<<unix.CAP_NET_RAW), Calls(Director())); err != nil {
		fmt.Println(err)
		return 1
	}
	close(confinedNow)
	<-ended
	try()

	// What it does go on doing: threads, files, sockets, signals to itself.
	for range 8 {
		done := make(chan bool)
		go func() { runtime.LockOSThread(); close(done) }() // ends with its thread
		<-done
	}
	temporary := filepath.Join(".", "file.new")
	if err := errors.Join(os.WriteFile(temporary, []byte("x"), 0o600), os.Rename(temporary, "file"), unix.Kill(os.Getpid(), 0)); err != nil {
		fmt.Println(err)
	}
	for _, family := range []int{unix.AF_UNIX, unix.AF_INET, unix.AF_NETLINK} {
		kind := unix.SOCK_DGRAM
		if family == unix.AF_NETLINK {
			kind = unix.SOCK_RAW
		}
		if _, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			fmt.Printf("socket of family %d: %v\n", family, err)
		}
	}
	if err := exec.Command("/bin/true").Run(); !errors.Is(err, unix.EPERM) {
		fmt.Println("a program can be run:", err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		fmt.Println(err)
	}
	for _, thread := range threads {
		text, err := os.ReadFile("/proc/self/task/" + thread.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		for _, line := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(text), line) {
				fmt.Printf("thread %s has not %q\n", thread.Name(), line)
			}
		}
	}
	return 0
}

// FAULTS 128: no program, no other process, no other kernel, whichever thread asks.
func TestDirectorIsConfined(t *testing.T) {
	if said := confined(t, "director"); said != "" {
		t.Error(said)
	}
}

// bePrograms gives up what a program for checks has no use for, and becomes one.
func bePrograms() int {
	if err := errors.Join(Capabilities(0), Calls(Programs())); err != nil {
		fmt.Println(err)
		return 1
	}
	err := unix.Exec("/bin/sh", []string{"sh", "-c", `sleep 10 & kill $! && (exec cat /proc/self/status) | grep -E '^(CapEff|NoNewPrivs|Seccomp):'
		unshare -U true 2>/dev/null && echo there are namespaces; true`}, os.Environ())
	fmt.Println(err)
	return 1
}

// Programs begin others and signal them, and have no rights.
func TestProgramsAreConfined(t *testing.T) {
	const want = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
	if said := confined(t, "programs"); said != want && said != "" {
		t.Errorf("it says %q, want %q", said, want)
	}
}
