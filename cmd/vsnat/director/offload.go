// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/shortcut"
)

// Offload: whether connections take shortcuts through the kernel. Which ones, and when,
// is what package nat and the shards find out; here are the table, and the programs of
// links, which are opened and closed with their ports.

// shortcutRows is how many connections have a shortcut at once, of all shards. They
// are those that move most.
const shortcutRows = 4096

// openShortcuts makes the table, if the configuration asks for it. Where it cannot be had and need not, the log says why.
func (d *director) openShortcuts() error {
	if d.cfg.Offload == config.OffloadNone || d.cfg.IO == config.IOTUN {
		return nil
	}
	t, err := shortcut.Open(shortcutRows)
	switch {
	case err == nil:
		d.shortcuts = t
	case d.cfg.Offload == config.OffloadTCX:
		return fmt.Errorf("offload tcx: %w", err)
	default:
		why, hint, _ := strings.Cut(err.Error(), "\nhint: ")
		d.log.Info("the kernel forwards nothing by itself", "why", why, "hint", hint)
	}
	return nil
}

func (d *director) offloadMethod() string {
	if d.shortcuts == nil {
		return control.OffloadNone
	}
	return control.OffloadTCX
}

// openShortcutLink has shortcuts begin at a link, where they can.
func (d *director) openShortcutLink(link iface.Link) *shard.ShortcutLink {
	if d.shortcuts == nil || !link.Ethernet {
		return nil
	}
	program, err := d.shortcuts.AttachLink(link.Index)
	if err != nil {
		d.shortcutsFailed(link.Name, err)
		return nil
	}
	return shard.NewShortcutLink(link.Index, program)
}

// closeShortcutLinks has all packets come to the shards.
func (d *director) closeShortcutLinks() {
	for i := range d.world.ports {
		if w := &d.world.ports[i]; w.open != nil {
			w.open[0].Shortcuts.Close()
		}
	}
}

func (d *director) shortcutsFailed(link string, err error) {
	d.warn("offload "+link, "the kernel forwards nothing that comes by "+link, err.Error())
}

// offloadProblems are links that have lost their program.
func (d *director) offloadProblems() (list []string) {
	for i := range d.world.ports {
		w := &d.world.ports[i]
		if w.open == nil {
			continue
		}
		if why := w.open[0].Shortcuts.Failure(); why != "" {
			list = append(list, fmt.Sprintf("offload: the kernel forwards nothing any more that comes by %s: %s", w.name, why))
		}
	}
	return list
}
