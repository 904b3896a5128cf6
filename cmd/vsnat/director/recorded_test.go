// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm/recorded"
)

// What was typed on a director with the kernel's IPVS, typed on this one: what is
// written, and the exit codes, are the same but for the differences below.

// A difference is an intended one: the command, what it says instead, and why.
// Nothing is listed then.
type difference struct {
	command string // all of it, or its beginning before …
	stderr  string
	code    int
	reason  string
}

const (
	kernel     = "Invalid operation.  Possibly wrong module version, address not unicast, ...\n"
	noEngines  = "Scheduler or persistence engine not found\nhint: vsnat has no persistence engines: leave out --pe\n"
	noDaemon   = "vsnat has no connection synchronisation daemon\nhint: this version keeps connections in one director only\n"
	notStarted = "No daemon is running\n"
)

var differences = map[string][]difference{
	"forms.txt": {
		{"ipvsadm -a -t 192.168.88.23:80 -r 192.168.88.23:80 -m",
			kernel + "hint: server 192.168.88.23 is the address of the service itself; give the address of the real server\n", 255,
			"no packet would ever get there"},
		{"ipvsadm -A -u 192.168.88.23:5060 -s rr -p 60 --pe sip", noEngines, 255, "there are no persistence engines"},
		{"ipvsadm -A -t 192.168.88.23:10414 -s twos", "", 0, "that kernel had not the module"},
	},
	"timeout-daemon.txt": {
		{"ipvsadm --start-daemon …", noDaemon, 255, "there is no synchronisation"},
		{"ipvsadm --stop-daemon …", notStarted, 255, "none was started"},
		{"ipvsadm -L --daemon", "", 0, "none was started"},
	},
	"errors.txt": {
		{"ipvsadm -A -t 0.0.0.0:80 -s rr",
			kernel + "hint: a service can't have 0.0.0.0: it is the unspecified address; use a unicast address\n", 255, "no packet is sent there"},
		{"ipvsadm -A -t 224.0.0.1:80 -s rr",
			kernel + "hint: a service can't have 224.0.0.1: it is a multicast address; use a unicast address\n", 255, "no connection is made there"},
		{"ipvsadm -A -t 255.255.255.255:80 -s rr",
			kernel + "hint: a service can't have 255.255.255.255: it is the broadcast address; use a unicast address\n", 255, "no connection is made there"},
		{"ipvsadm -A -t 127.0.0.1:80 -s rr",
			kernel + "hint: a service can't have 127.0.0.1: it is a loopback address, which is never seen on a link; use a unicast address\n", 255,
			"it is never seen on a link"},
		{"ipvsadm -A -t 192.168.88.23:103 -s rr --pe sip", noEngines, 255, "there are no persistence engines"},
		{"ipvsadm -A -t 192.168.88.23:103 -s rr -p 10 --pe sip", noEngines, 255, "the service is not there from before"},
		{"ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.5:80 -m -w 65536",
			kernel + "hint: weight 65536 is out of range; a weight is 0 (no new connections) to 65535\n", 255, "the documented range ends there"},
		{"ipvsadm -e -t 192.168.88.23:80 -r 10.0.0.2:80 -m -w 65536",
			kernel + "hint: weight 65536 is out of range; a weight is 0 (no new connections) to 65535\n", 255, "the documented range ends there"},
		{"ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.5:80 -m -w 65535", "", 0, "the server is not there from before"},
		{"ipvsadm -a -t 192.168.88.23:80 -r 127.0.0.1:80 -m",
			kernel + "hint: a server can't have 127.0.0.1: it is a loopback address, which is never seen on a link; use a unicast address\n", 255,
			"it is never seen on a link"},
		{"ipvsadm -a -t 192.168.88.23:80 -r 192.168.88.23:80 -m",
			kernel + "hint: server 192.168.88.23 is the address of the service itself; give the address of the real server\n", 255,
			"no packet would ever get there"},
	},
}

// absent are the lines of listings that are about what was refused, or, in their
// first group, what was saved another way.
var absent = map[string]*regexp.Regexp{
	"forms.txt": regexp.MustCompile(`(?m)^(UDP  192\.168\.88\.23:5060|UDP  vip:sip|UDP  C0A85817:13C4|-A -u 192\.168\.88\.23:5060|-A -u vip:sip|` +
		`  -> 192\.168\.88\.23:80 |  -> vip:http|  -> C0A85817:0050|-a -t 192\.168\.88\.23:80 -r 192\.168\.88\.23:80|-a -t vip:http -r vip:http).*\n`),
	"errors.txt": regexp.MustCompile(`(?m)^(-A -t (0\.0\.0\.0|224\.0\.0\.1|255\.255\.255\.255|127\.0\.0\.1|192\.168\.88\.23:103)\b|` +
		`-a -t 192\.168\.88\.23:80 -r (127\.0\.0\.1|192\.168\.88\.23|10\.0\.0\.5):80).*\n`),
}

