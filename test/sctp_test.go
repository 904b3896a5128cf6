// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/sctp"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// sctpServerPort is another one than the service's, so that ports change.
const sctpServerPort = 2905

// sctpSite has a service for SCTP on three servers.
func sctpSite(c *lab.Cluster, io string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - sctp: %q\n    scheduler: rr\n    no-server: reset\n    on-server-down: reset\n    servers:\n",
		netip.AddrPortFrom(c.Config.VIP(), pionPort))
	for _, n := range c.Servers {
		fmt.Fprintf(&b, "      - %q\n", at(n, sctpServerPort))
	}
	return strings.Replace(c.Config.DirectorConfig("rr", io), "snat:\n", b.String()+"snat:\n", 1)
}

func TestSCTP(t *testing.T) {
	t.Parallel()
	if table, err := os.ReadFile("/proc/net/protocols"); err == nil && strings.Contains(string(table), "\nSCTP ") {
		t.Skip("this kernel has SCTP: it would answer beside the raw sockets of this test")
	}
	eachFamily(t, lab.Config{}, sctpSite, func(t *testing.T, c *cluster) {
		c.run("associations in turn", sctpInTurn)
		c.run("from inside", sctpFromInside)
		c.run("server deleted", sctpServerDeleted)
		c.run("no server", sctpNoServer)
	})
}

// sctpInTurn opens associations one after the other from one port: each is
// scheduled anew, and megabytes come back through it.
func sctpInTurn(t *testing.T, c *cluster) {
	var echoes []*sctpEcho
	for _, n := range c.Servers {
		echoes = append(echoes, c.serveSCTPEcho(n))
	}
	client := c.listenSCTP(c.Client, nil)
	var servers []netip.Addr
	for i := range 4 {
		a, err := client.associate(c.ctx, c.virtual(pionPort))
		c.must(err)
		c.exchangeSCTP(a, 2<<20)
		e := c.sctpConn("ESTABLISHED")
		servers = append(servers, e.Server.Addr())
		if e.Virtual != c.virtual(pionPort) || e.Server.Port() != sctpServerPort || e.Kind != "nat" {
			t.Errorf("entry %+v", e)
		}
		if active, inactive := c.sctpCounts(); active != 1 || inactive != 0 {
			t.Errorf("association %d: %d active, %d inactive", i, active, inactive)
		}
		if i%2 == 0 {
			c.must(a.Shutdown(c.ctx))
		} else {
			a.Abort("enough")
		}
		if left := c.sctpConn("CLOSED").Expires.Std(); left > 61*time.Second {
			t.Errorf("what is closed is kept for %v", left)
		}
		if active, inactive := c.sctpCounts(); active != 0 || inactive != 1 {
			t.Errorf("association %d, closed: %d active, %d inactive", i, active, inactive)
		}
		if listing := c.ipvsadm("-Lnc"); !strings.Contains(listing, "SCTP 0") || !strings.Contains(listing, "CLOSED") {
			t.Errorf("listing:\n%s", listing)
		}
	}
	third, second, first := c.Servers[2].Addr, c.Servers[1].Addr, c.Servers[0].Addr
	if want := []netip.Addr{third, second, first, third}; !slices.Equal(servers, want) {
		t.Errorf("servers %v, want %v", servers, want)
	}
	for i, want := range []int64{1, 1, 2} {
		if n := echoes[i].accepted.Load(); n != want {
			t.Errorf("server %d accepted %d associations, want %d", i, n, want)
		}
	}
}

// sctpFromInside has a server be the client of a host outside. The port that it
// chose is that of a service.
func sctpFromInside(t *testing.T, c *cluster) {
	outside := c.serveSCTPEcho(c.Client)
	inside := c.listenSCTP(c.Servers[0], nil)
	a, err := inside.associate(c.ctx, netip.AddrPortFrom(c.Client.Addr, pionPort))
	c.must(err)
	c.exchangeSCTP(a, 1<<20)
	e := c.sctpConn("ESTABLISHED")
	if e.Kind != "snat" || e.Virtual.Port() == pionPort || e.Server != at(c.Servers[0], pionPort) {
		t.Errorf("entry %+v", e)
	}
	c.must(a.Shutdown(c.ctx))
	c.sctpConn("CLOSED")
	if n := outside.accepted.Load(); n != 1 {
		t.Errorf("%d associations", n)
	}
}

