// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Level is how bad a finding is.
type Level string

// Levels.
const (
	Failure Level = "failure" // part of the cluster does not work
	Warning Level = "warning" // it works, but not as it should, or not for long
	Unknown Level = "unknown" // it could not be looked at
)

// Finding is one thing that is wrong.
type Finding struct {
	Check string `json:"check"` // the subject; see Checks
	Level Level  `json:"level"`
	// Text is what is wrong: one line, without a capital and a full stop.
	Text string `json:"text"`
	// Fix is the command that mends it; "": none that would be right everywhere.
	Fix string `json:"fix,omitempty"`
	// Where says on which host Fix is to be run; "": on this one.
	Where string `json:"where,omitempty"`
}

// checkNames are the subjects in the order in which they are examined.
func checkNames() []string {
	var names []string
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}

// checks are all there are, in the order of a report: the host, its network, the
// servers.
var checks = []struct {
	name    string
	examine func(*examination)
}{
	{"privileges", privileges},
	{"director", directorProblems},
	{"links", links},
	{"offloads", offloads},
	{"mtu", mtus},
	{"addresses", addresses},
	{"routes", routes},
	{"forwarding", forwarding},
	{"rp-filter", sourceFilters},
	{"guard", guards},
	{"ports", takenPorts},
	{"tun", tunDevice},
	{"namespaces", userNamespaces},
	{"memory", memory},
	{"ulimits", limits},
	{"clock", clock},
	{"servers", answering},
	{"gateways", gateways},
	{"server-mtu", serverMTUs},
	{"direct-routing", directServers},
}

// Options say what is examined.
type Options struct {
	// Config is what is or is going to be served; nil: nothing, and the host
	// alone is examined.
	Config *config.Config
	// Running is the director at work; nil: there is none.
	Running *control.Health
}

// Report is what was found.
type Report struct {
	Checks   []string  `json:"checks"`   // what was examined
	Findings []Finding `json:"findings"` // in the order of Checks; not nil
}

// Bad reports whether there is a failure or a warning.
func (r *Report) Bad() bool {
	for _, f := range r.Findings {
		if f.Level != Unknown {
			return true
		}
	}
	return false
}

// examination is one run.
type examination struct {
	facts   *facts
	plan    plan
	running *control.Health
	answers answers
	name    string // of the check at work
	found   []Finding
}

// Examine looks at the host of the calling thread's network namespace, and asks
// the servers. The error says that the host could not be read at all.
func Examine(ctx context.Context, o Options) (*Report, error) {
	f, err := readFacts(o.Running == nil)
	if err != nil {
		return nil, err
	}
	cfg := o.Config
	if cfg == nil {
		cfg = config.Default()
	}
	e := &examination{facts: f, plan: newPlan(cfg, f, o.Running != nil), running: o.Running}
	if o.Config != nil && f.permitted() {
		if e.answers, err = ask(ctx, &e.plan); err != nil {
			return nil, err
		}
	}
	return e.report(), nil
}

// report runs all checks.
func (e *examination) report() *Report {
	e.found = []Finding{}
	for _, c := range checks {
		e.name = c.name
		c.examine(e)
	}
	return &Report{Checks: checkNames(), Findings: e.found}
}

// find notes what is mended on this host.
func (e *examination) find(level Level, fix, text string) {
	e.found = append(e.found, Finding{Check: e.name, Level: level, Text: text, Fix: fix})
}

// findAt notes what is mended on another one.
func (e *examination) findAt(where string, level Level, fix, text string) {
	e.found = append(e.found, Finding{Check: e.name, Level: level, Text: text, Fix: fix, Where: where})
}
