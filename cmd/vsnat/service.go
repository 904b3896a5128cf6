// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

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
	if proto != control.TCP && proto != control.UDP {
		return control.ServiceKey{}, usageError{fmt.Errorf("unknown protocol %q", args[0]), "a service is named by protocol and address, for example tcp 192.168.88.23:80"}
	}
	address, err := parseEndpoint(args[1], 0)
	return control.ServiceKey{Proto: proto, Address: address}, err
}

// noServer is the help of a flag that add and edit have.
const noServerUsage = "answer when no server is left: icmp or reset"

func newServiceAddCommand(r *remote) *cobra.Command {
	var spec control.ServiceSpec
	c := &cobra.Command{
		Use:   "add PROTO ADDRESS:PORT",
		Short: "Add a service",
		Example: `  vsnat service add tcp 192.168.88.23:80 --scheduler rr
  vsnat service add udp "[fd00::23]:53"`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if spec.ServiceKey, err = parseKey(args); err != nil {
				return err
			}
			return r.client().AddService(c.Context(), spec)
		},
	}
	c.Flags().StringVarP(&spec.Scheduler, "scheduler", "s", control.DefaultScheduler, "how a server is chosen")
	c.Flags().StringVar(&spec.NoServer, "no-server", control.NoServerICMP, noServerUsage)
	return c
}

func newServiceEditCommand(r *remote) *cobra.Command {
	var o struct{ scheduler, noServer string }
	c := &cobra.Command{
		Use:     "edit PROTO ADDRESS:PORT",
		Short:   "Change a service; what is not given stays",
		Example: "  vsnat service edit tcp 192.168.88.23:80 --scheduler wlc",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := parseKey(args)
			if err != nil {
				return err
			}
			if err := changes(c, "scheduler", "no-server"); err != nil {
				return err
			}
			now, err := r.client().Service(c.Context(), key)
			if err != nil {
				return err
			}
			spec := now.ServiceSpec
			if c.Flags().Changed("scheduler") {
				spec.Scheduler = o.scheduler
			}
			if c.Flags().Changed("no-server") {
				spec.NoServer = o.noServer
			}
			return r.client().EditService(c.Context(), spec)
		},
	}
	c.Flags().StringVarP(&o.scheduler, "scheduler", "s", "", "how a server is chosen")
	c.Flags().StringVar(&o.noServer, "no-server", "", noServerUsage)
	return c
}

// changes refuses an edit without any of its flags.
func changes(c *cobra.Command, flags ...string) error {
	if slices.ContainsFunc(flags, c.Flags().Changed) {
		return nil
	}
	return usageError{fmt.Errorf("nothing to change"), "give at least one of --" + strings.Join(flags, ", --")}
}

func newServiceDelCommand(r *remote) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "del PROTO ADDRESS:PORT",
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
				t.add(append([]string{s.ServiceKey.String(), s.Scheduler, "", strconv.Itoa(active), strconv.Itoa(inactive)}, traffic(s.Stats)...)...)
				for _, server := range s.Servers {
					t.add(append([]string{"  " + server.Address.String(), note(server), strconv.Itoa(server.Weight),
						strconv.Itoa(server.Active), strconv.Itoa(server.Inactive)}, traffic(server.Stats)...)...)
				}
			}
			return t.write(c.OutOrStdout())
		},
	}
	output.register(c)
	return c
}

// note is what an operator should notice about a server.
func note(s control.Server) string {
	switch {
	case s.Overloaded:
		return "overloaded"
	case s.Weight == 0:
		return "drained"
	}
	return ""
}

// traffic is connections and bytes both ways.
func traffic(s control.Counters) []string {
	return []string{count(s.Conns), count(s.InBytes), count(s.OutBytes)}
}
