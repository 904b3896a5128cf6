// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readyWithin is how long a director may take until its control socket answers,
// and stopWithin until it has ended after SIGTERM.
const (
	readyWithin = 20 * time.Second
	stopWithin  = 20 * time.Second
)

// healthPath is what a director answers with 200 OK when it forwards packets.
const healthPath = "/v1/health"

// DirectorOptions say how the director is started.
type DirectorOptions struct {
	Config string   // the configuration file's text; see Config.DirectorConfig
	Args   []string // after "vsnat run -c FILE"
	Env    []string // beside VSNAT_SOCKET
	Log    *os.File // gets the director's output instead of Logs, if not nil
}

// A DirectorProcess is a running `vsnat run`.
type DirectorProcess struct {
	cmd    *Cmd
	logs   *logBuffer
	ended  chan struct{} // closed after the process was waited for
	status int           // valid then
}

// Socket returns the path of the director's control socket.
func (c *Cluster) Socket() string { return filepath.Join(c.dir, "control.sock") }

// ConfigFile returns the path of the director's configuration file, which a test
// may change for a reload.
func (c *Cluster) ConfigFile() string { return filepath.Join(c.dir, "vsnat.yaml") }

// StartDirector starts "vsnat run" in the director's namespace and returns when
// it answers on its control socket, in at most twenty seconds. If it does not, the
// error holds what it logged. A cluster has one director at a time.
func (c *Cluster) StartDirector(ctx context.Context, o DirectorOptions) (*DirectorProcess, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.director != nil && c.director.Running() {
		return nil, errors.New("the director of this lab runs already")
	}
	if err := os.WriteFile(c.ConfigFile(), []byte(o.Config), 0o600); err != nil {
		return nil, err
	}

	// Not killed by ctx: that is only about the start.
	args := append([]string{"run", "-c", c.ConfigFile()}, o.Args...)
	d := &DirectorProcess{logs: new(logBuffer), ended: make(chan struct{})}
	d.cmd = c.Director.Command(context.Background(), "vsnat", args...)
	d.cmd.Env = append(d.cmd.Env, o.Env...)
	d.cmd.Stdout, d.cmd.Stderr = d.logs, d.logs
	if o.Log != nil {
		d.cmd.Stdout, d.cmd.Stderr = o.Log, o.Log
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the director: %w", err)
	}
	go func() {
		d.cmd.Wait()
		d.status = exitStatus(d.cmd.ProcessState.Sys().(syscall.WaitStatus))
		close(d.ended)
	}()

	if err := d.waitReady(ctx, c.Socket()); err != nil {
		d.Kill(unix.SIGKILL)
		<-d.ended
		return nil, fmt.Errorf("%w\n%s", err, d.Logs())
	}
	c.director = d
	return d, nil
}

// waitReady asks the control socket until it answers.
func (d *DirectorProcess) waitReady(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	err := errors.New("not asked yet")
	for {
		select {
		case <-d.ended:
			return fmt.Errorf("the director ended with status %d before it was ready", d.status)
		case <-ctx.Done():
			return fmt.Errorf("the director is not ready after %v: %w", readyWithin, err)
		case <-tick.C:
		}
		if err = healthy(ctx, socket); err == nil {
			return nil
		}
	}
}

// healthy asks a control socket once.
func healthy(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://vsnat"+healthPath, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", healthPath, resp.Status)
	}
	return nil
}

// Running reports whether the process has not ended yet.
func (d *DirectorProcess) Running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// PID is the director's process number, as seen in the lab.
func (d *DirectorProcess) PID() int { return d.cmd.Process.Pid }

// Kill sends the director a signal. It is no error if it has ended already.
func (d *DirectorProcess) Kill(s unix.Signal) error {
	if err := d.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Wait waits for the director's end and returns its status, 128+n for signal n.
func (d *DirectorProcess) Wait(ctx context.Context) (int, error) {
	select {
	case <-d.ended:
		return d.status, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Stop ends the director with SIGTERM, and with SIGKILL after twenty seconds, which
// is an error, as is a status other than 0. A director that was ended before is
// none.
func (d *DirectorProcess) Stop() error {
	if !d.Running() {
		return nil
	}
	d.Kill(unix.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	status, err := d.Wait(ctx)
	if err != nil {
		d.Kill(unix.SIGQUIT) // for the stacks in the log
		time.AfterFunc(time.Second, func() { d.Kill(unix.SIGKILL) })
		<-d.ended
		return fmt.Errorf("the director did not end within %v of SIGTERM\n%s", stopWithin, d.Logs())
	}
	if status != 0 {
		return fmt.Errorf("the director ended with status %d\n%s", status, d.Logs())
	}
	return nil
}

// Logs returns what the director wrote so far, its last 256 KiB.
func (d *DirectorProcess) Logs() string { return d.logs.String() }

// A logBuffer keeps the end of what is written to it.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

const logLimit = 256 << 10

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	if b.text.Len() > 2*logLimit {
		end := b.text.String()[b.text.Len()-logLimit:]
		b.text.Reset()
		b.text.WriteString(end)
	}
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
