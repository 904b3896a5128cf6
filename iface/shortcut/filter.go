// SPDX-License-Identifier: Apache-2.0

package shortcut

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// The filter of packet sockets: what iface.Filter says, of links with link addresses,
// less what takes a shortcut. It is loaded once, and what it asks for is in maps, so that
// a director at work, which may load nothing any more, can change it.

// What addresses are, in the maps. A network has what those around it have.
const (
	markTo     = 1 << iota // what goes there is read
	markErrors             // ICMP that goes there is
	markFrom               // what comes from there is
)

// maxAddrs is how many single addresses, and how many networks, the filter knows. Beyond
// that it admits all of IP.
const maxAddrs = 1 << 16

// addrSet is one of the maps, and what is in it.
type addrSet[K comparable] struct {
	kernel *ebpf.Map
	has    map[K]uint32
}

// host and network are the keys. The network of all IPv6 addresses is not around those of
// IPv4, whatever they look like.
type (
	host struct {
		Family uint32 // 4 or 6
		Addr   [16]byte
	}
	network struct {
		Bits uint32 // of what follows
		host
	}
)

const familyBits = 32 // that come before an address

func (s *addrSet[K]) open(name string, kind ebpf.MapType, keyLen uint32) (err error) {
	s.has = make(map[K]uint32)
	s.kernel, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: kind, KeySize: keyLen, ValueSize: 4, MaxEntries: maxAddrs + 1, Flags: unix.BPF_F_NO_PREALLOC,
	})
	return err
}

// set makes want what is there. What is new comes before what is old goes: nobody is
// left out meanwhile who is in both.
func (s *addrSet[K]) set(want map[K]uint32) error {
	for k, marks := range want {
		if has, ok := s.has[k]; ok && has == marks {
			continue
		}
		if err := s.kernel.Put(&k, &marks); err != nil {
			return err
		}
		s.has[k] = marks
	}
	for k := range s.has {
		if _, ok := want[k]; ok {
			continue
		}
		if err := s.kernel.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		delete(s.has, k)
	}
	return nil
}

// AttachFilter implements iface.Sieve. All sockets have the filter that was attached last.
func (t *Table) AttachFilter(fd int, f iface.Filter) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !sameFilter(&t.admits, &f) {
		hosts, networks := marks(&f)
		if err := t.networks.set(networks); err != nil {
			return fmt.Errorf("networks of the filter: %w", err)
		}
		if err := t.hosts.set(hosts); err != nil {
			return fmt.Errorf("addresses of the filter: %w", err)
		}
		t.admits = iface.Filter{
			Ours: slices.Clone(f.Ours), Networks: slices.Clone(f.Networks), Errors: slices.Clone(f.Errors), Inside: slices.Clone(f.Inside),
		}
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, t.filter.FD())
}

func sameFilter(a, b *iface.Filter) bool {
	return slices.Equal(a.Ours, b.Ours) && slices.Equal(a.Networks, b.Networks) && slices.Equal(a.Errors, b.Errors) && slices.Equal(a.Inside, b.Inside)
}

// marks sorts a filter by single addresses and networks.
func marks(f *iface.Filter) (hosts map[host]uint32, networks map[network]uint32) {
	hosts, networks = make(map[host]uint32), make(map[network]uint32)
	for mark, list := range map[uint32][]netip.Addr{markTo: f.Ours, markErrors: f.Errors} {
		for _, a := range list {
			hosts[hostOf(a)] |= mark
		}
	}
	for mark, list := range map[uint32][]netip.Prefix{markTo: f.Networks, markFrom: f.Inside} {
		for _, p := range list {
			if n := networkOf(p); n.Bits == familyBits+128 {
				hosts[n.host] |= mark
			} else {
				networks[n] |= mark
			}
		}
	}
	own := make(map[network]uint32, len(networks))
	for n := range networks {
		for around, mark := range networks {
			if around.Family == n.Family && around.Bits <= n.Bits && around.prefix().Contains(netip.AddrFrom16(n.Addr)) {
				own[n] |= mark
			}
		}
	}
	if len(hosts) > maxAddrs || len(own) > maxAddrs {
		return nil, map[network]uint32{{}: markTo}
	}
	return hosts, own
}

func hostOf(a netip.Addr) host {
	if a.Unmap().Is4() {
		return host{4, a.As16()}
	}
	return host{6, a.As16()}
}

// networkOf is a network with IPv4 behind ::ffff:0:0.
func networkOf(p netip.Prefix) network {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	p = netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), bits).Masked()
	return network{familyBits + uint32(bits), hostOf(p.Addr())}
}

