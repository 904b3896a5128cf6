// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newSNATCommand(r *remote) *cobra.Command {
	return newGroup("snat", "SNAT rules: addresses for connections that inside hosts open",
		"  vsnat snat add 10.0.0.0/24 192.168.88.23\n  vsnat snat list",
		newSNATAddCommand(r), newSNATEditCommand(r), newSNATDelCommand(r), newSNATListCommand(r))
}

const portsUsage = "ports to hand out, for example 1024-65535 (default: any free port of the same class)"

// parseNetwork reads the source of a rule. Bits behind the mask are left for
// the director to refuse.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, usageError{fmt.Errorf("%q is not a network", text), "write address/length, for example 10.0.0.0/24"}
	}
	return p, nil
}

// parsePorts reads lowest-highest or one port; "" is no restriction.
func parsePorts(text string) (lowest, highest uint16, err error) {
	if text == "" {
		return 0, 0, nil
	}
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return 0, 0, usageError{fmt.Errorf("%q is not a range of ports", text), "write lowest-highest, for example 1024-65535"}
	}
	return uint16(a), uint16(b), nil
}

// parseRule reads a whole rule.
func parseRule(args []string, ports string) (control.SNATSpec, error) {
	var spec control.SNATSpec
	var err error
	if spec.From, err = parseNetwork(args[0]); err != nil {
		return spec, err
	}
	if spec.To, err = netip.ParseAddr(args[1]); err != nil {
		return spec, usageError{fmt.Errorf("%q is not an address", args[1]), "for example 192.168.88.23"}
	}
	spec.MinPort, spec.MaxPort, err = parsePorts(ports)
	return spec, err
}

func newSNATAddCommand(r *remote) *cobra.Command {
	var ports string
	c := &cobra.Command{
		Use:     "add NETWORK ADDRESS",
		Short:   "Let connections from a network leave with an address",
		Example: "  vsnat snat add 10.0.0.0/24 192.168.88.23 --ports 1024-65535",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := parseRule(args, ports)
			if err != nil {
				return err
			}
			return r.client().AddSNAT(c.Context(), spec)
		},
	}
	c.Flags().StringVar(&ports, "ports", "", portsUsage)
	return c
}

func newSNATEditCommand(r *remote) *cobra.Command {
	var ports string
	c := &cobra.Command{
		Use:   "edit NETWORK ADDRESS",
		Short: "Replace the rule of a network",
		Long: `Replaces the address and the ports of the rule of a network. It is a deletion
followed by an addition; if the new rule is refused the old one is put back.`,
		Example: "  vsnat snat edit 10.0.0.0/24 192.168.88.24",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := parseRule(args, ports)
			if err != nil {
				return err
			}
			return replaceRule(c, r.client(), spec)
		},
	}
	c.Flags().StringVar(&ports, "ports", "", portsUsage)
	return c
}

func replaceRule(c *cobra.Command, d control.Director, spec control.SNATSpec) error {
	rules, err := d.SNAT(c.Context())
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if rule.From != spec.From {
			continue
		}
		if rule.SNATSpec == spec {
			return nil
		}
		if err := d.DeleteSNAT(c.Context(), spec.From); err != nil {
			return err
		}
		err := d.AddSNAT(c.Context(), spec)
		if err != nil {
			if back := d.AddSNAT(c.Context(), rule.SNATSpec); back != nil {
				return fmt.Errorf("%w (and the old rule is gone: %v)", err, back)
			}
		}
		return err
	}
	return hinted{fmt.Errorf("there is no SNAT rule for %s", spec.From), "vsnat snat add makes one; vsnat snat list shows what there is"}
}

func newSNATDelCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "del NETWORK",
		Aliases: []string{"delete", "rm"},
		Short:   "Delete the rule of a network",
		Example: "  vsnat snat del 10.0.0.0/24",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			from, err := parseNetwork(args[0])
			if err != nil {
				return err
			}
			return r.client().DeleteSNAT(c.Context(), from)
		},
	}
}

func newSNATListCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List SNAT rules",
		Example: "  vsnat snat list -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			rules, err := r.client().SNAT(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				return writeJSON(c.OutOrStdout(), rules)
			}
			t := newTable("FROM", "TO", "PORTS", "MAPPINGS ", "CAPACITY ")
			for _, s := range rules {
				ports := "same class"
				if s.MaxPort != 0 {
					ports = fmt.Sprintf("%d-%d", s.MinPort, s.MaxPort)
				}
				t.add(s.From.String(), s.To.String(), ports, strconv.Itoa(s.Mappings), strconv.Itoa(s.Capacity))
			}
			return t.write(c.OutOrStdout())
		},
	}
	output.register(c)
	return c
}
