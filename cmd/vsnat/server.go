// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newServerCommand(r *remote) *cobra.Command {
	return newGroup("server", "Real servers: who answers",
		"  vsnat server add tcp 192.168.88.23:80 10.0.0.2:80\n  vsnat server list",
		newServerAddCommand(r), newServerEditCommand(r), newServerDelCommand(r), newServerListCommand(r))
}

// noPort as the port of an address without one means that it must have one.
const noPort = -1

// parseEndpoint reads address:port, with otherwise as the port of an address that
// has none.
func parseEndpoint(text string, otherwise int) (netip.AddrPort, error) {
	const hint = "write address:port, for example 192.0.2.1:80 or \"[2001:db8::1]:80\""
	a, err := control.ParseEndpoint(text)
	if err != nil {
		return a, usageError{err, hint}
	}
	if _, err := netip.ParseAddrPort(text); err == nil {
		return a, nil
	}
	if otherwise == noPort {
		return a, usageError{fmt.Errorf("%q has no port", text), hint}
	}
	return netip.AddrPortFrom(a.Addr(), uint16(otherwise)), nil
}

// parseServer reads a service and a server of it.
func parseServer(args []string) (control.ServiceKey, netip.AddrPort, error) {
	key, err := parseKey(args)
	if err != nil {
		return key, netip.AddrPort{}, err
	}
	server, err := parseEndpoint(args[2], int(key.Address.Port()))
	return key, server, err
}

const serverArgs = serviceArgs + " SERVER[:PORT]"

// serverFlags are what can be set of a server.
type serverFlags struct {
	weight, upper, lower int
	method, nat          string
	tunnel, checksum     string
	port                 uint16
}

func (f *serverFlags) register(c *cobra.Command) {
	l := c.Flags()
	l.IntVarP(&f.weight, "weight", "w", 1, "share of new connections, 0 to 65535; 0 takes none")
	l.IntVar(&f.upper, "upper", 0, "connections from which on it gets no new ones; 0: no limit")
	l.IntVar(&f.lower, "lower", 0, "connections below which it gets new ones again; 0: three quarters of upper")
	l.StringVar(&f.method, "method", control.MethodNAT, "how packets get there: nat, route or tunnel")
	l.StringVar(&f.nat, "nat", control.NATMasquerade, "whose address it sees as its client's: masquerade (the client's), full or auto")
	l.StringVar(&f.tunnel, "tunnel", control.TunnelIPIP, "what they are wrapped in: ipip, gre or gue")
	l.Uint16Var(&f.port, "tunnel-port", 0, "of a gue tunnel: the UDP port that the server listens at")
	l.StringVar(&f.checksum, "tunnel-checksum", control.ChecksumNone, "of a gue or gre tunnel: nocsum, csum or remcsum")
}

func (f *serverFlags) fields() []field[control.ServerSpec] {
	return []field[control.ServerSpec]{
		{"weight", func(s *control.ServerSpec) { s.Weight = f.weight }},
		{"upper", func(s *control.ServerSpec) { s.Upper = f.upper }},
		{"lower", func(s *control.ServerSpec) { s.Lower = f.lower }},
		{"method", func(s *control.ServerSpec) { s.Method = f.method }},
		{"nat", func(s *control.ServerSpec) { s.NAT = f.nat }},
		{"tunnel", func(s *control.ServerSpec) { s.Tunnel.Type = unless(f.tunnel, control.TunnelIPIP) }},
		{"tunnel-port", func(s *control.ServerSpec) { s.Tunnel.Port = f.port }},
		{"tunnel-checksum", func(s *control.ServerSpec) { s.Tunnel.Checksum = unless(f.checksum, control.ChecksumNone) }},
	}
}

// unless is a word, or nothing if it is the one that goes without saying.
func unless(word, standard string) string {
	if word == standard {
		return ""
	}
	return word
}

