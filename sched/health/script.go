// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"strconv"
	"strings"
)

// A Program is to be run for a check or a hook.
type Program struct {
	Argv []string
	Env  []string // "NAME=value", beside PATH
}

// Ran is how a program ended.
type Ran struct {
	Status int    // its exit status
	Signal int    // that ended it; 0: none did
	Output string // the first bytes of what it wrote, at most MaxOutput
	Killed bool   // its time was over
}

// MaxOutput is how much is kept of what a program writes. The rest is read and
// thrown away.
const MaxOutput = 4 << 10

// scriptCheck runs a program. Its status is that of keepalived's MISC_CHECK: 0 is
// good, 1 is bad, and 2 to 255 good with a weight of two less.
type scriptCheck struct {
	target Target
	tools  Tools
}

// Check implements checker.
func (c *scriptCheck) Check(ctx context.Context) Result {
	if c.tools.Run == nil {
		return impossible("no scripts: %s", c.tools.NoRun)
	}
	to := c.target.Endpoint()
	ran, err := c.tools.Run(ctx, Program{Argv: c.target.Command, Env: []string{
		"VSNAT_SERVER=" + to.String(), "VSNAT_ADDRESS=" + to.Addr().String(), "VSNAT_PORT=" + strconv.Itoa(int(to.Port())),
	}})
	said, _, _ := strings.Cut(strings.TrimSpace(ran.Output), "\n")
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return impossible("stopped")
	case err != nil:
		return impossible("cannot be run: %v", err)
	case ran.Killed:
		return bad("killed when its time was over")
	case ran.Signal != 0:
		return bad("ended by signal %d", ran.Signal)
	case ran.Status == 0:
		return good("status 0 %s", said)
	case ran.Status == 1:
		return bad("status %d %s", ran.Status, said)
	}
	r := good("status %d, weight %d %s", ran.Status, ran.Status-2, said)
	r.Weight = ran.Status - 2
	return r
}
