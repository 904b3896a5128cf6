// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hangUpGrace is between SIGHUP and SIGKILL for a command whose client is gone.
const hangUpGrace = 2 * time.Second

// A server answers the commands of a held lab.
type server struct {
	cluster *Cluster
	started time.Time
	end     context.CancelFunc
}

// serve answers one connection. The descriptors that came with it are closed at
// the end.
func (s *server) serve(conn *net.UnixConn) {
	defer conn.Close()
	files, err := receiveFiles(conn)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return
	}
	from := json.NewDecoder(conn)
	var q request
	if err := from.Decode(&q); err != nil {
		return
	}

	var a answer
	switch q.Op {
	case opExec:
		a = s.exec(q, files, from)
	case opReport:
		a.Report = s.report()
	case opDown:
		defer s.end()
	default:
		a.Error = fmt.Sprintf("the lab does not know %q; it was started by another version", q.Op)
	}
	json.NewEncoder(conn).Encode(a)
}

// receiveFiles reads the first byte and the three descriptors with it.
func receiveFiles(conn *net.UnixConn) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(16*4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "client"))
		}
	}
	if len(files) != 3 {
		return files, errors.New("want three descriptors")
	}
	return files, nil
}

// exec runs a command and passes signals on to its process group.
func (s *server) exec(q request, files []*os.File, signals *json.Decoder) answer {
	node, err := s.cluster.Node(q.Node)
	if err != nil {
		return answer{Status: exitFailure, Error: err.Error()}
	}
	if len(q.Argv) == 0 {
		return answer{Status: exitFailure, Error: "no command given"}
	}

	cmd := node.Command(context.Background(), q.Argv[0], q.Argv[1:]...)
	cmd.Env = node.environ(q.Env)
	if cmd.Path, err = lookPath(q.Argv[0], cmd.Env); err != nil {
		return answer{Status: 127, Error: err.Error()}
	}
	cmd.Err = nil
	if d, err := os.Stat(q.Dir); err == nil && d.IsDir() {
		cmd.Dir = q.Dir
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return answer{Status: 126, Error: err.Error()}
	}

	ended := make(chan struct{})
	go func() {
		group := -cmd.Process.Pid
		for {
			var f forward
			if err := signals.Decode(&f); err != nil {
				break
			}
			unix.Kill(group, f.Signal)
		}
		// The client is gone. What a command left behind on purpose stays.
		select {
		case <-ended:
			return
		default:
			unix.Kill(group, unix.SIGHUP)
		}
		select {
		case <-ended:
		case <-time.After(hangUpGrace):
			unix.Kill(group, unix.SIGKILL)
		}
	}()
	err = cmd.Wait()
	close(ended)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return answer{Status: exitFailure, Error: err.Error()}
	}
	return answer{Status: exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus))}
}

func (s *server) report() *Report {
	c := s.cluster
	r := &Report{Started: s.started, Config: c.Config, Socket: c.Socket(), Director: "not started"}
	c.mu.Lock()
	d := c.director
	c.mu.Unlock()
	if d != nil {
		r.Director = fmt.Sprintf("running, process %d", d.PID())
		if !d.Running() {
			r.Director = fmt.Sprintf("ended with status %d", d.status)
		}
	}
	for _, n := range c.Nodes() {
		r.Nodes = append(r.Nodes, NodeReport{n.Name, n.linkTexts()})
	}
	return r
}

// linkTexts describes the links of a node with their addresses, without the
// kernel's own (loopback and link-local), and without lo if it has no other.
func (n *Node) linkTexts() []string {
	var texts []string
	n.Do(func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			addrs, err := l.Addrs()
			if err != nil {
				return err
			}
			words := []string{l.Name}
			for _, a := range addrs {
				p, err := netip.ParsePrefix(a.String())
				if err != nil || !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
					words = append(words, a.String())
				}
			}
			if l.Flags&net.FlagUp == 0 {
				words = append(words, "(down)")
			}
			if len(words) > 1 || l.Flags&net.FlagLoopback == 0 {
				texts = append(texts, strings.Join(words, " "))
			}
		}
		return nil
	})
	return texts
}
