// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
)

// The real ipvsadm looks for the kernel's IPVS before it reads a word, and finds
// none here. A library is put before that of netlink, which hands its requests to
// the test and has the answers from it: so the real tool tells how it understands
// a command line, and how it lists what there is, and ours must do the same.

// kernelShim is that library. It writes each request as a line of hexadecimal to
// file descriptor 3 and reads a line of answers, which are messages. Names are not
// looked up, by nobody's name server.
const kernelShim = `
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

struct nlmsghdr { uint32_t len; uint16_t type, flags; uint32_t seq, pid; };
struct nlmsghdr *nlmsg_hdr(void *);
void *nlmsg_alloc_size(size_t);
void nlmsg_free(void *);
void *genlmsg_put(void *, uint32_t, uint32_t, int, int, int, uint8_t, uint8_t);
int nlmsg_append(void *, void *, size_t, int);

static int (*reply)(void *, void *);
static void *reply_arg;

int nl_socket_modify_cb(void *s, int type, int kind, int (*f)(void *, void *), void *arg)
{
	if (type == 0) { /* NL_CB_VALID */
		reply = f;
		reply_arg = arg;
	}
	return 0;
}

int genl_connect(void *s) { return 0; }
int genl_ctrl_resolve(void *s, const char *name) { return 42; }

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

int nl_recvmsgs_default(void *s)
{
	static unsigned char body[1 << 16];
	size_t n = 0;
	char c[2];

	while (read(3, c, 1) == 1) {
		if (*c != ' ' && *c != '\n') {
			if (read(3, c + 1, 1) != 1)
				return -1;
			body[n++] = digit(c[0]) << 4 | digit(c[1]);
			continue;
		}
		if (n && reply) {
			void *m = nlmsg_alloc_size(n + 64);
			genlmsg_put(m, 0, 0, 42, 0, 0, 0, 1);
			nlmsg_append(m, body, n, 0);
			reply(m, reply_arg);
			nlmsg_free(m);
		}
		n = 0;
		if (*c == '\n')
			break;
	}
	reply = NULL;
	return 0;
}

int nl_send_auto_complete(void *s, void *msg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	const unsigned char *p = (const unsigned char *)(h + 1);
	size_t n = h->len - sizeof *h, i;
	char line[1 << 16];

	for (i = 0; i < n && 2 * i + 3 < sizeof line; i++) {
		line[2 * i] = "0123456789abcdef"[p[i] >> 4];
		line[2 * i + 1] = "0123456789abcdef"[p[i] & 15];
	}
	line[2 * i] = '\n';
	return write(3, line, 2 * i + 1) < 0 ? -1 : (int)n;
}

/* /proc/net/ip_vs_conn is all that it opens. */
int open(const char *, int, ...);
char *getenv(const char *);
void *fdopen(int, const char *);
void *fopen(const char *path, const char *mode)
{
	char *conns = getenv("SHIM_CONNS");
	return fdopen(open(conns ? conns : path, 0), mode);
}

void *gethostbyname(const char *n) { return NULL; }
void *gethostbyaddr(const void *a, unsigned l, int t) { return NULL; }
void *getservbyname(const char *n, const char *p) { return NULL; }
void *getservbyport(int port, const char *p) { return NULL; }
`

// realTool is the real ipvsadm on that library.
type realTool struct{ shim, conns string }