// added are the lines of ours about what that kernel refused, and what ours saves
// and says beyond the tool.
var added = regexp.MustCompile(`(?m)(^(TCP  192\.168\.88\.23:10414|TCP  vip:10414|TCP  C0A85817:28AE|-A -t 192\.168\.88\.23:10414|-A -t vip:10414|` +
	`-a -t 192\.168\.88\.23:80 -r 10\.0\.0\.5:80 -m -w 65535).*\n| -[xy] \d+|` +
	`^hint: (that is line \d+ of the input|\d+ of \d+ lines that were read are in force)\n)`)

// differs is the intended difference of a step, if there is one.
func differs(file string, s recorded.Step) *difference {
	for i := range differences[file] {
		d := &differences[file][i]
		if begin, ok := strings.CutSuffix(d.command, "…"); d.command == s.Command || ok && strings.HasPrefix(s.Command, begin) {
			return d
		}
	}
	return nil
}

// recordedDirector is one in the recorded network, without services.
func recordedDirector(t *testing.T) *director {
	t.Helper()
	cables(t)
	must(t, netlinkAddr("dwan", "192.168.88.22/24"))
	must(t, netlinkAddr("dlan", "10.0.0.1/24"))
	d, _ := openDirector(t, "max-conns: 1000\nguard: none\n")
	return d
}

func (d *director) ipvsadm(stdin string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = ipvsadm.Run(args, strings.NewReader(stdin), &out, &errs, recorded.Names{}, func() (ipvsadm.Director, error) {
		return ipvsadm.Adapt(context.Background(), d), nil
	})
	return out.String(), errs.String(), code
}

// play does a step, and reports whether it could.
func (d *director) play(t *testing.T, s recorded.Step) (stdout, stderr string, code int, played bool) {
	t.Helper()
	if view := s.View(); slices.Contains(control.ProcNames(), view) {
		var b bytes.Buffer
		must(t, control.Proc(t.Context(), d, view, &b))
		return b.String(), "", 0, true
	}
	args, stdin := s.Args()
	if args == nil {
		return "", "", 0, false
	}
	stdout, stderr, code = d.ipvsadm(stdin, args...)
	return stdout, stderr, code, true
}

func TestRecordedSessions(t *testing.T) {
	for file, least := range map[string]int{
		"seed.txt": 32, "order.txt": 20, "forms.txt": 60, "names.txt": 25, "timeout-daemon.txt": 25, "errors.txt": 140,
	} {
		t.Run(file, func(t *testing.T) {
			d := recordedDirector(t)
			steps, err := recorded.Session(file)
			must(t, err)
			played := 0
			met := make(map[*difference]bool)
			for _, s := range steps {
				if strings.HasPrefix(s.Remark, "group: ") {
					d.ipvsadm("", "ipvsadm", "-C")
					d.ipvsadm("", strings.Fields("ipvsadm -A -t 192.168.88.23:80 -s rr")...)
					d.ipvsadm("", strings.Fields("ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.2:80 -m")...)
				}
				stdout, stderr, code, ok := d.play(t, s)
				if !ok {
					continue
				}
				played++
				want := s
				if x := differs(file, s); x != nil {
					met[x] = true
					want.Stdout, want.Stderr, want.Code = "", x.stderr, x.code
				} else {
					stdout, stderr = added.ReplaceAllString(stdout, ""), added.ReplaceAllString(stderr, "")
				}
				if absent := absent[file]; absent != nil {
					want.Stdout = absent.ReplaceAllString(want.Stdout, "")
				}
				if stdout != want.Stdout || stderr != want.Stderr || code != want.Code {
					t.Errorf("%s:%d: %s\n--- got, exit %d\n%s%s--- want, exit %d\n%s%s",
						file, s.Line, s.Command, code, stdout, stderr, want.Code, want.Stdout, want.Stderr)
				}
			}
			if played < least {
				t.Errorf("only %d commands were played", played)
			}
			for i := range differences[file] {
				if x := &differences[file][i]; !met[x] {
					t.Errorf("%s is no difference (any more): %s", x.command, x.reason)
				}
			}
		})
	}
}

// What the real tool saved is restored, and saved again byte for byte.
func TestRecordedSaves(t *testing.T) {
	d := recordedDirector(t)
	saves := 0
	for _, file := range []string{"seed.txt", "order.txt", "forms.txt", "errors.txt"} {
		steps, err := recorded.Session(file)
		must(t, err)
		for _, s := range steps {
			if s.Command != "ipvsadm -S -n" || s.Stdout == "" {
				continue
			}
			saved := s.Stdout
			if absent := absent[file]; absent != nil {
				saved = absent.ReplaceAllString(saved, "")
			}
			if stdout, stderr, code := d.ipvsadm(saved, "ipvsadm-restore"); stdout+stderr != "" || code != 0 {
				t.Errorf("%s:%d: exit %d\n%s%s", file, s.Line, code, stdout, stderr)
			}
			if again, _, _ := d.ipvsadm("", "ipvsadm", "-S", "-n"); again != saved {
				t.Errorf("%s:%d:\n--- got\n%s--- want\n%s", file, s.Line, again, saved)
			}
			saves++
		}
	}
	if saves < 8 {
		t.Errorf("only %d saves were found", saves)
	}
}
