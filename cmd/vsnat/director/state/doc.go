// SPDX-License-Identifier: Apache-2.0

// Package state is the file that a director leaves for the one after it: what packets
// and checks have taught it, which no configuration says. It knows nothing of what is in
// the records; nat and director do.
//
// # The file
//
//	vsnat state 1\n              what it is, and the version of its form
//	{"boot":…,"since":…,…}\n     Header, as JSON
//	kind, length, body           records: a byte, two bytes in network order, and as much as they say
//	0, 12, count, checksum       the end: how many records there were, and CRC-32C of all bytes before
//
// A file is believed whole or not at all. Read finds out before it hands out the first
// record: of a file that was cut the end is missing, of another host's or one from before
// the last boot the boot is another, and one of a version that is not known is not
// guessed at. Records are added to within a version: a reader passes over kinds it does
// not know.
//
// # How it is written
//
// Write makes a new file beside it and renames that, so that there is a whole one or none
// of that name. It is not forced to the disk: after a crash of the host nobody would
// believe it. Memory of both is a buffer, whatever is in the file.
//
// # Who may write it
//
// What is in it becomes connections. So it is for its owner alone, and is read only if it
// is a regular file of the user of the process, or of root.
package state
