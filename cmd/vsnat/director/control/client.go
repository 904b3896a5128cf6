// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTime = 2 * time.Second
	// answerTime is how long the director may think before its answer begins.
	answerTime = 10 * time.Second
	// maxAnswer bounds what a client reads: 100,000 servers are 30 MB.
	maxAnswer = 256 << 20
)

const (
	startHint      = "start one with vsnat run -c FILE, or name its socket with --socket or " + SocketVariable
	permissionHint = "become root or the user that runs the director, or have its configuration name a group (control: group)"
)

// Client speaks to the director at a socket. It is a Director itself; its
// errors are the director's own, or say that none is there. It is safe for
// concurrent use and holds no connection between calls.
type Client struct {
	path string
	http *http.Client
}

var _ Director = (*Client)(nil)

// NewClient makes a client of the director at path; "" means DefaultSocket.
// Whether one is there shows at the first call.
func NewClient(path string) *Client {
	if path == "" {
		path = DefaultSocket()
	}
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:            c.dial,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		ResponseHeaderTimeout:  answerTime,
		MaxResponseHeaderBytes: headerSize,
	}}
	return c
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	return &unheard{Conn: conn}, nil
}

// unheard is a connection that was cut, not ended, if its other end closes
// before it has said anything. net/http tells the two apart by when it looks,
// and has an error that cannot be recognised for the one it saw too early.
type unheard struct {
	net.Conn
	heard bool // by the one goroutine that reads
}

func (u *unheard) Read(b []byte) (int, error) {
	n, err := u.Conn.Read(b)
	u.heard = u.heard || n > 0
	if err == io.EOF && !u.heard {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// explain turns trouble on the way into words.
func (c *Client) explain(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTDIR):
		return Refuse(CodeUnavailable, "no director is running at "+c.path, startHint)
	case errors.Is(err, fs.ErrPermission):
		return Refuse(CodeNotPermitted, "no permission to speak to the director at "+c.path, permissionHint)
	case errors.Is(err, unix.EAGAIN):
		return Refuse(CodeUnavailable, "the director at "+c.path+" has too many clients", "try again")
	case errors.Is(err, unix.ENOTSOCK), errors.Is(err, unix.EPROTOTYPE):
		return Refuse(CodeUnavailable, c.path+" is not a director's socket", startHint)
	case errors.Is(err, unix.EINVAL) && len(c.path) > MaxSocketPath:
		return Refuse(CodeInvalid, fmt.Sprintf("the socket's path is longer than %d bytes", MaxSocketPath), "choose a shorter one")
	case errors.As(err, &timeout) && timeout.Timeout():
		return Refuse(CodeUnavailable, "the director at "+c.path+" does not answer", "is its process stopped?")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return Refuse(CodeUnavailable, "the director at "+c.path+" closed the connection", "it may be stopping, or have too many clients: try again")
	}
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err
	}
	return fmt.Errorf("director at %s: %w", c.path, err)
}

// call sends one request. What comes back goes into out: a *string takes the
// body as it is, an io.Writer also one of any length, nil takes nothing.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://vsnat"+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer res.Body.Close()
	if to, ok := out.(io.Writer); ok && res.StatusCode == http.StatusOK {
		_, err := io.Copy(to, explained{res.Body, c})
		return err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.explain(err)
	}
	if res.StatusCode != http.StatusOK {
		e := new(Error)
		if json.Unmarshal(text, e) != nil || e.Code == "" {
			return Refuse(CodeUnavailable, fmt.Sprintf("what answers at %s is not a director: %s", c.path, res.Status), startHint)
		}
		return e
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *string:
		*out = string(text)
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return Refuse(CodeUnavailable, fmt.Sprintf("the answer of %s is not understood: %v", c.path, err), "is it a director of another version?")
	}
	return nil
}

// explained is a body whose end before its time is put into words.
type explained struct {
	io.Reader
	c *Client
}

func (e explained) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	if err != nil && err != io.EOF {
		err = e.c.explain(err)
	}
	return n, err
}

// get asks for a value.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.call(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

func servicePath(k ServiceKey) string {
	return "/v1/services/" + url.PathEscape(k.Proto) + "/" + url.PathEscape(k.name())
}

func serverPath(k ServiceKey, a netip.AddrPort) string {
	return servicePath(k) + "/servers/" + url.PathEscape(a.String())
}

// AddService implements Director.
func (c *Client) AddService(ctx context.Context, s ServiceSpec) error {
	return c.call(ctx, http.MethodPost, "/v1/services", s, nil)
}

// EditService implements Director.
func (c *Client) EditService(ctx context.Context, s ServiceSpec) error {
	return c.call(ctx, http.MethodPut, servicePath(s.ServiceKey), s, nil)
}

