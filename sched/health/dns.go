// SPDX-License-Identifier: Apache-2.0

package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// dnsCheck asks a name server, over UDP, or TCP for a service of TCP.
type dnsCheck struct {
	to      netip.AddrPort
	network string
	name    string
	query   uint16
	expect  string // a text that one of the answers has; "": none is needed
	tools   Tools
}

func newDNSCheck(t Target, tools Tools) (*dnsCheck, error) {
	if err := checkDNS(&t.Spec); err != nil {
		return nil, err
	}
	network := "udp"
	if t.Proto == 6 {
		network = "tcp"
	}
	return &dnsCheck{t.Endpoint(), network, dns.Fqdn(t.Name), dns.StringToType[t.Query], t.Expect, tools}, nil
}

func checkDNS(s *Spec) error {
	if _, ok := dns.StringToType[s.Query]; !ok {
		return fmt.Errorf("%.20q is no type of record; write A, AAAA, SOA, …", s.Query)
	}
	if _, ok := dns.IsDomainName(s.Name); !ok {
		return fmt.Errorf("%.60q is no domain name", s.Name)
	}
	return nil
}

// Check implements checker.
func (c *dnsCheck) Check(ctx context.Context) Result {
	conn, err := c.tools.dial(ctx, c.network, c.to)
	if err != nil {
		return failed(ctx, "ask", err)
	}
	defer conn.Close()
	question := new(dns.Msg)
	question.SetQuestion(c.name, c.query)
	session := dns.Conn{Conn: conn, UDPSize: maxDatagram}
	if err := session.WriteMsg(question); err != nil {
		return failed(ctx, "ask", err)
	}
	for others := 0; ; others++ {
		answer, err := session.ReadMsg()
		var malformed *dns.Error
		switch {
		case errors.As(err, &malformed):
			return bad("answer: no message of DNS: %s", strings.TrimPrefix(malformed.Error(), "dns: "))
		case err != nil && others > 0:
			return failed(ctx, fmt.Sprintf("answer: %d to other questions", others), err)
		case err != nil:
			return failed(ctx, "answer", err)
		case answer.Id != question.Id:
			continue // to somebody else's question, until the time is over
		case !answer.Response:
			return bad("answer: the question, as it was sent")
		case answer.Rcode != dns.RcodeSuccess:
			code := dns.RcodeToString[answer.Rcode]
			return bad("%s %s: %s", c.name, dns.TypeToString[c.query], cmp.Or(code, fmt.Sprintf("RCODE %d", answer.Rcode)))
		}
		if c.expect == "" {
			return good("%d answers", len(answer.Answer))
		}
		for _, r := range answer.Answer {
			if text := strings.TrimPrefix(r.String(), r.Header().String()); strings.Contains(text, c.expect) {
				return good("%s", text)
			}
		}
		return bad("none of %d answers has %q", len(answer.Answer), c.expect)
	}
}
