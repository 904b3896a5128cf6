// SPDX-License-Identifier: Apache-2.0

package config

import _ "embed"

//go:embed minimal.yaml
var minimal string

//go:embed reference.yaml
var reference string

// Minimal is the text of a small complete configuration, of the reference
// cluster.
func Minimal() string { return minimal }

// Reference is the text of a configuration with every key and what it means.
func Reference() string { return reference }
