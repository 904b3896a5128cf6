// SPDX-License-Identifier: Apache-2.0

package userstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/vsnat/vsnat/iface"
)

// A Route is the way to one destination.
type Route struct {
	To      netip.Addr
	Source  netip.Addr // to speak from, of the same family
	Link    iface.Link // with link addresses
	Port    int        // of Neighbours, for the link
	NextHop netip.Addr // To itself, or a router
}

// Config is what a Stack is made from.
type Config struct {
	Neighbours       *iface.Neighbours
	Now              func() iface.Time // on the clock of Neighbours; any goroutine may call it
	MinPort, MaxPort uint16            // that connections are from
}

// A Stack is at work until Close. All methods may be called by any goroutine.
type Stack struct {
	config Config
	stack  *stack.Stack
	routes atomic.Pointer[map[netip.Addr]Route]

	change sync.Mutex // of SetRoutes and Close, which wait for goroutines that need mu
	next   tcpip.NICID

	mu    sync.Mutex
	cards map[netip.Addr]*card // by source
	links map[int]*link        // by index
}

// card is a network card of the stack: one source address.
type card struct {
	id   tcpip.NICID
	end  *channel.Endpoint
	stop context.CancelFunc
	done chan struct{}
}

const (
	mtu       = 1500
	queueSize = 256
)

// New makes a stack without routes.
func New(c Config) (*Stack, error) {
	s := &Stack{config: c, cards: make(map[netip.Addr]*card), links: make(map[int]*link)}
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := s.stack.SetPortRange(c.MinPort, c.MaxPort); err != nil {
		return nil, fmt.Errorf("ports %d to %d: %s", c.MinPort, c.MaxPort, err)
	}
	s.routes.Store(&map[netip.Addr]Route{})
	return s, nil
}

// SetRoutes replaces the routes. Connections on the way go on if theirs stays. It
// returns the first link that could not be opened; the others work.
func (s *Stack) SetRoutes(list []Route) (first error) {
	s.change.Lock()
	defer s.change.Unlock()
	routes := make(map[netip.Addr]Route, len(list))
	sources := make(map[netip.Addr]bool)
	wanted := make(map[int]*wantedLink)
	for _, r := range list {
		routes[r.To], sources[r.Source] = r, true
		w := wanted[r.Link.Index]
		if w == nil {
			w = &wantedLink{link: r.Link, port: r.Port}
			wanted[r.Link.Index] = w
		}
		if !slices.Contains(w.sources, r.Source) {
			w.sources = append(w.sources, r.Source)
		}
	}
	cards := make(map[netip.Addr]*card, len(sources))
	for addr := range sources {
		cards[addr] = s.cards[addr]
		if cards[addr] != nil {
			continue
		}
		c, err := s.plug(addr)
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		cards[addr] = c
	}
	old := s.cards
	s.mu.Lock()
	s.cards = cards
	s.mu.Unlock()
	s.routes.Store(&routes)
	for addr, c := range old {
		if !sources[addr] && c != nil {
			s.unplug(c)
		}
	}
	return errors.Join(first, s.setLinks(wanted))
}

// plug adds the card of an address.
func (s *Stack) plug(addr netip.Addr) (*card, error) {
	s.next++
	c := &card{id: s.next, end: channel.New(queueSize, mtu, ""), done: make(chan struct{})}
	// What comes from a neighbour on the same machine has no finished checksum.
	c.end.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	if err := s.stack.CreateNIC(c.id, c.end); err != nil {
		return nil, fmt.Errorf("address %s: %s", addr, err)
	}
	protocol, everywhere := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber), header.IPv4EmptySubnet
	if addr.Is6() {
		protocol, everywhere = header.IPv6ProtocolNumber, header.IPv6EmptySubnet
	}
	own := tcpip.ProtocolAddress{Protocol: protocol, AddressWithPrefix: tcpip.AddrFromSlice(addr.AsSlice()).WithPrefix()}
	if err := s.stack.AddProtocolAddress(c.id, own, stack.AddressProperties{}); err != nil {
		return nil, fmt.Errorf("address %s: %s", addr, err)
	}
	s.stack.AddRoute(tcpip.Route{Destination: everywhere, NIC: c.id})
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	go s.send(ctx, c)
	return c, nil
}

func (s *Stack) unplug(c *card) {
	c.stop()
	<-c.done
	s.stack.RemoveRoutes(func(r tcpip.Route) bool { return r.NIC == c.id })
	_ = s.stack.RemoveNIC(c.id) // it is there
	c.end.Close()
}

