// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// MaxBody is the largest request body in bytes, but for a whole configuration.
const MaxBody = 1 << 20

// Limits of a connection. A request is small and comes at once; an answer may
// be megabytes to a slow terminal.
const (
	headerTime = 5 * time.Second
	readTime   = 10 * time.Second
	writeTime  = 30 * time.Second
	idleTime   = 60 * time.Second
	headerSize = 16 << 10
	// leaveTime is how long Serve waits for answers that are on their way.
	leaveTime = 2 * time.Second
)

// HTTPServer offers a Director on a socket.
type HTTPServer struct {
	director Director
	log      *slog.Logger
	feeds    atomic.Int32 // clients that stay
}

// NewServer makes a server; log receives what concerns the operator.
func NewServer(d Director, log *slog.Logger) *HTTPServer { return &HTTPServer{director: d, log: log} }

// connKey is the key of a request's connection in its context.
type connKey struct{}

// Serve answers requests until ctx is done, and then finishes the ones it
// has. It closes l. The error is nil if ctx ended it.
func (s *HTTPServer) Serve(ctx context.Context, l *Listener) error {
	if err := s.serve(ctx, l, s.handler(l)); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

func (s *HTTPServer) serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerSize,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), leaveTime)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(&gate{Listener: l, limit: MaxConns})
	if stop() {
		server.Close() // not by ctx: the listener failed
	} else {
		<-stopped
	}
	l.Close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// handler is every route behind the check of who asks.
func (s *HTTPServer) handler(l *Listener) http.Handler {
	mux := s.mux(routes(), "the paths of this version are in /v1/openapi.yaml")
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := req.Context().Value(connKey{}).(*guest)
		if err := l.permitted(c.Conn); err != nil {
			s.log.Warn("control: refused", "error", err)
			reply(w, payload{}, err)
			return
		}
		mux.ServeHTTP(w, req)
	})
}

// mux has each of the routes answered, and anything else refused with a hint.
func (s *HTTPServer) mux(list []route, hint string) *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range list {
		mux.HandleFunc(r.pattern(), func(w http.ResponseWriter, req *http.Request) { s.call(w, req, r) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		reply(w, payload{}, Refuse(CodeNotFound, fmt.Sprintf("there is no %s %.100q", req.Method, req.URL.Path), hint))
	})
	return mux
}

// call reads the request, has it answered and writes the answer. The
// connection is safe from being closed for a newer one only in between.
func (s *HTTPServer) call(w http.ResponseWriter, req *http.Request, r route) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, r.maxBody()))
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			err = Refuse(CodeTooLarge, fmt.Sprintf("a request has at most %d bytes", r.maxBody()), "send one change per request")
		} else {
			err = Refuse(CodeInvalid, "the request ended early", "")
		}
		reply(w, payload{}, err)
		return
	}
	c := req.Context().Value(connKey{}).(*guest)
	c.begin()
	v, err := r.answer(s.director, request{req, body})
	var out payload
	t := &text{ResponseWriter: w}
	if err == nil {
		switch v := v.(type) {
		case stream:
			t.kind = v.kind
			err = v.write(t)
		case feed:
			t.begun, err = s.serveFeed(w, req, v)
			if t.begun && err != nil {
				panic(http.ErrAbortHandler) // the client has left, or takes nothing
			}
		default:
			out, err = encode(v)
		}
	}
	c.end()
	if err != nil {
		if known := new(Error); !errors.As(err, &known) && req.Context().Err() == nil {
			s.log.Error("control: request failed", "method", req.Method, "path", req.URL.Path, "error", err)
		}
	}
	switch {
	case t.begun && err != nil:
		panic(http.ErrAbortHandler)
	case !t.begun:
		reply(w, out, err)
	}
}

// payload is the body of an answer.
type payload struct {
	kind string
	body []byte
}

// document is an answer that is YAML already.
type document string

// stream is an answer that may be too long to be held in memory.
type stream struct {
	kind  string
	write func(io.Writer) error
}

// text is where a stream goes. Until it begins, an error can be the answer
// instead; then all that can be done is to cut the connection.
type text struct {
	http.ResponseWriter
	kind  string
	begun bool
}

func (t *text) Write(b []byte) (int, error) {
	if !t.begun {
		t.begun = true
		t.Header().Set("Content-Type", t.kind)
	}
	return t.ResponseWriter.Write(b)
}

func encode(v any) (payload, error) {
	if text, ok := v.(document); ok {
		return payload{"application/yaml", []byte(text)}, nil
	}
	body, err := json.Marshal(v)
	return payload{"application/json", body}, err
}

// reply writes an answer, or the error instead of it.
func reply(w http.ResponseWriter, out payload, err error) {
	status := http.StatusOK
	if err != nil {
		e := Refusal(err)
		if status = codes[e.Code].status; status == 0 {
			status = http.StatusInternalServerError
		}
		out, _ = encode(e)
	}
	w.Header().Set("Content-Type", out.kind)
	w.WriteHeader(status)
	w.Write(out.body)
}
