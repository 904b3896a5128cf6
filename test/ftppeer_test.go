// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// An FTP server and an FTP client, as small as they can be: files have a size for a
// name, and hold that many bytes of lab.Stream; the answer to what is stored is its
// digest.

const (
	ftpControlPort = 21
	ftpDataPort    = 20
	ftpPatience    = 30 * time.Second // with the other end
)

// ftpServer serves one control connection.
type ftpServer struct {
	node   *lab.Node
	text   *textproto.Conn
	own    netip.Addr
	peer   netip.Addr
	listen net.Listener   // after PASV and EPSV
	active netip.AddrPort // after PORT and EPRT
}

// serveFTP makes a node an FTP server until the cluster is closed.
func (c *cluster) serveFTP(n *lab.Node) {
	c.must(n.ServeTCP(ftpControlPort, func(conn *net.TCPConn) {
		s := &ftpServer{
			node: n, text: textproto.NewConn(conn),
			own:  conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(),
			peer: conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(),
		}
		defer s.close()
		s.say("220-%s", n.Name)
		s.say("220 ready")
		for {
			line, err := s.text.ReadLine()
			if err != nil {
				return
			}
			s.obey(line)
		}
	}))
}

func (s *ftpServer) say(format string, args ...any) { s.text.PrintfLine(format, args...) }

func (s *ftpServer) close() {
	s.stopListening()
	s.text.Close()
}

func (s *ftpServer) stopListening() {
	if s.listen != nil {
		s.listen.Close()
		s.listen = nil
	}
}

func (s *ftpServer) obey(line string) {
	word, argument, _ := strings.Cut(line, " ")
	switch word {
	case "PASV", "EPSV":
		s.stopListening()
		s.active = netip.AddrPort{}
		l, err := s.node.Listen("tcp", netip.AddrPortFrom(s.own, 0).String())
		if err != nil {
			s.say("425 %v", err)
			return
		}
		s.listen = l
		at := l.Addr().(*net.TCPAddr).AddrPort()
		if word == "EPSV" {
			s.say("229 Entering Extended Passive Mode (|||%d|)", at.Port())
			return
		}
		s.say("227 Entering Passive Mode (%s).", hostPort(s.own, at.Port()))
	case "PORT", "EPRT":
		s.stopListening()
		at, err := parseHostPort(argument)
		if err != nil || at.Addr() != s.peer { // as vsftpd has it
			s.say("500 Illegal %s command: %q is not %v", word, argument, s.peer)
			return
		}
		s.active = at
		s.say("200 %s command successful", word)
	case "RETR":
		var size int64
		fmt.Sscan(argument, &size)
		s.transfer(func(data net.Conn) (string, error) {
			_, err := io.Copy(data, lab.Stream(size))
			return "done", err
		})
	case "STOR":
		s.transfer(func(data net.Conn) (string, error) {
			d, err := lab.ReadDigest(data)
			return d.String(), err
		})
	default:
		s.say("502 %s", word)
	}
}

// transfer opens the data connection and has f use it.
func (s *ftpServer) transfer(f func(data net.Conn) (string, error)) {
	s.say("150 here it comes")
	data, err := s.connect()
	if err != nil {
		s.say("425 %v", err)
		return
	}
	data.SetDeadline(time.Now().Add(ftpPatience))
	answer, err := f(data)
	if err = errors.Join(err, data.Close()); err != nil {
		s.say("426 %v", err)
		return
	}
	s.say("226 %s", answer)
}

func (s *ftpServer) connect() (data net.Conn, err error) {
	if s.listen != nil {
		s.listen.(*net.TCPListener).SetDeadline(time.Now().Add(ftpPatience))
		return s.listen.Accept()
	}
	// The port below the control connection's, time and again: RFC 959 section 3.3.
	d := net.Dialer{
		Timeout:   ftpPatience,
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.own, ftpDataPort)),
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			e := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			})
			return errors.Join(e, err)
		},
	}
	err = s.node.Do(func() (err error) {
		data, err = d.Dial("tcp", s.active.String())
		return err
	})
	return data, err
}

// hostPort is an endpoint in the notation of PORT and 227.
func hostPort(a netip.Addr, port uint16) string {
	return fmt.Sprintf("%s,%d,%d", strings.ReplaceAll(a.String(), ".", ","), port>>8, port&255)
}

// parseHostPort reads an endpoint in that notation, or in that of EPRT.
func parseHostPort(text string) (netip.AddrPort, error) {
	if strings.HasPrefix(text, "|") {
		f := strings.Split(text, "|")
		if len(f) != 5 {
			return netip.AddrPort{}, errors.New(text)
		}
		return netip.ParseAddrPort(net.JoinHostPort(f[2], f[3]))
	}
	var b [6]byte
	if n, err := fmt.Sscanf(text, "%d,%d,%d,%d,%d,%d", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]); n != 6 {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:])), uint16(b[4])<<8|uint16(b[5])), nil
}

// ftpClient is the other end.
type ftpClient struct {
	ctx    context.Context
	node   *lab.Node
	vip    netip.Addr
	text   *textproto.Conn
	own    netip.AddrPort
	server string // the name that the server has said
}

