// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TUNHost makes the host route our packets into a TUN device and take what comes
// out of it onward, for hosts where packet sockets cannot be had. Unlike with a
// packet socket the host's stack carries the packets: it receives them, routes
// them into the device, and routes what we write as if it came in by a link of
// its own.
//
//	ip rule                                            what for
//	10  from all iif LINK goto 20                      each served link
//	11  from all goto 30                               the host's own and ours
//	20  to VIP ipproto tcp dport 80 lookup 7611        service on a host address
//	20  to SNAT ipproto udp dport 1024-65535 lookup …  ports of SNAT on it
//	20  to NET ipproto tcp dport 80 lookup 7611        what mark rules take
//	20  to VIP ipproto icmp lookup 7611                echo, and errors about our flows
//	30  lookup local                                   moved here from 0
//	40  from all iif LINK goto 50
//	41  from all goto 60
//	50  to OWNED lookup 7611                           address the host does not have
//	50  to NET ipproto icmp lookup 7611                errors about what is marked
//	50  from SERVER lookup 7611                        replies, and ICMP errors
//	50  from INSIDE lookup 7611                        SNAT
//	60  (nothing)
//	70  from all iif LINK blackhole                    each link that forwards for us alone
//
// Table 7611 holds a default route into the device. An address of the host is in
// the table local, which the kernel looks up first: to take single ports of it,
// our rules must come earlier, so that rule is added again at 30 and then
// removed at 0. That only happens while there is a service or SNAT address on
// the host, or a marked network; whatever is in no list, such as ssh to the VIP, finds the table
// local as before. What arrives from the device matches no link and is routed
// on by the host's own rules.
//
// IPv6 has the same list, with icmpv6.
//
// Because whole addresses are taken at 50, and ICMP at 20, the device also gets
// packets that are not ours. They must be written back unchanged: then the host
// treats them as it would have done, with a TTL one less. In particular the
// host goes on answering pings to its addresses.
//
// Beside the rules, what IPv4 needs: proxy ARP on the served links for owned
// addresses, without the kernel's delay; forwarding on the served links and the
// device (not net.ipv4.ip_forward, which stays as it is); for the device
// accept_local and rp_filter off or, where "all" is stricter, loose. The check of
// a source looks the way back up as if the packet came by the link that we send
// to, so our own rules approve of most of what we write. Not of a fragment from an
// address of the host, which has no port, nor of what goes back to the host
// itself. Loose checks fail on a device without any address: there it gets the
// dummy address 192.0.0.8 (RFC 7600), which no packet carries.
//
// And what IPv6 needs: net.ipv6.conf.all.forwarding, since no link forwards by
// itself, and with it accept_ra 2 where it is 1, or the host would forget the
// routes that it has from routers; proxy entries for owned addresses, and for
// those of the host that rules at 20 take ICMPv6 of, with
// net.ipv6.conf.all.proxy_ndp: with these the kernel keeps neighbour discovery
// that is sent to an address alone to itself, although it routes the rest to us.
// Owned IPv6 addresses of other stations are not claimed, if Claim is called.
//
// And for both net.ipv4.ip_early_demux off. With it the kernel gives a packet to the
// host's socket for that connection, if there is one, before any rule is looked at, and
// refuses to forward what has a socket (ip_forward, ip6_forward). A connection that is
// over has one for a minute: after a program that has served the address on this host,
// new connections from the same ports would be lost.
//
// A link that did not forward before forwards what we write and what goes to us,
// and nothing else: the rule at 70 says so. What we write is forwarded whatever the
// host did before: see Forwards.
//
// Device and routes vanish with the process, rules, proxy entries and settings of
// the links do not. Close removes them. If the process dies, a child that
// holds a pipe to it does (TUNHostOptions.Reaper); and what even that leaves is
// removed by the next OpenTUNHost: rules and routes carry protocol 118, the rest
// is in a file (TUNHostOptions.State).
//
// One TUNHost per network namespace. One goroutine, in the network namespace in
// which it was opened.
type TUNHost struct {
	device  string
	options TUNHostOptions

	lock   *os.File // as long as it is open, nobody else opens a TUNHost here
	handle *netlink.Handle
	local  []int // families whose table local has its rule at 0 when we are not here
	undo   tunHostUndo
	reaper *tunHostReaper // nil where none is wanted
	rules  GuardRules
	word   string // about the state file, for the operator
	claims map[tunHostProxy]*tunHostClaim

	forwards4, forwards6 bool // the host did before we had it do so
}

