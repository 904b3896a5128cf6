// SPDX-License-Identifier: Apache-2.0

// Package ifacetest stands in for the network in tests.
//
// [NewPair] makes two queues joined like the ends of a cable: what is written to
// one is read from the other, offload header and all. They live in memory, obey
// the contract of [iface.Queue], can be watched by a real [iface.Poller], remember
// what was sent, and fail when told to.
//
// [Main] runs the tests of a package in a network namespace of their own, as root
// or as an ordinary user, and [NewNamespace] makes further ones, for tests that
// need real links:
//
//	func TestMain(m *testing.M) { os.Exit(ifacetest.Main(m)) }
//
// Nothing here imports package testing: the test's own values satisfy the small
// interfaces [Runner] and [TB].
package ifacetest
