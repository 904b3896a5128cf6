// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestChangesUnderTraffic changes and publishes rules in one goroutine while
// two Forwarders move packets in others: no race, no loss of count, and a
// server that is gone gets no new connection once it was published.
func TestChangesUnderTraffic(t *testing.T) {
	s := world(t)
	const rounds = 300
	rule := MarkRule{Mark: 1, To: netip.MustParsePrefix("192.168.88.23/32"), MinPort: 80, MaxPort: 80}
	key := s.key("tcp", "192.168.88.23:80")
	second, err := NewForwarder(ForwarderConfig{Rules: s.rules, MaxConns: 500})
	if err != nil {
		t.Fatal(err)
	}
	forwarders := []*Forwarder{s.f, second}
	stop := make(chan struct{})
	done := make(chan error, len(forwarders))
	for n, f := range forwarders {
		now := s.now
		go func() {
			var packets [][]byte
			for i := range 64 {
				b, _ := encodePacket(fmt.Sprintf("tcp 192.168.88.%d:%d > 192.168.88.23:80 S seq=1", 30+n, 20000+i))
				packets = append(packets, b)
			}
			buffer := make([]byte, 2048)
			for round := 0; ; round++ {
				select {
				case <-stop:
					f.Begin(now.Add(time.Hour))
					for f.Sweep(1 << 20) {
					}
					done <- nil
					return
				default:
				}
				now = now.Add(time.Second)
				f.Begin(now)
				for i := range packets {
					p := Packet{Data: buffer[:copy(buffer, packets[i])]}
					if v := f.Forward(&p); v.Action != Forward && v.Reason != ReasonNoServer && v.Reason != ReasonServerGone &&
						v.Reason != ReasonNoService && v.Reason != ReasonTableFull {
						done <- fmt.Errorf("dropped: %s", v.Reason)
						return
					}
				}
				f.Outbox()
				f.Sweep(64)
			}
		}()
	}
	for i := range rounds {
		spec := ServerSpec{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i%5)}), Port: 80, Weight: 1 + i%3}
		if i%2 == 0 {
			s.must(s.rules.AddServer(key, spec))
		} else {
			spec.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + (i-1)%5)})
			s.must(s.rules.EditServer(key, spec))
			s.must(s.rules.DelServer(key, spec.Addr, spec.Port))
		}
		switch i % 10 {
		case 3:
			s.must(s.rules.EditService(ServiceSpec{ServiceKey: key, Scheduler: []string{"rr", "wlc", "lc"}[i%3]}))
		case 5:
			s.must(s.rules.AddSNAT(SNATSpec{From: netip.MustParsePrefix("10.9.0.0/16"), To: netip.MustParseAddr(fmt.Sprintf("192.168.88.%d", 100+i%50))}))
		case 1:
			s.must(s.rules.AddMark(rule)) // the same packets, to another service
		case 6:
			s.must(s.rules.DelMark(rule))
		case 8:
			s.must(s.rules.DelSNAT(netip.MustParsePrefix("10.9.0.0/16")))
		}
		if i%10 == 0 {
			s.rules.Tick() // far from as often as forgets a server: that is counted in seconds
		}
		s.rules.Services()
		if i%3 != 0 { // changes that are not published yet are seen by the scheduler alone
			s.rules.Publish()
		}
	}
	close(stop)
	for range forwarders {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	recount(t, s.rules, forwarders...)
	for _, f := range forwarders {
		if f.table.Len() != 0 || f.mapper.used != 0 {
			t.Errorf("%d entries, %d mappings are left", f.table.Len(), f.mapper.used)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
