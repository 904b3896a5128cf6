// SPDX-License-Identifier: Apache-2.0

package style

import (
	"slices"
	"strings"
	"testing"
)

// A ban keeps an import out of some directories.
type ban struct {
	path    string   // import path, with all below it
	in      []string // directories it is banned from, with all below them; nil: everywhere
	allowed []string // directories it may be used in all the same, with all below them
	tests   bool     // tests are banned too
	reason  string
}

var bans = []ban{
	{
		path:    "github.com/google/gopacket",
		allowed: []string{"cmd/vsnat/director/doctor"},
		reason:  "it allocates and walks layers; as an independent decoder it belongs into tests, and to what asks a few questions",
	},
	{
		path:    "net/http",
		allowed: []string{"cmd/vsnat/director", "sched/health", "test/lab", "bench"},
		reason:  "the control API, checks and the lab's web pages are all that speaks HTTP",
	},
	{
		path:    "testing",
		allowed: []string{"iface/ifacetest", "test/lab", "cmd/vsnat/director/control/controltest"},
		reason:  "the binary must not carry it",
	},
	{
		path:   module + "/iface",
		in:     []string{"nat", "conntrack", "sched"},
		tests:  true,
		reason: "the data plane takes the bytes of a packet and knows no queue, MAC or link",
	},
	{
		path:   module + "/nat",
		in:     []string{"iface", "conntrack", "sched"},
		tests:  true,
		reason: "imports go one way: sched, conntrack, nat; frames know nothing of what is done with them",
	},
	{
		path:   module + "/conntrack",
		in:     []string{"iface", "sched"},
		reason: "imports go one way: sched, conntrack, nat; frames know nothing of what is done with them",
	},
	{
		path:   module + "/sched",
		in:     []string{"iface"},
		reason: "frames know nothing of what is done with them",
	},
	{
		path:   module + "/cmd",
		in:     []string{"nat", "conntrack", "sched", "iface"},
		tests:  true,
		reason: "packages do not know the program made of them",
	},
	{
		path:   module + "/test",
		in:     []string{"nat", "conntrack", "sched", "iface", "cmd/vsnat/director", "cmd/vsnat/ipvsadm"},
		reason: "only `vsnat lab` is made of the lab",
	},
	{
		path:   "C",
		tests:  true,
		reason: "pure Go is the point",
	},
	{
		path:   "log",
		tests:  true,
		reason: "log/slog, handed in; never a logger of the process",
	},
}

// below reports whether name is one of dirs or lies below one.
func below(name string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool {
		return name == d || strings.HasPrefix(name, d+"/")
	})
}

func (b ban) meets(f file, path string) bool {
	if path != b.path && !(strings.HasPrefix(path, b.path+"/") && strings.Contains(b.path, ".")) {
		return false
	}
	if f.test() && !b.tests {
		return false
	}
	return (b.in == nil || below(f.dir(), b.in)) && !below(f.dir(), b.allowed)
}

func TestImports(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, path := range f.imports {
			for _, b := range bans {
				if b.meets(f, path) {
					t.Errorf("%s imports %s: %s", f.path, path, b.reason)
				}
			}
		}
	}
}

// Packets and their rewriting meet in the packet loop only, and the director makes rules
// of the host's links.
func TestOneMeetingPlace(t *testing.T) {
	for _, f := range goFiles(t) {
		knows := func(p string) bool { return slices.Contains(f.imports, module+"/"+p) }
		if !f.test() && knows("nat") && knows("iface") && f.dir() != "cmd/vsnat/director" && f.dir() != "cmd/vsnat/director/shard" {
			t.Errorf("%s imports both nat and iface, which only cmd/vsnat/director and its shards may", f.path)
		}
	}
}

// The bans can fail: each is tried on a file that breaks it, and on ones that
// do not.
func TestBans(t *testing.T) {
	at := func(path string) file { return file{path: path} }
	for _, row := range []struct {
		file, path string
		banned     bool
	}{
		{"nat/x.go", "github.com/google/gopacket/layers", true},
		{"nat/x_test.go", "github.com/google/gopacket/layers", false},
		{"cmd/vsnat/x.go", "net/http", true},
		{"cmd/vsnat/director/control/x.go", "net/http", false},
		{"cmd/vsnat/director/control/x.go", "testing", true},
		{"nat/x_test.go", module + "/iface", true},
		{"nat/x_test.go", module + "/iface/ifacetest", true},
		{"iface/guard/x.go", module + "/nat", true},
		{"sched/x.go", module + "/conntrack", true},
		{"conntrack/x.go", module + "/sched", false},
		{"cmd/vsnat/x.go", "log", true},
		{"cmd/vsnat/x.go", "log/slog", false},
	} {
		got := slices.ContainsFunc(bans, func(b ban) bool { return b.meets(at(row.file), row.path) })
		if got != row.banned {
			t.Errorf("%s importing %s: banned %v, want %v", row.file, row.path, got, row.banned)
		}
	}
}
