// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

var (
	metricName = regexp.MustCompile(`\b(?:vsnat|go|process)_[a-z0-9_]+`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on) \(([^)]*)\)`)
	matchers   = regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	placed     = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?([a-z]+) ?\}\}`)
)

// known are the names of all series with their labels.
func known(t *testing.T) map[string][]string {
	t.Helper()
	names := make(map[string][]string)
	ours := prometheus.NewRegistry()
	ours.MustRegister(newCollector(full()))
	families, err := prometheus.Gatherers{ours, New(nil).process}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		labels := []string{"instance", "job"} // by Prometheus
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels = append(labels, l.GetName())
			}
		}
		if f.GetType() != dto.MetricType_HISTOGRAM {
			names[f.GetName()] = labels
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			names[f.GetName()+suffix] = append(labels, "le")
		}
	}
	return names
}

// unknown lists what an expression and the texts beside it use that there is not.
func unknown(names map[string][]string, expr string, texts ...string) (list []string) {
	labels := []string{"instance", "job"}
	used := metricName.FindAllString(expr, -1)
	for _, name := range used {
		if _, ok := names[name]; !ok {
			list = append(list, name)
		}
		labels = append(labels, names[name]...)
	}
	if len(used) == 0 && !strings.HasPrefix(expr, "up{") {
		list = append(list, "no metric")
	}
	check := func(label string) {
		if !slices.Contains(labels, label) {
			list = append(list, "label "+label)
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			check(strings.TrimSpace(label))
		}
	}
	for _, m := range matchers.FindAllStringSubmatch(expr, -1) {
		for pair := range strings.SplitSeq(m[2], ",") {
			label := regexp.MustCompile(`^[a-z_]+`).FindString(pair)
			if label != "instance" && label != "job" && !slices.Contains(names[m[1]], label) {
				list = append(list, m[1]+" label "+label)
			}
		}
	}
	for _, text := range texts {
		for _, p := range placed.FindAllStringSubmatch(text, -1) {
			check(p[1])
		}
	}
	return list
}

// Alerts and panels use metrics and labels that there are, and each alert says what
// to do.
func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(Alerts()), &file); err != nil {
		t.Fatal(err)
	}
	names, n := known(t), 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			n++
			if list := unknown(names, r.Expr, r.Annotations["summary"], r.Annotations["description"]); list != nil {
				t.Errorf("%s uses what there is not: %q", r.Alert, list)
			}
			if !strings.HasPrefix(r.Alert, "Vsnat") || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s is not complete", r.Alert)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d alerts", n)
	}
}

func TestDashboard(t *testing.T) {
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal([]byte(Dashboard()), &board); err != nil {
		t.Fatal(err)
	}
	names, ids := known(t), make(map[int]bool)
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || len(p.Targets) == 0 {
			t.Errorf("panel %q: id %d, place %+v, %d targets", p.Title, p.ID, p.GridPos, len(p.Targets))
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			if list := unknown(names, target.Expr, target.LegendFormat); list != nil {
				t.Errorf("panel %q uses what there is not: %q", p.Title, list)
			}
		}
	}
	if len(ids) < 15 {
		t.Errorf("only %d panels", len(ids))
	}
}

// The test can fail.
func TestUnknown(t *testing.T) {
	names := known(t)
	for _, row := range []struct {
		expr, text string
		n          int
	}{
		{`sum by (service) (rate(vsnat_service_connections_total{proto="tcp"}[5m]))`, "{{service}}", 0},
		{`vsnat_forwarding_seconds_bucket`, "", 0},
		{`vsnat_forwarding_seconds`, "", 1},
		{`vsnat_service_conns_total`, "", 1},
		{`sum by (server) (vsnat_ready)`, "", 1},
		{`vsnat_ready{server="x"}`, "", 1},
		{`vsnat_ready`, "{{ $labels.link }}", 1},
		{`1`, "", 1},
	} {
		if got := unknown(names, row.expr, row.text); len(got) != row.n {
			t.Errorf("%s: %q, want %d", row.expr, got, row.n)
		}
	}
}
