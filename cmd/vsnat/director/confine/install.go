// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package confine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Calls puts a policy in force, for all threads and for good; Capabilities comes
// before. The error says why it cannot be had here, and nothing is changed then.
func Calls(p Policy) error {
	raw, err := bpf.Assemble(p.filter())
	if err != nil {
		return err
	}
	// A filter is no reason to have the processor speculate less, which older kernels
	// take it for: nobody's code runs here but ours.
	flags := unix.SECCOMP_FILTER_FLAG_TSYNC
	if p.logged {
		flags |= unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	err = install(raw, flags)
	if errors.Is(err, unix.EINVAL) { // before Linux 4.17 there was only this one
		err = install(raw, unix.SECCOMP_FILTER_FLAG_TSYNC)
	}
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return errors.New("this kernel has no seccomp filters")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errors.New("the seccomp filter that is in force here allows no other")
	}
	return err
}

func install(raw []bpf.RawInstruction, flags int) error {
	// Both have the same layout.
	program := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(raw)))}
	thread, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(raw)
	if e != 0 {
		return e
	}
	if thread != 0 {
		return fmt.Errorf("thread %d has another seccomp filter", thread)
	}
	return nil
}
