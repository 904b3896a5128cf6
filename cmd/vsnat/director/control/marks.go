// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
)

// MarkSpec is a rule that gives packets a mark, by which a service may be named.
// What it does not say matches everything; of several rules that match, the one
// that was added first counts.
type MarkSpec struct {
	Mark  uint32       `json:"mark"`            // not 0
	Proto string       `json:"proto,omitempty"` // TCP, UDP or SCTP; "": all of them
	From  netip.Prefix `json:"from,omitzero"`   // masked
	To    netip.Prefix `json:"to,omitzero"`     // masked; a single address becomes one of the director's
	// MinPort..MaxPort are those of the destination; both 0: any.
	MinPort   uint16 `json:"min-port,omitempty"`
	MaxPort   uint16 `json:"max-port,omitempty"`
	Interface string `json:"interface,omitempty"` // name of the link it came in by
}

// String is the rule in one line: "mark 1 tcp from 192.0.2.0/24 to 192.0.2.9/32
// ports 80-81 by eth0".
func (m MarkSpec) String() string {
	s := fmt.Sprintf("%s %d", Mark, m.Mark)
	if m.Proto != "" {
		s += " " + m.Proto
	}
	if m.From.IsValid() {
		s += " from " + m.From.String()
	}
	if m.To.IsValid() {
		s += " to " + m.To.String()
	}
	if m.MaxPort != 0 {
		s += " ports " + PortRange(m.MinPort, m.MaxPort)
	}
	if m.Interface != "" {
		s += " by " + m.Interface
	}
	return s
}

// PortRange is a range of ports as it is written: "80" or "80-81".
func PortRange(lowest, highest uint16) string {
	if lowest == highest {
		return fmt.Sprint(lowest)
	}
	return fmt.Sprintf("%d-%d", lowest, highest)
}

// AddMark implements Director.
func (c *Client) AddMark(ctx context.Context, m MarkSpec) error {
	return c.call(ctx, http.MethodPost, "/v1/marks", m, nil)
}

// DeleteMark implements Director.
func (c *Client) DeleteMark(ctx context.Context, m MarkSpec) error {
	return c.call(ctx, http.MethodDelete, "/v1/marks", m, nil)
}

// Marks implements Director.
func (c *Client) Marks(ctx context.Context) ([]MarkSpec, error) {
	return get[[]MarkSpec](ctx, c, "/v1/marks")
}

func marks(d Director, r request) (any, error) { return listed(d.Marks(r.Context())) }

func addMark(d Director, r request) (any, error) {
	var m MarkSpec
	if err := r.into(&m); err != nil {
		return nil, err
	}
	return done{}, d.AddMark(r.Context(), m)
}

func deleteMark(d Director, r request) (any, error) {
	var m MarkSpec
	if err := r.into(&m); err != nil {
		return nil, err
	}
	return done{}, d.DeleteMark(r.Context(), m)
}
