// SPDX-License-Identifier: Apache-2.0

package health

import (
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func httpSpec(change func(*Spec)) Spec {
	s := Spec{Type: HTTP, URLs: []string{"/"}, Method: "GET", Status: "200-299"}
	if change != nil {
		change(&s)
	}
	return s
}

func addrOf(s *httptest.Server) netip.AddrPort { return s.Listener.Addr().(*net.TCPAddr).AddrPort() }

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			fmt.Fprint(w, "hello, world")
		case "/host":
			fmt.Fprint(w, r.Method, " ", r.Host, " ", r.Header.Get("X-Ask"))
		case "/moved":
			http.Redirect(w, r, "/moved", http.StatusFound) // for ever
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	for _, tt := range []struct {
		name    string
		spec    Spec
		outcome Outcome
		text    string
	}{
		{"page", httpSpec(nil), Good, "200 OK"},
		{"wrong status", httpSpec(func(s *Spec) { s.URLs = []string{"/broken"} }), Bad, "/broken: status 500"},
		{"two pages, one wrong", httpSpec(func(s *Spec) { s.URLs = []string{"/", "/broken"} }), Bad, "/broken"},
		{"that status is wanted", httpSpec(func(s *Spec) { s.URLs, s.Status = []string{"/broken"}, "200,500-502" }), Good, "500"},
		{"redirect loop", httpSpec(func(s *Spec) { s.URLs = []string{"/moved"} }), Bad, "status 302 Found, to /moved, which is not followed"},
		{"text", httpSpec(func(s *Spec) { s.Body = "world" }), Good, "as expected"},
		{"no such text", httpSpec(func(s *Spec) { s.Body = "mars" }), Bad, "does not have"},
		{"pattern", httpSpec(func(s *Spec) { s.BodyRegexp = "^hello.*d$" }), Good, "as expected"},
		{"no such pattern", httpSpec(func(s *Spec) { s.BodyRegexp = "^world" }), Bad, "does not match"},
		{"digest", httpSpec(func(s *Spec) { s.Digest = "09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b" }), Good, "as expected"},
		{"digest of genhash", httpSpec(func(s *Spec) { s.Digest = "e4d7f1b4ed2e42d15898f4b27b019da4" }), Good, "as expected"},
		{"another digest of genhash", httpSpec(func(s *Spec) { s.Digest = strings.Repeat("00", 16) }), Bad, "digest is e4d7f1b4"},
		{"another digest", httpSpec(func(s *Spec) { s.Digest = strings.Repeat("00", 32) }), Bad, "digest is 09ca7e4e"},
		{"method, host, header", httpSpec(func(s *Spec) {
			s.URLs, s.Method, s.Host, s.Headers = []string{"/host"}, "POST", "www.example.com", []string{"X-Ask: you"}
			s.Body = "POST www.example.com you"
		}), Good, "as expected"},
		{"not HTTP/2", httpSpec(func(s *Spec) { s.HTTP2 = true }), Bad, ""},
	} {
		wantResult(t, tt.name, checkOnce(t, Target{Server: addrOf(s), Spec: tt.spec}, hostTools, patience), tt.outcome, tt.text)
	}
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	defer s.Close()
	https := func(change func(*Spec)) Spec {
		return httpSpec(func(s *Spec) { s.Type = HTTPS; change(s) })
	}
	unknown := Target{Server: addrOf(s), Spec: https(func(s *Spec) {})}
	wantResult(t, "unknown certificate", checkOnce(t, unknown, hostTools, patience), Bad, "bad certificate")
	unknown.NoVerify = true
	wantResult(t, "any certificate", checkOnce(t, unknown, hostTools, patience), Good, "200 OK")
	h2 := Target{Server: addrOf(s), Spec: https(func(s *Spec) { s.NoVerify, s.HTTP2, s.Host, s.Body = true, true, "example.com", "HTTP/2.0 example.com" })}
	wantResult(t, "HTTP/2 with a server name", checkOnce(t, h2, hostTools, patience), Good, "as expected")

	// The name in the certificate counts, not the address.
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for name, outcome := range map[string]Outcome{"example.com": Good, "example.org": Bad} {
		c, err := newHTTPCheck(Target{Server: addrOf(s), Spec: https(func(s *Spec) { s.ServerName = name })}, hostTools)
		if err != nil {
			t.Fatal(err)
		}
		c.roots = roots
		wantResult(t, name, c.Check(t.Context()), outcome, "")
	}
}

