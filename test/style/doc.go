// SPDX-License-Identifier: Apache-2.0

// Package style holds the rules of the house, as tests over the source tree:
// what is formatted how, who may import whom, how long a file may be, and what
// must be written down. It has no code of its own.
//
// Each rule is a table or a few lines; a failure names the file, the rule and
// its reason. A rule that hinders is changed here, with the reason, and not
// worked around.
package style
