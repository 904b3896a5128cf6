// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/iface/shortcut"
	"github.com/vsnat/vsnat/test/lab"
)

// A peer is one way to serve the virtual address.
type peer struct {
	name    string
	program string       // that it needs, "" for none
	install string       // how to get that
	lacks   func() error // why it can't be had here; nil: it can
	streams bool         // it carries TCP alone
	holds   func() int   // connections at most; nil: it knows of none
	start   func(context.Context, *bed) (service, func() error, error)
}

// kernelPeer is what all ratios are against, and proxies what the second ratio is.
const kernelPeer = "kernel"

var proxies = []string{"haproxy", "nginx"}

var peers = []*peer{
	{name: "vsnat", start: startVsnat("io: packet\noffload: none\n"), holds: func() int { return maxConns }},
	{name: "vsnat-offload", start: startVsnat("io: packet\noffload: tcx\n"), lacks: noShortcuts, holds: func() int { return maxConns }},
	{name: "vsnat-tun", start: startVsnat("io: tun\n"), holds: func() int { return maxConns }},
	{name: kernelPeer, program: "nft", install: "apt-get install nftables", start: startKernel, holds: conntrackMax},
	{name: "haproxy", program: "haproxy", install: "apt-get install haproxy", streams: true, start: startHAProxy},
	{name: "nginx", program: "nginx", install: "apt-get install nginx libnginx-mod-stream", streams: true, start: startNginx},
	{name: "forward", start: startForward},
}

func peerNames() (names []string) {
	for _, p := range peers {
		names = append(names, p.name)
	}
	return names
}

// choosePeers returns those that can be measured here, and of those that cannot
// what they lack. No names mean all.
func choosePeers(names []string) (list []*peer, missing []string) {
	for _, p := range peers {
		if names != nil && !slices.Contains(names, p.name) {
			continue
		}
		if p.program != "" {
			if _, err := lookPath(p.program); err != nil {
				missing = append(missing, fmt.Sprintf("left out: %s, as there is no %s here\nhint: %s", p.name, p.program, p.install))
				continue
			}
		}
		if p.lacks != nil {
			if err := p.lacks(); err != nil {
				missing = append(missing, fmt.Sprintf("left out: %s: %v", p.name, err))
				continue
			}
		}
		list = append(list, p)
	}
	return list, missing
}

// noShortcuts is why the kernel can't be told to forward connections.
func noShortcuts() error {
	table, err := shortcut.Open(1)
	table.Close()
	return err
}

