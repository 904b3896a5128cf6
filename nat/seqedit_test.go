// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A stream, and beside it what its receiver gets, as plain bytes: the edits of the
// one make the other, however it is cut into segments, and numbers translate both
// ways. The numbers wrap under way.
func TestSeqEdits(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		first := uint32(0) - uint32(r.IntN(400))
		sent := make([]byte, 2000)
		for i := range sent {
			sent[i] = byte('a' + r.IntN(26))
		}
		var edits seqEdits
		var got []byte
		type edge struct{ sender, receiver int }
		var edges []edge // where the two countings meet
		read, acked := 0, 0
		for read < len(sent)-200 {
			skip := 1 + r.IntN(150)
			old := 1 + r.IntN(40)
			got = append(got, sent[read:read+skip]...)
			edges = append(edges, edge{read, len(got) - skip}, edge{read + skip, len(got)})
			at := read + skip
			text := bytes.Repeat([]byte{byte('0' + r.IntN(10))}, 1+r.IntN(ftpMaxText))
			if !edits.add(first+uint32(at), old, text, first+uint32(acked)) {
				t.Fatal("not forgotten, though acknowledged")
			}
			got = append(got, text...)
			read = at + old
			edges = append(edges, edge{read, len(got)})

			// What may be sent again: from the oldest edit that is known.
			from := int(edits.list[0].at - first)
			for range 20 {
				a := from + r.IntN(read-from)
				b := a + 1 + r.IntN(read-a)
				segment := func(n int) []byte { return append(bytes.Clone(sent[a:b]), make([]byte, n)...) }
				room, whole, any := edits.touches(first+uint32(a), first+uint32(b))
				cut := false
				for _, e := range edits.list[:edits.n] {
					begin, end := int(e.at-first), int(e.end()-first)
					cut = cut || a > begin && a < end || b > begin && b < end
				}
				if whole == cut {
					t.Fatalf("seed %d: %d to %d: whole %t", seed, a, b, whole)
				}
				if !whole {
					continue
				}
				out := int(edits.toReceiver(first+uint32(a)) - first)
				data := segment(room)
				n := edits.apply(data, b-a, first+uint32(a))
				if !bytes.Equal(data[:n], got[out:out+n]) || !any && !bytes.Equal(data[:n], sent[a:b]) {
					t.Fatalf("seed %d: %d to %d: %q", seed, a, b, data[:n])
				}
				if back := int(edits.toReceiver(first+uint32(b)) - first); back != out+n {
					t.Fatalf("seed %d: the end is %d, not %d", seed, back, out+n)
				}
			}
			for _, e := range edges {
				if e.sender < from {
					continue
				}
				if n := edits.toReceiver(first + uint32(e.sender)); n != first+uint32(e.receiver) {
					t.Fatalf("seed %d: %d is %d for the receiver, want %d", seed, e.sender, n-first, e.receiver)
				}
				if n := edits.toSender(first + uint32(e.receiver)); n != first+uint32(e.sender) {
					t.Fatalf("seed %d: %d is %d for the sender, want %d", seed, e.receiver, n-first, e.sender)
				}
			}
			acked = read
		}
	}
}

// An acknowledgement of a part of what was put in acknowledges nothing of what it
// stands for; nor is an edit forgotten that may have to be made again.
func TestSeqEditsInPart(t *testing.T) {
	var edits seqEdits
	edits.add(1000, 4, []byte("123456789"), 1000)
	for _, row := range []struct{ receiver, sender uint32 }{{999, 999}, {1000, 1000}, {1001, 1000}, {1008, 1000}, {1009, 1004}, {1010, 1005}} {
		if n := edits.toSender(row.receiver); n != row.sender {
			t.Errorf("%d is %d for the sender, want %d", row.receiver, n, row.sender)
		}
	}
	if n := edits.toReceiver(1002); n != 1000 {
		t.Errorf("1002 is %d for the receiver, want 1000", n)
	}
	for i := range uint32(maxEdits) {
		if ok := edits.add(2000+10*i, 1, []byte("x"), 1003); ok != (i < maxEdits-1) {
			t.Errorf("edit %d: %t", i+2, ok)
		}
	}
	if !edits.add(3000, 1, []byte("x"), 1004) || edits.toReceiver(5000) != 5005 {
		t.Error("not forgotten, though acknowledged")
	}
}
