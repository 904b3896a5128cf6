// SPDX-License-Identifier: Apache-2.0

// Package controltest has a director for tests of everything that speaks to
// one: it serves no packet, but keeps services, servers and rules, and refuses
// what a director refuses, in the same words.
package controltest
