// SPDX-License-Identifier: Apache-2.0

package metrics

import _ "embed"

//go:embed files/dashboard.json
var dashboard string

//go:embed files/alerts.yaml
var alerts string

// Dashboard is a dashboard for Grafana, to be imported.
func Dashboard() string { return dashboard }

// Alerts are alert rules for Prometheus.
func Alerts() string { return alerts }
