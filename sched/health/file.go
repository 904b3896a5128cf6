// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fileCheck reads a weight from a file. An empty one means the configured weight; one that is
// missing, or holds something else, is Impossible: its server keeps its state.
type fileCheck struct{ path string }

// maxWeight is the largest weight of a server.
const maxWeight = 65535

// Check implements checker. Opening and reading never wait, as they would on a FIFO.
func (c *fileCheck) Check(context.Context) Result {
	f, err := os.OpenFile(c.path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return impossible("%v", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return impossible("%s is no file", c.path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLine))
	if err != nil {
		return impossible("%v", err)
	}
	word := strings.TrimSpace(string(text))
	if word == "" {
		r := good("no weight in it")
		r.Weight, r.Percent = 100, true
		return r
	}
	weight, err := strconv.Atoi(word)
	if err != nil || weight < 0 || weight > maxWeight {
		return impossible("%.20q is no weight of 0 to %d", word, maxWeight)
	}
	r := good("weight %d", weight)
	r.Weight = weight
	return r
}
