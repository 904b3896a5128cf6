// SPDX-License-Identifier: Apache-2.0

package memory

import "testing"

// asker remembers that it was told to skip.
type asker struct{ skipped bool }

func (a *asker) Helper()              {}
func (a *asker) Skipf(string, ...any) { a.skipped = true }

func TestNeed(t *testing.T) {
	for bytes, want := range map[int64]bool{-spare: false, 1 << 60: true} {
		var a asker
		if Need(&a, bytes); a.skipped != want {
			t.Errorf("%d bytes: skipped %v, want %v", bytes, a.skipped, want)
		}
	}
}
