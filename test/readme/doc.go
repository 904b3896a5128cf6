// SPDX-License-Identifier: Apache-2.0

// Package readme tests README.md. Its blocks are what their language says:
//
//	yaml     a configuration, which the director must accept
//	console  a session: "$ " lines are run, one after another, with a vsnat built
//	         from the tree, and must print what stands below them
//	sh       commands that are not run; vsnat must know them and their flags
//	text     pictures, which "vsnat lab draw" must print
//
// Commands in the running text that begin with vsnat or ipvsadm are checked like
// those of sh blocks. What differs from run to run (process numbers, ports,
// durations, states of connections that just end) is compared by its shape, and
// a line "…" stands for any lines.
package readme
