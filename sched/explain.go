// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"slices"
	"strings"
)

// Sentences that several schedulers say. What they call by name is a server, what
// stands in front of an arrow was so before the choice.

// nobody is the reason for no choice.
const nobody = "no server has a weight above 0 and room"

// whyNot is why a server that is not Eligible may not be chosen.
func whyNot(s *Server) string {
	if s.Overloaded() {
		return "over its threshold"
	}
	return "weight 0"
}

// whose tells the owner of a bucket, and whether it may be chosen.
func whose(s *Server, name Namer) string {
	switch {
	case s == nil:
		return "which belongs to nobody"
	case s.Eligible():
		return "which is " + name(s) + "'s"
	default:
		return "which is " + name(s) + "'s, " + whyNot(s)
	}
}

// place is where a cursor stands.
func place(servers []*Server, last int, name Namer) string {
	if last == beforeHead || last >= len(servers) {
		return "before the head"
	}
	return "at " + name(servers[last])
}

// skipped lists the servers that a cursor passed over on its way from one place
// to another, with the reasons.
func skipped(servers []*Server, from, to int, name Namer) string {
	var words []string
	for range servers {
		if from++; from >= len(servers) {
			from = 0
		}
		if from == to {
			break
		}
		words = append(words, name(servers[from])+": "+whyNot(servers[from]))
	}
	if words == nil {
		return ""
	}
	return " (passing " + strings.Join(words, ", ") + ")"
}

// whyLeast says that s has the least of something per weight, and who is next.
func whyLeast(servers []*Server, s *Server, what string, cost func(*Server) int64, name Namer) string {
	if s == nil {
		return nobody
	}
	why := fmt.Sprintf("smallest %s: %s %s", what, name(s), ratio(s, cost))
	others := slices.DeleteFunc(slices.Clone(servers), func(o *Server) bool { return o == s })
	next := leastPerWeight(others, cost)
	switch {
	case next == nil:
		return why
	case cost(s)*int64(next.Weight()) == cost(next)*int64(s.Weight()):
		return fmt.Sprintf("%s; %s %s is equal but stands later", why, name(next), ratio(next, cost))
	default:
		return fmt.Sprintf("%s; then %s %s", why, name(next), ratio(next, cost))
	}
}

func ratio(s *Server, cost func(*Server) int64) string {
	return fmt.Sprintf("%d/%d", cost(s), s.Weight())
}

// whatLoad is a load and what it is made of.
func whatLoad(s *Server) string {
	active, inactive := s.Conns()
	return fmt.Sprintf("%d (%d active, %d inactive)", load(s), active, inactive)
}
