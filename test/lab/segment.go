// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// An end is a node's place on a segment.
type end struct {
	node  *Node
	link  string // "eth0", "eth1"
	addrs []netip.Prefix
}

// A segment is one link-layer network. Two ends are joined by a veth pair; more
// by a bridge in a namespace of its own, whose ports are named after the nodes.
type segment struct {
	ends   []end
	bridge *Node // nil for two ends
	mtu    int
}

// bridgeLink is the name of the bridge in the node of a segment.
const bridgeLink = "br0"

// newSegment makes the links and addresses of a segment. name is that of the
// bridge's node, which is made only if there are more than two ends.
func newSegment(name string, mtu int, ends []end) (*segment, error) {
	s := &segment{ends: ends, mtu: mtu}
	if len(ends) > 2 {
		bridge, err := newNode(name, "4")
		if err != nil {
			return nil, err
		}
		s.bridge = bridge
		if err := s.makeBridge(); err != nil {
			bridge.close()
			return nil, err
		}
	}

	if err := s.join(); err != nil {
		if s.bridge != nil {
			s.bridge.close()
		}
		return nil, err
	}
	return s, nil
}

func (s *segment) join() error {
	if s.bridge == nil {
		if err := s.veth(s.ends[0].node, s.ends[0].link, s.ends[1].node, s.ends[1].link); err != nil {
			return err
		}
	}
	for _, e := range s.ends {
		if s.bridge != nil {
			if err := s.plug(e); err != nil {
				return err
			}
		}
		if err := e.configure(); err != nil {
			return err
		}
	}
	return nil
}

func (s *segment) makeBridge() error {
	// Snooping would hold multicast back until a querier is seen, and VRRP is
	// multicast.
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeLink, s.mtu
	err := s.bridge.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
	if err != nil {
		return fmt.Errorf("node %s: bridge: %w", s.bridge.Name, err)
	}
	return s.bridge.SetUp(bridgeLink)
}

// firstIndex is the index that a node's first link gets, if it was not made as the
// other end of another's.
const firstIndex = 1001

// veth makes a pair of links between two nodes. Their indexes differ: the kernel is
// in no hurry, up to a second, to let a link work that has the index of its peer.
func (s *segment) veth(a *Node, linkA string, b *Node, linkB string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Namespace = linkA, s.mtu, netlink.NsFd(a.fd)
	attrs.Index = firstIndex + int(a.made.Add(1)) - 1
	err := a.links.LinkAdd(&netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      linkB,
		PeerMTU:       uint32(s.mtu),
		PeerNamespace: netlink.NsFd(b.fd),
	})
	if err != nil {
		return fmt.Errorf("link %s/%s to %s/%s: %w", a.Name, linkA, b.Name, linkB, err)
	}
	return nil
}

// plug connects one end to the bridge.
func (s *segment) plug(e end) error {
	port := e.node.Name
	if err := s.veth(e.node, e.link, s.bridge, port); err != nil {
		return err
	}
	err := s.bridge.change("bridge port", port, func(l netlink.Link) error {
		bridge, err := s.bridge.links.LinkByName(bridgeLink)
		if err != nil {
			return err
		}
		return s.bridge.links.LinkSetMaster(l, bridge)
	})
	if err != nil {
		return err
	}
	return s.bridge.SetUp(port)
}

// configure gives the end its addresses and switches it on.
func (e end) configure() error {
	for _, a := range e.addrs {
		if err := e.node.AddAddr(e.link, a); err != nil {
			return err
		}
	}
	return e.node.SetUp(e.link)
}

// restore makes the link of one end anew, after it was deleted.
func (s *segment) restore(node *Node, link string) error {
	if s.bridge == nil {
		return s.join()
	}
	for _, e := range s.ends {
		if e.node == node && e.link == link {
			if err := s.plug(e); err != nil {
				return err
			}
			return e.configure()
		}
	}
	return fmt.Errorf("node %s: link %s is not on segment %s", node.Name, link, s.bridge.Name)
}
