// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"
)

// newServerCommand answers all loads, in a server's node.
func newServerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "server",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			name, err := os.Hostname()
			if err != nil {
				return err
			}
			return serve(map[int]func(*net.TCPConn){
				sinkPort:     sink,
				sourcePort:   source,
				requestPort:  pages([]byte("this is " + name + "\n")),
				downloadPort: pages(make([]byte, 1<<20)),
			})
		},
	}
}

// serve returns when something fails.
func serve(services map[int]func(*net.TCPConn)) error {
	failed := make(chan error)
	for port, answer := range services {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.AcceptTCP()
				if err != nil {
					failed <- err
					return
				}
				go func() {
					defer conn.Close()
					answer(conn)
				}()
			}
		}()
	}
	// A port with a socket that nobody reads: the kernel drops what does not fit,
	// and sends no errors.
	quiet, err := net.ListenUDP("udp4", &net.UDPAddr{Port: datagramPort})
	if err != nil {
		return err
	}
	defer quiet.Close()
	if err := quiet.SetReadBuffer(1); err != nil {
		return err
	}
	return <-failed
}

// sink swallows and says how much it was.
func sink(conn *net.TCPConn) {
	chunk := make([]byte, 256<<10)
	var n int64
	for {
		k, err := conn.Read(chunk)
		n += int64(k)
		if err == io.EOF {
			fmt.Fprintln(conn, n)
		}
		if err != nil {
			return
		}
	}
}

// source sends until nobody wants more.
func source(conn *net.TCPConn) {
	chunk := make([]byte, 256<<10)
	for {
		if _, err := conn.Write(chunk); err != nil {
			return
		}
	}
}

// pages answers each request with one body.
func pages(body []byte) func(*net.TCPConn) {
	answer := append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
	return func(conn *net.TCPConn) {
		buffer := make([]byte, 4096)
		n := 0
		for {
			k, err := conn.Read(buffer[n:])
			if err != nil {
				return
			}
			n += k
			end := bytes.Index(buffer[:n], []byte("\r\n\r\n"))
			if end < 0 {
				if n == len(buffer) {
					return
				}
				continue
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
			if bytes.Contains(buffer[:end], []byte("Connection: close")) {
				return
			}
			n = copy(buffer, buffer[end+4:n])
		}
	}
}
