// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// Loads about connections that are held: what each takes, and what the others cost by
// being there.

// heldStreams is how many TCP connections are held at once. A proxy has two sockets for
// each, which must be within what a process may open.
const heldStreams = 3000

// holdStreams opens TCP connections, uses each once and lets them be. Memory is that of
// the peer's process and of the kernel, which has the sockets of both ends as well: what
// plain forwarding shows.
func holdStreams(ctx context.Context, b *bed, s service, _ float64) (outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := append([]string{"client", "hold", "--at-once", fmt.Sprint(heldStreams)}, b.ends(s, requestPort, true)...)
	cmd := b.cluster.Client.Command(ctx, b.program, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	said, err := cmd.StdoutPipe()
	if err != nil {
		return outcome{}, err
	}
	let, err := cmd.StdinPipe() // whose end lets the connections go
	if err != nil {
		return outcome{}, err
	}
	before := occupied(s.director)
	if err := cmd.Start(); err != nil {
		return outcome{}, err
	}
	line, err := bufio.NewReader(said).ReadBytes('\n')
	after := occupied(s.director)
	let.Close()
	cmd.Wait()
	var o outcome
	if err != nil || json.Unmarshal(line, &o) != nil {
		return o, fmt.Errorf("%v: %s%s", err, line, errs.String())
	}
	grown := after.process - before.process + after.kernel - before.kernel
	o.Figures = map[string]float64{
		"each": float64(grown) / 1024 / heldStreams, "resident": float64(after.process) / (1 << 20),
	}
	return o, nil
}

// holdFlows fills the peer's table with flows of datagrams. Then frames of all of them
// come in an order that no cache foresees, and then one connection asks while they rest.
func holdFlows(flows int) func(context.Context, *bed, service, float64) (outcome, error) {
	return func(ctx context.Context, b *bed, s service, seconds float64) (outcome, error) {
		frames := datagramsOf("", "", flows)
		before := occupied(s.director)
		more, err := b.fill(ctx, s, frames)
		if err != nil {
			return outcome{}, err
		}
		after := occupied(s.director)
		began, received := spent(s.director), b.received()
		all, err := b.generate(ctx, s, frames, seconds, []string{"--stride", "7919"})
		if err != nil {
			return outcome{}, err
		}
		all.Operations = float64(b.received() - received)
		all.cost = began.until(spent(s.director))
		one, err := b.generate(ctx, s, lone, seconds, nil)
		if err != nil {
			return outcome{}, err
		}
		all.Figures = map[string]float64{
			"rate": all.Operations / all.Seconds / 1000, "p50": one.Figures["p50"], "p99": one.Figures["p99"],
		}
		if more > flows/2 { // or memory is what others have left
			grown := after.process - before.process
			if s.director == 0 {
				grown = after.kernel - before.kernel
			}
			all.Figures["each"] = float64(grown) / 1024 / float64(more)
		}
		return all, nil
	}
}

// fill sends a frame of each flow until the peer has all of them, but for one in 200, and
// returns by how many its connections have become more; where nobody counts them, once.
func (b *bed) fill(ctx context.Context, s service, frames *load) (more int, err error) {
	flows := frames.flows
	nearly := flows - flows/200
	count := func() (n int, err error) {
		if s.count == nil {
			return 0, nil
		}
		return s.count(ctx)
	}
	before, err := count()
	held, was := before, 0
	for range 5 { // what is sent that fast does not all arrive
		if err != nil {
			break
		}
		if _, err = b.generate(ctx, s, frames, 0, []string{"--once"}); err != nil {
			break
		}
		was = held
		if held, err = count(); s.count == nil || held-before >= nearly || held >= nearly && held-was < flows-nearly {
			return held - before, err
		}
	}
	if err == nil && held < nearly {
		err = fmt.Errorf("it holds %d of %d flows", held, flows)
	}
	return held - before, err
}
