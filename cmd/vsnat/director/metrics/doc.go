// SPDX-License-Identifier: Apache-2.0

// Package metrics shows a director to Prometheus.
//
// # Shape
//
// A [Snapshot] is everything that is shown, as plain values. The director makes one
// for each scrape, in one call of its deciding goroutine and one of each packet
// loop, which hands out copies between two batches: nothing here is on the way of a
// packet, and nothing is counted twice. [Exposition] writes it, with the
// runtime's and the process's own metrics; families.go is the table of all metrics,
// in which each has its name, its help and where its values come from.
//
// # Names
//
// All begin with vsnat_, have their unit in the name (seconds, bytes; nothing else
// is measured), and end in _total if they only grow. A service is two labels: proto
// (tcp, udp, sctp, mark or mark6) and service (address:port, or the number of the
// mark); a server has the label server beside them. Names and labels stay as they
// are; new ones may come. Counters begin at zero when the director starts, and are
// untouched by vsnat zero and ipvsadm -Z.
//
// # Bounds
//
// What stands in labels is configured, or comes from fixed lists: nothing of them
// comes from packets. At most [MaxServices] services and [MaxServers] servers are
// shown one by one, those that were added first; vsnat_metrics_left_out says how
// many are not. At most four scrapes are answered at a time, and values of labels are
// escaped as the format says.
//
// # Dashboard and alerts
//
// files/dashboard.json is for Grafana, files/alerts.yaml for Prometheus.
// A test sees to it that they use only metrics and labels that there are.
package metrics
