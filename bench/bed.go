// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/test/lab"
)

// manyClients are as many addresses of the client, so that a connection need not wait for
// a port that was used a moment ago.
const manyClients = 16

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
	for _, a := range slices.Concat(b.clients(false), b.clients(true)) {
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

// clients are addresses of the client: those for a peer, and those for none. Servers
// remember the ends of connections by address and port, and their clock by who asked
// whom: the next connection from there to another address would not be believed.
func (b *bed) clients(direct bool) (list []netip.Addr) {
	first := 100
	if direct {
		first += manyClients
	}
	for i := range manyClients {
		list = append(list, netip.AddrFrom4([4]byte{192, 168, 88, byte(first + i)}))
	}
	return list
}

// A service is where a peer is asked: the virtual address, or the servers if there
// is no peer.
type service struct {
	addresses []netip.Addr
	director  int                                // process that does the work, 0: the kernel
	direct    bool                               // there is no peer
	count     func(context.Context) (int, error) // connections that are held; nil if nobody does
	peak      float64                            // requests a second that were measured, in thousands
}

// carry puts one load on a service and returns what came of it.
func (b *bed) carry(ctx context.Context, s *service, l *load, seconds float64) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second))+60*time.Second)
	defer cancel()
	var args []string
	if l.share > 0 {
		if s.peak == 0 {
			peak, err := b.generate(ctx, *s, requests, seconds, nil)
			if err != nil {
				return sample{}, err
			}
			s.peak = peak.Figures["rate"]
		}
		args = []string{"--rate", fmt.Sprintf("%.0f", l.share*1000*s.peak)}
	}
	if l.flows > 1 {
		if _, err := b.fill(ctx, *s, l); err != nil {
			return sample{}, err
		}
	}
	before, received := spent(s.director), b.received()
	var result outcome
	var err error
	if l.tool != nil {
		result, err = l.tool(ctx, b, *s, seconds)
	} else {
		result, err = b.generate(ctx, *s, l, seconds, args)
	}
	if err != nil {
		return sample{}, err
	}
	took := before.until(spent(s.director))
	if result.cost != (cost{}) {
		took = result.cost
	}
	if l == requests {
		s.peak = result.Figures["rate"]
	}
	if l.kind == "datagrams" { // sent is not yet arrived
		result.Operations = float64(b.received() - received)
		result.Figures = map[string]float64{"rate": result.Operations / result.Seconds / 1000}
	}
	out := sample{figures: result.Figures, failed: result.Failed}
	if result.Operations > 0 && l.operation != "" {
		out.machine = took.machine.Seconds() * 1e6 / result.Operations
		out.director = took.process.Seconds() * 1e6 / result.Operations
	}
	return out, nil
}

// generate runs a load generator of ours in the client.
func (b *bed) generate(ctx context.Context, s service, l *load, seconds float64, more []string) (outcome, error) {
	args := []string{"client", l.kind, "--seconds", strconv.FormatFloat(seconds, 'g', -1, 64)}
	args = append(args, b.ends(s, l.port, l.fresh)...)
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

// ends are the arguments of a generator that say where from and where to.
func (b *bed) ends(s service, port uint16, fresh bool) (args []string) {
	for _, a := range s.addresses {
		args = append(args, "--to", netip.AddrPortFrom(a, port).String())
	}
	from := b.clients(s.direct)
	if !fresh {
		from = from[:1]
	}
	for _, a := range from {
		args = append(args, "--from", a.String())
	}
	return args
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
