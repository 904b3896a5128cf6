// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"net/http"
	"time"
)

// A whole configuration at once, for good or on trial.

// MaxConfigBody is the largest body in bytes of a request that has a whole
// configuration in it.
const MaxConfigBody = 64 << 20

// ApplySpec is a configuration that is to be the one in force.
type ApplySpec struct {
	Config string `json:"config"` // YAML that says all: no include, no environment
	// File is the path of the file that it is, absolute; for people, and so that the
	// director knows its own. "" if it is none.
	File string `json:"file,omitempty"`
	// Confirm is how long the director waits for Confirm before it takes everything
	// back, 1 s to MaxConfirm; 0: there is nothing to confirm.
	Confirm Duration `json:"confirm,omitzero"`
	Try     bool     `json:"try,omitempty"` // tell what would be done, and do nothing
}

// MaxConfirm is the longest time that a confirmation may take.
const MaxConfirm = Duration(24 * time.Hour)

// Applied is what Apply did, or would do.
type Applied struct {
	Reloaded
	Pending *Pending `json:"pending,omitempty"` // what waits for confirmation now
}

// Pending is a configuration that is in force, and waits for its confirmation.
type Pending struct {
	File    string    `json:"file,omitempty"`
	By      string    `json:"by"` // who applied it: Caller
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`   // then it is taken back
	Changes int       `json:"changes"` // how many there were
}

func apply(d Director, r request) (any, error) {
	var spec ApplySpec
	if err := r.into(&spec); err != nil {
		return nil, err
	}
	return d.Apply(r.Context(), spec)
}

func filed(d Director, r request) (any, error) {
	text, err := d.Filed(r.Context())
	return document(text), err
}

// Apply implements Director.
func (c *Client) Apply(ctx context.Context, spec ApplySpec) (Applied, error) {
	var a Applied
	err := c.call(ctx, http.MethodPost, "/v1/apply", spec, &a)
	return a, err
}

// Confirm implements Director.
func (c *Client) Confirm(ctx context.Context) (Pending, error) {
	var p Pending
	err := c.call(ctx, http.MethodPost, "/v1/confirm", nil, &p)
	return p, err
}

// Rollback implements Director.
func (c *Client) Rollback(ctx context.Context) (Reloaded, error) {
	var r Reloaded
	err := c.call(ctx, http.MethodPost, "/v1/rollback", nil, &r)
	return r, err
}

// Filed implements Director.
func (c *Client) Filed(ctx context.Context) (string, error) {
	return get[string](ctx, c, "/v1/file")
}
