// SPDX-License-Identifier: Apache-2.0

package style

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Every exported name says what it is. Constants and variables may share a
// comment: that of their group, that of the paragraph of the group, or, in the
// first paragraph, that of their type if it stands just before the group.
func TestDocumented(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test() || f.main() {
			continue
		}
		var before ast.Decl
		for _, d := range f.syntax.Decls {
			for _, n := range f.undocumented(d, before) {
				t.Errorf("%s:%d: %s has no comment", f.path, f.line(n.Pos()), n.Name)
			}
			before = d
		}
	}
}

// customary are methods that mean the same everywhere.
var customary = map[string]bool{"Error": true, "String": true, "Unwrap": true}

// undocumented returns the exported names of a declaration that lack a comment.
func (f file) undocumented(d, before ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		custom := d.Recv != nil && customary[d.Name.Name]
		if d.Doc == nil && d.Name.IsExported() && visible(d.Recv) && !custom {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		if d.Doc != nil && (d.Tok != token.TYPE || d.Lparen == token.NoPos) {
			return nil
		}
		return f.undocumentedSpecs(d, declaresType(before))
	}
	return nil
}

// undocumentedSpecs is undocumented for a group without a comment of its own,
// which follows the declaration of a documented type of some name, or of none.
func (f file) undocumentedSpecs(d *ast.GenDecl, after string) []*ast.Ident {
	var names []*ast.Ident
	shared := false // the paragraph has a comment
	end := 0        // line of the spec before
	for i, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil {
				names = append(names, s.Name)
			}
		case *ast.ValueSpec:
			kind, _ := s.Type.(*ast.Ident)
			switch {
			case s.Doc != nil:
				shared = true
			case i == 0:
				shared = kind != nil && kind.Name == after
			case f.line(s.Pos()) != end+1:
				shared = false
			}
			end = f.line(s.End())
			for _, n := range s.Names {
				if n.IsExported() && !shared && s.Comment == nil {
					names = append(names, n)
				}
			}
		}
	}
	return names
}

// declaresType returns the name of the type that a commented declaration is of.
func declaresType(d ast.Decl) string {
	g, ok := d.(*ast.GenDecl)
	if !ok || g.Tok != token.TYPE || g.Doc == nil || len(g.Specs) != 1 {
		return ""
	}
	return g.Specs[0].(*ast.TypeSpec).Name.Name
}

// visible reports whether a receiver's type is exported; no receiver is as good.
func visible(recv *ast.FieldList) bool {
	if recv == nil {
		return true
	}
	x := recv.List[0].Type
	for {
		switch t := x.(type) {
		case *ast.StarExpr:
			x = t.X
		case *ast.IndexExpr:
			x = t.X
		case *ast.IndexListExpr:
			x = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

// A comment on a function begins with its name, so that it reads alone.
func TestCommentNamesFunction(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test() || f.main() {
			continue
		}
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Doc == nil || !fn.Name.IsExported() || !visible(fn.Recv) {
				continue
			}
			if first, _, _ := strings.Cut(fn.Doc.Text(), " "); strings.TrimRight(first, ",:\n") != fn.Name.Name {
				t.Errorf("%s:%d: the comment on %s begins with %q", f.path, f.line(fn.Pos()), fn.Name.Name, first)
			}
		}
	}
}
