// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Every mistake is told with its place and with a next step. Where a row has
// several problems, all are listed, in the order of the file.
func TestMistakes(t *testing.T) {
	eachMistake(func(name, text, want string) {
		t.Run(name, func(t *testing.T) {
			c, err := Parse("f", []byte(text))
			if err == nil {
				t.Fatalf("got %+v; want %s", c, want)
			}
			if joined := inOneLine(t, err); joined != want {
				t.Errorf("got  %s\nwant %s", joined, want)
			}
		})
	})
}

func eachMistake(f func(name, text, want string)) {
	const service = "services:\n  - tcp: 192.0.2.1:80\n"
	for _, tt := range []struct{ name, text, want string }{
		{"empty file", "", "f: the configuration is empty"},
		{"only comments", "# nothing\n\n", "f: the configuration is empty"},
		{"only marks", "---\n...\n", "f: the configuration is empty"},
		{"NUL", "max-conns: 5\nguard: n\x00ft\n", "f:2:9: a NUL byte"},
		{"escape code", "guard: \x1b[31m\n", "f:1:8: a control character"},
		{"not UTF-8", "# \xc3\xa9\nlog: \xff\n", "f:2:6: a byte that is not UTF-8"},
		{"a word", "hello", "f:1:1: the configuration is a single value, not a mapping of keys"},
		{"a list", "- tcp: 1.2.3.4:80", "f:1:1: the configuration is a list, not a mapping of keys"},
		{"two documents", "guard: nft\n---\nguard: none\n", "f:3:1: a second document begins here"},
		{"tab", "log:\n\tlevel: info\n", "f:2:1: found character '\t' that cannot start any token"},
		{"indentation", "log:\n    level: info\n  format: text\n", "f:3:3: value is not allowed in this context"},
		{"open bracket", "interfaces: [eth0\nguard: nft\n", "f:2:1: ',' or ']' must be specified"},
		{"bare IPv6", "services:\n  - tcp: [2001:db8::1]:80\n", "f:2:23: value is not allowed in this context"},
		{"bare star", "interfaces: [*]\n", "f:1:14: an alias (*) is not used in a configuration"},
		{"anchor", "log: &x info\n", "f:1:6: an anchor (&) is not used in a configuration"},
		{"tag", "max-conns: !!int 3\n", "f:1:12: a tag (!) is not used in a configuration"},
		{"merge key", "log: {<<: {level: info}}\n", "f:1:7: a merge key (<<) is not used in a configuration"},
		{"block scalar", "guard: |\n  nft\n", "f:1:8: a block scalar (| or >) is not used in a configuration"},
		{"too deep", "x: [[[[[[[[[[]]]]]]]]]]", "f:1:12: nested too deep"},

		{"unknown key", "servicse: []\n", "f:1:1: unknown key \"servicse\""},
		{"unknown key of a service", service + "    schedular: rr\n", "f:3:5: unknown key \"schedular\""},
		{"two unknown keys", "a: 1\nb: 2\n", "f:1:1: unknown key \"a\" | f:2:1: unknown key \"b\""},
		{"key twice", "guard: nft\nlog: info\nguard: none\n", "f:3:1: \"guard\" is given twice, first in line 1"},
		{"scheduler twice", service + "    scheduler: rr\n    scheduler: lc\n", "f:4:5: \"scheduler\" is given twice, first in line 3"},
		{"no value", "guard:\nlog: info\n", "f:1:7: guard has no value"},
		{"list for a value", "max-conns: [1]\n", "f:1:12: max-conns is a list"},
		{"mapping for a value", "guard: {nft: 1}\n", "f:1:8: guard is a mapping"},
		{"value for a list", "services: 192.0.2.1:80\n", "f:1:11: services is a single value, not a list"},
		{"mapping for a list", "services:\n  tcp: 192.0.2.1:80\n", "f:2:3: services is a mapping, not a list"},
		{"value for a mapping", "timeouts: 900\n", "f:1:11: timeouts is a single value, not a mapping of keys"},
		{"service as a word", "services: [http]\n", "f:1:12: an entry of services is a single value, not a mapping of keys"},
		{"list as a server", service + "    servers: [[10.0.0.1:80]]\n", "f:3:15: an entry of servers is a list, not a mapping of keys"},
		{"empty entry", service + "  -\n", "f:3:5: an entry of services is empty"},

		{"io", "io: xdp", "f:1:5: io can't be \"xdp\""},
		{"guard", "guard: nftables", "f:1:8: guard can't be \"nftables\""},
		{"log level", "log: verbose", "f:1:6: the log level can't be \"verbose\""},
		{"log format", "log: {format: xml}", "f:1:15: the log format can't be \"xml\""},
		{"no workers", "workers: 0", "f:1:10: \"0\" is not possible here"},
		{"too many workers", "workers: 33", "f:1:10: \"33\" is not possible here"},
		{"workers with a network marked for all", "workers: 2\nsnat: [{from: 10.0.0.0/24, to: 192.0.2.1}]\nmarks: [{mark: 1, to: 198.51.100.0/24}]",
			"f:1:10: 2 workers can't tell whose the packets of 10.0.0.0/24 are: mark 1 to 198.51.100.0/24 is about them, and so is the SNAT rule"},
		{"max-conns 0", "max-conns: 0", "f:1:12: \"0\" is not possible here"},
		{"max-conns too large", "max-conns: 100000001", "f:1:12: \"100000001\" is not possible here"},
		{"max-conns in words", "max-conns: 1M", "f:1:12: \"1M\" is not possible here"},
		{"icmp-rate", "icmp-rate: -1", "f:1:12: \"-1\" is not possible here"},
		{"link name", "interfaces: [eth0, et/h1]", "f:1:20: \"et/h1\" is not the name of a link"},
		{"long link name", "interfaces: abcdefghijklmnop", "f:1:13: \"abcdefghijklmnop\" is too long for the name of a link"},
		{"bad pattern", "interfaces: ['eth[']", "f:1:14: \"eth[\" is not the name of a link"},
		{"link twice", "interfaces: [eth0, eth1,\n  eth0]", "f:2:3: eth0 is given twice, first in line 1"},
		{"auto and names", "interfaces: [auto, eth1]", "f:1:14: auto can't be mixed with names"},
		{"relative socket", "control: vsnat.sock", "f:1:10: the control socket \"vsnat.sock\" is not an absolute path"},
		{"dots in the socket", "control: {socket: /run/../x}", "f:1:19: the control socket \"/run/../x\" is not a plain path"},
		{"long socket", "control: /" + strings.Repeat("x", 107), "f:1:10: the control socket's path has 108 bytes, the kernel allows 107"},
		{"world-writable socket", "control: {mode: 0666}", "f:1:17: the socket can't have mode \"0666\""},
		{"metrics by name", "metrics: localhost:9887", "f:1:10: \"localhost:9887\" is not an address and a port to listen on"},
		{"metrics without port", "metrics: 127.0.0.1", "f:1:10: \"127.0.0.1\" is not an address and a port to listen on"},
		{"metrics by port 0", "metrics: 0", "f:1:10: \"0\" is not an address and a port to listen on"},
		{"metrics asked by address", "metrics: {listen: 9887, hosts: [\"[::1]\"]}", "f:1:33: \"[::1]\" is not the name of a host"},
		{"ready for what", "metrics: {ready: all}", "f:1:18: ready can't be \"all\""},
		{"empty group", "control: {group: ''}", "f:1:18: the group is empty"},
		{"timeout 0", "timeouts: {udp: 0}", "f:1:17: \"0\" is not a timeout"},
		{"timeout of weeks", "timeouts: {established: 2678401}", "f:1:25: \"2678401\" is not a timeout"},
		{"timeout of a fraction", "timeouts:\n  close: 1500ms", "f:2:10: \"1500ms\" is not a timeout"},
		{"unknown timeout", "timeouts: {estabilshed: 5}", "f:1:12: unknown key \"estabilshed\""},
		{"compat", "compat: lvs", "f:1:9: compat can't be \"lvs\""},
		{"setting unknown", "settings:\n  conn_reuse_modus: 1\n  shadow: 2\n", "f:2:3: unknown setting \"conn_reuse_modus\" | f:3:3: unknown setting \"shadow\""},
		{"setting out of range", "settings: {drop_entry: 4}", "f:1:24: drop_entry can't be \"4\""},
		{"setting in words", "settings: {sloppy_tcp: yes}", "f:1:24: sloppy_tcp can't be \"yes\""},
		{"setting without meaning", "settings: {sync_version: 0}", "f:1:26: sync_version can't be \"0\": connections are not synchronised between directors"},
		{"setting twice", "settings:\n  sloppy_tcp: 1\n  sloppy_tcp: 1\n", "f:3:3: \"sloppy_tcp\" is given twice, first in line 2"},
		{"setting without a value", "settings: {sloppy_tcp: }", "f:1:23: sloppy_tcp has no value"},
		{"setting as a list", "settings: [sloppy_tcp]", "f:1:11: settings is a list, not a mapping of keys"},
		{"timeout as a setting", "settings: {timeout_udp: 60}", "f:1:12: unknown setting \"timeout_udp\""},
		{"address as a network", "addresses: [10.0.0.0/24]", "f:1:13: 10.0.0.0/24 is a network, not an address"},
		{"address twice", "addresses:\n  - 10.0.0.1/24\n  - 10.0.0.1", "f:3:5: 10.0.0.1 is given twice, first in line 2"},
		{"address of multicast", "addresses: [224.0.0.18]", "f:1:13: the director can't have 224.0.0.18: it is a multicast address"},
		{"prefix length", "addresses: [10.0.0.1/33]", "f:1:13: \"10.0.0.1/33\" has no prefix length behind the slash"},
		{"route without destination", "routes: [{via: 10.0.0.1}]", "f:1:10: a route needs a destination"},
		{"route to nowhere", "routes:\n  - dst: 10.0.0.0/8", "f:2:5: the route to 10.0.0.0/8 leads nowhere"},
		{"route with host bits", "routes: [{dst: 10.0.0.1/8, interface: eth0}]", "f:1:16: 10.0.0.1/8 has bits set behind its mask"},
		{"route of two families", "routes: [{dst: 10.0.0.0/8, via: 'fd00::1'}]", "f:1:33: fd00::1 is not of the address family of 10.0.0.0/8"},
		{"route to a pattern", "routes: [{dst: 10.0.0.0/8, interface: 'eth*'}]", "f:1:39: a route leads to one link, not to \"eth*\""},
		{"route twice", "routes:\n- {dst: 10.0.0.0/8, interface: a}\n- {dst: 10.0.0.0/8, interface: b}", "f:3:9: there are two routes to 10.0.0.0/8, the first in line 2"},

		{"service without address", "services:\n  - scheduler: rr\n", "f:2:5: a service needs an address or a mark"},
		{"service of two protocols", "services:\n  - tcp: 192.0.2.1:80\n    udp: 192.0.2.1:80\n", "f:3:10: a service has one of tcp, udp, sctp, mark, mark6"},
		{"service without port", "services: [{tcp: 192.0.2.1}]", "f:1:18: \"192.0.2.1\" has no port"},
		{"service port 0", "services: [{tcp: 192.0.2.1:0}]", "f:1:18: port 0, which is every port, is for persistent services"},
		{"mark 0", "services: [{mark: 0}]", "f:1:19: \"0\" is not a mark"},
		{"mark in words", "services: [{mark6: web}]", "f:1:20: \"web\" is not a mark"},
		{"mark and address", "services: [{mark: 1, udp: 192.0.2.1:53}]", "f:1:19: a service has one of tcp, udp, sctp, mark, mark6"},
		{"mark twice", "services: [{mark: 1}, {mark: 0x1}]", "f:1:30: service mark 1 is given twice, first in line 1"},
		{"family of a mark", "services: [{mark: 1, servers: ['fd00::2']}]", "f:1:32: server fd00::2 is not of the address family of its service mark 1"},
		{"service port 65536", "services: [{tcp: 192.0.2.1:65536}]", "f:1:18: \"65536\" is not a port"},
		{"service port by name", "services: [{tcp: 192.0.2.1:http}]", "f:1:18: \"http\" is not a port"},
		{"service by name", "services: [{tcp: www.example.org:80}]", "f:1:18: \"www.example.org\" is not an IP address"},
		{"number beyond 255", "services: [{tcp: 192.0.2.300:80}]", "f:1:18: \"192.0.2.300\" is not an IP address"},
		{"three numbers", "services: [{tcp: 192.0.2:80}]", "f:1:18: \"192.0.2\" is not an IP address"},
		{"leading zero", "services: [{tcp: 192.0.02.1:80}]", "f:1:18: \"192.0.02.1\" is not an IP address"},
		{"IPv6 without brackets", "services: [{tcp: 2001:db8::1:80:90}]", "f:1:18: \"2001:db8::1:80:90\" has no port"},
		{"bracket never closed", "services: [{tcp: '[2001:db8::1:80'}]", "f:1:18: \"[2001:db8::1:80\" has a bracket that is never closed"},
		{"IPv6 zone", "services: [{tcp: '[fe80::1%eth0]:80'}]", "f:1:18: a service can't have fe80::1%eth0: it is bound to a zone"},
		{"service on 0.0.0.0", "services: [{udp: 0.0.0.0:53}]", "f:1:18: a service can't have 0.0.0.0: it is the unspecified address"},
		{"service on multicast", "services: [{tcp: 224.0.0.1:80}]", "f:1:18: a service can't have 224.0.0.1: it is a multicast address"},
		{"service on broadcast", "services: [{tcp: 255.255.255.255:80}]", "f:1:18: a service can't have 255.255.255.255: it is the broadcast address"},
		{"service on loopback", "services: [{tcp: 127.0.0.1:80}]", "f:1:18: a service can't have 127.0.0.1: it is a loopback address, which is never seen on a link"},
		{"service twice", service + "\n  - tcp: 192.0.2.1:80\n", "f:4:10: service tcp 192.0.2.1:80 is given twice, first in line 2"},
		{"service twice in two notations", service + "  - tcp: '[::ffff:192.0.2.1]:80'\n", "f:3:10: service tcp 192.0.2.1:80 is given twice, first in line 2"},
		{"unknown scheduler", service + "    scheduler: rrr\n", "f:3:16: unknown scheduler \"rrr\""},
		{"no-server", service + "    no-server: drop\n", "f:3:16: no-server can't be \"drop\""},
		{"reset for UDP", "services:\n  - udp: 192.0.2.1:53\n    no-server: reset\n", "f:3:16: UDP has no reset"},

		{"flag of no scheduler", service + "    scheduler: sh\n    sched-flags: [sh-port, sh-prot]\n", "f:4:19: scheduler flag \"sh-prot\" does not exist for sh (known: sh-fallback,sh-port,flag-3)"},
		{"flag of another scheduler", service + "    sched-flags: [sh-port]\n", "f:3:19: scheduler flag \"sh-port\" does not exist for wlc (known: flag-1,flag-2,flag-3)"},
		{"persistence in words", service + "    persistence: always\n", "f:3:18: \"always\" is not a timeout"},
		{"mask", service + "    persistence: {timeout: 60, mask: 255.255.255}\n", "f:3:38: \"255.255.255\" is not a mask of clients"},
		{"mask of IPv6", "services:\n  - tcp: '[2001:db8::1]:80'\n    persistence: {timeout: 60, mask: 'ffff::'}\n", "f:3:38: \"ffff::\" is not a mask of clients"},
		{"mask of 129 bits", "services:\n  - mark6: 1\n    persistence: {mask: 129}\n", "f:3:25: \"129\" is not a mask of clients"},
		{"one-packet TCP", service + "    one-packet: true\n", "f:3:17: one-packet scheduling is for UDP only"},
		{"one-packet in words", service + "    one-packet: 1\n", "f:3:17: one-packet can't be \"1\""},
		{"helper", service + "    helper: tftp\n", "f:3:13: helper can't be \"tftp\""},
		{"FTP over UDP", "services:\n  - udp: 192.0.2.1:21\n    helper: ftp\n", "f:3:13: FTP is a protocol over TCP"},
		{"on-server-down", service + "    on-server-down: drop\n", "f:3:21: on-server-down can't be \"drop\""},
		{"idle", service + "    idle: 0\n", "f:3:11: \"0\" is not a timeout"},
		{"method", service + "    servers: [{address: 10.0.0.2, method: masq}]\n", "f:3:43: method can't be \"masq\""},
		{"port with direct routing", service + "    servers: [{address: 10.0.0.2:8080, method: route}]\n", "f:3:25: server 10.0.0.2:8080 has not the port of its service tcp 192.0.2.1:80"},

		{"kind of tunnel", service + "    servers: [{address: 10.0.0.2, method: tunnel, tunnel: vxlan}]\n", "f:3:59: tunnel can't be \"vxlan\""},
		{"tunnel without method", service + "    servers: [{address: 10.0.0.2, tunnel: gre}]\n", "f:3:43: there is no tunnel to the server"},
		{"passive", service + "    passive: true\n", "f:3:14: passive can't be \"true\""},
		{"passive by mark", "services: [{mark: 1, passive: on}]\n", "f:1:31: a service of many ports is asked for some that no server serves, which says nothing of the server"},
		{"nat", service + "    servers: [{address: 10.0.0.2, nat: fullnat}]\n", "f:3:40: nat can't be \"fullnat\""},
		{"nat with a method without", service + "    servers: [{address: 10.0.0.2, method: route, nat: auto}]\n", "f:3:55: with method: route no address is rewritten"},
		{"server at a local address", "local-addresses: [10.0.0.2/24]\n" + service + "    servers: [10.0.0.2]\n", "f:4:15: server 10.0.0.2 is an address of the director (local-addresses)"},
		{"local network", "local-addresses: [10.0.0.0/24]\n", "f:1:19: 10.0.0.0/24 is a network, not an address"},
		{"gue without port", service + "    servers: [{address: 10.0.0.2, method: tunnel, tunnel: gue}]\n", "f:3:59: a tunnel of type gue needs a port"},
		{"port of gre", service + "    servers: [{address: 10.0.0.2, method: tunnel, tunnel: gre, tunnel-port: 6080}]\n", "f:3:77: only a tunnel of type gue has a port"},
		{"checksum of ipip", service + "    servers: [{address: 10.0.0.2, method: tunnel, tunnel-checksum: csum}]\n", "f:3:68: a tunnel of type ipip has no checksum"},
		{"checksum of a tunnel", service + "    servers: [{address: 10.0.0.2, method: tunnel, tunnel: gre, tunnel-checksum: crc}]\n", "f:3:81: tunnel-checksum can't be \"crc\""},

		{"server without address", service + "    servers:\n      - weight: 3\n", "f:4:9: a server needs an address"},
		{"server port", service + "    servers: [10.0.0.2:80, 10.0.0.3:99999]\n", "f:3:28: \"99999\" is not a port"},
		{"server of another family", service + "    servers: ['[fd00::2]:80']\n", "f:3:15: server fd00::2 is not of the address family of its service tcp 192.0.2.1:80"},
		{"server = VIP", service + "    servers: [192.0.2.1:8080]\n", "f:3:15: server 192.0.2.1 is the address of the service itself"},
		{"server = another VIP", service + "    servers: [192.0.2.9:80]\n  - tcp: 192.0.2.9:80\n", "f:3:15: server 192.0.2.9 is the address of the service in line 4"},
		{"server = gateway", "addresses: [10.0.0.1/24]\n" + service + "    servers: [10.0.0.1:80]\n", "f:4:15: server 10.0.0.1 is an address of the director (addresses)"},
		{"server unspecified", service + "    servers: [0.0.0.0:80]\n", "f:3:15: a server can't have 0.0.0.0: it is the unspecified address"},
		{"server on multicast", service + "    servers: [239.1.1.1:80]\n", "f:3:15: a server can't have 239.1.1.1: it is a multicast address"},
		{"server twice", service + "    servers:\n    - 10.0.0.2:80\n    - address: 10.0.0.2\n", "f:5:16: server 10.0.0.2:80 is given twice, first in line 4"},
		{"weight -1", service + "    servers: [{address: 10.0.0.2, weight: -1}]\n", "f:3:43: \"-1\" is not possible here"},
		{"weight 65536", service + "    servers: [{address: 10.0.0.2, weight: 65536}]\n", "f:3:43: \"65536\" is not possible here"},
		{"thresholds", service + "    servers: [{address: 10.0.0.2, upper: 5, lower: 6}]\n", "f:3:52: lower threshold 6 is above the upper threshold 5"},

		{"SNAT without anything", "snat: [{}]", "f:1:8: an SNAT rule needs a source network | f:1:8: an SNAT rule needs an address"},
		{"SNAT host bits", "snat: [{from: 10.0.0.5/24, to: 192.0.2.1}]", "f:1:15: 10.0.0.5/24 has bits set behind its mask"},
		{"SNAT mask with holes", "snat: [{from: 10.0.0.0/255.0.255.0, to: 192.0.2.1}]", "f:1:15: the netmask 255.0.255.0 has holes"},
		{"SNAT families", "snat: [{from: 10.0.0.0/24, to: 'fd00::1'}]", "f:1:32: fd00::1 is not of the address family of 10.0.0.0/24"},
		{"SNAT ports backwards", "snat: [{from: 10.0.0.0/24, to: 192.0.2.1, ports: 2000-1000}]", "f:1:50: ports 2000-1000 are not a range"},
		{"SNAT port 65536", "snat: [{from: 10.0.0.0/24, to: 192.0.2.1, ports: 1024-65536}]", "f:1:50: \"65536\" is not a port"},
		{"SNAT twice", "snat:\n- {from: 10.0.0.0/24, to: 192.0.2.1}\n- {from: 10.0.0.0/24, to: 192.0.2.2}", "f:3:10: there are two SNAT rules for 10.0.0.0/24, the first in line 2"},
		{"SNAT overlap", "snat:\n- {from: 10.0.0.0/24, to: 192.0.2.1}\n- {from: 10.0.0.7, to: 192.0.2.2}", "f:3:10: the source network 10.0.0.7/32 overlaps 10.0.0.0/24 in line 2"},
		{"SNAT multicast", "snat: [{from: 224.0.0.0/4, to: 192.0.2.1}]", "f:1:15: 224.0.0.0/4 is not a network of unicast hosts"},

		{"mark rule to a server", "services: [{tcp: 192.0.2.1:80, servers: [10.0.0.2]}]\nmarks: [{mark: 1, to: 10.0.0.2}]", "f:1:42: server 10.0.0.2 is the address that the rule in line 2 makes the director's"},
		{"mark rule without a mark", "marks: [{proto: tcp}]", "f:1:9: a rule needs the mark that it gives"},
		{"mark rule of mark 0", "marks: [{mark: 0}]", "f:1:16: \"0\" is not a mark"},
		{"mark rule protocol", "marks: [{mark: 1, proto: icmp}]", "f:1:26: proto can't be \"icmp\""},
		{"mark rule host bits", "marks: [{mark: 1, from: 10.0.0.1/8}]", "f:1:25: 10.0.0.1/8 has bits set behind its mask"},
		{"mark rule families", "marks: [{mark: 1, from: 10.0.0.0/8, to: 'fd00::1'}]", "f:1:41: fd00::1/128 is not of the address family of 10.0.0.0/8"},
		{"mark rule to multicast", "marks: [{mark: 1, to: 224.0.0.1}]", "f:1:23: a packet can't have 224.0.0.1: it is a multicast address"},
		{"mark rule to multicasts", "marks: [{mark: 1, to: 224.0.0.0/4}]", "f:1:23: 224.0.0.0/4 is not a network of unicast hosts"},
		{"mark rule ports", "marks: [{mark: 1, ports: 81-80}]", "f:1:26: ports 81-80 are not a range"},
		{"mark rule port 0", "marks: [{mark: 1, ports: 0}]", "f:1:26: \"0\" is not a port"},
		{"mark rule interface", "marks: [{mark: 1, interface: 'eth*'}]", "f:1:30: \"eth*\" is not the name of a link"},
		{"mark rule twice", "marks:\n- {mark: 1, to: 192.0.2.1}\n- {mark: 2, to: 192.0.2.1/32}", "f:3:3: what this rule matches gets mark 1 in line 2 already"},

		{"in several places", "guard: x\nservices:\n  - tcp: 1.2.3:80\n  - tcp: 1.2.3.4:80\n    servers: [10.0.0.1, 10.0.0.1]\nsnat: 3\n",
			"f:1:8: guard can't be \"x\" | f:3:10: \"1.2.3\" is not an IP address | f:5:25: server 10.0.0.1:80 is given twice, first in line 5 | f:6:7: snat is a single value, not a list"},
	} {
		f(tt.name, tt.text, tt.want)
	}
}