// TUNHostOptions say how the host is put back after a crash.
type TUNHostOptions struct {
	// Reaper is the command line of a process that calls ReapTUNHost with its
	// standard input; usually our own program with a hidden argument. Empty:
	// nothing is undone before the next OpenTUNHost.
	Reaper []string

	// State is a file that says what is to be undone, such as
	// /run/vsnat/tun-host.json. Its directory is made. Empty: after a crash of
	// both processes settings and proxy entries stay; rules are found anyway.
	State string
}

// TUNHostRules are the rules of a guard, read as what to take: the ports of
// Servers have no meaning here, since a server's address is taken as a whole. Host
// says which addresses in marked networks need their ICMP taken before the table
// local.
type TUNHostRules = GuardRules

// What marks our rules and routes. Numbers of routing protocols below 192 that
// nobody has registered are free for administrators.
const (
	tunHostProtocol = 118
	tunHostTable    = 7611
)

const tunHostLock = "@vsnat-tun-host" // in the abstract namespace, one per network namespace

// OpenTUNHost removes what an earlier process left, and begins with no rules. The
// device must exist; it need not be a TUN device.
func OpenTUNHost(device string, options TUNHostOptions) (*TUNHost, error) {
	h := &TUNHost{device: device, options: options, undo: newTUNHostUndo()}
	for _, step := range []func() error{h.takeLock, h.connect, h.removeLeftovers, h.startReaper} {
		if err := step(); err != nil {
			h.release()
			return nil, fmt.Errorf("tun host %s: %w", device, err)
		}
	}
	return h, nil
}

// takeLock waits a little: a reaper at work holds the lock until it is done.
func (h *TUNHost) takeLock() error {
	const attempts, pause = 100, 20 * time.Millisecond
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	h.lock = os.NewFile(uintptr(fd), tunHostLock)
	for range attempts {
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: tunHostLock}); !errors.Is(err, unix.EADDRINUSE) {
			return os.NewSyscallError("bind", err)
		}
		time.Sleep(pause)
	}
	return fmt.Errorf("another vsnat serves this network namespace through a TUN device\nhint: stop it, or use packet sockets in one of them")
}

func (h *TUNHost) connect() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	h.handle = handle
	if _, err := handle.LinkByName(h.device); err != nil {
		return fmt.Errorf("find the device: %w", err)
	}
	return nil
}

// removeLeftovers uses the state file if it is of this namespace, and in any case
// what can be recognised.
func (h *TUNHost) removeLeftovers() error {
	left, word, err := readTUNHostUndo(h.options.State)
	h.word = word
	if err != nil {
		return err
	}
	for _, family := range tunHostFamilies() {
		rules, err := h.handle.RuleList(family)
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		first := slices.ContainsFunc(rules, isFirstLocal)
		// Without the file: rules of ours, and the table local only among them.
		if slices.ContainsFunc(rules, isOurLocal) && !first {
			left.moveLocal(family)
		}
		if first || left.localMoved(family) {
			h.local = append(h.local, family)
		}
	}
	if err := left.run(h.handle); err != nil {
		return fmt.Errorf("remove what an earlier process left: %w", err)
	}
	four, _ := readSysctl("net/ipv4/ip_forward")
	six, _ := readSysctl(forwardingAll6) // not there without IPv6
	h.forwards4, h.forwards6 = four == "1", six == "1"
	return h.save()
}

