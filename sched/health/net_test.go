// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

func TestTCP(t *testing.T) {
	open := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	wantResult(t, "open", checkOnce(t, Target{Server: open, Spec: Spec{Type: TCP}}, hostTools, patience), Good, "connected")
	wantResult(t, "refused", checkOnce(t, Target{Server: nobody(t), Spec: Spec{Type: TCP}}, hostTools, patience), Bad, "connection refused")

	// A port of its own, and an address of its own.
	elsewhere := netip.MustParseAddrPort("192.0.2.1:9")
	wantResult(t, "own address", checkOnce(t, Target{Server: elsewhere, Spec: Spec{Type: TCP, Address: open.Addr(), Port: open.Port()}}, hostTools, patience), Good, "")
}

// broken is a Dialer that fails.
type broken struct{ err error }

func (b broken) DialContext(context.Context, string, string) (net.Conn, error) { return nil, b.err }

// farRouter is a Dialer whose connections are refused by a router.
type farRouter struct{}

func (farRouter) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "udp" {
		return Host{}.DialContext(ctx, network, address)
	}
	return nil, &net.OpError{Op: "dial", Err: unix.ENETUNREACH}
}

// What is our trouble says nothing of the server (FAULTS 87).
func TestOurTroubleIsNotTheServers(t *testing.T) {
	to := Target{Server: netip.MustParseAddrPort("127.0.0.1:9"), Spec: Spec{Type: TCP}}
	for _, err := range []error{unix.EMFILE, unix.ENOBUFS, unix.EADDRNOTAVAIL, unix.EPERM, unix.ENETUNREACH} {
		tools := Tools{Dialer: func(netip.Addr) (Dialer, error) {
			return broken{&net.OpError{Op: "dial", Err: err}}, nil
		}}
		wantResult(t, err.Error(), checkOnce(t, to, tools, patience), Impossible, "cannot be checked")
	}
	noWay := Tools{Dialer: func(netip.Addr) (Dialer, error) { return nil, fmt.Errorf("there is no address") }}
	wantResult(t, "no way", checkOnce(t, to, noWay, patience), Impossible, "cannot be checked: there is no address")
	// A router on the way says so, where the host has a route.
	far := Tools{Dialer: func(netip.Addr) (Dialer, error) { return farRouter{}, nil }}
	wantResult(t, "a router", checkOnce(t, to, far, patience), Bad, "connect: network is unreachable")
	for _, err := range []error{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ECONNRESET, unix.ETIMEDOUT} {
		tools := Tools{Dialer: func(netip.Addr) (Dialer, error) { return broken{err}, nil }}
		wantResult(t, err.Error(), checkOnce(t, to, tools, patience), Bad, "")
	}
}

