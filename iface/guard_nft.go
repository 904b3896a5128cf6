// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nftPriority puts our hook before those that people use for their own ingress
// rules (filter is 0, raw -300): what is ours is not theirs to judge.
const nftPriority = -500

// nftGuard is a table of its own: a chain of rules per address family, and per
// link a base chain on its ingress hook that only leads there. A link that goes
// takes its base chain along, or leaves it waiting for the name (Linux 6.16); both
// are found by reading the chains back at each Apply.
type nftGuard struct {
	conn   *nftConn
	table  string
	rules  GuardRules // in force, in normal form
	chains int        // base chains made so far: names are never used again
}

// openNFTGuard makes the table and tries once what Apply needs, on rules that
// no packet can reach.
func openNFTGuard() (*nftGuard, error) {
	conn, err := dialNFT()
	if err != nil {
		return nil, fmt.Errorf("nftables guard: %w", err)
	}
	g := &nftGuard{conn: conn}
	for _, step := range []func() error{g.createTable, g.checkOwner, g.tryRules} {
		if err := step(); err != nil {
			conn.close()
			return nil, fmt.Errorf("nftables guard: %w", explainNFT(err))
		}
	}
	return g, nil
}

func (g *nftGuard) createTable() error {
	tables, err := g.tables()
	if err != nil {
		return err
	}
	g.table = fmt.Sprintf("vsnat-%d", os.Getpid())
	for i := 1; tables[g.table] != 0; i++ { // another guard of this process, or our pid in another pid namespace
		g.table = fmt.Sprintf("vsnat-%d-%d", os.Getpid(), i)
	}
	b := g.batch()
	b.newOwnedTable()
	for _, kind := range guardCounters() {
		b.newCounter(kind)
	}
	for _, f := range nftFamilies() {
		b.newChain(f.chain)
	}
	return g.conn.commit(b)
}

// checkOwner: a kernel before 5.12 may ignore the flag, and the table would stay
// when we die.
func (g *nftGuard) checkOwner() error {
	tables, err := g.tables()
	if err != nil {
		return err
	}
	if tables[g.table]&nftTableOwner != 0 {
		return nil
	}
	b := g.batch()
	b.add("remove table", unix.NFT_MSG_DELTABLE, 0, stringAttribute(unix.NFTA_TABLE_NAME, g.table))
	return errors.Join(errors.New("the kernel does not know tables with an owner (Linux 5.12)"), g.conn.commit(b))
}

// tables are the flags of our family's tables by name, with a bit that is always
// set.
func (g *nftGuard) tables() (map[string]uint64, error) {
	const exists = 1 << 32
	tables := map[string]uint64{}
	err := g.conn.dump(unix.NFT_MSG_GETTABLE, func() { clear(tables) }, func(ad *netlink.AttributeDecoder) error {
		var name string
		var flags uint32
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_TABLE_NAME:
				name = ad.String()
			case unix.NFTA_TABLE_FLAGS:
				flags = ad.Uint32()
			}
		}
		tables[name] = exists | uint64(flags)
		return ad.Err()
	})
	return tables, err
}

func (g *nftGuard) tryRules() error {
	var sample GuardRules
	for _, text := range []string{"192.0.2.0", "2001:db8::"} { // documentation
		addr := netip.MustParseAddr(text)
		service := GuardService{unix.IPPROTO_TCP, addr, 1}
		sample.Owned, sample.Host = append(sample.Owned, addr), append(sample.Host, addr)
		sample.Services, sample.Servers = append(sample.Services, service), append(sample.Servers, service)
		sample.Inside = append(sample.Inside, netip.PrefixFrom(addr, 24))
		sample.ServerPorts = append(sample.ServerPorts, GuardRange{unix.IPPROTO_TCP, addr, 2, 3})
		sample.Marked = append(sample.Marked, GuardMark{From: netip.PrefixFrom(addr, 24), To: netip.PrefixFrom(addr, 24), Min: 1, Max: 2, Link: "lo"})
		sample.SNAT = append(sample.SNAT, GuardPorts{addr, 1, 9, []uint16{5}})
	}
	if err := g.Apply(sample); err != nil {
		return err
	}
	b := g.batch()
	b.newIngressChain("try", "lo", nftPriority)
	b.delChain("try")
	if err := g.conn.commit(b); err != nil {
		return err
	}
	return g.Apply(GuardRules{})
}

func (g *nftGuard) batch() *nftBatch { return &nftBatch{table: g.table} }

