// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
)

// readIpvsadm reads commands as ipvsadm-restore does.
func (i *Importer) readIpvsadm(f File) error {
	var services []config.Service
	var lines []int
	find := func(key control.ServiceKey) int {
		return slices.IndexFunc(services, func(s config.Service) bool { return s.ServiceKey == key })
	}
	err := ipvsadm.EachCommand(bytes.NewReader(f.Text), func(line int, args []string, c *ipvsadm.Command, err error) {
		if err != nil {
			i.note(f.Name, line, words(args), "ipvsadm would not understand it: "+ipvsadmReason(err))
			return
		}
		service, server := c.Specs()
		at := find(service.ServiceKey)
		switch c.Verb {
		case ipvsadm.AddService, ipvsadm.EditService:
			if c.Service.Engine != "" {
				i.note(f.Name, line, "--pe "+c.Service.Engine, "there are no persistence engines here; persistence is by address")
			}
			if at >= 0 {
				services[at].ServiceSpec = service
				return
			}
			services, lines = append(services, config.Service{ServiceSpec: service}), append(lines, line)
		case ipvsadm.DeleteService:
			if at >= 0 {
				services, lines = slices.Delete(services, at, at+1), slices.Delete(lines, at, at+1)
			}
		case ipvsadm.AddServer, ipvsadm.EditServer, ipvsadm.DeleteServer:
			if at < 0 {
				i.note(f.Name, line, words(args), "no such service was added before")
				return
			}
			s := &services[at]
			s.Servers = slices.DeleteFunc(s.Servers, func(o control.ServerSpec) bool { return o.Address == server.Address })
			if c.Verb != ipvsadm.DeleteServer {
				s.Servers = append(s.Servers, server)
			}
		case ipvsadm.Flush:
			services, lines = nil, nil
		case ipvsadm.SetTimeouts:
			i.setTimeouts(c.Timeouts)
		default:
			i.note(f.Name, line, words(args), "it configures no service")
		}
	})
	if err != nil {
		return err
	}
	for n, s := range services {
		i.add(f.Name, lines[n], s)
	}
	return nil
}

func (i *Importer) setTimeouts(t ipvsadm.Timeouts) {
	for _, s := range []struct {
		seconds int
		to      *control.Duration
	}{{t.TCP, &i.cfg.Timeouts.Established}, {t.TCPFin, &i.cfg.Timeouts.FinWait}, {t.UDP, &i.cfg.Timeouts.UDP}} {
		if s.seconds > 0 {
			*s.to = seconds(s.seconds)
		}
	}
}

func ipvsadmReason(err error) string {
	var e *ipvsadm.Error
	text := err.Error()
	if errors.As(err, &e) {
		text = e.Text
	}
	if strings.HasPrefix(text, "illegal ") {
		text += ": names are not looked up, ipvsadm-save -n writes numbers"
	}
	return text
}
