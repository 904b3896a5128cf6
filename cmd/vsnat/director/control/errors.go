// SPDX-License-Identifier: Apache-2.0

package control

import "net/http"

// Code says which kind of refusal an error is.
type Code string

// Codes. The first ten are those that IPVS has too.
const (
	CodeServiceExists Code = "service-exists"
	CodeNoService     Code = "no-service"  // the service to edit or delete
	CodeNotDefined    Code = "not-defined" // the service whose servers are meant
	CodeServerExists  Code = "server-exists"
	CodeNoServer      Code = "no-server"
	CodeNoScheduler   Code = "no-scheduler"
	CodeNotPermitted  Code = "not-permitted"
	CodeNoMemory      Code = "no-memory"
	CodeInvalid       Code = "invalid"
	CodeNotUnicast    Code = "not-unicast" // a server's address that no host can have

	CodeRuleExists  Code = "rule-exists" // SNAT or mark rule that is there or overlaps
	CodeNoRule      Code = "no-rule"
	CodeConfig      Code = "config"     // the configuration file is refused
	CodePending     Code = "pending"    // another configuration waits for its confirmation
	CodeNoPending   Code = "no-pending" // none does
	CodeNotFound    Code = "not-found"  // no such path or version
	CodeTooLarge    Code = "too-large"
	CodeUnavailable Code = "unavailable" // starting, stopping or not running
	CodeInternal    Code = "internal"
)

// codes is what is to be known of each code: the status it travels with, and
// the text ipvsadm prints for it ("" for its catch-all).
var codes = map[Code]struct {
	status int
	kernel string
}{
	CodeServiceExists: {http.StatusConflict, "Service already exists"},
	CodeNoService:     {http.StatusNotFound, "No such service"},
	CodeNotDefined:    {http.StatusNotFound, "Service not defined"},
	CodeServerExists:  {http.StatusConflict, "Destination already exists"},
	CodeNoServer:      {http.StatusNotFound, "No such destination"},
	CodeNoScheduler:   {http.StatusUnprocessableEntity, "Scheduler or persistence engine not found"},
	CodeNotPermitted:  {http.StatusForbidden, "Permission denied (you must be root)"},
	CodeNoMemory:      {http.StatusInsufficientStorage, "Memory allocation problem"},
	CodeInvalid:       {http.StatusUnprocessableEntity, ""},
	CodeNotUnicast:    {http.StatusUnprocessableEntity, ""},
	CodeRuleExists:    {http.StatusConflict, ""},
	CodeNoRule:        {http.StatusNotFound, ""},
	CodeConfig:        {http.StatusUnprocessableEntity, ""},
	CodePending:       {http.StatusConflict, ""},
	CodeNoPending:     {http.StatusNotFound, ""},
	CodeNotFound:      {http.StatusNotFound, ""},
	CodeTooLarge:      {http.StatusRequestEntityTooLarge, ""},
	CodeUnavailable:   {http.StatusServiceUnavailable, ""},
	CodeInternal:      {http.StatusInternalServerError, ""},
}

// Kernel is the text ipvsadm prints for this refusal by the kernel
// (libipvs.c, ipvs_strerror).
func (c Code) Kernel() string {
	if text := codes[c].kernel; text != "" {
		return text
	}
	return "Invalid operation.  Possibly wrong module version, address not unicast, ..."
}

// Error is a refusal that the caller can do something about.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"error"`          // no capital, no full stop
	Hint    string `json:"hint,omitempty"` // the next step
}

// Error is the message, without the hint.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare by code, so that an error is the same one on
// both sides of the socket.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Refuse makes an *Error.
func Refuse(code Code, message, hint string) error {
	return &Error{Code: code, Message: message, Hint: hint}
}
