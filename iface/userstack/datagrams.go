// SPDX-License-Identifier: Apache-2.0

package userstack

import (
	"os"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// datagrams is a connection of UDP or ICMP whose reader hears of ICMP errors, as it
// would with the kernel: gonet's waits for data alone.
type datagrams struct {
	*gonet.UDPConn
	end      tcpip.Endpoint
	queue    *waiter.Queue
	deadline atomic.Pointer[time.Time]
}

// SetDeadline is for reading and writing.
func (d *datagrams) SetDeadline(t time.Time) error {
	d.deadline.Store(&t)
	return d.UDPConn.SetDeadline(t)
}

// Read reads one datagram, or the error that came instead of it.
func (d *datagrams) Read(b []byte) (int, error) {
	var timeout <-chan time.Time
	if end := d.deadline.Load(); end != nil && !end.IsZero() {
		timer := time.NewTimer(time.Until(*end))
		defer timer.Stop()
		timeout = timer.C
	}
	entry, something := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	d.queue.EventRegister(&entry)
	defer d.queue.EventUnregister(&entry)
	for {
		w := tcpip.SliceWriter(b)
		got, err := d.end.Read(&w, tcpip.ReadOptions{})
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			if err != nil {
				return 0, failure(err)
			}
			return got.Count, nil
		}
		select {
		case <-something:
		case <-timeout:
			return 0, os.ErrDeadlineExceeded
		}
	}
}
