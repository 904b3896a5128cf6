// SPDX-License-Identifier: Apache-2.0

// Package memory lets tests and benchmarks with large tables skip themselves where
// the machine is too small. It does not import package testing: the test's own value
// satisfies [TB].
package memory
