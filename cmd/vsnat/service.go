// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newServiceCommand(r *remote) *cobra.Command {
	return newGroup("service", "Virtual services: what clients connect to",
		"  vsnat service add tcp 192.168.88.23:80 --scheduler rr\n  vsnat service list",
		newServiceAddCommand(r), newServiceEditCommand(r), newServiceDelCommand(r), newServiceListCommand(r))
}

// parseKey reads a service as commands take it: two words, as it is listed.
func parseKey(args []string) (control.ServiceKey, error) {
	proto := strings.ToLower(args[0])
	if proto == control.TCP || proto == control.UDP || proto == control.SCTP {
		address, err := parseEndpoint(args[1], noPort)
		return control.ServiceKey{Proto: proto, Address: address}, err
	}
	key, err := control.ParseKey(proto, args[1])
	if err != nil {
		return key, usageError{err, hintOf(err) + "; a service is named by protocol and address, or by mark: tcp 192.168.88.23:80, mark 1"}
	}
	return key, nil
}

// hintOf is the hint of a refusal.
func hintOf(err error) string {
	var e *control.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

const serviceArgs = " (PROTO ADDRESS:PORT | mark NUMBER)"

// serviceFlags are what can be set of a service.
type serviceFlags struct {
	scheduler, schedFlags, mask, noServer, helper, onServerDown, passive string
	persistence, idle                                                    time.Duration
	onePacket                                                            bool
}

func (f *serviceFlags) register(c *cobra.Command) {
	l := c.Flags()
	l.StringVarP(&f.scheduler, "scheduler", "s", control.DefaultScheduler, "how a server is chosen")
	l.StringVarP(&f.schedFlags, "sched-flags", "b", "", "flags of the scheduler, such as sh-port,sh-fallback")
	l.DurationVarP(&f.persistence, "persistence", "p", 0, "a client keeps its server this long after its last connection, such as 6m; 0: not")
	l.StringVar(&f.mask, "mask", "", "which clients are one for persistence: a netmask, or the length of a prefix")
	l.BoolVar(&f.onePacket, "one-packet", false, "each datagram gets a server of its own")
	l.StringVar(&f.noServer, "no-server", control.NoServerICMP, "answer when no server is left: icmp or reset")
	l.StringVar(&f.helper, "helper", control.HelperNone, "who follows endpoints that are named in the payload: ftp or none")
	l.StringVar(&f.passive, "passive", "", "whether what clients' packets say of a server counts: on or off")
	l.StringVar(&f.onServerDown, "on-server-down", "", "what becomes of the connections of a deleted server: keep, reset or repick")
	l.DurationVar(&f.idle, "idle", 0, "idle time of established connections; 0: that of the director")
}

func (f *serviceFlags) fields() []field[control.ServiceSpec] {
	return []field[control.ServiceSpec]{
		{"scheduler", func(s *control.ServiceSpec) { s.Scheduler = f.scheduler }},
		{"sched-flags", func(s *control.ServiceSpec) { s.SchedFlags = f.schedFlags }},
		{"persistence", func(s *control.ServiceSpec) { s.Persistence.Timeout = control.Duration(f.persistence) }},
		{"mask", func(s *control.ServiceSpec) { s.Persistence.Mask = f.mask }},
		{"one-packet", func(s *control.ServiceSpec) { s.OnePacket = f.onePacket }},
		{"no-server", func(s *control.ServiceSpec) { s.NoServer = f.noServer }},
		{"helper", func(s *control.ServiceSpec) { s.Helper = f.helper }},
		{"passive", func(s *control.ServiceSpec) { s.Passive = f.passive }},
		{"on-server-down", func(s *control.ServiceSpec) { s.OnServerDown = f.onServerDown }},
		{"idle", func(s *control.ServiceSpec) { s.Idle = control.Duration(f.idle) }},
	}
}

func newServiceAddCommand(r *remote) *cobra.Command {
	var flags serviceFlags
	c := &cobra.Command{
		Use:   "add" + serviceArgs,
		Short: "Add a service",
		Example: `  vsnat service add tcp 192.168.88.23:80 --scheduler rr
  vsnat service add udp "[fd00::23]:53"
  vsnat service add mark 1 --persistence 6m`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			var spec control.ServiceSpec
			if spec.ServiceKey, err = parseKey(args); err != nil {
				return err
			}
			setAll(&spec, flags.fields())
			return r.client().AddService(c.Context(), spec)
		},
	}
	flags.register(c)
	return c
}

