// SPDX-License-Identifier: Apache-2.0

package director

import (
	"testing"
	"time"

	"github.com/vsnat/vsnat/nat"
)

// Health tells that local ports are used up, for as long as somebody may want to know.
func TestExhausted(t *testing.T) {
	d := &director{}
	now := time.Now()
	if got := d.exhausted(now); got != nil {
		t.Errorf("nothing was refused: %q", got)
	}
	d.alarmed[nat.ReasonNoLocal] = now
	if got := d.exhausted(now.Add(exhaustedFor)); len(got) != 1 {
		t.Errorf("refused a minute ago: %q", got)
	}
	if got := d.exhausted(now.Add(exhaustedFor + 1)); got != nil {
		t.Errorf("long over: %q", got)
	}
}
