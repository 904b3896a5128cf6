// SPDX-License-Identifier: Apache-2.0

// Package recorded has sessions of ipvsadm 1.31 on a real kernel (Linux 6.1), for
// tests to play again. A line "$ command" was typed on the director, lines "1| "
// and "2| " are what it wrote to its output and its error output, verbatim, and
// "=> n" is its exit code; a line "# " is a remark.
package recorded
