// SPDX-License-Identifier: Apache-2.0

package ifacetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Runner is *testing.M.
type Runner interface{ Run() int }

// TB is the part of testing.TB that is needed here.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// marker tells a test binary that it runs in the namespace made for it; its value
// is markerInside, or the reason why there is none.
const (
	marker       = "VSNAT_TEST_NAMESPACE"
	markerInside = "inside"
)

// Main runs the tests in a new network namespace, which ends with them: the test
// binary executes itself again, as root with a network namespace only, otherwise
// also with a user namespace in which the caller is root. It returns the exit
// code for os.Exit. Where the system permits no namespace the tests run where
// they are, and those that ask for one are skipped with the reason.
func Main(m Runner) int {
	switch os.Getenv(marker) {
	case "":
	case markerInside:
		if err := loopbackUp(); err != nil {
			fmt.Fprintf(os.Stderr, "ifacetest: %v\n", err)
			return 1
		}
		return m.Run()
	default:
		return m.Run()
	}

	// The child dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), marker+"="+markerInside)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = namespaceAttributes()
	if err := child.Start(); err != nil {
		os.Setenv(marker, err.Error())
		return m.Run()
	}
	err := child.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	fmt.Fprintf(os.Stderr, "ifacetest: the tests in the namespace: %v\n", err)
	return 1
}

func namespaceAttributes() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() == 0 {
		return attributes
	}
	attributes.Cloneflags |= unix.CLONE_NEWUSER
	attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	return attributes
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set the loopback up: %w", err)
	}
	return nil
}

// InNamespace skips the test, with the reason, where Main could not make a
// namespace; it fails the test when the package does not use Main, so that no
// test ever touches the links of the host.
func InNamespace(t TB) {
	t.Helper()
	switch state := os.Getenv(marker); state {
	case markerInside:
	case "":
		t.Fatalf("no network namespace: TestMain does not call ifacetest.Main")
	default:
		t.Skipf("no network namespace can be made here: %s", state)
	}
}

// Namespace is a network namespace beside the one the tests run in. It ends with
// the test that made it, and its links with it.
type Namespace struct {
	// Handle speaks netlink inside the namespace, from any goroutine.
	Handle *netlink.Handle

	file netns.NsHandle
}

// NewNamespace makes a namespace with its loopback up.
func NewNamespace(t TB) *Namespace {
	t.Helper()
	InNamespace(t)
	n := &Namespace{file: -1}
	err := onThread(func() error {
		file, err := netns.New() // of this thread only
		if err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		n.file = file
		return loopbackUp()
	})
	if err == nil {
		n.Handle, err = netlink.NewHandleAt(n.file, unix.NETLINK_ROUTE)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		n.Handle.Close()
		n.file.Close()
	})
	return n
}

// Do runs f on a thread inside the namespace and returns its error. Sockets
// opened there stay in the namespace wherever they are used later; goroutines
// started by f run outside.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.file); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// FD is the descriptor of the namespace, for netlink.LinkSetNsFd.
func (n *Namespace) FD() int { return int(n.file) }

// onThread runs f on a thread of its own. The thread ends with f, since it is
// never unlocked: what it changed about itself can reach nobody else.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// NewCable makes a veth pair, each end up: name here, peer in the other
// namespace (nil: here too). It returns the link of this end.
func NewCable(t TB, name string, there *Namespace, peer string) netlink.Link {
	t.Helper()
	InNamespace(t)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}
	handle := &netlink.Handle{}
	if there != nil {
		veth.PeerNamespace = netlink.NsFd(there.file)
		handle = there.Handle
	}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("make veth %s: %v", name, err)
	}
	t.Cleanup(func() { netlink.LinkDel(veth) })
	here, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("find veth %s: %v", name, err)
	}
	far, err := handle.LinkByName(peer)
	if err != nil {
		t.Fatalf("find veth %s: %v", peer, err)
	}
	if err := errors.Join(netlink.LinkSetUp(here), handle.LinkSetUp(far)); err != nil {
		t.Fatalf("set veth %s and %s up: %v", name, peer, err)
	}
	return here
}

// SetAddress gives a link of the namespace an address with its prefix length,
// such as "192.0.2.1/24".
func (n *Namespace) SetAddress(t TB, link, address string) {
	t.Helper()
	l, err := n.Handle.LinkByName(link)
	if err != nil {
		t.Fatalf("find link %s: %v", link, err)
	}
	parsed, err := netlink.ParseAddr(address)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := n.Handle.AddrAdd(l, parsed); err != nil {
		t.Fatalf("address %s on %s: %v", address, link, err)
	}
}
