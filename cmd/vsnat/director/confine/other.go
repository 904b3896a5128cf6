// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 && !arm64

package confine

import "errors"

// A Policy says what calls a process may make no more.
type Policy struct{}

// Programs is for what runs programs for checks, and for these.
func Programs() Policy { return Policy{} }

// Director is for a director that serves.
func Director() Policy { return Policy{} }

// Calls puts a policy in force, or says why it cannot be had here.
func Calls(Policy) error { return errors.New("no filter is known for this processor") }
