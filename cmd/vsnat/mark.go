// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newMarkCommand(r *remote) *cobra.Command {
	return newGroup("mark", "Rules that give packets a mark, for services by mark",
		"  vsnat mark add 1 --to 192.168.88.23 --proto tcp --ports 80\n  vsnat mark list",
		newMarkAddCommand(r), newMarkDelCommand(r), newMarkListCommand(r))
}

// markFlags are what a rule looks at.
type markFlags struct{ proto, from, to, ports, link string }

func (f *markFlags) register(c *cobra.Command) {
	l := c.Flags()
	l.StringVar(&f.proto, "proto", "", "tcp, udp or sctp (default: all of them)")
	l.StringVar(&f.from, "from", "", "address or network that it comes from")
	l.StringVar(&f.to, "to", "", "address or network that it goes to; a single address becomes one of the director's")
	l.StringVar(&f.ports, "ports", "", "ports that it goes to, for example 80 or 8000-8010")
	l.StringVar(&f.link, "interface", "", "link that it comes in by")
}

// spec is the rule that was described.
func (f *markFlags) spec(args []string) (control.MarkSpec, error) {
	m := control.MarkSpec{Proto: strings.ToLower(f.proto), Interface: f.link}
	key, err := parseKey([]string{control.Mark, args[0]})
	if err != nil {
		return m, err
	}
	m.Mark = key.Mark
	for _, n := range []struct {
		text string
		to   *netip.Prefix
	}{{f.from, &m.From}, {f.to, &m.To}} {
		if n.text == "" {
			continue
		}
		if *n.to, err = parseNetwork(n.text); err != nil {
			return m, err
		}
	}
	m.MinPort, m.MaxPort, err = parsePorts(f.ports)
	return m, err
}

func newMarkAddCommand(r *remote) *cobra.Command {
	var flags markFlags
	c := &cobra.Command{
		Use:   "add NUMBER",
		Short: "Give packets a mark",
		Long: `Gives packets a mark, as iptables -t mangle -j MARK does for IPVS; what is not said
matches everything. Of several rules that match a packet, the one that was added
first counts.`,
		Example: `  vsnat mark add 1 --to 192.168.88.23 --proto tcp --ports 80
  vsnat mark add 1 --to 192.168.88.23 --proto tcp --ports 443
  vsnat service add mark 1 --persistence 6m`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := flags.spec(args)
			if err != nil {
				return err
			}
			return r.client().AddMark(c.Context(), m)
		},
	}
	flags.register(c)
	return c
}

func newMarkDelCommand(r *remote) *cobra.Command {
	var flags markFlags
	c := &cobra.Command{
		Use:     "del NUMBER",
		Aliases: []string{"delete", "rm"},
		Short:   "Delete a rule, given as it was added",
		Example: "  vsnat mark del 1 --to 192.168.88.23 --proto tcp --ports 80",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := flags.spec(args)
			if err != nil {
				return err
			}
			return r.client().DeleteMark(c.Context(), m)
		},
	}
	flags.register(c)
	return c
}

func newMarkListCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the rules in the order in which they count",
		Example: "  vsnat mark list -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			rules, err := r.client().Marks(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				return writeJSON(c.OutOrStdout(), rules)
			}
			t := newTable("MARK ", "PROTO", "FROM", "TO", "PORTS", "INTERFACE")
			for _, m := range rules {
				t.add(strconv.FormatUint(uint64(m.Mark), 10), orAny(m.Proto), network(m.From), network(m.To), ports(m), orAny(m.Interface))
			}
			return t.write(c.OutOrStdout())
		},
	}
	output.register(c)
	return c
}

func orAny(text string) string {
	if text == "" {
		return "any"
	}
	return text
}

func network(p netip.Prefix) string {
	if !p.IsValid() {
		return "any"
	}
	return p.String()
}

func ports(m control.MarkSpec) string {
	if m.MaxPort == 0 {
		return "any"
	}
	return control.PortRange(m.MinPort, m.MaxPort)
}
