// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
)

// What was noted crosses the socket as it was, whether it is there already or
// comes while somebody waits.
func TestEvents(t *testing.T) {
	d := &controltest.Director{}
	c := control.NewClient(serve(t, d))
	first := control.Event{
		Kind: control.EventServerDown, Service: service("192.0.2.1:80"), Server: address("10.0.0.2:80"), Link: "eth0", By: "health", Text: "no answer\x1b[2J",
	}
	d.Happened.Add(first)
	d.Happened.Add(control.Event{Kind: control.EventServerUp})

	var list []control.Event
	keep := func(e control.Event) error { list = append(list, e); return nil }
	if err := c.Events(t.Context(), control.EventQuery{}, keep); err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	if since := time.Since(list[0].Time); since < 0 || since > time.Minute {
		t.Errorf("it happened %v ago", since)
	}
	first.Seq, first.Time = 1, list[0].Time
	if !reflect.DeepEqual(list[0], first) {
		t.Errorf("%+v, want %+v", list[0], first)
	}

	// One who follows hears of the second and of what comes then.
	ctx, cancel := context.WithCancel(t.Context())
	var kinds []control.EventKind
	err := c.Events(ctx, control.EventQuery{After: 1, Follow: true}, func(e control.Event) error {
		kinds = append(kinds, e.Kind)
		switch len(kinds) {
		case 1:
			d.Happened.Add(control.Event{Kind: control.EventLinkUp})
		case 2:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(kinds) != "[server-up link-up]" {
		t.Errorf("%v, %v", kinds, err)
	}
	if status, _ := raw(t, c.Path(), "GET", "/v1/events?after=x", ""); status != 422 {
		t.Errorf("status %d", status)
	}
}

// FAULTS 125, 127: readers that take nothing, and too many of them, hold nobody up;
// a line of the answer has no byte that could command a terminal but its end.
func TestSlowReadersOfEvents(t *testing.T) {
	d := &controltest.Director{}
	path := serve(t, d)
	for range 2 * 16 { // half of them are refused
		c := dial(t, path)
		fmt.Fprint(c, "GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" && line != "HTTP/1.1 503 Service Unavailable\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	long := strings.Repeat("x", 10_000)
	for range 3000 { // far more than a socket holds, if nobody reads
		d.Happened.Add(control.Event{Kind: control.EventServerUp, Text: "\x1b\n" + long})
	}
	status, body := raw(t, path, "GET", "/v1/events?after=2990", "")
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if status != 200 || len(lines) != 10 || strings.ContainsRune(body, '\x1b') {
		t.Errorf("status %d, %d lines", status, len(lines))
	}
}

// Who comes too late is told how much is gone, once.
func TestMissedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log control.EventLog
		closed := make(chan struct{})
		var seen []string
		go func() {
			_ = log.Read(t.Context(), control.EventQuery{Follow: true}, closed, func(e control.Event) error {
				if e.Missed > 0 {
					seen = append(seen, fmt.Sprintf("missed %d", e.Missed))
				} else if e.Seq == 1 || e.Seq > 3000 {
					seen = append(seen, fmt.Sprint(e.Seq))
				}
				if e.Seq == 1 {
					time.Sleep(time.Hour) // while the others come
				}
				return nil
			})
			close(closed)
		}()
		log.Add(control.Event{})
		synctest.Wait()
		for range 3000 {
			log.Add(control.Event{Server: netip.AddrPort{}})
		}
		time.Sleep(2 * time.Hour)
		closed <- struct{}{} // ends it
		<-closed
		if want := "[1 missed 1976 3001]"; fmt.Sprint(seen) != want {
			t.Errorf("%v, want %v", seen, want)
		}
		if n := log.Counts()[""]; n != 3001 {
			t.Errorf("%d counted", n)
		}
	})
}
