// SPDX-License-Identifier: Apache-2.0

package director

import (
	"slices"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/nat"
)

// TestDefenceProblems: what works by itself is told, what was asked for is not.
func TestDefenceProblems(t *testing.T) {
	cfg := config.Default()
	if got := defenceProblems(nat.Defence{}, cfg); len(got) != 0 {
		t.Errorf("nothing is at work: %q", got)
	}
	cfg.Settings = map[string]int{"drop_packet": 1, "drop_entry": 3, "secure_tcp": 2}
	got := defenceProblems(nat.Defence{DropEntry: true, DropPacket: true, SecureTCP: true, DropRate: 4}, cfg)
	want := []string{
		"the connection table is nearly full: one of 4 new connections is dropped (drop_packet)",
		"the connection table is nearly full: TCP is established when the server says so (secure_tcp)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
