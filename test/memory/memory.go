// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bufio"
	"fmt"
	"os"
)

// TB is the part of testing.TB that is needed here.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
}

// spare is what is left to everybody else, in bytes.
const spare = 512 << 20

// Need skips a test that takes so many bytes, unless the kernel says that they are
// available (MemAvailable in /proc/meminfo) and some to spare.
func Need(tb TB, bytes int64) {
	tb.Helper()
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		tb.Skipf("how much memory there is cannot be known: %v", err)
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(s.Text(), "MemAvailable: %d kB", &kib); n == 1 && kib<<10 < bytes+spare {
			tb.Skipf("%d MiB of memory are needed, available are %d", (bytes+spare)>>20, kib>>10)
		}
	}
}
