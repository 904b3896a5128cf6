// SPDX-License-Identifier: Apache-2.0

package iface

// Which links are served, when nobody named them and when somebody did.
//
// A frame must be seen once. On a bridge, bond or team it is seen by the port and
// again by the master, which is the one that carries IP; so ports are never
// served, whatever they are called. A link without carrier is served: the
// socket on it is cheap, and it works the moment the carrier comes.
//
// Names and patterns only narrow that choice. They are looked at again with
// each new topology, so that a link which comes later is served from then on.

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// AutoInterfaces is the pattern that stands for every link that can be served.
const AutoInterfaces = "auto"

// bundlingKinds are the masters whose ports carry frames and no IP of their own.
// The ports of a VRF are not among them: they do carry IP.
var bundlingKinds = []string{"bridge", "bond", "team", "openvswitch", "ovs-system", "hsr"}

// idleKinds are the kinds on which a frame is never received, or once more than
// on the link it came by.
var idleKinds = []string{"dummy", "ifb", "vrf", "nlmon"}

// UnservedError says why a name that was listed selects no link.
type UnservedError struct {
	Name   string
	Reason string
	// Hint is the next step; may be empty.
	Hint string
}

func (e *UnservedError) Error() string {
	s := fmt.Sprintf("interface %q %s", e.Name, e.Reason)
	if e.Hint != "" {
		s += "\nhint: " + e.Hint
	}
	return s
}

// Serving returns the links to serve, by index. Without patterns, or with "auto"
// among them: every one that is administratively up, Ethernet-like, not a
// loopback, not a port of a bridge, bond or team. Otherwise those of them whose
// name one of the patterns (path.Match) matches.
//
// The error, a join of *UnservedError, tells which plain names select nothing
// now and why, and which patterns are malformed. It comes beside the links, not
// instead of them: a name may be that of a link which comes later, and whether
// that is an error is the caller's to say. A pattern that matches nothing is none.
func (t Topology) Serving(patterns []string) ([]Link, error) {
	auto := len(patterns) == 0 || slices.Contains(patterns, AutoInterfaces)
	var problems []error
	for _, p := range patterns {
		if p == AutoInterfaces {
			continue
		}
		if _, err := path.Match(p, ""); err != nil {
			problems = append(problems, &UnservedError{Name: p, Reason: "is a malformed pattern", Hint: "`*`, `?` and `[a-z]` are known, as in a shell"})
			continue
		}
		if strings.ContainsAny(p, `*?[\`) {
			continue
		}
		if err := t.unserved(p); err != nil {
			problems = append(problems, err)
		}
	}

	var serving []Link
	for _, l := range t.Links {
		matches := func(p string) bool {
			ok, err := path.Match(p, l.Name)
			return ok && err == nil
		}
		if (auto || slices.ContainsFunc(patterns, matches)) && t.unservable(l) == nil {
			serving = append(serving, l)
		}
	}
	return serving, errors.Join(problems...)
}

// unserved tells what is wrong with a plain name; nil: nothing.
func (t Topology) unserved(name string) error {
	l, ok := t.LinkByName(name)
	if !ok {
		var names []string
		for _, l := range t.Links {
			if t.unservable(l) == nil {
				names = append(names, l.Name)
			}
		}
		hint := "no link of this host can be served"
		if len(names) > 0 {
			hint = "there are " + strings.Join(names, ", ")
		}
		return &UnservedError{Name: name, Reason: "does not exist", Hint: hint}
	}
	if err := t.unservable(l); err != nil {
		return err
	}
	return nil
}

// unservable tells why a link is never served; nil: it can be.
func (t Topology) unservable(l Link) *UnservedError {
	switch {
	case l.Loopback:
		return &UnservedError{Name: l.Name, Reason: "is the loopback"}
	case !l.Ethernet:
		return &UnservedError{Name: l.Name, Reason: "is not Ethernet-like"}
	case slices.Contains(idleKinds, l.Kind):
		return &UnservedError{Name: l.Name, Reason: "is a " + l.Kind + ", which receives no frames of its own"}
	case l.Master != 0 && slices.Contains(bundlingKinds, l.MasterKind):
		e := &UnservedError{Name: l.Name, Reason: "is a port of a " + l.MasterKind}
		if m, ok := t.LinkByIndex(l.Master); ok {
			e.Reason = fmt.Sprintf("is a port of the %s %s", l.MasterKind, m.Name)
			e.Hint = "name " + m.Name + " instead: it sees the same frames, and carries the addresses"
		}
		return e
	case !l.AdminUp:
		return &UnservedError{Name: l.Name, Reason: "is down", Hint: "ip link set " + l.Name + " up"}
	}
	return nil
}
