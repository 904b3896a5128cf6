// SPDX-License-Identifier: Apache-2.0

package sched_test

import (
	"fmt"
	"net/netip"

	"github.com/vsnat/vsnat/sched"
)

// lightest chooses the server with the fewest connections of any kind.
type lightest struct{}

func (lightest) Name() string { return "lightest" }

func (lightest) Pick(servers []*sched.Server, _ *sched.Request) *sched.Server {
	var best *sched.Server
	for _, s := range servers {
		if s.Eligible() && (best == nil || s.Active()+s.Inactive() < best.Active()+best.Inactive()) {
			best = s
		}
	}
	return best
}

// A scheduler of one's own is two methods.
func ExampleScheduler() {
	pool := sched.NewPoolWith(lightest{})
	for _, addr := range []string{"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"} {
		pool.Add(sched.NewServer(netip.MustParseAddrPort(addr), 1))
	}
	pool.Servers()[0].ConnOpened() // somebody is on .4 already

	for range 4 {
		server := pool.Schedule(&sched.Request{})
		server.ConnOpened()
		fmt.Println(server.Addr)
	}
	// Output:
	// 10.0.0.3:80
	// 10.0.0.2:80
	// 10.0.0.4:80
	// 10.0.0.3:80
}

func ExamplePool() {
	pool, err := sched.NewPool("wrr")
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, addr := range []string{"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"} {
		pool.Add(sched.NewServer(netip.MustParseAddrPort(addr), 3-i))
	}
	for range 6 {
		fmt.Println(pool.Schedule(&sched.Request{}).Addr)
	}
	// Output:
	// 10.0.0.4:80
	// 10.0.0.3:80
	// 10.0.0.2:80
	// 10.0.0.2:80
	// 10.0.0.3:80
	// 10.0.0.2:80
}

func ExamplePool_Explain() {
	pool, err := sched.NewPool("wlc")
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, addr := range []string{"10.0.0.2:80", "10.0.0.3:80"} {
		pool.Add(sched.NewServer(netip.MustParseAddrPort(addr), 2-i))
	}
	for range 3 {
		server, why := pool.Explain(&sched.Request{}, nil)
		server.ConnOpened()
		server.ConnActivated()
		fmt.Println(why)
	}
	// Output:
	// smallest load/weight: 10.0.0.3:80 0/1; 10.0.0.2:80 0/2 is equal but stands later
	// smallest load/weight: 10.0.0.2:80 0/2; then 10.0.0.3:80 257/1
	// smallest load/weight: 10.0.0.2:80 257/2; then 10.0.0.3:80 257/1
}