// dialFTP opens a control connection to the VIP.
func (c *cluster) dialFTP(n *lab.Node) *ftpClient {
	c.t.Helper()
	conn, err := n.Dial(c.ctx, "tcp", c.virtual(ftpControlPort).String())
	c.must(err)
	conn.SetDeadline(time.Now().Add(limit / 2))
	f := &ftpClient{
		ctx: c.ctx, node: n, vip: c.Config.VIP(), text: textproto.NewConn(conn),
		own: conn.LocalAddr().(*net.TCPAddr).AddrPort(),
	}
	c.t.Cleanup(func() { f.text.Close() })
	_, text, err := f.text.ReadResponse(220)
	c.must(err)
	f.server, _, _ = strings.Cut(text, "\n")
	return f
}

// ask sends a command and returns the text of the reply, which must have a code.
func (f *ftpClient) ask(code int, format string, args ...any) (string, error) {
	if err := f.text.PrintfLine(format, args...); err != nil {
		return "", err
	}
	_, text, err := f.text.ReadResponse(code)
	return text, err
}

// fetch reads a file of a size, store writes one; both compare digests.
func (f *ftpClient) fetch(mode string, size int64) error {
	return f.transfer(mode, fmt.Sprint("RETR ", size), func(data net.Conn) (want string, err error) {
		got, err := lab.ReadDigest(data)
		if err == nil && got != lab.StreamDigest(size) {
			err = fmt.Errorf("%v arrived, want %v", got, lab.StreamDigest(size))
		}
		return "done", err
	})
}

func (f *ftpClient) store(mode string, size int64) error {
	return f.transfer(mode, "STOR it", func(data net.Conn) (want string, err error) {
		_, err = io.Copy(data, lab.Stream(size))
		return lab.StreamDigest(size).String(), err
	})
}

// transfer announces a data connection by one of the four commands, and has use deal
// with it.
func (f *ftpClient) transfer(mode, command string, use func(data net.Conn) (want string, err error)) error {
	open, err := f.announce(mode)
	if err != nil {
		return fmt.Errorf("%s: %w", mode, err)
	}
	if err := f.text.PrintfLine("%s", command); err != nil {
		return err
	}
	data, err := open()
	if err != nil {
		return fmt.Errorf("%s, %s: %w", mode, command, err)
	}
	data.SetDeadline(time.Now().Add(ftpPatience))
	if _, _, err := f.text.ReadResponse(150); err != nil {
		return err
	}
	want, err := use(data)
	if err = errors.Join(err, data.Close()); err != nil {
		return fmt.Errorf("%s, %s: %w", mode, command, err)
	}
	_, answer, err := f.text.ReadResponse(226)
	if err == nil && answer != want {
		err = fmt.Errorf("%s, %s: the server says %q, want %q", mode, command, answer, want)
	}
	return err
}

// announce asks for a data connection, and returns how it is had.
func (f *ftpClient) announce(mode string) (open func() (net.Conn, error), err error) {
	if mode == "PORT" || mode == "EPRT" {
		return f.announceActive(mode)
	}
	var at netip.AddrPort
	switch mode {
	case "PASV":
		text, err := f.ask(227, "PASV")
		if err != nil {
			return nil, err
		}
		_, text, _ = strings.Cut(text, "(")
		if at, err = parseHostPort(text); err != nil || at.Addr() != f.vip {
			return nil, fmt.Errorf("the reply names %q (%v)", text, err)
		}
	case "EPSV":
		text, err := f.ask(229, "EPSV")
		if err != nil {
			return nil, err
		}
		var port uint16
		_, text, _ = strings.Cut(text, "(|||")
		fmt.Sscan(strings.TrimSuffix(text, "|)"), &port)
		at = netip.AddrPortFrom(f.vip, port)
	}
	return func() (net.Conn, error) { return f.node.Dial(f.ctx, "tcp", at.String()) }, nil
}

func (f *ftpClient) announceActive(mode string) (open func() (net.Conn, error), err error) {
	l, err := f.node.Listen("tcp", netip.AddrPortFrom(f.own.Addr(), 0).String())
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	text, family := hostPort(f.own.Addr(), port), 1
	if f.own.Addr().Is6() {
		family = 2
	}
	if mode == "EPRT" {
		text = fmt.Sprintf("|%d|%s|%d|", family, f.own.Addr(), port)
	}
	if _, err := f.ask(200, "%s %s", mode, text); err != nil {
		l.Close()
		return nil, err
	}
	return func() (net.Conn, error) {
		defer l.Close()
		l.(*net.TCPListener).SetDeadline(time.Now().Add(ftpPatience))
		data, err := l.Accept()
		if err != nil {
			return nil, err
		}
		if from := data.RemoteAddr().(*net.TCPAddr).AddrPort(); from != netip.AddrPortFrom(f.vip, ftpDataPort) {
			data.Close()
			return nil, fmt.Errorf("the data connection comes from %v", from)
		}
		return data, nil
	}, nil
}
