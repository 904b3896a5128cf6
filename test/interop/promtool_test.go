// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// Prometheus's own tool finds nothing to say about metrics of a director at work,
// and understands the alert rules.
func TestPromtool(t *testing.T) {
	c := lab.Start(t, lab.Config{})
	direct(t, c, site(c, "packet", tcp(lab.PagePort)))
	run(t, c.Client, "curl", "-sS", "http://"+c.Config.VIP().String())
	folder := t.TempDir()
	file := filepath.Join(folder, "metrics.txt")
	text := run(t, c.Director, "vsnat", "metrics")
	if !strings.Contains(text, "vsnat_service_connections_total{") {
		t.Fatalf("no metrics of services in\n%s", text)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := shell(t, c.Client, "promtool check metrics < "+file+" 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("promtool check metrics:\n%s", out)
	}
	rules := filepath.Join(folder, "alerts.yaml")
	if err := os.WriteFile(rules, []byte(run(t, c.Director, "vsnat", "metrics", "alerts")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, c.Client, "promtool", "check", "rules", rules); !strings.Contains(out, "SUCCESS") {
		t.Errorf("promtool check rules:\n%s", out)
	}
}
