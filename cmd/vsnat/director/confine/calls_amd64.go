// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_X86_64
	newest       = unix.SYS_RSEQ_SLICE_YIELD // the last number that was known
)

// What only this processor has.
var (
	oldMachinery = []uint32{unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS}
	oldForks     = []uint32{unix.SYS_FORK, unix.SYS_VFORK}
)
