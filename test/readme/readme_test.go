// SPDX-License-Identifier: Apache-2.0

package readme

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
	"github.com/vsnat/vsnat/sched"
	"github.com/vsnat/vsnat/test/lab"
)

// TestMain lets the test binary stand in for curl, which a machine with nothing
// but Go has not.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "curl" {
		os.Exit(curl(os.Args[len(os.Args)-1]))
	}
	os.Exit(m.Run())
}

func curl(url string) int {
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		return 1
	}
	defer response.Body.Close()
	io.Copy(os.Stdout, response.Body)
	return 0
}

func TestConfigurations(t *testing.T) {
	for _, b := range readPage(t).of(t, "yaml") {
		if _, err := config.Parse("README.md", []byte(b.text)); err != nil {
			t.Errorf("README.md:%d: %v", b.line, err)
		}
	}
}

// The smallest configuration is the one that `vsnat config init` prints.
func TestMinimalConfiguration(t *testing.T) {
	shown, err := config.Parse("README.md", []byte(readPage(t).of(t, "yaml")[0].text))
	if err != nil {
		t.Fatal(err)
	}
	printed, err := config.Parse("minimal", []byte(config.Minimal()))
	if err != nil {
		t.Fatal(err)
	}
	if changes := config.Diff(printed, shown); len(changes) != 0 {
		t.Errorf("README.md shows another configuration than vsnat config init prints: %v", changes)
	}
}

func TestPicture(t *testing.T) {
	want, err := lab.Draw(lab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range readPage(t).of(t, "text") {
		if b.text != want {
			t.Errorf("README.md:%d: vsnat lab draw prints\n%s", b.line, want)
		}
	}
}

// The schedulers that README names are those there are.
func TestSchedulers(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sentence := regexp.MustCompile(`(?m)^- Schedulers[^.]*\.`).FindString(string(text))
	var named []string
	for _, m := range inline.FindAllStringSubmatch(sentence, -1) {
		named = append(named, m[1])
	}
	slices.Sort(named)
	if !slices.Equal(named, sched.Names()) {
		t.Errorf("README.md names the schedulers %v, there are %v", named, sched.Names())
	}
}

// Every command that is named exists, with its flags.
func TestCommands(t *testing.T) {
	p := readPage(t)
	lines := p.code
	for _, b := range slices.Concat(p.of(t, "sh"), p.of(t, "console")) {
		for l := range strings.Lines(b.text) {
			l = strings.TrimSpace(strings.TrimPrefix(l, "$ "))
			lines = append(lines, strings.ReplaceAll(l, "go run ./cmd/vsnat", "vsnat"))
		}
	}
	vsnat := build(t)
	checked := 0
	for _, l := range lines {
		l, _, _ = strings.Cut(l, " > ")
		argv := strings.Fields(l)
		if len(argv) == 0 {
			continue
		}
		// What `lab exec NODE --` runs is a command as well.
		if i := slices.Index(argv, "--"); i > 0 && i+1 < len(argv) {
			checked += check(t, vsnat, argv[i+1:])
			argv = argv[:i]
		}
		checked += check(t, vsnat, argv)
	}
	if checked < 30 {
		t.Errorf("only %d commands found in README.md", checked)
	}
}

// check checks one command and returns 1 if it is one of ours.
func check(t *testing.T, vsnat string, argv []string) int {
	t.Helper()
	if len(argv) < 2 {
		return 0
	}
	switch argv[0] {
	case "ipvsadm":
		checkIpvsadm(t, argv[1:])
	case "vsnat":
		if argv[1] == "ipvsadm" {
			checkIpvsadm(t, argv[2:])
			break
		}
		checkVsnat(t, vsnat, argv[1:])
	default:
		return 0
	}
	return 1
}

func checkIpvsadm(t *testing.T, args []string) {
	t.Helper()
	if _, err := ipvsadm.Parse("ipvsadm", args, numbers{}); err != nil {
		t.Errorf("ipvsadm %s: %v", strings.Join(args, " "), err)
	}
}

// checkVsnat asks the help of a command for its path and flags.
func checkVsnat(t *testing.T, vsnat string, args []string) {
	t.Helper()
	var path, flags []string
	for _, a := range args {
		switch {
		case strings.HasPrefix(a, "-"):
			flags = append(flags, a)
		case len(flags) == 0:
			path = append(path, a)
		}
	}
	// Arguments follow the path: it ends where no command goes on.
	help, known := "", len(path)
	for ; known > 0; known-- {
		out, err := exec.Command(vsnat, append(slices.Clone(path[:known]), "--help")...).CombinedOutput()
		usage := regexp.MustCompile(`(?m)^  vsnat ` + regexp.QuoteMeta(strings.Join(path[:known], " ")) + `( |$)`)
		if err == nil && usage.Match(out) {
			help = string(out)
			break
		}
	}
	if help == "" || strings.Contains(help, "Available Commands:") && known < len(path) {
		t.Errorf("there is no command vsnat %s", strings.Join(path, " "))
		return
	}
	for _, f := range flags {
		if !regexp.MustCompile(`(?m)^ +(-\w, )?(--[\w-]+, )*` + regexp.QuoteMeta(f) + `\b`).MatchString(help) {
			t.Errorf("vsnat %s has no %s", strings.Join(path, " "), f)
		}
	}
}

// numbers knows no names: README has none.
type numbers struct{ ipvsadm.Resolver }

// Sessions print what README shows.
func TestSessions(t *testing.T) {
	vsnat := build(t)
	bin := filepath.Dir(vsnat)
	self, err := os.Executable() // by its path: the lab has processes of its own
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "curl")); err != nil {
		t.Fatal(err)
	}
	// A lab of its own, not the one that a user may have up; in a short path,
	// because that of a socket must be.
	run, err := os.MkdirTemp("/tmp", "readme")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	environ := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_RUNTIME_DIR="+run)

	for _, b := range readPage(t).of(t, "console") {
		session(t, b, environ, vsnat)
	}
}

