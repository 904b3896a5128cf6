// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/test/lab"
)

// moreClients are further addresses of the client, so that a connection need not
// wait for a port that was used a moment ago.
const moreClients = 16

// A bed is the cluster that the peers take turns in. The director's host has the
// virtual address, as all but vsnat need it.
type bed struct {
	cluster *lab.Cluster
	program string // this one
	answer  []*lab.Cmd
}

func newBed(dir string) (*bed, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c, err := lab.Build(lab.Place{Inside: true, Dir: dir}, lab.Config{Host: lab.HostVIPOnNIC})
	if err != nil {
		return nil, err
	}
	b := &bed{cluster: c, program: program}
	if err := b.prepare(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// prepare gives the client its addresses and ports, and starts what answers in the
// servers.
func (b *bed) prepare() error {
	for _, a := range b.clients()[1:] {
		if err := b.cluster.Client.AddAddr("eth0", netip.PrefixFrom(a, 24)); err != nil {
			return err
		}
	}
	if err := b.cluster.Client.SetSysctl("net.ipv4.ip_local_port_range", "2000 65000"); err != nil {
		return err
	}
	// forward asks the servers themselves.
	if err := b.cluster.Client.AddRoute(b.cluster.Config.Inside(), b.cluster.Config.VIP()); err != nil {
		return err
	}
	for _, s := range b.cluster.Servers {
		cmd := s.Command(context.Background(), b.program, "server")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		b.answer = append(b.answer, cmd)
	}
	return b.listening()
}

// listening waits until every server answers.
func (b *bed) listening() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for i := range b.cluster.Servers {
		addr := netip.AddrPortFrom(b.cluster.Config.ServerAddr(i+1), requestPort).String()
		for {
			conn, err := b.cluster.Director.Dial(ctx, "tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("nobody answers at %s: %w", addr, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func (b *bed) close() {
	for _, cmd := range b.answer {
		cmd.Process.Kill()
		cmd.Wait()
	}
	b.cluster.Close()
}

// clients are the client's addresses, its own first.
func (b *bed) clients() []netip.Addr {
	list := []netip.Addr{b.cluster.Client.Addr}
	for i := range moreClients {
		list = append(list, netip.AddrFrom4([4]byte{192, 168, 88, byte(100 + i)}))
	}
	return list
}

// A service is where a peer is asked: the virtual address, or the servers if there
// is no peer.
type service struct {
	addresses []netip.Addr
	director  int // process that does the work, 0: the kernel
}

// carry puts one load on a service and returns what came of it.
func (b *bed) carry(ctx context.Context, s service, l *load, seconds float64) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second))+30*time.Second)
	defer cancel()
	var args []string
	if l.share > 0 {
		peak, err := b.generate(ctx, s, requests, seconds, nil)
		if err != nil {
			return sample{}, err
		}
		args = []string{"--rate", fmt.Sprintf("%.0f", l.share*1000*peak.Figures["rate"])}
	}
	before, received := spent(s.director), b.received()
	var result outcome
	var err error
	if l.tool != nil {
		result, err = l.tool(ctx, b, s, seconds)
	} else {
		result, err = b.generate(ctx, s, l, seconds, args)
	}
	if err != nil {
		return sample{}, err
	}
	after := spent(s.director)
	if l.datagrams { // sent is not yet arrived
		result.Operations = float64(b.received() - received)
		result.Figures = map[string]float64{"rate": result.Operations / result.Seconds / 1000}
	}
	out := sample{figures: result.Figures}
	if result.Operations > 0 {
		out.machine = (after.machine - before.machine).Seconds() * 1e6 / result.Operations
		out.director = (after.process - before.process).Seconds() * 1e6 / result.Operations
	}
	return out, nil
}

// generate runs a load generator of ours in the client.
func (b *bed) generate(ctx context.Context, s service, l *load, seconds float64, more []string) (outcome, error) {
	args := []string{"client", l.kind, "--seconds", strconv.FormatFloat(seconds, 'g', -1, 64)}
	for _, a := range s.addresses {
		args = append(args, "--to", netip.AddrPortFrom(a, l.port).String())
	}
	if l.fresh {
		for _, a := range b.clients() {
			args = append(args, "--from", a.String())
		}
	}
	args = append(append(args, l.args...), more...)
	if l.prepare != nil {
		undo, err := l.prepare(b)
		if err != nil {
			return outcome{}, err
		}
		defer undo()
	}
	cmd := b.cluster.Client.Command(ctx, b.program, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		return outcome{}, fmt.Errorf("%w: %s", err, errs.String())
	}
	var o outcome
	if err := json.Unmarshal(text, &o); err != nil {
		return o, fmt.Errorf("%w: %s", err, text)
	}
	return o, nil
}

// received counts the packets that reached the servers.
func (b *bed) received() (packets int64) {
	for _, s := range b.cluster.Servers {
		s.Do(func() error {
			text, err := os.ReadFile("/proc/thread-self/net/dev")
			if err != nil {
				return err
			}
			for line := range strings.SplitSeq(string(text), "\n") {
				if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "eth0:" {
					n, _ := strconv.ParseInt(fields[2], 10, 64)
					packets += n
				}
			}
			return nil
		})
	}
	return packets
}

// cost is processor time.
type cost struct{ machine, process time.Duration }

const jiffy = time.Second / 100 // USER_HZ

// spent reads what the machine was busy for since it started, and a process.
func spent(pid int) (c cost) {
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		first, _, _ := strings.Cut(string(text), "\n")
		for i, f := range strings.Fields(first) {
			n, _ := strconv.ParseInt(f, 10, 64)
			if i > 0 && i < 9 && i != 4 && i != 5 { // neither idle nor waiting for a disk
				c.machine += time.Duration(n) * jiffy
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")); err == nil && pid > 0 {
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 13 {
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			c.process = time.Duration(user+system) * jiffy
		}
	}
	return c
}
