// SPDX-License-Identifier: Apache-2.0

package director

import (
	"os"
	"testing"

	"github.com/vsnat/vsnat/iface/ifacetest"
)

// The tests run in a network namespace of their own. Run gives up capabilities
// for the whole process, so that it has one of its own too; see run_test.go.
func TestMain(m *testing.M) {
	if file := os.Getenv(runFile); file != "" {
		os.Exit(runAlone(file))
	}
	os.Exit(ifacetest.Main(m))
}
