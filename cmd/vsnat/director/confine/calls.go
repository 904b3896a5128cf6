// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package confine

import (
	"os"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Policy says what calls a process may make no more.
type Policy struct {
	verdicts map[uint32]verdict // by number; what is not there is allowed
	logged   bool               // refusals are for the kernel's log
}

// Calls that nobody has a use for, whatever runs. Many of them need a capability
// that is given up as well: they are where faults of the kernel were found.
var (
	modules = []uint32{unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT}
	mounts  = []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
		unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
		unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_OPEN_BY_HANDLE_AT,
		unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	}
	namespaces = []uint32{unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME}
	others     = []uint32{unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP}
	keys       = []uint32{unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL}
	clocks     = []uint32{unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME}
	machinery  = []uint32{
		// io_uring makes calls that no filter sees.
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_VMSPLICE, unix.SYS_LOOKUP_DCOOKIE,
		unix.SYS_NFSSERVCTL, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP, unix.SYS_PERSONALITY, unix.SYS_REMAP_FILE_PAGES,
	}
)

// common is what both policies refuse.
func common() map[uint32]verdict {
	v := make(map[uint32]verdict)
	for _, n := range slices.Concat(modules, mounts, namespaces, others, keys, clocks, machinery, oldMachinery) {
		v[n] = refuse
	}
	v[unix.SYS_CLONE3] = absent
	// What it writes to a terminal its shell would read, and run.
	v[unix.SYS_IOCTL] = refuseValues(1, unix.TIOCSTI, unix.TIOCLINUX)
	return v
}

// namespaceFlags are those of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Programs is for what runs programs for checks, and for these: they may begin
// processes and signal them, but not make namespaces, in which anybody has all
// capabilities.
func Programs() Policy {
	v := common()
	v[unix.SYS_CLONE] = refuseBits(0, namespaceFlags)
	return Policy{verdicts: v}
}

// Director is for a director that serves: beside all else, it begins no process and
// reaches none but itself.
func Director() Policy {
	v := common()
	for _, n := range slices.Concat(programs, oldForks, signals) {
		v[n] = refuse
	}
	v[unix.SYS_CLONE] = needBits(0, unix.CLONE_THREAD)
	self := uint32(os.Getpid())
	v[unix.SYS_KILL] = needValues(0, self)
	v[unix.SYS_TGKILL] = needValues(0, self) // the runtime interrupts its threads by it

	v[unix.SYS_MMAP] = refuseBits(2, unix.PROT_EXEC)
	v[unix.SYS_MPROTECT] = refuseBits(2, unix.PROT_EXEC)
	v[unix.SYS_PKEY_MPROTECT] = refuse
	v[unix.SYS_SHMAT] = refuse

	// Maps and links that it has by then can be used, but no program comes to the kernel.
	v[unix.SYS_BPF] = needValues(0, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_MAP_GET_NEXT_KEY,
		unix.BPF_MAP_LOOKUP_BATCH, unix.BPF_MAP_LOOKUP_AND_DELETE_BATCH, unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH,
		unix.BPF_OBJ_GET_INFO_BY_FD, unix.BPF_LINK_CREATE, unix.BPF_LINK_UPDATE, unix.BPF_LINK_DETACH)

	families := needValues(0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET)
	v[unix.SYS_SOCKET], v[unix.SYS_SOCKETPAIR] = families, families
	return Policy{verdicts: v, logged: true}
}

var (
	programs = []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT}
	signals  = []uint32{unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_SEND_SIGNAL}
)

// A verdict is what becomes of a call: instructions that end in one of the returns.
type verdict []bpf.Instruction

var (
	allowed = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	refused = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	missing = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}

	allow  = verdict{allowed}
	refuse = verdict{refused}
	absent = verdict{missing}
)

// argument loads the lower half of an argument, all of it that the kernel heeds in
// those that are looked at here; both processors have it first.
func argument(i uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: 16 + 8*i, Size: 4} }

// refuseBits refuses a call if an argument has one of some bits.
func refuseBits(arg, bits uint32) verdict {
	return verdict{argument(arg), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipTrue: 1}, allowed, refused}
}

// needBits refuses a call if an argument has none of some bits.
func needBits(arg, bits uint32) verdict {
	return verdict{argument(arg), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipTrue: 1}, refused, allowed}
}

// refuseValues refuses a call if an argument is one of some values.
func refuseValues(arg uint32, values ...uint32) verdict {
	return compare(arg, values, refused, allowed)
}

// needValues refuses a call if an argument is none of some values.
func needValues(arg uint32, values ...uint32) verdict {
	return compare(arg, values, allowed, refused)
}

func compare(arg uint32, values []uint32, equal, other bpf.Instruction) verdict {
	v := verdict{argument(arg)}
	for i, value := range values {
		v = append(v, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: uint8(len(values) - i)})
	}
	return append(v, other, equal)
}
