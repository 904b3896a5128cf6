// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnknown is the error, wrapped with the known names, for a scheduler name
// that is not in the registry.
var ErrUnknown = errors.New("unknown scheduler")

// registry holds every scheduler that has a name, sorted by it. To add one,
// write its file and its line here.
var registry = [...]struct {
	name string
	new  func() Scheduler
}{
	{"dh", newDestinationHash},
	{"fo", newFailover},
	{"lblc", newLocalLeastConn},
	{"lblcr", newLocalLeastConnReplicated},
	{"lc", newLeastConn},
	{"mh", newMaglev},
	{"nq", newNeverQueue},
	{"ovf", newOverflow},
	{"rr", newRoundRobin},
	{"sed", newShortestDelay},
	{"sh", newSourceHash},
	{"twos", newPowerOfTwo},
	{"wlc", newWeightedLeastConn},
	{"wrr", newWeightedRoundRobin},
}

// Names returns the names of all registered schedulers, sorted.
func Names() []string {
	names := make([]string, len(registry))
	for i := range registry {
		names[i] = registry[i].name
	}
	return names
}

// New returns a fresh scheduler of that name, or ErrUnknown.
func New(name string) (Scheduler, error) {
	for i := range registry {
		if registry[i].name == name {
			return registry[i].new(), nil
		}
	}
	return nil, fmt.Errorf("%w %q (known: %s)", ErrUnknown, name, strings.Join(Names(), ", "))
}
