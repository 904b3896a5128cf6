// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrFlag is the error, wrapped with the flag, for a scheduler flag that does not
// exist or belongs to another scheduler.
var ErrFlag = errors.New("scheduler flag")

// Options are what a service can ask of its scheduler beyond its name. A scheduler
// takes what it knows and ignores the rest.
type Options struct {
	Flags Flags

	// Expiration is the time after which lblc forgets a destination nobody asked
	// for, and lblcr shrinks a set that did not change (IPVS's settings
	// lblc_expiration and lblcr_expiration). 0 is a day.
	Expiration time.Duration
}

// Flags change how a scheduler chooses (IP_VS_SVC_F_SCHED1 to 3). They belong to
// the service: its scheduler gives them a meaning, or none.
type Flags uint8

// The flags and the names that ipvsadm has for them.
const (
	Fallback Flags = 1 << iota // flag-1: sh-fallback, mh-fallback: if the server may not be chosen, look for another
	UsePort                    // flag-2: sh-port, mh-port: hash the client's port too
	Flag3                      // flag-3: no scheduler has a use for it
)

// flagNames are in the order in which they are listed. An owner is the scheduler
// that calls the flag so; the names without one are anybody's.
var flagNames = [...]struct {
	name  string
	owner string
	flag  Flags
}{
	{"sh-fallback", "sh", Fallback},
	{"sh-port", "sh", UsePort},
	{"mh-fallback", "mh", Fallback},
	{"mh-port", "mh", UsePort},
	{"flag-1", "", Fallback},
	{"flag-2", "", UsePort},
	{"flag-3", "", Flag3},
}

// ParseFlags reads flags as users write them for a scheduler, separated by commas:
// "sh-port,sh-fallback" or "flag-1". Nothing is no flag. The error is ErrFlag.
func ParseFlags(scheduler, text string) (Flags, error) {
	var flags Flags
	if text == "" {
		return 0, nil
	}
words:
	for word := range strings.SplitSeq(text, ",") {
		for _, n := range flagNames {
			if n.name == word && (n.owner == "" || n.owner == scheduler) {
				flags |= n.flag
				continue words
			}
		}
		return 0, fmt.Errorf("%w %q does not exist for %s (known: %s)", ErrFlag, word, scheduler, known(scheduler))
	}
	return flags, nil
}

// Format returns the flags as they are listed for a scheduler: what ParseFlags
// reads.
func (f Flags) Format(scheduler string) string {
	var words []string
	for _, n := range flagNames {
		if f&n.flag != 0 && (n.owner == "" || n.owner == scheduler) {
			words = append(words, n.name)
			f &^= n.flag
		}
	}
	return strings.Join(words, ",")
}

func known(scheduler string) string { return (Fallback | UsePort | Flag3).Format(scheduler) }