func newServiceEditCommand(r *remote) *cobra.Command {
	var flags serviceFlags
	c := &cobra.Command{
		Use:     "edit" + serviceArgs,
		Short:   "Change a service; what is not given stays",
		Example: "  vsnat service edit tcp 192.168.88.23:80 --scheduler wlc",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := parseKey(args)
			if err != nil {
				return err
			}
			fields, err := given(c, flags.fields())
			if err != nil {
				return err
			}
			now, err := r.client().Service(c.Context(), key)
			if err != nil {
				return err
			}
			spec := now.ServiceSpec
			setAll(&spec, fields)
			return r.client().EditService(c.Context(), spec)
		},
	}
	flags.register(c)
	return c
}

func newServiceDelCommand(r *remote) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "del" + serviceArgs,
		Aliases: []string{"delete", "rm"},
		Short:   "Delete a service and its servers",
		Example: "  vsnat service del tcp 192.168.88.23:80\n  vsnat service del --all",
		Args: func(c *cobra.Command, args []string) error {
			if all {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(2)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if all {
				return r.client().Flush(c.Context())
			}
			key, err := parseKey(args)
			if err != nil {
				return err
			}
			return r.client().DeleteService(c.Context(), key)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "delete every service")
	return c
}

func newServiceListCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List services with their servers",
		Example: "  vsnat service list\n  vsnat service list -o json | jq '.[].servers[].active'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			services, err := r.client().Services(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				return writeJSON(c.OutOrStdout(), services)
			}
			t := newTable("SERVICE", "SCHEDULER", "WEIGHT ", "ACTIVE ", "INACTIVE ", "CONNS ", "IN ", "OUT ")
			for _, s := range services {
				active, inactive := 0, 0
				for _, server := range s.Servers {
					active += server.Active
					inactive += server.Inactive
				}
				t.add(append([]string{s.ServiceKey.String(), traits(s.ServiceSpec), "", strconv.Itoa(active), strconv.Itoa(inactive)}, traffic(s.Stats)...)...)
				for _, server := range s.Servers {
					t.add(append([]string{"  " + server.Address.String(), note(server), strconv.Itoa(server.WeightInForce()),
						strconv.Itoa(server.Active), strconv.Itoa(server.Inactive)}, traffic(server.Stats)...)...)
				}
			}
			return t.write(c.OutOrStdout())
		},
	}
	output.register(c)
	return c
}

// traits are the scheduler of a service and what else is special about it, in the
// words of ipvsadm.
func traits(s control.ServiceSpec) string {
	text := s.Scheduler
	if s.SchedFlags != "" {
		text += " (" + s.SchedFlags + ")"
	}
	if s.Persistence.Timeout != 0 {
		text += " persistent " + s.Persistence.String()
	}
	if s.OnePacket {
		text += " ops"
	}
	if s.Helper != "" && s.Helper != control.HelperNone {
		text += " helper " + s.Helper
	}
	return text
}

// note is what an operator should notice about a server.
func note(s control.Server) string {
	var notes []string
	if s.Method != "" && s.Method != control.MethodNAT {
		notes = append(notes, s.Method)
	}
	if s.FullNAT {
		notes = append(notes, "fullnat")
	}
	switch {
	case s.Overloaded:
		notes = append(notes, "overloaded")
	case s.Why != "":
		notes = append(notes, s.Why)
	case s.Weight == 0:
		notes = append(notes, "drained")
	}
	return strings.Join(notes, ", ")
}

// traffic is connections and bytes both ways.
func traffic(s control.Counters) []string {
	return []string{count(s.Conns), count(s.InBytes), count(s.OutBytes)}
}
