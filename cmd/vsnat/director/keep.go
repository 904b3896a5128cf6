// SPDX-License-Identifier: Apache-2.0

package director

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/state"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// What one director leaves for the next: connections, orders of operators, what checks
// have found out, and whose way back is wrong. It is written when a director has served
// and stops, and read when the next one starts:
//
//	recall     orders and checks, before anything is decided about servers
//	resume     connections, with the first publish: no packet is judged by its rules
//	           and without them
//	takenUp    the next director serves: the file has done its work, and is removed
//	passOn     the service manager keeps the guard in force, if it can, so that the
//	           host answers nobody in the pause
//	keep       no packet is served any more, and the host is still kept away
//
// So what the file says is at most as old as the pause between the two; a director that
// was killed leaves none, and its connections end with a RST. What is configured is not
// in the file: of what is not configured any more, nothing goes on.

// keeping is what becomes of the state file.
type keeping struct {
	from    *state.File     // of the director before, until it is resumed
	checks  []health.Memory // of it
	serves  bool            // there is something to keep
	problem string          // why nothing can be kept
	guards  []*os.File      // of the director before, which are in force still
}

// Records of the director's own, as JSON.
const (
	recordDrain = uint8(nat.RecordKinds) + iota
	recordCheck
	recordWay
)

// keptDrain is an order, and what becomes of it.
type keptDrain struct {
	control.Drain
	Draining bool
}

// keptWay is a server that answers elsewhere.
type keptWay struct {
	Server netip.Addr
	Since  time.Time
	Text   string
}

// believed is how long checks are believed that nobody has made again.
const believed = time.Minute

// stateFile is where the state is kept; "" if it is not.
func (d *director) stateFile() string {
	switch f := d.cfg.StateFile; {
	case f == config.NoStateFile, f == "" && d.options.Socket == "":
		return ""
	case f == "":
		return strings.TrimSuffix(d.options.Socket, filepath.Ext(d.options.Socket)) + ".state"
	default:
		return f
	}
}

// letGo ends the guards of the director before.
func (k *keeping) letGo() {
	for _, f := range k.guards {
		_ = f.Close() // it was only held
	}
	k.guards = nil
}

// recall takes up orders and results of checks. A file that is not believed is put
// aside, and the start goes on as if there was none.
func (d *director) recall() {
	file := d.stateFile()
	if file == "" {
		return
	}
	now, err := state.Now(d.options.Version)
	if err == nil {
		d.keeping.from, err = state.Open(file, now)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.notBelieved(file, err)
		}
		return
	}
	old := d.keeping.from.Elapsed > believed
	err = d.keeping.from.Records(func(kind uint8, body []byte) {
		switch kind {
		case recordDrain:
			var j keptDrain
			if json.Unmarshal(body, &j) == nil && (j.Draining || j.Maintenance) {
				d.drains[drainKey{natKey(j.Service), j.Server}] = &drainJob{Drain: j.Drain, draining: j.Draining}
			}
		case recordCheck:
			var m health.Memory
			if json.Unmarshal(body, &m) != nil {
				break
			}
			if old {
				m = m.Stale()
			}
			d.keeping.checks = append(d.keeping.checks, m)
		case recordWay:
			var w keptWay
			if json.Unmarshal(body, &w) == nil {
				d.clientele.wrong[w.Server] = &wrongWay{since: w.Since, text: w.Text}
			}
		}
	})
	if err != nil { // it was whole a moment ago
		d.log.Error("state file", "file", file, "error", err)
	}
	d.followWaysBack(d.rules.Services())
}

// notBelieved puts a file aside.
func (d *director) notBelieved(file string, why error) {
	aside, err := state.PutAside(file)
	if err != nil {
		aside = "stays where it is: " + err.Error()
	}
	d.log.Warn("the state of the director before is not taken up", "file", file, "why", why, "now", aside)
	d.event(control.Event{Kind: control.EventNotResumed, Text: fmt.Sprintf("nothing of the director before goes on, %s is not believed: %v", file, why)})
}

