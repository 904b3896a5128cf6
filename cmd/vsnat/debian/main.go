// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0"

// parts are what a package has beside what is built.
//
//go:embed nfpm.yaml postinst prerm postrm vsnat.yaml
var parts embed.FS

func main() {
	arch := flag.String("arch", runtime.GOARCH, "architecture: amd64 or arm64")
	target := flag.String("o", "dist", "folder that the package is written to")
	flag.Parse()
	path, err := build(*arch, *target)
	if err != nil {
		fmt.Fprintln(os.Stderr, "debian:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// build makes the package in the folder target and returns its path. It is to be
// called in the module.
func build(arch, target string) (string, error) {
	root, err := output("go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	stage, err := os.MkdirTemp("", "vsnat-debian-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(stage)
	if err := fill(stage, root, arch); err != nil {
		return "", err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return "", err
	}
	name, err := output(filepath.Join(stage, "host"), "version")
	if err != nil {
		return "", err
	}
	version := strings.Fields(name)[1]
	if version == "unknown" || version == "(devel)" {
		version = "v0.0.0"
	}
	if target, err = filepath.Abs(target); err != nil {
		return "", err
	}
	c := exec.Command("go", "run", nfpm, "package", "--packager", "deb", "--config", "nfpm.yaml", "--target", target)
	c.Dir = stage
	c.Env = append(os.Environ(), "ARCH="+arch, "VERSION="+version)
	c.Stderr = os.Stderr
	said, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("nfpm: %w\n%s", err, said)
	}
	_, path, found := strings.Cut(string(said), "created package: ")
	if !found {
		return "", fmt.Errorf("nfpm says what it did in other words: %s", said)
	}
	return strings.TrimSpace(path), nil
}

// fill puts into stage all that nfpm.yaml names.
func fill(stage, root, arch string) error {
	if err := os.CopyFS(stage, parts); err != nil {
		return err
	}
	for _, b := range []struct{ arch, name string }{{arch, "vsnat"}, {runtime.GOARCH, "host"}} {
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(stage, b.name), "./cmd/vsnat")
		c.Dir = root
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.arch)
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("building for %s: %w", b.arch, err)
		}
	}
	host := filepath.Join(stage, "host")
	if _, err := output(host, "man", filepath.Join(stage, "man")); err != nil {
		return err
	}
	for name, args := range map[string][]string{
		"vsnat.service": {"install-unit", "--binary", "/usr/bin/vsnat"},
		"vsnat.bash":    {"completion", "bash"},
		"_vsnat":        {"completion", "zsh"},
		"vsnat.fish":    {"completion", "fish"},
	} {
		text, err := output(host, args...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(stage, name), []byte(text+"\n"), 0o644); err != nil {
			return err
		}
	}
	for name, from := range map[string]string{"copyright": "LICENSE", "README.md": "README.md"} {
		text, err := os.ReadFile(filepath.Join(root, from))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(stage, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program and returns what it prints, without the last line's end.
func output(name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said.Bytes())
	}
	return strings.TrimRight(string(out), "\n"), nil
}
