// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// A session runs the command lines of one call of the tool: one, or as many as a
// restore reads.
type session struct {
	program string
	stdin   io.Reader
	stdout  *bufio.Writer
	stderr  io.Writer
	names   Resolver
	connect func() (Director, error)

	connected Director
	restoring bool
	failed    bool   // a line of a restore was refused
	after     string // hint for after the last error, "" for none
}

// line runs one command line.
func (s *session) line(args []string) error {
	c, err := Parse(s.program, args, s.names)
	if err != nil {
		return err
	}
	return s.run(c)
}

func (s *session) run(c *Command) error {
	switch c.Verb {
	case Help:
		printHelp(s.stdout)
		return nil
	case Version:
		printVersion(s.stdout)
		return nil
	case Restore:
		return s.restore()
	}
	d, err := s.director()
	if err != nil {
		return err
	}
	return s.do(c, d)
}

// report flushes what was printed, so that it stands before the error, writes
// the error and returns the exit code.
func (s *session) report(err error) int {
	if flushed := s.stdout.Flush(); err == nil && flushed != nil {
		err = fmt.Errorf("writing the listing: %w", flushed)
	}
	return report(s.stderr, err)
}

// end is report for the last time.
func (s *session) end(err error) int {
	code := s.report(err)
	hint(s.stderr, s.after)
	return code
}

func (s *session) director() (Director, error) {
	if s.connected != nil {
		return s.connected, nil
	}
	d, err := s.connect()
	if err != nil {
		var nobody *Unavailable
		if !errors.As(err, &nobody) {
			err = &Unavailable{Err: err}
		}
		return nil, err
	}
	s.connected = d
	return d, nil
}

// do asks the director for what the command says.
func (s *session) do(c *Command, d Director) error {
	key := c.Service.ServiceKey
	switch c.Verb {
	case AddService:
		return d.AddService(c.Service)
	case EditService:
		return d.EditService(c.Service)
	case DeleteService:
		return d.DeleteService(key)
	case Flush:
		return d.Flush()
	case AddServer:
		return d.AddServer(key, c.Server)
	case EditServer:
		return d.EditServer(key, c.Server)
	case DeleteServer:
		return d.DeleteServer(key, netip.AddrPortFrom(c.Server.Addr, c.Server.Port))
	case Zero:
		if c.Named {
			return d.Zero(&key)
		}
		return d.Zero(nil)
	case SetTimeouts:
		return d.SetTimeouts(c.Timeouts)
	case StartDaemon:
		return d.StartDaemon(c.Daemon)
	case StopDaemon:
		return d.StopDaemon(c.Daemon)
	case Save:
		return s.save(c, d)
	default:
		return s.list(c, d)
	}
}

func (s *session) printer(c *Command) *printer {
	return &printer{w: s.stdout, names: s.names, Listing: c.Listing}
}

func (s *session) save(c *Command, d Director) error {
	services, err := d.Services()
	if err != nil {
		return err
	}
	sortServices(services)
	p := s.printer(c)
	for i := range services {
		p.rule(&services[i])
	}
	return nil
}

func (s *session) list(c *Command, d Director) error {
	p := s.printer(c)
	switch c.Listing.What {
	case Connections:
		return listConns(d, p)
	case TimeoutValues:
		t, err := d.Timeouts()
		if err != nil {
			return err
		}
		fmt.Fprintf(s.stdout, "Timeout (tcp tcpfin udp): %d %d %d\n", t.TCP, t.TCPFin, t.UDP)
		return nil
	case Daemons:
		daemons, err := d.Daemons()
		for _, daemon := range daemons {
			fmt.Fprintf(s.stdout, "%s sync daemon (mcast=%s, syncid=%d, maxlen=%d, group=%s, port=%d, ttl=%d)\n",
				daemon.Role, daemon.Interface, daemon.SyncID, daemon.MaxLen, daemon.Group, daemon.Port, daemon.TTL)
		}
		return err
	default:
		return s.listServices(c, d, p)
	}
}

// listConns writes nothing if there is no director, since only the first answer
// shows that there is one.
func listConns(d Director, p *printer) error {
	titled := false
	title := func() {
		if !titled {
			p.connTitle()
			titled = true
		}
	}
	err := d.Conns(func(conn Conn) error {
		title()
		p.conn(&conn)
		return nil
	})
	if err == nil {
		title()
	}
	return err
}

func (s *session) listServices(c *Command, d Director, p *printer) error {
	services, err := d.Services()
	if err != nil {
		return err
	}
	if c.Named {
		services = only(services, c.Service.ServiceKey)
		if len(services) == 0 {
			return &usageError{text: ErrNoService.Text, code: exitMissing}
		}
	} else {
		info, err := d.Info()
		if err != nil {
			return err
		}
		v := info.Version
		fmt.Fprintf(s.stdout, "IP Virtual Server version %d.%d.%d (size=%d)\n", v[0], v[1], v[2], info.Size)
	}
	if !c.Listing.Unsort {
		sortServices(services)
	}
	p.title()
	for i := range services {
		p.service(&services[i])
	}
	return nil
}

// only returns the part of services that key names: one or none.
func only(services []ServiceEntry, key ServiceKey) []ServiceEntry {
	for i := range services {
		if services[i].ServiceKey == key {
			return services[i : i+1]
		}
	}
	return nil
}
