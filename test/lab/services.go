// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The services of the nodes. Servers have the first five, clients and the far
// host the last.
const (
	PagePort   = 80   // HTTP: "this is real server 1 (10.0.0.2)"; also at 8080
	Page2Port  = 8080 // the same page
	EchoPort   = 7    // TCP and UDP: what came goes back
	SinkPort   = 9    // TCP: swallows up to end of file, answers with Digest.String and a newline
	SourcePort = 19   // TCP: reads a decimal number and a newline, sends as many bytes of Stream
	WhoPort    = 8000 // HTTP and UDP: the remote address as this node sees it
)

// ServerPage returns what the web page of real server n says, counted from 1,
// without the newline at its end.
func (c Config) ServerPage(n int) string {
	return fmt.Sprintf("this is real server %d (%v)", n, c.ServerAddr(n))
}

// startServices makes the nodes listen.
func (c *Cluster) startServices() error {
	for i, n := range c.Servers {
		page := c.Config.ServerPage(i+1) + "\n"
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, page)
		})
		if err := errors.Join(
			n.ServeHTTP(PagePort, handler),
			n.ServeHTTP(Page2Port, handler),
			n.ServeTCP(EchoPort, echo),
			n.ServeUDP(EchoPort, func(_ net.Addr, b []byte) []byte { return b }),
			n.ServeTCP(SinkPort, sink),
			n.ServeTCP(SourcePort, source),
		); err != nil {
			return err
		}
	}

	for _, n := range append([]*Node{c.Far}, c.Clients...) {
		if n == nil {
			continue
		}
		if err := errors.Join(
			n.ServeHTTP(WhoPort, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintln(w, r.RemoteAddr)
			})),
			n.ServeUDP(WhoPort, func(from net.Addr, _ []byte) []byte {
				return []byte(from.String() + "\n")
			}),
		); err != nil {
			return err
		}
	}
	return nil
}

// ServeHTTP serves HTTP at a TCP port of the node until the cluster is closed.
// Each request has a connection of its own.
func (n *Node) ServeHTTP(port int, handler http.Handler) error {
	l, err := n.Listen("tcp"+n.version, fmt.Sprintf(":%d", port))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	server.SetKeepAlivesEnabled(false)
	n.own(server)
	go server.Serve(l)
	return nil
}

// ServeTCP calls serve for each connection to a TCP port of the node, in a
// goroutine of its own, until the cluster is closed. serve closes the connection.
func (n *Node) ServeTCP(port int, serve func(*net.TCPConn)) error {
	l, err := n.Listen("tcp"+n.version, fmt.Sprintf(":%d", port))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	n.own(l)
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(10 * time.Millisecond) // out of descriptors, perhaps
				continue
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return nil
}

// ServeUDP answers each datagram to a UDP port of the node with what reply
// returns, until the cluster is closed. Nil is no answer.
func (n *Node) ServeUDP(port int, reply func(from net.Addr, datagram []byte) []byte) error {
	c, err := n.ListenPacket("udp"+n.version, fmt.Sprintf(":%d", port))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	n.own(c)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			size, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error about an answer
			}
			if answer := reply(from, buf[:size]); answer != nil {
				c.WriteTo(answer, from)
			}
		}
	}()
	return nil
}

func echo(c *net.TCPConn) {
	defer c.Close()
	io.Copy(c, c)
}

func sink(c *net.TCPConn) {
	defer c.Close()
	d, err := ReadDigest(c)
	if err == nil {
		fmt.Fprintln(c, d)
	}
}

func source(c *net.TCPConn) {
	defer c.Close()
	line, err := bufio.NewReader(io.LimitReader(c, 32)).ReadString('\n')
	if err != nil {
		return
	}
	var size int64
	if _, err := fmt.Sscan(line, &size); err != nil || size < 0 {
		return
	}
	io.Copy(c, Stream(size))
}

// Get fetches a page over HTTP/1.1 on a connection of its own, in at most ten
// seconds, and returns the body without the newline at its end. The host of the
// URL must be a literal address.
func (n *Node) Get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("node %s: get %s: %w", n.Name, url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("node %s: get %s: %w", n.Name, url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("node %s: get %s: %s", n.Name, url, resp.Status)
	}
	return strings.TrimSuffix(string(body), "\n"), nil
}
