// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vsnat/vsnat/test/lab"
)

// compareOptions are the flags of compare.
type compareOptions struct {
	rounds            int
	seconds           float64
	peers, loads      []string
	output, svg, page string
	from              []string // files to read instead of measuring
}

func (o *compareOptions) check() error {
	switch {
	case o.rounds < 1 || o.rounds > 100:
		return fmt.Errorf("--rounds %d is not in 1 to 100", o.rounds)
	case o.seconds < 0.1 || o.seconds > 60:
		return fmt.Errorf("--seconds %g is not in 0.1 to 60", o.seconds)
	case o.output != "text" && o.output != "json" && o.output != "markdown":
		return fmt.Errorf("--output %q is neither text, json nor markdown", o.output)
	}
	for what, names := range map[string][2][]string{"peer": {o.peers, peerNames()}, "load": {o.loads, loadNames()}} {
		for _, name := range names[0] {
			if !slices.Contains(names[1], name) {
				return fmt.Errorf("there is no %s %q\nhint: one of %s", what, name, strings.Join(names[1], ", "))
			}
		}
	}
	return nil
}

// compare lets each peer carry each load in each round, or reads what came of that, and
// reports. Progress goes to errs.
func compare(ctx context.Context, o compareOptions, out, errs io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	var r result
	var err error
	if o.from != nil {
		r, err = readResults(o.from)
	} else {
		r, err = takeTurns(ctx, o, errs)
	}
	if err != nil {
		return err
	}
	if o.svg != "" {
		if err := os.WriteFile(o.svg, []byte(r.picture()), 0o644); err != nil {
			return err
		}
	}
	if o.page != "" {
		if err := r.writePart(o.page); err != nil {
			return err
		}
	}
	switch o.output {
	case "json":
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case "markdown":
		r.markdown(out)
	default:
		r.print(out)
	}
	return nil
}

// takeTurns measures.
func takeTurns(ctx context.Context, o compareOptions, errs io.Writer) (result, error) {
	peers, missing := choosePeers(o.peers)
	for _, m := range missing {
		fmt.Fprintln(errs, m)
	}
	if len(peers) == 0 {
		return result{}, errors.New("nobody is left to compare")
	}
	loads := chooseLoads(o.loads)

	b, err := newBed(lab.RunDir())
	if err != nil {
		return result{}, err
	}
	defer b.close()
	r := newReport(peers, loads, o)
	began := time.Now()
	for round := range o.rounds {
		for i := range peers {
			p := peers[(round+i)%len(peers)]
			fmt.Fprintf(errs, "%6.0f s  round %d of %d  %s\n", time.Since(began).Seconds(), round+1, o.rounds, p.name)
			if err := b.measure(ctx, p, loads, round, o.seconds, r.note); err != nil {
				return result{}, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return r.result(), nil
}

// measure has one peer carry the loads of a round.
func (b *bed) measure(ctx context.Context, p *peer, loads []*load, round int, seconds float64, note func(*peer, *load, sample)) error {
	service, stop, err := p.start(ctx, b)
	if err != nil {
		return err
	}
	defer stop()
	for _, l := range loads {
		if p.refuses(l) != "" || l.rounds > 0 && round >= l.rounds {
			continue
		}
		s, err := b.carry(ctx, &service, l, seconds)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		note(p, l, s)
	}
	return stop()
}
