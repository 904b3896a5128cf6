// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/importer"
	"github.com/vsnat/vsnat/sched"
)

// What a shell offers where the tab key is pressed: words of flags, and services and
// servers that the running director has.

// completionTime is how long a director is waited for.
const completionTime = time.Second

// flagWords are the words that flags take, by the name of the flag, or of the command
// and the flag.
func flagWords() map[string][]string {
	kinds := make([]string, 0, len(importer.Kinds()))
	for _, k := range importer.Kinds() {
		kinds = append(kinds, string(k))
	}
	return map[string][]string{
		"output":         {"table", "json"},
		"scheduler":      sched.Names(),
		"then":           {control.ThenLeave, control.ThenReset},
		"method":         {control.MethodNAT, control.MethodRoute, control.MethodTunnel},
		"nat":            {control.NATMasquerade, control.NATFull, control.NATAuto},
		"tunnel":         {control.TunnelIPIP, control.TunnelGRE, control.TunnelGUE},
		"no-server":      {control.NoServerICMP, control.NoServerReset},
		"helper":         {control.HelperNone, control.HelperFTP},
		"on-server-down": {"keep", "reset", "repick"},
		"state":          {"ESTABLISHED", "SYN_RECV", "SYN_SENT", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "UDP", "ICMP"},
		"io":             {string(config.IOPacket), string(config.IOTUN)},
		"vip":            {"none", "nic", "lo", "bare"},
		"import from":    kinds,
	}
}

// A completer offers the next argument after those that are there.
type completer func(c *cobra.Command, args []string) []string

// addCompletions has all commands of a program offer words.
func addCompletions(root *cobra.Command, r *remote) {
	words := flagWords()
	arguments := map[string]completer{
		"drain":        r.serverWords,
		"undrain":      r.drainedWords,
		"health":       r.serverWords,
		"maintenance":  afterWord(r.serverWords, "on", "off"),
		"service edit": r.serviceWords,
		"service del":  r.serviceWords,
		"server add":   r.serviceWords,
		"server edit":  r.memberWords,
		"server del":   r.memberWords,
		"lab exec":     func(*cobra.Command, []string) []string { return []string{"client", "director", "rs1", "rs2", "rs3"} },
		"set":          r.settingWords,
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), root.Name()+" ")
		c.Flags().VisitAll(func(f *pflag.Flag) {
			list := words[path+" "+f.Name]
			if list == nil {
				list = words[f.Name]
			}
			if list != nil && f.Value.Type() != "bool" {
				// It fails for a flag that has some already, and there is none.
				_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
			}
		})
		if offer := arguments[path]; offer != nil {
			c.ValidArgs = nil
			c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				return offer(c, args), cobra.ShellCompDirectiveNoFileComp
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// afterWord offers words first, and then what follows them.
func afterWord(then completer, words ...string) completer {
	return func(c *cobra.Command, args []string) []string {
		if len(args) == 0 {
			return words
		}
		return then(c, args[1:])
	}
}

// services are those that the director has; none if it does not say so in time.
func (r *remote) services(c *cobra.Command) []control.Service {
	ctx, cancel := context.WithTimeout(c.Context(), completionTime)
	defer cancel()
	list, err := r.client().Services(ctx)
	if err != nil {
		return nil
	}
	return list
}

// serverWords are servers of any service, and then the services of one.
func (r *remote) serverWords(c *cobra.Command, args []string) []string {
	return r.serversWhere(c, args, func(*control.Server) bool { return true })
}

// drainedWords are those of servers that were taken out of service.
func (r *remote) drainedWords(c *cobra.Command, args []string) []string {
	return r.serversWhere(c, args, func(v *control.Server) bool { return v.Drain != nil })
}

func (r *remote) serversWhere(c *cobra.Command, args []string, meant func(*control.Server) bool) (list []string) {
	for _, s := range r.services(c) {
		for i := range s.Servers {
			v := &s.Servers[i]
			if !meant(v) {
				continue
			}
			switch address := v.Address.String(); {
			case len(args) == 0:
				list = append(list, address+"\t"+s.ServiceKey.String())
			case address == args[0]:
				list = append(list, keyWord(s.ServiceKey, args[1:])...)
			}
		}
	}
	return offered(list)
}

// serviceWords are services, whose names are two words.
func (r *remote) serviceWords(c *cobra.Command, args []string) (list []string) {
	for _, s := range r.services(c) {
		list = append(list, keyWord(s.ServiceKey, args)...)
	}
	return offered(list)
}

// memberWords are services, and then the servers of one.
func (r *remote) memberWords(c *cobra.Command, args []string) (list []string) {
	if len(args) < 2 {
		return r.serviceWords(c, args)
	}
	for _, s := range r.services(c) {
		if s.ServiceKey.String() == args[0]+" "+args[1] && len(args) == 2 {
			for _, v := range s.Servers {
				list = append(list, v.Address.String())
			}
		}
	}
	return offered(list)
}

// keyWord is the next word of a service's name after some of it; nil: they are of
// another one, or all of it.
func keyWord(key control.ServiceKey, before []string) []string {
	words := strings.Fields(key.String())
	if len(before) >= len(words) || !slices.Equal(words[:len(before)], before) {
		return nil
	}
	return words[len(before) : len(before)+1]
}

func (r *remote) settingWords(c *cobra.Command, _ []string) (list []string) {
	ctx, cancel := context.WithTimeout(c.Context(), completionTime)
	defer cancel()
	settings, err := r.client().Settings(ctx)
	if err != nil {
		return nil
	}
	for _, s := range settings {
		list = append(list, s.Name+"=\t"+s.Meaning)
	}
	return list
}

// offered is a list in order, each word once.
func offered(list []string) []string {
	slices.Sort(list)
	return slices.CompactFunc(list, func(a, b string) bool {
		x, _, _ := strings.Cut(a, "\t")
		y, _, _ := strings.Cut(b, "\t")
		return x == y
	})
}

// unknownFlag adds to an error about flags which one was meant.
func unknownFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := config.Nearest(unknown.GetSpecifiedName(), names); near != "" {
		return usageError{err, fmt.Sprintf("did you mean --%s? see %s --help", near, c.CommandPath())}
	}
	return err
}
