// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeFiles makes files of texts that are separated as in a txtar archive.
func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Several files are the configuration that they make together, in the order of
// their names, each relative to the one that names it.
func TestInclude(t *testing.T) {
	writeFiles(t, map[string]string{
		"v.yaml": "include: [conf.d/*.yaml, none/*.yaml, more.yaml]\n" +
			"guard: nft\nsettings: {sloppy_tcp: 1}\naddresses: [10.0.0.1/24]\nservices: [{tcp: 192.0.2.1:80}]\n",
		"conf.d/20.yaml":     "services: [{tcp: 192.0.2.1:82}]\nlog: {format: json}\n",
		"conf.d/10.yaml":     "include: deep/x.yaml\nservices: [{tcp: 192.0.2.1:81}]\nlog: {level: debug}\naddresses: 10.1.0.1/24\n",
		"conf.d/deep/x.yaml": "snat: [{from: 10.0.0.0/24, to: 192.0.2.1}]\nsettings: {drop_entry: 1}\n",
		"conf.d/.20.yaml":    "what an editor keeps",
		"conf.d/20.yaml.bak": "is no pattern's",
		"more.yaml":          "services: [{tcp: 192.0.2.1:83}]\n",
	})
	want, err := Parse("one", []byte("guard: nft\nsettings: {sloppy_tcp: 1, drop_entry: 1}\naddresses: [10.0.0.1/24, 10.1.0.1/24]\nlog: {level: debug, format: json}\n"+
		"services: [{tcp: 192.0.2.1:80}, {tcp: 192.0.2.1:81}, {tcp: 192.0.2.1:82}, {tcp: 192.0.2.1:83}]\nsnat: [{from: 10.0.0.0/24, to: 192.0.2.1}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read("v.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := string(Marshal(got)), string(Marshal(want)); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
	if got, err = ReadFrom("standard input", strings.NewReader("include: more.yaml")); err != nil || len(got.Services) != 1 {
		t.Errorf("from standard input: %+v, %v", got, err)
	}
}

// A mistake is told where it is, in whichever file that is, and with the other
// place if there are two.
func TestIncludeMistakes(t *testing.T) {
	deep := map[string]string{}
	for i := range 20 {
		deep[fmt.Sprintf("%d.yaml", i)] = fmt.Sprintf("include: %d.yaml\n", i+1)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"mistakes in several files", map[string]string{"0.yaml": "include: [d/a.yaml, d/b.yaml]\nio: x\n", "d/a.yaml": "services:\n  - tcp: 192.0.2.1:80\n    weight: 3\n", "d/b.yaml": "\nguard: y\n"},
			`0.yaml:2:5: io can't be "x" | d/a.yaml:3:5: unknown key "weight" | d/b.yaml:2:8: guard can't be "y"`},
		{"a service in two files", map[string]string{"0.yaml": "include: a.yaml\nservices: [{tcp: 192.0.2.1:80}]\n", "a.yaml": "services:\n- tcp: 192.0.2.1:80\n"},
			"a.yaml:2:8: service tcp 192.0.2.1:80 is given twice, first in 0.yaml:2"},
		{"a server is a service of another file", map[string]string{"0.yaml": "include: a.yaml\nservices: [{tcp: 192.0.2.1:80, servers: [192.0.2.2]}]\n", "a.yaml": "services:\n- tcp: 192.0.2.2:80\n"},
			"0.yaml:2:42: server 192.0.2.2 is the address of the service in a.yaml:2"},
		{"a setting in two files", map[string]string{"0.yaml": "include: a.yaml\nio: tun\nlog: debug\nsettings: {sloppy_tcp: 1}\n", "a.yaml": "io: tun\nlog: {level: info}\nsettings: {sloppy_tcp: 1}\n"},
			`a.yaml:1:5: io is given twice, first in 0.yaml:2 | a.yaml:2:14: level is given twice, first in 0.yaml:3 | a.yaml:3:12: "sloppy_tcp" is given twice, first in 0.yaml:4`},
		{"no such file", map[string]string{"0.yaml": "guard: nft\ninclude:\n  - a.yaml\n"}, "0.yaml:3:5: a.yaml: there is no such file"},
		{"a folder", map[string]string{"0.yaml": "include: d\n", "d/x": ""}, "0.yaml:1:10: d: is a directory, not a file"},
		{"an empty file", map[string]string{"0.yaml": "include: a.yaml\n", "a.yaml": "# nothing\n"}, "a.yaml: the configuration is empty"},
		{"not YAML", map[string]string{"0.yaml": "include: a.yaml\n", "a.yaml": "io: tun\n\tx: 1\n"}, "a.yaml:2:1: found character '\t' that cannot start any token"},
		{"no name", map[string]string{"0.yaml": "include: ''\n"}, "0.yaml:1:10: the name of the file is empty"},
		{"not a pattern", map[string]string{"0.yaml": "include: ['a[.yaml']\n"}, `0.yaml:1:11: "a[.yaml" is not a pattern`},
		{"itself", map[string]string{"0.yaml": "include: ['*.yaml']\n"}, "0.yaml:1:11: 0.yaml includes itself"},
		{"a circle", map[string]string{"0.yaml": "io: tun\ninclude: a.yaml\n", "a.yaml": "include: b.yaml\n", "b.yaml": "guard: nft\ninclude: [0.yaml]\n"},
			"b.yaml:2:11: 0.yaml includes what includes it, at 0.yaml:2:10"},
		{"twice", map[string]string{"0.yaml": "include:\n- a.yaml\n- ./d/../a.yaml\n", "a.yaml": "io: tun\n", "d/x": ""}, "0.yaml:3:3: a.yaml is included twice, first at 0.yaml:2:3"},
		{"too deep", deep, "8.yaml:1:10: files include files more than 8 deep"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			writeFiles(t, tt.files)
			_, err := Read("0.yaml")
			if got := inOneLine(t, err); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	_, err := Parse("f", []byte("include: a.yaml"))
	if got := inOneLine(t, err); got != "f:1:10: there are no other files here to include" {
		t.Error(got)
	}
}

// A circle by a symbolic link is one too, and files are not
// larger together than one may be.
func TestIncludeBounds(t *testing.T) {
	writeFiles(t, map[string]string{"0.yaml": "include: d/link.yaml\n", "d/x": ""})
	if err := os.Symlink("../0.yaml", "d/link.yaml"); err != nil {
		t.Fatal(err)
	}
	_, err := Read("0.yaml")
	if got := inOneLine(t, err); got != "0.yaml:1:10: d/link.yaml includes itself" {
		t.Error(got)
	}
	writeFiles(t, map[string]string{"0.yaml": "include: [a.yaml, b.yaml]\n", "a.yaml": "io: tun\n", "b.yaml": strings.Repeat("#", MaxFile)})
	_, err = Read("0.yaml")
	if got := inOneLine(t, err); got != "b.yaml: the file is larger than 16 MiB, with those before it" {
		t.Error(got)
	}
}

// Values, and nothing else, may refer to the environment.
func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{"VIP": "192.0.2.1", "EMPTY": "", "PORT": "80", "BROKEN": "a\nb", "BYTE": "\xff", "WORD": "tru: [e"} {
		t.Setenv(name, value)
	}
	for _, tt := range []struct{ text, want string }{
		{"services:\n- tcp: ${VIP}:${PORT}\n", "services:\n  - tcp: 192.0.2.1:80\n    scheduler: wlc\n"},
		{"services:\n- tcp: ${NONE:-192.0.2.7}:80\n  scheduler: ${EMPTY:-rr}\n  servers: ['${NONE:-10.0.0.2}', \"${NONE:-10.0.0.3}\"]\n",
			"services:\n  - tcp: 192.0.2.7:80\n    scheduler: rr\n    servers:\n      - 10.0.0.2:80\n      - 10.0.0.3:80\n"},
		{"max-conns: ${NONE:-5}\n", "max-conns: 5\n"},
		{"control: {group: '$$HOME $VIP $$${PORT}$'}\n", "control:\n  group: \"$$HOME $$VIP $$80$$\"\n"},
		{"control: {group: '${WORD}'}\n", "control:\n  group: \"tru: [e\"\n"},
		{"settings: {sloppy_tcp: '${ONE:-1}'}\n", "settings:\n  sloppy_tcp: 1\n"},

		{"io: ${NONE}\n", "f:1:5: NONE is not set in the environment"},
		{"io: ${EMPTY}\n", `f:1:5: io can't be ""`},
		{"io: ${NONE\n", "f:1:5: a reference to the environment is never closed"},
		{"io: ${A-B}\n", "f:1:5: ${A-B} does not name a variable"},
		{"control: '${BROKEN}'\n", "f:1:10: the value of BROKEN in the environment has a line break or a tab"},
		{"control: '${BYTE}'\n", "f:1:10: the value of BYTE in the environment has a byte that is not UTF-8"},
		{"${WORD}: 1\n", `f:1:1: unknown key "${WORD}"`},
		{"services:\n- tcp: 192.0.2.1:80\n  servers: [${VIP}]\n", "f:3:13: a reference to the environment is not in quotes"},
		{"addresses: [\"10.0.0.1/24\", 10.0.0.${N}]\n", "f:1:28: a reference to the environment is not in quotes"},
	} {
		c, err := ReadFrom("f", strings.NewReader(tt.text))
		got := ""
		if err != nil {
			got = inOneLine(t, err)
		} else {
			got = string(Marshal(c))
			if again, err := Parse("again", []byte(got)); err != nil || string(Marshal(again)) != got {
				t.Errorf("%s: read again it is %+v, %v", got, again, err)
			}
		}
		if got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.text, got, tt.want)
		}
	}
	_, err := Parse("f", []byte("io: ${VIP}\nlog: $$\n"))
	if got := inOneLine(t, err); got != `f:1:5: there is no environment here: ${VIP} means nothing | f:2:6: the log level can't be "$"` {
		t.Error(got)
	}
}
