// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// From bytes to a tree, before any key is looked at. A configuration uses a
// small part of YAML: one document of mappings, lists and one-line scalars.
// The rest (anchors, aliases, tags, merge keys, block scalars, explicit keys)
// is refused while it is still a list of tokens: what does not exist can't
// expand to gigabytes, and the parser, which recurses, meets bounded depth.

// maxFlow is how deep [ and { may nest, maxColumn how far to the right a block
// may start: both are far more than any configuration has.
const (
	maxFlow   = 8
	maxColumn = 120
)

const initHint = "vsnat config init prints a file to start from"

// parseTree makes a tree of the file's text, or notes why not and returns nil.
// A nil tree without a problem does not occur.
func parseTree(data []byte, p *problems) ast.Node {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if at, what := badByte(data); what != "" {
		p.add(at, "a configuration is plain text in UTF-8", "%s", what)
		return nil
	}

	tokens := lexer.Tokenize(string(data))
	if !allowed(tokens, p) {
		return nil
	}
	// Duplicate keys are found by decode, which knows where the first one is.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			p.add(place(syntax.Token), "indent with spaces, write \"key: value\", and quote values that begin with one of [ { * & ! % @ `", "%s", syntax.Message)
			return nil
		}
		p.add(Position{}, "", "not YAML: %v", err)
		return nil
	}

	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		p.add(Position{}, initHint, "the configuration is empty")
		return nil
	}
	if len(bodies) > 1 {
		p.add(start(bodies[1]), "a configuration is one document: remove the line ---", "a second document begins here")
		return nil
	}
	return bodies[0]
}

// badByte finds the first byte that no text has, and says what it is.
func badByte(data []byte) (Position, string) {
	line, begin := 1, 0
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		what := ""
		switch {
		case r == utf8.RuneError && size == 1:
			what = "a byte that is not UTF-8"
		case r == 0:
			what = "a NUL byte"
		case r < ' ' && r != '\n' && r != '\t' || r == 0x7f:
			what = "a control character"
		}
		if what != "" {
			return Position{Line: line, Column: utf8.RuneCount(data[begin:i]) + 1}, what
		}
		i += size
		if r == '\n' {
			line, begin = line+1, i
		}
	}
	return Position{}, ""
}

// unused are the tokens of YAML that a configuration has no use for.
func unused(t token.Type) (what, hint string) {
	switch t {
	case token.AnchorType:
		return "an anchor (&)", "if it is part of a value, put the value in quotes"
	case token.AliasType:
		return "an alias (*)", "put a pattern in quotes: \"*\""
	case token.TagType:
		return "a tag (!)", "if it is part of a value, put the value in quotes"
	case token.MergeKeyType:
		return "a merge key (<<)", "write the keys out"
	case token.LiteralType, token.FoldedType:
		return "a block scalar (| or >)", "every value fits on one line"
	case token.MappingKeyType:
		return "an explicit key (?)", "write \"key: value\""
	case token.DirectiveType:
		return "a directive (%)", "if it is part of a value, put the value in quotes"
	}
	return "", ""
}

// allowed reports whether the tokens are of the kinds and the depth that a
// configuration has, and notes the first that is not.
func allowed(tokens token.Tokens, p *problems) bool {
	flow := 0
	for i, t := range tokens {
		if what, hint := unused(t.Type); what != "" {
			p.add(place(t), hint, "%s is not used in a configuration", what)
			return false
		}
		switch t.Type {
		case token.MappingStartType:
			if flow > 0 && i > 0 && strings.HasSuffix(tokens[i-1].Value, "$") {
				p.add(place(tokens[i-1]), "in [ ] and { } write \"${NAME}\"", "a reference to the environment is not in quotes")
				return false
			}
			flow++
		case token.SequenceStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		}
		deep := flow > maxFlow || t.Type == token.SequenceEntryType && t.Position.Column > maxColumn
		if deep {
			p.add(place(t), initHint, "nested too deep")
			return false
		}
	}
	return true
}

// place is where a token begins.
func place(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{}
	}
	return Position{Line: t.Position.Line, Column: t.Position.Column}
}

// start is where the text of a node begins. The token of a block mapping is
// its first colon; it begins at its first key.
func start(n ast.Node) Position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return start(n.Values[0])
		}
	case *ast.MappingValueNode:
		return place(n.Key.GetToken())
	}
	return place(n.GetToken())
}
