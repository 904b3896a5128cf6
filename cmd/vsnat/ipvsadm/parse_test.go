// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func parseLine(t *testing.T, line string) (*Command, error) {
	t.Helper()
	args, err := split(line)
	if err != nil {
		t.Fatal(err)
	}
	return Parse("ipvsadm", args, testNames{})
}

// Every way to write a word means the same.
func TestSpellings(t *testing.T) {
	for want, spellings := range map[string][]string{
		"-a -t 192.168.88.23:80 -r 10.0.0.2:8080 -m -w 5 -x 9 -y 7": {
			"-at192.168.88.23:80 -r10.0.0.2:8080 -mw5 -x9 -y7",
			"-at 192.168.88.23:80 -mr 10.0.0.2:8080 -w=5 -x=9 -y=7",
			"-a -m -w 5 -x 9 -y 7 -r 10.0.0.2:8080 -t 192.168.88.23:80",
			"--add-server --tcp-service 192.168.88.23:80 --real-server 10.0.0.2:8080 --masquerading --weight 5 --u-threshold 9 --l-threshold 7",
			"--add-server --tcp-service=vip:http --real-server=rs1:http-alt --masquerading --weight=5 --u-threshold=9 --l-threshold=7",
		},
		"-a -t 192.168.88.23:80 -r 10.0.0.2:80 -m": {
			"-a -t 192.168.88.23:80 -r rs1:http -m",
			"-a -t 192.168.88.23:0080 -r 10.0.0.2 -m --",
		},
		// What a word means may depend on those before it.
		"-a -t 192.168.88.23:80 -r 10.0.0.2:0 -m": {"-a -r 10.0.0.2 -t 192.168.88.23:80 -m", "-a -m -r rs1 -t vip:http"},
		"-A -t [fd00::23]:80 -p -M 128":           {"-A -p -M 64 -t [fd00::23]:80", "-A -t [fd00::23]:80 -p -M 128x"},
		"-A -f 1 -6 -p -M 128":                    {"-A -f 1 -p -M 64 -6", "-A -f 1 -M 255.255.255.0 -6 -p"},
		"-A -t 192.168.88.23:80 -s sh -b sh-port": {"-A -b sh-port -t 192.168.88.23:80 -s sh", "-A -t 192.168.88.23:80 -b ,sh-port, -s sh"},
		"-A -t 192.168.88.23:80 -s sh":            {"-A -t 192.168.88.23:80 -s sh -b ''"},
		"-L -n --stats --exact":                   {"-Ln --stats -X", "-lnX --stats", "--list --numeric --stats --exact --sort --sort"},
		"-A -t 192.168.88.23:80 -s wlc -p 360": {
			"-A -t 192.168.88.23:80 -p", "-A -p -t 192.168.88.23:80", "-A -p360 -t 192.168.88.23:80",
			"-A --persistent=360 -t 192.168.88.23:80", "-A -t 192.168.88.23:80 -s '' --persistent 360",
		},
		"-A -t [fd00::23]:80 -s rr":          {"-A -t [fd00:0::23]:http -s rr"},
		"-D -t 192.168.88.23":                {"-D -t 0xc0.168.88.027", "-D -t 192.168.22551", "-D -t 3232258071:0"},
		"--set 1 2 3":                        {"--set -- 1 2 3", "--set +1 ' 2' 3"},
		"-A -f 4294967295 -6 -s rr -p -M 64": {"-A -f4294967295 -6p -s rr -M 64"},
	} {
		wanted, err := parseLine(t, want)
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		for _, s := range spellings {
			got, err := parseLine(t, s)
			if err != nil || !reflect.DeepEqual(got, wanted) {
				t.Errorf("%s\n got %+v, %v\nwant %+v", s, got, err, wanted)
			}
		}
	}
}

