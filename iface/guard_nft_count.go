// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Names of the table's counters. They are objects of their own, since a counter
// inside a rule would lose its numbers each time the rules are replaced.
const (
	countOwned    = "owned"
	countServices = "services"
	countSNAT     = "snat"
	countMarks    = "marks"
	countServers  = "servers"
	countErrors   = "icmp-errors"
	countInside   = "inside"
)

func guardCounters() []string {
	return []string{countOwned, countServices, countSNAT, countMarks, countServers, countErrors, countInside}
}

// Counts reads the counters, in the order of their names.
func (g *nftGuard) Counts() ([]GuardCount, error) {
	var counts []GuardCount
	err := g.conn.dump(unix.NFT_MSG_GETOBJ, func() { counts = nil }, func(ad *netlink.AttributeDecoder) error {
		var table string
		var c GuardCount
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_OBJ_TABLE:
				table = ad.String()
			case unix.NFTA_OBJ_NAME:
				c.Rule = ad.String()
			case unix.NFTA_OBJ_DATA:
				ad.Nested(func(data *netlink.AttributeDecoder) error {
					for data.Next() {
						switch data.Type() {
						case unix.NFTA_COUNTER_PACKETS:
							c.Packets = data.Uint64()
						case unix.NFTA_COUNTER_BYTES:
							c.Bytes = data.Uint64()
						}
					}
					return data.Err()
				})
			}
		}
		if table == g.table {
			counts = append(counts, c)
		}
		return ad.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("nftables guard: counters: %w", err)
	}
	slices.SortFunc(counts, func(a, b GuardCount) int { return strings.Compare(a.Rule, b.Rule) })
	return counts, nil
}
