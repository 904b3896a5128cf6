// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
)

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	for {
		c, err := net.Dial("unix", path)
		if errors.Is(err, unix.EAGAIN) { // the backlog is full for a moment
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// manyConns are as many as a hostile client opens at once, or as many as this
// process may, short of what the test itself needs.
func manyConns(t *testing.T) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const reserve = 3*control.MaxConns + 100
	if limit.Cur < reserve+control.MaxConns {
		t.Fatalf("only %d descriptors", limit.Cur)
	}
	return int(min(10_000, limit.Cur-reserve))
}

// However many clients begin a request and never end it, the next one is
// served, and no more than MaxConns are kept.
func TestHalfRequests(t *testing.T) {
	path := serve(t, &controltest.Director{})
	many := manyConns(t)
	var silent []net.Conn
	for i := range many {
		c := dial(t, path)
		io.WriteString(c, "POST /v1/services HTTP/1.1\r\nHost: x\r\nContent-Le")
		silent = append(silent, c)
		if i%1000 == 999 {
			if _, err := control.NewClient(path).Services(t.Context()); err != nil {
				t.Fatalf("after %d of them: %v", i+1, err)
			}
		}
	}
	// Of the silent ones, all but the last few were let go.
	for i, c := range silent[:many-control.MaxConns] {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is still there: %v", i, err)
		}
	}
}

// A body without end is refused after the first megabyte.
func TestEndlessBody(t *testing.T) {
	d := &controltest.Director{}
	path := serve(t, d)
	c := dial(t, path)
	fmt.Fprintf(c, "POST /v1/services HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 1<<30)
	answer := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(c, 4096))
		answer <- string(text)
	}()
	sent := 0
	for block := []byte(strings.Repeat(" ", 64<<10)); sent < 1<<30; {
		n, err := c.Write(block)
		sent += n
		if err != nil {
			break
		}
	}
	if sent >= 64<<20 {
		t.Errorf("%d bytes were taken", sent)
	}
	if text := <-answer; text != "" && !strings.HasPrefix(text, "HTTP/1.1 413 ") {
		t.Errorf("answer: %.100s", text)
	}
	if _, err := control.NewClient(path).Services(t.Context()); err != nil {
		t.Error(err)
	}
}

// Clients that ask for much and read nothing hold up nobody.
func TestNeverReads(t *testing.T) {
	d := &controltest.Director{Text: strings.Repeat("# much to read\n", 1<<18)}
	path := serve(t, d)
	for range 2 * control.MaxConns {
		io.WriteString(dial(t, path), "GET /v1/config HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if _, err := control.NewClient(path).Services(t.Context()); err != nil {
		t.Error(err)
	}
}

// A call that takes long in the director keeps its connection while others
// come and go.
func TestBusyIsKept(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	d := &controltest.Director{Text: "services: []\n"}
	d.Enter = func(_ context.Context, name string) {
		if name == "Config" {
			close(inside)
			<-leave
		}
	}
	path := serve(t, d)
	type result struct {
		text string
		err  error
	}
	slow := make(chan result, 1)
	go func() {
		text, err := control.NewClient(path).Config(context.Background())
		slow <- result{text, err}
	}()
	<-inside
	for range 2 * control.MaxConns {
		dial(t, path)
	}
	if _, err := control.NewClient(path).Services(t.Context()); err != nil {
		t.Error(err)
	}
	close(leave)
	if r := <-slow; r.err != nil || r.text != d.Text {
		t.Errorf("got %q, %v", r.text, r.err)
	}
}

func TestNotHTTP(t *testing.T) {
	path := serve(t, &controltest.Director{})
	for _, text := range []string{"\x00\x01\x02\x03\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /v1/services HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"} {
		c := dial(t, path)
		io.WriteString(c, text)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, _ := io.ReadAll(c)
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 4") && !strings.HasPrefix(string(answer), "HTTP/1.1 5") {
			t.Errorf("%.30q: %.60q", text, answer)
		}
	}
	if _, err := control.NewClient(path).Services(t.Context()); err != nil {
		t.Error(err)
	}
}

// A client says within its time what is wrong at the other end.
func TestNobodyThere(t *testing.T) {
	dir := folder(t)
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rude := filepath.Join(dir, "rude")
	other, err := net.Listen("unix", rude)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			c, err := other.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for _, tt := range []struct {
		path, want string
		code       control.Code
	}{
		{filepath.Join(dir, "none"), "no director is running at ", control.CodeUnavailable},
		{filepath.Join(dir, "no", "folder"), "no director is running at ", control.CodeUnavailable},
		{stale, "no director is running at ", control.CodeUnavailable},
		{file, "no director is running at ", control.CodeUnavailable},
		{rude, "closed the connection", control.CodeUnavailable},
		{filepath.Join(dir, strings.Repeat("x", 120)), "longer than 107 bytes", control.CodeInvalid},
	} {
		_, err := control.NewClient(tt.path).Services(t.Context())
		var e *control.Error
		if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.want) || e.Hint == "" {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
}