func udpServer(t *testing.T, answer func(b []byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if a := answer(b[:n]); a != nil {
				c.WriteTo(a, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestUDP(t *testing.T) {
	echo := udpServer(t, func(b []byte) []byte { return append([]byte("re:"), b...) })
	silent := udpServer(t, func([]byte) []byte { return nil })
	for _, tt := range []struct {
		name, send, expect string
		to                 netip.AddrPort
		timeout            time.Duration
		outcome            Outcome
		text               string
	}{
		{"any answer", "ping", "", echo, patience, Good, "7 bytes"},
		{"the expected one", "ping", "re:ping", echo, patience, Good, ""},
		{"begins as expected", "ping", "re:*", echo, patience, Good, ""},
		{"another one", "ping", "pong", echo, patience, Bad, "not the expected one"},
		{"bytes", "hex: 00 01", "hex: 72 65 3a ?? 01", echo, patience, Good, ""},
		{"bytes, too many", "hex: 00 01 02", "hex: 72 65 3a ?? 01", echo, patience, Bad, ""},
		{"bytes, any rest", "hex: 00 01 02", "hex: 72 65 3a ?? *", echo, patience, Good, ""},
		{"silence", "ping", "", silent, 30 * time.Millisecond, Bad, "timed out"},
		{"port unreachable", "ping", "", nobody(t), patience, Bad, "connection refused"},
	} {
		to := Target{Server: tt.to, Spec: Spec{Type: UDP, Send: tt.send, Expect: tt.expect}}
		wantResult(t, tt.name, checkOnce(t, to, hostTools, tt.timeout), tt.outcome, tt.text)
	}
	for _, bad := range []string{"hex: 0", "hex: xy", "hex: ??"} {
		if _, err := (&Spec{Type: UDP, Send: bad}).Check(); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestDNS(t *testing.T) {
	server := udpServer(t, func(b []byte) []byte {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return nil
		}
		a := new(dns.Msg)
		a.SetReply(q)
		if q.Question[0].Name != "example.com." {
			a.Rcode = dns.RcodeNameError
		} else if r, err := dns.NewRR("example.com. 60 IN A 192.0.2.80"); err == nil {
			a.Answer = append(a.Answer, r)
		}
		out, _ := a.Pack()
		return out
	})
	for _, tt := range []struct {
		name, ask, expect string
		outcome           Outcome
		text              string
	}{
		{"answered", "example.com", "", Good, "1 answers"},
		{"as expected", "example.com", "192.0.2.80", Good, "192.0.2.80"},
		{"not as expected", "example.com", "192.0.2.81", Bad, "none of 1 answers"},
		{"no such name", "example.org", "", Bad, "NXDOMAIN"},
	} {
		to := Target{Server: server, Proto: 17, Spec: Spec{Type: DNS, Name: tt.ask, Query: "A", Expect: tt.expect}}
		wantResult(t, tt.name, checkOnce(t, to, hostTools, patience), tt.outcome, tt.text)
	}

	for name, tt := range map[string]struct {
		answer func(b []byte) []byte
		text   string
	}{
		"the question":          {func(b []byte) []byte { return b }, "the question, as it was sent"},
		"not DNS":               {func(b []byte) []byte { return b[:5] }, "no message of DNS"},
		"a code without a name": {func(b []byte) []byte { b[2], b[3] = 0x80, 13; return b }, "RCODE 13"},
		"to nobody's question":  {func(b []byte) []byte { b[0]++; return b }, "answer: 1 to other questions: timed out"},
		"nothing":               {func(b []byte) []byte { return nil }, "answer: timed out"},
	} {
		limit := patience
		if strings.HasSuffix(tt.text, "timed out") {
			limit = 150 * time.Millisecond
		}
		to := Target{Server: udpServer(t, tt.answer), Proto: 17, Spec: Spec{Type: DNS, Name: "example.com", Query: "A"}}
		wantResult(t, name, checkOnce(t, to, hostTools, limit), Bad, tt.text)
	}
	if _, err := (&Spec{Type: DNS, Name: "x", Query: "B"}).Check(); err == nil {
		t.Error("a type of record that there is not is accepted")
	}
}

func TestSMTP(t *testing.T) {
	speak := func(greeting string) netip.AddrPort {
		return serve(t, func(c net.Conn) {
			fmt.Fprint(c, greeting)
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				switch {
				case err != nil:
					return
				case strings.HasPrefix(line, "EHLO good"):
					fmt.Fprint(c, "250-mail\r\n250 HELP\r\n")
				case strings.HasPrefix(line, "EHLO"):
					fmt.Fprint(c, "550 no\r\n")
				default:
					fmt.Fprint(c, "221 bye\r\n")
					return
				}
			}
		})
	}
	for _, tt := range []struct {
		name, greeting, ehlo string
		outcome              Outcome
		text                 string
	}{
		{"greets", "220 mail ready\r\n", "", Good, "220 mail ready"},
		{"several lines", "220-mail\r\n220 ready\r\n", "", Good, "220 ready"},
		{"says yes to EHLO", "220 mail\r\n", "good", Good, "220 mail"},
		{"says no to EHLO", "220 mail\r\n", "bad", Bad, "550 no"},
		{"is busy", "421 too busy\x1b[31m\r\n", "", Bad, "421 too busy·[31m"},
		{"endless line", strings.Repeat("2", maxLine+10), "", Bad, "does not come to an end"},
		{"endless lines", strings.Repeat("220-x\r\n", maxLines+10), "", Bad, "does not come to an end"},
	} {
		to := Target{Server: speak(tt.greeting), Spec: Spec{Type: SMTP, Name: tt.ehlo}}
		wantResult(t, tt.name, checkOnce(t, to, hostTools, patience), tt.outcome, tt.text)
	}
}
