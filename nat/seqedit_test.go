// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// A stream, and beside it what each byte of it becomes, as plain text: the edits make
// the same of it, however it is cut into segments, and numbers translate both ways.
// Some of the edits are open for a while. The numbers wrap under way.
func TestSeqEdits(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		first := uint32(0) - uint32(r.IntN(400))
		sent := make([]byte, 2000)
		for i := range sent {
			sent[i] = byte('a' + r.IntN(26))
		}
		var edits seqEdits
		becomes := make([]string, len(sent))
		for i := range sent {
			becomes[i] = string(sent[i : i+1])
		}
		read, acked, floor := 0, 0, 0
		check := func() {
			places := make([]int, read+1) // of each byte, at the receiver
			for i := range read {
				places[i+1] = places[i] + len(becomes[i])
			}
			for range 30 {
				a := r.IntN(read)
				b := a + 1 + r.IntN(read-a)
				want := strings.Join(becomes[min(max(a, floor), b):b], "")
				any, length, room := edits.touches(first+uint32(a), b-a)
				data := append(bytes.Clone(sent[a:b]), make([]byte, room)...)
				n := edits.apply(data, b-a, first+uint32(a))
				if string(data[:n]) != want || n != length || !any && want != string(sent[a:b]) {
					t.Fatalf("seed %d: %d to %d: %q, said to be %d, want %q", seed, a, b, data[:n], length, want)
				}
				if n := edits.toReceiver(first + uint32(a)); n != first+uint32(places[max(a, floor)]) {
					t.Fatalf("seed %d: %d is %d for the receiver, want %d", seed, a, n-first, places[max(a, floor)])
				}
				most := r.IntN(200)
				fits := edits.fit(first+uint32(a), b-a, most)
				if _, length, _ = edits.touches(first+uint32(a), fits); length > most || fits > b-a {
					t.Fatalf("seed %d: %d to %d: %d of it are %d bytes, not %d", seed, a, b, fits, length, most)
				}
				if n := r.IntN(places[read] + 1); true {
					want := floor
					for want < read && places[want+1] <= n {
						want++
					}
					if got := edits.toSender(first + uint32(n)); got != first+uint32(want) {
						t.Fatalf("seed %d: %d is %d for the sender, want %d", seed, n, got-first, want)
					}
				}
			}
		}
		for read < len(sent)-250 {
			at := read + r.IntN(150)
			old := 1 + r.IntN(40)
			text := strings.Repeat(string(rune('0'+r.IntN(10))), 1+r.IntN(maxEditText))
			forgets := edits.n == maxEdits
			end := int(edits.list[0].end() - first)
			if !edits.spare(first + uint32(acked)) {
				t.Fatal("not forgotten, though acknowledged")
			}
			if forgets {
				floor = end
			}
			if r.IntN(2) == 0 {
				edits.add(first+uint32(at), old, []byte(text))
			} else {
				for read = at; old > 1 && read < at+old-1; {
					n := 1 + r.IntN(at+old-1-read)
					edits.swallow(first+uint32(at), n)
					for i := range n {
						becomes[read+i] = ""
					}
					read += n
					check()
				}
				if edits.swallowed() == 0 {
					edits.swallow(first+uint32(at), 0)
				}
				cut := r.IntN(len(text))
				edits.settle(old, []byte(text[:cut]), []byte(text[cut:]))
			}
			read = at + old
			for i := at; i < read; i++ {
				becomes[i] = ""
			}
			becomes[read-1] = text
			check()
			acked = read
		}
	}
}

// What may have to be edited again is not forgotten, however much follows.
func TestSeqEditsForget(t *testing.T) {
	var edits seqEdits
	edits.add(1000, 4, []byte("123456789"))
	for i := range uint32(maxEdits) {
		ok := edits.spare(1003)
		if ok != (i < maxEdits-1) {
			t.Errorf("edit %d: %t", i+2, ok)
		}
		if ok {
			edits.add(2000+10*i, 1, []byte("x"))
		}
	}
	if !edits.spare(1004) || edits.toReceiver(5000) != 5005 {
		t.Error("not forgotten, though acknowledged")
	}
	// Numbers are compared modulo 2^32: what is far behind must not come to lie ahead.
	for acked := uint32(5000); acked != 4000; acked += 1 << 28 {
		if edits.come(acked); edits.toReceiver(acked+1000) != acked+1005 || edits.toSender(acked+1005) != acked+1000 {
			t.Fatalf("%d: %d", acked, edits.toReceiver(acked+1000))
		}
		if acked > 1<<31 && edits.n != 0 {
			t.Fatalf("%d edits", edits.n)
		}
		if acked+1<<28 < acked {
			break
		}
	}
}