// DeleteService implements Director.
func (c *Client) DeleteService(ctx context.Context, k ServiceKey) error {
	return c.call(ctx, http.MethodDelete, servicePath(k), nil, nil)
}

// Flush implements Director.
func (c *Client) Flush(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/v1/services", nil, nil)
}

// AddServer implements Director.
func (c *Client) AddServer(ctx context.Context, k ServiceKey, s ServerSpec) error {
	return c.call(ctx, http.MethodPost, servicePath(k)+"/servers", s, nil)
}

// EditServer implements Director.
func (c *Client) EditServer(ctx context.Context, k ServiceKey, s ServerSpec) error {
	return c.call(ctx, http.MethodPut, serverPath(k, s.Address), s, nil)
}

// DeleteServer implements Director.
func (c *Client) DeleteServer(ctx context.Context, k ServiceKey, a netip.AddrPort) error {
	return c.call(ctx, http.MethodDelete, serverPath(k, a), nil, nil)
}

// AddSNAT implements Director.
func (c *Client) AddSNAT(ctx context.Context, s SNATSpec) error {
	return c.call(ctx, http.MethodPost, "/v1/snat", s, nil)
}

// DeleteSNAT implements Director.
func (c *Client) DeleteSNAT(ctx context.Context, from netip.Prefix) error {
	return c.call(ctx, http.MethodDelete, "/v1/snat/"+url.PathEscape(from.String()), nil, nil)
}

// Services implements Director.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	return get[[]Service](ctx, c, "/v1/services")
}

// Service is one service; its error is that of DeleteService if there is none.
func (c *Client) Service(ctx context.Context, k ServiceKey) (Service, error) {
	return get[Service](ctx, c, servicePath(k))
}

// SNAT implements Director.
func (c *Client) SNAT(ctx context.Context) ([]SNAT, error) {
	return get[[]SNAT](ctx, c, "/v1/snat")
}

// Conns implements Director.
func (c *Client) Conns(ctx context.Context, q ConnQuery) (ConnPage, error) {
	values := url.Values{}
	set := func(name, value string, given bool) {
		if given {
			values.Set(name, value)
		}
	}
	set("proto", q.Proto, q.Proto != "")
	set("client", q.Client.String(), q.Client.IsValid())
	set("service", filter(q.Service), q.Service.IsValid())
	set("server", filter(q.Server), q.Server.IsValid())
	set("state", q.State, q.State != "")
	set("limit", strconv.Itoa(q.Limit), q.Limit != 0)
	set("cursor", q.Cursor, q.Cursor != "")
	return get[ConnPage](ctx, c, "/v1/conns?"+values.Encode())
}

// filter writes an endpoint for ParseEndpoint.
func filter(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// Stats implements Director.
func (c *Client) Stats(ctx context.Context) (Stats, error) { return get[Stats](ctx, c, "/v1/stats") }

// Health implements Director.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return get[Health](ctx, c, "/v1/health")
}

// Links implements Director.
func (c *Client) Links(ctx context.Context) ([]Link, error) { return get[[]Link](ctx, c, "/v1/links") }

// Checks implements Director.
func (c *Client) Checks(ctx context.Context) ([]Check, error) {
	return get[[]Check](ctx, c, "/v1/health/checks")
}

// Timeouts implements Director.
func (c *Client) Timeouts(ctx context.Context) (Timeouts, error) {
	return get[Timeouts](ctx, c, "/v1/timeouts")
}

// SetTimeouts implements Director.
func (c *Client) SetTimeouts(ctx context.Context, t Timeouts) error {
	return c.call(ctx, http.MethodPut, "/v1/timeouts", t, nil)
}

// Settings implements Director.
func (c *Client) Settings(ctx context.Context) ([]Setting, error) {
	return get[[]Setting](ctx, c, "/v1/settings")
}

// SetSettings implements Director.
func (c *Client) SetSettings(ctx context.Context, values map[string]SettingValue) error {
	return c.call(ctx, http.MethodPut, "/v1/settings", values, nil)
}

// Config implements Director.
func (c *Client) Config(ctx context.Context) (string, error) {
	return get[string](ctx, c, "/v1/config")
}

// Reload implements Director.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var r Reloaded
	err := c.call(ctx, http.MethodPost, "/v1/reload", nil, &r)
	return r, err
}

// Proc writes one of the text views that ProcNames lists.
func (c *Client) Proc(ctx context.Context, name string, to io.Writer) error {
	return c.call(ctx, http.MethodGet, "/v1/proc/"+url.PathEscape(name), nil, to)
}

// Zero implements Director.
func (c *Client) Zero(ctx context.Context, k ServiceKey) error {
	if k.IsZero() {
		return c.call(ctx, http.MethodPost, "/v1/zero", nil, nil)
	}
	return c.call(ctx, http.MethodPost, "/v1/zero", k, nil)
}
