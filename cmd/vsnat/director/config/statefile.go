// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"strings"
)

// NoStateFile is the StateFile of a director that leaves nothing for the next one.
const NoStateFile = "none"

func (p reader) stateFile(t text, c *Config) {
	switch {
	case !t.given() || t.refused:
	case t.value == NoStateFile, filepath.IsAbs(t.value) && !strings.HasSuffix(t.value, "/"):
		c.StateFile = t.value
	default:
		p.add(t.at, "an absolute path, such as /var/lib/vsnat/state, or none", "%.60q is not the path of a state file", t.value)
	}
}