// lookPath finds programs of administrators for others as well.
func lookPath(program string) (string, error) {
	if file, err := exec.LookPath(program); err == nil {
		return file, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

// refuses returns why a peer does not carry a load, or "".
func (p *peer) refuses(l *load) string {
	switch {
	case p.streams && l.datagrams:
		return "TCP alone"
	case l.held > 0 && p.holds == nil:
		return "it knows of no connections"
	case l.held > 0 && p.holds() == 0:
		return "how many it may hold is not to be seen by ordinary users"
	case l.held > 0 && p.holds() < l.held+spare:
		return fmt.Sprintf("it holds at most %d", p.holds())
	}
	return ""
}

const (
	// maxConns leaves room for a million beside what other loads left behind, spare.
	maxConns = 1 << 21
	spare    = 50_000
)

// conntrackMax is how many connections the kernel's NAT may hold, which is set for the
// machine as a whole.
func conntrackMax() int {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// behind are the servers of a port.
func (b *bed) behind(port int) (list []netip.Addr) {
	for i := range b.cluster.Servers {
		list = append(list, b.cluster.Config.ServerAddr(i+1))
	}
	if port == toolPort {
		return list[:1]
	}
	return list
}

func (b *bed) virtual() service {
	return service{addresses: []netip.Addr{b.cluster.Config.VIP()}}
}

// startVsnat serves every port of the loads by vsnat.
func startVsnat(how string) func(context.Context, *bed) (service, func() error, error) {
	return func(ctx context.Context, b *bed) (service, func() error, error) {
		var text strings.Builder
		fmt.Fprintf(&text, "%smax-conns: %d\nservices:\n", how, maxConns)
		for _, port := range ports() {
			protocol := "tcp"
			if port == datagramPort {
				protocol = "udp"
			}
			fmt.Fprintf(&text, "  - %s: %s:%d\n    scheduler: rr\n    servers:\n", protocol, b.cluster.Config.VIP(), port)
			for _, a := range b.behind(port) {
				fmt.Fprintf(&text, "      - %s:%d\n", a, port)
			}
		}
		d, err := b.cluster.StartDirector(ctx, lab.DirectorOptions{Config: text.String()})
		if err != nil {
			return service{}, nil, err
		}
		s := b.virtual()
		s.director = d.PID()
		client := control.NewClient(b.cluster.Socket())
		s.count = func(ctx context.Context) (int, error) {
			stats, err := client.Stats(ctx)
			return stats.Conns.Len, err
		}
		return s, sync.OnceValue(d.Stop), nil
	}
}

// startForward makes the director's kernel a router.
func startForward(_ context.Context, b *bed) (service, func() error, error) {
	stop, err := b.forwarding()
	return service{addresses: b.behind(requestPort), direct: true}, stop, err
}

func (b *bed) forwarding() (stop func() error, err error) {
	const key = "net.ipv4.ip_forward"
	return sync.OnceValue(func() error { return b.cluster.Director.SetSysctl(key, "0") }),
		b.cluster.Director.SetSysctl(key, "1")
}

// startKernel has nftables do what vsnat does.
func startKernel(ctx context.Context, b *bed) (service, func() error, error) {
	var servers []string
	for i, a := range b.behind(requestPort) {
		servers = append(servers, fmt.Sprintf("%d : %s", i, a))
	}
	rules := fmt.Sprintf(`table ip bench {
	chain in {
		type nat hook prerouting priority dstnat
		ip daddr %[1]s tcp dport %[2]d dnat to %[3]s
		ip daddr %[1]s meta l4proto { tcp, udp } dnat to numgen inc mod %[4]d map { %[5]s }
	}
	chain out {
		type nat hook postrouting priority srcnat
		ip saddr %[6]s oifname "eth0" snat to %[1]s
	}
}
`, b.cluster.Config.VIP(), toolPort, b.behind(toolPort)[0], len(servers), strings.Join(servers, ", "), b.cluster.Config.Inside())
	if err := b.director(ctx, rules, "nft", "-f", "-"); err != nil {
		return service{}, nil, err
	}
	// Of its own accord it forgets a flow that nobody answers sooner than it was held.
	// Ordinary users can't tell it, nor ask it.
	err := b.cluster.Director.SetSysctl("net.netfilter.nf_conntrack_udp_timeout", "120")
	hidden := errors.Is(err, fs.ErrNotExist)
	if err != nil && !hidden {
		return service{}, nil, err
	}
	unforward, err := b.forwarding()
	stop := sync.OnceValue(func() error {
		if err := unforward(); err != nil {
			return err
		}
		// Or its next turn begins with what this one has left.
		if err := b.cluster.Director.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			return fmt.Errorf("flush conntrack: %w", err)
		}
		return b.director(context.Background(), "", "nft", "delete", "table", "ip", "bench")
	})
	s := b.virtual()
	if hidden {
		return s, stop, err
	}
	s.count = func(context.Context) (n int, err error) {
		return n, b.cluster.Director.Do(func() error {
			text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
			if err != nil {
				return err
			}
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
			return err
		})
	}
	return s, stop, err
}

// director runs a program in the director to its end.
func (b *bed) director(ctx context.Context, input, program string, args ...string) error {
	file, err := lookPath(program)
	if err != nil {
		return err
	}
	cmd := b.cluster.Director.Command(ctx, file, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// startHAProxy proxies the TCP loads as haproxy does it best: splicing.
func startHAProxy(ctx context.Context, b *bed) (service, func() error, error) {
	var text strings.Builder
	text.WriteString("global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  option splice-auto\n" +
		"  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  balance roundrobin\n")
	for _, port := range ports() {
		if port == datagramPort {
			continue
		}
		fmt.Fprintf(&text, "listen p%d\n  bind %s:%d\n", port, b.cluster.Config.VIP(), port)
		for i, a := range b.behind(port) {
			fmt.Fprintf(&text, "  server rs%d %s:%d\n", i+1, a, port)
		}
	}
	return b.proxy(ctx, "haproxy", text.String(), "-db", "-f")
}

// startNginx proxies the TCP loads with one worker.
func startNginx(ctx context.Context, b *bed) (service, func() error, error) {
	var text strings.Builder
	for _, module := range []string{"/usr/lib/nginx/modules/ngx_stream_module.so"} { // where it is a module
		if _, err := os.Stat(module); err == nil {
			fmt.Fprintf(&text, "load_module %s;\n", module)
		}
	}
	fmt.Fprintf(&text, "daemon off;\nworker_processes 1;\npid %s;\nerror_log stderr crit;\nevents { worker_connections 16384; }\nstream {\n",
		filepath.Join(b.cluster.Dir(), "nginx.pid"))
	for _, port := range ports() {
		if port == datagramPort {
			continue
		}
		fmt.Fprintf(&text, "upstream p%d {\n", port)
		for _, a := range b.behind(port) {
			fmt.Fprintf(&text, "  server %s:%d;\n", a, port)
		}
		fmt.Fprintf(&text, "}\nserver { listen %s:%d backlog=4096; proxy_half_close on; proxy_pass p%[2]d; }\n", b.cluster.Config.VIP(), port)
	}
	text.WriteString("}\n")
	return b.proxy(ctx, "nginx", text.String(), "-c")
}

// proxy starts a proxy in the director with a configuration file as its last
// argument, and waits until it listens.
func (b *bed) proxy(ctx context.Context, name, config string, args ...string) (service, func() error, error) {
	file := filepath.Join(b.cluster.Dir(), name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return service{}, nil, err
	}
	program, err := lookPath(name)
	if err != nil {
		return service{}, nil, err
	}
	// A proxy takes ports of its own for the servers.
	if err := b.cluster.Director.SetSysctl("net.ipv4.ip_local_port_range", "1500 65000"); err != nil {
		return service{}, nil, err
	}
	cmd := b.cluster.Director.Command(context.WithoutCancel(ctx), program, append(args, file)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return service{}, nil, err
	}
	stop := sync.OnceValue(func() error {
		cmd.Process.Signal(unix.SIGTERM)
		late := time.AfterFunc(3*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		cmd.Wait() // that it ends by a signal is no error
		return b.cluster.Director.SetSysctl("net.ipv4.ip_local_port_range", "32768 60999")
	})
	s := b.virtual()
	s.director = cmd.Process.Pid
	for range 500 {
		var conn net.Conn
		if conn, err = b.cluster.Client.Dial(ctx, "tcp", netip.AddrPortFrom(s.addresses[0], requestPort).String()); err == nil {
			conn.Close()
			return s, stop, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return s, nil, fmt.Errorf("%s does not listen: %w\n%s", name, err, said.String())
}