// Messages that no transcript has.
func TestMessages(t *testing.T) {
	const try = "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
	for line, want := range map[string]string{
		"-n":                                try,
		"--nonsense":                        try,
		"word":                              try,
		"--start-daemon":                    try,
		"-L -D":                             "invalid option `-D'",
		"-L -nL":                            "invalid option `-nL'",
		"-Z --list":                         "invalid option `--list'",
		"-C --start-daemon master":          "invalid option `master'",
		"--stop-daemon 1":                   "illegal start_daemon specified",
		"-a -t vip:80 -r rs1 -i --tun-csum": "Illegal 'tun-csum' option with the 'ipip' tunnel type",
		"-a -t vip:80 -r rs1 -i --tun-type gre --tun-port 5":            "Illegal 'tun-port' option with the 'gre' tunnel type",
		"-a -t vip:80 -r rs1 -i --tun-type gre --tun-csum --tun-nocsum": "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gre' tunnel type",
		"-a -t vip:80 -r rs1 -i --tun-type gue --tun-remcsum":           "You need to supply the 'tun-port' option for the 'gue' tunnel type",
		"--start-daemon master --mcast-group fd00::1":                   "invalid IPv6 mcast-group `fd00::1'",
		"-S --sync-maxlen 1400 --mcast-ttl 1":                           "Illegal 'mcast-ttl' option with the 'save' command",
		"-L -z":                                                         "-z: unknown option",
		"-Lz":                                                           "-Lz: unknown option",
		"-L --nonsense=5":                                               "--nonsense=5: unknown option",
		"-L --stats=5":                                                  "--stats=5: option does not take an argument",
		"-At":                                                           "-At: missing argument",
		"-A --tcp-service":                                              "--tcp-service: missing argument",
		"-Lnn":                                                          "multiple 'numeric' options specified",
		"-C -n":                                                         "Illegal 'numeric' option with the 'flush' command",
		"-Z -r 10.0.0.2":                                                "Illegal 'real-server' option with the 'zero' command",
		"-L --timeout --daemon":                                         "The option 'daemon' conflicts with the 'timeout' option in the 'list' command",
		"-L --timeout --rate":                                           "options conflicts in the list command",
		"-L --daemon --persistent-conn":                                 "options conflicts in the list command",
		"--set 1 2":                                                     "--set option requires 3 timeout values",
		"--set 1 2 2678401":                                             "invalid timeout value `2678401' specified",
		"--set 1 2 3 4":                                                 "unexpected argument 4",
		"-A -6 -f 1":                                                    "-6 used before -f\n",
		"-A -t [fd00::23]:80 -p -M 129":                                 "illegal ipv6 netmask specified",
		"-A -t [fd00::23] -s rr":                                        "illegal virtual server address[:port] specified",
		"-A -t [192.0.2.1]:80":                                          "illegal virtual server address[:port] specified",
		"-A -t [fe80::1%eth0]:80":                                       "illegal virtual server address[:port] specified",
		"-A -t 80":                                                      "illegal virtual server address[:port] specified",
		"-A -t vip:":                                                    "illegal virtual server address[:port] specified",
		"-A -t 1.2.3.4.5:80":                                            "illegal virtual server address[:port] specified",
		"-A -t 1.2.65536:80":                                            "illegal virtual server address[:port] specified",
		"-A -t 09.2.3.4:80":                                             "illegal virtual server address[:port] specified",
		"-a -t vip:80 -m -r rs1:nonsense":                               "illegal real server address[:port] specified",
		"-a -t vip:80 -i -r rs1 --tun-port 0":                           "illegal tunnel port specified",
		"--start-daemon slave":                                          "illegal start-daemon parameter specified",
		"--start-daemon master --syncid 256":                            "illegal syncid specified",
		"--start-daemon master --mcast-group 10.0.0.1":                  "invalid IPv4 mcast-group `10.0.0.1'",
		"--start-daemon master --mcast-ttl 256":                         "illegal mcast-ttl specified",
	} {
		if c, err := parseLine(t, line); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v, %+v\nwant %s", line, err, c, want)
		}
	}
}

// Whatever is understood as a service or a server is written by a save so that it
// is understood again, the same.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		"-A -t 192.168.88.23:80 -s rr", "-A -u vip:domain -o", "-A -f 7 -6 -p 50 -M 64", "-A -t [fd00::23]:80 -p",
		"-A --sctp-service vip:9 -s sh -b sh-port,flag-1 --pe sip -p 5 -M 255.0.255.0", "-A -t vip:0 -p",
		"-a -t vip:80 -r rs1 -m -w 65535 -x 9 -y 3", "-a -f 1 -r rs1:0", "-a -t vip:80 -r rs1 -i --tun-type gue --tun-port 6080 --tun-remcsum",
		"-a -t vip:80 -i -r [fd00::2]:80 --tun-type gre", "-Lnc", "-L -t vip:80 --stats", "--set 1 2 3", "-t", "-p -5", "--", "-", "-A -t :80",
		"--start-daemon master --syncid 3 --mcast-group 224.0.0.88 --mcast-ttl 2", "-A -t 192.168.88:82", "'", `\`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args, err := split(line)
		if err != nil {
			return
		}
		c, err := Parse("ipvsadm", args, testNames{})
		if err != nil {
			return
		}
		var b bytes.Buffer
		p := printer{w: bufio.NewWriter(&b), names: testNames{}, Listing: Listing{Numeric: true}}
		entry := ServiceEntry{Service: c.Service}
		switch c.Verb {
		case AddService:
			if strings.ContainsAny(c.Service.Scheduler+c.Service.Engine, " '\"\\\t\r\n") || strings.HasPrefix(c.Service.Engine, "-") {
				return // names that no director has
			}
		case AddServer:
			entry.Servers = []ServerEntry{{Server: c.Server}}
		default:
			return
		}
		p.rule(&entry)
		p.w.Flush()
		rules := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		again, err := parseLine(t, rules[len(rules)-1])
		if err != nil {
			t.Fatalf("%q was saved as %q: %v", line, rules, err)
		}
		// What a save leaves out.
		if !c.Service.Persistent {
			c.Service.Mask, c.Service.MaskBits = again.Service.Mask, again.Service.MaskBits
		}
		if c.Server.Forward == Tunnel {
			if c.Server.Tunnel.Type != GUE {
				c.Server.Tunnel.Port = 0
			}
			if c.Server.Tunnel.Type == IPIP {
				c.Server.Tunnel.Checksum = 0
			}
		}
		if c.Service != again.Service || c.Server != again.Server {
			t.Fatalf("%q was saved as %q\n got %+v %+v\nwant %+v %+v", line, rules, again.Service, again.Server, c.Service, c.Server)
		}
	})
}
