// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// What several shards need to be told at the start, and what they can't have later.

// shardKey tells which shard an outside address belongs to. Clients that are one to a
// persistent service are one here.
func shardKey(cfg *config.Config) nat.ShardKey {
	var masks []conntrack.Addr
	for _, s := range cfg.Services {
		if s.Persistence.Timeout > 0 {
			masks = append(masks, natPersistence(s.ServiceSpec).Mask)
		}
	}
	return nat.NewShardKey(masks...)
}

// checkShared refuses a service whose clients are in several shards although they are one
// to it.
func (d *director) checkShared(s control.ServiceSpec) error {
	if len(d.shards) < 2 || s.Persistence.Timeout == 0 || d.key.Keeps(natPersistence(s).Mask) {
		return nil
	}
	return hinted{
		fmt.Errorf("service %s: with %d workers clients can't be made one by mask %s after the start", s.ServiceKey, len(d.shards), s.Persistence.Mask),
		"write it into the configuration file and start anew, or use workers: 1",
	}
}

// checkWorkers refuses rules that shards can't be told of. Those that are there are taken
// for the ones that the new ones would stand beside.
func (d *director) checkWorkers(marks []control.MarkSpec, snats []control.SNATSpec) error {
	if len(d.shards) < 2 {
		return nil
	}
	for _, m := range d.rules.Marks() {
		marks = append(marks, controlMark(m))
	}
	for _, s := range d.rules.SNATs() {
		snats = append(snats, controlSNAT(s))
	}
	return config.CheckWorkers(len(d.shards), marks, snats)
}
