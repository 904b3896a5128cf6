// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// What happened, for vsnat events and for counting. Events come from decide and
// from goroutines that may take a lock; the packet loop has them come by tell.

// Parts of the director that change something by themselves: Event.By.
const (
	byReload = "reload"
	byTrial  = "trial" // of a configuration that nobody confirmed
	byChecks = "checks"
)

// event notes an event. It waits for nobody who reads them.
func (d *director) event(e control.Event) { d.events.Add(e) }

// Events implements control.Director.
func (d *director) Events(ctx context.Context, q control.EventQuery, each func(control.Event) error) error {
	return d.events.Read(ctx, q, d.stopped, each)
}

// eventsOfOps are the kinds of events of changes that can be asked for.
var eventsOfOps = map[string]control.EventKind{
	control.OpAddService: control.EventServiceAdded, control.OpEditService: control.EventServiceEdited, control.OpDeleteService: control.EventServiceDeleted,
	control.OpAddServer: control.EventServerAdded, control.OpEditServer: control.EventServerEdited, control.OpDeleteServer: control.EventServerDeleted,
}

// changed logs and notes a change that was made. An event that says nothing of its
// kind is one of EventChanged.
func (d *director) changed(e control.Event) {
	if e.Kind == "" {
		e.Kind = control.EventChanged
	}
	d.log.Info("changed", "what", e.Text)
	d.event(e)
}

// eventOf is the event of a change of a configuration.
func eventOf(c config.Change, by string) control.Event {
	e := control.Event{By: by, Text: c.String(), Service: c.Service.ServiceKey, Server: c.Server.Address}
	if c.Object == config.ObjectService || c.Object == config.ObjectServer {
		e.Kind = eventsOfOps[string(c.Op)+"-"+string(c.Object)]
	}
	return e
}

// noteProblems tells of problems that are new, and of those that are over.
func (d *director) noteProblems(now []string) {
	for _, text := range now {
		if _, known := d.problems[text]; !known {
			d.problems[text] = time.Now()
			d.event(control.Event{Kind: control.EventProblem, Text: text})
		}
	}
	for text := range d.problems {
		if !slices.Contains(now, text) {
			delete(d.problems, text)
			d.event(control.Event{Kind: control.EventProblemOver, Text: text})
		}
	}
}
