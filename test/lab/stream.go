// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"
)

// A Digest tells whether two streams of bytes are the same.
type Digest struct {
	Bytes  int64
	SHA256 [sha256.Size]byte
}

// String is the form in which the sink service sends a digest.
func (d Digest) String() string { return fmt.Sprintf("%d %x", d.Bytes, d.SHA256) }

// ReadDigest reads to the end of r.
func ReadDigest(r io.Reader) (Digest, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return Digest{n, [sha256.Size]byte(h.Sum(nil))}, err
}

// Stream returns size bytes that do not compress and are the same each time.
func Stream(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{'v', 's', 'n', 'a', 't'}), size)
}

// StreamDigest is the digest of Stream(size).
func StreamDigest(size int64) Digest {
	d, err := ReadDigest(Stream(size))
	if err != nil {
		panic(err) // neither the generator nor the hash has errors
	}
	return d
}

// Upload sends Stream(size) to a sink at addr and compares its digest with what
// was sent. The sink answers after the half-close, so this tests that as well.
func (n *Node) Upload(ctx context.Context, addr netip.AddrPort, size int64) error {
	c, err := n.transfer(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.Copy(c, Stream(size)); err != nil {
		return fmt.Errorf("upload to %v: %w", addr, err)
	}
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("upload to %v: %w", addr, err)
	}
	answer, err := io.ReadAll(io.LimitReader(c, 256))
	if err != nil {
		return fmt.Errorf("upload to %v: answer: %w", addr, err)
	}
	if got, want := strings.TrimSpace(string(answer)), StreamDigest(size).String(); got != want {
		return fmt.Errorf("upload to %v: the server has %q, sent was %q", addr, got, want)
	}
	return nil
}

// Download asks a source at addr for size bytes and compares what came.
func (n *Node) Download(ctx context.Context, addr netip.AddrPort, size int64) error {
	c, err := n.transfer(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, size); err != nil {
		return fmt.Errorf("download from %v: %w", addr, err)
	}
	got, err := ReadDigest(c)
	if err != nil {
		return fmt.Errorf("download from %v: after %d of %d bytes: %w", addr, got.Bytes, size, err)
	}
	if want := StreamDigest(size); got != want {
		return fmt.Errorf("download from %v: got %v, want %v", addr, got, want)
	}
	return nil
}

// transfer opens a connection that ends with ctx, and after a minute at most.
func (n *Node) transfer(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	c, err := n.Dial(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(time.Minute)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	c.SetDeadline(end)
	return c.(*net.TCPConn), nil
}
