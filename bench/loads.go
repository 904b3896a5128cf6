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
	name      string
	about     string
	figures   []figure // that are made of it
	operation string   // what is done again and again; "" if that are several things

	kind  string // of the load generator, see client.go
	port  uint16
	args  []string // of the load generator
	fresh bool     // connections come from many addresses, so that no port comes again soon
	share float64  // of the most requests that the peer could do: the rate
	flows int      // of datagrams, which the peer knows before they count; 1 is any
	held  int      // connections that the peer must be able to hold

	datagrams bool // not for those who carry TCP alone
	rounds    int  // not carried in more; 0 is no limit
	prepare   func(*bed) (undo func() error, err error)
	tool      func(ctx context.Context, b *bed, s service, seconds float64) (outcome, error)
	program   string // that tool needs
}

// A figure is a number of an outcome, and a row of the report.
type figure struct {
	key   string // of the outcome
	name  string // after that of the load
	unit  string
	less  bool   // less is better
	about string // after that of the load
}

// An outcome is what a load generator prints: Figures are gbit (a second), gbyte, rate
// (thousands a second), p50, p99, p999 (quantiles in microseconds), each (KiB of memory
// for a connection) and resident (MiB of memory of the peer's process).
type outcome struct {
	Seconds    float64            `json:"seconds"`
	Operations float64            `json:"operations"` // megabytes, requests or datagrams
	Failed     int                `json:"failed,omitempty"`
	Figures    map[string]float64 `json:"figures"`

	cost cost // of the operations; zero: of all of the load
}

var (
	bulk      = []figure{{key: "gbit", unit: "Gbit/s"}}
	rate      = []figure{{key: "rate", unit: "k/s"}}
	quantiles = []figure{
		{"p50", " p50", "µs", true, "p50"}, {"p99", " p99", "µs", true, "p99"}, {"p999", " p99.9", "µs", true, "p99.9"},
	}
)

// requests is the load that others take their rate from, and lone what waits for nobody.
var (
	requests = &load{name: "requests", operation: "request", about: "requests over 64 connections", figures: rate, kind: "http", port: requestPort,
		args: []string{"--at-once", "64"}}
	lone = &load{name: "latency", operation: "request", about: "one request after the other", figures: quantiles, kind: "http", port: requestPort}
)

var loads = []*load{
	{name: "bulk-up", operation: "MB", about: "one TCP stream to a server", figures: bulk, kind: "up", port: sinkPort},
	{name: "bulk-down", operation: "MB", about: "one TCP stream from a server", figures: bulk, kind: "down", port: sourcePort},
	{name: "downloads", operation: "download", about: "1 MiB over HTTP, 16 at once", figures: []figure{{key: "gbyte", unit: "GB/s"}}, kind: "http",
		port: downloadPort, args: []string{"--at-once", "16"}},
	{name: "connections", operation: "connection", about: "a connection for each request, 64 at once", figures: rate, kind: "http", port: requestPort,
		args: []string{"--at-once", "64", "--close"}, fresh: true},
	{name: "reused", operation: "connection", about: "the same from 4,000 ports that come round", figures: rate, kind: "http", port: requestPort,
		args: []string{"--at-once", "64", "--close"}, prepare: fewPorts},
	requests,
	lone,
	{name: "half", operation: "request", about: "64 connections, half as many requests as go", figures: quantiles, kind: "http", port: requestPort,
		args: []string{"--at-once", "64"}, share: 0.5},
	{name: "busy", operation: "request", about: "the same with nine of ten", figures: quantiles, kind: "http", port: requestPort,
		args: []string{"--at-once", "64"}, share: 0.9},
	{name: "memory", about: "3,000 TCP connections that rest", kind: "hold", port: requestPort, tool: holdStreams, rounds: 3,
		figures: []figure{{"each", " each", "KiB", true, "memory for each"}, {"resident", " process", "MiB", true, "memory of the process"}}},
	datagramsOf("datagrams", "60-byte frames of one flow", 1),
	datagramsOf("flows-100", "60-byte frames of 100 flows", 100),
	flowsHeld("flows-1k", "60-byte frames of 1,000 flows", 1000),
	datagramsOf("flows", "60-byte frames of 10,000 flows", 10_000),
	flowsHeld("flows-100k", "60-byte frames of 100,000 flows", 100_000),
	flowsHeld("flows-1m", "60-byte frames of 1,000,000 flows", 1_000_000),
	{name: "iperf3-up", operation: "MB", about: "as bulk-up, by iperf3", figures: bulk, program: "iperf3", tool: iperf3(), rounds: 1},
	{name: "iperf3-down", operation: "MB", about: "as bulk-down, by iperf3", figures: bulk, program: "iperf3", tool: iperf3("-R"), rounds: 1},
	{name: "wrk", operation: "request", about: "as requests, by wrk", figures: rate, program: "wrk", tool: wrk, rounds: 1},
}

// datagramsOf sends frames of a number of flows in turn.
func datagramsOf(name, about string, flows int) *load {
	return &load{name: name, operation: "datagram", about: about, figures: rate, kind: "datagrams", port: datagramPort, flows: flows,
		datagrams: true, args: []string{"--flows", strconv.Itoa(flows)}}
}

// flowsHeld does so in an order that no cache foresees, and looks at what else so many
// connections cost: the answer to one request while they rest, and memory.
func flowsHeld(name, about string, flows int) *load {
	rounds := 3
	if flows >= 1_000_000 { // which it takes half a minute to make
		rounds = 1
	}
	figures := []figure{rate[0], {"p50", " p50", "µs", true, "a request while they rest, p50"}, {"p99", " p99", "µs", true, "a request while they rest, p99"}}
	if flows >= 100_000 { // fewer are lost among the pages
		figures = append(figures, figure{"each", " each", "KiB", true, "memory for each"})
	}
	return &load{name: name, operation: "datagram", about: about, figures: figures, datagrams: true, held: flows, rounds: rounds, tool: holdFlows(flows)}
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