func newServerAddCommand(r *remote) *cobra.Command {
	var flags serverFlags
	c := &cobra.Command{
		Use:   "add" + serverArgs,
		Short: "Add a server to a service",
		Example: `  vsnat server add tcp 192.168.88.23:80 10.0.0.2
  vsnat server add tcp 192.168.88.23:80 10.0.0.3:8080 --weight 3
  vsnat server add tcp 192.168.88.23:80 10.0.0.4 --method tunnel --tunnel gre
  vsnat server add mark 1 10.0.0.2`,
		Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			key, server, err := parseServer(args)
			if err != nil {
				return err
			}
			spec := control.ServerSpec{Address: server}
			setAll(&spec, flags.fields())
			return r.client().AddServer(c.Context(), key, spec)
		},
	}
	flags.register(c)
	return c
}

func newServerEditCommand(r *remote) *cobra.Command {
	var flags serverFlags
	c := &cobra.Command{
		Use:     "edit" + serverArgs,
		Short:   "Change a server; what is not given stays",
		Example: "  vsnat server edit tcp 192.168.88.23:80 10.0.0.2 --weight 0",
		Args:    cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			key, server, err := parseServer(args)
			if err != nil {
				return err
			}
			fields, err := given(c, flags.fields())
			if err != nil {
				return err
			}
			spec, err := serverNow(c, r, key, server)
			if err != nil {
				return err
			}
			setAll(&spec, fields)
			return r.client().EditServer(c.Context(), key, spec)
		},
	}
	flags.register(c)
	return c
}

// serverNow is a server as it is set at present.
func serverNow(c *cobra.Command, r *remote, key control.ServiceKey, server netip.AddrPort) (control.ServerSpec, error) {
	service, err := r.client().Service(c.Context(), key)
	if err != nil {
		return control.ServerSpec{}, err
	}
	for _, s := range service.Servers {
		if s.Address == server {
			return s.ServerSpec, nil
		}
	}
	return control.ServerSpec{}, hinted{fmt.Errorf("service %s has no server %s", key, server), "vsnat server list " + key.String() + " shows what there is"}
}

func newServerDelCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "del" + serverArgs,
		Aliases: []string{"delete", "rm"},
		Short:   "Delete a server from a service",
		Long:    "Deletes a server. To let its connections end first, use vsnat drain --wait.",
		Example: "  vsnat server del tcp 192.168.88.23:80 10.0.0.2",
		Args:    cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			key, server, err := parseServer(args)
			if err != nil {
				return err
			}
			return r.client().DeleteServer(c.Context(), key, server)
		},
	}
}

func newServerListCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:     "list [PROTO ADDRESS:PORT | mark NUMBER]",
		Aliases: []string{"ls"},
		Short:   "List servers, of one service or of all",
		Example: "  vsnat server list\n  vsnat server list tcp 192.168.88.23:80 -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return fmt.Errorf("accepts no argument, or protocol and address of a service")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			services, err := chosen(c, r, args)
			if err != nil {
				return err
			}
			if output.json {
				servers := []control.Server{}
				for _, s := range services {
					servers = append(servers, s.Servers...)
				}
				return writeJSON(c.OutOrStdout(), servers)
			}
			t := newTable("SERVER", "SERVICE", "WEIGHT ", "ACTIVE ", "INACTIVE ", "UPPER ", "LOWER ", "CONNS ", "IN ", "OUT ", "NOTE")
			for _, s := range services {
				for _, v := range s.Servers {
					row := []string{v.Address.String(), s.ServiceKey.String(), strconv.Itoa(v.WeightInForce()), strconv.Itoa(v.Active),
						strconv.Itoa(v.Inactive), strconv.Itoa(v.Upper), strconv.Itoa(v.Lower)}
					t.add(append(append(row, traffic(v.Stats)...), note(v))...)
				}
			}
			return t.write(c.OutOrStdout())
		},
	}
	output.register(c)
	return c
}

// chosen are the services that the arguments name: one, or without any, all.
func chosen(c *cobra.Command, r *remote, args []string) ([]control.Service, error) {
	if len(args) == 0 {
		return r.client().Services(c.Context())
	}
	key, err := parseKey(args)
	if err != nil {
		return nil, err
	}
	service, err := r.client().Service(c.Context(), key)
	return []control.Service{service}, err
}
