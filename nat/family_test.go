// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ofIPv4Alone are the scripts that make no sense in IPv6 as they stand, by the reason.
// Most have one beside them that begins with ipv6-.
var ofIPv4Alone = map[string][]string{
	"IPv6 is not cut on its way": {"fragments", "fullnat-fragments", "fragment-flood", "ftp-large", "mtu", "route-errors", "sctp-checksums", "sctp-fragments",
		"tunnel-errors", "tunnel-kinds", "tunnel-mtu"},
	"a datagram has a checksum": {"one-packet", "route", "udp"},
	"the header is another":     {"damaged", "icmp-errors", "sctp-icmp", "sources", "tcp-checksums"},
	"an address in FTP's text": {"ftp-active", "ftp-bounce", "ftp-extended", "ftp-hairpin", "ftp-late", "ftp-life", "ftp-marks", "ftp-on-host", "ftp-passive",
		"ftp-persistent", "ftp-port-again", "ftp-ports", "ftp-split", "fullnat-ftp"},
	"addresses without a counterpart": {"marks-everywhere", "marks-network", "marks-on-host", "reuse-mtu", "snat", "snat-classes", "snat-deleted",
		"tunnel", "tunnel-families", "tunnel-source"},
	"a mark is listed as an address":    {"marks-persistent", "persist-mark"},
	"a client is a whole network":       {"client-limit"},
	"a port that depends on the family": {"sctp-snat"},
}

// TestScriptsInTheOtherFamily sends scripts through the walk once more, in IPv6: the
// same states, choices, time-outs and reasons must come of them. Lengths,
// identifications and listings of bytes are left out, being IPv4's.
func TestScriptsInTheOtherFamily(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	left := slices.Concat(slices.Collect(maps.Values(ofIPv4Alone))...)
	for _, name := range left {
		if !slices.Contains(files, "testdata/scripts/"+name+".txt") {
			t.Errorf("no script %s", name)
		}
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if strings.HasPrefix(name, "ipv6-") || slices.Contains(left, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile("testdata/scripts/" + name + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), name+"-in-ipv6.txt")
			if err := os.WriteFile(file, []byte(inIPv6(string(data))), 0o600); err != nil {
				t.Fatal(err)
			}
			runScript(t, file)
		})
	}
}

// inIPv6 writes a script with other addresses.
func inIPv6(script string) string {
	networks := strings.NewReplacer("192.168.88.1\n", "fe80::88:1\n", "10.0.0.0/24", "fd00:10::/64", "192.168.88.0/24", "2001:db8:88::/64",
		"203.0.113.0/24", "2001:db8:113::/64", "198.51.100.0/24", "2001:db8:51::/64", "/32", "/128", "service mark ", "service mark6 ")
	address := regexp.MustCompile(`\b(192\.168\.88|10\.0\.\d|203\.0\.113|198\.51\.100|192\.0\.2)\.([\d$][\w{}]*)(:[\d${][\w{}]*)?|\{a\}(:[\d${][\w{}]*)?`)
	families := map[string]string{
		"192.168.88": "2001:db8:88::", "10.0.0": "fd00:10::", "203.0.113": "2001:db8:113::", "198.51.100": "2001:db8:51::", "192.0.2": "2001:db8:2::",
	}
	ofIPv4 := regexp.MustCompile(` (len|tos|ipid)=\d+| df\b`)
	identification := regexp.MustCompile(`\b((?:tcp|udp|sctp) .*?) id=\d+`)
	neighbour := regexp.MustCompile(` (to|via)=(\d\d)\b`) // by the last byte of its address
	names := strings.NewReplacer("host-unreachable", "address-unreachable", "frag-needed", "too-big", "net-unreachable", "no-route")
	var out []string
	for _, line := range strings.SplitAfter(script, "\n") {
		if strings.HasPrefix(line, "stats") || strings.HasPrefix(line, "services") || strings.HasPrefix(line, "#") {
			line = "\n" // the numbers of the lines stay
		}
		line = address.ReplaceAllStringFunc(networks.Replace(line), func(s string) string {
			m := address.FindStringSubmatch(s)
			a, port := families[m[1]]+m[2], m[3]+m[4]
			if m[1] == "" {
				a = "2001:db8:64::{a}"
			}
			if port != "" {
				return "[" + a + "]" + port
			}
			return a
		})
		line = identification.ReplaceAllString(line, "$1")
		line = neighbour.ReplaceAllStringFunc(line, func(s string) string {
			key, number, _ := strings.Cut(s, "=")
			n, _ := strconv.ParseUint(number, 16, 8)
			return fmt.Sprintf("%s=%d", key, n)
		})
		out = append(out, ofIPv4.ReplaceAllString(names.Replace(line), ""))
	}
	return strings.Join(out, "")
}

