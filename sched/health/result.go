// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Outcome is what a check found out.
type Outcome uint8

// The outcomes.
const (
	Good       Outcome = iota
	Bad                // the server's fault
	Impossible         // ours: nothing is known of the server, and its state stays
)

func (o Outcome) String() string {
	switch o {
	case Good:
		return "good"
	case Bad:
		return "bad"
	}
	return "impossible"
}

// A Result is that of one check.
type Result struct {
	Outcome
	Text   string // one line for people, of printable characters: "200 OK", "connection refused"
	Weight int    // that the check asks for; NoWeight: none
	// Percent has Weight mean that share of the configured weight.
	Percent bool
}

// NoWeight is the Weight of a check that has nothing to say about it.
const NoWeight = -1

func good(format string, args ...any) Result {
	return Result{Outcome: Good, Text: printable(fmt.Sprintf(format, args...)), Weight: NoWeight}
}

func bad(format string, args ...any) Result {
	return Result{Outcome: Bad, Text: printable(fmt.Sprintf(format, args...)), Weight: NoWeight}
}

func impossible(format string, args ...any) Result {
	return Result{Outcome: Impossible, Text: printable(fmt.Sprintf(format, args...)), Weight: NoWeight}
}

// maxText bounds what a server may say in a result.
const maxText = 200

// printable is a text without what a terminal would obey.
func printable(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}

// Tools are what checkers work with.
type Tools struct {
	// Dialer is the way to an address. Its error says why there is none.
	Dialer func(netip.Addr) (Dialer, error)
	// Run runs programs; nil: none can be run, and NoRun says why.
	Run   func(context.Context, Program) (Ran, error)
	NoRun string
}

// A Dialer makes connections from an address of the director's. Networks are tcp,
// udp, and ip4:icmp and ip6:ipv6-icmp, whose messages begin with the ICMP header.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// errNoWay is an error of ours: the server was never asked.
type errNoWay struct{ error }

func (e errNoWay) Unwrap() error { return e.error }

func (t *Tools) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	d, err := t.Dialer(to.Addr())
	if err != nil {
		return nil, errNoWay{err}
	}
	address := to.String()
	if strings.HasPrefix(network, "ip") {
		address = to.Addr().String()
	}
	conn, err := d.DialContext(ctx, network, address)
	if errors.Is(err, unix.ENETUNREACH) {
		// Either this host has no route or, to a connection of TCP, a router on the way
		// says that it has none. A socket of UDP asks the host alone.
		probe, err := d.DialContext(ctx, "udp", to.String())
		if err != nil {
			return nil, errNoWay{errors.New("this host has no route to it")}
		}
		_ = probe.Close()
	}
	if err != nil {
		return nil, err
	}
	// Whatever the checker does with it ends with the context.
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	return conn, nil
}

// ours are errors that say nothing of the server: a lack of descriptors, memory,
// ports, rights, or of an address to speak from.
var ours = []error{
	unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EADDRNOTAVAIL, unix.EADDRINUSE, unix.EPERM, unix.EACCES,
	unix.EAFNOSUPPORT, unix.ENODEV, unix.ENETDOWN,
}

// failed is the result of an error.
func failed(ctx context.Context, doing string, err error) Result {
	var noWay errNoWay
	if errors.As(err, &noWay) {
		return impossible("cannot be checked: %v", noWay.error)
	}
	for _, e := range ours {
		if errors.Is(err, e) {
			return impossible("cannot be checked: %v", cause(err))
		}
	}
	var timeout net.Error
	end, limited := ctx.Deadline()
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return impossible("stopped")
	case limited && !time.Now().Before(end), // whatever became of what had arrived by then
		errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return bad("%s: timed out", doing)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return bad("%s: the server closed the connection", doing)
	}
	return bad("%s: %v", doing, cause(err))
}

// cause is the innermost error, which names no addresses that everybody knows.
func cause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func errUnknown(kind string) error { return fmt.Errorf("unknown check %.40q", kind) }
