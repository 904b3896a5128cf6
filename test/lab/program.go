// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programVariable tells linkPrograms where MainBuilt put the program.
const programVariable = "VSNAT_LAB_PROGRAM"

// MainBuilt is Main for tests of the whole program: it builds the package in a
// directory, which is relative to that of the tests, and commands of nodes find
// the result under the names of vsnat and ipvsadm. It is built inside of the lab
// and in its run directory, so that it goes away with it.
func MainBuilt(m interface{ Run() int }, directory string) int {
	return Main(builtFirst{m, directory}, nil)
}

type builtFirst struct {
	tests     interface{ Run() int }
	directory string
}

// Run builds the program and runs the tests.
func (b builtFirst) Run() int {
	file := filepath.Join(RunDir(), "vsnat.program")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", file, b.directory)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build %s: %v\n%s", b.directory, err, out)
		return 1
	}
	os.Setenv(programVariable, file)
	return b.tests.Run()
}
