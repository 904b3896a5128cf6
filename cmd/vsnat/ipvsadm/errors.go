// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"errors"
	"fmt"
	"io"
)

// Exit codes.
const (
	exitOK      = 0
	exitMissing = 1   // a service to be listed is not there
	exitUsage   = 2   // the words are wrong, or there is no director
	exitRefused = 255 // the director said no; an option is unknown
)

// An Error is a director's refusal.
type Error struct {
	Text string // in the kernel's words where it has any
	Hint string // the next step, "" for none
}

func (e *Error) Error() string { return e.Text }

// Is compares by text, so that a refusal is the same one whoever made it.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Text == e.Text
}

// The refusals of the kernel that scripts may look for.
var (
	ErrServiceExists = &Error{Text: "Service already exists"}
	ErrNoService     = &Error{Text: "No such service"}
	ErrNotDefined    = &Error{Text: "Service not defined"}
	ErrServerExists  = &Error{Text: "Destination already exists"}
	ErrNoServer      = &Error{Text: "No such destination"}
	ErrNoScheduler   = &Error{Text: "Scheduler or persistence engine not found"}
	ErrRange         = &Error{Text: "Numerical result out of range"}
	ErrPermission    = &Error{Text: "Permission denied (you must be root)"}
	ErrDaemonRuns    = &Error{Text: "Daemon has already run"}
	ErrNoDaemon      = &Error{Text: "No daemon is running"}
	ErrInvalid       = &Error{Text: "Invalid operation.  Possibly wrong module version, address not unicast, ..."}
)

// An Unavailable error means that there is no director to talk to.
type Unavailable struct {
	Err  error
	Hint string // the next step, "" for none
}

func (e *Unavailable) Error() string { return e.Err.Error() }

func (e *Unavailable) Unwrap() error { return e.Err }

// A usageError is a command line that can't be understood.
type usageError struct {
	text string
	code int
	// goesOn is set where a restore reads on after this line, as the tool does
	// when only its option scanner complains.
	goesOn bool
}

func (e *usageError) Error() string { return e.text }

// wrong is the usual usageError.
func wrong(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), code: exitUsage}
}

// tryHelp is the error for words that don't begin with a command.
func tryHelp(program string) error {
	return &usageError{
		text: fmt.Sprintf("Try `%s -h' or '%s --help' for more information.", program, program),
		code: exitRefused,
	}
}

// report writes err for the user and returns the exit code that goes with it.
func report(w io.Writer, err error) int {
	code := explain(w, err)
	var line *lineError
	if errors.As(err, &line) {
		hint(w, fmt.Sprintf("that is line %d of the input", line.number))
	}
	return code
}

func explain(w io.Writer, err error) int {
	var usage *usageError
	var nobody *Unavailable
	var refusal *Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(w, usage.text)
		return usage.code
	case errors.As(err, &nobody):
		fmt.Fprintf(w, "Can't initialize ipvs: %v\nAre you sure that a vsnat director is running?\n", nobody)
		hint(w, nobody.Hint)
		return exitUsage
	case errors.As(err, &refusal):
		fmt.Fprintln(w, refusal.Text)
		hint(w, refusal.Hint)
		return exitRefused
	default:
		fmt.Fprintln(w, err)
		return exitRefused
	}
}

func hint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintln(w, "hint:", hint)
	}
}
