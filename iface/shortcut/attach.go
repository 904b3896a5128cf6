// SPDX-License-Identifier: Apache-2.0

package shortcut

import (
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// AttachLink has what arrives at a link take its shortcut, until the answer is closed,
// or the process ends. It is the first program there, before others and the host.
func (t *Table) AttachLink(index int) (io.Closer, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: t.link, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	if err != nil {
		return nil, explained(err)
	}
	return l, nil
}

// Try returns what the program of a link makes of a frame that arrives at lo, which it
// sends nowhere. It reports false if the frame takes no shortcut. It is for tests, and
// needs the capabilities that Open does.
func (t *Table) Try(frame []byte) (out []byte, taken bool, err error) {
	action, out, err := t.link.Test(frame)
	return out, err == nil && action == tcRedirect, err
}
