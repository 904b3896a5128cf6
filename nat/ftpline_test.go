// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// told is what a line was read as, in one word for a table.
func (e ftpEndpoint) told(line string) string {
	text := fmt.Sprintf("%s=%d", line[e.from:e.to], e.port)
	if e.named {
		text += " " + e.addr.String()
	}
	return text
}

func TestFTPCommands(t *testing.T) {
	for _, row := range []struct{ line, want string }{
		{"PORT 192,168,88,21,23,113\r\n", "port 192,168,88,21,23,113=6001 192.168.88.21"},
		{"port 192,168,88,21,23,113\n", "port 192,168,88,21,23,113=6001 192.168.88.21"},
		{"Port  010,0,0,2,255,255 \r\n", "port 010,0,0,2,255,255=65535 10.0.0.2"},
		{"EPRT |1|132.235.1.2|6275|\r\n", "port |1|132.235.1.2|6275|=6275 132.235.1.2"},
		{"EPRT |2|1080::8:800:200C:417A|5282|\r\n", "port |2|1080::8:800:200C:417A|5282|=5282 1080::8:800:200c:417a"},
		{"EPRT $2$2001:db8::1$1$\r\n", "port $2$2001:db8::1$1$=1 2001:db8::1"},
		{"PASV\r\n", "passive"},
		{"pasv\n", "passive"},
		{"EPSV\r\n", "extended"},
		{"EPSV 1\r\n", "extended"},
		{"EPSV 2 \r\n", "extended"},

		{"EPSV ALL\r\n", ""},
		{"EPSV2\r\n", ""},
		{"PASV 1\r\n", ""},
		{"PASVX\r\n", ""},
		{" PASV\r\n", ""},
		{"PORT192,168,88,21,23,113\r\n", ""},
		{"PORT 192,168,88,21,23\r\n", ""},
		{"PORT 192,168,88,21,23,113,7\r\n", ""},
		{"PORT 192,168,88,21,23,113 x\r\n", ""},
		{"PORT 192,168,88,256,23,113\r\n", ""},
		{"PORT 192,168,88,21,23,1130\r\n", ""},
		{"PORT 192,168,,21,23,113\r\n", ""},
		{"PORT -92,168,88,21,23,113\r\n", ""},
		{"PORT 192, 168,88,21,23,113\r\n", ""},
		{"PORT (192,168,88,21,23,113)\r\n", ""},
		{"EPRT |||6275|\r\n", ""},
		{"EPRT |1|132.235.1.2|6275\r\n", ""},
		{"EPRT |1|132.235.1.2|65536|\r\n", ""},
		{"EPRT |1|132.235.1.2|062751|\r\n", ""},
		{"EPRT |1|132.235.1.2||\r\n", ""},
		{"EPRT |1|2001:db8::1|6275|\r\n", ""},
		{"EPRT |2|132.235.1.2|6275|\r\n", ""},
		{"EPRT |2|::ffff:10.0.0.2|6275|\r\n", ""},
		{"EPRT |3|x|6275|\r\n", ""},
		{"EPRT |1|10.0.0.02|6275|\r\n", ""},
		{"EPRT 111.1.1.1111\r\n", ""},
		{"USER PASV\r\n", ""},
		{"\r\n", ""},
		{"", ""},
	} {
		command, e := readFTPCommand([]byte(row.line))
		got := [...]string{"", "port", "passive", "extended"}[command]
		if command == ftpPort {
			got += " " + e.told(row.line)
		}
		if got != row.want {
			t.Errorf("%q: %q, want %q", row.line, got, row.want)
		}
	}
}

// readReplyLine looks for the endpoint in a line of a 227 or 229, or in its beginning.
func readReplyLine(line []byte) (ftpEndpoint, ftpFound) {
	if len(line) < 4 {
		return ftpEndpoint{}, ftpAbsent
	}
	e, found := seekFTPReply(line[2] == '9', line[3], line[4:])
	e.from, e.to = e.from+4, e.to+4
	return e, found
}

