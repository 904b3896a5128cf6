// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// A wire is a packet socket on one link.
type wire struct {
	link iface.Link
	fd   int
}

// Ports that probes are sent from: those that begin with these bits. Nobody hands
// them out by himself.
const (
	probePorts    = 0xf000
	probePortMask = 0xf000
	maxProbePorts = 0x1000
)

// openWire opens it. Only what can be an answer is delivered.
func openWire(l iface.Link) (*wire, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	w := &wire{link: l, fd: fd}
	program, err := bpf.Assemble(answersOnly())
	if err != nil {
		w.close()
		return nil, err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.BigEndian.Uint16([]byte{unix.ETH_P_ALL & 0xff, 0}), Ifindex: l.Index}),
	)
	if err != nil {
		w.close()
		return nil, fmt.Errorf("packet socket on %s: %w", l.Name, err)
	}
	return w, nil
}

func (w *wire) close() { _ = unix.Close(w.fd) }

// answersOnly accepts ARP, ICMP, ICMPv6, and TCP to the ports of probes.
func answersOnly() []bpf.Instruction {
	const (
		accept = 65535
		icmp6  = unix.IPPROTO_ICMPV6
	)
	return []bpf.Instruction{
		0: bpf.LoadAbsolute{Off: 12, Size: 2},
		1: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 15},
		2: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 6},
		3: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 12},
		4: bpf.LoadAbsolute{Off: 23, Size: 1},
		5: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMP, SkipTrue: 11},
		6: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 9},
		7: bpf.LoadMemShift{Off: 14},
		8: bpf.Jump{Skip: 4},

		9:  bpf.LoadAbsolute{Off: 20, Size: 1},
		10: bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmp6, SkipTrue: 6},
		11: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 4},
		12: bpf.LoadConstant{Dst: bpf.RegX, Val: 40},

		13: bpf.LoadIndirect{Off: 14 + 2, Size: 2},
		14: bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: probePortMask},
		15: bpf.JumpIf{Cond: bpf.JumpEqual, Val: probePorts, SkipTrue: 1},
		16: bpf.RetConstant{Val: 0},
		17: bpf.RetConstant{Val: accept},
	}
}

// A probe is a frame that is sent until it is answered.
type probe struct {
	wire  *wire
	frame []byte
	// match is shown each packet that comes in by the wire, and keeps what it
	// says. It reports whether the probe is answered.
	match    func(gopacket.Packet) bool
	answered bool
}

// Times of a round of probes: each frame is sent again so often, so many times.
const (
	resend    = 250 * time.Millisecond
	resends   = 4
	secondSay = 150 * time.Millisecond // how long a second station may take to answer
)

// exchange sends probes until all are answered, or it is clear that they will not
// be, and at least for the time atLeast.
func exchange(ctx context.Context, wires []*wire, probes []*probe, atLeast time.Duration) error {
	fds := make([]unix.PollFd, len(wires))
	for i, w := range wires {
		fds[i] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN}
	}
	start := time.Now()
	for turn := range resends {
		open := 0
		for _, p := range probes {
			if p.answered {
				continue
			}
			open++
			if err := p.send(); err != nil && turn == 0 {
				return err
			}
		}
		end := start.Add(time.Duration(turn+1) * resend)
		for {
			rest := end
			if open == 0 {
				rest = start.Add(atLeast)
			}
			wait := time.Until(rest)
			if err := ctx.Err(); err != nil {
				return err
			}
			if wait <= 0 {
				break
			}
			if _, err := unix.Poll(fds, int(wait.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("waiting for answers: %w", err)
			}
			for _, w := range wires {
				open -= w.receive(probes)
			}
		}
		if open == 0 {
			return nil
		}
	}
	return nil
}

// send sends the frame. A link that is down or full is one that nobody answers by.
func (p *probe) send() error {
	err := unix.Sendto(p.wire.fd, p.frame, 0, &unix.SockaddrLinklayer{Ifindex: p.wire.link.Index})
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sending by %s: %w", p.wire.link.Name, err)
	}
	return nil
}

// receive shows what has come to the probes, and returns how many are answered now
// that were not.
func (w *wire) receive(probes []*probe) (answered int) {
	var memory [65536]byte
	for range 1024 {
		n, err := unix.Read(w.fd, memory[:])
		if err != nil {
			return answered
		}
		packet := gopacket.NewPacket(memory[:n], layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
		for _, p := range probes {
			if p.wire == w && p.match(packet) && !p.answered {
				p.answered = true
				answered++
			}
		}
	}
	return answered
}
