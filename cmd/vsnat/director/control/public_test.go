// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
)

// public offers what monitoring asks on an address of the test's own.
func public(t *testing.T, d control.Director, hosts ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.NewServer(d, slog.New(slog.DiscardHandler)).ServePublic(ctx, l, hosts) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return l.Addr().String()
}

// knock asks an address; header lines are "Name: value".
func knock(t *testing.T, address, method, path string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	return asked(t, &http.Transport{}, req)
}

// FAULTS 126: at the address there is nothing but what monitoring asks, nothing can
// be changed, and pages from elsewhere get nothing, whatever their name leads to.
func TestPublicAddress(t *testing.T) {
	d := &controltest.Director{Measured: "vsnat_problems 0\n"}
	a := public(t, d, "lb1.example.com")
	for _, tt := range []struct {
		method, path string
		header       []string
		status       int
		body         string // or part of it
	}{
		{"GET", "/metrics", nil, 200, "vsnat_problems 0\n"},
		{"HEAD", "/metrics", nil, 200, ""},
		{"GET", "/healthz", nil, 200, "ok\n"},
		{"GET", "/readyz", nil, 200, "ready\n"},
		{"GET", "/metrics", []string{"Host: localhost:9887"}, 200, "vsnat_problems"},
		{"GET", "/metrics", []string{"Host: LB1.example.com"}, 200, "vsnat_problems"},
		{"GET", "/metrics", []string{"Host: [::1]:9887"}, 200, "vsnat_problems"},
		{"GET", "/metrics", []string{"Sec-Fetch-Site: none"}, 200, "vsnat_problems"}, // typed by somebody

		{"GET", "/metrics", []string{"Host: evil.example.com"}, 403, "not-permitted"},
		{"GET", "/metrics", []string{"Host: 127.0.0.1.evil.example.com:9887"}, 403, "not-permitted"},
		{"GET", "/metrics", []string{"Origin: http://evil.example.com"}, 403, "not-permitted"},
		{"GET", "/metrics", []string{"Origin: null"}, 403, "not-permitted"},
		{"GET", "/metrics", []string{"Sec-Fetch-Site: cross-site"}, 403, "not-permitted"},
		{"POST", "/metrics", nil, 404, "not-found"},
		{"OPTIONS", "/metrics", nil, 404, "not-found"},
		{"GET", "/v1/services", nil, 404, "not-found"},
		{"DELETE", "/v1/services", nil, 404, "not-found"},
		{"POST", "/v1/reload", nil, 404, "not-found"},
		{"GET", "/v1/debug/pprof/heap", nil, 404, "not-found"},
		{"GET", "/", nil, 404, "not-found"},
	} {
		status, body := knock(t, a, tt.method, tt.path, tt.header...)
		if status != tt.status || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s %q: %d %q", tt.method, tt.path, tt.header, status, body)
		}
	}
	d.Sick = control.Refuse(control.CodeUnavailable, "not ready: no link is served", "")
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := knock(t, a, "GET", path); status != 503 || !strings.Contains(body, "no link is served") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

// FAULTS 126: many who send a header without end cost a place each until the next
// one comes.
func TestPublicSlowHeaders(t *testing.T) {
	a := public(t, &controltest.Director{Measured: "vsnat_problems 0\n"})
	for range 3 * control.MaxConns {
		c, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ")
	}
	if status, _ := knock(t, a, "GET", "/metrics"); status != 200 {
		t.Errorf("status %d", status)
	}
	// A header larger than any honest one is refused.
	c, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("%q, %v", line, err)
	}
}

// Metrics, health and profiles are on the control socket too.
func TestProbesOnTheSocket(t *testing.T) {
	d := &controltest.Director{Measured: "vsnat_problems 0\n"}
	c, ctx := control.NewClient(serve(t, d)), t.Context()
	var b bytes.Buffer
	if err := c.Metrics(ctx, &b); err != nil || b.String() != d.Measured {
		t.Errorf("%q, %v", b.String(), err)
	}
	if c.Alive(ctx) != nil || c.Ready(ctx) != nil {
		t.Error("it is not well")
	}
	d.Sick = control.Refuse(control.CodeUnavailable, "not ready: no link is served", "hint")
	if err := c.Ready(ctx); err == nil || err.Error() != "not ready: no link is served" {
		t.Errorf("%v", err)
	}

	// A profile of the processor is taken once at a time: this process, which serves too, takes one.
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := c.Profile(ctx, "profile", time.Second, false, io.Discard); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second one: %v", err)
	}
	pprof.StopCPUProfile()
	var cpu bytes.Buffer
	if err := c.Profile(ctx, "profile", time.Second, false, &cpu); err != nil || !bytes.HasPrefix(cpu.Bytes(), []byte("\x1f\x8b")) {
		t.Errorf("%d bytes, %v", cpu.Len(), err)
	}
	for _, target := range []string{"/v1/debug/pprof/profile?seconds=61", "/v1/debug/pprof/profile?seconds=x"} {
		if status, _ := raw(t, c.Path(), "GET", target, ""); status != 422 {
			t.Errorf("%s: status %d", target, status)
		}
	}
	if status, _ := raw(t, c.Path(), "GET", "/v1/debug/pprof/cmdline", ""); status != 404 {
		t.Errorf("status %d", status)
	}
}