func TestFTPReplies(t *testing.T) {
	for _, row := range []struct{ line, want string }{
		{"227 Entering Passive Mode (10,0,0,2,19,137).\r\n", "10,0,0,2,19,137=5001 10.0.0.2"},
		{"227 Entering Passive Mode (10,0,0,2,19,137)", "10,0,0,2,19,137=5001 10.0.0.2"},
		{"227 =10,0,0,2,19,137\n", "10,0,0,2,19,137=5001 10.0.0.2"},
		{"227 10,0,0,2,19,137\r", "10,0,0,2,19,137=5001 10.0.0.2"},
		{"227 Mode 2: 10,0,0,2,19,137 ok\n", "10,0,0,2,19,137=5001 10.0.0.2"},
		{"227 1,2,10,0,0,2,19.\n", "1,2,10,0,0,2=2 1.2.10.0"},
		{"227 1.2.10,0,0,2,0,19.\n", "10,0,0,2,0,19=19 10.0.0.2"},
		{"227-10,0,0,2,0,255 and more follows\n", "10,0,0,2,0,255=255 10.0.0.2"},
		{"229 Entering Extended Passive Mode (|||6446|)\r\n", "|||6446|=6446"},
		{"229 ((!!!6446!)", "!!!6446!=6446"},
		{"229 ok (|1|10.0.0.2|6446|)\r\n", "|1|10.0.0.2|6446|=6446 10.0.0.2"},
		{"229 ok (|2|fd00:10::2|6446|)\r\n", "|2|fd00:10::2|6446|=6446 fd00:10::2"},
		{"229 (now) (|||6446|", "|||6446|=6446"},
		{"227 no\r\n", "none"},
		{"227 ", "none"},
		{"227 (10,0,0,2,19,1370)\n", "none"},
		{"227 (10,0,0,256,19,137)\n", "none"},
		{"227 (10,0,0,2,19)\n", "none"},
		{"229 no |||6446|\r\n", "none"},
		{"229 (|||65536|)\r\n", "none"},
		{"229 (||x|6446|)\r\n", "none"},
		{"229 (|1||6446|)\r\n", "none"},
		{"229 (|||6446)\r\n", "none"},
		{"229 (7776446|)\r\n", "none"},
		{"229 (|||-1|)\r\n", "none"},
	} {
		e, found := readReplyLine([]byte(row.line))
		got := "none"
		switch found {
		case ftpWhole:
			got = e.told(row.line)
		case ftpCut:
			got = "cut"
		}
		if got != row.want {
			t.Errorf("%q: %q, want %q", row.line, got, row.want)
		}
	}
}

// A reply cut anywhere in its endpoint is told to be cut, and anywhere else is not:
// what has left never holds a part of an endpoint.
func TestFTPReplyCut(t *testing.T) {
	for _, row := range []struct{ line, from, to string }{
		{"227 Entering Passive Mode (10,0,0,2,19,137).\r\n", "(1", ")"},
		{"229 Entering Extended Passive Mode (|||6446|)\r\n", "(|", "|)"},
		{"229 ok (|1|10.0.0.2|6446|)\r\n", "(|", "|)"},
		{"229 ok (|2|fd00:0010:0000:0000:0000:0000:255.255.255.255|65535|)\r\n", "(|", "|)"},
	} {
		from, to := strings.Index(row.line, row.from)+len(row.from), strings.Index(row.line, row.to)
		for n := range len(row.line) {
			want := ftpAbsent
			switch {
			case n > to:
				want = ftpWhole
			case n >= from:
				want = ftpCut
			}
			if _, found := readReplyLine([]byte(row.line[:n])); found != want {
				t.Errorf("%q: %d, want %d", row.line[:n], found, want)
			}
		}
	}
}

