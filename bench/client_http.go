// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// requestPages asks for a page again and again, over a number of connections or
// with a connection for each request. With a rate, requests are due at times that
// do not depend on the answers, and what a late one waited counts.
func requestPages(o *clientOptions) (outcome, error) {
	askers := make([]*asker, o.atOnce)
	for i := range askers {
		askers[i] = &asker{o: o, number: i, buffer: make([]byte, 256<<10)}
	}
	if !o.close { // their connections are there when it begins
		if err := together(askers, (*asker).ask); err != nil {
			return outcome{}, err
		}
	}
	began := time.Now()
	err := together(askers, func(a *asker) error {
		a.received = 0
		return a.run(began)
	})
	took := time.Since(began)
	var times []time.Duration
	var received int64
	var failed int
	var why error
	for _, a := range askers {
		times = append(times, a.times...)
		received += a.received
		failed += a.failed
		if a.why != nil {
			why = a.why
		}
		if a.conn != nil {
			a.conn.Close()
		}
	}
	if err != nil {
		return outcome{}, err
	}
	if len(times) == 0 {
		return outcome{}, fmt.Errorf("no request of %d was answered: %w", failed, why)
	}
	slices.Sort(times)
	return outcome{
		Seconds: took.Seconds(), Operations: float64(len(times)), Failed: failed,
		Figures: map[string]float64{
			"rate": float64(len(times)) / took.Seconds() / 1000, "gbyte": float64(received) / 1e9 / took.Seconds(),
			"p50": quantile(times, 0.5), "p99": quantile(times, 0.99), "p999": quantile(times, 0.999),
		},
	}, nil
}

// hold opens connections, asks once over each and leaves them open.
func hold(o *clientOptions) (outcome, error) {
	askers := make([]*asker, o.atOnce)
	for i := range askers {
		askers[i] = &asker{o: o, number: i, buffer: make([]byte, 1<<10)}
	}
	const atOnce = 64 // a server's backlog is no more than some
	for some := range slices.Chunk(askers, atOnce) {
		if err := together(some, (*asker).ask); err != nil {
			return outcome{}, err
		}
	}
	return outcome{Operations: float64(len(askers))}, nil
}

// together has askers do something at once, and returns the first error.
func together(askers []*asker, do func(*asker) error) error {
	var group errgroup.Group
	for _, a := range askers {
		group.Go(func() error { return do(a) })
	}
	return group.Wait()
}

// quantile of sorted times, in microseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Nanoseconds()) / 1000
}

// An asker is one of those that ask at once.
type asker struct {
	o        *clientOptions
	number   int
	conn     net.Conn
	dialed   int
	buffer   []byte
	times    []time.Duration
	received int64
	failed   int   // connections that did not come about
	why      error // the last of them
}

func (a *asker) run(began time.Time) error {
	var every time.Duration
	if a.o.rate > 0 {
		every = time.Duration(float64(a.o.atOnce) / a.o.rate * float64(time.Second))
	}
	due := began.Add(every * time.Duration(a.number) / time.Duration(a.o.atOnce))
	for end := began.Add(a.o.length()); ; {
		start := time.Now()
		if every > 0 {
			time.Sleep(due.Sub(start))
			start, due = due, due.Add(every)
		}
		if start.After(end) {
			return nil
		}
		err := a.ask()
		if errors.Is(err, errDial) {
			a.failed++
			a.why = err
			continue
		}
		if err != nil {
			return err
		}
		a.times = append(a.times, time.Since(start))
	}
}

// errDial is a connection that did not come about.
var errDial = errors.New("no connection")

var (
	askAgain = []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	askOnce  = []byte("GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
)

// ask sends one request and reads the answer to its end.
func (a *asker) ask() error {
	request := askAgain
	if a.o.close {
		request = askOnce
	}
	if a.conn == nil {
		conn, err := a.o.dial(a.number + a.dialed*a.o.atOnce)
		if err != nil {
			return fmt.Errorf("%w: %w", errDial, err)
		}
		a.conn = conn
		a.dialed++
	}
	if _, err := a.conn.Write(request); err != nil {
		return err
	}
	n, err := io.ReadAtLeast(a.conn, a.buffer, 1)
	if err != nil {
		return err
	}
	length := -1 // of head and body
	for {
		if length < 0 {
			head, body := bytes.Index(a.buffer[:n], []byte("\r\n\r\n")), 0
			if head >= 0 {
				at := bytes.Index(a.buffer[:head], []byte("Content-Length: "))
				if at < 0 {
					return errors.New("an answer without its length")
				}
				if _, err := fmt.Sscan(string(a.buffer[at+16:head+2]), &body); err != nil {
					return err
				}
				length = head + 4 + body
				a.received += int64(length)
			}
		}
		if length >= 0 && n >= length {
			break
		}
		if length >= 0 {
			// The rest is only counted.
			k, err := a.conn.Read(a.buffer[:min(length-n, len(a.buffer))])
			if err != nil {
				return err
			}
			n += k
			continue
		}
		k, err := a.conn.Read(a.buffer[n:])
		if err != nil {
			return err
		}
		n += k
	}
	if a.o.close {
		// The server ends first. Who does is left with the port for a minute, and the
		// client has none to spare.
		if _, err := a.conn.Read(a.buffer); err != io.EOF {
			return fmt.Errorf("after the end of the page: %w", err)
		}
		a.conn.Close()
		a.conn = nil
	}
	return nil
}

// portLater has the kernel choose the port when it knows the peer: two connections
// to different ones may share it (IP_BIND_ADDRESS_NO_PORT).
func portLater(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}
