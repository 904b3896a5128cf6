// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package confine

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A machine runs a filter on calls, as the kernel does.
type machine struct {
	t  *testing.T
	vm *bpf.VM
}

func newMachine(t *testing.T, p Policy) machine {
	t.Helper()
	vm, err := bpf.NewVM(p.filter())
	if err != nil {
		t.Fatal(err)
	}
	return machine{t, vm}
}

// judge returns what becomes of a call. The machine loads bytes in the order of the
// network, and sees no argument if there is none: a filter that looks all the same ends
// with a verdict of 0.
func (m machine) judge(arch, number uint32, arguments ...uint32) uint32 {
	m.t.Helper()
	call := binary.BigEndian.AppendUint32(nil, number)
	call = binary.BigEndian.AppendUint32(call, arch)
	if len(arguments) > 0 {
		call = append(call, make([]byte, 8)...) // the address of the instruction
	}
	for _, a := range arguments {
		call = binary.BigEndian.AppendUint32(call, a)
		call = append(call, 0xff, 0xff, 0xff, 0xff) // the upper half, which the kernel does not heed
	}
	got, err := m.vm.Run(call)
	if err != nil {
		m.t.Fatal(err)
	}
	return uint32(got)
}

const (
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// Each number has the verdict that the tables give it; the search finds none else.
func TestEachNumber(t *testing.T) {
	for name, p := range map[string]Policy{"director": Director(), "programs": Programs()} {
		m := newMachine(t, p)
		for n := range uint32(newest + 100) {
			want := uint32(unix.SECCOMP_RET_ALLOW)
			v, listed := p.verdicts[n]
			switch {
			case n > newest:
				want = enosys
			case listed && len(v) == 1:
				want = v[0].(bpf.RetConstant).Val
			case listed:
				continue // by arguments
			}
			if got := m.judge(architecture, n); got != want {
				t.Errorf("%s: call %d: %#x, want %#x", name, n, got, want)
			}
			if got := m.judge(architecture^1, n); got != enosys {
				t.Errorf("%s: call %d of another processor: %#x", name, n, got)
			}
		}
		const x32 = 0x40000000 // the other numbers of amd64
		if got := m.judge(architecture, x32+unix.SYS_GETPID); got != enosys {
			t.Errorf("%s: a call of x32: %#x", name, got)
		}
	}
}

// What a packet or a connection of the control socket costs is decided by the number.
func TestHotCallsAreDecidedByNumber(t *testing.T) {
	m := newMachine(t, Director())
	for _, n := range []uint32{
		unix.SYS_RECVMMSG, unix.SYS_SENDMMSG, unix.SYS_PPOLL, unix.SYS_EPOLL_PWAIT, unix.SYS_FUTEX, unix.SYS_SCHED_YIELD,
		unix.SYS_NANOSLEEP, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_RECVMSG, unix.SYS_SENDMSG,
	} {
		if got := m.judge(architecture, n); got != unix.SECCOMP_RET_ALLOW {
			t.Errorf("call %d: %#x", n, got)
		}
	}
}

// No argument matters but those that are looked at.
func TestArguments(t *testing.T) {
	const allowed = uint32(unix.SECCOMP_RET_ALLOW)
	thread := uint32(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD)
	director, programs := newMachine(t, Director()), newMachine(t, Programs())
	self := uint32(unix.Getpid())
	for _, tt := range []struct {
		name               string
		call               uint32
		arguments          []uint32
		director, programs uint32
	}{
		{"a thread", unix.SYS_CLONE, []uint32{thread}, allowed, allowed},
		{"a process", unix.SYS_CLONE, []uint32{uint32(unix.SIGCHLD)}, eperm, allowed},
		{"a user namespace", unix.SYS_CLONE, []uint32{unix.CLONE_NEWUSER | uint32(unix.SIGCHLD)}, eperm, eperm},
		{"a namespace of the network", unix.SYS_CLONE, []uint32{unix.CLONE_NEWNET}, eperm, eperm},
		{"memory", unix.SYS_MMAP, []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allowed, allowed},
		{"memory that can be run", unix.SYS_MMAP, []uint32{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, eperm, allowed},
		{"memory that becomes so", unix.SYS_MPROTECT, []uint32{0, 4096, unix.PROT_EXEC}, eperm, allowed},
		{"a signal to itself", unix.SYS_KILL, []uint32{self, 6}, allowed, allowed},
		{"a signal to another", unix.SYS_KILL, []uint32{1, 9}, eperm, allowed},
		{"a signal to all", unix.SYS_KILL, []uint32{0xffffffff, 9}, eperm, allowed},
		{"a signal to a thread of another", unix.SYS_TGKILL, []uint32{1, 1, 9}, eperm, allowed},
		{"an element of a map", unix.SYS_BPF, []uint32{unix.BPF_MAP_UPDATE_ELEM}, allowed, eperm},
		{"a program for the kernel", unix.SYS_BPF, []uint32{unix.BPF_PROG_LOAD}, eperm, eperm},
		{"a map", unix.SYS_BPF, []uint32{unix.BPF_MAP_CREATE}, eperm, eperm},
		{"IPv4", unix.SYS_SOCKET, []uint32{unix.AF_INET}, allowed, allowed},
		{"packets", unix.SYS_SOCKET, []uint32{unix.AF_PACKET}, allowed, allowed},
		{"cryptography", unix.SYS_SOCKET, []uint32{unix.AF_ALG}, eperm, allowed},
		{"virtual machines", unix.SYS_SOCKET, []uint32{unix.AF_VSOCK}, eperm, allowed},
		{"size of a terminal", unix.SYS_IOCTL, []uint32{0, unix.TIOCGWINSZ}, allowed, allowed},
		{"input of a terminal", unix.SYS_IOCTL, []uint32{0, unix.TIOCSTI}, eperm, eperm},
		{"selection of a console", unix.SYS_IOCTL, []uint32{0, unix.TIOCLINUX}, eperm, eperm},
	} {
		arguments := slices.Concat(tt.arguments, make([]uint32, 6))[:6]
		if got := director.judge(architecture, tt.call, arguments...); got != tt.director {
			t.Errorf("director: %s: %#x, want %#x", tt.name, got, tt.director)
		}
		if got := programs.judge(architecture, tt.call, arguments...); got != tt.programs {
			t.Errorf("programs: %s: %#x, want %#x", tt.name, got, tt.programs)
		}
	}
}
