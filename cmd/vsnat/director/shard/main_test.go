// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"os"
	"testing"

	"github.com/vsnat/vsnat/iface/ifacetest"
)

// The tests run in a network namespace of their own.
func TestMain(m *testing.M) { os.Exit(ifacetest.Main(m)) }
