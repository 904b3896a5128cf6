// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// As the kernel writes them: a listening endpoint at any address, one of IPv6 at
// two, and an association with two local addresses, the first of them primary.
const (
	sctpEndpoints = ` ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff98a3a73a4300 ffff98a2843779c0 2   10  22   8888      0 1870579 0.0.0.0
       0        0 2   10  23   8889      0 1870580 fd00:0000:0000:0000:0000:0000:0000:0001 10.0.0.9
       0        0 2   10  24   8890      0 1870581 0000:0000:0000:0000:0000:0000:0000:0000
`
	sctpAssociations = ` ASSOC     SOCK   STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS MAXRT T1X T2X RTXC wmema wmemq sndbuf rcvbuf
       0        0 2   1   3  0       2        0        0       0 1870580 40384  2905  *192.0.2.1 10.0.0.9 <-> *192.0.2.7 	    7500    10    10   10    0    0        0        1        0   212992   212992
`
)

func TestSCTPPortsOfTheHost(t *testing.T) {
	busy := func(addr string, port uint16, listening bool) BusyPort {
		return BusyPort{unix.IPPROTO_SCTP, netip.MustParseAddr(addr), port, listening}
	}
	for _, row := range []struct {
		got, want []BusyPort
	}{
		{parseSCTPPorts(sctpEndpoints, 5, 8, true), []BusyPort{
			busy("0.0.0.0", 8888, true), busy("fd00::1", 8889, true), busy("10.0.0.9", 8889, true), busy("::", 8890, true), busy("0.0.0.0", 8890, true),
		}},
		{parseSCTPPorts(sctpAssociations, 11, 13, false), []BusyPort{busy("192.0.2.1", 40384, false), busy("10.0.0.9", 40384, false)}},
		{parseSCTPPorts("x\n1 2 3 4 5 70000 7 8 9\n1 2 3 4 5 6 7 8 nowhere\n", 5, 8, true), nil},
	} {
		if !slices.Equal(row.got, row.want) {
			t.Errorf("got  %+v\nwant %+v", row.got, row.want)
		}
	}
}

func TestProtocolOfTheHost(t *testing.T) {
	const table = "protocol  size sockets  memory press maxhdr  slab module     cl co\nSCTPv6    1800      0      -1   no       0   yes  sctp        y  y\nTCP       2300      4       1   no     272   yes  kernel      y  y\n"
	if listsProtocol([]byte(table), "SCTP") || !listsProtocol([]byte(table), "TCP") {
		t.Error("the first column is not what counts")
	}
}
