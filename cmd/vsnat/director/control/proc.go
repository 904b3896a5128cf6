// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// What scripts read of /proc/net on a director with IPVS, in the very words of
// the kernel (ip_vs_ctl.c, ip_vs_conn.c): addresses and ports in hexadecimal, and
// the times of persistence in ticks of 4 ms.

// procViews are the files there are.
var procViews = map[string]func(context.Context, Director, io.Writer) error{
	"ip_vs": procServices, "ip_vs_conn": procConns, "ip_vs_stats": procStats, "ip_vs_stats_percpu": procShards,
}

// ProcNames are the names of the files that can be read.
func ProcNames() []string {
	names := make([]string, 0, len(procViews))
	for name := range procViews {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Proc writes one of them about a director.
func Proc(ctx context.Context, d Director, name string, w io.Writer) error {
	view := procViews[name]
	if view == nil {
		return Refuse(CodeNotFound, fmt.Sprintf("there is no view %.40q", name), "one of: "+strings.Join(ProcNames(), ", "))
	}
	return view(ctx, d, w)
}

// KernelOrder puts services, which come in the order they were added, into that
// in which the kernel keeps them: by a hash, the newest of equal ones first, and
// those by mark last. The kernel mixes a number into the hash that is another one
// at each start; here it is always the same.
func KernelOrder(services []Service) {
	slices.Reverse(services)
	slices.SortStableFunc(services, func(a, b Service) int {
		return cmp.Or(compareBool(a.ByMark(), b.ByMark()), cmp.Compare(rowOf(a.ServiceKey), rowOf(b.ServiceKey)))
	})
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// rowOf is the row of the kernel's table of services (ip_vs_svc_hashkey).
func rowOf(k ServiceKey) uint32 {
	const start = 0x60
	if k.ByMark() {
		return (k.Mark ^ start) & 0xff
	}
	port := uint32(k.Address.Port())
	row := uint32(protoNumbers[k.Proto]) ^ port>>8 ^ port ^ start
	for addr := k.Address.Addr().AsSlice(); len(addr) > 0; addr = addr[4:] {
		row ^= binary.BigEndian.Uint32(addr)
	}
	return row & 0xff
}

// protoNumbers are those of the protocols of services.
var protoNumbers = map[string]uint8{TCP: 6, UDP: 17, SCTP: 132}

// jiffies is a time as the kernel shows it that was recorded (HZ=250).
func jiffies(d Duration) int64 { return int64(d.Std() / (4 * time.Millisecond)) }

func procServices(ctx context.Context, d Director, w io.Writer) error {
	services, err := d.Services(ctx)
	if err != nil {
		return err
	}
	KernelOrder(services)
	var b bytes.Buffer
	b.WriteString("IP Virtual Server version 1.2.1 (size=4096)\n" +
		"Prot LocalAddress:Port Scheduler Flags\n" +
		"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n")
	for i := range services {
		procService(&b, &services[i])
	}
	_, err = w.Write(b.Bytes())
	return err
}

func procService(b *bytes.Buffer, s *Service) {
	ops := ""
	if s.OnePacket {
		ops = "ops "
	}
	switch {
	case s.ByMark():
		fmt.Fprintf(b, "FWM  %08X %s %s", s.Mark, s.Scheduler, ops)
	case s.IPv4():
		fmt.Fprintf(b, "%s  %s %s %s ", strings.ToUpper(s.Proto), procEndpoint(s.Address), s.Scheduler, ops)
	default: // without "ops"
		fmt.Fprintf(b, "%s  %s %s ", strings.ToUpper(s.Proto), procEndpoint(s.Address), s.Scheduler)
	}
	if s.Persistence.Timeout != 0 {
		fmt.Fprintf(b, "persistent %d %08X", jiffies(s.Persistence.Timeout), procMask(s.ServiceSpec))
	}
	b.WriteString("\n")
	for i := range s.Servers {
		r := &s.Servers[i]
		fmt.Fprintf(b, "  -> %s      %-7s %-6d %-10d %-10d\n", procEndpoint(r.Address), forwardWords[r.Method], r.WeightInForce(), r.Active, r.Inactive)
	}
}

var forwardWords = map[string]string{"": "Masq", MethodNAT: "Masq", MethodRoute: "Route", MethodTunnel: "Tunnel"}

// procMask is the mask of persistence; for IPv6 the length of the prefix, with
// its bytes turned around.
func procMask(s ServiceSpec) uint32 {
	mask, err := s.Persistence.Netmask(s.IPv4())
	if err != nil {
		return 0
	}
	if s.IPv4() {
		return binary.BigEndian.Uint32(mask.AsSlice())
	}
	ones := 0
	for _, c := range mask.AsSlice() {
		for ; c != 0; c <<= 1 {
			ones++
		}
	}
	return uint32(ones) << 24
}

// procEndpoint is "C0A85817:0050", or "[fd00:0000:…:0023]:0050".
func procEndpoint(a netip.AddrPort) string {
	if a.Addr().Is6() {
		return fmt.Sprintf("[%s]:%04X", a.Addr().StringExpanded(), a.Port())
	}
	return fmt.Sprintf("%s:%04X", procAddr(a.Addr()), a.Port())
}

func procAddr(a netip.Addr) string {
	if a.Is6() {
		return a.StringExpanded()
	}
	return fmt.Sprintf("%X", a.AsSlice())
}

// OfIPVS reports whether IPVS has such a connection as well: it has none that
// inside hosts opened, and none for the answers to datagrams of one-packet
// scheduling.
func (c *Conn) OfIPVS() bool { return c.Kind != "snat" && c.Kind != "answers" }

// Left is how many seconds IPVS would show that are left. Since its clock has moved
// on before anybody looks, it never shows the whole of a time that was just set.
func (c *Conn) Left() int { return int(max(c.Expires.Std()-1, 0) / time.Second) }

// procConns writes a page at a time, which may be many.
func procConns(ctx context.Context, d Director, w io.Writer) error {
	b := bytes.NewBufferString("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n")
	q := ConnQuery{Limit: MaxPage}
	for {
		page, err := d.Conns(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Conns {
			if c := &page.Conns[i]; c.OfIPVS() {
				fmt.Fprintf(b, "%-3s %s %04X %s %04X %s %04X %-11s %7d\n", strings.ToUpper(c.Proto),
					procAddr(c.Client.Addr()), c.Client.Port(), procAddr(c.Virtual.Addr()), c.Virtual.Port(),
					procAddr(c.Server.Addr()), c.Server.Port(), c.State, c.Left())
			}
		}
		if _, err := b.WriteTo(w); err != nil || page.Next == "" {
			return err
		}
		q.Cursor = page.Next
	}
}

func procStats(ctx context.Context, d Director, w io.Writer) error {
	s, err := d.Stats(ctx)
	if err == nil {
		_, err = fmt.Fprint(w, "   Total Incoming Outgoing         Incoming         Outgoing\n"+
			"   Conns  Packets  Packets            Bytes            Bytes\n"+
			procCounters(s.Total)+"\n\n"+
			" Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"+
			procCounters(s.Rate)+"\n")
	}
	return err
}

// procShards shows all that went through as that of the first processor.
func procShards(ctx context.Context, d Director, w io.Writer) error {
	s, err := d.Stats(ctx)
	if err == nil {
		_, err = fmt.Fprint(w, "       Total Incoming Outgoing         Incoming         Outgoing\n"+
			"CPU    Conns  Packets  Packets            Bytes            Bytes\n"+
			"  0 "+procCounters(s.Total)+"\n"+
			"  ~ "+procCounters(s.Total)+"\n\n"+
			"     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"+
			"    "+procCounters(s.Rate)+"\n")
	}
	return err
}

func procCounters(c Counters) string {
	return fmt.Sprintf("%8X %8X %8X %16X %16X", c.Conns, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes)
}