func TestRulesKeepToOneFamily(t *testing.T) {
	r := NewRules()
	service := func(a string) ServiceSpec {
		p := netip.MustParseAddrPort(a)
		return ServiceSpec{ServiceKey: ServiceKey{Proto: ProtoTCP, Addr: p.Addr(), Port: p.Port()}, Scheduler: "rr"}
	}
	server := func(a string) ServerSpec {
		p := netip.MustParseAddrPort(a)
		return ServerSpec{Addr: p.Addr(), Port: p.Port(), Weight: 1}
	}
	four, six := service("192.168.88.23:80"), service("[2001:db8:88::23]:80")
	snat := func(from, to string) error {
		return r.AddSNAT(SNATSpec{From: netip.MustParsePrefix(from), To: netip.MustParseAddr(to)})
	}
	for what, err := range map[string]error{
		"IPv4 service":            r.AddService(four),
		"IPv6 service":            r.AddService(six),
		"IPv4 server":             r.AddServer(four.ServiceKey, server("10.0.0.2:80")),
		"IPv6 server":             r.AddServer(six.ServiceKey, server("[fd00:10::2]:80")),
		"SNAT of an IPv6 network": snat("fd00:10::/64", "2001:db8:88::23"),
		"SNAT of all IPv6":        snat("::/0", "2001:db8:88::23"),
		"SNAT of all IPv4":        snat("0.0.0.0/0", "192.168.88.23"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"IPv6 server of an IPv4 service":  r.AddServer(four.ServiceKey, server("[fd00:10::2]:80")),
		"IPv4 server of an IPv6 service":  r.AddServer(six.ServiceKey, server("10.0.0.2:80")),
		"IPv4 network, IPv6 address":      snat("10.0.0.0/24", "2001:db8:88::23"),
		"IPv6 network, IPv4 address":      snat("fd00:11::/64", "192.168.88.23"),
		"link-local service":              r.AddService(service("[fe80::1]:80")),
		"service with a zone":             r.AddService(service("[fe80::1%eth0]:80")),
		"multicast service":               r.AddService(service("[ff0e::1]:80")),
		"loopback service":                r.AddService(service("[::1]:80")),
		"unspecified service":             r.AddService(service("[::]:80")),
		"IPv4 service in IPv6 form":       r.AddService(service("[::ffff:192.168.88.24]:80")),
		"network of IPv4 in IPv6 form":    snat("::ffff:10.0.1.0/120", "2001:db8:88::23"),
		"network with host bits":          snat("fd00:12::1/64", "2001:db8:88::23"),
		"SNAT address that is link-local": snat("fd00:13::/64", "fe80::1"),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The default route of one family is none of the other's.
func TestPrefixHoldsAddressesOfItsFamily(t *testing.T) {
	for _, row := range []struct {
		prefix, addr string
		want         bool
	}{
		{"::/0", "2001:db8::1", true},
		{"::/0", "192.168.88.21", false},
		{"::/64", "192.168.88.21", false},
		{"0.0.0.0/0", "192.168.88.21", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"0.0.0.0/0", "::1", false},
		{"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::/32", "2001:db9::1", false},
		{"2001:db8::/120", "2001:db8::ff", true},
		{"2001:db8::/120", "2001:db8::1ff", false},
		{"2001:db8::1/128", "2001:db8::1", true},
	} {
		p := newPrefix(netip.MustParsePrefix(row.prefix))
		a := addr(netip.MustParseAddr(row.addr).AsSlice())
		if p.contains(&a) != row.want {
			t.Errorf("%s holds %s: %v", row.prefix, row.addr, !row.want)
		}
		if !a.Is4() && p.ends(&a) {
			t.Errorf("%s is an end of %s", row.addr, row.prefix)
		}
	}
}
