// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// The commands of the examples of ipvsadm(8), each in turn, and what is there
// afterwards.
func TestManPageExamples(t *testing.T) {
	each := func(format string) (lines []string) {
		for i := range 5 {
			lines = append(lines, fmt.Sprintf(format, i+1))
		}
		return lines
	}
	masqueraded := append([]string{"-A -t 207.175.44.110:80 -s rr"}, each("-a -t 207.175.44.110:80 -r 192.168.10.%d:80 -m")...)
	marked := append([]string{"-A -f 1  -s rr"}, each("-a -f 1 -r 192.168.10.%d:0 -m")...)
	gue := []string{
		"-A -t 207.175.44.110:80 -s rr",
		"-a -t 207.175.44.110:80 -r 192.168.10.1:80 -i --tun-type gue --tun-port 6080 --tun-nocsum",
		"-a -t 207.175.44.110:80 -r 192.168.10.2:80 -i --tun-type gue --tun-port 6080 --tun-csum",
		"-a -t 207.175.44.110:80 -r 192.168.10.3:80 -i --tun-type gue --tun-port 6080 --tun-remcsum",
		"-a -t 207.175.44.110:80 -r 192.168.10.4:80 -i --tun-type gue --tun-port 6078",
		"-a -t 207.175.44.110:80 -r 192.168.10.5:80 -i --tun-type gue --tun-port 6079",
	}
	for name, row := range map[string]struct {
		lines []string
		saved string // each line of what is saved
	}{
		"masquerading": {masqueraded, "-A -t 207.175.44.110:80 -s rr\n" + strings.Join(each("-a -t 207.175.44.110:80 -r 192.168.10.%d:80 -m -w 1"), "\n")},
		"by mark":      {marked, "-A -f 1 -s rr\n" + strings.Join(each("-a -f 1 -r 192.168.10.%d:0 -m -w 1"), "\n")},
		"GUE": {gue, "-A -t 207.175.44.110:80 -s rr\n" +
			"-a -t 207.175.44.110:80 -r 192.168.10.1:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum\n" +
			"-a -t 207.175.44.110:80 -r 192.168.10.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum\n" +
			"-a -t 207.175.44.110:80 -r 192.168.10.3:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum\n" +
			"-a -t 207.175.44.110:80 -r 192.168.10.4:80 -i -w 1 --tun-type gue --tun-port 6078 --tun-nocsum\n" +
			"-a -t 207.175.44.110:80 -r 192.168.10.5:80 -i -w 1 --tun-type gue --tun-port 6079 --tun-nocsum"},
		"GRE": {[]string{"-A -t 10.0.0.1:80 -s rr", "-a -t 10.0.0.1:80 -r 192.168.11.1:80 -i --tun-type gre --tun-csum"},
			"-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 192.168.11.1:80 -i -w 1 --tun-type gre --tun-csum"},
		"IPv6": {[]string{"-A -t [2001:db8::80]:80 -s rr", "-a -t [2001:db8::80]:80 -r [2001:db8::a0a0]:80 -m"},
			"-A -t [2001:db8::80]:80 -s rr\n-a -t [2001:db8::80]:80 -r [2001:db8::a0a0]:80 -m -w 1"},
	} {
		t.Run(name, func(t *testing.T) {
			d := recordedDirector(t)
			for _, line := range row.lines {
				if stdout, stderr, code := d.ipvsadm("", strings.Fields("ipvsadm "+line)...); stdout+stderr != "" || code != 0 {
					t.Errorf("%s: exit %d\n%s%s", line, code, stdout, stderr)
				}
			}
			saved := func() string {
				stdout, _, _ := d.ipvsadm("", "ipvsadm", "-S", "-n")
				return stdout
			}
			if got := saved(); got != row.saved+"\n" {
				t.Errorf("--- saved\n%s--- want\n%s", got, row.saved)
			}
			// The same as one command, which the page shows for some.
			d.ipvsadm("", "ipvsadm", "-C")
			here := "\n" + strings.Join(row.lines, "\n") + "\n"
			if stdout, stderr, code := d.ipvsadm(here, "ipvsadm", "-R"); stdout+stderr != "" || code != 0 || saved() != row.saved+"\n" {
				t.Errorf("-R: exit %d\n%s%s--- saved\n%s", code, stdout, stderr, saved())
			}
			// And what was saved comes back as it was, byte for byte.
			if stdout, stderr, code := d.ipvsadm(row.saved+"\n", "ipvsadm-restore"); stdout+stderr != "" || code != 0 || saved() != row.saved+"\n" {
				t.Errorf("ipvsadm-restore: exit %d\n%s%s--- saved\n%s", code, stdout, stderr, saved())
			}
		})
	}
	// What the page has iptables mark.
	d := recordedDirector(t)
	must(t, d.AddMark(t.Context(), control.MarkSpec{Mark: 1, To: netip.MustParsePrefix("207.175.44.110/31")}))
}
