// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// A field is a flag and what it sets of a spec, which add makes of all flags and
// edit of those that were given.
type field[T any] struct {
	flag string
	set  func(*T)
}

// setAll sets every field of a spec.
func setAll[T any](spec *T, fields []field[T]) {
	for _, f := range fields {
		f.set(spec)
	}
}

// given are the fields whose flags were; it refuses an edit without any.
func given[T any](c *cobra.Command, fields []field[T]) ([]field[T], error) {
	list := slices.DeleteFunc(slices.Clone(fields), func(f field[T]) bool { return !c.Flags().Changed(f.flag) })
	if len(list) > 0 {
		return list, nil
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.flag
	}
	return nil, usageError{fmt.Errorf("nothing to change"), "give at least one of --" + strings.Join(names, ", --")}
}