// sctpServerDeleted: both ends hear that it is over, and believe it.
func sctpServerDeleted(t *testing.T, c *cluster) {
	echoes := map[netip.Addr]*sctpEcho{}
	for _, n := range c.Servers {
		echoes[n.Addr] = c.serveSCTPEcho(n)
	}
	client := c.listenSCTP(c.Client, nil)
	a, err := client.associate(c.ctx, c.virtual(pionPort))
	c.must(err)
	stream := c.exchangeSCTP(a, 1000)
	server := c.sctpConn("ESTABLISHED").Server
	c.vsnat("server", "del", "sctp", c.virtual(pionPort).String(), server.String())
	if _, err := stream.Read(make([]byte, 10)); err == nil {
		t.Error("the client reads on")
	}
	select {
	case err := <-echoes[server.Addr()].ended:
		t.Logf("at the server: %v", err)
	case <-c.ctx.Done():
		t.Error("the server does not hear of it")
	}
	c.vsnat("server", "add", "sctp", c.virtual(pionPort).String(), server.String())
}

// sctpNoServer: an INIT is answered with an ABORT, and the client fails at once.
func sctpNoServer(t *testing.T, c *cluster) {
	for _, n := range c.Servers {
		c.vsnat("server", "edit", "sctp", c.virtual(pionPort).String(), at(n, sctpServerPort).String(), "--weight", "0")
	}
	client := c.listenSCTP(c.Client, nil)
	if _, err := client.associate(c.ctx, c.virtual(pionPort)); !errors.Is(err, sctp.ErrAssociationClosedBeforeConn) {
		t.Errorf("an association without a server: %v", err)
	}
	if answers := client.aborts.Load(); answers != 1 {
		t.Errorf("%d ABORTs", answers)
	}
	for _, n := range c.Servers {
		c.vsnat("server", "edit", "sctp", c.virtual(pionPort).String(), at(n, sctpServerPort).String(), "--weight", "1")
	}
}

// exchangeSCTP sends bytes on a stream and compares what comes back.
func (c *cluster) exchangeSCTP(a *sctp.Association, bytesToSend int) *sctp.Stream {
	c.t.Helper()
	stream, err := a.OpenStream(1, sctp.PayloadTypeWebRTCBinary)
	c.must(err)
	random := rand.New(rand.NewPCG(uint64(bytesToSend), 1))
	sent := make([]byte, bytesToSend)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	failed := make(chan error, 1)
	go func() {
		for at := 0; at < len(sent); at += 16 << 10 {
			if _, err := stream.Write(sent[at:min(at+16<<10, len(sent))]); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	var got []byte
	buffer := make([]byte, 70_000)
	for len(got) < len(sent) {
		n, err := stream.Read(buffer)
		if err != nil {
			c.t.Fatalf("after %d of %d bytes: %v", len(got), len(sent), err)
		}
		got = append(got, buffer[:n]...)
	}
	c.must(<-failed)
	if !bytes.Equal(got, sent) {
		c.t.Fatal("what comes back is not what was sent")
	}
	return stream
}

// sctpConn waits until the SCTP entry that was used last is in a state, and returns it.
func (c *cluster) sctpConn(state string) (found control.Conn) {
	c.t.Helper()
	c.eventually("an association in "+state, func() bool {
		list := c.conns(control.ConnQuery{Proto: control.SCTP, State: state})
		for _, e := range list {
			if e.Expires > found.Expires {
				found = e
			}
		}
		return len(list) > 0
	})
	return found
}

// sctpCounts are the server's counts of connections, of all servers together.
func (c *cluster) sctpCounts() (active, inactive int) {
	c.t.Helper()
	services, err := c.control.Services(c.ctx)
	c.must(err)
	for _, s := range services {
		for _, v := range s.Servers {
			if s.Proto == control.SCTP {
				active, inactive = active+v.Active, inactive+v.Inactive
			}
		}
	}
	return active, inactive
}