func (g *nftGuard) Apply(rules GuardRules) error {
	normal, err := rules.Normal()
	if err != nil {
		return err
	}
	// A link may vanish between our question whether it exists and the
	// commit, which then fails as a whole; so look again.
	const attempts = 3
	for range attempts {
		if err = g.apply(normal); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("nftables guard: %w", explainNFT(err))
	}
	return nil
}

func (g *nftGuard) apply(rules GuardRules) error {
	hooked, err := g.ingressChains()
	if err != nil {
		return err
	}

	b := g.batch()
	if !sameRules(g.rules, rules) {
		for _, f := range nftFamilies() {
			b.flushChain(f.chain)
			f.writeRules(b, rules)
		}
	}
	taken := map[string]bool{}
	for _, c := range hooked {
		if slices.Contains(rules.Links, c.link) && !taken[c.link] {
			taken[c.link] = true
			continue
		}
		b.delChain(c.name)
	}
	for _, link := range rules.Links {
		if !taken[link] && g.conn.hasLink(link) {
			g.writeIngress(b, link)
		}
	}
	if err := g.conn.commit(b); err != nil {
		return err
	}
	g.rules = rules
	return nil
}

// sameRules compares normal forms without their links.
func sameRules(a, b GuardRules) bool {
	a.Links, b.Links = nil, nil
	return a.Equal(b)
}

// writeIngress makes the base chain of a link. Frames for another MAC address
// belong to a macvlan above the link or to nobody, frames with a VLAN tag to a
// VLAN above it: the payload of the link header shows the tag even where the
// driver took it off.
func (g *nftGuard) writeIngress(b *nftBatch, link string) {
	const tagOffset = 12
	g.chains++
	chain := fmt.Sprintf("link-%d", g.chains)
	b.newIngressChain(chain, link, nftPriority)
	b.newRule(chain, "not to our MAC",
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: nftRegister},
		&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{unix.PACKET_OTHERHOST}},
		&expr.Verdict{Kind: expr.VerdictAccept})
	for _, tag := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
		b.newRule(chain, "of a VLAN",
			&expr.Payload{DestRegister: nftRegister, Base: expr.PayloadBaseLLHeader, Offset: tagOffset, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{byte(tag >> 8), byte(tag)}},
			&expr.Verdict{Kind: expr.VerdictAccept})
	}
	for _, f := range nftFamilies() {
		b.newRule(chain, f.chain,
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: nftRegister},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nftRegister, Data: []byte{byte(f.etherType >> 8), byte(f.etherType)}},
			&expr.Verdict{Kind: expr.VerdictGoto, Chain: f.chain})
	}
}

// ingressChain is a base chain of ours and the link it hangs on.
type ingressChain struct{ name, link string }

func (g *nftGuard) ingressChains() ([]ingressChain, error) {
	var chains []ingressChain
	err := g.conn.dump(unix.NFT_MSG_GETCHAIN, func() { chains = nil }, func(ad *netlink.AttributeDecoder) error {
		var table string
		var c ingressChain
		hooked := false
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_CHAIN_TABLE:
				table = ad.String()
			case unix.NFTA_CHAIN_NAME:
				c.name = ad.String()
			case unix.NFTA_CHAIN_HOOK:
				hooked = true
				ad.Nested(func(hook *netlink.AttributeDecoder) error {
					for hook.Next() {
						if hook.Type() == unix.NFTA_HOOK_DEV {
							c.link = hook.String()
						}
					}
					return hook.Err()
				})
			}
		}
		if table == g.table && hooked {
			chains = append(chains, c)
		}
		return ad.Err()
	})
	return chains, err
}

// Limits: nothing is out of reach of the ingress hook.
func (g *nftGuard) Limits() []string { return nil }

func (g *nftGuard) Method() string { return GuardNFT }

// Close closes the socket, and the kernel removes the table with it.
func (g *nftGuard) Close() error {
	if g.conn == nil {
		return nil
	}
	err := g.conn.close()
	g.conn = nil
	return err
}

// File implements LastingGuard: the kernel removes the table with the last copy of the
// socket that made it.
func (g *nftGuard) File() (*os.File, error) {
	if g.conn == nil {
		return nil, os.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(g.conn.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), g.table), nil
}

// explainNFT adds the next step to errors of the kernel.
func explainNFT(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w\nhint: it needs CAP_NET_ADMIN in the network namespace", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w\nhint: the kernel has no nf_tables, or its module may not be loaded here", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w\nhint: the kernel's nf_tables lacks the family netdev (CONFIG_NF_TABLES_NETDEV) or the owner flag (Linux 5.12)", err)
	}
	return err
}
