// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/sctp"

	"github.com/vsnat/vsnat/test/lab"
)

// SCTP without a kernel's: pion/sctp over raw sockets of protocol 132. It checks
// the CRC32c of every packet, and does not see what is wrong. It always opens
// associations from port 5000 to port 5000, and answers on the ports of the INIT;
// packets pass here as they are.
const pionPort = 5000

// sctpSocket is a raw socket of a node. Each peer, by address and port, has a
// conn of its own.
type sctpSocket struct {
	net.PacketConn
	wrong  atomic.Int64 // packets with a wrong checksum, as pion told
	aborts atomic.Int64 // that came

	mu    sync.Mutex
	peers map[netip.AddrPort]*sctpConn
	fresh func(*sctpConn) // told of an INIT of an unknown peer; nil: such are dropped
}

// listenSCTP opens the socket of a node. accept is called for each association
// that a peer opens, nil: none may.
func (c *cluster) listenSCTP(n *lab.Node, accept func(*sctpConn)) *sctpSocket {
	c.t.Helper()
	network := "ip4:132"
	if n.Addr.Is6() {
		network = "ip6:132"
	}
	p, err := n.ListenPacket(network, n.Addr.String())
	c.must(err)
	s := &sctpSocket{PacketConn: p, peers: map[netip.AddrPort]*sctpConn{}, fresh: accept}
	c.t.Cleanup(func() {
		p.Close()
		if n := s.wrong.Load(); n > 0 {
			c.t.Errorf("%d packets with a wrong checksum", n)
		}
	})
	go s.read()
	return s
}

func (s *sctpSocket) read() {
	buffer := make([]byte, 70_000)
	for {
		n, from, err := s.ReadFrom(buffer)
		if err != nil {
			return
		}
		if n < 16 {
			continue
		}
		addr, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		peer := netip.AddrPortFrom(addr.Unmap(), uint16(buffer[0])<<8|uint16(buffer[1]))
		const initChunk, abortChunk = 1, 6
		if buffer[12] == abortChunk {
			s.aborts.Add(1)
		}
		c := s.conn(peer, buffer[12] == initChunk)
		if c == nil {
			continue
		}
		select {
		case c.packets <- append([]byte(nil), buffer[:n]...):
		case <-c.closed:
		}
	}
}

// conn is that of a peer, a new one if it opens an association.
func (s *sctpSocket) conn(peer netip.AddrPort, opens bool) *sctpConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.peers[peer]
	if c == nil && opens && s.fresh != nil {
		c = s.add(peer)
		go s.fresh(c)
	}
	return c
}

func (s *sctpSocket) add(peer netip.AddrPort) *sctpConn {
	c := &sctpConn{socket: s, peer: peer, packets: make(chan []byte, 256), closed: make(chan struct{}), expired: make(chan struct{})}
	s.peers[peer] = c
	return c
}

// dial is a conn to a peer, for an association that is opened here.
func (s *sctpSocket) dial(peer netip.AddrPort) *sctpConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(peer)
}

// sctpConn is the net.Conn that pion gets: one packet a call.
type sctpConn struct {
	socket  *sctpSocket
	peer    netip.AddrPort
	packets chan []byte

	once, expire    sync.Once
	closed, expired chan struct{}
}

func (c *sctpConn) Read(b []byte) (int, error) {
	select {
	case p := <-c.packets:
		return copy(b, p), nil
	case <-c.closed:
		return 0, io.EOF
	case <-c.expired:
		return 0, context.DeadlineExceeded
	}
}

func (c *sctpConn) Write(b []byte) (int, error) {
	return c.socket.WriteTo(b, &net.IPAddr{IP: c.peer.Addr().AsSlice()})
}

func (c *sctpConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.socket.mu.Lock()
		defer c.socket.mu.Unlock()
		if c.socket.peers[c.peer] == c {
			delete(c.socket.peers, c.peer)
		}
	})
	return nil
}

func (c *sctpConn) LocalAddr() net.Addr              { return c.socket.LocalAddr() }
func (c *sctpConn) RemoteAddr() net.Addr             { return net.UDPAddrFromAddrPort(c.peer) }
func (c *sctpConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *sctpConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline is used to end a Read now.
func (c *sctpConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		c.expire.Do(func() { close(c.expired) })
	}
	return nil
}

// Log takes what pion says: a checksum that does not fit is only to be seen here.
func (s *sctpSocket) log() logging.LoggerFactory {
	f := logging.NewDefaultLoggerFactory()
	f.DefaultLogLevel, f.ScopeLevels = logging.LogLevelWarn, nil
	f.Writer = sctpLog{s}
	return f
}

type sctpLog struct{ s *sctpSocket }

func (l sctpLog) Write(b []byte) (int, error) {
	if strings.Contains(string(b), sctp.ErrChecksumMismatch.Error()) {
		l.s.wrong.Add(1)
	}
	return len(b), nil
}

// associate opens an association with pion as the client.
func (s *sctpSocket) associate(ctx context.Context, peer netip.AddrPort) (*sctp.Association, error) {
	conn := s.dial(peer)
	a, err := sctp.ClientContext(ctx, sctp.WithName("client"), sctp.WithNetConn(conn), sctp.WithLoggerFactory(s.log()))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return a, nil
}

// sctpEcho accepts associations and gives back what comes on their streams.
type sctpEcho struct {
	*sctpSocket
	t        *testing.T
	accepted atomic.Int64
	ended    chan error // of each association, how its stream ended
}

func (c *cluster) serveSCTPEcho(n *lab.Node) *sctpEcho {
	c.t.Helper()
	e := &sctpEcho{t: c.t, ended: make(chan error, 100)}
	ready := make(chan struct{})
	e.sctpSocket = c.listenSCTP(n, func(conn *sctpConn) {
		<-ready
		e.ended <- e.serve(conn)
	})
	close(ready)
	return e
}

func (e *sctpEcho) serve(conn *sctpConn) error {
	a, err := sctp.ServerWithOptions(sctp.WithName("server"), sctp.WithNetConn(conn), sctp.WithLoggerFactory(e.log()))
	if err != nil {
		return err
	}
	defer a.Close()
	e.accepted.Add(1)
	for {
		stream, err := a.AcceptStream()
		if err != nil {
			return err
		}
		buffer := make([]byte, 70_000)
		for {
			n, kind, err := stream.ReadSCTP(buffer)
			if err == nil {
				_, err = stream.WriteSCTP(buffer[:n], kind)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("echo: %w", err)
			}
		}
	}
}
