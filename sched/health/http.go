// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// httpCheck fetches pages, each over a connection of its own. Redirects are not
// followed: their status is the answer.
type httpCheck struct {
	spec   Spec
	to     netip.AddrPort
	tools  Tools
	status []statusRange
	body   *regexp.Regexp // nil: none
	digest []byte
	host   string
	scheme string
	roots  *x509.CertPool // nil: those of the host
}

func newHTTPCheck(t Target, tools Tools) (*httpCheck, error) {
	c := &httpCheck{spec: t.Spec, to: t.Endpoint(), tools: tools, scheme: t.Type, host: t.Host}
	var err error
	if c.status, err = parseStatus(t.Status); err != nil {
		return nil, err
	}
	if t.BodyRegexp != "" {
		if c.body, err = regexp.Compile(t.BodyRegexp); err != nil {
			return nil, err
		}
	}
	if c.digest, err = hex.DecodeString(t.Digest); err != nil {
		return nil, errDigest
	}
	if c.host == "" {
		c.host = c.to.String()
	}
	return c, nil
}

// Check implements checker.
func (c *httpCheck) Check(ctx context.Context) Result {
	result := bad("no URL")
	for _, u := range c.spec.URLs {
		if result = c.fetch(ctx, u); result.Outcome != Good {
			break
		}
	}
	return result
}

func (c *httpCheck) fetch(ctx context.Context, path string) Result {
	conn, err := c.tools.dial(ctx, "tcp", c.to)
	if err != nil {
		return failed(ctx, "connect", err)
	}
	// The transport closes it, but for one of HTTP/2 that the server has said farewell on.
	defer conn.Close()
	only := make(chan net.Conn, 1)
	only <- conn
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case conn := <-only:
				return conn, nil
			default:
				return nil, errors.New("the server asks for another connection")
			}
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig:        &tls.Config{ServerName: c.serverName(), InsecureSkipVerify: c.spec.NoVerify, RootCAs: c.roots},
		Protocols:              new(http.Protocols),
	}
	defer transport.CloseIdleConnections()
	if c.spec.HTTP2 {
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(c.scheme == HTTP)
	} else {
		transport.Protocols.SetHTTP1(true)
	}

	request, err := http.NewRequestWithContext(ctx, c.spec.Method, c.scheme+"://"+c.to.String()+path, nil)
	if err != nil {
		return bad("%v", err)
	}
	request.Host = c.host
	request.Header.Set("User-Agent", "vsnat-check")
	for _, h := range c.spec.Headers {
		name, value, _ := splitHeader(h)
		request.Header.Set(name, value)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return failed(ctx, c.spec.Method+" "+path, plainly(err))
	}
	defer response.Body.Close()
	if !accepted(c.status, response.StatusCode) {
		if to := response.Header.Get("Location"); response.StatusCode/100 == 3 && to != "" {
			return bad("%s: status %s, to %s, which is not followed", path, response.Status, to)
		}
		return bad("%s: status %s", path, response.Status)
	}
	if c.spec.HTTP2 && response.ProtoMajor != 2 {
		return bad("%s: %s, not HTTP/2", path, response.Proto)
	}
	if c.spec.Body == "" && c.body == nil && len(c.digest) == 0 {
		return good("%s", response.Status)
	}
	return c.read(ctx, path, response)
}

// read looks at the body.
func (c *httpCheck) read(ctx context.Context, path string, response *http.Response) Result {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return failed(ctx, path+": body", err)
	}
	if len(body) > maxBody {
		return bad("%s: the body is longer than %d bytes", path, maxBody)
	}
	var sum []byte
	switch len(c.digest) {
	case sha256.Size:
		s := sha256.Sum256(body)
		sum = s[:]
	case md5.Size:
		s := md5.Sum(body)
		sum = s[:]
	}
	switch {
	case c.spec.Body != "" && !bytes.Contains(body, []byte(c.spec.Body)):
		return bad("%s: the body does not have %q", path, c.spec.Body)
	case c.body != nil && !c.body.Match(body):
		return bad("%s: the body does not match %q", path, c.spec.BodyRegexp)
	case !bytes.Equal(sum, c.digest):
		return bad("%s: the body's digest is %x", path, sum)
	}
	return good("%s, body as expected", response.Status)
}

// serverName is what the certificate must be for.
func (c *httpCheck) serverName() string {
	if c.spec.ServerName != "" {
		return c.spec.ServerName
	}
	host, _, err := net.SplitHostPort(c.host)
	if err != nil {
		host = c.host
	}
	return strings.Trim(host, "[]")
}

// maxHeader is how much header a server may send.
const maxHeader = 64 << 10

// plainly says in other words what net/http says in its own.
func plainly(err error) error {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return errors.New("bad certificate: " + certificate.Err.Error())
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return errors.New("the server does not speak TLS")
	}
	if strings.Contains(err.Error(), "response headers exceeded") {
		return fmt.Errorf("the headers are longer than %d bytes", maxHeader)
	}
	// What is not HTTP is quoted.
	_, quoted, _ := strings.Cut(err.Error(), `malformed HTTP response "`)
	switch {
	case strings.HasPrefix(quoted, `\x15\x03`):
		return errors.New("the server speaks TLS: https")
	case strings.HasPrefix(quoted, `\x00\x00`):
		return errors.New("the server speaks HTTP/2 alone: http2: true")
	}
	return err
}

type statusRange struct{ low, high int }

// parseStatus reads "200-299,301".
func parseStatus(text string) ([]statusRange, error) {
	var list []statusRange
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		a, errA := strconv.Atoi(low)
		b, errB := strconv.Atoi(high)
		if errA != nil || errB != nil || a < 100 || b > 599 || a > b {
			return nil, fmt.Errorf("%.40q is no status; write 200, or 200-299,301", part)
		}
		list = append(list, statusRange{a, b})
	}
	return list, nil
}

func accepted(list []statusRange, status int) bool {
	for _, r := range list {
		if status >= r.low && status <= r.high {
			return true
		}
	}
	return false
}

var errDigest = errors.New("a digest is 64 hexadecimal digits, as sha256sum prints them, or the 32 of md5sum and genhash")

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && (len(b) == sha256.Size || len(b) == md5.Size)
}

// nameLetters are those of a header's name.
const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// splitHeader reads "Name: value".
func splitHeader(h string) (name, value string, err error) {
	name, value, ok := strings.Cut(h, ":")
	value = strings.TrimSpace(value)
	if !ok || name == "" || strings.Trim(name, nameLetters) != "" || value != printable(value) {
		return "", "", fmt.Errorf("%.60q is no header; write \"Name: value\"", h)
	}
	return name, value, nil
}

// CheckURL tells whether a text can be the path of a page.
func CheckURL(text string) error {
	u, err := url.ParseRequestURI(text)
	if err != nil || u.IsAbs() || !strings.HasPrefix(text, "/") {
		return fmt.Errorf("%.60q is no path; write it from the slash on, for example /health", text)
	}
	return nil
}
