// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// The two words of a key are read as they are written.
func TestParseKey(t *testing.T) {
	for _, row := range []struct{ proto, name, want string }{
		{"tcp", "192.0.2.1:80", "tcp 192.0.2.1:80"},
		{"udp", "[::ffff:192.0.2.1]:0", "udp 192.0.2.1:0"},
		{"tcp", "[2001:db8::1]:80", "tcp [2001:db8::1]:80"},
		{"mark", "0xff", "mark 255"},
		{"mark6", "4294967295", "mark6 4294967295"},
		{"tcp", "192.0.2.1", ""},
		{"mark", "0", ""},
		{"mark", "4294967296", ""},
		{"mark6", "-1", ""},
		{"icmp", "192.0.2.1:80", ""},
	} {
		k, err := control.ParseKey(row.proto, row.name)
		if (err == nil) != (row.want != "") || err == nil && k.String() != row.want {
			t.Errorf("%s %s: %q, %v; want %q", row.proto, row.name, k, err, row.want)
		}
		if err == nil && k.IPv4() != (row.proto == "mark" || k.Address.Addr().Is4()) {
			t.Errorf("%s: IPv4 is %v", k, k.IPv4())
		}
	}
}

func TestNetmask(t *testing.T) {
	for _, row := range []struct {
		text, want string // "" of text with want: every bit
		ipv4       bool
		canonical  string
	}{
		{"", "255.255.255.255", true, ""},
		{"255.255.255.255", "255.255.255.255", true, ""},
		{"32", "255.255.255.255", true, ""},
		{"24", "255.255.255.0", true, "255.255.255.0"},
		{"0", "0.0.0.0", true, "0.0.0.0"},
		{"255.0.255.0", "255.0.255.0", true, "255.0.255.0"},
		{"0.0.0.24", "0.0.0.24", true, "0.0.0.24"},
		{"33", "", true, ""},
		{"64", "", true, ""},
		{"ffff::", "", true, ""},
		{"", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, ""},
		{"128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, ""},
		{"64", "ffff:ffff:ffff:ffff::", false, "64"},
		{"1", "8000::", false, "1"},
		{"0", "", false, ""},
		{"129", "", false, ""},
		{"255.255.255.0", "", false, ""},
	} {
		mask, err := control.Persistence{Mask: row.text}.Netmask(row.ipv4)
		if (err == nil) != (row.want != "") {
			t.Errorf("%q: %v", row.text, err)
			continue
		}
		if err == nil && (mask.String() != row.want || control.MaskText(mask) != row.canonical) {
			t.Errorf("%q: %s, written %q; want %s, %q", row.text, mask, control.MaskText(mask), row.want, row.canonical)
		}
	}
}