func (n network) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16(n.Addr), int(n.Bits)-familyBits)
}

const (
	admitAll = 0x40000 // bytes, more than any frame has
	admit    = "admit"
	refuse   = "refuse"

	ndFirst, ndLast = 133, 137 // types of neighbour discovery
	mldQuery        = 130
)

// admits is asked about a frame that takes no shortcut: it begins at no. The order is that
// of iface.Filter.
func (p programs) admits() asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R0, rContext, skbProtocol, asm.Word).WithSymbol(no),
		asm.JEq.Imm(asm.R0, int32(swap16(unix.ETH_P_ARP)), admit),
	}
	for _, f := range families {
		code = append(code, asm.JEq.Imm(asm.R0, int32(swap16(f.etherType)), "filter"+f.name))
	}
	code = append(code,
		asm.Mov.Imm(asm.R0, 0).WithSymbol(refuse), asm.Return(),
		asm.Mov.Imm(asm.R0, admitAll).WithSymbol(admit), asm.Return())
	for _, f := range families {
		part := load(etherLen, atIP, f.header)
		part[0] = part[0].WithSymbol("filter" + f.name)
		code = append(code, part...)
		icmp := int32(unix.IPPROTO_ICMP)
		if f.header == 40 {
			icmp = unix.IPPROTO_ICMPV6
			code = append(code, asm.LoadMem(asm.R0, asm.RFP, atIP+f.protocol, asm.Byte), asm.JNE.Imm(asm.R0, icmp, "to6"))
			code = append(code, load(etherLen+40, atTypes, 1)...)
			code = append(code, asm.LoadMem(asm.R0, asm.RFP, atTypes, asm.Byte),
				asm.JLT.Imm(asm.R0, ndFirst, "to6"), asm.JLE.Imm(asm.R0, ndLast, admit))
		}
		part = p.ask(f, f.dest, markTo, "to"+f.name)
		part[0] = part[0].WithSymbol("to" + f.name)
		code = append(code, part...)
		code = append(code,
			asm.JSet.Imm(rWay, markErrors, "errors"+f.name),
			asm.Ja.Label("source"+f.name),
			asm.LoadMem(asm.R0, asm.RFP, atIP+f.protocol, asm.Byte).WithSymbol("errors"+f.name),
			asm.JEq.Imm(asm.R0, icmp, admit))
		part = p.ask(f, f.source, markFrom, "from"+f.name)
		part[0] = part[0].WithSymbol("source" + f.name)
		code = append(code, part...)
		if f.header == 40 { // questions about groups, behind a hop-by-hop header of 8 bytes
			code = append(code, asm.LoadMem(asm.R0, asm.RFP, atIP+f.protocol, asm.Byte), asm.JNE.Imm(asm.R0, unix.IPPROTO_HOPOPTS, refuse))
			code = append(code, load(etherLen+40, atTypes, 9)...)
			code = append(code,
				asm.LoadMem(asm.R0, asm.RFP, atTypes, asm.Half), asm.JNE.Imm(asm.R0, int32(swap16(unix.IPPROTO_ICMPV6<<8)), refuse),
				asm.LoadMem(asm.R0, asm.RFP, atTypes+8, asm.Byte), asm.JEq.Imm(asm.R0, mldQuery, admit))
		}
		code = append(code, asm.Ja.Label(refuse))
	}
	return code
}

// atTypes is where headers behind that of IPv6 are looked at.
const atTypes = -32

// load copies a part of the frame to the stack; a frame that ends before is refused.
func load(from int32, to, length int16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, rContext), asm.Mov.Imm(asm.R2, from),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, int32(length)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, refuse),
	}
}

// ask leads to admit if an address of the packet has a mark. All its marks are in rWay.
func (p programs) ask(f family, address int16, mark int32, label string) asm.Instructions {
	return slices.Concat(f.address16(address, atKey), asm.Instructions{
		asm.StoreImm(asm.RFP, atKey-4, f.number, asm.Word),
		asm.StoreImm(asm.RFP, atKey-8, familyBits+128, asm.Word),
		asm.Mov.Imm(rWay, 0),
		asm.LoadMapPtr(asm.R1, p.hosts),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, atKey-4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, label+"net"),
		asm.LoadMem(rWay, asm.R0, 0, asm.Word),
		asm.JSet.Imm(rWay, mark, admit),
		asm.LoadMapPtr(asm.R1, p.networks).WithSymbol(label + "net"),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, atKey-8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, label+"end"),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.Word), asm.Or.Reg(rWay, asm.R0),
		asm.JSet.Imm(rWay, mark, admit),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(label + "end"),
	})
}
