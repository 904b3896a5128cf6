// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"time"
)

// Profiles of the process that answers, for go tool pprof and go tool trace.

// MaxProfile is the longest time that a profile may be taken for.
const MaxProfile = 60 * time.Second

const defaultProfile = 10 * time.Second

// timed are the profiles that take time; the others are of the moment.
var timed = map[string]struct {
	start func(io.Writer) error
	stop  func()
}{
	"profile": {pprof.StartCPUProfile, pprof.StopCPUProfile},
	"trace":   {trace.Start, trace.Stop},
}

// ProfileNames are those that Profile knows: profile is that of the processor.
func ProfileNames() []string {
	return []string{"profile", "trace", "heap", "allocs", "goroutine", "block", "mutex", "threadcreate"}
}

func profile(_ Director, r request) (any, error) {
	name, query := r.PathValue("name"), r.URL.Query()
	if !slices.Contains(ProfileNames(), name) {
		return nil, Refuse(CodeNotFound, fmt.Sprintf("there is no profile %.40q", name), fmt.Sprintf("one of: %q", ProfileNames()))
	}
	debug, _ := strconv.Atoi(query.Get("debug")) // anything else is 0, as for net/http/pprof
	span := defaultProfile
	if text := query.Get("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if span = time.Duration(n) * time.Second; err != nil || n < 1 || span > MaxProfile {
			return nil, Refuse(CodeInvalid, fmt.Sprintf("%.20q is not a number of seconds", text), fmt.Sprintf("1 to %d", int(MaxProfile.Seconds())))
		}
	}
	var b bytes.Buffer
	t, takesTime := timed[name]
	if !takesTime {
		if err := pprof.Lookup(name).WriteTo(&b, debug); err != nil {
			return nil, err
		}
		return stream{"application/octet-stream", func(w io.Writer) error { _, err := b.WriteTo(w); return err }}, nil
	}
	return feed{
		stays: true, kind: "application/octet-stream",
		begin: func() error {
			if err := t.start(&b); err != nil {
				return Refuse(CodeUnavailable, err.Error(), "another one is being taken: wait for its end")
			}
			return nil
		},
		read: func(ctx context.Context, send func([]byte) error) error {
			select {
			case <-time.After(span):
			case <-ctx.Done():
			}
			t.stop()
			return send(b.Bytes())
		},
	}, nil
}

// Profile writes a profile of the director's process, for go tool pprof, or with
// text as text. One that takes time is taken for span; 0: 10 s.
func (c *Client) Profile(ctx context.Context, name string, span time.Duration, text bool, to io.Writer) error {
	values := url.Values{}
	if span > 0 {
		values.Set("seconds", strconv.Itoa(int(span.Seconds())))
	}
	if text {
		values.Set("debug", "2")
	}
	return c.call(ctx, http.MethodGet, "/v1/debug/pprof/"+url.PathEscape(name)+"?"+values.Encode(), nil, to)
}