// session runs the commands of a block.
func session(t *testing.T, b block, environ []string, vsnat string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	defer func() {
		down := exec.Command(vsnat, "lab", "down") // if the session failed before
		down.Env = environ
		down.Run()
	}()
	for part := range strings.SplitSeq("\n"+b.text, "\n$ ") {
		command, want, _ := strings.Cut(part, "\n")
		if command == "" {
			continue
		}
		argv := strings.Fields(strings.ReplaceAll(command, "go run ./cmd/vsnat", "vsnat"))
		if argv[0] != "vsnat" {
			t.Fatalf("README.md:%d: a session can't run %q", b.line, argv[0])
		}
		cmd := exec.CommandContext(ctx, vsnat, argv[1:]...)
		cmd.Env = environ
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("README.md:%d: %s: %v\n%s", b.line, command, err, out)
		}
		if !agree(shape(want), shape(string(out))) {
			t.Errorf("README.md:%d: %s prints\n%s\nand not\n%s", b.line, command, out, want)
		}
	}
}

// build builds vsnat into a directory that may be put on the PATH.
func build(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vsnat")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", file, "../../cmd/vsnat")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// shape replaces what differs from run to run, and trims the lines.
func shape(text string) []string {
	for _, r := range []struct{ pattern, by string }{
		{`\b(\d+m)?[\d.]+(s|ms|µs)\b`, "DURATION"},
		{`\bprocess \d+`, "process NUMBER"},
		{`:\d{4,5}\b`, ":PORT"},
		// The two last packets of a connection may still be on their way.
		{`\b(TIME_WAIT|FIN_WAIT|CLOSE_WAIT|LAST_ACK|ESTABLISHED|CLOSE)\b`, "STATE"},
		{`(Masq +\d+) +\d+ +\d+`, "$1 COUNTS"},
		{`[ \t]+`, " "},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.by)
	}
	var lines []string
	for l := range strings.SplitSeq(text, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// agree compares two shapes; "…" in want stands for any lines.
func agree(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "…" {
		for i := range len(got) + 1 {
			if agree(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && want[0] == got[0] && agree(want[1:], got[1:])
}

func TestAgree(t *testing.T) {
	for _, row := range []struct {
		want, got string
		agree     bool
	}{
		{"a\nb", "a\nb", true},
		{"a\nb", "a", false},
		{"a", "a\nb", false},
		{"", "a", false},
		{"…", "", true},
		{"…\nb", "x\ny\nb", true},
		{"…\nb", "x\ny", false},
		{"ready in 24ms, process 23", "ready in 1.5s,  process 7 ", true},
		{"from 192.168.88.23:46670", "from 192.168.88.23:38100", true},
		{"from 192.168.88.23:46670", "from 10.0.0.2:46670", false},
		{"to 192.168.88.23:80", "to 192.168.88.23:81", false},
	} {
		if got := agree(shape(row.want), shape(row.got)); got != row.agree {
			t.Errorf("%q and %q: %v, want %v", row.want, row.got, got, row.agree)
		}
	}
}
