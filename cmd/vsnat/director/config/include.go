// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// A configuration in several files. What they say is put together before it gets a
// meaning, so that they are judged as the one file that they make: lists go on in the
// next file, settings are given once. Files are read in the order in which they are
// named, those of a pattern by name, each behind what stands in the file that
// names it.

const (
	maxDepth = 8    // of files that include files
	maxFiles = 1000 // in all
)

// loader reads a file and those that it includes.
type loader struct {
	*problems
	files []loaded
	bytes int
	raw   rawFile // of all of them
}

// loaded is a file that was read.
type loaded struct {
	name string
	info fs.FileInfo // nil: it is not known what file it was
	at   Position    // where it was included
	open bool        // it is being read: what it includes is not read yet
}

// load takes up the text of a file that includes are relative to the folder of.
func (l *loader) load(name string, data []byte, info fs.FileInfo, dir string, at Position) {
	l.files = append(l.files, loaded{name, info, at, true})
	l.read = append(l.read, name)
	me := len(l.files) - 1
	l.file = name
	if l.bytes += len(data); l.bytes > MaxFile {
		others := ""
		if len(data) <= MaxFile {
			others = ", with those before it"
		}
		l.add(Position{}, "is it really a configuration?", "the file is larger than %d MiB%s", MaxFile>>20, others)
		return
	}
	tree := parseTree(data, l.problems)
	if tree == nil {
		return
	}
	var part rawFile
	decode(tree, reflect.ValueOf(&part).Elem(), "the configuration", l.problems)
	stamp(reflect.ValueOf(&part).Elem(), name)
	include := part.Include
	part.Include = nil
	l.merge(reflect.ValueOf(&l.raw).Elem(), reflect.ValueOf(&part).Elem(), "")
	for _, t := range include {
		if !t.refused {
			l.include(t, dir)
		}
	}
	l.file = name
	l.files[me].open = false
}

// include reads the files that one entry of include names.
func (l *loader) include(t text, dir string) {
	depth := 0
	for _, f := range l.files {
		if f.open {
			depth++
		}
	}
	switch {
	case dir == "":
		l.add(t.at, "give the whole configuration in one", "there are no other files here to include")
		return
	case t.value == "":
		l.add(t.at, "a path such as conf.d/*.yaml, or leave the key out", "the name of the file is empty")
		return
	case depth > maxDepth:
		l.add(t.at, "include it from a file further up", "files include files more than %d deep", maxDepth)
		return
	}
	pattern := t.value
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	paths := []string{pattern}
	if strings.ContainsAny(t.value, "*?[") {
		var err error
		if paths, err = filepath.Glob(pattern); err != nil {
			l.add(t.at, "a pattern such as conf.d/*.yaml", "%.60q is not a pattern", t.value)
			return
		}
		// What begins with a dot is not meant: editors keep their copies so.
		paths = slices.DeleteFunc(paths, func(p string) bool {
			return strings.HasPrefix(filepath.Base(p), ".") && !strings.HasPrefix(filepath.Base(pattern), ".")
		})
		slices.Sort(paths)
	}
	for _, path := range paths {
		l.includeFile(path, t)
	}
}

func (l *loader) includeFile(path string, t text) {
	if len(l.files) >= maxFiles {
		l.add(t.at, "put several into one", "there are more than %d files", maxFiles)
		return
	}
	data, info, err := readFile(path)
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) {
			l.add(t.at, refused.Problems[0].Hint, "%s: %s", path, refused.Problems[0].Message)
		} else {
			l.add(t.at, "check the path", "%v", err)
		}
		return
	}
	for i, f := range l.files {
		switch {
		case f.info == nil || !os.SameFile(f.info, info):
			continue
		case i == len(l.files)-1 && f.open:
			l.add(t.at, "put what is included into a folder of its own", "%s includes itself", path)
		case f.open:
			l.add(t.at, "remove one of the two", "%s includes what includes it, at %s:%d:%d", path, l.next(i).File, l.next(i).Line, l.next(i).Column)
		default:
			l.add(t.at, "remove one of the two", "%s is included twice, first at %s:%d:%d", path, f.at.File, f.at.Line, f.at.Column)
		}
		return
	}
	l.load(path, data, info, filepath.Dir(path), t.at)
}

// next is where the file at i, which is being read, includes the one that is being
// read next.
func (l *loader) next(i int) Position {
	for _, f := range l.files[i+1:] {
		if f.open {
			return f.at
		}
	}
	return Position{}
}

var positionType = reflect.TypeFor[Position]()

// stamp writes the name of the file into every place in a raw value.
func stamp(v reflect.Value, file string) {
	switch {
	case v.Type() == positionType:
		if at := v.Addr().Interface().(*Position); at.Line != 0 {
			at.File = file
		}
	case v.Type() == textType:
		if t := v.Addr().Interface().(*text); t.given() {
			t.at.File = file
		}
	case v.Type() == reflect.TypeFor[pair]():
		p := v.Addr().Interface().(*pair)
		p.key.at.File, p.value.at.File = file, file
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			stamp(v.Index(i), file)
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			stamp(v.Field(i), file)
		}
	}
}

// merge adds what one file says of a key to what others said before it.
func (l *loader) merge(into, from reflect.Value, key string) {
	switch {
	case into.Type() == positionType:
		if into.FieldByName("Line").Int() == 0 {
			into.Set(from)
		}
	case into.Type() == textType:
		l.once(into, from, key)
	case into.Type() == pairsType:
		l.mergePairs(into.Addr().Interface().(*pairs), from.Interface().(pairs))
	case into.Kind() == reflect.Slice:
		into.Set(reflect.AppendSlice(into, from))
	default:
		for i := range into.NumField() {
			name, _, _ := strings.Cut(into.Type().Field(i).Tag.Get("key"), ",")
			l.merge(into.Field(i), from.Field(i), name)
		}
	}
}

func (l *loader) once(into, from reflect.Value, key string) {
	first, again := into.Addr().Interface().(*text), from.Interface().(text)
	if first.given() && again.given() {
		l.add(again.at, "remove one of them", "%s is given twice, first in %s", key, first.at.from(again.at))
		return
	}
	if again.given() {
		*first = again
	}
}

func (l *loader) mergePairs(into *pairs, from pairs) {
	for _, p := range from {
		if i := slices.IndexFunc(*into, func(q pair) bool { return q.key.value == p.key.value }); i >= 0 {
			l.add(p.key.at, "remove one of them", "%.60q is given twice, first in %s", p.key.value, (*into)[i].key.at.from(p.key.at))
			continue
		}
		*into = append(*into, p)
	}
}
