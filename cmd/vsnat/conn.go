// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newConnCommand(r *remote) *cobra.Command {
	return newGroup("conn", "Connections", "  vsnat conn list --state ESTABLISHED", newConnListCommand(r))
}

// connListOptions are the filters as written, and how many to show.
type connListOptions struct {
	remote                                *remote
	proto, client, service, server, state string
	limit                                 int
	cursor                                string
	output                                outputFlag
}

func newConnListCommand(r *remote) *cobra.Command {
	o := connListOptions{remote: r}
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List connections",
		Long: `Lists connections: the client is the outside end and the server the inside one,
whichever of them opened the connection. Filters narrow the list together.`,
		Example: `  vsnat conn list --client 192.168.88.21
  vsnat conn list --service 192.168.88.23:80 --state established
  vsnat conn list --server 10.0.0.2 --limit 20`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.list(c) },
	}
	f := c.Flags()
	f.StringVar(&o.proto, "proto", "", "tcp, udp, sctp or icmp")
	f.StringVar(&o.client, "client", "", "address or network of the outside end")
	f.StringVar(&o.service, "service", "", "virtual address, with or without port")
	f.StringVar(&o.server, "server", "", "address of the inside end, with or without port")
	f.StringVar(&o.state, "state", "", "for example ESTABLISHED, SYN_RECV or UDP")
	f.IntVarP(&o.limit, "limit", "n", 0, "stop after this many; 0: all")
	f.StringVar(&o.cursor, "cursor", "", "go on where a list with --limit stopped")
	o.output.register(c)
	return c
}

// query reads the filters.
func (o *connListOptions) query() (control.ConnQuery, error) {
	q := control.ConnQuery{Proto: strings.ToLower(o.proto), State: o.state, Cursor: o.cursor}
	if o.limit < 0 {
		return q, usageError{fmt.Errorf("--limit %d is negative", o.limit), "0 shows all"}
	}
	if o.client != "" {
		client, err := control.ParseNetwork(o.client)
		if err != nil {
			return q, usageError{fmt.Errorf("--client: %w", err), "for example 192.168.88.21 or 192.168.88.0/24"}
		}
		q.Client = client
	}
	for _, f := range []struct {
		name, text string
		into       *netip.AddrPort
	}{{"service", o.service, &q.Service}, {"server", o.server, &q.Server}} {
		if f.text == "" {
			continue
		}
		a, err := control.ParseEndpoint(f.text)
		if err != nil {
			return q, usageError{fmt.Errorf("--%s: %w", f.name, err), "for example 192.168.88.23 or 192.168.88.23:80"}
		}
		*f.into = a
	}
	return q, nil
}

// list asks page by page, and writes each before it asks for the next.
func (o *connListOptions) list(c *cobra.Command) error {
	q, err := o.query()
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	var pages connWriter = &connTable{table: newTable("PROTO", "STATE", "EXPIRES ", "CLIENT", "VIRTUAL", "SERVER", "KIND")}
	if o.output.json {
		pages = &connArray{}
	}
	for shown := 0; ; {
		q.Limit = control.DefaultPage
		if o.limit > 0 {
			q.Limit = min(q.Limit, o.limit-shown)
		}
		page, err := o.remote.client().Conns(c.Context(), q)
		if err != nil {
			return err
		}
		if err := pages.write(out, page.Conns); err != nil {
			return err
		}
		shown += len(page.Conns)
		q.Cursor = page.Next
		stop := o.limit > 0 && shown >= o.limit
		if page.Next == "" || stop {
			if err := pages.end(out); err != nil {
				return err
			}
			if page.Next != "" {
				say(c.ErrOrStderr(), fmt.Sprintf("stopped after %d connections", shown), "for the next ones add --cursor "+page.Next)
			}
			return nil
		}
	}
}

// connWriter writes the pages of a listing.
type connWriter interface {
	write(io.Writer, []control.Conn) error
	end(io.Writer) error
}

type connTable struct{ *table }

func (t *connTable) write(w io.Writer, conns []control.Conn) error {
	for _, c := range conns {
		kind := c.Kind
		if c.Local.IsValid() {
			kind += " from " + c.Local.String()
		}
		t.add(c.Proto, c.State, ago(c.Expires.Std()), c.Client.String(), c.Virtual.String(), c.Server.String(), kind)
	}
	return t.table.write(w)
}

func (t *connTable) end(io.Writer) error { return nil }

// connArray writes one JSON array, an entry a line, however many pages.
type connArray struct{ begun bool }

func (a *connArray) write(w io.Writer, conns []control.Conn) error {
	for _, c := range conns {
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		mark := ",\n"
		if !a.begun {
			mark, a.begun = "[\n", true
		}
		if _, err := fmt.Fprintf(w, "%s  %s", mark, escapeJSON(text)); err != nil {
			return err
		}
	}
	return nil
}

func (a *connArray) end(w io.Writer) error {
	text := "\n]\n"
	if !a.begun {
		text = "[]\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
