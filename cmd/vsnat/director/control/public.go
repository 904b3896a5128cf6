// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// What monitoring asks: on the control socket, and on an address if one is
// configured. There nobody is asked who he is, and nothing can be changed.

// metricsKind is the format that Prometheus reads.
const metricsKind = "text/plain; version=0.0.4; charset=utf-8"

// publicRoutes are what anybody may ask who reaches the address.
func publicRoutes() []route {
	return []route{
		{"GET", "/metrics", func(d Director, r request) (any, error) {
			return stream{metricsKind, func(w io.Writer) error { return d.Metrics(r.Context(), w) }}, nil
		}},
		{"GET", "/healthz", func(d Director, r request) (any, error) { return plainly("ok\n"), d.Alive(r.Context()) }},
		{"GET", "/readyz", func(d Director, r request) (any, error) { return plainly("ready\n"), d.Ready(r.Context()) }},
	}
}

// plainly is an answer of a word.
func plainly(text string) stream {
	return stream{"text/plain; charset=utf-8", func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}}
}

// ServePublic answers on l what monitoring asks, with the limits of Serve, until ctx
// is done. It closes l. hosts are the names under which it may be asked beside
// localhost and addresses.
func (s *HTTPServer) ServePublic(ctx context.Context, l net.Listener, hosts []string) error {
	mux := s.mux(publicRoutes(), "there are /metrics, /healthz and /readyz")
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if err := invited(req, hosts); err != nil {
			reply(w, payload{}, err)
			return
		}
		mux.ServeHTTP(w, req)
	})
	if err := s.serve(ctx, l, handler); err != nil {
		return fmt.Errorf("metrics address: %w", err)
	}
	return nil
}

// invited refuses what a browser asks on behalf of a page from elsewhere. The page
// may have a name that leads here (DNS rebinding), and then it is no stranger to the
// browser: so names have to be known. An address can't be made to lead elsewhere.
func invited(req *http.Request, hosts []string) error {
	if site := req.Header.Get("Sec-Fetch-Site"); req.Header.Get("Origin") != "" || site != "" && site != "none" && site != "same-origin" {
		return Refuse(CodeNotPermitted, "pages from elsewhere may not read this", "")
	}
	host := req.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	known := func(name string) bool { return strings.EqualFold(name, host) }
	if _, err := netip.ParseAddr(host); err == nil || host == "" || known("localhost") || slices.ContainsFunc(hosts, known) {
		return nil
	}
	return Refuse(CodeNotPermitted, fmt.Sprintf("%.100q is no name of this director", host), "ask by address, or list the name in the configuration under metrics: hosts")
}

// Metrics implements Director.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	return c.call(ctx, http.MethodGet, "/metrics", nil, w)
}

// Alive implements Director.
func (c *Client) Alive(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/healthz", nil, nil)
}

// Ready implements Director.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/readyz", nil, nil)
}
