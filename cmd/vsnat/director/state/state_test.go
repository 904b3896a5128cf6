// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func header(t *testing.T) Header {
	t.Helper()
	h, err := Now("v1")
	must(t, err)
	return h
}

// write writes a file with records that tell their number.
func write(t *testing.T, path string, h Header, n int) {
	t.Helper()
	size, err := Write(path, h, func(w *Writer) error {
		for i := range n {
			if err := w.Record(uint8(1+i%255), bytes.Repeat([]byte{byte(i)}, i*7%300)); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	if info, err := os.Stat(path); err != nil || info.Size() != size || info.Mode() != 0o600 {
		t.Fatalf("%d bytes were written: %v, %v", size, info, err)
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	h := header(t)
	for _, n := range []int{0, 1, 5000} {
		write(t, path, h, n) // over the one before
		later := h
		later.Since += 1500 * time.Millisecond
		f, err := Open(path, later)
		must(t, err)
		if f.Elapsed != 1500*time.Millisecond || f.By != "v1" || !f.Written.Equal(h.Written) {
			t.Errorf("%+v", f)
		}
		i := 0
		must(t, f.Records(func(kind uint8, body []byte) {
			if kind != uint8(1+i%255) || !bytes.Equal(body, bytes.Repeat([]byte{byte(i)}, i*7%300)) {
				t.Fatalf("record %d of %d is kind %d, %x", i, n, kind, body)
			}
			i++
		}))
		must(t, f.Close())
		if i != n {
			t.Errorf("%d of %d records", i, n)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if must(t, err); len(entries) != 1 {
		t.Errorf("left beside it: %v", entries)
	}
	if _, err := Open(path+".not", h); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Files that are not to be believed. Each is put aside.
func TestNotBelieved(t *testing.T) {
	h := header(t)
	h.Since -= time.Second
	original := filepath.Join(t.TempDir(), "state")
	write(t, original, h, 9)
	whole, err := os.ReadFile(original)
	must(t, err)
	other := func(change func(h *Header)) []byte {
		h := h
		change(&h)
		path := filepath.Join(t.TempDir(), "other")
		write(t, path, h, 9)
		b, err := os.ReadFile(path)
		must(t, err)
		return b
	}
	version := func(text string) []byte {
		return bytes.Replace(whole, []byte("state 1\n"), []byte("state "+text+"\n"), 1)
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		return b
	}
	fewer := append(bytes.Clone(whole[:len(whole)-endBody]), make([]byte, endBody)...)
	for what, c := range map[string]struct {
		file    []byte
		because string
	}{
		"of 0 bytes":               {nil, "cut"},
		"cut in its first line":    {whole[:9], "cut"},
		"cut in its header":        {whole[:40], "cut"},
		"cut in the middle":        {whole[:len(whole)/2], "cut"},
		"without its end":          {whole[:len(whole)-endBody-3], "cut"},
		"without its last byte":    {whole[:len(whole)-1], "cut"},
		"with a byte more":         {append(bytes.Clone(whole), 0), "behind its end"},
		"of an older version":      {version("0"), `version "0"`},
		"of a newer version":       {version("2"), `version "2"`},
		"of no version":            {version("one"), `version "one"`},
		"of another host":          {other(func(h *Header) { h.Boot = "another" }), "another host"},
		"from the future":          {other(func(h *Header) { h.Since += time.Hour }), "another host"},
		"with a bit in a record":   {flipped(len(whole) / 2), "damaged"},
		"with a bit in the header": {flipped(bytes.Index(whole, []byte("v1"))), "damaged"},
		"with another checksum":    {flipped(len(whole) - 1), "damaged"},
		"with another count":       {fewer, "damaged"},
		"of something else":        {[]byte("services: []\n"), "not a state file"},
		"of one long line":         {bytes.Repeat([]byte("x"), 1<<20), "not a state file"},
		"of zeros":                 {make([]byte, 1<<20), "not a state file"},
		"with a long header":       {append([]byte("vsnat state 1\n"), bytes.Repeat([]byte(" "), 1<<20)...), "not a state file"},
		"with no header":           {[]byte("vsnat state 1\nhello\n"), "header"},
	} {
		path := filepath.Join(t.TempDir(), "state")
		must(t, os.WriteFile(path, c.file, 0o600))
		f, err := Open(path, header(t))
		if err == nil {
			_ = f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.because) {
			t.Errorf("%s: %v, want: %s", what, err, c.because)
		}
		aside, err := PutAside(path)
		if must(t, err); aside != path+".bad" {
			t.Errorf("%s: put aside as %s", what, aside)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: is still there: %v", what, err)
		}
	}
}

// What is no file of ours is neither read, waited for, nor moved.
func TestNotAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	target := filepath.Join(t.TempDir(), "target")
	write(t, target, header(t), 3)
	for what, make := range map[string]func() error{
		"a directory": func() error { return os.Mkdir(path, 0o700) },
		"a FIFO":      func() error { return unix.Mkfifo(path, 0o600) },
		"a symlink":   func() error { return os.Symlink(target, path) },
	} {
		must(t, make())
		if f, err := Open(path, header(t)); err == nil {
			_ = f.Close()
			t.Errorf("%s was opened", what)
		}
		if aside, err := PutAside(path); err == nil {
			t.Errorf("%s was put aside as %s", what, aside)
		}
		must(t, os.Remove(path))
	}
}

// A file that can't be written leaves what was there, and nothing else.
func TestCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	h := header(t)
	write(t, path, h, 3)
	before, err := os.ReadFile(path)
	must(t, err)

	refused := errors.New("the records' own")
	if _, err := Write(path, h, func(w *Writer) error { must(t, w.Record(1, nil)); return refused }); !errors.Is(err, refused) {
		t.Errorf("an error of who fills it: %v", err)
	}
	for kind, size := range map[uint8]int{0: 1, 1: MaxBody + 1} {
		if _, err := Write(path, h, func(w *Writer) error { return w.Record(kind, make([]byte, size)) }); err == nil {
			t.Errorf("a record of kind %d with %d bytes was written", kind, size)
		}
	}
	full := fmt.Sprintf("/proc/self/fd/none/%s", "state")
	if err := Check(full); err == nil {
		t.Error("a folder that is not there will do")
	}
	if _, err := Write(full, h, func(*Writer) error { return nil }); err == nil {
		t.Error("a folder that is not there was written to")
	}
	must(t, os.WriteFile(path+".new", []byte("left by one that was killed"), 0o400))
	must(t, Check(path))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left beside it: %v, %v", entries, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it has changed: %v", err)
	}
}

// TestDiskFull writes to a file system that has less room than the records need.
func TestDiskFull(t *testing.T) {
	limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	limit.Max = old.Max
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)) // EFBIG stands for ENOSPC: a write that is refused in the middle
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &old)) }()
	path := filepath.Join(t.TempDir(), "state")
	_, err := Write(path, header(t), func(w *Writer) error {
		for range 100 {
			if err := w.Record(1, make([]byte, 10<<10)); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("a disk that is full: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// FuzzState: whatever is in a file, reading it ends, with no more memory than a buffer;
// and a file that is believed has as many records as it says.
func FuzzState(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	h := Header{Boot: "b", Since: 1}
	if _, err := Write(path, h, func(w *Writer) error { return errors.Join(w.Record(1, []byte("one")), w.Record(2, nil)) }); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("vsnat state 1\n{}\n\x01\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, bodies := uint64(0), 0
		_, err := scan(bytes.NewReader(b), func(_ uint8, body []byte) { records++; bodies += len(body) })
		if bodies > len(b) {
			t.Errorf("%d bytes of records in %d", bodies, len(b))
		}
		if err == nil && records != binary.BigEndian.Uint64(b[len(b)-endBody:]) {
			t.Errorf("%d records", records)
		}
	})
}
