// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A Cluster is a built lab. Its fields do not change until Close; Far, Router are
// nil if the Config does not ask for them, LAN and WAN (the nodes of the bridges)
// if a pair of links was enough.
type Cluster struct {
	Config   Config
	Client   *Node   // Clients[0]
	Clients  []*Node // "client", "client2", …
	Director *Node
	Servers  []*Node // "rs1", …
	Far      *Node   // "far"
	Router   *Node   // "router"
	LAN, WAN *Node

	dir      string // of this cluster, below the run directory
	nodes    []*Node
	segments []*segment
	routes   []route

	mu       sync.Mutex // guards director
	director *DirectorProcess
}

// A route is kept to be set again after a link came back.
type route struct {
	node *Node
	to   netip.Prefix
	via  netip.Addr
}

// Build makes the cluster and starts the services of its nodes. The process must
// be inside a lab (see Enter), whose run directory place names. The caller ends it
// with Close; what Build made before an error is gone when it returns.
func Build(place Place, config Config) (*Cluster, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(place.Dir, "cluster-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Config: config, dir: dir}
	if err := c.build(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) build() error {
	bin, err := linkPrograms(c.dir)
	if err != nil {
		return err
	}
	if err := c.makeNodes(); err != nil {
		return err
	}
	if err := c.makeSegments(); err != nil {
		return err
	}
	if err := c.setForwarding(); err != nil {
		return err
	}
	c.planRoutes()
	if err := c.Routes(); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	for _, n := range c.nodes {
		n.path = bin
		n.env = []string{"VSNAT_SOCKET=" + c.Socket()}
	}
	return c.startServices()
}

func (c *Cluster) makeNodes() (err error) {
	p := c.Config.plan()
	add := func(name string, addr netip.Addr) *Node {
		if err != nil {
			return nil
		}
		var n *Node
		if n, err = newNode(name, p.version); err == nil {
			n.Addr = addr
			c.nodes = append(c.nodes, n)
		}
		return n
	}

	for i := 1; i <= c.Config.Clients; i++ {
		c.Clients = append(c.Clients, add(numbered("client", i), c.Config.ClientAddr(i)))
	}
	c.Client = c.Clients[0]
	if c.Config.Far {
		c.Far = add("far", p.farHost)
	}
	if c.Config.Router {
		c.Router = add("router", p.routerInside)
	}
	c.Director = add("director", firstAddr(c.Config.outsidePrefixes()))
	for i := 1; i <= c.Config.Servers; i++ {
		c.Servers = append(c.Servers, add(fmt.Sprintf("rs%d", i), c.Config.ServerAddr(i)))
	}
	return err
}

// makeSegments joins the nodes: far – client – (router) – director – servers.
func (c *Cluster) makeSegments() error {
	p := c.Config.plan()
	clientNet := p.outside
	if c.Config.Router {
		clientNet = p.behindRouter
	}
	var wan, lan, beyond []end
	for _, n := range c.Clients {
		wan = append(wan, end{n, "eth0", []netip.Prefix{on(n.Addr, clientNet)}})
	}
	if c.Config.Router {
		beyond = append(wan, end{c.Router, "eth0", []netip.Prefix{on(p.routerOutside, p.behindRouter)}})
		wan = []end{{c.Router, "eth1", []netip.Prefix{on(p.routerInside, p.outside)}}}
	}
	for _, n := range c.Servers {
		lan = append(lan, end{n, "eth0", []netip.Prefix{on(n.Addr, p.inside)}})
	}

	if c.Config.OneArm {
		addrs := append(c.Config.outsidePrefixes(), c.Config.insidePrefixes()...)
		wan = append(wan, end{c.Director, "eth0", addrs})
		wan, lan = nil, append(wan, lan...)
	} else {
		wan = append(wan, end{c.Director, "eth0", c.Config.outsidePrefixes()})
		lan = append([]end{{c.Director, "eth1", c.Config.insidePrefixes()}}, lan...)
	}
	if c.Config.Host == HostVIPOnLoopback {
		if err := c.Director.AddAddr("lo", netip.PrefixFrom(p.vip, p.vip.BitLen())); err != nil {
			return err
		}
	}

	networks := []struct {
		name   string
		ends   []end
		bridge **Node
	}{
		{"wan", wan, &c.WAN},
		{"lan", lan, &c.LAN},
		{"beyond", beyond, new(*Node)},
		{"far", c.farEnds(), new(*Node)},
	}
	for _, network := range networks {
		if len(network.ends) == 0 {
			continue
		}
		s, err := newSegment(network.name, c.Config.MTU, network.ends)
		if err != nil {
			return err
		}
		c.segments = append(c.segments, s)
		if s.bridge != nil {
			*network.bridge = s.bridge
			c.nodes = append(c.nodes, s.bridge)
		}
	}
	return nil
}

func (c *Cluster) farEnds() []end {
	if c.Far == nil {
		return nil
	}
	p := c.Config.plan()
	return []end{
		{c.Far, "eth0", []netip.Prefix{on(p.farHost, p.farNet)}},
		{c.Client, "eth1", []netip.Prefix{on(p.farGateway, p.farNet)}},
	}
}

func (c *Cluster) setForwarding() error {
	key := "net.ipv4.ip_forward"
	if c.Config.IPv6 {
		key = "net.ipv6.conf.all.forwarding"
	}
	for _, f := range []struct {
		node *Node
		on   bool
	}{{c.Director, c.Config.Forward}, {c.Router, true}, {c.Client, c.Config.Far}} {
		if f.node == nil || !f.on {
			continue
		}
		if err := f.node.SetSysctl(key, "1"); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) planRoutes() {
	p := c.Config.plan()
	add := func(n *Node, to netip.Prefix, via netip.Addr) {
		c.routes = append(c.routes, route{n, to, via})
	}

	for _, n := range c.Servers {
		add(n, p.everywhere, p.gateway)
	}
	outward := c.Client.Addr
	if c.Config.Router {
		outward = p.routerInside
		for _, n := range c.Clients {
			add(n, p.everywhere, p.routerOutside)
		}
	}
	if c.Far != nil {
		add(c.Far, p.everywhere, p.farGateway)
		if c.Router != nil {
			add(c.Router, p.farNet, c.Client.Addr)
		}
	}
	// A client of the outside network itself needs no route: what it talks to is
	// the VIP. Without addresses the director's host can't have one.
	if c.Config.Host != HostBare && (c.Config.Router || c.Config.Far) {
		add(c.Director, p.everywhere, outward)
	}
}

// Routes sets the routes of all nodes again, as Build did: after a link was off.
func (c *Cluster) Routes() error {
	for _, r := range c.routes {
		if err := r.node.AddRoute(r.to, r.via); err != nil {
			return err
		}
	}
	return nil
}

// settleWithin is how long the links of a cluster may take until they work.
const settleWithin = 20 * time.Second

// settle waits for the links of an IPv6 cluster to have their link-local addresses,
// without which nothing is forwarded to a neighbour that has to be asked for first.
func (c *Cluster) settle() error {
	if !c.Config.IPv6 {
		return nil
	}
	end := time.Now().Add(settleWithin)
	for _, s := range c.segments {
		for _, e := range s.ends {
			for !e.node.hasLinkLocal(e.link) {
				if time.Now().After(end) {
					return fmt.Errorf("node %s: link %s has no link-local address after %v", e.node.Name, e.link, settleWithin)
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
	return nil
}

// RestoreLink makes a link anew that DeleteLink removed, with its addresses and
// routes. MAC and index are new ones, and the others know no longer who had the
// addresses: in IPv6 no request of the new owner would tell them.
func (c *Cluster) RestoreLink(node *Node, link string) error {
	for _, s := range c.segments {
		for _, e := range s.ends {
			if e.node != node || e.link != link {
				continue
			}
			if err := s.restore(node, link); err != nil {
				return err
			}
			for _, other := range s.ends {
				if err := other.node.forget(e.addrs); err != nil {
					return err
				}
			}
			return errors.Join(c.Routes(), c.settle())
		}
	}
	return fmt.Errorf("node %s has no link %s", node.Name, link)
}

// Node returns a node by its name.
func (c *Cluster) Node(name string) (*Node, error) {
	names := make([]string, 0, len(c.nodes))
	for _, n := range c.nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return nil, fmt.Errorf("no node %q in the lab, which has %v", name, names)
}

// Nodes returns all nodes, those of the bridges last.
func (c *Cluster) Nodes() []*Node { return append([]*Node(nil), c.nodes...) }

// Dir returns the cluster's directory, where tests may put files. Close removes it.
func (c *Cluster) Dir() string { return c.dir }

// Close stops the director and all services and gives the namespaces up. It may
// be called more than once.
func (c *Cluster) Close() error {
	c.mu.Lock()
	d := c.director
	c.mu.Unlock()
	var err error
	if d != nil {
		err = d.Stop()
	}
	for _, n := range c.nodes {
		n.close()
	}
	c.nodes = nil
	return errors.Join(err, os.RemoveAll(c.dir))
}

func firstAddr(p []netip.Prefix) netip.Addr {
	if len(p) == 0 {
		return netip.Addr{}
	}
	return p[0].Addr()
}

// numbered is the name of the i-th of several: client, client2, client3.
func numbered(name string, i int) string {
	if i == 1 {
		return name
	}
	return fmt.Sprintf("%s%d", name, i)
}
