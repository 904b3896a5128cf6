// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
)

// Write puts a file in place that has the records which fill writes. With an error, fill's
// own or of the file, there is none of it, and what was there is there still.
func Write(path string, h Header, fill func(w *Writer) error) (size int64, err error) {
	f, err := create(path)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // of no use
			_ = os.Remove(f.Name())
		}
	}()
	head, err := h.lines()
	if err != nil {
		return 0, err
	}
	w := &Writer{out: bufio.NewWriterSize(f, buffer)}
	w.write(head)
	if err := fill(w); err != nil {
		return 0, err
	}
	w.end()
	if w.err == nil {
		w.err = w.out.Flush()
	}
	if w.err != nil {
		return 0, w.err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return w.size, os.Rename(f.Name(), path)
}

// A Writer takes the records of a file.
type Writer struct {
	out   *bufio.Writer
	sum   uint32
	size  int64
	count uint64
	head  [3]byte
	err   error
}

// Record adds a record: of any kind but 0, and with a body of at most MaxBody bytes, of
// which nothing is kept. The error is that of the file, if it has failed.
func (w *Writer) Record(kind uint8, body []byte) error {
	if kind == endKind || len(body) > MaxBody {
		return fmt.Errorf("no record of kind %d has %d bytes", kind, len(body))
	}
	w.record(kind, body)
	w.count++
	return w.err
}

func (w *Writer) record(kind uint8, body []byte) {
	w.head[0] = kind
	binary.BigEndian.PutUint16(w.head[1:], uint16(len(body)))
	w.write(w.head[:])
	w.write(body)
}

func (w *Writer) end() {
	var body [endBody]byte
	binary.BigEndian.PutUint64(body[:], w.count)
	w.head = [3]byte{endKind, 0, endBody}
	w.write(w.head[:])
	w.write(body[:8])
	binary.BigEndian.PutUint32(body[8:], w.sum)
	w.write(body[8:])
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	w.sum = crc32.Update(w.sum, castagnoli, b)
	w.size += int64(len(b))
	_, w.err = w.out.Write(b)
}
