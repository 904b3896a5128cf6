// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// The ports of the servers, see server.go.
const (
	sinkPort     = 9001 // swallows
	sourcePort   = 9002 // sends without end
	requestPort  = 9003 // HTTP, a page of a few bytes
	downloadPort = 9004 // HTTP, 1 MiB
	datagramPort = 9005 // UDP, nobody looks
	toolPort     = 5201 // iperf3, of the first server alone: its two connections belong together
)

func ports() []int {
	return []int{sinkPort, sourcePort, requestPort, downloadPort, datagramPort, toolPort}
}

// A load is one kind of traffic.
type load struct {
	name    string
	about   string
	figures []figure // that are made of it

	kind  string // of the load generator, see client.go
	port  uint16
	args  []string // of the load generator
	fresh bool     // connections come from many addresses, so that no port comes again soon
	share float64  // of the most requests that the peer could do: the rate

	datagrams bool // not for those who carry TCP alone
	prepare   func(*bed) (undo func() error, err error)
	tool      func(ctx context.Context, b *bed, s service, seconds float64) (outcome, error)
	program   string // that tool needs
}

// A figure is a number of an outcome, and a row of the report.
type figure struct {
	key  string // of the outcome
	name string // after that of the load
	unit string
	less bool // less is better
}

// An outcome is what a load generator prints: Figures are gbit (a second), gbyte, rate
// (thousands a second), and p50, p99, p999 (quantiles in microseconds).
type outcome struct {
	Seconds    float64            `json:"seconds"`
	Operations float64            `json:"operations"` // megabytes, requests or datagrams
	Figures    map[string]float64 `json:"figures"`
}

var (
	bulk      = []figure{{key: "gbit", unit: "Gbit/s"}}
	rate      = []figure{{key: "rate", unit: "k/s"}}
	quantiles = []figure{
		{"p50", " p50", "µs", true}, {"p99", " p99", "µs", true}, {"p999", " p99.9", "µs", true},
	}
)

// requests is the load that others take their rate from.
var requests = &load{name: "requests", about: "requests over 64 connections", figures: rate, kind: "http", port: requestPort,
	args: []string{"--at-once", "64"}}

var loads = []*load{
	{name: "bulk-up", about: "one TCP stream to a server", figures: bulk, kind: "up", port: sinkPort},
	{name: "bulk-down", about: "one TCP stream from a server", figures: bulk, kind: "down", port: sourcePort},
	{name: "downloads", about: "1 MiB over HTTP, 16 at once", figures: []figure{{key: "gbyte", unit: "GB/s"}}, kind: "http",
		port: downloadPort, args: []string{"--at-once", "16"}},
	{name: "connections", about: "a connection for each request, 64 at once, fresh ports", figures: rate, kind: "http", port: requestPort,
		args: []string{"--at-once", "64", "--close"}, fresh: true},
	{name: "reused", about: "the same from 4,000 ports that come round", figures: rate, kind: "http", port: requestPort,
		args: []string{"--at-once", "64", "--close"}, prepare: fewPorts},
	requests,
	{name: "latency", about: "one request after the other", figures: quantiles, kind: "http", port: requestPort},
	{name: "half", about: "64 connections, half as many requests as go", figures: quantiles, kind: "http", port: requestPort,
		args: []string{"--at-once", "64"}, share: 0.5},
	{name: "busy", about: "the same with nine of ten", figures: quantiles, kind: "http", port: requestPort,
		args: []string{"--at-once", "64"}, share: 0.9},
	{name: "datagrams", about: "60-byte frames of one flow", figures: rate, kind: "datagrams", port: datagramPort,
		datagrams: true, args: []string{"--flows", "1"}},
	{name: "flows", about: "60-byte frames of 10,000 flows", figures: rate, kind: "datagrams", port: datagramPort,
		datagrams: true, args: []string{"--flows", "10000"}},
	{name: "iperf3-up", about: "as bulk-up, by iperf3", figures: bulk, program: "iperf3", tool: iperf3()},
	{name: "iperf3-down", about: "as bulk-down, by iperf3", figures: bulk, program: "iperf3", tool: iperf3("-R")},
	{name: "wrk", about: "as requests, by wrk", figures: rate, program: "wrk", tool: wrk},
}

