// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	_ "embed"
	"fmt"
	"io"
)

// versionLine is what -v prints. Scripts read the tool's version from it.
const versionLine = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)"

// usage is what -h prints after the version, in the words people know.
//
//go:embed usage.txt
var usage string

func printVersion(w io.Writer) { fmt.Fprintln(w, versionLine) }

func printHelp(w io.Writer) {
	printVersion(w)
	io.WriteString(w, usage)
}
