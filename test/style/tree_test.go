// SPDX-License-Identifier: Apache-2.0

package style

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// module is the import path of the tree's root.
const module = "github.com/vsnat/vsnat"

// root is the tree's root, seen from this directory, where tests run.
const root = "../.."

// A file is one Go file of the tree.
type file struct {
	path    string // from the root, with slashes
	text    []byte
	fset    *token.FileSet
	syntax  *ast.File
	imports []string
}

func (f file) dir() string          { return path.Dir(f.path) }
func (f file) test() bool           { return strings.HasSuffix(f.path, "_test.go") }
func (f file) main() bool           { return f.syntax.Name.Name == "main" }
func (f file) lines() int           { return strings.Count(string(f.text), "\n") }
func (f file) line(p token.Pos) int { return f.fset.Position(p).Line }

// skipped are directories whose files are nobody's source.
func skipped(name string) bool {
	return name == "testdata" || name == ".git" || name == "vendor"
}

// texts calls do for each file of the tree that people write.
func texts(t *testing.T, do func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		switch path.Ext(name) {
		case ".go", ".md", ".yaml", ".mod":
		default:
			if path.Base(path.Dir(filepath.ToSlash(name))) != ".ci" {
				return nil
			}
		}
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			return nil // an editor's file that has just gone
		}
		if err != nil {
			return err
		}
		short, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		do(filepath.ToSlash(short), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// goFiles parses every Go file of the tree.
func goFiles(t *testing.T) []file {
	t.Helper()
	var files []file
	texts(t, func(name string, text []byte) {
		if path.Ext(name) != ".go" {
			return
		}
		f := file{path: name, text: text, fset: token.NewFileSet()}
		syntax, err := parser.ParseFile(f.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		f.syntax = syntax
		for _, i := range syntax.Imports {
			f.imports = append(f.imports, strings.Trim(i.Path.Value, `"`))
		}
		files = append(files, f)
	})
	// Fewer would mean that the walk looks in the wrong place.
	if len(files) < 50 {
		t.Fatalf("only %d Go files found", len(files))
	}
	return files
}