// TestHostileHTTP: whatever a server does, a check ends at its own time-out and size
// limit (FAULTS 90).
func TestHostileHTTP(t *testing.T) {
	const short = 60 * time.Millisecond
	page := "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name   string
		answer func(net.Conn)
		text   string
	}{
		{"never speaks", func(c net.Conn) { io.Copy(io.Discard, c) }, "timed out"},
		{"one byte at a time", func(c net.Conn) {
			for _, b := range []byte(page) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(short)
			}
		}, "timed out"},
		{"endless header", func(c net.Conn) {
			fmt.Fprint(c, page)
			for {
				if _, err := fmt.Fprint(c, "X-More: ", strings.Repeat("x", 1000), "\r\n"); err != nil {
					return
				}
			}
		}, "headers are longer than"},
		{"1 GiB body", func(c net.Conn) {
			fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n", page, 1<<30)
			b := make([]byte, 1<<16)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}, "longer than"},
		{"cut body", func(c net.Conn) { fmt.Fprintf(c, "%sContent-Length: 100\r\n\r\nOK", page) }, "closed the connection"},
		{"not HTTP", func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-x\r\n") }, "malformed"},
		{"TLS", func(c net.Conn) { fmt.Fprint(c, "\x15\x03\x01\x00\x02\x02\x46") }, "speaks TLS"},
		{"HTTP/2", func(c net.Conn) { fmt.Fprint(c, "\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n") }, "speaks HTTP/2"},
		{"no chunks", func(c net.Conn) { fmt.Fprintf(c, "%sTransfer-Encoding: chunked\r\n\r\nzz\r\n", page) }, "invalid byte in chunk length"},
	} {
		server := serve(t, func(c net.Conn) {
			c.Read(make([]byte, 1000)) // an answer before the question is another fault, or none
			tt.answer(c)
		})
		leaksNothing(t, func() {
			to := Target{Server: server, Spec: httpSpec(func(s *Spec) { s.Body = "OK" })}
			limit := short
			if tt.text != "timed out" {
				limit = patience
			}
			begin := time.Now()
			wantResult(t, tt.name, checkOnce(t, to, hostTools, limit), Bad, tt.text)
			if took := time.Since(begin); took > patience/2 {
				t.Errorf("%s: it took %v", tt.name, took)
			}
		})
	}
}

// A server of HTTP/2 that says farewell and does not close: we do.
func TestHTTP2Farewell(t *testing.T) {
	const settings, farewell = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	closed := make(chan bool)
	server := serve(t, func(c net.Conn) {
		fmt.Fprint(c, settings+farewell)
		io.Copy(io.Discard, c)
		close(closed)
	})
	leaksNothing(t, func() {
		to := Target{Server: server, Spec: httpSpec(func(s *Spec) { s.HTTP2 = true })}
		got := checkOnce(t, to, hostTools, 300*time.Millisecond)
		wantResult(t, "farewell", got, Bad, "GET /: ")
		select {
		case <-closed:
		case <-time.After(patience):
			t.Error("the connection stays open")
		}
	})
}

func TestHTTPSWithoutTLS(t *testing.T) {
	server := serve(t, func(c net.Conn) {
		c.Read(make([]byte, 1000))
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	to := Target{Server: server, Spec: httpSpec(func(s *Spec) { s.Type = HTTPS })}
	wantResult(t, "no TLS", checkOnce(t, to, hostTools, patience), Bad, "does not speak TLS")
}
