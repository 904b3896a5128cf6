// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"time"
)

// The kinds of checks.
const (
	TCP    = "tcp"    // a connection is made
	HTTP   = "http"   // a page is fetched
	HTTPS  = "https"  // the same over TLS
	UDP    = "udp"    // a datagram is answered
	DNS    = "dns"    // a question is answered
	ICMP   = "icmp"   // a ping is answered
	SMTP   = "smtp"   // a mail server greets, and is greeted
	Agent  = "agent"  // a program on the server says so
	Script = "script" // a program says so
	File   = "file"   // a number in a file of the director's host
)

// Types lists them.
func Types() []string { return []string{TCP, HTTP, HTTPS, UDP, DNS, ICMP, SMTP, Agent, Script, File} }

// A Spec is one check of servers, complete: defaults are filled in. Its content is
// its identity, see [Target.Key]. What is of no use to its type is zero.
type Spec struct {
	Type     string
	Interval time.Duration // from the begin of one to the begin of the next
	Timeout  time.Duration // of one, whatever it consists of
	Recheck  time.Duration // from the end of one that contradicts the state to the next; 0: as Interval says
	Limits

	Address netip.Addr // to check instead of the server's; invalid: the server's
	Port    uint16     // 0: the server's

	// HTTP and HTTPS. All URLs must be good.
	URLs       []string // path and query, from the slash on
	Method     string   // GET, HEAD, …
	Headers    []string // "Name: value"
	Host       string   // of the request; "": address and port
	ServerName string   // of the TLS handshake and for the certificate; "": that of Host
	Status     string   // "200-299,301"
	Body       string   // text that is in the body
	BodyRegexp string   // regular expression that finds something in the body
	Digest     string   // SHA-256 or MD5 of the body, in hexadecimal digits
	NoVerify   bool     // the certificate is not looked at
	HTTP2      bool     // nothing but HTTP/2 will do; without TLS with prior knowledge

	// UDP: see Pattern. DNS: what is asked, and what must be among the answers.
	Send   string
	Expect string

	Name  string // DNS: the name; SMTP: of EHLO, "" for none
	Query string // DNS: A, AAAA, SOA, …

	// Script: the program and its arguments. File: its path.
	Command []string
}

// A Target is a check of one server.
type Target struct {
	Server netip.AddrPort
	Proto  uint8 // of the service: 6, 17 or 132; 0: by mark
	Spec
}

// Endpoint is where the check goes.
func (t *Target) Endpoint() netip.AddrPort {
	addr, port := t.Server.Addr(), t.Server.Port()
	if t.Address.IsValid() {
		addr = t.Address
	}
	if t.Port != 0 {
		port = t.Port
	}
	return netip.AddrPortFrom(addr, port)
}

// Key names a target by its content: what two services ask of a server in the same
// words is asked once, and goes on through a reload that leaves the words.
func (t *Target) Key() string {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // nothing in it can fail
	}
	return string(text)
}

// What a check reads of a server at most.
const (
	maxBody  = 1 << 20
	maxLine  = 1 << 10
	maxLines = 100
)

// checker is one kind of check at work. It ends with the context at the latest,
// closes what it opened, and leaves no goroutine. A checker is used by one
// goroutine.
type checker interface {
	Check(ctx context.Context) Result
}

// newChecker makes the checker of a target. The error says what is wrong with its
// words.
func newChecker(t Target, tools Tools) (checker, error) {
	switch t.Type {
	case TCP:
		return &tcpCheck{t.Endpoint(), tools}, nil
	case HTTP, HTTPS:
		return newHTTPCheck(t, tools)
	case UDP:
		return newUDPCheck(t, tools)
	case DNS:
		return newDNSCheck(t, tools)
	case ICMP:
		return &icmpCheck{addr: t.Endpoint().Addr(), tools: tools}, nil
	case SMTP:
		return &smtpCheck{t.Endpoint(), t.Name, tools}, nil
	case Agent:
		return &agentCheck{t.Endpoint(), tools}, nil
	case Script:
		return &scriptCheck{t, tools}, nil
	case File:
		return &fileCheck{t.Command[0]}, nil
	}
	return nil, errUnknown(t.Type)
}

// Check tells what is wrong with a spec, by the key of the file that has it; nil if
// nothing is. Addresses and times are judged elsewhere.
func (s *Spec) Check() (key string, err error) {
	if _, err := parseStatus(s.Status); err != nil {
		return "status", err
	}
	if _, err := regexp.Compile(s.BodyRegexp); err != nil {
		return "body-regexp", err
	}
	if s.Digest != "" && !isDigest(s.Digest) {
		return "digest", errDigest
	}
	if s.Type == UDP {
		if _, err := parsePattern(s.Send, false); err != nil {
			return "send", err
		}
		if _, err := parsePattern(s.Expect, true); err != nil {
			return "expect", err
		}
	}
	if s.Type == DNS {
		if err := checkDNS(s); err != nil {
			return "query", err
		}
	}
	for _, h := range s.Headers {
		if _, _, err := splitHeader(h); err != nil {
			return "headers", err
		}
	}
	return "", nil
}
