// SPDX-License-Identifier: Apache-2.0

// Debian makes a Debian package of vsnat:
//
//	go run ./cmd/vsnat/debian
//
// It builds the program for the architecture that is asked for, has a build for
// this host write the manual, the completions and the unit, and leaves the rest to
// nfpm, which go run fetches: it is no part of the module, since nothing of vsnat
// needs it.
//
// Package and program have the version that the toolchain gives the build. The
// package starts nothing when it is installed, and its configuration serves nothing:
// a director that took an address by itself would be a surprise. Removed and purged,
// nothing of it is left.
package main