func loadNames() (names []string) {
	for _, l := range loads {
		names = append(names, l.name)
	}
	return names
}

// chooseLoads returns the named loads, or all whose program is here.
func chooseLoads(names []string) (list []*load) {
	for _, l := range loads {
		if names != nil && !slices.Contains(names, l.name) {
			continue
		}
		if l.program != "" {
			if _, err := lookPath(l.program); err != nil {
				continue // ours measures the same
			}
		}
		list = append(list, l)
	}
	return list
}

// fewPorts leaves the client so few ports that each is used again while somebody
// may still remember its last connection.
func fewPorts(b *bed) (func() error, error) {
	const key = "net.ipv4.ip_local_port_range"
	return func() error { return b.cluster.Client.SetSysctl(key, "2000 65000") },
		b.cluster.Client.SetSysctl(key, "20000 23999")
}

// iperf3 measures with that program, whose server runs for one test.
func iperf3(more ...string) func(context.Context, *bed, service, float64) (outcome, error) {
	return func(ctx context.Context, b *bed, s service, seconds float64) (outcome, error) {
		file, err := lookPath("iperf3")
		if err != nil {
			return outcome{}, err
		}
		args := append([]string{"-J", "-c", s.addresses[0].String(), "-p", strconv.Itoa(toolPort), "-t", fmt.Sprintf("%.0f", max(1, seconds))}, more...)
		server := b.cluster.Servers[0].Command(ctx, file, "-s", "-p", strconv.Itoa(toolPort))
		var said bytes.Buffer
		server.Stdout, server.Stderr = &said, &said
		if err := server.Start(); err != nil {
			return outcome{}, err
		}
		defer server.Wait()
		defer server.Process.Kill()
		var text []byte
		for range 100 { // until it listens; the status says nothing with -J
			text, err = b.cluster.Client.Command(ctx, file, args...).Output()
			if err == nil && !bytes.Contains(text, []byte(`"error":`)) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		var report struct {
			End struct {
				Received struct {
					Speed   float64 `json:"bits_per_second"`
					Bytes   float64 `json:"bytes"`
					Seconds float64 `json:"seconds"`
				} `json:"sum_received"`
			} `json:"end"`
		}
		if err := json.Unmarshal(text, &report); err != nil || report.End.Received.Speed == 0 {
			return outcome{}, fmt.Errorf("iperf3 says %v\n%s\nserver: %s", err, text, said.String())
		}
		r := report.End.Received
		return outcome{Seconds: r.Seconds, Operations: r.Bytes / 1e6, Figures: map[string]float64{"gbit": r.Speed / 1e9}}, nil
	}
}

// wrk measures requests with that program.
func wrk(ctx context.Context, b *bed, s service, seconds float64) (outcome, error) {
	file, err := lookPath("wrk")
	if err != nil {
		return outcome{}, err
	}
	url := fmt.Sprintf("http://%s:%d/", s.addresses[0], requestPort)
	text, err := b.cluster.Client.Command(ctx, file, "-t", "1", "-c", "64", "-d", fmt.Sprintf("%.0fs", max(1, seconds)), url).CombinedOutput()
	if err != nil {
		return outcome{}, fmt.Errorf("wrk: %w\n%s", err, text)
	}
	found := regexp.MustCompile(`Requests/sec:\s+([\d.]+)`).FindSubmatch(text)
	if found == nil {
		return outcome{}, fmt.Errorf("wrk says\n%s", text)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	return outcome{Seconds: seconds, Operations: rate * seconds, Figures: map[string]float64{"rate": rate / 1000}}, err
}
