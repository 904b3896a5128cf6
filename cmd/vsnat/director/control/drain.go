// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Taking servers out of service, gently, and for maintenance.

// What becomes of the connections that a drain has left at its deadline.
const (
	ThenLeave = "leave" // they go on; the default
	ThenReset = "reset" // they end: both ends are told, UDP goes to another server
)

// States of a Drain.
const (
	DrainDraining    = "draining"    // it has connections, and gets no new ones
	DrainEnding      = "ending"      // those left at the deadline are being ended
	DrainDrained     = "drained"     // it has none that is not over
	DrainLeft        = "left"        // the deadline has passed, and some are left
	DrainMaintenance = "maintenance" // it is out of service, until somebody says otherwise
)

// DrainSpec says which servers are meant, and how they are to get rid of their
// connections.
type DrainSpec struct {
	Server  netip.AddrPort `json:"server"`           // port 0: all of that address
	Service ServiceKey     `json:"service,omitzero"` // zero: in all services

	Deadline Duration `json:"deadline,omitzero"` // from now; 0: none, or that of the drain under way
	Then     string   `json:"then,omitempty"`    // "" means ThenLeave, or that of the drain under way
	// Maintenance has servers out of service until that is undone, whatever becomes of
	// drains and checks.
	Maintenance bool `json:"maintenance,omitempty"`
}

// Drain is a server that was taken out of service, for as long as it is.
type Drain struct {
	Service     ServiceKey     `json:"service"`
	Server      netip.AddrPort `json:"server"`
	State       string         `json:"state"`
	Maintenance bool           `json:"maintenance,omitempty"`
	By          string         `json:"by,omitempty"` // Caller
	Since       time.Time      `json:"since"`
	Deadline    time.Time      `json:"deadline,omitzero"`
	Then        string         `json:"then,omitempty"`
	Ended       time.Time      `json:"ended,omitzero"` // of a drain that is not under way any more
	Began       int            `json:"began"`          // connections at the beginning
	Active      int            `json:"active"`         // now
	Inactive    int            `json:"inactive"`       // now; those that are over are none to wait for
}

// Over reports whether there is nothing to wait for.
func (d *Drain) Over() bool { return d.State != DrainDraining && d.State != DrainEnding }

func drain(call func(Director, context.Context, DrainSpec) ([]Drain, error)) answer {
	return func(d Director, r request) (any, error) {
		var spec DrainSpec
		if err := r.into(&spec); err != nil {
			return nil, err
		}
		spec.Server = plain(spec.Server)
		if !spec.Service.IsZero() {
			spec.Service.Address = plain(spec.Service.Address)
		}
		return listed(call(d, r.Context(), spec))
	}
}

// Drain implements Director.
func (c *Client) Drain(ctx context.Context, spec DrainSpec) (list []Drain, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/drains", spec, &list)
	return list, err
}

// Undrain implements Director.
func (c *Client) Undrain(ctx context.Context, spec DrainSpec) (list []Drain, err error) {
	err = c.call(ctx, http.MethodDelete, "/v1/drains", spec, &list)
	return list, err
}

// Drains implements Director.
func (c *Client) Drains(ctx context.Context) ([]Drain, error) {
	return get[[]Drain](ctx, c, "/v1/drains")
}
