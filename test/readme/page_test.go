// SPDX-License-Identifier: Apache-2.0

package readme

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// A block is a fenced block of the page.
type block struct {
	language string
	line     int // in the page, of its first line
	text     string
}

// page is README.md in its parts.
type page struct {
	blocks []block
	code   []string // pieces of code in the running text
}

var inline = regexp.MustCompile("`([^`]+)`")

func readPage(t *testing.T) page {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var p page
	var open *block
	for i, l := range strings.Split(string(text), "\n") {
		language, fence := strings.CutPrefix(l, "```")
		switch {
		case fence && open != nil:
			p.blocks = append(p.blocks, *open)
			open = nil
		case fence:
			open = &block{language: language, line: i + 2}
		case open != nil:
			open.text += l + "\n"
		default:
			for _, m := range inline.FindAllStringSubmatch(l, -1) {
				p.code = append(p.code, m[1])
			}
		}
	}
	if open != nil {
		t.Fatalf("README.md:%d: the block does not end", open.line)
	}
	return p
}

// of returns the blocks of a language, of which there must be some.
func (p page) of(t *testing.T, language string) []block {
	t.Helper()
	var found []block
	for _, b := range p.blocks {
		if b.language == language {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		t.Fatalf("README.md has no %s block", language)
	}
	return found
}
