// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// demoLimit ends a demonstration in which something hangs; the clean-up comes on
// top of it.
const demoLimit = 40 * time.Second

// demoRounds is how often each server's turn comes, and demoLines how many of the
// requests are printed at most.
const (
	demoRounds   = 2
	demoLines    = 12
	demoLogLines = 20 // of the director's, after a failure
)

// runLabDemo is `vsnat lab`.
func runLabDemo(cmd *cobra.Command, o labOptions) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	place, err := lab.Enter("")
	if err != nil || !place.Inside {
		return withStatus(place.Status, err)
	}

	ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	d := labDemo{
		labSteps: newLabSteps(cmd.OutOrStdout()),
		options:  o,
		config:   config,
		place:    place,
	}
	d.run(ctx)
	if d.failed {
		return exitStatus{status: 1}
	}
	return nil
}

// A labDemo is one demonstration, in the order in which it is shown. A step that
// fails ends it, except for the clean-up.
type labDemo struct {
	*labSteps
	options labOptions
	config  lab.Config
	place   lab.Place
	cluster *lab.Cluster
	process *lab.DirectorProcess
}

func (d *labDemo) run(ctx context.Context) {
	defer d.remove()
	for _, part := range []func(context.Context) error{d.build, d.requests, d.outbound, d.listings} {
		if part(ctx) != nil {
			d.directorLog()
			return
		}
	}
}

// build makes the cluster and starts the director.
func (d *labDemo) build(ctx context.Context) error {
	cluster, err := buildCluster(ctx, d.labSteps, d.place, d.config)
	d.cluster = cluster
	if err != nil {
		return err
	}
	d.process, err = startDirector(ctx, d.labSteps, cluster, lab.DirectorOptions{Config: d.options.director(cluster.Config)})
	return err
}

// buildCluster makes a cluster and looks at its web pages; `lab up` does the same.
// A cluster is returned also with an error, if there is one to be closed.
func buildCluster(ctx context.Context, s *labSteps, place lab.Place, config lab.Config) (*lab.Cluster, error) {
	var c *lab.Cluster
	err := s.do("build the cluster", func() (string, error) {
		start := time.Now()
		picture, err := lab.Draw(config)
		if err != nil {
			return "", err
		}
		s.section("%s", picture)
		c, err = lab.Build(place, config)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d nodes in %v", len(c.Nodes()), time.Since(start).Round(time.Millisecond)), nil
	})
	if err != nil {
		return nil, err
	}
	return c, s.do("serve the web pages", func() (string, error) {
		for i, n := range c.Servers {
			page, err := n.Get(ctx, pageURL(n.Addr))
			if err != nil {
				return "", err
			}
			if want := c.Config.ServerPage(i + 1); page != want {
				return "", fmt.Errorf("%s says %q, not %q", n.Name, page, want)
			}
		}
		return fmt.Sprintf("%d different ones, port %d", len(c.Servers), lab.PagePort), nil
	})
}

// startDirector starts the director of a cluster.
func startDirector(ctx context.Context, s *labSteps, c *lab.Cluster, o lab.DirectorOptions) (p *lab.DirectorProcess, err error) {
	err = s.do("start the director", func() (string, error) {
		start := time.Now()
		if p, err = c.StartDirector(ctx, o); err != nil {
			return "", err
		}
		return fmt.Sprintf("vsnat run, process %d, ready in %v", p.PID(), time.Since(start).Round(time.Millisecond)), nil
	})
	return p, err
}

// requests asks the VIP from the client, one connection a request.
func (d *labDemo) requests(ctx context.Context) error {
	c := d.cluster
	url := pageURL(c.Config.VIP())
	d.section("%s %v asks %s", c.Client.Name, c.Client.Addr, url)
	return d.do("requests", func() (string, error) {
		total := demoRounds * len(c.Servers)
		answers := make([]string, 0, total)
		for i := range total {
			page, err := c.Client.Get(ctx, url)
			if err != nil {
				return "", fmt.Errorf("request %d: %w", i+1, err)
			}
			answers = append(answers, page)
			if i < demoLines {
				d.show("request %-3d → %s", i+1, page)
			}
		}
		if total > demoLines {
			d.show("… and %d more", total-demoLines)
		}
		return judgeAnswers(d.options.scheduler, len(c.Servers), answers)
	})
}

// show prints a line while a step runs.
func (d *labDemo) show(format string, args ...any) {
	if d.live {
		fmt.Fprint(d.out, "\r\x1b[K")
	}
	d.line(format, args...)
}

// judgeAnswers says how the answers were spread. With round robin (all weights
// are the same, so weighted as well) the servers must have answered in turn.
func judgeAnswers(scheduler string, servers int, answers []string) (string, error) {
	count := make(map[string]int)
	inTurn := true
	for i, a := range answers {
		count[a]++
		if i >= servers && a != answers[i-servers] {
			inTurn = false
		}
	}
	inTurn = inTurn && len(count) == servers

	switch {
	case inTurn && servers == 1:
		return "the server answered each time", nil
	case inTurn:
		return fmt.Sprintf("the %d servers answered in turn", servers), nil
	case scheduler == "rr" || scheduler == "wrr":
		return "", fmt.Errorf("%s: the servers did not answer in turn", scheduler)
	}
	return fmt.Sprintf("%s: %d of %d servers answered", scheduler, len(count), servers), nil
}

// outbound opens a connection from a real server to the outside, whose peer says
// which source it sees.
func (d *labDemo) outbound(ctx context.Context) error {
	c := d.cluster
	from, to := c.Servers[0], c.Client
	peer := netip.AddrPortFrom(to.Addr, lab.WhoPort)
	d.section("%s %v opens a connection to %v", from.Name, from.Addr, peer)
	return d.do("outbound connection", func() (string, error) {
		seen, err := from.Get(ctx, fmt.Sprintf("http://%v/", peer))
		if err != nil {
			return "", err
		}
		d.show("%s sees a connection from %s", to.Name, seen)
		source, err := netip.ParseAddrPort(seen)
		if err != nil {
			return "", err
		}
		if source.Addr() != c.Config.VIP() {
			return "", fmt.Errorf("the source is %v, not the VIP %v", source.Addr(), c.Config.VIP())
		}
		return "it comes from the VIP", nil
	})
}

// listings prints what ipvsadm says on the director, and all connections, among
// them the one from inside, which ipvsadm has no line for.
func (d *labDemo) listings(ctx context.Context) error {
	for _, argv := range [][]string{{"ipvsadm", "-L", "-n"}, {"vsnat", "conn", "list"}} {
		d.section("director# %s", strings.Join(argv, " "))
		out, err := d.cluster.Director.Command(ctx, argv[0], argv[1:]...).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			d.line("%s", strings.TrimRight(line, "\n"))
		}
		if err != nil {
			return d.do(argv[0], func() (string, error) { return "", err })
		}
	}
	return nil
}

// directorLog prints the end of what the director logged, after a step failed.
func (d *labDemo) directorLog() {
	if d.process == nil {
		return // its log is in the error
	}
	lines := strings.Split(strings.TrimSpace(d.process.Logs()), "\n")
	d.section("the director's log")
	for _, l := range lines[max(0, len(lines)-demoLogLines):] {
		d.line("%s", l)
	}
}

// remove takes the cluster down, whatever came before.
func (d *labDemo) remove() {
	d.section("clean up")
	if d.cluster == nil {
		return
	}
	d.do("remove the cluster", func() (string, error) {
		return "director ended, namespaces gone", d.cluster.Close()
	})
}
