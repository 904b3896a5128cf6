// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"os"
	"testing"

	"github.com/vsnat/vsnat/iface/ifacetest"
)

// TestMain gives the tests a network namespace of their own.
func TestMain(m *testing.M) { os.Exit(ifacetest.Main(m)) }
