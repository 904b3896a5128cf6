// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/netip"
	"time"
)

// Check is one check of one server, and where it stands. Services that ask for the
// same one of the same server share it.
type Check struct {
	Services []ServiceKey   `json:"services"`
	Server   netip.AddrPort `json:"server"`
	Type     string         `json:"type"`
	Target   string         `json:"target"` // what is checked, for people

	State   string    `json:"state"` // up, down or unknown
	Since   time.Time `json:"since,omitzero"`
	Held    time.Time `json:"held,omitzero"`     // down until then at least, for having flapped
	Outcome string    `json:"outcome"`           // of the last one: good, bad or impossible; "": there was none yet
	Text    string    `json:"text"`              // of the last one
	At      time.Time `json:"at,omitzero"`       // of the last one
	Latency Duration  `json:"latency"`           // of the last one
	Weight  *int      `json:"weight,omitempty"`  // that it asks for
	Percent bool      `json:"percent,omitempty"` // Weight is a share of the configured one

	Interval Duration `json:"interval"`
	Timeout  Duration `json:"timeout"`
	Rise     int      `json:"rise"`
	Fall     int      `json:"fall"`

	Good       uint64       `json:"good"`
	Bad        uint64       `json:"bad"`
	Impossible uint64       `json:"impossible"` // nothing was found out, for a reason of ours
	Signals    uint64       `json:"signals"`    // failures that packets of clients told of
	History    []CheckEvent `json:"history"`    // the newest first
}

// CheckEvent is one result of a check, or several in a row that were the same.
type CheckEvent struct {
	From    time.Time `json:"from"`
	At      time.Time `json:"at"` // of the last of them
	Times   int       `json:"times"`
	Outcome string    `json:"outcome"`
	State   string    `json:"state"` // after it
	Text    string    `json:"text"`
	Latency Duration  `json:"latency"`
}

// Standing is why a server has another weight than the configured one.
type Standing struct {
	// InForce is the weight that new connections are shared out by; nil: Weight.
	InForce *int   `json:"weight-in-force,omitempty"`
	State   string `json:"state,omitempty"` // by its checks: up, down or unknown; "": it has none
	Why     string `json:"why,omitempty"`   // InForce is not Weight, or what else is wrong
	Drain   *Drain `json:"drain,omitempty"` // it was taken out of service
}

// WeightInForce is the weight that new connections are shared out by.
func (s *Server) WeightInForce() int {
	if s.InForce != nil {
		return *s.InForce
	}
	return s.Weight
}