func newRealTool(t *testing.T) realTool {
	t.Helper()
	dir := t.TempDir()
	source, shim := filepath.Join(dir, "shim.c"), filepath.Join(dir, "shim.so")
	if err := os.WriteFile(source, []byte(kernelShim), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", shim, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return realTool{shim, filepath.Join(dir, "ip_vs_conn")}
}

// heard is what came of a command line: what the kernel was told, what was said
// to the user, and the exit code.
type heard struct {
	requests       []string
	stdout, stderr string
	code           int
}

func (h heard) String() string {
	return fmt.Sprintf("exit %d\n%s%s\nrequests:\n%s", h.code, h.stdout, h.stderr, strings.Join(h.requests, "\n"))
}

// run runs a command line on a kernel with services.
func (r realTool) run(t *testing.T, services []ipvsadm.ServiceEntry, stdin string, args ...string) heard {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "kernel"), os.NewFile(uintptr(pair[1]), "tool")
	defer ours.Close()
	var h heard
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("ipvsadm", args...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+r.shim, "SHIM_CONNS="+r.conns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	for lines := bufio.NewScanner(ours); lines.Scan(); {
		b, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		if text := inWords(b); text != "" {
			h.requests = append(h.requests, text)
		}
		var answer []string
		for _, m := range answers(b, services) {
			answer = append(answer, hex.EncodeToString(m))
		}
		fmt.Fprintln(ours, strings.Join(answer, " "))
	}
	var exit *exec.ExitError
	switch err := cmd.Wait(); {
	case errors.As(err, &exit):
		h.code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	h.stdout, h.stderr = stdout.String(), stderr.String()
	return h
}

// answers are what a kernel with services says to a request: attributes of
// messages (enum in linux/ip_vs.h).
func answers(request []byte, services []ipvsadm.ServiceEntry) (list [][]byte) {
	a := parseAttributes(request[4:])
	asked := serviceWords(parseAttributes(a[1]))
	switch request[0] {
	case 4: // GET_SERVICE
		for i := range services {
			s := &services[i]
			if asked == "" || asked == keyWords(s.ServiceKey) {
				list = append(list, attribute(1, serviceAttributes(s)))
			}
		}
	case 8: // GET_DEST
		for i := range services {
			if asked != keyWords(services[i].ServiceKey) {
				continue
			}
			for j := range services[i].Servers {
				list = append(list, attribute(2, destAttributes(&services[i].Servers[j])))
			}
		}
	case 13: // GET_CONFIG: times
		list = append(list, slices.Concat(attribute(4, u32(900)), attribute(5, u32(120)), attribute(6, u32(300))))
	case 15: // GET_INFO: version and rows
		list = append(list, slices.Concat(attribute(1, u32(0x010201)), attribute(2, u32(4096))))
	}
	return list
}

func attribute(kind uint16, value ...[]byte) []byte {
	v := slices.Concat(value...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), v...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func u16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func u64(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func inet(a netip.Addr) []byte { return append(a.AsSlice(), make([]byte, 16)...)[:16] }

func family(ipv6 bool) []byte {
	if ipv6 {
		return u16(afINET6)
	}
	return u16(afINET)
}

func serviceAttributes(s *ipvsadm.ServiceEntry) []byte {
	ipv6 := s.MarkIPv6 || s.Addr.Is6()
	flags, mask := uint32(s.Flags)<<3|2, []byte{255, 255, 255, 255}
	if s.Persistent {
		flags |= 1
	}
	if s.OnePacket {
		flags |= 4
	}
	if s.Mask.IsValid() {
		mask = s.Mask.AsSlice()
	}
	if ipv6 {
		mask = u32(uint32(s.MaskBits))
	}
	var b []byte
	if s.Mark != 0 {
		b = attribute(5, u32(s.Mark))
	} else {
		b = slices.Concat(attribute(2, u16(uint16(s.Proto))), attribute(3, inet(s.Addr)), attribute(4, be16(s.Port)))
	}
	b = slices.Concat(b, attribute(1, family(ipv6)), attribute(6, []byte(s.Scheduler+"\x00")), attribute(7, u32(flags), u32(0xffffffff)),
		attribute(8, u32(uint32(s.Timeout))), attribute(9, mask), statistics(10, 12, s.Stats, s.Rate))
	if s.Engine != "" {
		b = append(b, attribute(11, []byte(s.Engine+"\x00"))...)
	}
	return b
}

func destAttributes(d *ipvsadm.ServerEntry) []byte {
	return slices.Concat(attribute(1, inet(d.Addr)), attribute(2, be16(d.Port)), attribute(3, u32(uint32(methodNumbers[d.Forward]))),
		attribute(4, u32(uint32(d.Weight))), attribute(5, u32(uint32(d.Upper))), attribute(6, u32(uint32(d.Lower))),
		attribute(7, u32(uint32(d.Active))), attribute(8, u32(uint32(d.Inactive))), attribute(9, u32(uint32(d.Persistent))),
		attribute(11, family(d.Addr.Is6())), attribute(13, []byte{byte(d.Tunnel.Type)}), attribute(14, be16(d.Tunnel.Port)),
		attribute(15, u16(uint16(d.Tunnel.Checksum))), statistics(10, 12, d.Stats, d.Rate))
}

// statistics are the counters in their old form and in that of 64 bits.
func statistics(old, long uint16, c, rate ipvsadm.Counters) []byte {
	narrow := slices.Concat(attribute(1, u32(uint32(c.Conns))), attribute(2, u32(uint32(c.InPackets))), attribute(3, u32(uint32(c.OutPackets))),
		attribute(4, u64(c.InBytes)), attribute(5, u64(c.OutBytes)), attribute(6, u32(uint32(rate.Conns))), attribute(7, u32(uint32(rate.InPackets))),
		attribute(8, u32(uint32(rate.OutPackets))), attribute(9, u32(uint32(rate.InBytes))), attribute(10, u32(uint32(rate.OutBytes))))
	var wide []byte
	for i, n := range []uint64{
		c.Conns, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes, rate.Conns, rate.InPackets, rate.OutPackets, rate.InBytes, rate.OutBytes,
	} {
		wide = append(wide, attribute(uint16(i+1), u64(n))...)
	}
	return append(attribute(old, narrow), attribute(long, wide)...)
}

// attributes are those of a netlink message, by number.
type attributes map[uint16][]byte

func parseAttributes(b []byte) attributes {
	list := make(attributes)
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		list[binary.NativeEndian.Uint16(b[2:])&0x3fff] = b[4:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return list
}

func (a attributes) u8(i uint16) uint8 { return append(a[i], 0)[0] }

func (a attributes) u16(i uint16) uint16 { return binary.NativeEndian.Uint16(append(a[i], 0, 0)) }

func (a attributes) port(i uint16) uint16 {
	return binary.BigEndian.Uint16(append(a[i], 0, 0))
}

func (a attributes) u32(i uint16) uint32 {
	return binary.NativeEndian.Uint32(append(a[i], 0, 0, 0, 0))
}

func (a attributes) text(i uint16) string { return strings.TrimRight(string(a[i]), "\x00") }

func (a attributes) addr(i uint16, ipv6 bool) string {
	b := append(append([]byte{}, a[i]...), make([]byte, 16)...)
	if ipv6 {
		return netip.AddrFrom16([16]byte(b)).String()
	}
	return netip.AddrFrom4([4]byte(b)).String()
}

// inWords is a request (enum in linux/ip_vs.h), "" for one that changes nothing.
func inWords(b []byte) string {
	a := parseAttributes(b[4:])
	svc, dest := parseAttributes(a[1]), parseAttributes(a[2])
	key := serviceWords(svc)
	switch b[0] {
	case 1:
		return "add " + key + specWords(svc)
	case 2:
		return "edit " + key + specWords(svc)
	case 3:
		return "delete " + key
	case 5:
		return "add server " + key + destWords(dest)
	case 6:
		return "edit server " + key + destWords(dest)
	case 7:
		return "delete server " + key + " " + dest.addr(1, dest.u16(11) == afINET6) + fmt.Sprintf(" %d", dest.port(2))
	case 9, 10:
		d := parseAttributes(a[3])
		group := d.addr(5, false)
		if d[6] != nil {
			group = d.addr(6, true)
		}
		if d[5] == nil && d[6] == nil {
			group = ""
		}
		return fmt.Sprintf("daemon %d: %d %s id %d maxlen %d group %s port %d ttl %d", b[0], d.u32(1), d.text(2), d.u32(3), d.u16(4), group, d.u16(7), d.u8(8))
	case 12:
		return fmt.Sprintf("set %d %d %d", a.u32(4), a.u32(5), a.u32(6))
	case 16:
		return "zero " + key
	case 17:
		return "flush"
	}
	return ""
}

func serviceWords(s attributes) string {
	if len(s) == 0 {
		return ""
	}
	ipv6 := s.u16(1) == afINET6
	if s[5] != nil {
		return fmt.Sprintf("mark %d ipv6 %v", s.u32(5), ipv6)
	}
	return fmt.Sprintf("%d %s %d", s.u16(2), s.addr(3, ipv6), s.port(4))
}

// Flags of a service: persistent, one-packet, those of the scheduler.
func specWords(s attributes) string {
	flags := s.u32(7)
	text := fmt.Sprintf(" sched %s flags %#x", s.text(6), flags&0x3d)
	if flags&1 != 0 {
		mask := fmt.Sprint(s.u32(9))
		if s.u16(1) != afINET6 {
			mask = s.addr(9, false)
		}
		text += fmt.Sprintf(" timeout %d mask %s", s.u32(8), mask)
	}
	if s[11] != nil {
		text += " pe " + s.text(11)
	}
	return text
}

func destWords(d attributes) string {
	text := fmt.Sprintf(" %s %d method %d weight %d thresholds %d %d", d.addr(1, d.u16(11) == afINET6), d.port(2), d.u32(3),
		d.u32(4), d.u32(5), d.u32(6))
	if d.u32(3) == 2 {
		text += fmt.Sprintf(" tunnel %d %d %d", d.u8(13), d.port(14), d.u16(15))
	}
	return text
}

const (
	afINET  = 2
	afINET6 = 10
)
