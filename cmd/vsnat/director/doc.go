// SPDX-License-Identifier: Apache-2.0

// Package director is the control plane: it reads the configuration, decides,
// and tells the packet loops what to do.
package director
