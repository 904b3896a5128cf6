// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

const ftpPort = 21

// Real clients get and put a file through the VIP of real servers, over data
// connections of every kind. curl and lftp are told to believe the address in a
// reply to PASV, which they otherwise replace by that of the control connection.
func TestFTP(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for _, way := range ways(t) {
			t.Run(fmt.Sprintf("IPv%d %s", map[bool]int{false: 4, true: 6}[ipv6], way), func(t *testing.T) {
				c := lab.Start(t, lab.Config{IPv6: ipv6, Servers: 2})
				for _, n := range c.Servers {
					startVsftpd(t, c, n)
				}
				config := strings.Replace(site(c, way, tcp(ftpPort)), "    scheduler: rr\n", "    scheduler: rr\n    helper: ftp\n", 1)
				direct(t, c, config)
				testFTPClients(t, c, ipv6)
			})
		}
	}
}

// startVsftpd has a node serve a directory of its own: the file "fetch" to be read,
// and the directory "up" to be written to.
func startVsftpd(t *testing.T, c *lab.Cluster, n *lab.Node) {
	t.Helper()
	root := filepath.Join(c.Dir(), n.Name)
	for _, dir := range []string{"files/up", "empty"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, n, fmt.Sprintf("head -c 20000000 /dev/urandom > %s/files/fetch", root))
	listen := "listen=YES"
	if c.Config.IPv6 {
		listen = "listen=NO\nlisten_ipv6=YES"
	}
	// It is root here and has one user: that of the namespace.
	config := filepath.Join(root, "vsftpd.conf")
	err := os.WriteFile(config, []byte(listen+`
anonymous_enable=YES
no_anon_password=YES
anon_root=`+root+`/files
anon_upload_enable=YES
anon_other_write_enable=YES
write_enable=YES
connect_from_port_20=YES
run_as_launching_user=YES
allow_writeable_chroot=YES
seccomp_sandbox=NO
secure_chroot_dir=`+root+`/empty
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, output := background(t, n, "vsftpd", config)
	eventually(t, "vsftpd listens", func() bool {
		conn, err := n.Dial(testContext(t), "tcp", net.JoinHostPort(n.Addr.String(), fmt.Sprint(ftpPort)))
		if err != nil {
			if output.String() != "" {
				t.Fatalf("vsftpd: %s", output)
			}
			return false
		}
		conn.Close()
		return true
	})
}

func testFTPClients(t *testing.T, c *lab.Cluster, ipv6 bool) {
	curl := func(args ...string) []string {
		return append([]string{"curl", "-sSg", "--max-time", "20", "--no-ftp-skip-pasv-ip"}, args...)
	}
	lftp := func(settings string) []string {
		return []string{"lftp", "-e", "set cmd:fail-exit yes; set net:timeout 10; set net:max-retries 1; set ftp:fix-pasv-address no; " + settings}
	}
	for _, client := range []struct {
		name    string
		ipv4    bool // only
		active  bool
		command []string
	}{
		{"curl EPSV", false, false, curl()},
		{"curl PASV", true, false, curl("--disable-epsv")},
		{"curl EPRT", false, true, curl("--ftp-port", "-")},
		{"curl PORT", true, true, curl("--ftp-port", "-", "--disable-eprt")},
		{"lftp passive", false, false, lftp("set ftp:passive-mode yes; set ftp:prefer-epsv no;")},
		{"lftp EPSV", false, false, lftp("set ftp:passive-mode yes; set ftp:prefer-epsv yes;")},
		{"lftp active", false, true, lftp("set ftp:passive-mode no;")},
	} {
		if client.ipv4 && ipv6 {
			continue
		}
		t.Run(client.name, func(t *testing.T) {
			before := activeEntries(t, c)
			for range 2 { // one of each server
				getAndPut(t, c, client.command)
			}
			if n := activeEntries(t, c) - before; client.active && n < 4 || !client.active && n > 0 {
				t.Errorf("%d active data connections", n)
			}
		})
	}
}

// activeEntries is how many entries of active data connections there are.
func activeEntries(t *testing.T, c *lab.Cluster) int {
	t.Helper()
	at := " " + net.JoinHostPort(c.Config.VIP().String(), fmt.Sprint(ftpPort-1)) + " "
	return strings.Count(run(t, c.Director, "ipvsadm", "-L", "-n", "-c"), at)
}

// getAndPut has a client get the file of whichever server it meets, and put it to
// whichever it meets then.
func getAndPut(t *testing.T, c *lab.Cluster, command []string) {
	t.Helper()
	target := "ftp://" + net.JoinHostPort(c.Config.VIP().String(), fmt.Sprint(ftpPort)) + "/"
	got := filepath.Join(c.Dir(), "got")
	os.Remove(got)
	get := append(command[1:len(command):len(command)], "-o", got, target+"fetch")
	put := append(command[1:len(command):len(command)], "-T", got, target+"up/")
	if command[0] == "lftp" {
		settings := command[len(command)-1]
		get = []string{"-e", settings + " get fetch -o " + got + "; bye", target}
		put = []string{"-e", settings + " put " + got + " -o up/got; bye", target}
	}
	run(t, c.Client, command[0], get...)
	sum := digest(t, c.Client, got)
	if !isFileOfAServer(t, c, sum) {
		t.Errorf("what was got is no server's file")
	}
	run(t, c.Client, command[0], put...)
	found := 0
	for _, n := range c.Servers {
		file := filepath.Join(c.Dir(), n.Name, "files/up/got")
		if _, err := os.Stat(file); err != nil {
			continue
		}
		found++
		if digest(t, n, file) != sum {
			t.Errorf("%s has another file than was put", n.Name)
		}
		os.Remove(file)
	}
	if found != 1 {
		t.Errorf("%d servers have the file", found)
	}
}

func isFileOfAServer(t *testing.T, c *lab.Cluster, sum string) bool {
	for _, n := range c.Servers {
		if digest(t, n, filepath.Join(c.Dir(), n.Name, "files/fetch")) == sum {
			return true
		}
	}
	return false
}