func (h *TUNHost) startReaper() error {
	if len(h.options.Reaper) == 0 {
		return nil
	}
	reaper, err := startTUNHostReaper(h.options.Reaper, h.lock)
	h.reaper = reaper
	return err
}

// Apply makes the rules the ones in force. Traffic that stays ours is ours all the
// time. On an error part of the change may have been made; apply again.
func (h *TUNHost) Apply(rules TUNHostRules) error {
	normal, err := rules.Normal()
	if err != nil {
		return err
	}
	if asks(ofFamily(normal, unix.AF_INET6)) && !slices.Contains(tunHostFamilies(), unix.AF_INET6) {
		return fmt.Errorf("tun host %s: IPv6 is to be served, and the kernel has none\nhint: boot without ipv6.disable=1, or serve IPv4 only", h.device)
	}
	normal.Links = slices.DeleteFunc(normal.Links, func(name string) bool {
		_, err := h.handle.LinkByName(name)
		return err != nil // it comes with a later Apply
	})
	steps := []struct {
		what string
		do   func(GuardRules) error
	}{
		{"settings", h.applySettings},
		{"route into the device", h.applyRoute},
		{"rules", h.applyRules},
		{"proxy entries", h.applyProxies},
	}
	for _, step := range steps {
		if err := step.do(normal); err != nil {
			return fmt.Errorf("tun host %s: %s: %w", h.device, step.what, err)
		}
	}
	h.rules = normal
	return nil
}

// Forwards tells whether the host forwarded IPv4 and IPv6 when h was opened. Where it
// did not, nothing may be written to the device that is neither translated nor for
// the host itself: it would be forwarded now.
func (h *TUNHost) Forwards() (ipv4, ipv6 bool) { return h.forwards4, h.forwards6 }

// Limits lists what is not taken of the rules last applied, and what could not be
// put back, for the operator.
func (h *TUNHost) Limits() []string {
	var limits []string
	if h.word != "" {
		limits = append(limits, h.word)
	}
	if len(sharedAddrs(h.rules))+len(h.rules.Marked) > 0 {
		limits = append(limits, "fragmented datagrams to services and SNAT ports on addresses of the host, and to marked ports, stay with the host: a fragment has no port to route by; use an address the host does not have")
	}
	for _, m := range h.rules.Marked {
		if m.Max > lastRulePort {
			limits = append(limits, fmt.Sprintf("port %d stays with the host, of %s: a routing rule cannot name it", m.Max, m))
		}
	}
	return limits
}

// Close puts the host back as it was. A second Close does nothing.
func (h *TUNHost) Close() error {
	if h.handle == nil {
		return nil
	}
	h.removeDummy()
	err := h.undo.run(h.handle)
	if err == nil {
		h.undo = newTUNHostUndo()
		err = removeTUNHostUndo(h.options.State)
		if h.reaper != nil {
			err = errors.Join(err, h.reaper.dismiss())
			h.reaper = nil
		}
	}
	h.release()
	if err != nil {
		return fmt.Errorf("tun host %s: put the host back: %w", h.device, err)
	}
	return nil
}

// release lets the reaper, if it still is there, do what is left.
func (h *TUNHost) release() {
	if h.reaper != nil {
		h.reaper.abandon()
		h.reaper = nil
	}
	if h.handle != nil {
		h.handle.Close()
		h.handle = nil
	}
	if h.lock != nil {
		h.lock.Close()
		h.lock = nil
	}
}

// save tells the reaper and the state file what is to be undone, before it is done.
func (h *TUNHost) save() error {
	if err := writeTUNHostUndo(h.options.State, h.undo); err != nil {
		return err
	}
	if h.reaper == nil {
		return nil
	}
	if err := h.reaper.tell(h.undo); err == nil {
		return nil
	}
	// Somebody ended it; another takes its place.
	h.reaper.abandon()
	h.reaper = nil
	if err := h.startReaper(); err != nil {
		return err
	}
	return h.reaper.tell(h.undo)
}
