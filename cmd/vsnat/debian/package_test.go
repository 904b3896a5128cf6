// SPDX-License-Identifier: Apache-2.0

//go:build interop

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The Debian package installs, upgrades, is removed and purged, in a copy of this
// host that is thrown away: an overlay whose upper layer shows what was left.
func TestPackage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("dpkg installs for root alone")
	}
	folder := t.TempDir()
	packageFile, err := build(runtime.GOARCH, folder)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(folder, "host.sh")
	if err := os.WriteFile(script, []byte(packageHost), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--ipc", "sh", "-eu", script, packageFile)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	said := out.String()
	for _, want := range []string{
		"== purged\n== end\n", // and nothing in between
		"kept: /etc/vsnat/vsnat.yaml\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if t.Failed() {
		return
	}
	_, exposure, _ := strings.Cut(said, "exposure level for vsnat.service: ")
	t.Logf("systemd-analyze security: %s", strings.SplitN(exposure, "\n", 2)[0])
}

// packageHost is run in a mount namespace of its own, with the package's path. The
// exposure that systemd finds must stay below 3.0 of 10.
const packageHost = `
layers=$(mktemp -d)
mount -t tmpfs layers "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/host"
mount -t overlay host -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$layers/host"
mount -t proc proc "$layers/host/proc"
mount --bind /dev "$layers/host/dev"
cp "$1" "$layers/host/vsnat.deb"
cat > "$layers/host/inside.sh" <<'INSIDE'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
if dpkg -s vsnat >/dev/null 2>&1 || [ -e /usr/bin/vsnat ]; then
	echo 'this host has a vsnat already'
	exit 1
fi
dpkg -i /vsnat.deb
vsnat version
vsnat config check /etc/vsnat/vsnat.yaml
systemd-analyze verify /lib/systemd/system/vsnat.service
systemd-analyze security --offline=true --threshold=30 --no-pager /lib/systemd/system/vsnat.service
bash -c '. /usr/share/bash-completion/completions/vsnat; complete -p vsnat'
vsnat __complete conn li 2>/dev/null | grep -q '^list'
for page in vsnat vsnat-run vsnat-service-add; do
	grep -q '^[.]TH "VSNAT' /usr/share/man/man8/$page.8
done
man -l /usr/share/man/man8/vsnat-run.8 2>/dev/null | grep -q 'Be the director' || ! command -v man >/dev/null

echo '# of the operator' >> /etc/vsnat/vsnat.yaml
dpkg -i /vsnat.deb
grep -q '^# of the operator' /etc/vsnat/vsnat.yaml
dpkg -r vsnat
[ ! -e /usr/bin/vsnat ]
[ -e /etc/vsnat/vsnat.yaml ] && echo 'kept: /etc/vsnat/vsnat.yaml'
dpkg -P vsnat
rm /vsnat.deb /inside.sh
INSIDE
chroot "$layers/host" sh -eu /inside.sh
umount "$layers/host/dev" "$layers/host/proc" "$layers/host"
echo '== purged'
cd "$layers/upper"
find . ! -type d ! -type c | grep -vE '^[.]/(var/lib/dpkg|var/log|var/cache/man|run/systemd|tmp)/' || true
find . -type d | while read -r d; do
	[ -d "/$d" ] || echo "$d"
done
echo '== end'
`
