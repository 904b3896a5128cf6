// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What happens in a director, told one thing at a time.

// EventKind is the kind of an event. New kinds may come.
type EventKind string

// Kinds of events.
const (
	EventStarted EventKind = "started"
	EventStopped EventKind = "stopped"

	// By somebody: Event.By.
	EventServiceAdded   EventKind = "service-added"
	EventServiceEdited  EventKind = "service-edited"
	EventServiceDeleted EventKind = "service-deleted"
	EventServerAdded    EventKind = "server-added"
	EventServerEdited   EventKind = "server-edited"
	EventServerDeleted  EventKind = "server-deleted"
	EventChanged        EventKind = "changed" // anything else that can be configured
	EventReloaded       EventKind = "reloaded"
	EventReloadRefused  EventKind = "reload-refused"
	EventApplied        EventKind = "applied"    // a whole configuration, perhaps on trial
	EventConfirmed      EventKind = "confirmed"  // what was on trial stays
	EventTakenBack      EventKind = "taken-back" // it does not

	// Of servers and their checks.
	EventServerUp     EventKind = "server-up"
	EventServerDown   EventKind = "server-down"
	EventAsymmetry    EventKind = "asymmetry"
	EventDrainStarted EventKind = "drain-started"
	EventDrainEnded   EventKind = "drain-ended"

	// Of the host and its network.
	EventLinkUp          EventKind = "link-up"
	EventLinkDown        EventKind = "link-down"
	EventPortOpen        EventKind = "port-open" // a link is served
	EventPortClosed      EventKind = "port-closed"
	EventAddressConflict EventKind = "address-conflict" // another station claims an address of ours
	EventAddressTaken    EventKind = "address-taken"    // an address is not claimed, since another station has it
	EventAddressClaimed  EventKind = "address-claimed"  // it is claimed after all

	// Of the director itself.
	EventResumed     EventKind = "resumed"     // what the director before has left goes on
	EventNotResumed  EventKind = "not-resumed" // what it has left is not believed
	EventProblem     EventKind = "problem"     // Health tells of something new
	EventProblemOver EventKind = "problem-over"
	EventDropped     EventKind = "dropped" // packets, for a reason that an operator wants to hear of

	EventMissed EventKind = "missed" // events are gone that nobody read in time
)

// Event is something that happened. What does not apply is zero.
type Event struct {
	Seq     uint64         `json:"seq"` // 1, 2, … since the start of the director
	Time    time.Time      `json:"time"`
	Kind    EventKind      `json:"kind"`
	Service ServiceKey     `json:"service,omitzero"`
	Server  netip.AddrPort `json:"server,omitzero"`
	Link    string         `json:"link,omitempty"`
	By      string         `json:"by,omitempty"` // who changed something: Caller, or a part of the director
	Text    string         `json:"text"`         // what happened and why, in one sentence
	Missed  uint64         `json:"missed,omitempty"`
}

// EventQuery selects events.
type EventQuery struct {
	After  uint64 // those with a higher Seq; 0: all that are kept
	Follow bool   // wait for more, until the context or the director ends
}

// callerKey is the key of a caller in a context that has no connection.
type callerKey struct{}

// WithCaller is ctx with somebody on whose behalf calls are made.
func WithCaller(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// Caller says on whose behalf a call is made: "uid 0 pid 4711" of the other end
// of the socket, or what WithCaller said; "" if nobody knows.
func Caller(ctx context.Context) string {
	if who, ok := ctx.Value(callerKey{}).(string); ok {
		return who
	}
	if c, ok := ctx.Value(connKey{}).(*guest); ok {
		if cred, err := peer(c.Conn); err == nil {
			return fmt.Sprintf("uid %d pid %d", cred.Uid, cred.Pid)
		}
	}
	return ""
}

// feed is an answer whose parts are sent as they come. It ends with the context,
// which ends with the client. begin, if not nil, can still refuse it.
type feed struct {
	stays bool // for longer than it takes to read it
	kind  string
	begin func() error
	read  func(ctx context.Context, send func([]byte) error) error
}

// maxFeeds bounds the clients that stay.
const maxFeeds = 16

// serveFeed answers with a feed. The client may be silent for as long as it likes,
// but has to take what it is sent.
func (s *HTTPServer) serveFeed(w http.ResponseWriter, req *http.Request, f feed) (begun bool, err error) {
	if f.stays {
		defer s.feeds.Add(-1)
		if s.feeds.Add(1) > maxFeeds {
			return false, Refuse(CodeUnavailable, fmt.Sprintf("%d clients follow already", maxFeeds), "end one of them")
		}
	}
	rc := http.NewResponseController(w)
	send := func(line []byte) error {
		if err := rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		return rc.Flush()
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return false, err
	}
	if f.begin != nil {
		if err := f.begin(); err != nil {
			return false, err
		}
	}
	w.Header().Set("Content-Type", f.kind)
	if err := send(nil); err != nil { // the header, so that nobody waits for it
		return true, errors.Join(err, f.read(ended, send))
	}
	return true, f.read(req.Context(), send)
}

// ended is for a feed that nobody is there to read any more.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func events(d Director, r request) (any, error) {
	var q EventQuery
	for name, list := range r.URL.Query() {
		var err error
		switch value := list[len(list)-1]; name {
		case "after":
			q.After, err = strconv.ParseUint(value, 10, 64)
		case "follow":
			q.Follow, err = strconv.ParseBool(value)
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, Refuse(CodeInvalid, fmt.Sprintf("parameter %.20q: %v", name, err), "parameters: after (a number), follow (true or false)")
		}
	}
	return feed{stays: q.Follow, kind: "application/jsonl", read: func(ctx context.Context, send func([]byte) error) error {
		return d.Events(ctx, q, func(e Event) error {
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return send(append(line, '\n'))
		})
	}}, nil
}

// Events implements Director.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(Event) error) error {
	values := url.Values{"after": {strconv.FormatUint(q.After, 10)}, "follow": {strconv.FormatBool(q.Follow)}}
	return c.call(ctx, http.MethodGet, "/v1/events?"+values.Encode(), nil, &eventLines{each: each})
}

// eventLines is a writer that takes lines of events.
type eventLines struct {
	each func(Event) error
	rest []byte
}

func (l *eventLines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.rest = rest
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, Refuse(CodeUnavailable, "an event is not understood: "+strings.TrimPrefix(err.Error(), "json: "), "is it a director of another version?")
		}
		if err := l.each(e); err != nil {
			return 0, err
		}
	}
}
