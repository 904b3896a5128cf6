// SPDX-License-Identifier: Apache-2.0

// Package conntrack remembers connections.
package conntrack
