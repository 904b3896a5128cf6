// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// The names of virtual servers: an address and a port, a mark, or a group of them.

// keys are the names of the service.
func (v *virtual) keys(d *directive, groups map[string]*directive) []control.ServiceKey {
	switch d.arg(1) {
	case "fwmark":
		return v.mark(d, d.arg(2))
	case "group":
		g := groups[d.arg(2)]
		if g == nil {
			v.left(d, "there is no such group")
			return nil
		}
		var list []control.ServiceKey
		for n := range g.block {
			o := &g.block[n]
			if o.name() == "fwmark" {
				list = append(list, v.mark(o, o.arg(1))...)
				continue
			}
			list = append(list, v.members(o)...)
		}
		return list
	}
	if a, ok := v.endpoint(d, 1); ok {
		return []control.ServiceKey{{Proto: v.proto, Address: a}}
	}
	return nil
}

func (v *virtual) mark(d *directive, text string) []control.ServiceKey {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil || n == 0 {
		v.left(d, "a mark is a number of 1 to 4294967295")
		return nil
	}
	proto := control.Mark
	if len(v.service.Servers) > 0 && v.service.Servers[0].Address.Addr().Is6() {
		proto = control.Mark6
	}
	return []control.ServiceKey{{Proto: proto, Mark: uint32(n)}}
}

// maxMembers is how many addresses a line of a group may stand for.
const maxMembers = 1024

// members are the services of a line of a group: an address, a network, or a range that
// ends with an address or with the last number of one.
func (v *virtual) members(d *directive) (list []control.ServiceKey) {
	first, last, isRange := strings.Cut(d.name(), "-")
	prefix, err := netip.ParsePrefix(first)
	if err == nil && !isRange {
		first = prefix.Masked().Addr().String()
	}
	single := directive{file: d.file, line: d.line, words: append([]string{"", first}, d.words[1:]...)}
	a, ok := v.endpoint(&single, 1)
	if !ok {
		return nil
	}
	in := func(n netip.Addr) bool { return n == a.Addr() }
	switch {
	case prefix.IsValid():
		in = prefix.Contains
	case isRange:
		end, err := netip.ParseAddr(last)
		if err != nil {
			text := a.Addr().String()
			end, err = netip.ParseAddr(text[:strings.LastIndexAny(text, ".:")+1] + last)
		}
		if err != nil || end.BitLen() != a.Addr().BitLen() || end.Less(a.Addr()) {
			v.left(d, "a range counts up from its address to another one, or to a last number")
			return nil
		}
		in = func(n netip.Addr) bool { return n.Compare(end) <= 0 }
	}
	for n := a.Addr(); n.IsValid() && in(n); n = n.Next() {
		if len(list) == maxMembers {
			v.left(d, fmt.Sprintf("the addresses after the first %d are left out", maxMembers))
			break
		}
		list = append(list, control.ServiceKey{Proto: v.proto, Address: netip.AddrPortFrom(n, a.Port())})
	}
	return list
}
