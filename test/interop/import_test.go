// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// keepalived's own sample configurations can be imported; what comes out is right,
// and each block that is left out is named.
func TestImportKeepalivedSamples(t *testing.T) {
	samples, err := filepath.Glob("/usr/share/doc/keepalived/samples/keepalived.conf.*")
	if err != nil || len(samples) < 20 {
		t.Fatalf("%d samples, %v: install the package keepalived, with its documentation", len(samples), err)
	}
	program := filepath.Join(t.TempDir(), "vsnat")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/vsnat").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, sample := range samples {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			text, err := os.ReadFile(sample)
			if err != nil {
				t.Fatal(err)
			}
			var made, notes bytes.Buffer
			c := exec.Command(program, "import", sample)
			c.Stdout, c.Stderr = &made, &notes
			if err := c.Run(); err != nil {
				t.Fatalf("%v\n%s", err, notes.Bytes())
			}
			check := exec.Command(program, "config", "check", "-")
			check.Stdin = bytes.NewReader(made.Bytes())
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s%s", err, out, made.Bytes())
			}
			// Not one block is forgotten.
			for _, block := range []string{"vrrp_instance", "vrrp_sync_group", "vrrp_script", "global_defs", "static_routes"} {
				had := strings.Count("\n"+string(text), "\n"+block)
				if told := strings.Count(notes.String(), ": "+block); told < had {
					t.Errorf("%d blocks %s, of which %d are told of:\n%s", had, block, told, notes.Bytes())
				}
			}
			had := strings.Count("\n"+string(text), "\nvirtual_server ")
			if got := strings.Count(made.String(), "  - tcp:") + strings.Count(made.String(), "  - udp:") + strings.Count(made.String(), "  - mark:"); got < had {
				t.Errorf("%d virtual servers became %d services\n%s%s", had, got, made.Bytes(), notes.Bytes())
			}
		})
	}
}

// What the tools themselves print is imported: ipvsadm-save of a running director,
// iptables-save of a host.
func TestImportOfARunningDirector(t *testing.T) {
	c := lab.Start(t, lab.Config{})
	direct(t, c, site(c, "packet", tcp(lab.PagePort), udp(53)))
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, []byte(run(t, c.Director, "ipvsadm-save", "-n")), 0o600); err != nil {
		t.Fatal(err)
	}
	made := run(t, c.Director, "vsnat", "import", "--strict", file)
	for _, want := range []string{"tcp: 192.168.88.23:80", "udp: 192.168.88.23:53", "10.0.0.4:80"} {
		if !strings.Contains(made, want) {
			t.Errorf("no %s in\n%s", want, made)
		}
	}
}
