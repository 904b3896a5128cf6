// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// threadNS is the network namespace of the calling thread. The plain
// /proc/self/ns/net would be that of the process's first thread.
const threadNS = "/proc/thread-self/ns/net"

// A Node is one host of the cluster: a network namespace. It is safe for
// concurrent use. Cluster.Close ends it.
type Node struct {
	Name string     // "client", "client2", "director", "rs1", "far", "router", "lan", "wan"
	Addr netip.Addr // its first address; invalid if it has none

	version string          // of IP, "4" or "6": that of its services, and the other one is off
	fd      int             // of the namespace
	links   *netlink.Handle // a route netlink socket in the namespace
	env     []string        // added to the environment of commands
	path    string          // put before PATH of commands

	made atomic.Int32 // links, for their indexes

	mu      sync.Mutex
	servers []closer // what listens here, closed first
}

type closer interface{ Close() error }

// quiet is what the settings of a new node are. IPv6 is off, so that its links
// are silent until somebody sends.
var quiet = map[string]string{
	"net.ipv6.conf.all.disable_ipv6":     "1",
	"net.ipv6.conf.default.disable_ipv6": "1",
	"net.ipv4.conf.all.rp_filter":        "0",
	"net.ipv4.conf.default.rp_filter":    "0",
	"net.ipv4.ip_forward":                "0",
}

// quietIPv6 are the settings of a node of an IPv6 cluster, each for all links and
// for those to come. Addresses are those that are given, usable at once and kept
// when a link is off, as in IPv4.
var quietIPv6 = map[string]string{
	"disable_ipv6":         "0",
	"accept_dad":           "0",
	"dad_transmits":        "0",
	"accept_ra":            "0",
	"autoconf":             "0",
	"router_solicitations": "0",
	"keep_addr_on_down":    "1",
	"forwarding":           "0",
}

// newNode makes a namespace for a version of IP, "4" or "6". Its loopback is up.
func newNode(name, version string) (*Node, error) {
	type made struct {
		fd  int
		err error
	}
	result := make(chan made)
	go func() {
		// Not unlocked: the thread belongs to the new namespace now and ends
		// with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{-1, fmt.Errorf("new network namespace: %w", err)}
			return
		}
		fd, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		result <- made{fd, err}
	}()
	m := <-result
	if m.err != nil {
		return nil, fmt.Errorf("node %s: %w", name, explain(m.err))
	}

	n := &Node{Name: name, version: version, fd: m.fd}
	// Not netlink.NewHandleAt, which looks for this process's number in /proc and
	// finds another's where /proc is the host's (see privateMounts).
	err := n.Do(func() (err error) {
		n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		unix.Close(m.fd)
		return nil, fmt.Errorf("node %s: netlink: %w", name, err)
	}
	settings := maps.Clone(quiet)
	if version == "6" {
		for key, value := range quietIPv6 {
			settings["net.ipv6.conf.all."+key] = value
			settings["net.ipv6.conf.default."+key] = value
		}
	}
	for key, value := range settings {
		// A kernel without IPv6 has nothing to switch off. Where the settings are out
		// of reach (a container's read-only /proc/sys), those of the host must do.
		err := n.SetSysctl(key, value)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			n.close()
			return nil, err
		}
	}
	if err := n.SetUp("lo"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// own registers what the node closes with itself.
func (n *Node) own(c closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers = append(n.servers, c)
}

func (n *Node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.servers {
		s.Close()
	}
	n.links.Close()
	unix.Close(n.fd)
}

// Do runs f on a thread that is in the node's namespace, and comes back. Sockets
// opened and processes started by f itself belong to the node; goroutines that f
// starts run elsewhere. Calls may be nested, also with another node's.
func (n *Node) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		return fmt.Errorf("node %s: enter: %w", n.Name, err)
	}
	defer func() {
		err := unix.Setns(home, unix.CLONE_NEWNET)
		unix.Close(home)
		if err != nil {
			// The caller's goroutine would go on in the wrong namespace.
			panic(fmt.Sprintf("lab: leave node %s: %v", n.Name, err))
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// Listen is net.Listen in the node. The host of the address must be a literal.
func (n *Node) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket is net.ListenPacket in the node. The host of the address must be
// a literal.
func (n *Node) ListenPacket(network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := n.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Dial is net.Dialer.DialContext in the node. The host of the address must be a
// literal. The time limit is that of ctx, and at most 10 seconds.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.DialFrom(ctx, network, nil, address)
}

// DialFrom is Dial with the local address given; nil leaves it to the kernel.
func (n *Node) DialFrom(ctx context.Context, network string, local net.Addr, address string) (net.Conn, error) {
	var c net.Conn
	err := n.Do(func() (err error) {
		d := net.Dialer{LocalAddr: local, Timeout: 10 * time.Second}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// SetSysctl writes a value of /proc/sys/net, by its dotted name, in the node.
// Names with an interface that has a dot in its own name can't be given.
func (n *Node) SetSysctl(key, value string) error {
	file := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	return n.Do(func() error {
		// Never created: a missing file means that the kernel lacks the setting.
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("node %s: sysctl %s: %w", n.Name, key, err)
		}
		defer f.Close()
		if _, err := f.WriteString(value); err != nil {
			return fmt.Errorf("node %s: sysctl %s=%s: %w", n.Name, key, value, err)
		}
		return nil
	})
}

// A Cmd is an exec.Cmd that starts in a node. All fields of exec.Cmd may be set
// before it is started, except SysProcAttr.Pdeathsig: the thread that starts the
// process does not live as long.
type Cmd struct {
	*exec.Cmd
	node *Node
}

// Command prepares a program to run in the node, with the environment of the
// worker, VSNAT_SOCKET and a PATH on which vsnat and ipvsadm are this program.
// It is killed when ctx ends.
func (n *Node) Command(ctx context.Context, name string, args ...string) *Cmd {
	env := n.environ(os.Environ())
	c := exec.CommandContext(ctx, name, args...)
	if file, err := lookPath(name, env); err == nil {
		c.Path, c.Err = file, nil
	}
	c.Env = env
	return &Cmd{Cmd: c, node: n}
}

// Start starts the command in its node.
func (c *Cmd) Start() error { return c.node.Do(c.Cmd.Start) }

// Run starts the command in its node and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var b strings.Builder
	c.Stdout = &b
	err := c.Run()
	return []byte(b.String()), err
}

// CombinedOutput runs the command and returns all that it wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var b strings.Builder
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return []byte(b.String()), err
}

// environ is base with what the node adds.
func (n *Node) environ(base []string) []string {
	env := make([]string, 0, len(base)+len(n.env)+1)
	path := os.Getenv("PATH")
	for _, v := range base {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			path = p
			continue
		}
		env = append(env, v)
	}
	if n.path != "" {
		path = n.path + string(os.PathListSeparator) + path
	}
	return append(append(env, "PATH="+path), n.env...)
}

// lookPath finds a program on the PATH of env, which need not be that of this
// process.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, v := range env {
		path, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			file := filepath.Join(dir, name)
			if s, err := os.Stat(file); err == nil && !s.IsDir() && s.Mode()&0o111 != 0 {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
