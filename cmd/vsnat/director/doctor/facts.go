// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// facts are what the kernel says of this host. Checks read nothing else of it, so
// that a test can say what it likes.
type facts struct {
	topology     iface.Topology
	capabilities uint32            // effective ones, of the lower half
	sysctls      map[string]string // by path below /proc/sys; what cannot be read is missing
	guards       map[string]error  // by method: why it cannot be had; nil: not tried
	tun          error             // why /dev/net/tun cannot be opened
	namespaces   error             // why a user namespace cannot be made
	busy         []iface.BusyPort  // ports that sockets hold
	lro          map[string]bool   // by link: the driver merges segments for good
	xdp          map[string]bool   // by link: a program sees frames before we do
	files        uint64            // descriptors that a process may have
	available    uint64            // bytes of memory
	now          time.Time
	built        time.Time // when this program was, or zero
	clocksource  string
}

const wantedCapabilities = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN

// permitted reports whether packet sockets can be had.
func (f *facts) permitted() bool { return f.capabilities>>unix.CAP_NET_RAW&1 == 1 }

// sysctlPaths are the settings that checks look at, beside those of each link.
var sysctlPaths = []string{
	"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter",
	"user/max_user_namespaces", "kernel/unprivileged_userns_clone",
}

// readFacts reads them. Guards are tried only if asked for: a director at work has
// what a second one could not get.
func readFacts(tryGuards bool) (*facts, error) {
	f := &facts{
		sysctls: make(map[string]string), lro: make(map[string]bool), xdp: make(map[string]bool),
		now: time.Now(), built: buildTime(),
	}
	var err error
	if f.topology, err = iface.ReadTopology(); err != nil {
		return nil, err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("reading capabilities: %w", err)
	}
	f.capabilities = data[0].Effective
	if f.busy, err = iface.BusyPorts(); err != nil {
		return nil, err
	}
	paths := sysctlPaths
	for _, l := range f.topology.Links {
		paths = append(paths, "net/ipv4/conf/"+l.Name+"/rp_filter", "net/ipv6/conf/"+l.Name+"/disable_ipv6")
		f.lro[l.Name] = mergesForGood(l.Name)
		if link, err := netlink.LinkByIndex(l.Index); err == nil {
			x := link.Attrs().Xdp
			f.xdp[l.Name] = x != nil && x.Attached
		}
	}
	for _, p := range paths {
		if text, err := os.ReadFile("/proc/sys/" + p); err == nil {
			f.sysctls[p] = strings.TrimSpace(string(text))
		}
	}
	if tryGuards && f.capabilities&wantedCapabilities == wantedCapabilities {
		f.guards = make(map[string]error)
		for _, method := range []string{iface.GuardNFT, iface.GuardSocket} {
			g, err := iface.OpenGuard(method)
			if err == nil {
				err = g.Close()
			}
			f.guards[method] = err
		}
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(fd)
	}
	f.tun = err
	f.namespaces = makeNamespace()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("reading limits: %w", err)
	}
	f.files = limit.Cur
	if f.available, err = availableMemory(); err != nil {
		return nil, err
	}
	if text, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource"); err == nil {
		f.clocksource = strings.TrimSpace(string(text))
	}
	return f, nil
}

// sysctl is a setting, "" if there is none.
func (f *facts) sysctl(path string) string { return f.sysctls[path] }

// makeNamespace tries what the lab is made of. The process that is begun in new
// namespaces finds no program to run, which says that it had them.
func makeNamespace() error {
	_, err := os.StartProcess("/proc/self/no-such-program", []string{"vsnat"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// mergesForGood reports whether a link's driver merges segments in a way that
// cannot be undone (large receive offload; ETHTOOL_GFLAGS). A driver that does not
// say does not.
func mergesForGood(name string) bool {
	const (
		getFlags = 0x25
		flagLRO  = 1 << 15
	)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{command: getFlags}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return e == 0 && value.data&flagLRO != 0
}

// availableMemory is what can be had without swapping, in bytes.
func availableMemory() (uint64, error) {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo does not say how much memory is available")
}

// buildTime is when the program's file was written: nothing that happens now can
// be earlier.
func buildTime() time.Time {
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
