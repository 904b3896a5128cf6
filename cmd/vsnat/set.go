// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newSetCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "set [NAME=VALUE...]",
		Short: "Show and change the settings of IPVS",
		Long: `Changes settings under the names that IPVS's sysctls have (net.ipv4.vs.NAME), all
of those given or none. Without any it lists all with their values; those that
are not at their default are marked. The times of TCP's states are settings too.`,
		Example: `  vsnat set
  vsnat set conn_reuse_mode=0
  vsnat set timeout_established=1h timeout_udp=60`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				values, err := parseSettings(args)
				if err != nil {
					return err
				}
				return r.client().SetSettings(c.Context(), values)
			}
			settings, err := r.client().Settings(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				return writeJSON(c.OutOrStdout(), settings)
			}
			t := newTable("NAME", "VALUE ", "DEFAULT ", "MEANING")
			for _, s := range settings {
				value := string(s.Value)
				if s.Value != s.Default {
					value = "* " + value
				}
				t.add(s.Name, value, string(s.Default), s.Meaning)
			}
			return t.write(c.OutOrStdout())
		},
	}
	output.register(c)
	return c
}

// sysctlPrefix is what the names begin with where the kernel has them.
const sysctlPrefix = "net.ipv4.vs."

// parseSettings reads name=value words, as sysctl takes them.
func parseSettings(args []string) (map[string]control.SettingValue, error) {
	values := make(map[string]control.SettingValue)
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		name = strings.TrimPrefix(strings.TrimSpace(name), sysctlPrefix)
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("%q is not NAME=VALUE", arg), "for example vsnat set conn_reuse_mode=0"}
		}
		if _, twice := values[name]; twice {
			return nil, usageError{fmt.Errorf("%s is given twice", name), "leave one out"}
		}
		values[name] = control.SettingValue(strings.TrimSpace(value))
	}
	return values, nil
}