func TestFTPText(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.168.88.23"), netip.MustParseAddr("2001:db8:88::23")
	for _, row := range []struct {
		line string
		addr netip.Addr
		port uint16
		want string
	}{
		{"PORT 10,0,0,7,1,2\r\n", v4, 65535, "192,168,88,23,255,255"},
		{"EPRT |1|10.0.0.7|4|\r\n", v4, 5, "|1|192.168.88.23|5|"},
		{"EPRT !2!fd00::7!4!\r\n", v6, 65535, "!2!2001:db8:88::23!65535!"},
	} {
		command, e := readFTPCommand([]byte(row.line))
		if command != ftpPort {
			t.Fatalf("%q is no command", row.line)
		}
		var buffer [ftpMaxText]byte
		if text := e.appendText(buffer[:0], ptr(conntrack.AddrFrom(row.addr)), row.port); string(text) != row.want {
			t.Errorf("%q: %q, want %q", row.line, text, row.want)
		}
	}
	e, _ := readReplyLine([]byte("229 (!1!10.0.0.2!6446!)"))
	if text := e.appendText(nil, nil, 5); string(text) != "!!!5!" {
		t.Errorf("%q without an address", text)
	}
	// The longest there is fits.
	_, e = readFTPCommand([]byte("EPRT |2|1111:2222:3333:4444:5555:6666:7777:8888|65535|\n"))
	var buffer [ftpMaxText]byte
	if text := e.appendText(buffer[:0], &e.addr, 65535); len(text) != ftpMaxText || &text[0] != &buffer[0] {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func FuzzFTPLine(f *testing.F) {
	for _, line := range []string{
		"PORT 192,168,88,21,23,113\r\n", "EPRT |2|1080::8:800:200C:417A|5282|\r\n", "EPSV\r\n", "EPRT |1|132.235.1.2|6275|\n",
		"227 Entering Passive Mode (10,0,0,2,19,137).\r\n", "229 Entering Extended Passive Mode (|||6446|)\r\n", "229 (|2|::1.2.3.4|9|",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		b := []byte(line)
		command, e := readFTPCommand(b)
		if command == ftpPort && !e.named {
			t.Fatalf("%q names nobody", line)
		}
		again(t, line, command == ftpPort, e, func(b []byte) (ftpEndpoint, bool) {
			command, e := readFTPCommand(b)
			return e, command == ftpPort
		})
		e, found := readReplyLine(b)
		again(t, line, found == ftpWhole, e, func(b []byte) (ftpEndpoint, bool) {
			e, found := readReplyLine(b)
			return e, found == ftpWhole
		})
		if found == ftpWhole { // it was cut, or not there yet, before
			for n := e.from + 1; n < e.to; n++ {
				if _, found := readReplyLine(b[:n]); found != ftpCut {
					t.Fatalf("%q has a part of an endpoint that was not noticed in %q", line, line[:n])
				}
			}
		}
	})
}

// again writes an endpoint anew: it has to be read as the same one.
func again(t *testing.T, line string, is bool, e ftpEndpoint, read func([]byte) (ftpEndpoint, bool)) {
	if !is {
		return
	}
	if e.from < 4 || e.from >= e.to || e.to > len(line) {
		t.Fatalf("%q: at %d to %d", line, e.from, e.to)
	}
	var buffer [ftpMaxText]byte
	addr := &e.addr
	if !e.named {
		addr = nil
	}
	text := e.appendText(buffer[:0], addr, e.port)
	if &text[0] != &buffer[0] {
		t.Fatalf("%q does not fit", text)
	}
	got, ok := read([]byte(line[:e.from] + string(text) + line[e.to:]))
	if !ok || got.addr != e.addr || got.port != e.port || got.from != e.from || got.to != e.from+len(text) {
		t.Fatalf("%q, written as %q, is read as %+v %v", line, text, got, ok)
	}
}

// FuzzAddressText compares our readers of addresses with those of net/netip.
func FuzzAddressText(f *testing.F) {
	for _, text := range []string{"10.0.0.2", "1080::8:800:200C:417A", "::", "::1", "1::", "1:2:3:4:5:6:7::", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "::1%eth0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := netip.ParseAddr(text)
		got, ok := readIPv4Text([]byte(text))
		if ok != (err == nil && want.Is4()) || ok && got.Netip() != want {
			t.Errorf("IPv4 %q: %v %v, want %v", text, got, ok, want)
		}
		got, ok = readIPv6Text([]byte(text))
		if ok != (err == nil && want.Is6() && want.Zone() == "") || ok && got != conntrack.AddrFrom(want) {
			t.Errorf("IPv6 %q: %v %v, want %v", text, got, ok, want)
		}
	})
}

func TestFTPLineNoAllocs(t *testing.T) {
	lines := [][]byte{[]byte("EPRT |2|1080::8:800:200C:417A|5282|\r\n"), []byte("PORT 1,2,3,4,5,6\r\n"), []byte("EPRT |2|1080::8:800:200C:417AAA|5282|\r\n")}
	reply := []byte("227 Entering Passive Mode (10,0,0,2,19,137).\r\n")
	if n := testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			_, e := readFTPCommand(line)
			var buffer [ftpMaxText]byte
			e.appendText(buffer[:0], &e.addr, e.port)
		}
		readReplyLine(reply)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
