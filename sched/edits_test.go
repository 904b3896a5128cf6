// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// An edited pool is one whose servers come, go, change and work while it
// schedules; each byte of a program is one such thing.
type editedPool struct {
	*Pool
	servers [8]*Server
	conns   []editedConn
	request Request
}

type editedConn struct {
	on     *Server
	active bool
}

func newEditedPool(scheduler Scheduler) *editedPool {
	e := &editedPool{Pool: NewPoolWith(scheduler)}
	for i := range e.servers {
		e.servers[i] = testServer(byte(i), 0)
	}
	return e
}

// step does what an operation and its operand say, but for scheduling.
func (e *editedPool) step(op, operand byte) {
	s := e.servers[operand%8]
	switch op % 8 {
	case 0:
		if !slices.Contains(e.Servers(), s) {
			s.SetWeight(int(operand / 8))
			e.Add(s)
		}
	case 1:
		e.Remove(s)
	case 2:
		e.SetWeight(s, int(operand/8)*int(operand/64))
	case 3:
		s.SetThresholds(int(operand/32), 0)
	case 4:
		e.SetOptions(Options{Flags: Flags(operand)})
	case 5:
		if len(e.conns) > 0 {
			i := int(operand) % len(e.conns)
			c := &e.conns[i]
			if c.active {
				c.on.ConnDeactivated()
				c.active = false
				return
			}
			c.on.ConnClosedInactive()
			e.conns = slices.Delete(e.conns, i, i+1)
		}
	default:
		e.request = *clientRequest(uint32(operand) * 31)
		e.request.Virtual = destinationRequest(uint32(operand%32), 0).Virtual
		e.request.Now += int64(time.Minute) * int64(operand)
	}
}

func (e *editedPool) open(s *Server) {
	s.ConnOpened()
	s.ConnActivated()
	e.conns = append(e.conns, editedConn{s, true})
}

// Whatever is done to a pool, its scheduler does not fail, chooses only what is in
// the list and may be chosen, and refuses only if it must.
func FuzzEdits(f *testing.F) {
	f.Add([]byte("\x00\x28\x00\x29\x00\x2a\x06\x01\x06\x02\x01\x09\x06\x03"))         // one is removed
	f.Add([]byte("\x00\x28\x00\x29\x02\x00\x06\x01\x02\x01\x06\x02\x02\xf8"))         // all are quiesced, one comes back
	f.Add([]byte("\x00\x28\x03\x20\x06\x01\x05\x00\x05\x00\x06\x01"))                 // over the threshold and below again
	f.Add([]byte("\x04\x03\x00\x08\x00\x01\x00\x0a\x06\x07\x01\x00\x00\x08\x06\x07")) // with fallback, removed and back
	f.Fuzz(func(t *testing.T, program []byte) {
		for _, name := range Names() {
			scheduler, err := New(name)
			if err != nil {
				t.Fatal(err)
			}
			e := newEditedPool(scheduler)
			for i := 0; i+1 < len(program) && i < 2000; i += 2 {
				e.step(program[i], program[i+1])
				s := e.Schedule(&e.request)
				servers := e.Servers()
				switch {
				case s != nil && !slices.Contains(servers, s):
					t.Fatalf("%s chose %v, which is not in the list", name, s.Addr)
				case s != nil && (s.Weight() == 0 || s.Overloaded() && name != "lblc"):
					t.Fatalf("%s chose %v, which may not be chosen: %s", name, s.Addr, whyNot(s))
				case s == nil && !refuses[name] && name != "ovf" && slices.ContainsFunc(servers, (*Server).Eligible):
					t.Fatalf("%s refused, though somebody may be chosen", name)
				case s == nil && name == "ovf" && slices.ContainsFunc(servers, hasRoom):
					t.Fatal("ovf refused, though somebody has room")
				}
				if s != nil {
					e.open(s)
				}
			}
		}
	})
}

// The explanation is of the choice that would have been made without it, and
// leaves the scheduler where the choice would have left it.
func TestExplainIsPick(t *testing.T) {
	for _, name := range Names() {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 3))
			picking, explaining := newEditedPool(sameChance(t, name)), newEditedPool(sameChance(t, name))
			for step := range 300 {
				op, operand := byte(random.Uint32()), byte(random.Uint32())
				picking.step(op, operand)
				explaining.step(op, operand)
				want := picking.Schedule(&picking.request)
				got, why := explaining.Explain(&explaining.request, nil)
				if (got == nil) != (want == nil) || got != nil && got.Addr != want.Addr {
					t.Fatalf("%s, seed %d, step %d: explained %v, picked %v", name, seed, step, got, want)
				}
				if why == "" || got != nil && !strings.Contains(why, got.Addr.String()) {
					t.Fatalf("%s: %q does not name %v", name, why, got)
				}
				if got != nil && random.IntN(3) > 0 {
					picking.open(want)
					explaining.open(got)
				}
			}
		}
	}
}

// sameChance is a scheduler that does the same each time.
func sameChance(t *testing.T, name string) Scheduler {
	t.Helper()
	if name == "twos" {
		return NewPowerOfTwo(rand.NewPCG(4, 5))
	}
	s, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A scheduler that explains nothing chooses all the same.
func TestExplainNothing(t *testing.T) {
	p := NewPoolWith(&steppingBar{bar: beforeHead})
	s := testServer(2, 1)
	p.Add(s)
	if got, why := p.Explain(&Request{}, nil); got != s || why == "" {
		t.Errorf("chose %v, said %q", got, why)
	}
}
