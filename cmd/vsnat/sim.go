// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/sched"
)

// simOptions are the flags of `vsnat sim`.
type simOptions struct {
	scheduler    string
	flags        string
	weights      string
	connections  int
	hold         bool
	keep         int // --close
	sequential   bool
	clients      int
	destinations int
	every        time.Duration
	seed         uint64
	output       outputFlag
}

// Bounds of a simulation: the addresses there are, and what anybody reads.
const (
	simMaxServers     = 253 // 10.0.0.2 to 10.0.0.254
	simMaxConnections = 1_000_000
	simMaxHosts       = 200 // clients from 192.168.88.21, destinations from 192.168.88.23
)

func newSimCommand() *cobra.Command {
	var o simOptions
	c := &cobra.Command{
		Use:   "sim",
		Short: "Show which server a scheduler chooses, and why",
		Long: `Sim opens connections to a service whose servers are 10.0.0.2, 10.0.0.3 and so
on, added in this order, and prints the server of each with the reason. Nothing is
sent: what chooses is the very code that does so for packets. Addresses are
written by what is special about them, .2 for 10.0.0.2.

Connections stay open (--hold), or each is closed before the next (--seq), or
--close N keeps N of them and closes the oldest. A closed one still counts as
inactive, as it does while its timer runs.`,
		Example: `  vsnat sim -s wrr -w 3,2,1
  vsnat sim -s wlc -w 3,2,1 -n 12 --close 4
  vsnat sim -s sh --clients 6 -b sh-port
  vsnat sim -s lblc --destinations 3 -n 30
  vsnat sim -s wrr -w 5,1,1 -o json | jq -r .order`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := o.simulation()
			if err != nil {
				return err
			}
			s.run(o)
			if o.output.json {
				return writeJSON(c.OutOrStdout(), s)
			}
			return s.write(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVarP(&o.scheduler, "scheduler", "s", "wlc", "one of "+strings.Join(sched.Names(), ", "))
	f.StringVarP(&o.flags, "sched-flags", "b", "", "flags of the scheduler, such as sh-port,sh-fallback")
	f.StringVarP(&o.weights, "weights", "w", "1,1,1", "weight of each server")
	f.IntVarP(&o.connections, "connections", "n", 12, "number of connections")
	f.BoolVar(&o.hold, "hold", false, "close none (the default)")
	f.IntVar(&o.keep, "close", 0, "keep so many open, and close the oldest (0: close none)")
	f.BoolVar(&o.sequential, "seq", false, "close each before the next")
	f.IntVar(&o.clients, "clients", 1, "number of clients, which take turns")
	f.IntVar(&o.destinations, "destinations", 1, "number of virtual addresses (of a firewall mark), which take turns")
	f.DurationVar(&o.every, "every", time.Second, "time from one connection to the next")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the random numbers of twos")
	o.output.register(c)
	c.MarkFlagsMutuallyExclusive("hold", "close", "seq")
	return c
}

// A simulation is what was asked for and what came of it.
type simulation struct {
	Scheduler string      `json:"scheduler"`
	Flags     string      `json:"flags,omitempty"`
	Order     string      `json:"order"` // last octets: "4 3 2"; "-" is none
	Choices   []simChoice `json:"choices"`
	Servers   []simServer `json:"servers"`

	pool    *sched.Pool
	servers []*sched.Server // in the order in which they were added
	chosen  map[*sched.Server]int
}

type simChoice struct {
	Number  int    `json:"number"`
	Client  string `json:"client"`
	Virtual string `json:"virtual"`
	Server  string `json:"server,omitempty"` // nothing: the client is refused
	Reason  string `json:"reason"`
}

type simServer struct {
	Address  string `json:"address"`
	Weight   int    `json:"weight"`
	Chosen   int    `json:"chosen"`
	Active   int    `json:"active"`
	Inactive int    `json:"inactive"`
}

// simulation checks the flags and sets up the service they describe.
func (o simOptions) simulation() (*simulation, error) {
	for _, n := range []struct {
		flag       string
		value      int
		least, top int
	}{
		{"connections", o.connections, 1, simMaxConnections},
		{"close", o.keep, 0, simMaxConnections},
		{"clients", o.clients, 1, simMaxHosts},
		{"destinations", o.destinations, 1, simMaxHosts},
	} {
		if n.value < n.least || n.value > n.top {
			return nil, usageError{fmt.Errorf("--%s %d is out of range", n.flag, n.value), fmt.Sprintf("%d to %d", n.least, n.top)}
		}
	}
	if o.every < 0 {
		return nil, usageError{errors.New("--every is negative"), "time goes one way"}
	}
	pool, err := o.pool()
	if err != nil {
		return nil, usageError{fmt.Errorf("unknown scheduler %q", o.scheduler), "one of: " + strings.Join(sched.Names(), ", ")}
	}
	flags, err := sched.ParseFlags(o.scheduler, o.flags)
	if err != nil {
		return nil, usageError{err, "see vsnat sim --help"}
	}
	pool.SetOptions(sched.Options{Flags: flags})
	s := &simulation{Scheduler: o.scheduler, Flags: flags.Format(o.scheduler), pool: pool, chosen: make(map[*sched.Server]int)}
	for i, word := range strings.Split(o.weights, ",") {
		weight, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		if err != nil || i >= simMaxServers {
			return nil, usageError{fmt.Errorf("%q are not the weights of 1 to %d servers", o.weights, simMaxServers), "numbers of 0 to 65535 with commas between, for example 3,2,1"}
		}
		server := sched.NewServer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}), 80), int(weight))
		s.servers = append(s.servers, server)
		pool.Add(server)
	}
	return s, nil
}