// resume publishes the rules for the first time, together with the connections that the
// director before has left.
func (d *director) resume() {
	from := d.keeping.from
	d.keeping.from = nil
	defer from.Close() // only read
	var err error
	began := time.Now()
	done, ok := d.shards.Restore(from.Elapsed, d.rules.Publish, func(take func(nat.RecordKind, []byte)) {
		err = from.Records(func(kind uint8, body []byte) {
			if kind < uint8(nat.RecordKinds) {
				take(nat.RecordKind(kind), body)
			}
		})
	})
	if !ok {
		d.rules.Publish() // decide is about to hear why
		return
	}
	if err != nil {
		d.log.Error("state file", "error", err)
	}
	text := fmt.Sprintf("%d connections of the director before go on", done.Conns)
	lost := lostText(&done)
	if lost != "" {
		text += ", not those of which: " + lost
	}
	d.log.Info("resumed", "conns", done.Conns, "templates", done.Templates, "orders", len(d.drains), "lost", lost,
		"written", from.Elapsed.Round(time.Millisecond).String()+" ago", "by", from.By, "took", time.Since(began).Round(time.Millisecond))
	d.event(control.Event{Kind: control.EventResumed, Text: text})
}

// lostText says how many connections are lost for which reason.
func lostText(done *nat.Restored) string {
	var list []string
	for why, n := range done.Lost {
		if n > 0 {
			list = append(list, fmt.Sprintf("%s (%d)", nat.Loss(why), n))
		}
	}
	return strings.Join(list, ", ")
}

// passOn gives the service manager what keeps the guard in force until the next director
// has its own.
func (d *director) passOn(to *supervisor) {
	guard, ok := d.guard.(iface.LastingGuard)
	if to == nil || !ok || d.stateFile() == "" {
		return
	}
	f, err := guard.File()
	if err != nil {
		d.log.Warn("the host is not kept away in the pause", "error", err)
		return
	}
	to.store(f)
	_ = f.Close() // the manager has a copy
}

// takenUp is called when the director serves. What kept the host away until now is let go
// of. The file is removed, so that nobody takes
// up what has changed since; and it is found out in time if none could be written.
func (d *director) takenUp() {
	d.keeping.serves = true
	if len(d.keeping.guards) > 0 {
		d.supervisor.forget()
		d.keeping.letGo()
	}
	file := d.stateFile()
	if file == "" {
		return
	}
	err := os.Remove(file)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = state.Check(file)
	}
	if err != nil {
		d.keeping.problem = fmt.Sprintf("a restart will end all connections: the state file cannot be written: %v", err)
		d.log.Warn("the state file cannot be written: a restart will end all connections", "file", file, "error", err)
	}
}

// keep writes the file, of shards that were halted.
func (d *director) keep() {
	file := d.stateFile()
	if file == "" || !d.keeping.serves {
		return
	}
	began, conns := time.Now(), 0
	head, err := state.Now(d.options.Version)
	size := int64(0)
	if err == nil {
		size, err = state.Write(file, head, func(w *state.Writer) error {
			if err := d.keepOwn(w); err != nil {
				return err
			}
			return d.shards.Save(func(kind nat.RecordKind, body []byte) error {
				if kind == nat.RecordConn {
					conns++
				}
				return w.Record(uint8(kind), body)
			})
		})
	}
	if err != nil {
		d.log.Error("the state was not kept: connections end with this director", "file", file, "error", err)
		return
	}
	d.log.Info("state kept", "file", file, "conns", conns, "bytes", size, "took", time.Since(began).Round(time.Millisecond))
}

// keepOwn writes what the director knows itself.
func (d *director) keepOwn(w *state.Writer) error {
	for _, j := range d.drains {
		if err := keepJSON(w, recordDrain, keptDrain{j.Drain, j.draining}); err != nil {
			return err
		}
	}
	for _, m := range d.monitor.Memories() {
		if err := keepJSON(w, recordCheck, m); err != nil {
			return err
		}
	}
	for server, way := range d.clientele.wrong {
		if err := keepJSON(w, recordWay, keptWay{server, way.since, way.text}); err != nil {
			return err
		}
	}
	return nil
}

func keepJSON(w *state.Writer, kind uint8, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return w.Record(kind, body)
}
