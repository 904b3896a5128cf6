// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
)

// The load generators: processes in the client, each with one kind of traffic, which
// print an outcome.

// clientOptions are the flags of a generator; each uses what concerns it.
type clientOptions struct {
	to      []string // endpoints, in turn
	from    []string // addresses of ours, in turn; none leaves it to the kernel
	seconds float64
	atOnce  int
	close   bool    // a connection for each request
	rate    float64 // requests a second in all; 0: as fast as they go
	flows   int
	stride  int  // from a flow to the next
	once    bool // a frame of each flow, however long it takes
}

func (o *clientOptions) length() time.Duration {
	return time.Duration(o.seconds * float64(time.Second))
}

func newClientCommand() *cobra.Command {
	var o clientOptions
	kinds := map[string]func(*clientOptions) (outcome, error){
		"up": streamUp, "down": streamDown, "http": requestPages, "datagrams": sendDatagrams, "hold": hold,
	}
	cmd := &cobra.Command{
		Use:    "client up|down|http|datagrams|hold",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			generate, ok := kinds[args[0]]
			if !ok || len(o.to) == 0 {
				return fmt.Errorf("no generator %q, or nowhere to send to", args[0])
			}
			result, err := generate(&o)
			if err != nil {
				return err
			}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(result); err != nil || args[0] != "hold" {
				return err
			}
			_, err = io.Copy(io.Discard, cmd.InOrStdin()) // until nobody needs them
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.to, "to", nil, "endpoints, in turn")
	f.StringSliceVar(&o.from, "from", nil, "own addresses, in turn")
	f.Float64Var(&o.seconds, "seconds", 2, "how long")
	f.IntVar(&o.atOnce, "at-once", 1, "connections at once")
	f.BoolVar(&o.close, "close", false, "a connection for each request")
	f.Float64Var(&o.rate, "rate", 0, "requests a second")
	f.IntVar(&o.flows, "flows", 1, "source ports")
	f.IntVar(&o.stride, "stride", 1, "from a flow to the next")
	f.BoolVar(&o.once, "once", false, "a frame of each flow")
	return cmd
}

// dial makes connection number n.
func (o *clientOptions) dial(n int) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if len(o.from) > 0 {
		a, err := netip.ParseAddr(o.from[n%len(o.from)])
		if err != nil {
			return nil, err
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		d.Control = portLater
	}
	return d.Dial("tcp", o.to[n%len(o.to)])
}

// streamUp sends without end and believes what the sink counted.
func streamUp(o *clientOptions) (outcome, error) {
	conn, err := o.dial(0)
	if err != nil {
		return outcome{}, err
	}
	defer conn.Close()
	began := time.Now()
	chunk := make([]byte, 256<<10)
	for time.Since(began) < o.length() {
		if _, err := conn.Write(chunk); err != nil {
			return outcome{}, err
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return outcome{}, err
	}
	var received int64
	if _, err := fmt.Fscan(conn, &received); err != nil {
		return outcome{}, fmt.Errorf("what the sink received: %w", err)
	}
	return streamed(received, time.Since(began)), nil
}

// streamDown receives for the time given.
func streamDown(o *clientOptions) (outcome, error) {
	conn, err := o.dial(0)
	if err != nil {
		return outcome{}, err
	}
	defer conn.Close()
	began := time.Now()
	chunk := make([]byte, 256<<10)
	var received int64
	for time.Since(began) < o.length() {
		n, err := conn.Read(chunk)
		if err != nil {
			return outcome{}, err
		}
		received += int64(n)
	}
	return streamed(received, time.Since(began)), nil
}

func streamed(bytes int64, took time.Duration) outcome {
	return outcome{
		Seconds: took.Seconds(), Operations: float64(bytes) / 1e6,
		Figures: map[string]float64{"gbit": float64(bytes) * 8 / 1e9 / took.Seconds()},
	}
}