// pool is a pool whose choices can be had again: chance comes from the seed.
func (o simOptions) pool() (*sched.Pool, error) {
	if o.scheduler == "twos" {
		return sched.NewPoolWith(sched.NewPowerOfTwo(rand.NewPCG(o.seed, 0))), nil
	}
	return sched.NewPool(o.scheduler)
}

// run opens the connections.
func (s *simulation) run(o simOptions) {
	var open, order = []*sched.Server{}, []string{}
	for i := range o.connections {
		r := sched.Request{
			Proto:   6,
			Client:  netip.AddrPortFrom(simHost(21+i%o.clients), uint16(20001+i%40000)),
			Virtual: netip.AddrPortFrom(simHost(23+i%o.destinations), 80),
			Now:     int64(i) * int64(o.every),
		}
		server, why := s.pool.Explain(&r, simName)
		choice := simChoice{Number: i + 1, Client: r.Client.String(), Virtual: r.Virtual.String(), Reason: why}
		if server == nil {
			order = append(order, "-")
		} else {
			choice.Server = server.Addr.String()
			order = append(order, strings.TrimPrefix(simName(server), "."))
			server.ConnOpened()
			server.ConnActivated()
			s.chosen[server]++
			open = append(open, server)
		}
		s.Choices = append(s.Choices, choice)
		if len(open) > 0 && (o.sequential || o.keep > 0 && len(open) > o.keep) {
			open[0].ConnDeactivated()
			open = open[1:]
		}
	}
	s.Order = strings.Join(order, " ")
	for _, server := range s.servers {
		s.Servers = append(s.Servers, simServer{
			Address: server.Addr.String(), Weight: server.Weight(), Chosen: s.chosen[server],
			Active: server.Active(), Inactive: server.Inactive(),
		})
	}
}

func simHost(last int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 88, byte(last)}) }

// simName is all that tells the servers apart.
func simName(s *sched.Server) string { return fmt.Sprintf(".%d", s.Addr.Addr().As4()[3]) }

// write writes the choices and what each server got of them.
func (s *simulation) write(w io.Writer) error {
	t := newTable("# ", "CLIENT", "SERVER", "REASON")
	for _, c := range s.Choices {
		t.add(strconv.Itoa(c.Number), c.Client, cmp.Or(c.Server, "none"), c.Reason)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\n%s: %s\n\n", s.Scheduler, s.Order); err != nil {
		return err
	}
	t = newTable("SERVER", "WEIGHT ", "CHOSEN ", "SHARE ", "ACTIVE ", "INACTIVE ")
	for _, v := range slices.Backward(s.Servers) { // newest first, as the scheduler sees them
		share := 100 * float64(v.Chosen) / float64(len(s.Choices))
		t.add(v.Address, strconv.Itoa(v.Weight), strconv.Itoa(v.Chosen), fmt.Sprintf("%.1f%%", share),
			strconv.Itoa(v.Active), strconv.Itoa(v.Inactive))
	}
	return t.write(w)
}