// send takes what a card sends to the links.
func (s *Stack) send(ctx context.Context, c *card) {
	defer close(c.done)
	frame := make([]byte, etherLen+mtu)
	for {
		p := c.end.ReadContext(ctx)
		if p == nil {
			return
		}
		view := p.ToView()
		packet := view.AsSlice()
		if to, ok := destination(packet); ok && len(packet) <= mtu {
			if r, ok := (*s.routes.Load())[to]; ok {
				n := copy(frame[etherLen:], packet)
				s.transmit(&r, frame[:etherLen+n])
			}
		}
		view.Release()
		p.DecRef()
	}
}

// receive hands a packet to the card that it is for. It keeps nothing of it.
func (s *Stack) receive(to netip.Addr, packet []byte) {
	s.mu.Lock()
	c := s.cards[to]
	s.mu.Unlock()
	if c == nil {
		return
	}
	protocol := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if to.Is6() {
		protocol = header.IPv6ProtocolNumber
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	c.end.InjectInbound(protocol, p)
	p.DecRef()
}

// DialContext makes a connection; networks are tcp, udp, ip4:icmp and ip6:ipv6-icmp.
// The address is a literal.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	remote, err := remoteOf(network, address)
	if err != nil {
		return nil, err
	}
	r, ok := (*s.routes.Load())[remote.Addr()]
	if !ok {
		return nil, unix.ENETUNREACH
	}
	s.mu.Lock()
	c := s.cards[r.Source]
	s.mu.Unlock()
	if c == nil {
		return nil, unix.EADDRNOTAVAIL
	}
	to := tcpip.FullAddress{NIC: c.id, Addr: tcpip.AddrFromSlice(remote.Addr().AsSlice()), Port: remote.Port()}
	protocol := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if remote.Addr().Is6() {
		protocol = header.IPv6ProtocolNumber
	}
	switch network {
	case "tcp":
		return s.dialTCP(ctx, to, protocol)
	case "udp":
		return s.dial(udp.ProtocolNumber, to, protocol)
	case "ip4:icmp":
		return s.dial(icmp.ProtocolNumber4, to, protocol)
	case "ip6:ipv6-icmp":
		return s.dial(icmp.ProtocolNumber6, to, protocol)
	}
	return nil, net.UnknownNetworkError(network)
}

func remoteOf(network, address string) (netip.AddrPort, error) {
	if strings.HasPrefix(network, "ip") {
		a, err := netip.ParseAddr(address)
		return netip.AddrPortFrom(a, 0), err
	}
	return netip.ParseAddrPort(address)
}

func (s *Stack) dialTCP(ctx context.Context, to tcpip.FullAddress, protocol tcpip.NetworkProtocolNumber) (net.Conn, error) {
	queue := new(waiter.Queue)
	end, err := s.stack.NewEndpoint(tcp.ProtocolNumber, protocol, queue)
	if err != nil {
		return nil, failure(err)
	}
	end.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: true, Timeout: 0})
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	err = end.Connect(to)
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			end.Abort()
			return nil, ctx.Err()
		case <-writable:
			err = end.LastError()
		}
	}
	if err != nil {
		end.Abort()
		return nil, failure(err)
	}
	return gonet.NewTCPConn(queue, end), nil
}

func (s *Stack) dial(transport tcpip.TransportProtocolNumber, to tcpip.FullAddress, protocol tcpip.NetworkProtocolNumber) (net.Conn, error) {
	queue := new(waiter.Queue)
	end, err := s.stack.NewEndpoint(transport, protocol, queue)
	if err != nil {
		return nil, failure(err)
	}
	if err := end.Connect(to); err != nil {
		end.Close()
		return nil, failure(err)
	}
	return &datagrams{UDPConn: gonet.NewUDPConn(queue, end), end: end, queue: queue}, nil
}

// failure is an error of the stack as the kernel would have it.
func failure(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return unix.ECONNREFUSED
	case *tcpip.ErrConnectionReset:
		return unix.ECONNRESET
	case *tcpip.ErrTimeout:
		return unix.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return unix.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return unix.ENETUNREACH
	case *tcpip.ErrNoPortAvailable, *tcpip.ErrPortInUse:
		return unix.EADDRNOTAVAIL
	}
	return errors.New(err.String())
}

// Close ends all connections, and returns when nothing of the stack is at work.
func (s *Stack) Close() {
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	links, cards := s.links, s.cards
	s.links, s.cards = nil, nil
	s.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	for _, c := range cards {
		if c != nil {
			s.unplug(c)
		}
	}
	s.stack.Close()
	s.stack.Wait()
}
