// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/test/lab"
)

func TestJudgeAnswers(t *testing.T) {
	for _, row := range []struct {
		scheduler string
		servers   int
		answers   string
		want      string // "" stands for an error
	}{
		{"rr", 3, "cbacbacba", "the 3 servers answered in turn"},
		{"wrr", 2, "abab", "the 2 servers answered in turn"},
		{"rr", 1, "aa", "the server answered each time"},
		{"rr", 3, "cbacabcba", ""},
		{"rr", 3, "cbcbcb", ""},
		{"rr", 3, "aaaaaa", ""},
		{"sh", 3, "aaaaaa", "sh: 1 of 3 servers answered"},
		{"lc", 2, "abba", "lc: 2 of 2 servers answered"},
	} {
		got, err := judgeAnswers(row.scheduler, row.servers, strings.Split(row.answers, ""))
		if got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s of %d, %s: got %q, %v, want %q", row.scheduler, row.servers, row.answers, got, err, row.want)
		}
	}
}

func TestLabSteps(t *testing.T) {
	var out strings.Builder
	s := newLabSteps(&out)
	s.do("walk", func() (string, error) { return "a mile", nil })
	s.do("rest", func() (string, error) { return "", nil })
	if s.failed {
		t.Error("failed before anything did")
	}
	fault := errors.New("a wall\nhint: go round")
	if err := s.do("run", func() (string, error) { return "", fault }); err != fault || !s.failed {
		t.Errorf("got %v, failed %v", err, s.failed)
	}
	const want = "  ✓ walk: a mile\n  ✓ rest\n  ✗ run: a wall\n      hint: go round\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// What lab up is told it hands to lab hold, which must know it; and what can't be
// built is refused.
func TestLabFlags(t *testing.T) {
	hold := newLabHoldCommand().Flags()
	newLabUpCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if hold.Lookup(f.Name) == nil {
			t.Errorf("lab hold has no --%s", f.Name)
		}
	})
	for _, wrong := range []labOptions{
		{servers: 1, clients: 1, vip: "there"},
		{servers: 0, clients: 1, vip: "nic"},
		{servers: 1, clients: -1, vip: "nic"},
		{servers: 1, clients: 1, vip: "bare", io: "tun"},
	} {
		if c, err := wrong.config(); err == nil {
			t.Errorf("%+v was accepted as %+v", wrong, c)
		}
	}
}

// TestLabTakesAConfiguration: lab up -c has the director read that file, with what it
// includes in its folder.
func TestLabTakesAConfiguration(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"mine.yaml": "include: [more.yaml]\nmax-conns: 77\n",
		"more.yaml": "services:\n  - tcp: 192.168.88.23:81\n    servers: [10.0.0.2]\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := labOptions{file: filepath.Join(folder, "mine.yaml"), io: "packet"}
	own := filepath.Join(t.TempDir(), "vsnat.yaml")
	if err := os.WriteFile(own, []byte(o.director(lab.Config{Host: lab.HostBare})), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Read(own)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 1 || c.MaxConns != 77 || len(c.Addresses) != 2 {
		t.Errorf("%+v", c)
	}
}
