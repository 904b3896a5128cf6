// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Many changes at once, for whoever restores a table: each alone would make the
// director publish all of it.

// MaxChanges is how many changes one request may have.
const MaxChanges = 1000

// Operations of a Change.
const (
	OpAddService    = "add-service"
	OpEditService   = "edit-service"
	OpDeleteService = "delete-service"
	OpAddServer     = "add-server"
	OpEditServer    = "edit-server"
	OpDeleteServer  = "delete-server"
)

// Change is one of the changes of services and servers that a Director makes.
type Change struct {
	Op      string      `json:"op"`
	Service ServiceSpec `json:"service"`         // its key alone, unless it is added or edited
	Server  ServerSpec  `json:"server,omitzero"` // its address alone where it is deleted
}

// Make has d make the change.
func (c Change) Make(ctx context.Context, d Director) error {
	switch c.Op {
	case OpAddService:
		return d.AddService(ctx, c.Service)
	case OpEditService:
		return d.EditService(ctx, c.Service)
	case OpDeleteService:
		return d.DeleteService(ctx, c.Service.ServiceKey)
	case OpAddServer:
		return d.AddServer(ctx, c.Service.ServiceKey, c.Server)
	case OpEditServer:
		return d.EditServer(ctx, c.Service.ServiceKey, c.Server)
	case OpDeleteServer:
		return d.DeleteServer(ctx, c.Service.ServiceKey, c.Server.Address)
	}
	return c.Unknown()
}

// Unknown refuses a change whose Op is none of those.
func (c Change) Unknown() error {
	return Refuse(CodeInvalid, fmt.Sprintf("unknown change %.20q", c.Op), "the changes of this version are in /v1/openapi.yaml")
}

// Refusal is an error as it crosses the socket: the *Error that it wraps, with the
// text of the whole; one that wraps none is internal. Of nil it is nil.
func Refusal(err error) *Error {
	if err == nil {
		return nil
	}
	e := new(Error)
	if !errors.As(err, &e) {
		e = &Error{Code: CodeInternal}
	}
	return &Error{e.Code, err.Error(), e.Hint}
}

// Changes implements Director, in as many requests as it takes.
func (c *Client) Changes(ctx context.Context, list []Change) ([]*Error, error) {
	results := make([]*Error, 0, len(list))
	for len(list) > 0 {
		n := min(len(list), MaxChanges)
		var part []*Error
		if err := c.call(ctx, http.MethodPost, "/v1/changes", list[:n], &part); err != nil {
			return results, err
		}
		if len(part) != n {
			return results, Refuse(CodeUnavailable, fmt.Sprintf("%d changes were answered with %d results", n, len(part)), "is it a director of another version?")
		}
		results, list = append(results, part...), list[n:]
	}
	return results, nil
}

func changes(d Director, r request) (any, error) {
	var list []Change
	if err := r.into(&list); err != nil {
		return nil, err
	}
	if len(list) > MaxChanges {
		return nil, Refuse(CodeTooLarge, fmt.Sprintf("a request has at most %d changes", MaxChanges), "send several")
	}
	for i := range list {
		list[i].Service.Address, list[i].Server.Address = plain(list[i].Service.Address), plain(list[i].Server.Address)
	}
	return listed(d.Changes(r.Context(), list))
}
