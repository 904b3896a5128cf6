// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A File is one that is believed. It is to be closed.
type File struct {
	Header
	Elapsed time.Duration // since it was written
	in      *os.File
}

// maxFile is more than any director has to say.
const maxFile = 32 << 30

// Open opens a file of this host and finds out whether it is whole. Without a file the
// error is one of fs.ErrNotExist; any other says why what is there is not believed.
func Open(path string, now Header) (_ *File, err error) {
	in, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = in.Close() // only read
		}
	}()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case stat == nil || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return nil, errors.New("it belongs to another user")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	f := &File{in: in}
	if f.Header, err = check(in); err != nil {
		return nil, err
	}
	var same bool
	if f.Elapsed, same = f.Header.Elapsed(now); !same {
		return nil, errors.New("it is of another host, or from before the last boot")
	}
	return f, nil
}

// Records calls each for every record, in their order. Of a body nothing may be kept.
func (f *File) Records(each func(kind uint8, body []byte)) error {
	if _, err := f.in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := scan(f.in, each)
	return err
}

// Close closes the file.
func (f *File) Close() error { return f.in.Close() }

// check reads all of a file and says whether it is whole.
func check(in io.Reader) (Header, error) { return scan(in, nil) }

var errCut = errors.New("it was cut")

// scanner reads and sums up.
type scanner struct {
	in  *bufio.Reader
	sum uint32
}

// scan reads a file, and calls each, which may be nil, for its records. What was wrong is
// known at the end only.
func scan(file io.Reader, each func(kind uint8, body []byte)) (h Header, err error) {
	s := scanner{in: bufio.NewReaderSize(file, buffer)}
	first, err := s.line()
	if err != nil {
		return h, err
	}
	number, ok := bytes.CutPrefix(first, []byte(magic))
	if !ok {
		return h, errors.New("it is not a state file of vsnat")
	}
	if version, err := strconv.Atoi(string(number)); err != nil || version != Version {
		return h, fmt.Errorf("it is of version %.20q, and this vsnat knows %d", number, Version)
	}
	second, err := s.line()
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(second, &h); err != nil {
		return h, fmt.Errorf("its header: %w", err)
	}
	body := make([]byte, MaxBody)
	for count := uint64(0); ; count++ {
		var head [3]byte
		if err := s.read(head[:]); err != nil {
			return h, err
		}
		b := body[:binary.BigEndian.Uint16(head[1:])]
		if head[0] == endKind {
			return h, s.end(b, count)
		}
		if err := s.read(b); err != nil {
			return h, err
		}
		if each != nil {
			each(head[0], b)
		}
	}
}

// line reads one, without its end.
func (s *scanner) line() ([]byte, error) {
	b, err := s.in.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		return nil, errCut
	case err != nil && !errors.Is(err, bufio.ErrBufferFull):
		return nil, err
	case err != nil || len(b) > maxHeader:
		return nil, errors.New("it is not a state file of vsnat")
	}
	s.sum = crc32.Update(s.sum, castagnoli, b)
	return bytes.Clone(b[:len(b)-1]), nil
}

func (s *scanner) read(b []byte) error {
	if _, err := io.ReadFull(s.in, b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	} else if err != nil {
		return err
	}
	s.sum = crc32.Update(s.sum, castagnoli, b)
	return nil
}

// end reads the body of the last record and compares.
func (s *scanner) end(b []byte, count uint64) error {
	if len(b) != endBody {
		return errors.New("its end is damaged")
	}
	if err := s.read(b[:8]); err != nil {
		return err
	}
	sum := s.sum
	if err := s.read(b[8:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b) != count || binary.BigEndian.Uint32(b[8:]) != sum {
		return errors.New("it is damaged: its checksum is wrong")
	}
	if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind its end")
	}
	return nil
}