// inOneLine is what was refused, each problem of which must have a hint.
func inOneLine(t *testing.T, err error) string {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("%v is no refusal", err)
	}
	var list []string
	for _, p := range refused.Problems {
		list = append(list, p.String())
		if p.Hint == "" {
			t.Errorf("no hint: %s", p)
		}
	}
	return strings.Join(list, " | ")
}

// A hint names the word that was probably meant.
func TestHints(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"servicse: []", "did you mean services?"},
		{"max_conns: 5", "did you mean max-conns?"},
		{"Interfaces: auto", "did you mean interfaces?"},
		{"services: [{tcp: 192.0.2.1:80, scheduler: wcl}]", "did you mean wlc? one of: dh, "},
		{"timeouts: {ESTABLISHED: 5}", "did you mean established?"},
		{"guard: nfs", "did you mean nft? one of: auto, nft, socket, none"},
		{"snat: [{from: 10.0.0.5/24, to: 192.0.2.1}]", "did you mean 10.0.0.0/24 (the network) or 10.0.0.5/32 (one host)?"},
	} {
		_, err := Parse("f", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", tt.text, err, tt.want)
		}
	}
	if near := Nearest("zebra", []string{"services", "snat"}); near != "" {
		t.Errorf("zebra is near %s", near)
	}
}

// A file full of mistakes tells the first ones and how many more there are.
func TestManyMistakes(t *testing.T) {
	var b strings.Builder
	for i := range 30 {
		fmt.Fprintf(&b, "key%d: 1\n", i)
	}
	_, err := Parse("f", []byte(b.String()))
	var refused *Error
	if !errors.As(err, &refused) || len(refused.Problems) != MaxProblems || refused.More != 10 {
		t.Fatalf("got %v", err)
	}
	if !strings.HasSuffix(err.Error(), "and 10 more") {
		t.Error(err)
	}
}
