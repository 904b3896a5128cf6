// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_AARCH64
	newest       = unix.SYS_RSEQ_SLICE_YIELD // the last number that was known
)

// What other processors have, and this one has not.
var oldMachinery, oldForks []uint32
