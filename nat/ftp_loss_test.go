// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Two TCPs talk FTP through a Forwarder over links that lose, double, reorder and keep
// back segments. They do as kernels do: what was written goes in the same segments when
// it comes again, or in others that join or split them; what was acknowledged
// selectively does not come again; a small write waits for an acknowledgement (Nagle);
// acknowledgements wait, too. When the links have become good, every quiet moment and
// the timers that end it have to bring the talk on, until both ends have read all, and
// closed; and each has to read what an ideal helper would have it read.

// lossyTalk is what both say: commands, as many at once as depth, and replies, in
// pieces.
func lossyTalk(r *rand.Rand, client string) (commands, replies []lossyWrite) {
	pieces := func(list []lossyWrite, lines int, text string) []lossyWrite {
		for text != "" {
			n := len(text)
			if r.IntN(3) == 0 {
				n = 1 + r.IntN(n)
			}
			list = append(list, lossyWrite{lines, text[:n]})
			text = text[n:]
		}
		return list
	}
	replies = pieces(nil, 0, "220-welcome\r\n220 ready\r\n")
	read := []int{2} // lines of the server by the end of each reply
	depth := 1 + r.IntN(12)
	asked := 4 + r.IntN(16)
	for i := range asked {
		port := 1024 + r.IntN(60000)
		command, reply := "NOOP\r\n", "200 ok\r\n"
		switch r.IntN(9) {
		case 0, 1, 2:
			command, reply = "PASV\r\n", fmt.Sprintf("227 Entering Passive Mode (10,0,0,2,%d,%d).\r\n", port>>8, port&255)
		case 3:
			command, reply = "EPSV\r\n", fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)\r\n", port)
		case 4:
			command, reply = "EPSV 1\r\n", fmt.Sprintf("229 here (|1|10.0.0.2|%d|)\n", port)
		case 5:
			command = fmt.Sprintf("PORT %s,%d,%d\r\n", strings.ReplaceAll(client, ".", ","), port>>8, port&255)
		case 6:
			command = fmt.Sprintf("EPRT |1|%s|%d|\r\n", client, port)
		case 7:
			command, reply = "STAT\r\n", fmt.Sprintf("213-%s\r\n 227 (10,0,0,2,%d,1)\r\n213 end\r\n", strings.Repeat("x", r.IntN(700)), port>>8)
		}
		if i == asked-1 {
			command, reply = "QUIT\r\n", "221 bye\r\n"
		}
		commands = pieces(commands, read[max(0, i-depth+1)], command)
		replies = pieces(replies, i+1, reply)
		read = append(read, read[len(read)-1]+strings.Count(reply, "\n"))
	}
	return commands, replies
}

func all(list []lossyWrite) (text []byte) {
	for _, w := range list {
		text = append(text, w.text...)
	}
	return text
}

func TestFTPLoss(t *testing.T) {
	seeds := uint64(120)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		client := "192.168.88.21"
		if seed%3 == 2 {
			client = "10.0.0.7" // hairpin: what it says is edited too
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			runFTPLoss(t, rand.New(rand.NewPCG(seed, 2121)), client)
		})
	}
}

func runFTPLoss(t *testing.T, r *rand.Rand, client string) {
	s := newFTPSession(t, "ftp", client+":30110")
	defer s.f.Close()
	var up, down [2][]lossySegment // to the Forwarder, and from it; 0: of the client
	mtu := 200 + r.IntN(1300)
	s.step("mtu", fmt.Sprintf("0 %d", mtu))
	s.step("mtu", fmt.Sprintf("1 %d", mtu))
	end := func(i int, name, addr, peer string) *lossyEnd {
		return &lossyEnd{
			name: name, addr: addr, peer: peer, r: r, out: &up[i], isn: r.Uint32(), mss: min(40+r.IntN(1400), mtu-60),
			nagle: r.IntN(2) == 0, cwnd: 10, room: 64 + r.IntN(2000), finAt: -1, beyond: map[int]byte{},
		}
	}
	c := end(0, "client", client+":30111", "192.168.88.23:21")
	d := end(1, "server", ftpRecordedServer, strings.Replace(s.seen, ":30110", ":30111", 1))
	c.writes, d.writes = lossyTalk(r, client)
	d.ideal, c.ideal = all(c.writes), all(d.writes)
	if client[:3] == "10." {
		d.ideal = modelPort.ReplaceAll(d.ideal, []byte("${1}192,168,88,23${2}"))
		d.ideal = modelEPRT.ReplaceAll(d.ideal, []byte("${1}192.168.88.23${2}"))
	}
	c.ideal = modelReply.ReplaceAll(c.ideal, []byte("${1}192,168,88,23${2}"))
	c.ideal = modelEPSV.ReplaceAll(c.ideal, []byte("${1}||${2}"))
	ends := [2]*lossyEnd{c, d}

	// forward takes the segment of end i through the Forwarder.
	forward := func(i int, seg *lossySegment) {
		if seg.flags == "S" && d.closed {
			return // in TIME_WAIT it would begin a new connection
		}
		e := ends[i]
		text := fmt.Sprintf("tcp %s > %s %s seq=%d ack=%d win=%d sum=%s", e.addr, e.peer, seg.flags, seg.seq, seg.ack, seg.win, []string{"ok", "partial"}[r.IntN(2)])
		if r.IntN(2) == 0 {
			text += " df"
		}
		for k, b := range seg.sack {
			text += fmt.Sprintf("%s%d-%d", []string{" sack=", ","}[min(k, 1)], b[0], b[1])
		}
		if len(seg.data) > 0 {
			text += fmt.Sprintf(" %q", seg.data)
		}
		out := s.passes(text)
		if testing.Verbose() {
			t.Logf("%s\n   -> %s", text, out)
		}
		if out == "" {
			return
		}
		head, f, _ := splitFields(out)
		if f["sum"] == "bad" || f["ipsum"] == "bad" || len(s.left.Data) > mtu {
			t.Fatalf("%s\nleaves as %s", text, out)
		}
		left := lossySegment{seq: uint32(f.num("seq", 0)), ack: uint32(f.num("ack", 0)), win: f.num("win", 0), flags: head[4], data: bytes.Clone(s.payload())}
		for _, b := range strings.Split(f["sack"], ",") {
			var from, to uint32
			if _, err := fmt.Sscanf(b, "%d-%d", &from, &to); err == nil {
				left.sack = append(left.sack, [2]uint32{from, to})
			}
		}
		down[1-i] = append(down[1-i], left)
	}
	deliver := func(link, k int, keep bool) {
		list := [4]*[]lossySegment{&up[0], &up[1], &down[0], &down[1]}[link]
		if len(*list) == 0 {
			return
		}
		seg := (*list)[k%len(*list)]
		if !keep {
			*list = slices.Delete(*list, k%len(*list), k%len(*list)+1)
		}
		if link < 2 {
			forward(link, &seg)
		} else {
			ends[link-2].take(t, &seg)
		}
	}

	c.emit("S", c.isn, nil)
	var late [4][]lossySegment
	for range 100 + r.IntN(1500) { // the links are bad
		link := r.IntN(4)
		list := [4]*[]lossySegment{&up[0], &up[1], &down[0], &down[1]}[link]
		switch n := r.IntN(40); {
		case n < 3 && len(*list) > 0: // lost
			*list = slices.Delete(*list, 0, 1)
		case n < 5 && len(*list) > 0:
			late[link] = append(late[link], (*list)[0])
		case n < 6 && len(late[link]) > 0:
			*list = append(*list, late[link][r.IntN(len(late[link]))])
		case n < 8:
			deliver(link, 0, true) // twice
		case n < 12:
			deliver(link, r.IntN(8), false) // out of order
		case n == 12:
			ends[link&1].timeout(link&1 == 0)
		case n == 13:
			ends[link&1].probe()
		case n == 14:
			if e := ends[link&1]; e.mss > 80 {
				e.mss -= r.IntN(e.mss / 2) // the path has become narrower
			}
		default:
			deliver(link, 0, false)
		}
		c.run()
		d.run()
	}
	for still := 0; !c.done() || !d.done(); {
		before := [...]int{c.una, d.una, len(c.received), len(d.received), c.lines, d.lines}
		for moved := true; moved; {
			moved = false
			for link := range 4 {
				for list := [4]*[]lossySegment{&up[0], &up[1], &down[0], &down[1]}[link]; len(*list) > 0; moved = true {
					deliver(link, 0, false)
				}
			}
			c.run()
			d.run()
			moved = moved || len(up[0])+len(up[1]) > 0
		}
		for i, e := range ends {
			if e.delayed {
				e.emit("A", e.isn+1+uint32(e.nxt), nil)
			}
			e.timeout(i == 0)
		}
		if after := [...]int{c.una, d.una, len(c.received), len(d.received), c.lines, d.lines}; after != before {
			still = 0
			continue
		}
		if still++; still > 4 {
			t.Fatalf("nothing moves any more: %s\nclient %+v\nserver %+v", s.helperDrops(), c, d)
		}
	}
	if !bytes.Equal(c.received, c.ideal) || !bytes.Equal(d.received, d.ideal) {
		t.Fatalf("client %q\nserver %q", c.received, d.received)
	}
}

func (s *ftpSession) helperDrops() string {
	d := s.f.Stats().Drops
	return fmt.Sprintf("helper %d, helper-wait %d", d[ReasonHelper], d[ReasonHelperWait])
}
